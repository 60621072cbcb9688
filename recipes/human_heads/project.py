"""What this recipe takes from the rest of the project, in one place."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "neural_renderer" / "src")]

from training.camera import focal_from_fov, pose_from_degrees  # noqa: E402
from training.dataset import dataset_writer, png_bytes  # noqa: E402
from training.toy import (  # noqa: E402
    BACKGROUND_DEPTH,
    FOV_DEGREES,
    GROUND_TRUTH,
    POSE_MEAN,
    GroundTruth,
    toy_cameras,
)

from dnnlib import Command, UserError, atomic_write, cache_dir, finite  # noqa: E402
from neural_renderer.ops import View, select  # noqa: E402

__all__ = [
    "BACKGROUND_DEPTH",
    "FOV_DEGREES",
    "GROUND_TRUTH",
    "POSE_MEAN",
    "Command",
    "GroundTruth",
    "UserError",
    "View",
    "atomic_write",
    "cache_dir",
    "dataset_writer",
    "finite",
    "focal_from_fov",
    "png_bytes",
    "pose_from_degrees",
    "select",
    "toy_cameras",
]
