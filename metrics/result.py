"""What a metric returns, and the lines in which the tools of the field expect it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dnnlib import append_line
from torch_utils import distributed


@dataclass(frozen=True)
class MetricResult:
    """The numbers of one metric.

    name: what was measured, with the count of samples and the detector that were used. values: by
    name. seconds: that it took. count: of samples that was asked for, None for the metric's own.
    finished: seconds since 1970.
    """

    name: str
    values: dict[str, float]
    seconds: float = 0.0
    count: int | None = None
    finished: float = 0.0

    @classmethod
    def of(cls, name: str, numbers: Mapping[str, float]) -> "MetricResult":
        """numbers: by what is appended to the name to tell them apart; '' is the main one."""
        return cls(name, {name + suffix: number for suffix, number in numbers.items()})

    def json_line(self, network: str | None) -> str:
        """In the format of the field.

        Args:
            network: file name of the snapshot.
        """
        record = {
            "results": self.values,
            "metric": self.name,
            "total_time": self.seconds,
            "num_gpus": distributed.world_size(),
            "num_gen": self.count,
            "snapshot_pkl": network,
            "timestamp": self.finished,
        }
        return json.dumps(record, allow_nan=False)  # NaN is not JSON

    def append_to(self, folder: Path, network: str | None) -> None:
        """Add a line to the run folder's metric-NAME.jsonl.

        Raises:
            OSError: where it cannot be written; the file is then as it was.
        """
        append_line(folder / f"metric-{self.name}.jsonl", self.json_line(network))
