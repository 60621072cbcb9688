"""Photographs by number: everything about one is a function of the set's seed and its index."""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from training.cameras import focal_from_fov, pose_from_degrees
from training.data.ground_truth import GroundTruth
from training.data.toy_heads import (
    BACKGROUND_DEPTH,
    FOV_DEGREES,
    POSE_MEAN,
    toy_cameras,
    turned_pose,
)
from training.data.writer import png_bytes

from .backdrop import random_backdrop
from .light import Light
from .person import Person, Shot, random_expression
from .portrait import Model, Portrait, photograph

Kind = Literal["studio", "wild"]
KINDS = ("studio", "wild")

POSE_LIMIT = np.array([1.2, 0.6])  # radians of yaw and pitch
GAZE_STD = 0.07
CROP_SCALE_STD, CROP_SHIFT_STD = 0.03, 0.012  # of wild pictures; shifts in image widths
CROP_LIMIT = 2.5  # in standard deviations
NOISE_STD = 0.012  # of a wild picture's pixels, white being 1
DEPTH_SIZE = 64  # depths of larger pictures are reduced to it, where it divides their size


class Settings(NamedTuple):
    """A set of photographs. pose_std: standard deviations of yaw and pitch in radians.

    per_identity: how many successive photographs show one person. turns: degrees of yaw; a
    photograph is taken once for every one, at the same moment, from the same camera turned by it.
    noise: standard deviation of a wild picture's pixels, white being 1; nothing else depends on it.
    """

    kind: Kind
    resolution: int
    seed: int
    pose_std: tuple[float, float]
    per_identity: int
    turns: tuple[int, ...] = (0,)
    noise: float = NOISE_STD


class Photograph(NamedTuple):
    """truth: of this one image, without the axis N. intrinsics: float32 [3, 3]."""

    png: bytes
    truth: GroundTruth
    intrinsics: np.ndarray


def take(index: int, model: Model, settings: Settings) -> Photograph:
    """Photograph number `index` of a set."""
    moment, turn = divmod(index, len(settings.turns))
    identity = _identity(settings, moment)
    rng = np.random.default_rng([settings.seed, 1, moment])
    pose = turned_pose(random_pose(rng, settings.pose_std).numpy(), settings.turns[turn])
    cam2world = toy_cameras(torch.from_numpy(pose)[None])[0].numpy()
    intrinsics = _random_intrinsics(rng, settings.kind)
    light = Light.random(rng, spread=1.0 if settings.kind == "studio" else 1.3)
    shot = Shot(random_expression(rng), rng.normal(0, GAZE_STD, 2), light, cam2world, intrinsics)
    person = Person.random(model.anatomy, np.random.default_rng(identity))
    portrait = photograph(model, person, shot, settings.resolution)
    truth = GroundTruth(
        pose=pose,
        depth=_reduced(portrait.depth).astype(np.float16),
        identity=np.asarray(identity),
        cam2world=cam2world.astype(np.float32),
    )
    image = Image.fromarray(_on_backdrop(portrait, rng, settings))
    return Photograph(png_bytes(image), truth, intrinsics.astype(np.float32))


def _identity(settings: Settings, moment: int) -> int:
    """A seed for `Person.random`."""
    rng = np.random.default_rng([settings.seed, 0, moment // settings.per_identity])
    return int(rng.integers(2**63 - 1))


def random_pose(rng: np.random.Generator, std: tuple[float, float]) -> torch.Tensor:
    """float64 [2], (h, v), from a clipped normal distribution of yaw and pitch."""
    angles = np.clip(rng.normal(0, 1, 2) * std, -POSE_LIMIT, POSE_LIMIT)
    return pose_from_degrees(torch.from_numpy(np.degrees(angles)), POSE_MEAN[0])


def _random_intrinsics(rng: np.random.Generator, kind: Kind) -> np.ndarray:
    """[3, 3]: the toy set's; those of wild pictures differ, as they were cropped by hand."""
    focal = focal_from_fov(FOV_DEGREES)
    matrix = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1.0]])
    if kind == "wild":
        scale, right, down = rng.normal(0, 1, 3).clip(-CROP_LIMIT, CROP_LIMIT)
        matrix[:2, :2] *= math.exp(CROP_SCALE_STD * scale)
        matrix[:2, 2] += CROP_SHIFT_STD * np.array([right, down])
    return matrix


def _on_backdrop(portrait: Portrait, rng: np.random.Generator, settings: Settings) -> np.ndarray:
    """uint8 [R, R, 3]."""
    behind = 1 - portrait.coverage[..., None]
    if settings.kind == "studio":
        image = portrait.image + behind
    else:
        image = portrait.image + behind * random_backdrop(rng, len(behind))
        image = image + rng.normal(0, settings.noise, image.shape)
    return (image * 255).round().clip(0, 255).astype(np.uint8)


def _reduced(depth: np.ndarray) -> np.ndarray:
    """Depths [R, R], at DEPTH_SIZE if it divides R: means of what is hit, where half is."""
    size = len(depth)
    factor = size // DEPTH_SIZE if size % DEPTH_SIZE == 0 else 1
    blocks = depth.reshape(size // factor, factor, size // factor, factor)
    hit = blocks < BACKGROUND_DEPTH
    share = hit.mean(axis=(1, 3))
    mean = (blocks * hit).mean(axis=(1, 3)) / share.clip(1e-6)
    return np.where(share >= 0.5, mean, BACKGROUND_DEPTH)
