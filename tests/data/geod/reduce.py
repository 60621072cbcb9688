"""How the files beside this one were made of the reference's full set of tensors.

    python tests/data/geod/reduce.py FULL_SET

What is left out is checked all the same where the full set lies:
`python -m tests.parity FULL_SET`.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

LEFT_OUT = {
    "geod_small_seed0": {"grad_of/canon_im", "grad_of/canon_albedo", "canon_normal"},
    "geod_full_seed0": {"recon_im", "features_recon", "features_input"},
}
MOST_VALUES = 600  # of a parameter: they follow from a rule, so that a few are enough


def main(source: Path, target: Path) -> None:
    for path in sorted(source.glob("geod_*")):
        left_out = LEFT_OUT.get(path.stem, set())
        small = path.stem.startswith("geod_small_params")
        if not left_out and not small:
            shutil.copyfile(path, target / path.name)
            continue
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files if key not in left_out}
        if small:
            arrays = {key: value for key, value in arrays.items() if value.size <= MOST_VALUES}
        np.savez_compressed(target / path.name, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent)
