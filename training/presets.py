"""The settings of each data set: what differs from the defaults, which the paper's sets share."""

import math
from collections.abc import Mapping
from typing import Any

from dnnlib import UserError
from training.config import (
    SUPER_RESOLVED,
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
# Any set of one kind of object, at 32 or 64 pixels, on two CPU cores; nothing is fitted to one set.
PRESETS["small"] = with_changes(
    PRESETS["toy"],
    {
        "generator.noise": False,  # it fakes texture, and delays the shapes that cause it
        "generator.diversity_clarity": 0.7,
        "camera.mirrors": ("horizontal",),  # a camera below the ground has no photographs
        "camera.spread_rate": 0.2,
        "rendering.density_scale": 12.0,  # less: a fog of skin, and features as veils before it
        "loss.gamma_gap": 1.5,
        "loss.pose_anchor_weight": 5.0,
        "loss.pose_entropy_weight": 0.0,
        "run.kimg": 200.0,
    },
).model_copy(update={"preset": "small"})
# What photographs need on white, where D tells objects that stay alike by their colors; without a
# fog of skin, reversed depth shows early (log, entries 43, 52 and 53).
ON_WHITE = {
    "augment.color_p": 0.5,
    "generator.depth_trial_kimg": (16.0, 8.0),
}
# What they need elsewhere: backgrounds must not turn with the object (entry 34).
BEFORE_BACKGROUNDS = {"generator.background": True}
# What earlier versions of these presets had otherwise: a resumed run keeps its own.
BY_VERSION = (
    "augment.color_p",
    "camera.spread_rate",
    "generator.depth_trial_kimg",
    "generator.diversity_clarity",
    "loss.pose_anchor_weight",
    "rendering.density_scale",
)
# Presets of no data set: what is not given is taken from the photographs.
UNTUNED = ("custom", "small")
PRESET_ALIASES = {"shapenet": "shapenet_cars", "shapenetcars": "shapenet_cars"}


def build_config(preset: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The preset with `changes` ({'section.field': value}) on top; strings are read as JSON.

    Raises:
        UserError: one line, for an unknown preset or key, a wrong type, or a contradiction.
    """
    preset = PRESET_ALIASES.get(preset, preset)
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}': choose one of {', '.join(PRESETS)}")
    changes = _with_own_rendering(changes or {})
    if preset == "small":
        changes = _with_own_planes(changes)
    return with_changes(PRESETS[preset], changes)


def build_small_custom(changes: Mapping[str, Any]) -> Config:
    """Preset custom with the networks and the schedule of preset small.

    Raises:
        UserError: as `build_config`.
    """
    small = PRESETS["small"].model_copy(update={"preset": "custom"})
    return with_changes(small, _with_own_planes(_with_own_rendering(changes)))


def is_super_resolved(changes: Mapping[str, Any]) -> bool:
    """Whether `changes` ask for a resolution that only super-resolution reaches."""
    resolution = str(changes.get("data.resolution", 0))
    return resolution.isdecimal() and int(resolution) >= SUPER_RESOLVED


def _with_own_rendering(changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes`, in which the rendering of small images is as large as they are."""
    if "data.resolution" not in changes or is_super_resolved(changes):
        return dict(changes)
    size = changes["data.resolution"]
    return {"rendering.raw_resolution": size, "discriminator.dual": False, **changes}


def _with_own_planes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes`, in which planes are as fine as images are."""
    if "data.resolution" not in changes:
        return dict(changes)
    return {"generator.plane_resolution": changes["data.resolution"], **changes}


def suggested_gamma(resolution: int, batch: int) -> float:
    """A first guess at R1's weight for untuned data (Karras et al. 2020b, appendix C)."""
    return 0.0002 * resolution**2 / batch
