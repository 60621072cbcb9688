"""How the files beside this one were made from full-size old checkpoints and their expected values.

    python -m tests.data.legacy.reduce FOLDER

FOLDER holds legacy_{pof3d,eg3d}.pkl and legacy_{pof3d,eg3d}_expected.npz. Weights are rounded to 16
significant bits, which changes the networks' outputs by some 1e-5 and lets bzip2 save two fifths;
of the expected images every fourth pixel stays, of raw images and depths every second. The
instructions of the pickles stay as they were written.
"""

import bz2
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from training.files import safe_unpickle
from training.files.safe_unpickle import Record, StoredTensor

STRIDES = {"image": 4, "image_raw": 2, "depth": 2}
DROPPED_BITS = 8  # of the 24 of a float32's significand


def reduce_pickle(data: bytearray) -> bytes:
    root = safe_unpickle.load(memoryview(data))
    networks = {id(root[key]): root[key] for key in ("G", "D", "G_ema") if root[key]}
    for tensor in (tensor for network in networks.values() for tensor in tensors(network)):
        if tensor.storage.dtype == torch.float32:
            bits = np.frombuffer(tensor.storage.data, np.uint32)  # a view of `data`
            half = 1 << (DROPPED_BITS - 1)
            bits[:] = (bits.astype(np.uint64) + half >> DROPPED_BITS << DROPPED_BITS).astype(
                np.uint32
            )
    return bz2.compress(bytes(data))


def tensors(module: Record) -> Iterator[StoredTensor]:
    state = module.settings()
    for found in (*state["_parameters"].values(), *state["_buffers"].values()):
        if found is not None:
            yield found
    for child in state["_modules"].values():
        yield from tensors(child)


def main(folder: Path) -> None:
    here = Path(__file__).parent
    for name in ("pof3d", "eg3d"):
        reduced = reduce_pickle(bytearray((folder / f"legacy_{name}.pkl").read_bytes()))
        (here / f"{name}.pkl.bz2").write_bytes(reduced)
        with np.load(folder / f"legacy_{name}_expected.npz") as file:
            arrays = {
                key: file[key][..., :: STRIDES[key], :: STRIDES[key]]
                if key in STRIDES
                else file[key]
                for key in file.files
            }
        np.savez_compressed(here / f"{name}_expected.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
