"""Pickles of old checkpoints, read without running them.

Such a file is a program for a stack machine whose instructions include "import this" and "call
that". Python's unpickler is not used at all. The machine below knows the instructions that honest
files need, works on inert values, imports nothing, and calls nothing but the few functions of this
file that stand in for torch's and numpy's. An unknown class becomes a `Record` of its name and
state; a call of an unknown function refuses the file. Limits on instructions and text bound time
and memory; no structure from a file is ever walked, compared, hashed or printed as a whole, so one
that refers to itself a billion times costs nothing.
"""

import math
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dnnlib import UserError

MAX_INSTRUCTIONS = 500_000  # published files have some 50 000
MAX_TEXT_BYTES = 64 << 20  # nearly all of it is source text
MAX_NAME_BYTES = 256
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 1 << 40


# What a file holds ------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """What a file says of an object: the name of its class, arguments, state. Not callable."""

    name: str
    args: tuple = ()
    state: Any = None

    def settings(self) -> dict:
        """The attributes of a stored object."""
        return as_dict(self.state)

    def part(self, path: str) -> "Record | None":
        """The submodule at a dotted path of a stored network ('' is the network)."""
        here = self
        for name in path.split(".") if path else ():
            here = as_dict(here.settings().get("_modules")).get(name)
            if not isinstance(here, Record):
                return None
        return here

    def tensor(self, path: str) -> "StoredTensor | None":
        """The parameter or buffer at a dotted path of a stored network."""
        owner, _, name = path.rpartition(".")
        state = part.settings() if (part := self.part(owner)) else {}
        for kind in ("_parameters", "_buffers"):
            found = as_dict(state.get(kind)).get(name)
            if isinstance(found, StoredTensor):
                return found
        return None


@dataclass(slots=True, frozen=True, eq=False, repr=False)
class Storage:
    """The bytes behind a tensor, still in the file's buffer."""

    dtype: torch.dtype
    data: memoryview

    def __len__(self) -> int:
        return len(self.data) // self.dtype.itemsize


@dataclass(slots=True, frozen=True, eq=False, repr=False)
class StoredTensor:
    """A view of a storage, checked to lie within it and to leave out nothing in between.

    So it takes as many bytes in memory as in the file, unless the file names them twice.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self):
        numbers = (self.offset, *self.size, *self.stride)
        if not all(isinstance(n, int) and 0 <= n <= MAX_ELEMENTS for n in numbers):
            raise UserError("a tensor has an impossible shape")
        if not len(self.size) == len(self.stride) <= MAX_DIMENSIONS:
            raise UserError("a tensor has an impossible shape")
        span = 1 + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if self.count and (self.count != span or self.offset + span > len(self.storage)):
            raise UserError("a tensor does not fit its storage")

    @property
    def count(self) -> int:
        return math.prod(self.size)

    @property
    def nbytes(self) -> int:
        return self.count * self.storage.dtype.itemsize

    def load(self) -> Tensor:
        """A tensor with memory of its own. The copy also aligns the data."""
        if not self.count:
            return torch.empty(self.size, dtype=self.storage.dtype)
        start = self.offset * self.storage.dtype.itemsize
        data = torch.frombuffer(self.storage.data[start : start + self.nbytes], dtype=torch.uint8)
        return data.clone().view(self.storage.dtype).as_strided(self.size, self.stride)


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
class _PickleMachine:
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
        """A name of the oldest kind: up to the end of the line."""
        rest = bytes(self.data[self.position : self.position + MAX_NAME_BYTES])
        if b"\n" not in rest:
            raise UserError("a name is too long")
        text = self.text(rest.index(b"\n"))
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


_INSTRUCTIONS: dict[bytes, Callable[[_PickleMachine], None]] = {
    pickle.PROTO: lambda m: m.take(1),
    pickle.FRAME: lambda m: m.take(8),
    pickle.MARK: _PickleMachine.mark,
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
    pickle.REDUCE: _PickleMachine.call,
    pickle.NEWOBJ: _PickleMachine.new,
    pickle.BUILD: _PickleMachine.build,
    pickle.BINPERSID: _PickleMachine.persistent,
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
            machine = _PickleMachine(data, limits, nested=True)
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
        case ({"type": "class", "class_name": str(name), "state": dict(state)},) if (
            len(name) <= MAX_NAME_BYTES
        ):
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


def load(data: memoryview) -> Any:
    """The value of a pickle, made of None, flags, numbers, texts, views of `data`, lists,
    dictionaries, tuples, `Record`, `Storage` and `StoredTensor`.

    Raises UserError, one line, for a file that is damaged, too large, or calls for anything else.
    """
    if data[:1] != pickle.PROTO:
        raise UserError("it is not a pickle")
    return _PickleMachine(data, _Limits()).run()


def as_dict(value: Any) -> dict:
    """The value if it is a dictionary, else an empty one: for lookups along a path that may end."""
    return value if isinstance(value, dict) else {}
