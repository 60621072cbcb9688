"""The inverse renderer of GeoD: takes an image apart into depth, color, light and view.

Learned from photographs alone (`training/geod.py`), by the assumption that an object and its mirror
image, seen from the same side, explain an image equally well. Shi et al., "Improving 3D-aware
Image Synthesis with A Geometry-aware Discriminator" (NeurIPS 2022); the networks and the
decomposition are those of Unsup3D (Wu et al., CVPR 2020, section 3 and supplement). Parameter names
are those of published checkpoints.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnnlib import UserError
from torch_utils.devices import constant
from training.networks.image_formation import SIZE, Frustum, surface_normals

WIDTH = 64  # channels of the published networks' first layers
ROTATION_RANGE = math.radians(60)
SHIFT_RANGE = (0.1, 0.1, 0.0)  # world units
BORDER = 2  # columns at either side that are held at the border depth
GROUPS = (16, 32, 64)  # of GroupNorm, for n, 2n and 4n channels


class Geometry(NamedTuple):
    """The shape of B objects and, in the second half of 2B, of their mirror images.

    canonical_depth: [2B, 64, 64]. view: [B, 6], the same for both halves, see `Frustum.to_view`.
    depth, normal: as seen from the view, [2B, 64, 64] and [2B, 64, 64, 3]. mask: [B, 1, 64, 64],
    1 where both objects are seen.
    """

    canonical_depth: Tensor
    view: Tensor
    depth: Tensor
    normal: Tensor
    mask: Tensor


class Light(NamedTuple):
    """ambient, diffuse: intensities [B, 1] in [0, 1]. direction: unit vectors [B, 3]."""

    ambient: Tensor
    diffuse: Tensor
    direction: Tensor


class Decomposition(NamedTuple):
    """What B images are made of; tensors of 2B as in `Geometry`.

    albedo, canonical_image: [2B, 3, 64, 64]; the image may exceed 1. canonical_normal:
    [2B, 64, 64, 3]. diffuse_shading: [2B, 1, 64, 64], before the light's intensity. grid:
    [2B, 64, 64, 2]. reconstruction: [2B, 3, 64, 64], 0 outside the mask.
    """

    geometry: Geometry
    albedo: Tensor
    light: Light
    canonical_normal: Tensor
    diffuse_shading: Tensor
    canonical_image: Tensor
    grid: Tensor
    reconstruction: Tensor


class Confidence(NamedTuple):
    """Spreads sigma > 0 of the reconstruction's errors, [B, 2, ...]; channel 1: the mirror image.

    pixels: [B, 2, 64, 64]. features: [B, 2, 16, 16].
    """

    pixels: Tensor
    features: Tensor


class InverseRenderer(nn.Module):
    """Images [B, 3, 64, 64] in [-1, 1] -> `Decomposition`.

    width: channels of the first layers, a multiple of 16. Published networks have 64.
    """

    def __init__(self, frustum: Frustum | None = None, width: int = WIDTH):
        super().__init__()
        self.frustum = Frustum() if frustum is None else frustum
        self.netD = Autoencoder(width, 4 * width, 1)
        self.netA = Autoencoder(width, 4 * width, 3, final=nn.Tanh())
        self.netL = Encoder(width // 2, 4)
        self.netV = Encoder(width // 2, 6)
        self.netC = ConfidenceNetwork(width, 2 * width)

    def forward(self, image: Tensor) -> Decomposition:
        """Raises UserError if images are not 64 x 64."""
        geometry = self.geometry(image)
        albedo = _with_mirrored(self.netA(image))
        light = self.light(image)
        normal = surface_normals(self.frustum.points(geometry.canonical_depth))
        cosine = (normal * light.direction.repeat(2, 1)[:, None, None]).sum(dim=-1)
        diffuse_shading = cosine.clamp(min=0)[:, None]
        ambient, diffuse = (x.repeat(2, 1)[..., None, None] for x in light[:2])
        canonical_image = (albedo / 2 + 0.5) * (ambient + diffuse * diffuse_shading) * 2 - 1
        grid = self.frustum.sampling_grid(geometry.depth, geometry.view.repeat(2, 1))
        sampled = F.grid_sample(canonical_image, grid, mode="bilinear", align_corners=False)
        return Decomposition(
            geometry,
            albedo,
            light,
            normal,
            diffuse_shading,
            canonical_image,
            grid,
            sampled * geometry.mask.repeat(2, 1, 1, 1),
        )

    def geometry(self, image: Tensor) -> Geometry:
        """The shape alone, which two of the five networks tell. Raises as `forward`."""
        _require_size(image)
        canonical_depth = self.canonical_depth(self.netD(image)[:, 0])
        view = self.view(image)
        depth = self.frustum.depth_from_view(canonical_depth, view.repeat(2, 1))
        seen, mirrored_seen = (depth.detach() < self.frustum.deepest).chunk(2)
        mask = (seen & mirrored_seen)[:, None].to(depth.dtype)
        normal = surface_normals(self.frustum.points(depth))
        return Geometry(canonical_depth, view, depth, normal, mask)

    def confidence(self, image: Tensor) -> Confidence:
        """How well the networks expect to explain each part of an image."""
        _require_size(image)
        return Confidence(*self.netC(image))

    def canonical_depth(self, raw: Tensor) -> Tensor:
        """Raw depth [B, 64, 64] of any range -> [2B, 64, 64] between near and far."""
        frustum = self.frustum
        depth = torch.tanh(raw - raw.mean(dim=(1, 2), keepdim=True))
        depth = frustum.near + (frustum.far - frustum.near) * (depth + 1) / 2
        inner = depth[:, :, BORDER:-BORDER]
        return _with_mirrored(F.pad(inner, (BORDER, BORDER), value=frustum.border))

    def light(self, image: Tensor) -> Light:
        """The light that falls on the canonical object."""
        ambient, diffuse, xy = self.netL(image).split((1, 1, 2), dim=1)
        direction = torch.cat([xy, torch.ones_like(ambient)], dim=1)
        direction = direction / direction.norm(dim=1, keepdim=True)
        return Light((1 + ambient) / 2, (1 + diffuse) / 2, direction)

    def view(self, image: Tensor) -> Tensor:
        """How the canonical object lies before the camera, [B, 6]."""
        unit = self.netV(image)
        return unit * constant((*[ROTATION_RANGE] * 3, *SHIFT_RANGE), unit)


class Encoder(nn.Module):
    """[B, 3, 64, 64] -> [B, out] in [-1, 1]."""

    def __init__(self, width: int, out: int):
        super().__init__()
        n = width
        layers = [_down(3, n), nn.ReLU(), _down(n, 2 * n), nn.ReLU(), _down(2 * n, 4 * n)]
        layers += [nn.ReLU(), _down(4 * n, 8 * n), nn.ReLU(), _to_code(8 * n, 8 * n), nn.ReLU()]
        layers += [_same(8 * n, out, 1), nn.Tanh()]
        self.network = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Numbers in [-1, 1], [B, out]."""
        return self.network(image).flatten(1)


class Autoencoder(nn.Module):
    """[B, 3, 64, 64] -> [B, out, 64, 64]."""

    def __init__(self, width: int, code: int, out: int, final: nn.Module | None = None):
        super().__init__()
        n = width
        layers = _contract(n, code) + [_from_code(code, 8 * n), nn.ReLU()]
        layers += [_same(8 * n, 8 * n, 3), nn.ReLU()]
        for channels, groups in ((4 * n, GROUPS[2]), (2 * n, GROUPS[1]), (n, GROUPS[0])):
            layers += _normed(_up(2 * channels, channels), groups)
            layers += _normed(_same(channels, channels, 3), groups)
        layers += [nn.Upsample(scale_factor=2, mode="nearest")]
        layers += _normed(_same(n, n, 3), GROUPS[0]) + _normed(_same(n, n, 5), GROUPS[0])
        layers += [_same(n, out, 5)] + ([] if final is None else [final])
        self.network = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """A map of the image's size, [B, out, 64, 64]."""
        return self.network(image)


class ConfidenceNetwork(nn.Module):
    """[B, 3, 64, 64] -> sigma of pixels [B, 2, 64, 64], sigma of features [B, 2, 16, 16]."""

    def __init__(self, width: int, code: int):
        super().__init__()
        n = width
        layers = _contract(n, code) + [_from_code(code, 8 * n), nn.ReLU()]
        layers += _normed(_up(8 * n, 4 * n), GROUPS[2]) + _normed(_up(4 * n, 2 * n), GROUPS[1])
        self.network = nn.Sequential(*layers)
        pixels = _normed(_up(2 * n, n), GROUPS[0]) + _normed(_up(n, n), GROUPS[0])
        self.out_net1 = nn.Sequential(*pixels, _same(n, 2, 5), nn.Softplus())
        self.out_net2 = nn.Sequential(_same(2 * n, 2, 3), nn.Softplus())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Channel 0 of each is the object's own, channel 1 its mirror image's."""
        shared = self.network(image)
        return self.out_net1(shared), self.out_net2(shared)


def _contract(n: int, code: int) -> list[nn.Module]:
    """From 64 x 64 to a code at 1 x 1."""
    layers: list[nn.Module] = []
    for inputs, channels, groups in zip((3, n, 2 * n), (n, 2 * n, 4 * n), GROUPS, strict=True):
        layers += [_down(inputs, channels), nn.GroupNorm(groups, channels), nn.LeakyReLU(0.2)]
    layers += [_down(4 * n, 8 * n), nn.LeakyReLU(0.2)]
    return layers + [_to_code(8 * n, code), nn.ReLU()]


def _normed(convolution: nn.Conv2d | nn.ConvTranspose2d, groups: int) -> list[nn.Module]:
    return [convolution, nn.GroupNorm(groups, convolution.out_channels), nn.ReLU()]


def _down(inputs: int, outputs: int) -> nn.Conv2d:
    """Half the size."""
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Twice the size."""
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)


def _same(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)


def _to_code(inputs: int, outputs: int) -> nn.Conv2d:
    """From 4 x 4 to 1 x 1."""
    return nn.Conv2d(inputs, outputs, 4, bias=False)


def _from_code(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """From 1 x 1 to 4 x 4."""
    return nn.ConvTranspose2d(inputs, outputs, 4, bias=False)


def _with_mirrored(maps: Tensor) -> Tensor:
    """[B, ..., W] -> [2B, ..., W], the second half flipped left to right."""
    return torch.cat([maps, maps.flip(-1)])


def _require_size(image: Tensor) -> None:
    if image.shape[1:] != (3, SIZE, SIZE):
        raise UserError(
            f"the inverse renderer takes images [B, 3, {SIZE}, {SIZE}], not {list(image.shape)}"
        )
