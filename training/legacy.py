"""Networks from old checkpoints: pickles that carried their own source text and ran it on loading.

Such a pickle is a program for a stack machine whose instructions include "import this" and "call
that". Python's unpickler is not used at all. The machine below knows the instructions that honest
files need, works on inert values, imports nothing, and calls nothing but the few functions of this
file that stand in for torch's and numpy's. An unknown class becomes a `Record` of its name and
state; a call of an unknown function refuses the file. Limits on bytes, instructions and text bound
memory and time; no structure from the file is ever walked, compared, hashed or printed as a whole,
so one that refers to itself a billion times costs nothing.

Read are the generators and discriminators of PoF3D and the generators of EG3D.
"""

import contextlib
import math
import os
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor, nn

from dnnlib import Command, UserError
from torch_utils.ops.triplane_render import PLANE_AXES

from .checkpoint import Network, save_network
from .config import Config, build_config
from .discriminator import Discriminator
from .generator import Generator
from .superresolution import SIZES

MAX_FILE_BYTES = 2 << 30
MAX_INSTRUCTIONS = 500_000  # published files have some 50 000
MAX_TEXT_BYTES = 64 << 20  # nearly all of it is source text
MAX_NAME_BYTES = 256
MAX_DIMENSIONS = 8
MAX_SETTING = 1e6  # larger numbers in a file's settings are no sizes, angles or counts


# What a file holds ------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """What a file says of an object: the name of its class, arguments, state. Not callable."""

    name: str
    args: tuple = ()
    state: Any = None

    def settings(self) -> dict:
        """The attributes of a stored object."""
        return _dict(self.state)

    def part(self, path: str) -> "Record | None":
        """The submodule at a dotted path of a stored network ('' is the network)."""
        here = self
        for name in path.split(".") if path else ():
            here = _dict(here.settings().get("_modules")).get(name)
            if not isinstance(here, Record):
                return None
        return here

    def tensor(self, path: str) -> "StoredTensor | None":
        """The parameter or buffer at a dotted path of a stored network."""
        owner, _, name = path.rpartition(".")
        state = part.settings() if (part := self.part(owner)) else {}
        found = _dict(state.get("_parameters")).get(name) or _dict(state.get("_buffers")).get(name)
        return found if isinstance(found, StoredTensor) else None


@dataclass(slots=True, frozen=True, eq=False, repr=False)
class Storage:
    """The bytes behind a tensor, still in the file's buffer."""

    dtype: torch.dtype
    data: memoryview

    def __len__(self) -> int:
        return len(self.data) // self.dtype.itemsize


@dataclass(slots=True, frozen=True, eq=False, repr=False)
class StoredTensor:
    """A view of a storage, checked to lie within it and not to hold more elements than it has."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self):
        numbers = (self.offset, *self.size, *self.stride)
        plain = all(isinstance(n, int) and 0 <= n <= MAX_FILE_BYTES for n in numbers)
        if not plain or not len(self.size) == len(self.stride) <= MAX_DIMENSIONS:
            raise UserError("a tensor has an impossible shape")
        steps = sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        count = math.prod(self.size)
        if count and (count > len(self.storage) or self.offset + steps >= len(self.storage)):
            raise UserError("a tensor reaches beyond its storage")

    @property
    def nbytes(self) -> int:
        return math.prod(self.size) * self.storage.dtype.itemsize

    def load(self) -> Tensor:
        """A tensor with memory of its own. The copy also aligns the data."""
        flat = torch.frombuffer(self.storage.data, dtype=torch.uint8).clone()
        return flat.view(self.storage.dtype).as_strided(self.size, self.stride, self.offset)


class LegacyCheckpoint(NamedTuple):
    """An old checkpoint, inert. networks: those of 'G', 'D', 'G_ema' that the file has;
    training_set: the arguments of its data set; nbytes: the file's size."""

    networks: dict[str, Record]
    training_set: dict[str, Any]
    nbytes: int


# The stack machine ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Limits:
    """What is left to spend; nested pickles spend from the same purse."""

    instructions: int = MAX_INSTRUCTIONS
    text: int = MAX_TEXT_BYTES

    def spend(self, *, instructions: int = 0, text: int = 0) -> None:
        self.instructions -= instructions
        self.text -= text
        if self.instructions < 0:
            raise UserError(f"it has more than {MAX_INSTRUCTIONS} instructions")
        if self.text < 0:
            raise UserError(f"it has more than {MAX_TEXT_BYTES >> 20} MiB of text")


@dataclass(slots=True, frozen=True, eq=False, repr=False)
class _Name:
    """A global that the file names. It is never looked up."""

    text: str


@dataclass(slots=True)
class _Machine:
    """Runs pickles, one after the other, from a buffer (PEP 307, PEP 3154; module `pickletools`).

    Sets become lists, byte strings become views of the buffer, and dictionaries take only text and
    small integers as keys: hashing anything else can be made to take for ever.
    nested: the pickles within a tensor's storage, which call nothing and refer to storages by
    persistent ids.
    """

    data: memoryview
    limits: _Limits
    nested: bool = False
    position: int = 0
    stack: list = field(default_factory=list)
    outer_stacks: list[list] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self) -> Any:
        """The value of the pickle that starts at the current position."""
        self.stack, self.outer_stacks, self.memo = [], [], {}
        while (code := bytes(self.take(1))) != pickle.STOP:
            self.limits.spend(instructions=1)
            if code not in _INSTRUCTIONS:
                raise UserError(f"instruction {code!r} has no place in a network file")
            _INSTRUCTIONS[code](self)
        return self.pop()

    def take(self, count: int) -> memoryview:
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise UserError("it is damaged: the data ends too early")
        return self.data[start : self.position]

    def integer(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def text(self, size: int) -> str:
        self.limits.spend(text=size)
        try:
            return str(self.take(size), "utf-8")
        except UnicodeDecodeError:
            raise UserError("it is damaged: a text is not UTF-8") from None

    def line(self) -> str:
        rest = bytes(self.data[self.position : self.position + MAX_NAME_BYTES])
        text = self.text(max(rest.find(b"\n"), 0))
        self.take(1)
        return text

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, kind: type | tuple[type, ...] = object) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise UserError("it is damaged: an instruction lacks its operand")
        return self.stack.pop()

    def pop_tuple(self, count: int) -> tuple:
        return tuple(self.pop() for _ in range(count))[::-1]

    def mark(self) -> None:
        self.outer_stacks.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list:
        if not self.outer_stacks:
            raise UserError("it is damaged: an instruction lacks its mark")
        items, self.stack = self.stack, self.outer_stacks.pop()
        return items

    def extend(self, items: list) -> None:
        target = self.pop(list)
        target.extend(items)
        self.push(target)

    def update(self, items: list | tuple) -> None:
        target = self.pop(dict)
        if len(items) % 2:
            raise UserError("it is damaged: a key lacks its value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < 1 << 32):
                raise UserError("a dictionary has a key that is neither text nor a small integer")
            target[key] = value
        self.push(target)

    def remember(self, index: int) -> None:
        if not self.stack:
            raise UserError("it is damaged: an instruction lacks its operand")
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise UserError("it is damaged: it refers to a value that is not there")
        self.push(self.memo[index])

    def name(self, module: str, attribute: str) -> None:
        if len(module) + len(attribute) > MAX_NAME_BYTES:
            raise UserError("a name is too long")
        self.push(_Name(f"{module}.{attribute}"))

    def call(self) -> None:
        args, function = self.pop(tuple), self.pop(_Name)
        if self.nested or function.text not in _CALLS:
            raise UserError(f"it calls {function.text!r}, which no network needs; nothing was run")
        self.push(_CALLS[function.text](args, self.limits))

    def new(self) -> None:
        args, cls = self.pop(tuple), self.pop(_Name)
        self.push({} if cls.text in _DICTIONARIES else Record(cls.text, args))

    def build(self) -> None:
        state, target = self.pop(), self.pop((Record, dict))
        if isinstance(target, Record):  # the attributes of a dictionary are of no interest
            target.state = state
        self.push(target)

    def persistent(self) -> None:
        if not self.nested:
            raise UserError("it refers to objects outside of it")
        self.push(Record("persistent id", self.pop(tuple)))


_INSTRUCTIONS: dict[bytes, Callable[[_Machine], None]] = {
    pickle.PROTO: lambda m: m.take(1),
    pickle.FRAME: lambda m: m.take(8),
    pickle.MARK: _Machine.mark,
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.BININT: lambda m: m.push(m.integer(4, signed=True)),
    pickle.BININT1: lambda m: m.push(m.integer(1)),
    pickle.BININT2: lambda m: m.push(m.integer(2)),
    pickle.LONG1: lambda m: m.push(m.integer(m.integer(1), signed=True)),
    pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    pickle.SHORT_BINUNICODE: lambda m: m.push(m.text(m.integer(1))),
    pickle.BINUNICODE: lambda m: m.push(m.text(m.integer(4))),
    pickle.SHORT_BINBYTES: lambda m: m.push(m.take(m.integer(1))),
    pickle.BINBYTES: lambda m: m.push(m.take(m.integer(4))),
    pickle.BINBYTES8: lambda m: m.push(m.take(m.integer(8))),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE1: lambda m: m.push(m.pop_tuple(1)),
    pickle.TUPLE2: lambda m: m.push(m.pop_tuple(2)),
    pickle.TUPLE3: lambda m: m.push(m.pop_tuple(3)),
    pickle.TUPLE: lambda m: m.push(tuple(m.pop_to_mark())),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.EMPTY_SET: lambda m: m.push([]),
    pickle.APPEND: lambda m: m.extend([m.pop()]),
    pickle.APPENDS: lambda m: m.extend(m.pop_to_mark()),
    pickle.ADDITEMS: lambda m: m.extend(m.pop_to_mark()),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.SETITEM: lambda m: m.update(m.pop_tuple(2)),
    pickle.SETITEMS: lambda m: m.update(m.pop_to_mark()),
    pickle.BINPUT: lambda m: m.remember(m.integer(1)),
    pickle.LONG_BINPUT: lambda m: m.remember(m.integer(4)),
    pickle.MEMOIZE: lambda m: m.remember(len(m.memo)),
    pickle.BINGET: lambda m: m.recall(m.integer(1)),
    pickle.LONG_BINGET: lambda m: m.recall(m.integer(4)),
    pickle.GLOBAL: lambda m: m.name(m.line(), m.line()),
    pickle.STACK_GLOBAL: lambda m: m.name(*(m.pop(str), m.pop(str))[::-1]),
    pickle.REDUCE: _Machine.call,
    pickle.NEWOBJ: _Machine.new,
    pickle.BUILD: _Machine.build,
    pickle.BINPERSID: _Machine.persistent,
}


# The functions that a file may call ---------------------------------------------------------------

_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_STORAGE_MAGIC, _STORAGE_VERSION = 0x1950A86A20F9469CFC6C, 1001


def _storage(args: tuple, limits: _Limits) -> Storage:
    """torch's file format of before 2020: five pickles, the number of elements, the bytes."""
    match args:
        case (memoryview() as data,):
            machine = _Machine(data, limits, nested=True)
        case _:
            raise UserError("a storage is not a string of bytes")
    match tuple(machine.run() for _ in range(5)):
        case (
            int(magic),
            int(version),
            {"little_endian": True},
            Record(args=("storage", _Name(text=kind), str(key), str(), int(count), None)),
            [str(stored_key)],
        ):
            known = (magic, version, key) == (_STORAGE_MAGIC, _STORAGE_VERSION, stored_key)
        case _:
            known = False
    if not known or kind not in _DTYPES:
        raise UserError("a storage is not in torch's format")
    if machine.integer(8) != count:
        raise UserError("a storage has two lengths")
    storage = Storage(_DTYPES[kind], data[machine.position :])
    if len(storage.data) != count * storage.dtype.itemsize:
        raise UserError("a storage is not as long as it says")
    return storage


def _tensor(args: tuple, _: _Limits) -> StoredTensor:
    match args:
        case (Storage() as storage, offset, tuple(size), tuple(stride), *_):
            return StoredTensor(storage, offset, size, stride)
    raise UserError("a tensor is not made from a storage")


def _parameter(args: tuple, _: _Limits) -> StoredTensor:
    match args:
        case (StoredTensor() as tensor, *_):
            return tensor
    raise UserError("a parameter is not made from a tensor")


def _persistent_object(args: tuple, _: _Limits) -> Record:
    """The source text that comes with the object stays text."""
    match args:
        case ({"type": "class", "class_name": str(name), "state": dict(state)},):
            return Record(name, state=state)
    raise UserError("a stored object lacks its class name or state")


_SCALARS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "?"}


def _scalar(args: tuple, _: _Limits) -> Any:
    """A numpy scalar, little-endian as numpy writes it on all machines in use."""
    match args:
        case (Record(args=(str(kind), *_)), memoryview() as data) if kind in _SCALARS:
            if len(data) == struct.calcsize(_SCALARS[kind]):
                return struct.unpack(_SCALARS[kind], data)[0]
    raise UserError("a numpy number is of an unknown kind")


def _dictionary(args: tuple, _: _Limits) -> dict:
    if args:
        raise UserError("a dictionary is made in an unknown way")
    return {}


def _inert(name: str) -> Callable[[tuple, _Limits], Record]:
    return lambda args, _: Record(name, args)


_DICTIONARIES = ("collections.OrderedDict", "dnnlib.util.EasyDict")
_CALLS: dict[str, Callable[[tuple, _Limits], Any]] = {
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    **dict.fromkeys(_DICTIONARIES, _dictionary),
    # Of no interest, but they occur.
    **{
        name: _inert(name)
        for name in (
            "numpy.dtype",
            "numpy.core.multiarray._reconstruct",
            "numpy._core.multiarray._reconstruct",
            "torch.device",
            "torch.Size",
            "builtins.set",
        )
    },
}


def read_legacy(path: str | os.PathLike) -> LegacyCheckpoint:
    """Read an old checkpoint without running or importing anything that it names.

    Raises UserError, one line, for anything else, however hostile.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"network file {path} does not exist")
    with _refusals_name(path):
        data = _read_bytes(path)
        if data[:1] != pickle.PROTO:
            raise UserError("it is not a pickle")
        root = _Machine(data, _Limits()).run()
        networks = {
            key: _dict(root)[key]
            for key in ("G", "D", "G_ema")
            if isinstance(_dict(root).get(key), Record)
        }
        if "G_ema" not in networks:
            raise UserError("it holds no network 'G_ema'")
        return LegacyCheckpoint(networks, _dict(root.get("training_set_kwargs")), len(data))


@contextlib.contextmanager
def _refusals_name(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{path} is not a usable old checkpoint: {error}") from error


def _read_bytes(path: Path) -> memoryview:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise UserError(f"it is larger than {MAX_FILE_BYTES >> 30} GiB")
            data = bytearray(size)
            return memoryview(data)[: file.readinto(data)]
    except OSError as error:
        raise UserError(error.strerror) from error


def _dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


# From records to networks -------------------------------------------------------------------------


def load_legacy(path: str | os.PathLike, device: str | torch.device = "cpu") -> Network:
    """The averaged generator and, if it tells poses, the discriminator of an old checkpoint.

    EG3D's own discriminator, which is told the camera instead, is left out. Raises UserError, one
    line, for a file that cannot be read or whose networks work in a way that `Config` cannot say.
    """
    path = Path(path)
    checkpoint = read_legacy(path)
    with _refusals_name(path):
        stored = checkpoint.networks["G_ema"]
        stored_discriminator = checkpoint.networks.get("D")
        if stored_discriminator and not stored_discriminator.part("b4.cam_out1"):
            stored_discriminator = None
        config = _config(stored, stored_discriminator)
        generator = _restore(Generator, config, stored, checkpoint.nbytes).to(device)
        if config.generator.pose == "given":
            _fold_label_scale(generator, stored)
        discriminator = None
        if stored_discriminator:
            discriminator = _restore(
                Discriminator, config, stored_discriminator, checkpoint.nbytes
            ).to(device)
        data = Path(str(_setting(checkpoint.training_set, "path"))).name
    provenance = {"converted_from": path.name, "class": stored.name, "data": data}
    return Network(generator, discriminator, config, provenance)


def _restore(
    cls: type[nn.Module], config: Config, stored: Record, available_bytes: int
) -> nn.Module:
    """Build a network and fill it, after making sure that the file really has what it claims.

    Built first without memory: sizes from a file are believed only once tensors back them.
    """
    with torch.device("meta"):
        outline = cls(config)
    _require_same_arithmetic(outline, stored)
    tensors = {name: stored.tensor(name) for name in outline.state_dict()}
    for name, expected in outline.state_dict().items():
        if tensors[name] is None:
            raise UserError(f"{stored.name!r} lacks the tensor {name}")
        if tensors[name].size != expected.shape:
            found, wanted = list(tensors[name].size), list(expected.shape)
            raise UserError(f"{stored.name!r}: tensor {name} has shape {found}, not {wanted}")
        if not tensors[name].storage.dtype.is_floating_point:
            raise UserError(f"{stored.name!r}: tensor {name} does not hold real numbers")
    if sum(tensor.nbytes for tensor in tensors.values()) > available_bytes:
        raise UserError(f"{stored.name!r} has more weights than the file has bytes")
    network = cls(config)
    network.load_state_dict({name: tensor.load() for name, tensor in tensors.items()})
    return network.eval().requires_grad_(False)


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
    options = _dict(stored.settings().get("rendering_kwargs"))
    scale = 0 if _setting(options, "c_gen_conditioning_zero", False) else _setting(options, "c_scale", 1)
    generator.mapping.embed.weight.mul_(scale)


def _config(generator: Record, discriminator: Record | None) -> Config:
    """The config that the shapes and settings in a file amount to.

    What a file does not say (focal length, loss weights) is taken from the preset with its cameras.
    """
    state = generator.settings()
    options = _dict(state.get("rendering_kwargs"))
    for where, key, needed in (
        (options, "clamp_mode", "softplus"),
        (options, "disparity_space_sampling", False),
        (options, "superresolution_noise_mode", "none"),
        (state, "learn_fov", False),
        (state, "bg_kwargs", None),
    ):
        if _setting(where, key, needed) != needed:
            raise UserError(f"{key} {_setting(where, key)!r} is not supported, only {needed!r}")
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


def _preset_of(radius: Any, pivot: Any) -> str:
    for name in ("ffhq", "cats", "shapenet_cars"):
        camera = build_config(name).camera
        if (radius, list(pivot or ())) == (camera.radius, list(camera.pivot)):
            return name
    return "custom"


def _generator_sizes(stored: Record) -> dict[str, Any]:
    mapping, synthesis = stored.part("backbone.mapping"), stored.part("backbone.synthesis")
    if not mapping or not synthesis:
        raise UserError(f"{stored.name!r} is not a tri-plane generator")
    learned = mapping.part("affine_layer1") is not None
    w_dim = _size(mapping, "w_avg")[0]
    inputs = _size(mapping, "fc0.weight")[-1]
    resolution = max((r for r in (4 << i for i in range(8)) if synthesis.part(f"b{r}")), default=4)
    return {
        "generator.pose": "learned" if learned else "given",
        "generator.w_dim": w_dim,
        "generator.z_dim": inputs if learned else inputs - w_dim,
        "generator.mapping_layers": _layer_count(mapping),
        "generator.plane_resolution": resolution,
        "generator.plane_channels": _size(synthesis, f"b{resolution}.torgb.weight")[0] // 3,
        "generator.decoder_hidden": _size(stored, "decoder.net.0.weight")[0],
        "generator.feature_channels": _size(stored, "decoder.net.2.weight")[0] - 1,
        **_widths(stored, "generator"),
    }


def _discriminator_sizes(stored: Record) -> dict[str, Any]:
    arguments = _dict(stored.settings().get("_init_kwargs"))
    mapping = stored.part("mapping")
    if not mapping:
        raise UserError(f"{stored.name!r} does not score images given their pose")
    resolution = _setting(stored.settings(), "img_resolution")
    epilogue = _dict(arguments.get("epilogue_kwargs"))
    return {
        "discriminator.dual": _size(stored, f"b{resolution}.fromrgb.weight")[1] == 6,
        "discriminator.mapping_layers": _layer_count(mapping),
        "discriminator.group_size": _setting(epilogue, "mbstd_group_size", 4),
        "discriminator.half_precision_blocks": _setting(arguments, "num_fp16_res", 4),
        **_widths(stored, "discriminator"),
    }


def _widths(stored: Record, section: str) -> dict[str, Any]:
    arguments = _dict(stored.settings().get("_init_kwargs"))
    return {
        f"{section}.channel_base": _setting(arguments, "channel_base", 32768),
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
            if axes.load()[:, :2].argmax(dim=-1).tolist() == [list(pair) for pair in pairs]:
                return name
    raise UserError("its planes lie along unknown axes")


def _setting(settings: Mapping, key: str, default: Any = None) -> Any:
    """A flag, number, short text, or short list of numbers; nothing else is a setting."""
    value = settings.get(key, default)
    items = value if isinstance(value, list | tuple) and len(value) <= 4 else [value]
    for item in items:
        plain = item is None or isinstance(item, str) and len(item) <= MAX_NAME_BYTES
        if not plain and not (isinstance(item, int | float) and abs(item) <= MAX_SETTING):
            raise UserError(f"its setting {key} has a value that makes no sense")
    return list(items) if isinstance(value, list | tuple) else value


@click.command(cls=Command)
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def main(old: Path, new: Path) -> None:
    """Convert the checkpoint OLD, a pickle, into the network file NEW (.safetensors)."""
    if new.suffix != ".safetensors":
        raise UserError(f"{new}: name the new file *.safetensors")
    if not new.parent.is_dir():
        raise UserError(f"the folder {new.parent} does not exist")
    network = load_legacy(old)
    save_network(new, network.generator, network.discriminator, network.provenance)
    sizes = {
        type(part).__name__.lower(): sum(p.numel() for p in part.parameters())
        for part in (network.generator, network.discriminator)
        if part is not None
    }
    parameters = ", ".join(f"{name} of {count / 1e6:.2f} M" for name, count in sizes.items())
    poses = network.config.generator.pose
    click.echo(
        f"{new}: {parameters} parameters, {network.config.data.resolution} px images, poses {poses}"
    )


if __name__ == "__main__":
    main()
