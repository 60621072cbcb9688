"""The layers that all networks are made of (StyleGAN2: Karras et al. 2020).

Equalized learning rate: weights are drawn from N(0, 1) and scaled at run time by 1/sqrt(fan-in), so
that Adam moves all of them at the same relative speed. Parameter names are those of the published
checkpoints.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_utils import ops

RESAMPLE_TAPS = (1, 3, 3, 1)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision is for inner activations; images and statistics need more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def as_activations(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Convert x [B, C, H, W] to a type; None: to float32 at least.

    On a CPU, bf16 is fastest with channels last.
    """
    if dtype == torch.bfloat16 and x.device.type == "cpu":
        return x.to(dtype, memory_format=torch.channels_last)
    return at_least_float32(x) if dtype is None else x.to(dtype)


def normalize_second_moment(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Scale each row of x [B, C] to mean square 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


class FullyConnected(nn.Module):
    """Equalized linear layer with activation; `lr_multiplier` scales its learning rate."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        act: str = "linear",
        lr_multiplier: float = 1,
        bias_init: float = 0,
    ):
        super().__init__()
        self.act = act
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def effective(self) -> tuple[Tensor, Tensor]:
        """Weight [out, in] and bias [out] as they are applied."""
        bias = self.bias if self.bias_gain == 1 else self.bias * self.bias_gain
        return self.weight * self.weight_gain, bias

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in] -> [..., out], in the type of x."""
        # The gain goes to the input, which is smaller than the weight.
        bias = self.bias if self.bias_gain == 1 else self.bias * self.bias_gain
        x = F.linear(x * self.weight_gain, self.weight.to(x.dtype), bias.to(x.dtype))
        return ops.bias_act(x, dim=-1, act=self.act)


def conv2d_resample(
    x: Tensor, weight: Tensor, *, kernel: Tensor | None = None, up: int = 1, down: int = 1
) -> Tensor:
    """'Same' convolution with up- or downsampling by 2, low-pass filtered.

    Correlates with the weight, except when upsampling, where it convolves (as the published weights
    expect).

    Args:
        x: [B, I, H, W].
        weight: [O, I, k, k], or one for each sample, [B, O, I, k, k]; k = 3 (or 1 where up is 1).
        kernel: the low-pass filter, 4 taps wide; needed where up or down is 2.
        up: 1 or 2.
        down: 1 or 2; 1 where up is 2.

    Returns:
        [B, O, H * up / down, W * up / down].

    Raises:
        ValueError: for resampling without a kernel.
    """
    pad = weight.shape[-1] // 2
    if up == down == 1:
        return _correlate(x, weight, padding=pad)
    if kernel is None:
        raise ValueError("resampling needs a low-pass kernel")
    if up == 2:
        return ops.upfirdn2d(_convolve_up(x, weight), kernel, padding=(1, 1, 1, 1), gain=4)
    if pad == 0:
        return _correlate(ops.upfirdn2d(x, kernel, down=2, padding=(1, 1, 1, 1)), weight)
    return _correlate(ops.upfirdn2d(x, kernel, padding=(2, 2, 2, 2)), weight, stride=2)


def _correlate(x: Tensor, weight: Tensor, *, padding: int = 0, stride: int = 1) -> Tensor:
    """`F.conv2d`; a weight for each sample [B, O, I, k, k] makes each sample a group."""
    if weight.ndim == 4:
        return F.conv2d(x, weight, padding=padding, stride=stride)
    grouped = x.reshape(1, -1, *x.shape[2:])
    weights = weight.flatten(0, 1)
    y = F.conv2d(grouped, weights, padding=padding, stride=stride, groups=len(x))
    return y.reshape(len(x), -1, *y.shape[2:])


def _convolve_up(x: Tensor, weight: Tensor) -> Tensor:
    """Transposed convolution of stride 2; weight as for `_correlate`."""
    if weight.ndim == 4:
        return F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    grouped = x.reshape(1, -1, *x.shape[2:])
    own_weights = weight.transpose(1, 2).flatten(0, 1)
    y = F.conv_transpose2d(grouped, own_weights, stride=2, groups=len(x))
    return y.reshape(len(x), -1, *y.shape[2:])


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    kernel: Tensor | None = None,
    up: int = 1,
    demodulate: bool = True,
) -> Tensor:
    """Convolution whose input channels are scaled by per-sample styles (StyleGAN2, eqs. 1-3).

    Scaling activations instead of weights gives the same result with one weight for the batch;
    scaling weights pays where they are few, but for bf16, whose channels lie last on a CPU.

    Args:
        x: [B, I, H, W].
        weight: [O, I, k, k].
        styles: [B, I].
        kernel: see `conv2d_resample`.
        up: 1 or 2.
        demodulate: divide each output channel by the norm of its modulated weights.

    Returns:
        [B, O, H * up, W * up], in the type of x.
    """
    if demodulate and x.dtype == torch.float16:
        # Demodulation cancels any scale; this one keeps half precision from overflowing.
        weight = (
            weight / weight.abs().amax(dim=(1, 2, 3), keepdim=True) / math.sqrt(weight[0].numel())
        )
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    norm = None
    if demodulate:
        energy = styles.square() @ weight.square().sum(dim=(2, 3)).T
        norm = (energy + 1e-8).rsqrt().to(x.dtype)
    styles, weight = styles.to(x.dtype), weight.to(x.dtype)
    # Measured on a CPU: the break-even lies at two to four times as many activations as weights.
    many = x[0].numel() > 3 * weight.numel()
    if many and x.device.type == "cpu" and x.dtype != torch.bfloat16:
        own_weights = weight * styles[:, None, :, None, None]
        if norm is not None:
            own_weights = own_weights * norm[:, :, None, None, None]
        return conv2d_resample(x, own_weights, kernel=kernel, up=up)
    y = conv2d_resample(x * styles[:, :, None, None], weight, kernel=kernel, up=up)
    return y if norm is None else y * norm[:, :, None, None]


class Conv2d(nn.Module):
    """Equalized convolution with activation and optional resampling (the discriminator's)."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        act: str = "linear",
        down: int = 1,
        clamp: float | None = None,
    ):
        super().__init__()
        self.act, self.down, self.clamp = act, down, clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.register_buffer(
            "resample_filter", ops.resample_filter(RESAMPLE_TAPS), persistent=False
        )

    def forward(self, x: Tensor, gain: float = 1) -> Tensor:
        """x: [B, in, H, W] -> [B, out, H / down, W / down].

        `gain` multiplies the output and, where it is below 1, the clamp too.
        """
        weight = (self.weight * self.weight_gain).to(x.dtype)
        x = conv2d_resample(x, weight, kernel=self.resample_filter, down=self.down)
        clamp = None if self.clamp is None else self.clamp * min(gain, 1)
        act_gain = (math.sqrt(2) if self.act == "lrelu" else 1) * gain
        return ops.bias_act(x, self.bias, act=self.act, gain=act_gain, clamp=clamp)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        up: int = 1,
        clamp: float | None = None,
    ):
        super().__init__()
        self.up, self.clamp, self.resolution = up, clamp, resolution
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer(
            "resample_filter", ops.resample_filter(RESAMPLE_TAPS), persistent=False
        )

    def forward(self, x: Tensor, w: Tensor, noise: str) -> Tensor:
        """x: [B, in, H, W], w: [B, w_dim] -> [B, out, H * up, W * up].

        `noise`, which is added before the activation: 'random', drawn for each sample; 'const', the
        layer's stored noise; or 'none'.
        """
        x = modulated_conv2d(
            x, self.weight, self.affine(w), kernel=self.resample_filter, up=self.up
        )
        if noise == "random":
            shape = [len(x), 1, self.resolution, self.resolution]
            x = x + (torch.randn(shape, device=x.device) * self.noise_strength).to(x.dtype)
        elif noise == "const":
            x = x + (self.noise_const * self.noise_strength).to(x.dtype)
        return ops.bias_act(x, self.bias, act="lrelu", clamp=self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, *, clamp: float | None = None
    ):
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: [B, in, H, W], w: [B, w_dim] -> [B, out, H, W]."""
        styles = self.affine(w) * self.weight_gain
        x = modulated_conv2d(x, self.weight, styles, demodulate=False)
        return ops.bias_act(x, self.bias, clamp=self.clamp)


def upsample2x(image: Tensor, kernel: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, 2H, 2W], filtered."""
    return ops.upfirdn2d(image, kernel, up=2, padding=(2, 1, 2, 1), gain=4)


class SynthesisBlock(nn.Module):
    """Two synthesis layers and an image output, at one resolution ('skip' architecture).

    The first block (in_channels 0) starts from a learned constant and has a single layer.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        image_channels: int,
        *,
        up: int = 2,
        clamp: float | None = None,
    ):
        super().__init__()
        self.up = up
        layer = functools.partial(SynthesisLayer, w_dim=w_dim, resolution=resolution, clamp=clamp)
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = layer(in_channels, out_channels, up=up)
        self.conv1 = layer(out_channels, out_channels)
        self.torgb = ToRGB(out_channels, image_channels, w_dim, clamp=clamp)
        self.register_buffer(
            "resample_filter", ops.resample_filter(RESAMPLE_TAPS), persistent=False
        )

    @property
    def layer_count(self) -> int:
        """How many ws the block consumes, not counting the one its ToRGB shares with the next."""
        return 1 if hasattr(self, "const") else 2

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: str, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """One resolution of the network.

        Args:
            x: [B, in, H, W], activations of the block before; None for the first block.
            image: [B, image channels, H, W], its image; None for the first block.
            ws: [B, layer_count + 1, w_dim].
            noise: see `SynthesisLayer.forward`.
            dtype: type of the activations.

        Returns:
            Activations [B, out, H * up, W * up] and the image of that size, in float32 at least.
        """
        styles = iter(ws.unbind(dim=1))
        if x is None:
            x = self.const.to(dtype).expand(len(ws), -1, -1, -1)
        else:
            x = self.conv0(as_activations(x, dtype), next(styles), noise)
        x = self.conv1(x, next(styles), noise)
        if image is not None and self.up == 2:
            image = upsample2x(image, self.resample_filter)
        rgb = at_least_float32(self.torgb(x, next(styles)))
        return x, rgb if image is None else image + rgb


def minibatch_std(x: Tensor, group_size: int = 4, batches: int = 1) -> Tensor:
    """Append one channel holding the spread within groups of the batch (Karras et al. 2018).

    x: [B, C, H, W] -> [B, C + 1, H, W], where B spans `batches` of equal size that do not mix.
    Groups are strided: sample i of a batch of N belongs to group i mod (N / group size). The last
    group size that divides the batch is taken.
    """
    batch, _, height, width = x.shape
    count = batch // batches
    size = next(n for n in range(min(group_size, count), 0, -1) if count % n == 0)
    x = at_least_float32(x)
    grouped = x.reshape(batches, size, count // size, *x.shape[1:])
    spread = (grouped.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(2, 3, 4))
    channel = spread.repeat(1, size).reshape(batch, 1, 1, 1).expand(batch, 1, height, width)
    return torch.cat([x, channel], dim=1)
