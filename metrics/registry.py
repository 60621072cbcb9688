"""Names -> metrics."""

import difflib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from dnnlib import UserError

from .context import Context
from .detectors import EFFICIENTNET
from .quality import QualityName, measure_quality
from .result import MetricResult
from .views import (
    measure_depth_error,
    measure_identity,
    measure_pose_distribution,
    measure_pose_error,
    measure_pose_flip_consistency,
    measure_relief,
    measure_view_consistency,
)

# Any number of samples can stand in their place: fid5k_full.
_QUALITY = ("fid50k_full", "fid50k", "kid50k_full", "pr50k3_full", "is50k", "fd50k_full-effnet")
_OTHERS: dict[str, Callable[[Context], MetricResult]] = {
    "pose_error": measure_pose_error,
    "pose_distribution": measure_pose_distribution,
    "pose_flip_consistency": measure_pose_flip_consistency,
    "view_consistency": measure_view_consistency,
    "relief": measure_relief,
    "depth_error": measure_depth_error,
    "identity_consistency": lambda context: measure_identity(context, context.detector),
    "identity_consistency-effnet": lambda context: measure_identity(context, EFFICIENTNET),
}
NAMES = (*_QUALITY, *_OTHERS)
NONE = "none"  # the field's way to ask for no metric


def parse_names(text: str) -> tuple[str, ...]:
    """'fid50k_full, relief' -> ('fid50k_full', 'relief'), each once; 'none' and '' -> ().

    Raises:
        UserError: for a name that is not a metric's.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if [name.lower() for name in names] == [NONE]:
        return ()
    check_names(names)
    return names


def check_names(names: Iterable[str]) -> None:
    """Do nothing if all names are metrics'.

    Raises:
        UserError: for a name that is not.
    """
    for name in names:
        if name not in _OTHERS and QualityName.parse(name) is None:
            close = difflib.get_close_matches(name, NAMES, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"unknown metric '{name}'{hint}: there are {', '.join(NAMES)}")


def compute(name: str, context: Context) -> MetricResult:
    """Measure one metric. Called in all processes alike; all get the same result, or an error.

    Raises:
        UserError: for an unknown name; where the network, the data or the detector lack what the
            metric needs; where the result is not a number.
    """
    check_names([name])
    started = time.time()
    quality = QualityName.parse(name)
    try:
        found = measure_quality(quality, context) if quality else _OTHERS[name](context)
    except torch.linalg.LinAlgError as error:
        raise UserError(f"{name} cannot be computed: {str(error).splitlines()[0]}") from error
    for key, value in found.values.items():
        if not math.isfinite(value):
            raise UserError(
                f"{key} is {value}: there are too few images or samples, or the network's images "
                "are not finite"
            )
    finished = time.time()
    return replace(found, seconds=finished - started, count=context.count, finished=finished)
