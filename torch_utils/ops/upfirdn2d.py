"""Upsample, filter, downsample: the resampling of StyleGAN2 (Karras et al. 2020, appendix B)."""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cuda, kernels


def resample_filter(taps: Sequence[float] | Tensor) -> Tensor:
    """A [h, w] filter of sum 1; one-dimensional taps give their outer product."""
    taps = torch.as_tensor(taps, dtype=torch.float32)
    kernel = torch.outer(taps, taps) if taps.ndim == 1 else taps
    return kernel / kernel.sum()


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def upfirdn2d(
    x: Tensor,
    kernel: Tensor,
    *,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: Sequence[int] = (0, 0, 0, 0),
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Zero-insert by `up`, pad, convolve with `kernel` x `gain`, keep every `down`-th pixel.

    x: [B, C, H, W]. kernel: [h, w]. up, down: one factor or (x, y). padding: (x0, x1, y0, y1),
    counted after zero insertion; negative values crop. flip_filter correlates instead.
    Returns [B, C, H', W'] with H' = (H * up_y + y0 + y1 - h) // down_y + 1, and is differentiable
    in x any number of times.
    """
    kernel = kernel * gain
    kernel = kernel.flip([0, 1]) if flip_filter else kernel
    return _Resample.apply(x, kernel, Plan(_pair(up), _pair(down), tuple(padding)))


class Plan(NamedTuple):
    """Factors (x, y) and padding (x0, x1, y0, y1) of one upfirdn2d."""

    up: tuple[int, int]
    down: tuple[int, int]
    padding: tuple[int, int, int, int]

    def output_size(self, height: int, width: int, kernel: Tensor) -> tuple[int, int]:
        """H', W'."""
        (up_x, up_y), (down_x, down_y), (x0, x1, y0, y1) = self
        return (
            (height * up_y + y0 + y1 - kernel.shape[0]) // down_y + 1,
            (width * up_x + x0 + x1 - kernel.shape[1]) // down_x + 1,
        )

    def transposed(self, height: int, width: int, kernel: Tensor) -> "Plan":
        """The plan that carries gradients back to an input of that size: factors swapped.

        The tap that joined input i and output o is t = i up - o down + x0. With the kernel
        mirrored it is the tap o down - i up + x0' for x0' = w - 1 - x0; x1' makes the size fit.
        """
        (up_x, up_y), (down_x, down_y), (x0, _, y0, _) = self
        out_height, out_width = self.output_size(height, width, kernel)
        back = (
            kernel.shape[1] - 1 - x0,
            (width - 1) * up_x - out_width * down_x + x0 + 1,
            kernel.shape[0] - 1 - y0,
            (height - 1) * up_y - out_height * down_y + y0 + 1,
        )
        return Plan(self.down, self.up, back)


def upfirdn2d_torch(x: Tensor, kernel: Tensor, plan: Plan) -> Tensor:
    """`upfirdn2d` in stock torch, in the formulation that was fastest on a CPU."""
    if plan.up == (1, 1):
        return _filter(x, kernel.flip([0, 1]), plan.down, plan.padding)
    down_x, down_y = plan.down
    return _enlarge(x, kernel, plan.up, plan.padding)[:, :, ::down_y, ::down_x]


def _per_channel(kernel: Tensor, x: Tensor) -> Tensor:
    return kernel.expand(x.shape[1], 1, *kernel.shape)


def _filter(x: Tensor, kernel: Tensor, down: tuple[int, int], padding: Sequence[int]) -> Tensor:
    """Pad, correlate, subsample. The convolution itself pads where both sides agree: no copy."""
    x0, x1, y0, y1 = padding
    inner = (max(min(y0, y1), 0), max(min(x0, x1), 0))
    x = _pad(x, (x0 - inner[1], x1 - inner[1], y0 - inner[0], y1 - inner[0]))
    weight = _per_channel(kernel, x)
    return F.conv2d(x, weight, stride=(down[1], down[0]), padding=inner, groups=x.shape[1])


def _enlarge(x: Tensor, kernel: Tensor, up: tuple[int, int], padding: Sequence[int]) -> Tensor:
    """Zero-insert, pad, convolve, as a transposed convolution, which multiplies no zeros.

    Its result spans every pixel that the kernel touches; `crop` pixels at its rim are too many.
    """
    height, width = kernel.shape
    x0, x1, y0, y1 = padding
    crop = (width - 1 - x0, width - up[0] - x1, height - 1 - y0, height - up[1] - y1)
    inner = (max(min(crop[2:]), 0), max(min(crop[:2]), 0))
    weight = _per_channel(kernel, x)
    y = F.conv_transpose2d(x, weight, stride=(up[1], up[0]), padding=inner, groups=x.shape[1])
    return _pad(y, (inner[1] - crop[0], inner[1] - crop[1], inner[0] - crop[2], inner[0] - crop[3]))


def _pad(x: Tensor, padding: Sequence[int]) -> Tensor:
    return F.pad(x, list(padding)) if any(padding) else x


class _Shape(ctypes.Structure):
    """`Resample` of csrc/upfirdn2d.h."""

    _fields_ = [
        *((f"size{i}", ctypes.c_int64) for i in range(6)),
        ("x_stride", ctypes.c_int64 * 4),
        ("y_stride", ctypes.c_int64 * 4),
        *((f"plan{i}", ctypes.c_int64) for i in range(8)),
    ]


class _Resample(torch.autograd.Function):
    """Linear in x: the gradient is the transposed plan, and so on for ever.

    Nothing but the kernel is saved, and second derivatives cost what first ones do (those of a
    convolution with one group per channel take a loop over channels in stock torch).
    """

    @staticmethod
    def forward(ctx, x, kernel, plan):
        ctx.save_for_backward(kernel)
        ctx.plan, ctx.size = plan, x.shape[2:]
        library = _library(x)
        if library is None:
            return upfirdn2d_torch(x, kernel.to(x.dtype), plan)
        return _launch(library, x, kernel, plan)

    @staticmethod
    def backward(ctx, d_y):
        (kernel,) = ctx.saved_tensors
        plan = ctx.plan.transposed(*ctx.size, kernel)
        return _Resample.apply(d_y, kernel.flip([0, 1]), plan), None, None


def _launch(library: ctypes.CDLL, x: Tensor, kernel: Tensor, plan: Plan) -> Tensor:
    """`upfirdn2d_torch` by csrc/upfirdn2d.cu."""
    size = plan.output_size(*x.shape[2:], kernel)
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    y = torch.empty((*x.shape[:2], *size), dtype=x.dtype, device=x.device, memory_format=layout)
    taps = kernel.flip([0, 1]).to(torch.promote_types(x.dtype, torch.float32)).contiguous()
    cuda.launch(
        library.upfirdn2d,
        x.device,
        cuda.TYPES[x.dtype],
        ctypes.byref(describe(x, y, taps, plan)),
        *cuda.pointers(x, taps, y),
    )
    return y


def describe(x: Tensor, y: Tensor, taps: Tensor, plan: Plan) -> _Shape:
    """The kernel's description of the operation that makes y from x."""
    strides = [(ctypes.c_int64 * 4)(*t.stride()) for t in (x, y)]
    pads = plan.padding[0], plan.padding[2]
    return _Shape(*x.shape, *y.shape[2:], *strides, *taps.shape, *plan.up, *plan.down, *pads)


def _library(x: Tensor) -> ctypes.CDLL | None:
    """Stock torch is the implementation on the CPU."""
    if x.device.type != "cuda" or x.dtype not in cuda.TYPES or x.numel() == 0:
        return None
    return kernels.load("upfirdn2d", x.device)
