"""Image quality: FID and its kin, and which photographs and samples each of them looks at."""

import re
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dnnlib import UserError
from torch_utils.images import to_uint8

from . import scores
from .context import Context, ImageSet
from .detectors import EFFICIENTNET, INCEPTION, Detector
from .result import MetricResult
from .runner import BATCH
from .statistics import Moments, cached_on_disk

_NAME = re.compile(r"(fid|fd|kid|kd|pr|is)(\d+(?:\.\d+)?)k3?(_full)?(?:-(inception|effnet))?")
_DETECTORS = {"inception": INCEPTION, "effnet": EFFICIENTNET}

# FID and KID are names of distances between Inception's features; other features get other names.
_GENERIC = {"fid": "fd", "kid": "kd"}
_NEIGHBORS = 3
_MOST_PHOTOGRAPHS = 200_000  # whose features are held in memory at once


@dataclass(frozen=True)
class QualityName:
    """The parts of a name such as fd50k_full-effnet.

    family: 'fid', 'kid', 'pr' or 'is'. count: of samples. full: against all photographs, without
    mirroring, instead of `count` of `train_images`. detector: None for the context's.
    """

    family: str
    count: int
    full: bool
    detector: str | None

    @classmethod
    def parse(cls, text: str) -> "QualityName | None":
        """None for anything that is not the name of such a metric."""
        match = _NAME.fullmatch(text)
        if match is None:
            return None
        families = {generic: family for family, generic in _GENERIC.items()}
        family, count = families.get(match[1], match[1]), round(float(match[2]) * 1000)
        name = cls(family, count, bool(match[3]), _DETECTORS.get(match[4]))
        spellings = [name._format_name(family), *map(name.reported_name, _DETECTORS)]
        return name if text in spellings and count > 1 else None

    def reported_name(self, detector: str) -> str:
        """The name for numbers that rest on this detector."""
        # Published precision and recall rest on VGG16, so theirs is not told by the plain name.
        if detector == INCEPTION and self.family != "pr":
            return self._format_name(self.family)
        return f"{self._format_name(_GENERIC.get(self.family, self.family))}-{detector}"

    def _format_name(self, family: str) -> str:
        neighbors = str(_NEIGHBORS) if family == "pr" else ""
        full = "_full" if self.full and family != "is" else ""
        return f"{family}{self.count / 1000:g}k{neighbors}{full}"


def measure_quality(name: QualityName, context: Context) -> MetricResult:
    """Image quality under this name.

    Args:
        name: says which; `context.count`, where given, takes the place of its own count.
        context: the network and the photographs.

    Raises:
        UserError: where photographs or samples are too few.
    """
    name = replace(name, count=context.count or name.count)
    detector = context.load_detector(name.detector or context.detector)
    numbers = _MEASURES[name.family](name, detector, context)
    return MetricResult.of(name.reported_name(detector.name), numbers)


def _fid(name: QualityName, detector: Detector, context: Context) -> dict[str, float]:
    real = _photograph_moments(name, detector, context)
    fake = Moments.of(context.sample_features(detector, name.count))
    return {"": scores.frechet_distance(real, fake)}


def _kid(name: QualityName, detector: Detector, context: Context) -> dict[str, float]:
    real = _photograph_features(name, detector, context)
    if min(len(real), name.count) < 2:
        raise UserError(
            f"{name.reported_name(detector.name)} needs at least 2 photographs and 2 samples, "
            f"not {len(real)} and {name.count}"
        )
    return {"": scores.kernel_distance(real, context.sample_features(detector, name.count))}


def _precision_recall(name: QualityName, detector: Detector, context: Context) -> dict[str, float]:
    device = context.runner.device
    real = _photograph_features(name, detector, context).to(device)
    fake = context.sample_features(detector, name.count).to(device)
    precision, recall = scores.precision_recall(real, fake, _NEIGHBORS)
    return {"_precision": precision, "_recall": recall}


def _inception_score(name: QualityName, detector: Detector, context: Context) -> dict[str, float]:
    def probabilities(indices: range) -> Tensor:
        return detector.probabilities(to_uint8(context.model.sample(indices)))

    classes = context.runner.map(probabilities, name.count, "classes of samples")
    mean, std = scores.inception_score(classes)
    return {"_mean": mean, "_std": std}


_MEASURES = {
    "fid": _fid,
    "kid": _kid,
    "pr": _precision_recall,
    "is": _inception_score,
}


def _photograph_moments(name: QualityName, detector: Detector, context: Context) -> Moments:
    photographs, chosen = _chosen(name, context, len(context.all_images.images))

    def compute() -> dict[str, np.ndarray]:
        moments = Moments.empty(detector.dim, context.runner.device)

        def add(indices: range) -> None:
            moments.add(detector.features(photographs.batch(chosen[indices])))

        context.runner.for_each(add, len(chosen), "features of photographs")
        moments.sum_over_processes()
        return {
            "count": np.array(moments.count),
            "total": moments.total.cpu().numpy(),
            "outer": moments.outer.cpu().numpy(),
        }

    kept = cached_on_disk(_key("moments", photographs, chosen, detector), compute)
    return Moments(
        float(kept["count"]), torch.from_numpy(kept["total"]), torch.from_numpy(kept["outer"])
    )


def _photograph_features(name: QualityName, detector: Detector, context: Context) -> Tensor:
    photographs, chosen = _chosen(name, context, _MOST_PHOTOGRAPHS)

    def compute() -> dict[str, np.ndarray]:
        def features(indices: range) -> Tensor:
            return detector.features(photographs.batch(chosen[indices]))

        rows = context.runner.map(features, len(chosen), "features of photographs")
        return {"features": rows.numpy()}

    kept = cached_on_disk(_key("features", photographs, chosen, detector), compute)
    return torch.from_numpy(kept["features"])


def _chosen(name: QualityName, context: Context, most: int) -> tuple[ImageSet, np.ndarray]:
    photographs = context.all_images if name.full else context.train_images
    return photographs, photographs.choose(most if name.full else min(name.count, most))


def _key(kind: str, photographs: ImageSet, chosen: np.ndarray, detector: Detector) -> str:
    parts = (kind, photographs.fingerprint, len(chosen), detector.name, detector.digest, BATCH)
    return " ".join(map(str, parts))
