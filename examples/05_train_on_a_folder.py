"""Train on a folder of photographs, then draw from the newest network.

    python examples/05_train_on_a_folder.py photographs runs 1000

The number is the length in thousand images. Further words are settings, as data.resolution=64;
`python train.py --help-settings` lists them. Run again, it goes on where it ended.
"""

import sys
from pathlib import Path

import torch

import pof3d
from training.run.start import Request, start

if __name__ == "__main__":  # with several GPUs, each process imports this file
    photographs, outdir, kimg, *settings = sys.argv[1:]
    changes = {"data.path": photographs, "data.crop": "center", "run.kimg": float(kimg)}
    start(Request("custom", changes, tuple(settings), Path(outdir), resume="auto", desc=None))

    generator = pof3d.load_network(outdir).generator  # the newest of the newest run
    with torch.no_grad():
        objects = pof3d.Objects.from_seeds(generator, range(16), truncation=0.7)
        pof3d.save_image_grid(Path(outdir) / "samples.png", objects.own_view().image)
    print(f"{outdir}/samples.png shows what was learned")
