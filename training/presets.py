"""The settings of each data set: what differs from the defaults, which the paper's sets share."""

import math
from collections.abc import Mapping
from typing import Any

from dnnlib import UserError
from training.config import (
    CameraConfig,
    Config,
    DataConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    RenderingConfig,
    RunConfig,
    with_changes,
)

PRESETS = {
    "ffhq": Config(
        preset="ffhq",
        camera=CameraConfig(pivot=(0.0, 0.0, 0.2), focal=4.2647, intrinsics="labels"),
    ),
    "cats": Config(
        preset="cats",
        loss=LossConfig(gamma=5.0, pose_weight=10.0, pose_consistency_weight=10.0),
    ),
    "shapenet_cars": Config(
        preset="shapenet_cars",
        data=DataConfig(resolution=128),
        camera=CameraConfig(
            radius=1.7,
            focal=1.025390625,
            mean_h=math.pi,
            range_h=(0.0, 2 * math.pi),
            range_v=(0.0, math.pi),
            mirrors=("shapenet_horizontal", "vertical"),
        ),
        rendering=RenderingConfig(
            samples=64,
            importance_samples=64,
            near=0.1,
            far=2.6,
            box_warp=1.6,
            white_background=True,
        ),
        loss=LossConfig(gamma=0.3, pose_weight=2.0, pose_consistency_weight=2.0),
    ),
    # Procedural heads (training/data/toy_heads.py), sized for two CPU cores.
    "toy": Config(
        preset="toy",
        data=DataConfig(resolution=32, workers=1),
        generator=GeneratorConfig(
            z_dim=64,
            w_dim=64,
            channel_base=1024,
            channel_max=64,
            plane_resolution=32,
            plane_channels=16,
            decoder_hidden=32,
            feature_channels=3,
        ),
        discriminator=DiscriminatorConfig(dual=False, channel_base=2048, channel_max=96),
        camera=CameraConfig(init_std=(0.4, 0.4), swap_poses_prob=1.0),
        rendering=RenderingConfig(
            raw_resolution=32,
            samples=10,
            importance_samples=10,
            sampling_multiplier=2,  # so few samples at fixed depths would show as rings
            # As wide as the picture and no deeper: planes and samples lie where heads are.
            near=2.35,
            far=3.05,
            box_warp=0.7,
            white_background=True,
            density_scale=5.0,  # otherwise skin stays semi-transparent, invisible at 32 px
        ),
        loss=LossConfig(gamma=0.5, pose_weight=5.0, pose_entropy_weight=0.5, blur_sigma=0.0),
        run=RunConfig(batch=8, kimg=60.0, tick=1.0, snap=4),
    ),
    # Any folder of pictures of one kind of object, each taken from its own unknown side.
    "custom": Config(preset="custom", camera=CameraConfig(init_std=(0.3, 0.3))),
}
PRESET_ALIASES = {"shapenet": "shapenet_cars", "shapenetcars": "shapenet_cars"}


def build_config(preset: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The preset with `changes` ({'section.field': value}) on top; strings are read as JSON.

    Raises:
        UserError: one line, for an unknown preset or key, a wrong type, or a contradiction.
    """
    preset = PRESET_ALIASES.get(preset, preset)
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}': choose one of {', '.join(PRESETS)}")
    return with_changes(PRESETS[preset], changes or {})


def suggested_gamma(resolution: int, batch: int) -> float:
    """A first guess at R1's weight for untuned data (Karras et al. 2020b, appendix C)."""
    return 0.0002 * resolution**2 / batch
