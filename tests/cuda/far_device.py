"""A device that is not the CPU, on machines that have none: `Far`.

Its tensors hold values, in main memory, but nothing reaches them except through what moves tensors
between a GPU and the CPU. To the code they are tensors of the device 'meta', the only one beside
the CPU that autograd accepts in a build without CUDA; operations compute with their values. As on a
GPU, tensors of both devices cannot meet in one operation, and `numpy()` is refused. Random numbers
come from the CPU's generator: so results can be compared with those of the CPU.

    with Far() as far:
        ...  # device=far.device
    far.synchronizations  # Counter: what made the CPU wait for the device, by the line that did
"""

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
ROOT = Path(__file__).parents[2]

aten = torch.ops.aten

# The size of their results depends on values; reading these is waiting for them.
_SIZED_BY_VALUES = {
    aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive,
    aten.bincount,
}  # fmt: skip
# Take indices from the CPU, copying them.
_INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
_COPYING = {aten._to_copy, aten.copy_, aten._copy_from, aten.set_}


class FarTensor(Tensor):
    """Looks like a tensor of the device 'meta'; `near` has the values."""

    near: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: Tensor) -> "FarTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=DEVICE,
        )
        made.near = near
        return made

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": DEVICE} | options)

    def __repr__(self) -> str:
        return f"FarTensor({self.near})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("a far tensor outside of `with Far()`")


class WrongDevice(RuntimeError):
    """A GPU would have refused this."""


class _Numbers(TorchFunctionMode):
    """Between Python's numbers and far tensors: Torch leaves such of 'meta' without values."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and _is_far(kwargs.get("device")):
            del kwargs["device"]
            return func(*args, **kwargs).to(DEVICE)
        if func is Tensor.tolist and isinstance(args[0], FarTensor):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


class Far(TorchDispatchMode):
    """While it is in force, 'meta' is a device that computes."""

    device = DEVICE

    def __init__(self) -> None:
        super().__init__()
        self.synchronizations: Counter[str] = Counter()
        self.operations = 0  # about the number of kernels that a GPU would run
        self._numbers = _Numbers()

    def __enter__(self):
        self._numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._numbers.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        far = [t for t in tensors if isinstance(t, FarTensor)]
        if not far and not _is_far(kwargs.get("device")):
            return func(*args, **kwargs)
        packet = func.overloadpacket
        if any(t.is_meta and not isinstance(t, FarTensor) for t in tensors):
            raise WrongDevice(f"{packet}: a list as an index is a copy to the device")
        if packet in _COPYING:
            return self._copy(func, args, kwargs)
        self._check(packet, tensors, args)
        self.operations += 1
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        result = func(*tree_map(_near, args), **tree_map(_near, kwargs))
        result = tree_map(_far, result)
        if not far:
            return result
        return return_and_correct_aliasing(func, args, kwargs, result)

    def _check(self, packet: Any, tensors: list[Tensor], args: tuple[Any, ...]) -> None:
        near = [t for t in tensors if not isinstance(t, FarTensor) and t.ndim > 0]
        if packet in _INDEXING:
            indices = [t for t in args[1] if t is not None]
            if any(t.dtype in (torch.bool, torch.uint8) for t in indices):
                self._waited(f"{packet} by a mask")
            if any(t is i for t in near for i in indices):
                self._waited(f"{packet} with indices on the CPU")
            near = [t for t in near if all(t is not i for i in indices)]
        if near:
            raise WrongDevice(f"{packet}: a tensor of the CPU among those of the device")
        if packet in _SIZED_BY_VALUES or packet is aten.repeat_interleave:
            self._waited(str(packet))
        if packet in (aten._local_scalar_dense, aten.equal, aten.is_nonzero):
            self._waited(str(packet))

    def _copy(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Between the devices, or on the far one."""
        packet, source = func.overloadpacket, args[0] if len(args) == 1 else args[1]
        if packet is aten._to_copy:
            to_far = _is_far(kwargs.get("device") or args[0].device)
            non_blocking = kwargs.get("non_blocking", False)
        else:
            to_far = isinstance(args[0], FarTensor)
            non_blocking = kwargs.get("non_blocking", len(args) > 2 and args[2])
        from_far = isinstance(source, FarTensor)
        if from_far and not to_far:
            self._waited("a copy to the CPU")
        elif to_far and not from_far and not non_blocking and source.ndim + source.numel() > 0:
            self._waited("a copy from the CPU")
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        result = func(*tree_map(_near, args), **tree_map(_near, kwargs))
        if packet is not aten._to_copy:
            return args[0]
        return _far(result.clone() if result is _near(source) else result) if to_far else result

    def _waited(self, why: str) -> None:
        self.synchronizations[f"{_caller()}: {why}"] += 1


def _is_far(device: Any) -> bool:
    return device is not None and torch.device(device) == DEVICE


def _near(x: Any) -> Any:
    return x.near if isinstance(x, FarTensor) else x


def _far(x: Any) -> Any:
    return FarTensor(x) if isinstance(x, Tensor) and not isinstance(x, FarTensor) else x


def _caller() -> str:
    """The innermost line of the project, beside the tests."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "tests"):
            return f"{path.relative_to(ROOT)}:{frame.lineno} {frame.name}"
    return "tests"
