"""Upsample, filter, downsample: the resampling of StyleGAN2 (Karras et al. 2020, appendix B)."""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neural_renderer.ops.registration import is_traced, register

from . import cuda, kernels


def resample_filter(taps: Sequence[float] | Tensor) -> Tensor:
    """A [h, w] filter of sum 1; one-dimensional taps give their outer product."""
    taps = torch.as_tensor(taps, dtype=torch.float32)
    kernel = torch.outer(taps, taps) if taps.ndim == 1 else taps
    return kernel / kernel.sum()


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    x, y = (value, value) if isinstance(value, int) else value
    return x, y


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

    Differentiable in x any number of times.

    Args:
        x: [B, C, H, W].
        kernel: [h, w].
        up: one factor or (x, y).
        down: one factor or (x, y).
        padding: (x0, x1, y0, y1), counted after zero insertion; negative values crop.
        flip_filter: correlate instead.
        gain: factor of the kernel.

    Returns:
        [B, C, H', W'] with H' = (H * up_y + y0 + y1 - h) // down_y + 1.
    """
    kernel = kernel * gain
    kernel = kernel.flip([0, 1]) if flip_filter else kernel
    # A compiler knows convolutions; it cannot look into a kernel, for which the operation stands.
    if is_traced(x) and not _has_kernel(x):
        return upfirdn2d_torch(x, kernel.to(x.dtype), _plan(_pair(up), _pair(down), padding))
    return resample(x, kernel, _pair(up), _pair(down), padding)


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
    # In bf16, a CPU's transposed convolution with one group per channel takes 50 times as long.
    slow = x.dtype == torch.bfloat16 and x.device.type == "cpu"
    dtype = torch.float32 if slow else x.dtype
    y = _enlarge(x.to(dtype), kernel.to(dtype), plan.up, plan.padding)
    return y.to(x.dtype)[:, :, ::down_y, ::down_x]


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


def _resample(
    x: Tensor, kernel: Tensor, up: Sequence[int], down: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """`upfirdn2d` with nothing left to choose."""
    if _has_kernel(x):
        library = kernels.load("upfirdn2d", x.device)
        if library is not None:
            return _launch(library, x, kernel, _plan(up, down, padding))
    return upfirdn2d_torch(x, kernel.to(x.dtype), _plan(up, down, padding))


def _resample_fake(
    x: Tensor, kernel: Tensor, up: Sequence[int], down: Sequence[int], padding: Sequence[int]
) -> Tensor:
    plan = _plan(up, down, padding)
    return (
        _empty(x, kernel, plan) if _has_kernel(x) else upfirdn2d_torch(x, kernel.to(x.dtype), plan)
    )


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Nothing but the kernel is saved."""
    x, kernel, *plan = inputs
    ctx.plan, ctx.size = _plan(*plan), x.shape[2:]
    ctx.save_for_backward(kernel)


def _resample_backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
    """Linear in x: the gradient is the transposed plan, and so on for ever.

    Second derivatives cost what first ones do (those of a convolution with one group per channel
    take a loop over channels in stock torch).
    """
    (kernel,) = ctx.saved_tensors
    plan = ctx.plan.transposed(*ctx.size, kernel)
    return resample(d_y, kernel.flip([0, 1]), *plan), None, None, None, None


def _plan(up: Sequence[int], down: Sequence[int], padding: Sequence[int]) -> Plan:
    x0, x1, y0, y1 = padding
    return Plan(_pair(up), _pair(down), (x0, x1, y0, y1))


resample = register(
    "pof3d::resample",
    _resample,
    fake=_resample_fake,
    setup_context=_keep_for_backward,
    backward=_resample_backward,
)


def _launch(library: ctypes.CDLL, x: Tensor, kernel: Tensor, plan: Plan) -> Tensor:
    """`upfirdn2d_torch` by csrc/upfirdn2d.cu."""
    y = _empty(x, kernel, plan)
    taps = kernel.flip([0, 1]).to(torch.promote_types(x.dtype, torch.float32)).contiguous()
    cuda.launch(
        library.upfirdn2d,
        x.device,
        cuda.TYPES[x.dtype],
        ctypes.byref(describe(x, y, taps, plan)),
        *cuda.pointers(x, taps, y),
    )
    return y


def _empty(x: Tensor, kernel: Tensor, plan: Plan) -> Tensor:
    """Memory for the result, in the layout of x."""
    size = plan.output_size(x.shape[2], x.shape[3], kernel)
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((*x.shape[:2], *size), dtype=x.dtype, device=x.device, memory_format=layout)


def describe(x: Tensor, y: Tensor, taps: Tensor, plan: Plan) -> _Shape:
    """The kernel's description of the operation that makes y from x."""
    strides = [(ctypes.c_int64 * 4)(*t.stride()) for t in (x, y)]
    pads = plan.padding[0], plan.padding[2]
    return _Shape(*x.shape, *y.shape[2:], *strides, *taps.shape, *plan.up, *plan.down, *pads)


def _has_kernel(x: Tensor) -> bool:
    """Stock torch is the implementation on the CPU."""
    if not cuda.is_gpu(x.device) or x.dtype not in cuda.TYPES or x.numel() == 0:
        return False
    return kernels.available("upfirdn2d", x.device)
