"""Label photographs with the camera poses that a trained discriminator estimates from them."""

from pof3d.commands.estimate_poses import main

if __name__ == "__main__":
    main()
