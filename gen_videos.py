"""Turn the objects of a trained network before the camera: a GIF or an MP4, a tile per seed."""

from pof3d.commands.gen_videos import main

if __name__ == "__main__":
    main()
