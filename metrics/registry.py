"""Names -> metrics, and the lines in which the tools of the field expect their results."""

import difflib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dnnlib import UserError, append_line
from torch_utils import distributed

from .context import Context
from .detectors import EFFICIENTNET
from .quality import QualityName, measure_quality
from .views import (
    measure_identity,
    measure_pose_distribution,
    measure_pose_error,
    measure_relief,
    measure_view_consistency,
)

# Any number of samples can stand in their place: fid5k_full.
_QUALITY = ("fid50k_full", "fid50k", "kid50k_full", "pr50k3_full", "is50k", "fd50k_full-effnet")
_OTHERS = {
    "pose_error": measure_pose_error,
    "pose_distribution": measure_pose_distribution,
    "view_consistency": measure_view_consistency,
    "relief": measure_relief,
    "identity_consistency": lambda context: measure_identity(context, context.detector),
    "identity_consistency-effnet": lambda context: measure_identity(context, EFFICIENTNET),
}
NAMES = (*_QUALITY, *_OTHERS)


class Result(NamedTuple):
    """name: what was measured, with count and detector. values: by name. count: of samples that was
    asked for, None for the metric's own. finished: seconds since 1970."""

    name: str
    values: dict[str, float]
    seconds: float
    count: int | None
    finished: float

    def json_line(self, network: str | None) -> str:
        """In the format of the field. network: file name of the snapshot."""
        record = {
            "results": self.values,
            "metric": self.name,
            "total_time": self.seconds,
            "num_gpus": distributed.world_size(),
            "num_gen": self.count,
            "snapshot_pkl": network,
            "timestamp": self.finished,
        }
        return json.dumps(record)

    def append_to(self, folder: Path, network: str | None) -> None:
        """Add a line to the run folder's metric-NAME.jsonl."""
        append_line(folder / f"metric-{self.name}.jsonl", self.json_line(network))


def check_names(names: Iterable[str]) -> None:
    """Raises UserError for a name that is not a metric's."""
    for name in names:
        if name not in _OTHERS and QualityName.parse(name) is None:
            close = difflib.get_close_matches(name, NAMES, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"unknown metric '{name}'{hint}: there are {', '.join(NAMES)}")


def compute(name: str, context: Context) -> Result:
    """Called in all processes alike; all get the same result, or an error.

    Raises UserError for an unknown name, and where the network, the data or the detector lack what
    the metric needs.
    """
    check_names([name])
    started = time.time()
    quality = QualityName.parse(name)
    found = measure_quality(quality, context) if quality else _OTHERS[name](context)
    values = {found.name + suffix: number for suffix, number in found.numbers.items()}
    finished = time.time()
    return Result(found.name, values, finished - started, context.count, finished)
