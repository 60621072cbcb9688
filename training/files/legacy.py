"""Networks from old checkpoints: pickles that carry their own source text and run it on loading.

`safe_unpickle` reads them without running anything; this module turns its records into a `Config`
and networks: generators and discriminators of PoF3D, and generators of EG3D.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from dnnlib import UserError
from torch_utils.ops.triplane_render import PLANE_AXES
from training.config import Config
from training.files import safe_unpickle
from training.files.network import Network
from training.files.safe_unpickle import Record, StoredTensor, as_dict
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.networks.superresolution import SIZES
from training.presets import build_config

MAX_FILE_BYTES = 2 << 30
MAX_SETTING = 1e6  # larger numbers in a file's settings are no sizes, angles or counts
MAX_SETTING_TEXT = 256  # characters

N = TypeVar("N", bound=nn.Module)


class LegacyCheckpoint(NamedTuple):
    """Content of an old checkpoint.

    networks: those of 'G', 'D', 'G_ema' that the file has; training_set: the arguments of its data
    set; nbytes: the file's size.
    """

    networks: dict[str, Record]
    training_set: dict[str, Any]
    nbytes: int


def read_legacy(path: str | os.PathLike) -> LegacyCheckpoint:
    """Read an old checkpoint without running or importing anything that it names.

    Raises:
        UserError: one line, for anything else, however hostile.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"network file {path} does not exist")
    with errors_naming(path):
        data = read_bytes(path)
        root = as_dict(safe_unpickle.load(data))
        networks = {
            key: root[key] for key in ("G", "D", "G_ema") if isinstance(root.get(key), Record)
        }
        if "G_ema" not in networks:
            raise UserError("it holds no network 'G_ema'")
        return LegacyCheckpoint(networks, as_dict(root.get("training_set_kwargs")), len(data))


@contextlib.contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Every UserError inside says that the file at `path` is no usable old checkpoint."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path} is not a usable old checkpoint: {error}") from error


def read_bytes(path: Path) -> memoryview:
    """The whole file. Raises UserError where it is too large or cannot be read."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise UserError(f"it is larger than {MAX_FILE_BYTES >> 30} GiB")
            data = bytearray(size)
            return memoryview(data)[: file.readinto(data)]
    except OSError as error:
        raise UserError(error.strerror) from error


def load_legacy(path: str | os.PathLike, device: str | torch.device = "cpu") -> Network:
    """The averaged generator and, if it estimates poses, the discriminator of an old checkpoint.

    EG3D's own discriminator, which is conditioned on known cameras instead, is left out.

    Args:
        path: the .pkl file.
        device: where the networks are put.

    Raises:
        UserError: one line, for a file that cannot be read or whose networks no `Config` describes.
    """
    path = Path(path)
    checkpoint = read_legacy(path)
    with errors_naming(path):
        stored, stored_discriminator = checkpoint.networks["G_ema"], checkpoint.networks.get("D")
        if stored_discriminator and not stored_discriminator.part("b4.cam_out1"):
            stored_discriminator = None
        config = _config(stored, stored_discriminator)
        generator = restore(lambda: Generator(config), stored, checkpoint.nbytes).to(device)
        if config.camera.poses == "given":
            _fold_label_scale(generator, stored)
        discriminator = None
        if stored_discriminator:
            discriminator = restore(
                lambda: Discriminator(config), stored_discriminator, checkpoint.nbytes
            ).to(device)
        data = _setting(checkpoint.training_set, "path")
    provenance = {
        "converted_from": path.name,
        "class": stored.name,
        "data": Path(data).name if isinstance(data, str) else None,
    }
    return Network(generator, discriminator, config, provenance)


def restore(build: Callable[[], N], stored: Record, available_bytes: int) -> N:
    """Build a network and fill it, after making sure that the file really has what it claims.

    Built first without memory: no memory is spent on sizes that the file's tensors do not have.

    Args:
        build: makes the network.
        stored: the network in the file.
        available_bytes: of the whole file, more than which its weights cannot take.

    Raises:
        UserError: where a tensor is missing or of another shape, layers compute otherwise, or the
            file is too short.
    """
    with torch.device("meta"):
        outline = build()
    tensors = {
        name: _checked_tensor(stored, name, expected.shape)
        for name, expected in outline.state_dict().items()
    }
    if sum(tensor.nbytes for tensor in tensors.values()) > available_bytes:
        raise UserError(f"{stored.name!r} has more weights than the file has bytes")
    _require_same_arithmetic(outline, stored)
    network = build()
    network.load_state_dict({name: tensor.load() for name, tensor in tensors.items()})
    return network.eval().requires_grad_(False)


def _checked_tensor(stored: Record, name: str, shape: torch.Size) -> StoredTensor:
    tensor = stored.tensor(name)
    if tensor is None:
        raise UserError(f"{stored.name!r} lacks the tensor {name}")
    if tensor.size != shape:
        found, wanted = list(tensor.size), list(shape)
        raise UserError(f"{stored.name!r}: tensor {name} has shape {found}, not {wanted}")
    if not tensor.storage.dtype.is_floating_point:
        raise UserError(f"{stored.name!r}: tensor {name} does not hold real numbers")
    return tensor


# Attributes of the old layers that enter the arithmetic, and ours.
_ARITHMETIC = {
    "weight_gain": "weight_gain",
    "bias_gain": "bias_gain",
    "activation": "act",
    "conv_clamp": "clamp",
    "up": "up",
    "down": "down",
}


def _require_same_arithmetic(network: nn.Module, stored: Record) -> None:
    """Learning-rate multipliers, activations and the like are code here, but data in old files."""
    for name, module in network.named_modules():
        part = stored.part(name)
        for theirs, ours in _ARITHMETIC.items():
            if part is None or theirs not in part.settings() or not hasattr(module, ours):
                continue
            found, expected = _setting(part.settings(), theirs), getattr(module, ours)
            numeric = isinstance(found, int | float) and isinstance(expected, int | float)
            if not (math.isclose(found, expected) if numeric else found == expected):
                raise UserError(f"layer {name} has {theirs} {found!r}, not {expected!r}")


def _fold_label_scale(generator: Generator, stored: Record) -> None:
    """EG3D scales the camera label, or zeroes it, before embedding it; the embedding is linear."""
    options = as_dict(stored.settings().get("rendering_kwargs"))
    ignored = _setting(options, "c_gen_conditioning_zero", False)
    generator.mapping.embed.weight.mul_(0 if ignored else _setting(options, "c_scale", 1))


def _config(generator: Record, discriminator: Record | None) -> Config:
    """The config that the shapes and settings in a file amount to.

    What a file does not say (focal length, loss weights) is taken from the preset with its cameras.
    """
    state = generator.settings()
    options = as_dict(state.get("rendering_kwargs"))
    _require_supported(generator, options)
    radius = _setting(options, "avg_camera_radius", 2.7)
    pivot = _setting(options, "avg_camera_pivot", [0, 0, 0])
    changes = {
        **_generator_sizes(generator),
        "data.resolution": _setting(state, "img_resolution"),
        "camera.radius": radius,
        "camera.pivot": pivot,
        "camera.range_h": _setting(state, "clamp_h"),
        "camera.range_v": _setting(state, "clamp_v"),
        "camera.init_std": None,
        "discriminator.dual": generator.part("superresolution") is not None,
        "rendering.raw_resolution": _setting(state, "neural_rendering_resolution", 64),
        "rendering.samples": _setting(options, "depth_resolution"),
        "rendering.importance_samples": _setting(options, "depth_resolution_importance"),
        "rendering.near": _setting(options, "ray_start"),
        "rendering.far": _setting(options, "ray_end"),
        "rendering.box_warp": _setting(options, "box_warp", 1),
        "rendering.white_background": _setting(options, "white_back", False),
        "rendering.plane_axes": _plane_axes(generator, options),
    }
    if "h_mean" in options or "h_mean" in state:
        changes["camera.mean_h"] = _setting(options if "h_mean" in options else state, "h_mean")
    if discriminator:
        changes |= _discriminator_sizes(discriminator)
    config = build_config(_preset_of(radius, pivot), changes)
    raw, size = config.rendering.raw_resolution, config.data.resolution
    if config.super_resolved and raw > SIZES[size].input:
        raise UserError(f"raw images of {raw} px are more than super-resolution to {size} px takes")
    return config


def _require_supported(generator: Record, options: dict) -> None:
    state, mapping = generator.settings(), _mapping(generator)
    for settings, key, needed in (
        (options, "clamp_mode", "softplus"),
        (options, "disparity_space_sampling", False),
        (options, "superresolution_noise_mode", "none"),
        (state, "learn_fov", False),
        (state, "bg_kwargs", None),
        (mapping.settings(), "linear_pose", False),
        (mapping.settings(), "uniform_sampling", False),
    ):
        found = _setting(settings, key, needed)
        if found != needed:
            raise UserError(f"{key} {found!r} is not supported, only {needed!r}")


def _mapping(generator: Record) -> Record:
    mapping = generator.part("backbone.mapping")
    if mapping is None:
        raise UserError(f"{generator.name!r} is not a tri-plane generator")
    return mapping


def _preset_of(radius: Any, pivot: Any) -> str:
    for name in ("ffhq", "cats", "shapenet_cars"):
        camera = build_config(name).camera
        if (radius, pivot) == (camera.radius, list(camera.pivot)):
            return name
    return "custom"


def _generator_sizes(stored: Record) -> dict[str, Any]:
    mapping = _mapping(stored)
    learned = mapping.part("affine_layer1") is not None
    w_dim = _size(mapping, "w_avg")[0]
    inputs = _size(mapping, "fc0.weight")[-1]
    blocks = [4 << i for i in range(8) if stored.part(f"backbone.synthesis.b{4 << i}")]
    if not blocks:
        raise UserError(f"{stored.name!r} makes no planes")
    top = f"b{blocks[-1]}"
    return {
        "camera.poses": "learned" if learned else "given",
        "generator.w_dim": w_dim,
        "generator.z_dim": inputs if learned else inputs - w_dim,
        "generator.mapping_layers": _layer_count(mapping),
        "generator.plane_resolution": blocks[-1],
        "generator.plane_channels": _size(stored, f"backbone.synthesis.{top}.torgb.bias")[0] // 3,
        "generator.decoder_hidden": _size(stored, "decoder.net.0.weight")[0],
        "generator.feature_channels": _size(stored, "decoder.net.2.weight")[0] - 1,
        **_widths(stored, "generator", blocks[-1]),
    }


def _discriminator_sizes(stored: Record) -> dict[str, Any]:
    arguments = as_dict(stored.settings().get("_init_kwargs"))
    mapping = stored.part("mapping")
    if not mapping:
        raise UserError(f"{stored.name!r} does not score images given their pose")
    resolution = _setting(stored.settings(), "img_resolution")
    if not isinstance(resolution, int):
        raise UserError(f"{stored.name!r} scores images of {resolution!r} px")
    epilogue = as_dict(arguments.get("epilogue_kwargs"))
    return {
        "discriminator.dual": _size(stored, f"b{resolution}.fromrgb.weight")[1] == 6,
        "discriminator.mapping_layers": _layer_count(mapping),
        "discriminator.group_size": _setting(epilogue, "mbstd_group_size", 4),
        "discriminator.half_precision_blocks": _setting(arguments, "num_fp16_res", 4),
        **_widths(stored, "discriminator", resolution),
    }


def _widths(stored: Record, section: str, resolution: int) -> dict[str, Any]:
    arguments = as_dict(stored.settings().get("_init_kwargs"))
    base = _setting(arguments, "channel_base", 32768)
    if not isinstance(base, int) or base < resolution:
        raise UserError(
            f"{stored.name!r} has channel_base {base!r}: no channels at {resolution} px"
        )
    return {
        f"{section}.channel_base": base,
        f"{section}.channel_max": _setting(arguments, "channel_max", 512),
    }


def _layer_count(mapping: Record, most: int = 64) -> int:
    return sum(mapping.part(f"fc{i}") is not None for i in range(most))


def _size(stored: Record, name: str) -> tuple[int, ...]:
    """The shape of a tensor that has at least one dimension, two if it is a weight."""
    tensor = stored.tensor(name)
    if tensor is None or len(tensor.size) < 1 + name.endswith("weight"):
        raise UserError(f"{stored.name!r} lacks the tensor {name}")
    return tensor.size


def _plane_axes(generator: Record, options: dict) -> str:
    """Old files list the axes of each plane as unit vectors: along its width, its height, across.

    Where they do not, PoF3D's option `wrong` says whether x-z occurs twice.
    """
    renderer = generator.part("renderer")
    axes = renderer.settings().get("plane_axes") if renderer else None
    if not isinstance(axes, StoredTensor):
        return "eg3d" if _setting(options, "wrong", True) else "full"
    if axes.size == (3, 3, 3):
        for name, pairs in PLANE_AXES.items():
            if axes.load().float()[:, :2].argmax(dim=-1).tolist() == [list(pair) for pair in pairs]:
                return name
    raise UserError("its planes lie along unknown axes")


def _setting(settings: Mapping, key: str, default: Any = None) -> Any:
    """A flag, number, short text, or short list of numbers; nothing else is a setting."""
    value = settings.get(key, default)
    items = value if isinstance(value, list | tuple) and len(value) <= 4 else [value]
    for item in items:
        plain = item is None or isinstance(item, str) and len(item) <= MAX_SETTING_TEXT
        if not plain and not (isinstance(item, int | float) and abs(item) <= MAX_SETTING):
            raise UserError(f"its setting {key} has a value that makes no sense")
    return list(items) if isinstance(value, list | tuple) else value
