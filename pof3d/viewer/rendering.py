"""The field of one object as a free camera shows it: any distance, any picture's shape.

A network was trained on square pictures from one distance. From a free camera the same window of
the world is rendered, a square wherever it lies in the picture; around it the picture is empty.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torch_utils.images import resize, to_uint8
from training.cameras import rays_from_cameras
from training.config import RenderingConfig
from training.networks.generator import Generator
from training.networks.rendering import RenderedRays, midpoint_sampling, render_rays
from training.outputs.figures import depth_colors, normal_colors
from training.outputs.objects import Objects

MODES = ("image", "depth", "normals", "opacity")
RAYS_AT_ONCE = 2**12  # between two looks at whether the frame is still wanted
WIDEST_PICTURE = 4  # in windows; from farther away, the window has fewer pixels
SOLID = 0.5  # opacity from which on a pixel hides what lies behind
FARTHEST = 160.0  # depth of a pixel that hides nothing, world units
CLOSEST = 1e-3  # depth at which rays may start, world units


class FreeCamera(NamedTuple):
    """Where a browser looks from.

    cam2world: [4, 4], axes as in `training.cameras`. fov: of the height, radians. aspect: width by
    height.
    """

    cam2world: Tensor
    fov: float
    aspect: float

    @property
    def position(self) -> Tensor:
        """[3], world units."""
        return self.cam2world[:3, 3]


class Frame(NamedTuple):
    """What a browser shows.

    picture: uint8 [H, W, 3]. depth: float32 [H, W], along the optical axis in world units, at which
    a pixel hides what is drawn beside the field.
    """

    picture: np.ndarray
    depth: np.ndarray


class Detail(NamedTuple):
    """How finely to render.

    size: pixels a side of the window. superresolved: render as trained and let super-resolution
    make the window's pixels.
    """

    size: int
    superresolved: bool = False


class Window(NamedTuple):
    """The square that is rendered in a picture of width x height pixels; it may stick out."""

    width: int
    height: int
    left: int
    top: int
    size: int


def details(generator: Generator, moving_size: int, largest: int = 256) -> list[Detail]:
    """From the size that is quick enough for a moving camera to a sharp picture."""
    if generator.superresolution is not None:
        return [Detail(moving_size), Detail(generator.config.data.resolution, superresolved=True)]
    sizes = [moving_size]
    while 2 * sizes[-1] < largest:
        sizes.append(2 * sizes[-1])
    return [Detail(size) for size in [*sizes, largest]]


def own_window_fov(generator: Generator, share: float = 0.85) -> float:
    """Field of view, in radians, in which a picture as trained takes this share of the height."""
    return 2 * math.atan(0.5 / generator.intrinsics[1, 1].item() / share)


def find_window(generator: Generator, camera: FreeCamera, size: int) -> Window:
    """What of the picture to render in size x size pixels.

    It is what the training cameras saw of the world at its middle, if the picture is not filled
    by less: then it is the square around the picture.
    """
    focal = 0.5 / math.tan(camera.fov / 2)  # in heights of the picture, as all lengths here
    world2cam = torch.linalg.inv(camera.cam2world)
    x, y, z = (world2cam[:3, :3] @ _middle(generator) + world2cam[:3, 3]).tolist()
    whole = max(camera.aspect, 1.0)
    if z <= 0:  # behind the camera: a window beside the picture
        return Window(max(round(camera.aspect), 1), 1, -1, 0, 1)
    side, center_x, center_y = whole, camera.aspect / 2, 0.5
    seen = generator.config.camera.radius / generator.intrinsics[1, 1].item()
    if focal * seen / z < whole:
        side = focal * seen / z
        center_x, center_y = center_x + focal * x / z, center_y + focal * y / z
    height = min(size / side, WIDEST_PICTURE * size / whole)  # in pixels
    pixels = max(round(side * height), 1)
    return Window(
        max(round(height * camera.aspect), 1),
        max(round(height), 1),
        round(center_x * height - pixels / 2),
        round(center_y * height - pixels / 2),
        pixels,
    )


def _middle(generator: Generator) -> Tensor:
    return generator.intrinsics.new_tensor(generator.config.camera.pivot)


def _window_intrinsics(camera: FreeCamera, window: Window) -> Tensor:
    """[3, 3], in units of the window, which need not lie round the optical axis."""
    focal = 0.5 / math.tan(camera.fov / 2) * window.height / window.size
    center_x = (window.width / 2 - window.left) / window.size
    center_y = (window.height / 2 - window.top) / window.size
    return camera.cam2world.new_tensor(
        [[focal, 0.0, center_x], [0.0, focal, center_y], [0.0, 0.0, 1.0]]
    )


@torch.no_grad()
def render_frame(
    objects: Objects,
    camera: FreeCamera,
    detail: Detail,
    mode: str = "image",
    is_stale: Callable[[], bool] = lambda: False,
) -> Frame | None:
    """One object from a free camera; None once the frame is no longer wanted.

    Args:
        objects: a single one.
        camera: on the generator's device.
        detail: how finely.
        mode: one of `MODES`.
        is_stale: asked between parts of the work.
    """
    generator = objects.generator
    window = find_window(generator, camera, detail.size)
    lens = _window_intrinsics(camera, window)
    rays = generator.raw_resolution if detail.superresolved else window.size
    rendered = _render_window(objects, camera, lens, rays, is_stale)
    if rendered is None:
        return None
    features, depth, opacity = (
        part.reshape(1, rays, rays, -1).permute(0, 3, 1, 2) for part in rendered
    )
    if mode == "image":
        colors = features[:, :3]
        if detail.superresolved and generator.superresolution is not None:
            last = objects.ws[:, generator.num_object_ws - 1]
            colors = generator.superresolution(features, last)
    else:
        colors = _mode_colors(generator, camera, lens, mode, depth, opacity)
    along_axis = depth * _axis_cosines(lens, rays)
    along_axis = torch.where(opacity > SOLID, along_axis, FARTHEST)
    white = generator.config.object_stands_alone or mode != "image"
    return Frame(
        _paste(to_uint8(resize(colors, window.size))[0], window, 255 if white else 0),
        _paste(resize(along_axis, window.size)[0], window, FARTHEST)[..., 0],
    )


def _render_window(
    objects: Objects, camera: FreeCamera, lens: Tensor, size: int, is_stale: Callable[[], bool]
) -> RenderedRays | None:
    """size^2 rays of the window, a part at a time."""
    generator = objects.generator
    config = _shifted_range(generator, camera)
    rays = rays_from_cameras(camera.cam2world[None], lens, size)
    decoder = generator.decoder.effective()
    parts: list[RenderedRays] = []
    for origins, directions in zip(
        rays.origins.split(RAYS_AT_ONCE, dim=1),
        rays.directions.split(RAYS_AT_ONCE, dim=1),
        strict=True,
    ):
        if is_stale():
            return None
        some = rays._replace(origins=origins, directions=directions)
        sampling = midpoint_sampling(some, config)
        parts.append(render_rays(objects.planes, decoder, some, config, sampling))
    return RenderedRays(*(torch.cat(each, dim=1) for each in zip(*parts, strict=True)))


def _shifted_range(generator: Generator, camera: FreeCamera) -> RenderingConfig:
    """Depths are counted from the camera: those of training, moved with its distance.

    The far end stays before the camera, since in training it lay beyond the origin.
    """
    config = generator.config.rendering
    shift = _shift(generator, camera)
    near = max(config.near + shift, CLOSEST)
    white = generator.config.object_stands_alone  # a background of its own fits one camera alone
    return config.model_copy(
        update={"near": near, "far": config.far + shift, "white_background": white}
    )


def _shift(generator: Generator, camera: FreeCamera) -> float:
    """How much farther than in training the camera stands."""
    return camera.position.norm().item() - generator.config.camera.radius


def _mode_colors(
    generator: Generator,
    camera: FreeCamera,
    lens: Tensor,
    mode: str,
    depth: Tensor,
    opacity: Tensor,
) -> Tensor:
    if mode == "depth":
        return depth_colors(depth - _shift(generator, camera), opacity, generator.config)
    if mode == "normals":
        return normal_colors(depth, opacity, lens)
    return (1 - 2 * opacity).expand(-1, 3, -1, -1)  # matter is black on white


def _axis_cosines(lens: Tensor, size: int) -> Tensor:
    """[size, size]: of the angles between rays and the optical axis."""
    rays = rays_from_cameras(torch.eye(4).to(lens)[None], lens, size)
    return rays.directions[..., 2].reshape(size, size)


def _paste(pixels: Tensor, window: Window, empty: float) -> np.ndarray:
    """[C, size, size] into a picture [H, W, C] that is empty elsewhere."""
    picture = pixels.new_full((window.height, window.width, len(pixels)), empty)
    top, left = max(window.top, 0), max(window.left, 0)
    bottom = min(window.top + window.size, window.height)
    right = min(window.left + window.size, window.width)
    if top < bottom and left < right:
        inside = pixels[
            :, top - window.top : bottom - window.top, left - window.left : right - window.left
        ]
        picture[top:bottom, left:right] = inside.movedim(0, -1)
    return picture.cpu().numpy()
