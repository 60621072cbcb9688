"""Draw samples from a trained network: images, the poses they are seen from, shapes."""

from pof3d.commands.gen_samples_pose import main

if __name__ == "__main__":
    main()
