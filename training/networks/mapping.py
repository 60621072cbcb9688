"""z -> w, and w -> camera pose."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dnnlib import UserError
from training.networks.layers import FullyConnected, normalize_second_moment


class MappingNetwork(nn.Module):
    """Latent and/or label to the intermediate latent w (StyleGAN2).

    A dimension of 0 leaves that input out. A label is embedded by a linear layer; each part is
    normalized by its second moment, then concatenated.
    """

    def __init__(
        self, z_dim: int, c_dim: int, w_dim: int, *, layers: int, lr_multiplier: float = 0.01
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.layers = z_dim, c_dim, layers
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        widths = [z_dim + (w_dim if c_dim else 0)] + [w_dim] * layers
        for i in range(layers):
            fc = FullyConnected(widths[i], widths[i + 1], act="lrelu", lr_multiplier=lr_multiplier)
            self.add_module(f"fc{i}", fc)

    def forward(self, z: Tensor | None = None, c: Tensor | None = None) -> Tensor:
        """The intermediate latent w [B, w_dim].

        Args:
            z: [B, z_dim]; needed where z_dim is not 0, ignored otherwise.
            c: [B, c_dim], the label, likewise.

        Raises:
            UserError: where an input is missing.
        """
        parts = [_required(z, "latents")] if self.z_dim else []
        if self.c_dim:
            parts.append(self.embed(_required(c, "labels")))
        x = torch.cat([normalize_second_moment(part) for part in parts], dim=1)
        for i in range(self.layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x


class GeneratorMapping(MappingNetwork):
    """The generator's mapping: adds the running mean of w, for truncation."""

    W_AVG_DECAY = 0.998
    w_avg: Tensor

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, *, layers: int):
        super().__init__(z_dim, c_dim, w_dim, layers=layers)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def update_w_avg(self, w: Tensor) -> None:
        """Move the running mean toward the mean of w [B, w_dim]."""
        self.w_avg.lerp_(w.detach().mean(dim=0), 1 - self.W_AVG_DECAY)

    def broadcast(
        self, w: Tensor, num_ws: int, truncation: Tensor | float, cutoff: int | None
    ) -> Tensor:
        """Repeat w [B, w_dim] for every layer: [B, num_ws, w_dim].

        The first `cutoff` of them (None: all) are interpolated between the mean of w (truncation 0)
        and w itself (1): the truncation trick (StyleGAN, Karras et al. 2019, appendix B).
        """
        ws = w[:, None].expand(-1, num_ws, -1)
        if not isinstance(truncation, Tensor) and truncation == 1:
            return ws
        cutoff = num_ws if cutoff is None else cutoff
        return torch.cat([self.w_avg.lerp(ws[:, :cutoff], truncation), ws[:, cutoff:]], dim=1)


class PoseMapping(GeneratorMapping):
    """PoF3D's mapping: w also determines the camera pose (section 3.2 of the paper)."""

    mean: Tensor

    def __init__(self, z_dim: int, w_dim: int, *, layers: int, mean_h: float):
        super().__init__(z_dim, 0, w_dim, layers=layers)
        self.affine_layer1 = FullyConnected(w_dim, w_dim, act="lrelu", lr_multiplier=0.01)
        self.affine_layer2 = FullyConnected(w_dim, 2, lr_multiplier=0.01)
        self.register_buffer("mean", torch.tensor([mean_h, math.pi / 2]), persistent=False)

    def pose(self, w: Tensor) -> Tensor:
        """w: [B, w_dim] -> (h, v): [B, 2] in radians, not yet clamped."""
        return self.affine_layer2(self.affine_layer1(w)) + self.mean

    @torch.no_grad()
    def spread_poses(self, std: Sequence[float], samples: int = 4096) -> None:
        """Rescale the last layer so that (h, v) spread by `std` radians round their mean.

        As published, they start with a spread of about 0.8 and a mean that is off by as much.
        """
        poses = self.pose(self(torch.randn(samples, self.z_dim)))
        center = poses.mean(dim=0)
        self.scale_poses(poses.new_tensor(std) / poses.std(dim=0), center)
        self.affine_layer2.bias.sub_((center - self.mean) / self.affine_layer2.bias_gain)

    @torch.no_grad()
    def scale_poses(self, factor: Tensor, center: Tensor) -> None:
        """Multiply the distance of all poses from `center` by `factor`, both [2] for (h, v)."""
        last = self.affine_layer2
        last.weight.mul_(factor[:, None])
        kept = (center - self.mean) / last.bias_gain
        last.bias.copy_(kept + factor * (last.bias - kept))


def _required(x: Tensor | None, what: str) -> Tensor:
    if x is None:
        raise UserError(f"this mapping network needs {what}")
    return x
