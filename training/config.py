"""Every setting of a run: its type, its default, and what it means, stated once.

A `Config` refuses what makes no sense when it is built, so the rest of the code need not check.
"""

import difflib
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from dnnlib import UserError
from training import old_names
from training.cameras import focal_from_fov

Mirror = Literal["horizontal", "vertical", "shapenet_horizontal"]
Share = Annotated[float, Field(ge=0, le=1)]
Spread = tuple[PositiveFloat, PositiveFloat]  # standard deviations of (h, v) in radians
SUPER_RESOLVED = 128  # pixels; smaller images are the rendering itself
POSE_SOURCES = ["learned", "dataset", "prior", "given"]  # extended by `training.pose_sources`


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(_Section):
    """Where the photographs come from and how they are brought to size."""

    path: str | None = Field(None, description="zip or folder of images")
    resolution: Literal[32, 64, 128, 256, 512] = Field(256, description="of images, in pixels")
    crop: Literal["center", "pad"] = Field(
        "center", description="how images become square: cut to the center, or padded with white"
    )
    mirror: bool = Field(False, description="also train on every image flipped left to right")
    max_images: PositiveInt | None = Field(
        None, description="train on a random subset of this size"
    )
    workers: int = Field(2, ge=0, description="threads that load photographs, per training process")


class GeneratorConfig(_Section):
    """Sizes of the generator (StyleGAN2, EG3D)."""

    z_dim: PositiveInt = Field(512, description="dimension of the latent z")
    w_dim: PositiveInt = Field(512, description="dimension of the intermediate latent w")
    mapping_layers: PositiveInt = Field(2, description="layers of the mapping network z -> w")
    channel_base: PositiveInt = Field(
        32768, description="width at resolution r: min(channel_base / r, channel_max)"
    )
    channel_max: PositiveInt = Field(512, description="largest width")
    plane_resolution: Literal[16, 32, 64, 128, 256, 512] = Field(
        256, description="side of the tri-planes, in texels"
    )
    plane_channels: PositiveInt = Field(32, description="channels of each plane")
    decoder_hidden: PositiveInt = Field(64, description="hidden units of the decoder MLP")
    feature_channels: int = Field(
        32, ge=3, description="rendered channels; the first three are the raw image"
    )
    style_mixing: Share = Field(
        0.0, description="probability that a second latent takes over from some layer on"
    )
    noise: bool = Field(
        True,
        description="random noise in every layer of the backbone (StyleGAN2); without, texture has "
        "to come from the latent",
    )
    background: bool = Field(
        False,
        description="objects stand before a background of their own, which does not turn with the "
        "camera, but moves to the side in training (not in the paper)",
    )
    diversity_clarity: Share | None = Field(
        None,
        description="objects are alike at first (truncation psi 0) and become different while D's "
        "estimates explain this share of the variance of generated poses (not in the paper); null: "
        "psi is 1",
    )
    depth_trial_kimg: tuple[PositiveFloat, PositiveFloat] | None = Field(
        None,
        description="reversed depth is tried as well, and the better one goes on (not in the "
        "paper): as soon as D's estimates explain diversity_clarity less 0.1, at the latest at the "
        "first of these, for as many kimg as the second; null: never",
    )


class DiscriminatorConfig(_Section):
    """Sizes of the discriminator."""

    dual: bool = Field(True, description="input: the image together with the raw rendering (EG3D)")
    channel_base: PositiveInt = Field(
        32768, description="width at resolution r: min(channel_base / r, channel_max)"
    )
    channel_max: PositiveInt = Field(512, description="largest width")
    mapping_layers: PositiveInt = Field(8, description="layers of the mapping of the pose")
    group_size: PositiveInt = Field(4, description="of the minibatch standard deviation")
    half_precision_blocks: int = Field(
        4, ge=0, description="blocks in fp16, from the highest resolution; bf16 takes all"
    )
    freeze_blocks: int = Field(
        0, ge=0, description="blocks kept as loaded, from the highest resolution (transfer)"
    )


class CameraConfig(_Section):
    """Camera poses, their sphere, and the lens. Angles in radians unless a name says degrees."""

    radius: PositiveFloat = Field(2.7, description="of the sphere of cameras, world units")
    pivot: tuple[float, float, float] = Field(
        (0.0, 0.0, 0.0), description="point that cameras look at, world units"
    )
    focal: PositiveFloat = Field(focal_from_fov(18.837), description="focal length in image widths")
    intrinsics: Literal["preset", "labels"] = Field(
        "preset", description="from `focal`, or from the data set's labels"
    )
    mean_h: float = Field(math.pi / 2, description="h of the canonical (frontal) view")
    range_h: tuple[float, float] | None = Field(None, description="clamp of learned h")
    range_v: tuple[float, float] | None = Field(None, description="clamp of learned v")
    poses: str = Field(
        "learned",
        description="source of poses: learned by the generator (PoF3D); dataset: camera labels "
        "(EG3D); prior: a Gaussian; given: by the user, for EG3D generators, not for training",
    )
    init_std: Spread | None = Field(
        None,
        description="spread of learned poses at the start; null: as published, 0.8 and off center",
    )
    spread_rate: float = Field(
        0.0,
        ge=0,
        description="per thousand images, of widening G's yaw while D's estimates of it spread "
        "more on photographs than on generated images, and explain more than diversity_clarity, "
        "where that is set (not in the paper)",
    )
    swap_poses_prob: Share = Field(
        0.0,
        description="probability that objects are rendered from the poses of other latents in the "
        "batch (not in the paper)",
    )
    prior_std: Spread = Field((0.3, 0.15), description="of poses=prior, around (mean_h, pi/2)")
    mirrors: tuple[Mirror, ...] = Field(
        ("horizontal", "vertical"), description="reflections, one of which each second view takes"
    )

    @field_validator("init_std", "prior_std", mode="before")
    @classmethod
    def _one_number_for_both(cls, value: Any) -> Any:
        if isinstance(value, int | float):
            return value, value
        return tuple(value) * 2 if isinstance(value, list) and len(value) == 1 else value

    @field_validator("range_h", "range_v")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError("the lower end must lie below the upper end")
        return value

    @field_validator("poses")
    @classmethod
    def _known_source(cls, value: str) -> str:
        if value not in POSE_SOURCES:
            raise ValueError(f"unknown source '{value}': choose one of {', '.join(POSE_SOURCES)}")
        return value


class RenderingConfig(_Section):
    """Volume rendering. Lengths in world units."""

    raw_resolution: PositiveInt = Field(64, description="of the rendering, in pixels")
    raw_resolution_end: PositiveInt | None = Field(
        None, description="raw_resolution grows linearly to this"
    )
    raw_growth_kimg: PositiveFloat = Field(1000, description="duration of that growth")
    samples: int = Field(48, ge=4, description="stratified samples along a ray")
    importance_samples: int = Field(48, ge=0, description="importance samples along a ray")
    sampling_multiplier: PositiveInt = Field(
        1, description="of both numbers of samples outside training: samples, metrics"
    )
    near: PositiveFloat = Field(2.25, description="distance at which rays begin")
    far: PositiveFloat = Field(3.3, description="distance at which rays end")
    box_warp: PositiveFloat = Field(1.0, description="side of the cube that the planes cover")
    white_background: bool = Field(False, description="empty space is white")
    density_scale: PositiveFloat = Field(
        1.0, description="factor of densities; larger: opaque within fewer steps (paper: 1)"
    )
    plane_axes: Literal["full", "eg3d"] = Field(
        "full", description="full: XY, XZ, ZY; eg3d: XY, XZ, ZX, for published weights"
    )

    @model_validator(mode="after")
    def _depths(self) -> "RenderingConfig":
        if self.near >= self.far:
            raise ValueError("near must be smaller than far")
        return self


class LossConfig(_Section):
    """Weights and schedules of the losses (PoF3D section 3.4, StyleGAN2 for the regularizers)."""

    gamma: float = Field(1.0, ge=0, description="weight of R1")
    gamma_gap: PositiveFloat | None = Field(
        None,
        description="gap between D's mean scores of photographs and of generated images above "
        "which R1's weight grows, to fall back to gamma below it (not in the paper); null: fixed",
    )
    r1_every: PositiveInt = Field(16, description="steps between R1 phases")
    pose_weight: float = Field(
        2.0, ge=0, description="of D's pose error on generated images (dis_cam)"
    )
    pose_consistency_weight: float = Field(
        1.0, ge=0, description="of G's pose against D's estimate of it (pose_gd)"
    )
    pose_entropy_weight: float = Field(
        0.0, ge=0, description="of the entropy of G's poses (not in the paper)"
    )
    pose_anchor_weight: float = Field(
        0.0,
        ge=0,
        description="of D's moving average's pose estimates of G's images against their cameras, "
        "while objects begin to differ; with diversity_clarity only (not in the paper)",
    )
    density_weight: float = Field(0.25, ge=0, description="of the density regularizer")
    density_every: PositiveInt = Field(4, description="steps between density phases")
    density_points: PositiveInt = Field(1000, description="points of the density regularizer")
    density_step: PositiveFloat = Field(
        0.004, description="standard deviation of its perturbation, world units"
    )
    blur_sigma: float = Field(10.0, ge=0, description="of D's images at the start, pixels")
    blur_kimg: float = Field(
        200.0, ge=0, description="blur fades out over so many kimg x batch / 32"
    )


class OptimConfig(_Section):
    """Adam, with StyleGAN2's correction for lazy regularization, and the moving average."""

    g_lr: PositiveFloat = Field(0.0025, description="learning rate of G")
    d_lr: PositiveFloat = Field(0.002, description="learning rate of D")
    beta1: Share = Field(0.0, description="Adam's beta_1")
    beta2: Share = Field(0.99, description="Adam's beta_2")
    eps: PositiveFloat = Field(1e-8, description="Adam's epsilon")
    ema_kimg: PositiveFloat | None = Field(
        None, description="half-life of the moving averages of G and D; null: batch * 10 / 32"
    )
    ema_rampup: PositiveFloat | None = Field(
        0.05, description="that half-life is at most this share of the images so far"
    )


class AugmentConfig(_Section):
    """Augmentation of D's images (Karras et al. 2020b)."""

    mode: Literal["noaug", "ada", "fixed"] = Field("noaug", description="none, adaptive, fixed p")
    p: Share = Field(0.2, description="probability of mode=fixed")
    color_p: Share = Field(
        0.0,
        description="probability of the transforms of color alone, in any mode, while objects are "
        "alike; falls to 0 with 1 - psi, see generator.diversity_clarity (not in the paper)",
    )
    target: Share = Field(0.6, description="of mode=ada: mean sign of D's score on photographs")
    every: PositiveInt = Field(4, description="steps between adjustments of p")
    kimg: PositiveFloat = Field(500, description="thousand images that move p by one")


class RunConfig(_Section):
    """Length, hardware, and how often to save and report."""

    batch: PositiveInt = Field(32, description="images per step, over all processes")
    batch_gpu: PositiveInt | None = Field(
        None, description="images per process and pass; null: all at once"
    )
    gpus: PositiveInt = Field(1, description="processes, one device each")
    kimg: PositiveFloat = Field(25000, description="length of training in thousand images")
    tick: PositiveFloat = Field(4, description="kimg between status lines")
    snap: PositiveInt = Field(50, description="ticks between snapshots")
    metrics: tuple[str, ...] = Field((), description="measured at snapshots (docs/metrics.md)")
    seed: int = Field(0, ge=0, lt=2**32, description="random seed")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to compute")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto",
        description="of activations; fp16: of D's largest blocks and super-resolution; bf16: of "
        "all convolutions; auto: fp16 on CUDA, bf16 on a CPU with avx512_bf16, else fp32",
    )
    ops: Literal["auto", "torch", "native"] | None = Field(
        None, description="compiled operations; null: as POF3D_OPS says, else auto"
    )
    snapshot_resolution: PositiveInt | None = Field(
        None, description="of the renderings in a snapshot's pictures, in pixels; null: as trained"
    )
    checkpoint_minutes: PositiveFloat | None = Field(
        None, description="between checkpoints; null: only with snapshots"
    )
    keep: PositiveInt = Field(2, description="checkpoints to keep")
    keep_networks: PositiveInt | None = Field(
        None, description="network files to keep, the newest ones; null: all"
    )
    keep_networks_every: PositiveInt | None = Field(
        None, description="besides the newest, keep every n-th snapshot's network file"
    )
    after_snapshot: str | None = Field(
        None,
        description="command to run with each new network file, for instance to upload it; {} "
        "stands for its path, which else comes last",
    )
    wandb: str | None = Field(
        None, description="project of Weights & Biases that gets what TensorBoard gets"
    )
    write_errors: Literal["continue", "stop"] = Field(
        "continue", description="what a full disk does to the run"
    )
    stall_minutes: PositiveFloat = Field(
        15, description="without any process moving on, after which a run of several ends"
    )
    max_bad_steps: PositiveInt = Field(
        10, description="steps in a row without finite gradients that end the run"
    )

    @field_validator("after_snapshot")
    @classmethod
    def _is_command(cls, command: str | None) -> str | None:
        if command is not None and not shlex.split(command):  # which complains of open quotes
            raise ValueError("must not be empty")
        return command

    @model_validator(mode="after")
    def _batches(self) -> "RunConfig":
        if self.batch % self.gpus:
            raise ValueError(f"batch {self.batch} is not divisible by gpus {self.gpus}")
        per_process = self.batch // self.gpus
        if self.batch_gpu and per_process % self.batch_gpu:
            raise ValueError(
                f"batch per process {per_process} is not divisible by batch_gpu {self.batch_gpu}"
            )
        return self


class GeodConfig(_Section):
    """Supervision of geometry by an inverse renderer (GeoD, Shi et al. 2022). Off by default.

    It is on, and the inverse renderer is built, as soon as a weight is above 0. The schedule's
    defaults are those of the published classes; the published scripts never switch it on.
    """

    weight_start: float = Field(0.0, ge=0, description="weight of the normal loss at start_kimg")
    weight_end: float = Field(
        0.0, ge=0, description="weight from end_kimg on; 0.1 is the published classes' default"
    )
    start_kimg: float = Field(
        20.0, ge=0, description="thousand images after which the normal loss sets in"
    )
    end_kimg: float = Field(
        60.0,
        ge=0,
        description="where the weight has moved, linearly, from weight_start to weight_end; "
        "start_kimg itself for a step",
    )
    stop_kimg: float = Field(
        2000.0, ge=0, description="thousand images at which the normal loss ends"
    )
    train_until_kimg: float = Field(
        2000.0, ge=0, description="thousand images up to which the inverse renderer is trained"
    )
    interval: PositiveInt = Field(
        1, description="steps between two computations of the normal loss; not made up for"
    )
    interval_from_kimg: float = Field(
        0.0, ge=0, description="up to here the normal loss is computed in every step"
    )
    pretrained: str | None = Field(
        None,
        description="file to take the inverse renderer from, a published checkpoint or a network "
        "file written with --with-ir; it is not trained any further",
    )
    width: PositiveInt = Field(
        64,
        multiple_of=16,
        description="channels of the inverse renderer's first layers; published ones have 64",
    )
    mirror_weight: float = Field(
        0.5, ge=0, description="of the mirrored object's terms, relative to the object's own"
    )
    perceptual_weight: float = Field(1.0, ge=0, description="of the perceptual terms")
    smoothness_weight: float = Field(0.0, ge=0, description="of the canonical depth's smoothness")
    confidence: bool = Field(
        True, description="weigh errors by a learned confidence (Wu et al. 2020, equation 3)"
    )
    features: str = Field(
        "efficientnet-lite0",
        description="what the perceptual terms compare: efficientnet-lite0 (from its package), the "
        "path of VGG16's weights (torchvision's file; as published), or random",
    )
    lr: PositiveFloat = Field(1e-4, description="of Adam, betas (0.9, 0.999)")
    weight_decay: float = Field(5e-4, ge=0, description="L2, added to the gradient")
    in_network_files: bool = Field(
        False, description="store the inverse renderer in network files too"
    )
    detach_target: bool = Field(
        False,
        description="the inverse renderer's normals are a fixed target: the generator cannot lower "
        "the loss by what it paints; not as published",
    )
    camera_fov: bool = Field(
        False,
        description="take the field of view from camera.focal; as published it is 18.837 degrees "
        "for any camera, the diagonal of ffhq's",
    )
    axial_depth: bool = Field(
        False,
        description="turn the generator's distances along rays into depths before normals are "
        "taken; not as published",
    )
    erode_mask: bool = Field(
        False,
        description="leave out pixels beside empty ones, whose normals are not those of a surface; "
        "not as published",
    )

    @property
    def active(self) -> bool:
        """Whether the generator is ever supervised."""
        return max(self.weight_start, self.weight_end) > 0 and self.start_kimg < self.stop_kimg

    @model_validator(mode="after")
    def _ordered(self) -> "GeodConfig":
        if self.start_kimg > self.end_kimg:
            raise ValueError(
                f"geod.start_kimg {self.start_kimg:g} lies after geod.end_kimg {self.end_kimg:g}"
            )
        if self.pretrained and not self.active:
            raise ValueError("geod.pretrained does nothing while GeoD is off: add --geod")
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
    geod: GeodConfig = GeodConfig()
    run: RunConfig = RunConfig()

    @property
    def object_stands_alone(self) -> bool:
        """Whether what is behind the object is no part of it: white, or a background of its own."""
        return self.rendering.white_background or self.generator.background

    @property
    def super_resolved(self) -> bool:
        """Whether images are super-resolved; small ones are the rendering itself."""
        return self.data.resolution >= SUPER_RESOLVED

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        raw, size = self.rendering.raw_resolution, self.data.resolution
        if not self.super_resolved:
            if raw != size:
                raise ValueError(
                    f"data.resolution {size} has no super-resolution: "
                    f"rendering.raw_resolution must be {size}, not {raw}"
                )
            if self.discriminator.dual:
                raise ValueError(
                    f"data.resolution {size} has no second image for dual discrimination: "
                    "set discriminator.dual=false"
                )
        if self.rendering.raw_resolution_end and not self.super_resolved:
            raise ValueError("rendering.raw_resolution_end needs a data.resolution of 128 or more")
        if self.rendering.white_background and self.generator.background:
            raise ValueError(
                "rendering.white_background leaves no place for generator.background: "
                "set one of them to false"
            )
        blocks = size.bit_length() - 3  # from the image's resolution down to 8 x 8
        if self.discriminator.freeze_blocks > blocks:
            raise ValueError(f"discriminator.freeze_blocks can be at most {blocks} at {size} px")
        range_h = self.camera.range_h
        if self.geod.active and range_h and range_h[1] - range_h[0] > math.pi:
            raise ValueError(
                "GeoD rests on objects that look alike left and right, as seen from the front: it "
                f"does not suit cameras all round them (preset {self.preset})"
            )
        return self


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """A config with `changes` ({'section.field': value}) on top; strings are read as JSON.

    Raises:
        UserError: one line, for an unknown key, a wrong type, or a contradiction.
    """
    settings = config.model_dump(exclude_unset=True)
    for key, value in old_names.current_settings(changes).items():
        section, _, field = key.partition(".")
        if field not in _fields_of(section):
            raise UserError(f"unknown setting '{key}'{_nearest(key)}")
        settings.setdefault(section, {})[field] = _from_text(value, section, field)
    return config_from_dict(settings)


def config_from_dict(settings: Mapping[str, Any]) -> Config:
    """The inverse of `Config.model_dump`, for configs of earlier versions too.

    Raises:
        UserError: one line, for anything that is not a config.
    """
    try:
        known = old_names.current_config(settings) if isinstance(settings, Mapping) else settings
        return Config.model_validate(known)
    except pydantic.ValidationError as error:
        raise UserError("; ".join(_explain(item) for item in error.errors())) from error


def parse_settings(arguments: Sequence[str]) -> dict[str, str]:
    """['section.field=value', ...], as given to --set, as a dictionary.

    Raises:
        UserError: where '=' is missing.
    """
    changes = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"--set {argument}: write it as section.field=value")
        changes[key.strip()] = value.strip()
    return changes


def config_json(config: Config, indent: int | None = None) -> str:
    """A config as JSON; unlike pydantic's own, for paths of any bytes."""
    return json.dumps(config.model_dump(mode="json"), indent=indent)


def describe_settings() -> Iterator[tuple[str, str, str]]:
    """(section.field, default as JSON, description) of every setting, in order."""
    for section in Config.model_fields:
        for field, info in _fields_of(section).items():
            yield f"{section}.{field}", json.dumps(info.default), info.description or ""


def _fields_of(section: str) -> Mapping[str, Any]:
    annotation = Config.model_fields[section].annotation if section in Config.model_fields else None
    if isinstance(annotation, type) and issubclass(annotation, _Section):
        return annotation.model_fields
    return {}


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
    known = [name for name, _, _ in describe_settings()]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else f": known are {', '.join(known)}"


def _explain(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{where}: {message}" if where.count(".") else message
    return f"{where}: {message}, not {error['input']!r}"
