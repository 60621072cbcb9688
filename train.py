"""Train PoF3D on unposed images. `python train.py --help` lists the options."""

from pof3d.commands.train import main

if __name__ == "__main__":
    main()
