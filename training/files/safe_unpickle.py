"""Pickles of old checkpoints, read without running them.

Such a file is a program for a stack machine whose opcodes include "import this" and "call that".
Python's unpickler is not used at all. `_Unpickler` implements the opcodes that published files
need, works on plain data, imports nothing, and calls nothing but the few functions of this module
that stand in for torch's and numpy's. An unknown class becomes a `Record` of its name and state; a
file that calls an unknown function is refused. Limits on opcodes and text bound time and memory; no
structure from a file is ever walked, compared, hashed or printed as a whole, so one that refers to
itself a billion times costs nothing.
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

MAX_OPCODES = 500_000  # published files have some 50 000
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
        part = self
        for name in path.split(".") if path else ():
            child = as_dict(part.settings().get("_modules")).get(name)
            if not isinstance(child, Record):
                return None
            part = child
        return part

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
        """Number of elements."""
        return math.prod(self.size)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self.count * self.storage.dtype.itemsize

    def load(self) -> Tensor:
        """A tensor with memory of its own. The copy also aligns the data."""
        if not self.count:
            return torch.empty(self.size, dtype=self.storage.dtype)
        start = self.offset * self.storage.dtype.itemsize
        data = torch.frombuffer(self.storage.data[start : start + self.nbytes], dtype=torch.uint8)
        return data.clone().view(self.storage.dtype).as_strided(self.size, self.stride)


# The unpickler ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Budget:
    """What a file, its nested pickles included, may still use."""

    opcodes: int = MAX_OPCODES
    text: int = MAX_TEXT_BYTES

    def spend(self, *, opcodes: int = 0, text: int = 0) -> None:
        self.opcodes -= opcodes
        self.text -= text
        if self.opcodes < 0:
            raise UserError(f"it has more than {MAX_OPCODES} opcodes")
        if self.text < 0:
            raise UserError(f"it has more than {MAX_TEXT_BYTES >> 20} MiB of text")


@dataclass(slots=True, frozen=True, eq=False, repr=False)
class _Name:
    """A global that the file names. It is never looked up."""

    text: str


@dataclass(slots=True)
class _Unpickler:
    """Reads pickles, one after the other, from a buffer (PEP 307, PEP 3154; module `pickletools`).

    Sets become lists, byte strings become views of the buffer, and dictionaries take only text and
    small integers as keys: hashing anything else can be made to take for ever.
    nested: the pickles within a tensor's storage, which call nothing and refer to storages by
    persistent ids.
    """

    data: memoryview
    budget: _Budget
    nested: bool = False
    position: int = 0
    stack: list = field(default_factory=list)
    outer_stacks: list[list] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self) -> Any:
        """The value of the pickle that starts at the current position."""
        self.stack, self.outer_stacks, self.memo = [], [], {}
        while (code := bytes(self.take(1))) != pickle.STOP:
            self.budget.spend(opcodes=1)
            if code not in _OPCODES:
                raise UserError(f"opcode {code!r} has no place in a network file")
            _OPCODES[code](self)
        return self.pop()

    def take(self, count: int) -> memoryview:
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise UserError("it is damaged: the data ends too early")
        return self.data[start : self.position]

    def integer(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def text(self, size: int) -> str:
        self.budget.spend(text=size)
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
            raise UserError("it is damaged: an opcode lacks its operand")
        return self.stack.pop()

    def pop_tuple(self, count: int) -> tuple:
        return tuple(self.pop() for _ in range(count))[::-1]

    def mark(self) -> None:
        self.outer_stacks.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list:
        if not self.outer_stacks:
            raise UserError("it is damaged: an opcode lacks its mark")
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
            raise UserError("it is damaged: an opcode lacks its operand")
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
        self.push(_CALLS[function.text](args, self.budget))

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


_OPCODES: dict[bytes, Callable[[_Unpickler], object]] = {
    pickle.PROTO: lambda u: u.take(1),
    pickle.FRAME: lambda u: u.take(8),
    pickle.MARK: _Unpickler.mark,
    pickle.NONE: lambda u: u.push(None),
    pickle.NEWTRUE: lambda u: u.push(True),
    pickle.NEWFALSE: lambda u: u.push(False),
    pickle.BININT: lambda u: u.push(u.integer(4, signed=True)),
    pickle.BININT1: lambda u: u.push(u.integer(1)),
    pickle.BININT2: lambda u: u.push(u.integer(2)),
    pickle.LONG1: lambda u: u.push(u.integer(u.integer(1), signed=True)),
    pickle.BINFLOAT: lambda u: u.push(struct.unpack(">d", u.take(8))[0]),
    pickle.SHORT_BINUNICODE: lambda u: u.push(u.text(u.integer(1))),
    pickle.BINUNICODE: lambda u: u.push(u.text(u.integer(4))),
    pickle.SHORT_BINBYTES: lambda u: u.push(u.take(u.integer(1))),
    pickle.BINBYTES: lambda u: u.push(u.take(u.integer(4))),
    pickle.BINBYTES8: lambda u: u.push(u.take(u.integer(8))),
    pickle.EMPTY_TUPLE: lambda u: u.push(()),
    pickle.TUPLE1: lambda u: u.push(u.pop_tuple(1)),
    pickle.TUPLE2: lambda u: u.push(u.pop_tuple(2)),
    pickle.TUPLE3: lambda u: u.push(u.pop_tuple(3)),
    pickle.TUPLE: lambda u: u.push(tuple(u.pop_to_mark())),
    pickle.EMPTY_LIST: lambda u: u.push([]),
    pickle.EMPTY_SET: lambda u: u.push([]),
    pickle.APPEND: lambda u: u.extend([u.pop()]),
    pickle.APPENDS: lambda u: u.extend(u.pop_to_mark()),
    pickle.ADDITEMS: lambda u: u.extend(u.pop_to_mark()),
    pickle.EMPTY_DICT: lambda u: u.push({}),
    pickle.SETITEM: lambda u: u.update(u.pop_tuple(2)),
    pickle.SETITEMS: lambda u: u.update(u.pop_to_mark()),
    pickle.BINPUT: lambda u: u.remember(u.integer(1)),
    pickle.LONG_BINPUT: lambda u: u.remember(u.integer(4)),
    pickle.MEMOIZE: lambda u: u.remember(len(u.memo)),
    pickle.BINGET: lambda u: u.recall(u.integer(1)),
    pickle.LONG_BINGET: lambda u: u.recall(u.integer(4)),
    pickle.GLOBAL: lambda u: u.name(u.line(), u.line()),
    pickle.STACK_GLOBAL: lambda u: u.name(*(u.pop(str), u.pop(str))[::-1]),
    pickle.REDUCE: _Unpickler.call,
    pickle.NEWOBJ: _Unpickler.new,
    pickle.BUILD: _Unpickler.build,
    pickle.BINPERSID: _Unpickler.persistent,
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


def _storage(args: tuple, budget: _Budget) -> Storage:
    """Torch's file format of before 2020: five pickles, the number of elements, the bytes."""
    match args:
        case (memoryview() as data,):
            unpickler = _Unpickler(data, budget, nested=True)
        case _:
            raise UserError("a storage is not a string of bytes")
    match tuple(unpickler.run() for _ in range(5)):
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
    if unpickler.integer(8) != count:
        raise UserError("a storage has two lengths")
    storage = Storage(_DTYPES[kind], data[unpickler.position :])
    if len(storage.data) != count * storage.dtype.itemsize:
        raise UserError("a storage is not as long as it says")
    return storage


def _tensor(args: tuple, _: _Budget) -> StoredTensor:
    match args:
        case (Storage() as storage, offset, tuple(size), tuple(stride), *_):
            return StoredTensor(storage, offset, size, stride)
    raise UserError("a tensor is not made from a storage")


def _parameter(args: tuple, _: _Budget) -> StoredTensor:
    match args:
        case (StoredTensor() as tensor, *_):
            return tensor
    raise UserError("a parameter is not made from a tensor")


def _persistent_object(args: tuple, _: _Budget) -> Record:
    """An object of a class whose source text the file carries; the text is not executed."""
    match args:
        case ({"type": "class", "class_name": str(name), "state": dict(state)},) if (
            len(name) <= MAX_NAME_BYTES
        ):
            return Record(name, state=state)
    raise UserError("a stored object lacks its class name or state")


_SCALARS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "?"}


def _scalar(args: tuple, _: _Budget) -> Any:
    """A numpy scalar, little-endian as numpy writes it on all machines in use."""
    match args:
        case (Record(args=(str(kind), *_)), memoryview() as data) if kind in _SCALARS:
            if len(data) == struct.calcsize(_SCALARS[kind]):
                return struct.unpack(_SCALARS[kind], data)[0]
    raise UserError("a numpy number is of an unknown kind")


def _dictionary(args: tuple, _: _Budget) -> dict:
    if args:
        raise UserError("a dictionary is made in an unknown way")
    return {}


def _record_of(name: str) -> Callable[[tuple, _Budget], Record]:
    return lambda args, _: Record(name, args)


_DICTIONARIES = ("collections.OrderedDict", "dnnlib.util.EasyDict")
_CALLS: dict[str, Callable[[tuple, _Budget], Any]] = {
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
        name: _record_of(name)
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
    """Read a pickle without running it.

    Args:
        data: the file; values refer to it.

    Returns:
        Made of None, flags, numbers, texts, views of `data`, lists, dictionaries, tuples, `Record`,
        `Storage` and `StoredTensor`.

    Raises:
        UserError: one line, for a file that is damaged, too large, or calls anything else.
    """
    if data[:1] != pickle.PROTO:
        raise UserError("it is not a pickle")
    return _Unpickler(data, _Budget()).run()


def as_dict(value: Any) -> dict:
    """The value if it is a dictionary, else an empty one: for lookups along a path that may end."""
    return value if isinstance(value, dict) else {}
