"""Project photographs: find the objects of a trained network that look like them."""

from pof3d.commands.project import main

if __name__ == "__main__":
    main()
