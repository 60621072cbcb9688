"""Inverse renderers from old checkpoints: the entry `IR` of files trained with GeoD."""

import math
import os
from pathlib import Path

from dnnlib import UserError
from training.files import safe_unpickle
from training.files.legacy import errors_naming, read_bytes, restore
from training.files.safe_unpickle import Record, as_dict
from training.networks.image_formation import SIZE, Frustum
from training.networks.inverse_renderer import ROTATION_RANGE, SHIFT_RANGE, InverseRenderer

MAX_WIDTH = 1024  # channels


def read_inverse_renderer(path: str | os.PathLike) -> InverseRenderer:
    """The inverse renderer of an old checkpoint. Nothing that the file names is run or imported.

    Raises:
        UserError: one line, for anything else, however hostile.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"network file {path} does not exist")
    with errors_naming(path):
        data = read_bytes(path)
        stored = as_dict(safe_unpickle.load(data)).get("IR")
        if not isinstance(stored, Record):
            raise UserError("it holds no inverse renderer ('IR'): it was not trained with GeoD")
        return load_inverse_renderer(stored, len(data))


def load_inverse_renderer(stored: Record, available_bytes: int) -> InverseRenderer:
    """Build the network that a record describes and fill it.

    Args:
        stored: the entry `IR` of an old checkpoint.
        available_bytes: of the whole file, more than which its weights cannot take.

    Raises:
        UserError: where tensors are missing or misshapen, or images are formed otherwise than here.
    """
    frustum, width = _frustum(stored), _width(stored)
    return restore(lambda: InverseRenderer(frustum, width), stored, available_bytes)


def _width(stored: Record) -> int:
    first = stored.tensor("netD.network.0.weight")
    width = first.size[0] if first is not None and first.size else 0
    if not (0 < width <= MAX_WIDTH and width % 16 == 0):
        raise UserError(f"{stored.name!r} is not an inverse renderer")
    return width


def _frustum(stored: Record) -> Frustum:
    """Depths as the file has them; everything else must be as it is here."""
    settings = stored.settings()
    near, far = (_number(settings, key) for key in ("min_depth", "max_depth"))
    frustum = Frustum(near, far)
    for key, expected in (
        ("resolution", SIZE),
        ("border_depth", frustum.border),
        ("rot_center_depth", frustum.center),
        ("min_amb_light", 0),
        ("max_amb_light", 1),
        ("min_diff_light", 0),
        ("max_diff_light", 1),
        ("xyz_rotation_range", math.degrees(ROTATION_RANGE)),
        ("xy_translation_range", SHIFT_RANGE[0]),
        ("z_translation_range", SHIFT_RANGE[2]),
    ):
        found = _number(settings, key)
        if not math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-9):
            raise UserError(f"{stored.name!r} has {key} {found}, not {expected:g}")
    return frustum


def _number(settings: dict, key: str) -> float:
    value = settings.get(key)
    if not isinstance(value, int | float) or not abs(value) < 1e6:
        raise UserError(f"its inverse renderer's setting {key} is missing or makes no sense")
    return float(value)
