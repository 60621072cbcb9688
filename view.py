"""Look at a trained network in the browser: objects, depth, meshes, photographs, a run."""

from pof3d.commands.view import main

if __name__ == "__main__":
    main()
