"""Every setting of a run, typed, with its default stated once; the presets of the paper.

A `Config` refuses what makes no sense when it is built, so the rest of the code need not check.
"""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pydantic
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from dnnlib import UserError
from training.cameras import focal_from_fov

Mirror = Literal["horizontal", "vertical", "shapenet_horizontal"]
Fraction = pydantic.confloat(ge=0, le=1)
Spread = tuple[PositiveFloat, PositiveFloat]  # standard deviations of (h, v) in radians


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(_Section):
    """Where the photographs come from and how they are brought to size."""

    path: str | None = None
    resolution: Literal[32, 64, 128, 256, 512] = 256
    crop: Literal["centre", "pad"] = "centre"
    mirror: bool = False  # also show every image flipped left to right
    max_images: PositiveInt | None = None
    workers: int = Field(2, ge=0)


class GeneratorConfig(_Section):
    """Sizes of the generator (DESIGN of StyleGAN2 and EG3D)."""

    z_dim: PositiveInt = 512
    w_dim: PositiveInt = 512
    mapping_layers: PositiveInt = 2
    channel_base: PositiveInt = 32768  # width at resolution r: min(channel_base / r, channel_max)
    channel_max: PositiveInt = 512
    plane_resolution: Literal[16, 32, 64, 128, 256, 512] = 256
    plane_channels: PositiveInt = 32
    decoder_hidden: PositiveInt = 64
    feature_channels: int = Field(32, ge=3)  # rendered channels; the first three are the raw image
    pose: Literal["learned", "given"] = "learned"  # 'given': an EG3D generator, posed by its user
    style_mixing: Fraction = 0.0  # probability that a second latent takes over from some layer on


class DiscriminatorConfig(_Section):
    """Sizes of the discriminator."""

    dual: bool = True  # judge the image together with the raw rendering
    channel_base: PositiveInt = 32768
    channel_max: PositiveInt = 512
    mapping_layers: PositiveInt = 8
    group_size: PositiveInt = 4  # of the minibatch standard deviation
    half_precision_blocks: int = Field(4, ge=0)  # counted from the highest resolution
    freeze_blocks: int = Field(0, ge=0)  # kept as loaded, from the highest resolution (transfer)


class CameraConfig(_Section):
    """The sphere of cameras and the lens. Angles are radians unless a name says degrees."""

    radius: PositiveFloat = 2.7
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)
    focal: PositiveFloat = focal_from_fov(18.837)  # in image widths
    intrinsics: Literal["preset", "labels"] = "preset"  # labels: those of the data set
    mean_h: float = math.pi / 2
    range_h: tuple[float, float] | None = None  # poses of the generator are clamped to these
    range_v: tuple[float, float] | None = None
    poses: Literal["learned", "dataset", "prior"] = "learned"  # whence training takes its cameras
    init_std: Spread | None = None  # of learned poses; None: as published, 0.8 and off centre
    swap: Fraction = 0.0  # probability that objects are seen from each other's learned poses
    prior_std: Spread = (0.3, 0.15)  # of 'prior': a Gaussian round (mean_h, pi/2)
    mirrors: tuple[Mirror, ...] = ("horizontal", "vertical")  # one is drawn for every second view

    @field_validator("init_std", "prior_std", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        """One number stands for both."""
        if isinstance(value, int | float):
            return value, value
        return tuple(value) * 2 if isinstance(value, list) and len(value) == 1 else value
        parts = (
            list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        )
        return value if value is None else parts * 2 if len(parts) == 1 else parts

    @field_validator("range_h", "range_v")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError("the lower end must lie below the upper end")
        return value


class RenderingConfig(_Section):
    """Volume rendering. Lengths in world units."""

    raw_resolution: PositiveInt = 64
    raw_resolution_end: PositiveInt | None = None  # grow to this ...
    raw_growth_kimg: PositiveFloat = 1000  # ... over so many thousand images
    samples: int = Field(48, ge=4)
    importance_samples: int = Field(48, ge=0)
    sampling_multiplier: PositiveInt = 1  # of both where nothing trains: pictures, metrics
    near: PositiveFloat = 2.25
    far: PositiveFloat = 3.3
    box_warp: PositiveFloat = 1.0  # side of the cube that the planes cover
    white_background: bool = False
    density_scale: PositiveFloat = 1.0  # how opaque a unit of density is; as published: 1
    plane_axes: Literal["full", "eg3d"] = "full"  # 'eg3d': XY, XZ, ZX, for published weights

    @model_validator(mode="after")
    def _depths(self):
        if self.near >= self.far:
            raise ValueError("near must be smaller than far")
        return self


class LossConfig(_Section):
    """Weights and schedules of the losses (PoF3D section 3.4, StyleGAN2 for the regularisers)."""

    gamma: float = Field(1.0, ge=0)  # of R1
    r1_every: PositiveInt = 16  # steps
    pose_weight: float = Field(2.0, ge=0)  # D learns the poses of generated images
    pull_weight: float = Field(1.0, ge=0)  # G's pose is pulled toward what D sees
    spread_weight: float = Field(0.0, ge=0)  # G's poses are spread: entropy; not in the paper
    density_weight: float = Field(0.25, ge=0)
    density_every: PositiveInt = 4  # steps
    density_points: PositiveInt = 1000
    density_step: PositiveFloat = 0.004  # spread of the perturbation, world units
    blur_sigma: float = Field(10.0, ge=0)  # pixels, at the start
    blur_kimg: float = Field(200.0, ge=0)  # faded out over so many kimg x batch / 32


class OptimConfig(_Section):
    """Adam, with StyleGAN2's correction for lazy regularisation, and the moving average."""

    g_lr: PositiveFloat = 0.0025
    d_lr: PositiveFloat = 0.002
    beta1: Fraction = 0.0
    beta2: Fraction = 0.99
    eps: PositiveFloat = 1e-8
    ema_kimg: PositiveFloat | None = None  # half-life; None: batch * 10 / 32
    ema_rampup: PositiveFloat | None = 0.05  # at most this share of what has been seen


class AugmentConfig(_Section):
    """What D sees instead of the plain images (Karras et al. 2020b)."""

    mode: Literal["noaug", "ada", "fixed"] = "noaug"
    p: Fraction = 0.2  # of 'fixed'
    target: Fraction = 0.6  # of 'ada': mean sign of D on photographs
    every: PositiveInt = 4  # steps
    kimg: PositiveFloat = 500  # thousand images that move p by one


class RunConfig(_Section):
    """How long, on what, and how often to look."""

    batch: PositiveInt = 32
    batch_gpu: PositiveInt | None = None  # per process and pass; None: all at once
    gpus: PositiveInt = 1  # processes; one device each
    kimg: PositiveFloat = 25000
    tick: PositiveFloat = 4  # kimg between status lines
    snap: PositiveInt = 50  # ticks between snapshots
    metrics: tuple[str, ...] = ()  # measured at snapshots; names as in docs/metrics.md
    seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"  # auto: fp16 on CUDA
    ops: Literal["auto", "torch", "native"] | None = None  # None: as POF3D_OPS says, else auto
    keep: PositiveInt = 2  # checkpoints
    write_errors: Literal["continue", "stop"] = "continue"  # what a full disk does to the run
    max_bad_steps: PositiveInt = 10  # steps in a row with a loss that is not finite

    @model_validator(mode="after")
    def _batches(self):
        if self.batch % self.gpus:
            raise ValueError(f"batch {self.batch} is not divisible by gpus {self.gpus}")
        per_process = self.batch // self.gpus
        if self.batch_gpu and per_process % self.batch_gpu:
            raise ValueError(
                f"batch per process {per_process} is not divisible by batch_gpu {self.batch_gpu}"
            )
        return self


class Config(_Section):
    """A whole run."""

    preset: str = "custom"
    data: DataConfig = DataConfig()
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    camera: CameraConfig = CameraConfig()
    rendering: RenderingConfig = RenderingConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    augment: AugmentConfig = AugmentConfig()
    run: RunConfig = RunConfig()

    @property
    def super_resolved(self) -> bool:
        """Small images are the rendering itself."""
        return self.data.resolution >= 128

    @model_validator(mode="after")
    def _consistent(self):
        raw, size = self.rendering.raw_resolution, self.data.resolution
        if not self.super_resolved:
            if raw != size:
                raise ValueError(
                    f"data.resolution {size} has no super-resolution: "
                    f"rendering.raw_resolution must be {size}, not {raw}"
                )
            if self.discriminator.dual:
                raise ValueError(
                    f"data.resolution {size} has no second image to judge: "
                    "set discriminator.dual=false"
                )
        if self.rendering.raw_resolution_end and not self.super_resolved:
            raise ValueError("rendering.raw_resolution_end needs a data.resolution of 128 or more")
        blocks = size.bit_length() - 3  # from the image's resolution down to 8 x 8
        if self.discriminator.freeze_blocks > blocks:
            raise ValueError(f"discriminator.freeze_blocks can be at most {blocks} at {size} px")
        return self


# What differs from the defaults above, which are those that the paper's data sets share.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "ffhq": {
        "camera": {"pivot": (0.0, 0.0, 0.2), "focal": 4.2647, "intrinsics": "labels"},
    },
    "cats": {
        "loss": {"gamma": 5.0, "pose_weight": 10.0, "pull_weight": 10.0},
    },
    "shapenet_cars": {
        "data": {"resolution": 128},
        "camera": {
            "radius": 1.7,
            "focal": 1.025390625,
            "mean_h": math.pi,
            "range_h": (0.0, 2 * math.pi),
            "range_v": (0.0, math.pi),
            "mirrors": ("shapenet_horizontal", "vertical"),
        },
        "rendering": {
            "samples": 64,
            "importance_samples": 64,
            "near": 0.1,
            "far": 2.6,
            "box_warp": 1.6,
            "white_background": True,
        },
        "loss": {"gamma": 0.3, "pose_weight": 2.0, "pull_weight": 2.0},
    },
    # Procedural heads (training/toy.py), sized for two CPU cores.
    "toy": {
        "data": {"resolution": 32, "workers": 1},
        "generator": {
            "z_dim": 64,
            "w_dim": 64,
            "channel_base": 1024,
            "channel_max": 64,
            "plane_resolution": 32,
            "plane_channels": 16,
            "decoder_hidden": 32,
            "feature_channels": 3,
        },
        "discriminator": {"dual": False, "channel_base": 2048, "channel_max": 96},
        "camera": {"init_std": 0.4, "swap": 1.0},
        "rendering": {
            "raw_resolution": 32,
            "samples": 10,
            "importance_samples": 10,
            "sampling_multiplier": 2,  # so few samples at fixed depths would show as rings
            # As wide as the picture and no deeper: planes and samples lie where heads are.
            "near": 2.35,
            "far": 3.05,
            "box_warp": 0.7,
            "white_background": True,
            "density_scale": 5.0,  # or skin stays a fog, which pictures this small do not betray
        },
        "loss": {"gamma": 0.5, "pose_weight": 5.0, "spread_weight": 0.5, "blur_sigma": 0.0},
        "run": {"batch": 8, "kimg": 60.0, "tick": 1.0, "snap": 4},
    },
    # Any folder of pictures of one kind of object, each seen from its own unknown side.
    "custom": {"camera": {"init_std": 0.3}},
}
PRESET_ALIASES = {"shapenet": "shapenet_cars", "shapenetcars": "shapenet_cars"}


def suggested_gamma(resolution: int, batch: int) -> float:
    """A first guess at R1's weight for data nobody has tuned (Karras et al. 2020b, appendix C)."""
    return 0.0002 * resolution**2 / batch


def build_config(preset: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The preset with `changes` ({'section.field': value}) on top; strings are read as JSON.

    Raises UserError, one line, for an unknown preset or key, a wrong type, or a contradiction.
    """
    preset = PRESET_ALIASES.get(preset, preset)
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}': choose one of {', '.join(PRESETS)}")
    settings = {section: dict(fields) for section, fields in PRESETS[preset].items()}
    for key, value in (changes or {}).items():
        section, _, field = key.partition(".")
        if field not in _fields_of(section):
            raise UserError(f"unknown setting '{key}'{_nearest(key)}")
        settings.setdefault(section, {})[field] = _from_text(value, section, field)
    return config_from_dict({"preset": preset, **settings})


def config_from_dict(settings: Mapping[str, Any]) -> Config:
    """The inverse of `Config.model_dump`. Raises UserError for anything that is not a config."""
    try:
        return Config.model_validate(settings)
    except pydantic.ValidationError as error:
        raise UserError("; ".join(_explain(item) for item in error.errors())) from error


def parse_settings(arguments: Sequence[str]) -> dict[str, str]:
    """['section.field=value', ...] as given to --set. Raises UserError where '=' is missing."""
    changes = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"--set {argument}: write it as section.field=value")
        changes[key.strip()] = value.strip()
    return changes


def _fields_of(section: str) -> Mapping[str, Any]:
    annotation = Config.model_fields[section].annotation if section in Config.model_fields else None
    is_section = isinstance(annotation, type) and issubclass(annotation, _Section)
    return annotation.model_fields if is_section else {}


def _from_text(value: Any, section: str, field: str) -> Any:
    """Lists may be written with commas alone; everything else is JSON, or else plain text."""
    if not isinstance(value, str):
        return value
    is_list = "tuple" in str(_fields_of(section)[field].annotation)
    if is_list and value != "null" and not value.startswith("["):
        return [_json_or_text(part) for part in value.split(",") if part]
    return _json_or_text(value)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _nearest(key: str) -> str:
    known = [
        f"{section}.{field}" for section in Config.model_fields for field in _fields_of(section)
    ]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else f": known are {', '.join(known)}"


def _explain(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{where}: {message}" if where.count(".") else message
    return f"{where}: {message}, not {error['input']!r}"
