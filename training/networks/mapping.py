"""z -> w, and w -> camera pose."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.networks.layers import FullyConnected, normalize_second_moment


class MappingNetwork(nn.Module):
    """Latent and/or label to the intermediate latent w (StyleGAN2).

    z [B, z_dim] and c [B, c_dim] -> w [B, w_dim]; a dimension of 0 leaves that input out. A label
    is embedded by a linear layer; each part is normalized by its second moment, then concatenated.
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
        parts = [normalize_second_moment(z)] if self.z_dim else []
        if self.c_dim:
            parts.append(normalize_second_moment(self.embed(c)))
        x = torch.cat(parts, dim=1)
        for i in range(self.layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x


class GeneratorMapping(MappingNetwork):
    """The generator's mapping: adds the running mean of w, for truncation."""

    W_AVG_DECAY = 0.998

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, *, layers: int):
        super().__init__(z_dim, c_dim, w_dim, layers=layers)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def update_w_avg(self, w: Tensor) -> None:
        """Move the running mean toward the mean of w [B, w_dim]."""
        self.w_avg.lerp_(w.detach().mean(dim=0), 1 - self.W_AVG_DECAY)

    def broadcast(self, w: Tensor, num_ws: int, truncation: float, cutoff: int | None) -> Tensor:
        """[B, w_dim] -> [B, num_ws, w_dim], the first `cutoff` of them pulled toward the mean."""
        ws = w[:, None].expand(-1, num_ws, -1)
        if truncation == 1:
            return ws
        cutoff = num_ws if cutoff is None else cutoff
        return torch.cat([self.w_avg.lerp(ws[:, :cutoff], truncation), ws[:, cutoff:]], dim=1)


class PoseMapping(GeneratorMapping):
    """PoF3D's mapping: w also determines the camera pose (section 3.2 of the paper)."""

    def __init__(self, z_dim: int, w_dim: int, *, layers: int, mean_h: float):
        super().__init__(z_dim, 0, w_dim, layers=layers)
        self.affine_layer1 = FullyConnected(w_dim, w_dim, act="lrelu", lr_multiplier=0.01)
        self.affine_layer2 = FullyConnected(w_dim, 2, lr_multiplier=0.01)
        self.register_buffer("mean", torch.tensor([mean_h, math.pi / 2]), persistent=False)

    def pose(self, w: Tensor) -> Tensor:
        """[B, w_dim] -> [B, 2], (h, v) in radians."""
        return self.affine_layer2(self.affine_layer1(w)) + self.mean

    @torch.no_grad()
    def spread_poses(self, std: Sequence[float], samples: int = 4096) -> None:
        """Rescale the last layer so that (h, v) spread by `std` radians round their mean.

        As published, they start with a spread of about 0.8 and a mean that is off by as much.
        """
        poses = self.pose(self(torch.randn(samples, self.z_dim)))
        scale = poses.new_tensor(std) / poses.std(dim=0)
        self.affine_layer2.weight.mul_(scale[:, None])
        offset = (poses.mean(dim=0) - self.mean) * scale
        self.affine_layer2.bias.sub_(offset / self.affine_layer2.bias_gain)
