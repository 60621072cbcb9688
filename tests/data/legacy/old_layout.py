"""Writes small checkpoints in the old layout, and whatever else a pickle can be made to say.

Python's pickler only writes names that exist here; this one writes any name.
"""

import struct
from typing import Any, NamedTuple

from torch import Tensor, nn

from training.networks.discriminator import Discriminator
from training.networks.generator import Generator

MODULE_SOURCE = "raise SystemExit('the source text of a checkpoint was run')"


class Name(NamedTuple):
    """A global: 'module.attribute'."""

    text: str


class Call(NamedTuple):
    """function(*args), by REDUCE."""

    function: str
    args: tuple = ()


class New(NamedTuple):
    """cls.__new__(cls, *args), then a state for it: NEWOBJ and BUILD."""

    cls: str
    args: tuple = ()
    state: Any = None


class Raw(NamedTuple):
    """Instructions as they are."""

    code: bytes


def pickled(value: Any, *, lines: bool = False) -> bytes:
    """A whole pickle. lines: names are written in the oldest way, as protocols 0 to 3 do."""
    return b"\x80\x04" + encode(value, lines) + b"."


def encode(value: Any, lines: bool = False) -> bytes:
    def each(values) -> bytes:
        return b"".join(encode(item, lines) for item in values)

    match value:
        case Raw(code):
            return code
        case Name(text) if lines:
            module, _, attribute = text.rpartition(".")
            return b"c" + f"{module}\n{attribute}\n".encode()
        case Name(text):
            module, _, attribute = text.rpartition(".")
            return each((module, attribute)) + b"\x93"
        case Call(function, args):
            return each((Name(function), args)) + b"R"
        case New(cls, args, state):
            build = b"" if state is None else each([state]) + b"b"
            return each((Name(cls), args)) + b"\x81" + build
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if abs(value) < 1 << 31:
            return b"J" + struct.pack("<i", value)
        case int():
            return b"\x8a\xff" + value.to_bytes(255, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            encoded = value.encode()
            return b"X" + struct.pack("<I", len(encoded)) + encoded
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return b"(" + each(value) + b"t"
        case list():
            return b"](" + each(value) + b"e"
        case dict():
            return b"}(" + each(item for pair in value.items() for item in pair) + b"u"
    raise TypeError(f"cannot write {value!r}")


def stored_storage(tensor: Tensor) -> Call:
    """As torch itself pickles it: a pickle within the pickle."""
    _, (data,) = tensor.detach().contiguous()._typed_storage().__reduce__()
    return Call("torch.storage._load_from_bytes", (data,))


def stored_tensor(tensor: Tensor) -> Call:
    layout = (0, tuple(tensor.shape), tensor.contiguous().stride())
    hooks = Call("collections.OrderedDict")
    return Call("torch._utils._rebuild_tensor_v2", (stored_storage(tensor), *layout, False, hooks))


def stored_parameter(tensor: Tensor) -> Call:
    args = (stored_tensor(tensor), True, Call("collections.OrderedDict"))
    return Call("torch._utils._rebuild_parameter", args)


def stored_number(value: float) -> Call:
    """A numpy scalar."""
    dtype = Call("numpy.dtype", ("f8", False, True))
    return Call("numpy.core.multiarray.scalar", (dtype, struct.pack("<d", value)))


def stored_module(module: nn.Module, **attributes) -> Call | New:
    """A module of ours under the names of the old layout."""
    arithmetic = {
        theirs: stored_number(value) if isinstance(value, float) else value
        for theirs, ours in (("weight_gain", "weight_gain"), ("conv_clamp", "clamp"))
        if (value := getattr(module, ours, None)) is not None
    }
    state = {
        "training": False,
        "_parameters": {n: stored_parameter(p) for n, p in module.named_parameters(recurse=False)},
        "_buffers": {n: stored_tensor(b) for n, b in module.named_buffers(recurse=False)},
        "_modules": {n: stored_module(child) for n, child in module.named_children()},
        "_forward_hooks": Call("collections.OrderedDict"),
        **arithmetic,
        **attributes,
    }
    name = type(module).__name__
    if name in ("Decoder", "ModuleDict"):
        return New(f"training.{name}", (), state)
    meta = {"type": "class", "version": 6, "module_src": MODULE_SOURCE, "class_name": name}
    return Call("torch_utils.persistence._reconstruct_persistent_obj", ({**meta, "state": state},))


def stored_checkpoint(generator: Generator, discriminator: Discriminator | None = None) -> dict:
    """What `pickled` turns into an old file; edit it on the way."""
    config = generator.config
    sizes, cameras, rendering = config.generator, config.camera, config.rendering
    options = {
        "clamp_mode": "softplus",
        "superresolution_noise_mode": "none",
        "depth_resolution": rendering.samples,
        "depth_resolution_importance": rendering.importance_samples,
        "ray_start": rendering.near,
        "ray_end": rendering.far,
        "box_warp": rendering.box_warp,
        "white_back": rendering.white_background,
        "wrong": rendering.plane_axes == "eg3d",
        "avg_camera_radius": cameras.radius,
        "avg_camera_pivot": list(cameras.pivot),
        "h_mean": cameras.mean_h,
    }
    stored = stored_module(
        generator,
        img_resolution=config.data.resolution,
        neural_rendering_resolution=rendering.raw_resolution,
        rendering_kwargs=options,
        clamp_h=cameras.range_h,
        clamp_v=cameras.range_v,
        _init_kwargs={"channel_base": sizes.channel_base, "channel_max": sizes.channel_max},
    )
    widths = config.discriminator
    return {
        "training_set_kwargs": {"path": "/data/faces.zip"},
        "G": None,
        "D": discriminator
        and stored_module(
            discriminator,
            img_resolution=config.data.resolution,
            _init_kwargs={
                "channel_base": widths.channel_base,
                "channel_max": widths.channel_max,
                "num_fp16_res": widths.half_precision_blocks,
                "epilogue_kwargs": {"mbstd_group_size": widths.group_size},
            },
        ),
        "G_ema": stored,
        "augment_pipe": None,
    }


def state_of(stored: Call | New, path: str = "") -> dict:
    """The attributes of a stored module or of a part of it, to be edited."""
    for name in path.split(".") if path else ():
        stored = state_of(stored)["_modules"][name]
    return stored.state if isinstance(stored, New) else stored.args[0]["state"]
