"""Shape as the renderings show it: do two views agree, and is there depth at all."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .context import Views
from .poses import angle_between

# In pixel widths. Where depth changes more among a pixel and its neighbors is a silhouette or a
# fold, and the pixel a mixture of surfaces. A point that lies farther behind the other
# camera's surface is hidden from it.
STEEPEST = 8.0
SIMILAR_POSES = 64  # surfaces with which another is compared
_OPAQUE = 0.999  # of interpolated 0/1 masks: all four neighbors are set


class WarpErrors(NamedTuple):
    """Sums over the pixels that both cameras show, of each object, [B].

    color: mean absolute difference over channels, which go from 0 to 1. depth: absolute difference
    in widths of the object. unwarped: like color, but of the same pixel of the other view.
    compared: number of such pixels. inside: number of the object's pixels in the first view.
    """

    color: Tensor
    depth: Tensor
    unwarped: Tensor
    compared: Tensor
    inside: Tensor


def warp_errors(views: Views) -> WarpErrors:
    """Carry the first view's pixels to the second camera by the first's depth; compare there.

    Args:
        views: two of each object.
    """
    size = views.image.shape[-1]
    image, other_image = views.image.unbind(1)
    depth, other_depth = views.depth.unbind(1)
    cam2world, other_cam2world = views.cam2world.unbind(1)
    mask, other_mask = views.mask.unbind(1)
    inside = _enlarge(mask.float(), size) > _OPAQUE
    sound = _sound(depth, mask, views.intrinsics)
    other_sound = _sound(other_depth, other_mask, views.intrinsics)
    point = unproject(_enlarge(depth, size), cam2world, views.intrinsics)
    place = project(point, other_cam2world, views.intrinsics)

    def look_up(picture: Tensor) -> Tensor:
        grid = place.pixel * 2 - 1
        return F.grid_sample(picture, grid, padding_mode="border", align_corners=False)

    depth_there = look_up(other_depth)
    tolerance = STEEPEST * _pixel_width(depth_there, views.intrinsics, depth.shape[-1])
    compared = (
        (_enlarge(sound.float(), size) > _OPAQUE)
        & (look_up(other_sound.float()) > _OPAQUE)
        & ((place.pixel >= 0) & (place.pixel <= 1)).all(dim=-1)[:, None]
        & (place.distance <= depth_there + tolerance)
    )
    width = object_width(mask, depth, views.intrinsics).nan_to_num(1)  # no object, no pixels

    def total(values: Tensor) -> Tensor:
        return (values * compared).sum(dim=(1, 2, 3))

    return WarpErrors(
        total((look_up(other_image) - image).abs().mean(dim=1, keepdim=True) / 2),
        total((place.distance - depth_there).abs()) / width,
        total((other_image - image).abs().mean(dim=1, keepdim=True) / 2),
        compared.sum(dim=(1, 2, 3)),
        inside.sum(dim=(1, 2, 3)),
    )


def relief(views: Views) -> Tensor:
    """Depth of the visible surface relative to the object's width, [B], from the first view.

    Root mean square distance, along the camera's axis, from the plane that fits best: a flat card
    scores 0 however it is turned, a ball seen from afar 1 / sqrt(72) = 0.118. NaN without object.
    """
    depth, mask, cam2world = views.depth[:, 0], views.mask[:, 0], views.cam2world[:, 0]
    weight = mask.flatten(1).double()[..., None]
    point = unproject(depth, cam2world, views.intrinsics).flatten(1, 2).double()
    x, y, z = _in_camera(point, cam2world.double()).unbind(-1)
    basis = torch.stack([x, y, torch.ones_like(x)], dim=-1) * weight
    target = z[..., None] * weight
    residual = target - basis @ (torch.linalg.pinv(basis) @ target)
    spread = (residual.square().sum(dim=(1, 2)) / weight.sum(dim=(1, 2))).sqrt()
    return spread / object_width(mask, depth, views.intrinsics)


def object_width(mask: Tensor, depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Diameter [B] of the disc whose area, at the object's mean depth, is that of its silhouette.

    mask, depth: [B, 1, r, r]. NaN where the mask is empty.
    """
    area = mask.flatten(1).sum(dim=1)
    mean_depth = (depth * mask).flatten(1).sum(dim=1) / area
    pixel = _pixel_width(mean_depth[:, None, None, None], intrinsics, depth.shape[-1])
    return 2 * (area / math.pi).sqrt() * pixel.flatten()


class Place(NamedTuple):
    """pixel: [B, H, W, 2], in [0, 1] within the image. distance: [B, 1, H, W]."""

    pixel: Tensor
    distance: Tensor


def unproject(depth: Tensor, cam2world: Tensor, intrinsics: Tensor) -> Tensor:
    """World points [B, H, W, 3] at distances depth [B, 1, H, W] along the pixels' rays."""
    height, width = depth.shape[-2:]
    y, x = torch.meshgrid(
        (torch.arange(height).to(depth) + 0.5) / height,
        (torch.arange(width).to(depth) + 0.5) / width,
        indexing="ij",
    )
    pixel = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    ray = F.normalize(torch.einsum("bij,hwj->bhwi", torch.linalg.inv(intrinsics), pixel), dim=-1)
    ray = torch.einsum("bij,bhwj->bhwi", cam2world[:, :3, :3], ray)
    return cam2world[:, None, None, :3, 3] + depth[:, 0, ..., None] * ray


def project(point: Tensor, cam2world: Tensor, intrinsics: Tensor) -> Place:
    """The reverse of `unproject`, for another camera. point: [B, H, W, 3]."""
    local = _in_camera(point.flatten(1, 2), cam2world).unflatten(1, point.shape[1:3])
    image = torch.einsum("bij,bhwj->bhwi", intrinsics, local)
    return Place(image[..., :2] / image[..., 2:], local.norm(dim=-1)[:, None])


def _in_camera(point: Tensor, cam2world: Tensor) -> Tensor:
    """Camera coordinates (right, down, forward) of world points [B, N, 3]."""
    return (point - cam2world[:, None, :3, 3]) @ cam2world[:, :3, :3]


def _pixel_width(depth: Tensor, intrinsics: Tensor, size: int) -> Tensor:
    """World units that one of `size` pixels in a row spans at depths [B, 1, H, W]."""
    return depth / (intrinsics[:, 0, 0].reshape(-1, 1, 1, 1) * size)


def _sound(depth: Tensor, mask: Tensor, intrinsics: Tensor) -> Tensor:
    """Pixels [B, 1, r, r] amid the object, whose neighborhood is one surface, not too steep."""

    def highest(picture: Tensor) -> Tensor:
        return F.max_pool2d(picture, 3, stride=1, padding=1)

    amid = highest(1 - mask.float()) == 0
    change = highest(depth) + highest(-depth)
    return amid & (change < STEEPEST * _pixel_width(depth, intrinsics, depth.shape[-1]))


def _enlarge(picture: Tensor, size: int) -> Tensor:
    return F.interpolate(picture, size=size, mode="bilinear", align_corners=False)


class Surfaces(NamedTuple):
    """N visible surfaces: viewing directions [N, 3]; depths [N, r, r], NaN where nothing is."""

    directions: Tensor
    depths: Tensor

    def resized(self, size: int) -> "Surfaces":
        """With depths of another resolution, each of one pixel: a mean would blur silhouettes."""
        depths = F.interpolate(self.depths[:, None], size=(size, size), mode="nearest-exact")
        return self._replace(depths=depths[:, 0])


def nearest_depth_error(surface: Surfaces, known: Surfaces) -> Tensor:
    """How far each surface is from the most similar known one, in units of depth: [N].

    Of the `SIMILAR_POSES` surfaces that are known from the nearest directions, the one whose
    silhouette overlaps most. NaN where none does.
    """
    apart = angle_between(surface.directions[:, None], known.directions[None])
    near = apart.topk(min(SIMILAR_POSES, len(known.directions)), dim=1, largest=False).indices
    depth, candidates = surface.depths[:, None], known.depths[near]
    mask, masks = depth.isfinite(), candidates.isfinite()
    overlap = (mask & masks).sum(dim=(2, 3)) / (mask | masks).sum(dim=(2, 3)).clamp(min=1)
    best = overlap.argmax(dim=1)[:, None, None, None].expand(-1, 1, *depth.shape[2:])
    return (depth - candidates.gather(1, best)).abs().flatten(1).nanmean(dim=1)
