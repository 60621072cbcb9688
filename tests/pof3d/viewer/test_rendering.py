"""The field from a free camera, against the renderings of the training cameras."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pof3d.viewer.rendering import (
    FARTHEST,
    MODES,
    Detail,
    Frame,
    FreeCamera,
    details,
    find_window,
    own_window_fov,
    render_frame,
)
from tests.helpers import DUAL, small_generator
from torch_utils.images import to_uint8
from training.files.network_file import load_network
from training.outputs.objects import Objects

ROOT = Path(__file__).parents[3]
SIZE = 32


@pytest.fixture(scope="module")
def objects() -> Objects:
    """Of the shipped network: matter with a surface, on white."""
    return Objects.from_seeds(load_network(ROOT / "models/toy.safetensors").generator, [0])


def training_camera(objects: Objects, aspect: float = 1, distance: float = 1) -> FreeCamera:
    """The object's own, farther away; the whole height of the picture is what training saw."""
    cam2world = objects.generator.cam2world(objects.pose)[0].clone()
    pivot = cam2world.new_tensor(objects.generator.config.camera.pivot)
    cam2world[:3, 3] = pivot + (cam2world[:3, 3] - pivot) * distance
    return FreeCamera(cam2world, own_window_fov(objects.generator, share=1), aspect)


def rendered(objects: Objects, camera: FreeCamera, mode: str = "image", size: int = SIZE) -> Frame:
    frame = render_frame(objects, camera, Detail(size), mode)
    assert frame is not None
    return frame


def as_trained(objects: Objects) -> np.ndarray:
    with torch.no_grad():
        return to_uint8(objects.own_view(resolution=SIZE).image)[0].movedim(0, -1).numpy()


def near(a: np.ndarray, b: np.ndarray, most: float) -> bool:
    return a.shape == b.shape and np.abs(a.astype(float) - b).mean() < most


def test_a_training_camera_sees_what_it_saw_in_training(objects):
    picture = rendered(objects, training_camera(objects)).picture
    assert near(picture, as_trained(objects), most=1)


def test_super_resolution_makes_the_sharp_picture():
    objects = Objects.from_seeds(small_generator(DUAL).eval(), [0])
    quick, sharp = details(objects.generator, moving_size=8)
    camera = training_camera(objects)
    frame = render_frame(objects, camera, sharp)
    assert frame is not None and frame.picture.shape == (128, 128, 3)
    with torch.no_grad():
        expected = to_uint8(objects.own_view().image)[0].movedim(0, -1).numpy()
    assert near(frame.picture, expected, most=4)
    assert rendered(objects, camera, size=quick.size).picture.shape[0] in (8, 9)


def test_a_wide_picture_shows_the_same_in_its_middle(objects):
    wide = rendered(objects, training_camera(objects, aspect=2)).picture
    height, width = wide.shape[:2]
    assert width == 2 * height
    left = (width - height) // 2
    square = rendered(objects, training_camera(objects)).picture
    assert near(wide[:, left : left + height], square, most=3)
    assert (wide[:, : left - 2] == 255).all()  # the background beside what training saw


def test_from_twice_as_far_the_object_is_half_as_large_and_as_costly(objects):
    window = find_window(objects.generator, training_camera(objects, distance=2), SIZE)
    assert window.size == SIZE and window.height == pytest.approx(2 * SIZE, abs=3)
    frame = rendered(objects, training_camera(objects, distance=2))
    assert frame.picture.std() > 0


@pytest.mark.parametrize("aspect", [0.5, 1.0, 3.0])
def test_close_by_the_window_is_the_picture(objects, aspect):
    window = find_window(objects.generator, training_camera(objects, aspect, distance=0.3), SIZE)
    assert max(window.width, window.height) == window.size == SIZE


def test_very_far_away_the_picture_stays_small(objects):
    frame = rendered(objects, training_camera(objects, distance=1000))
    assert max(frame.picture.shape) <= 4 * SIZE


def test_a_camera_that_looks_away_sees_the_background(objects):
    camera = training_camera(objects)
    turn = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    away = camera.cam2world.clone()
    away[:3, :3] = away[:3, :3] @ turn
    frame = rendered(objects, camera._replace(cam2world=away))
    assert (frame.picture == 255).all() and (frame.depth == FARTHEST).all()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_its_picture(objects, mode):
    frame = rendered(objects, training_camera(objects), mode)
    assert frame.picture.dtype == np.uint8 and frame.picture.shape == (*frame.depth.shape, 3)
    others = [rendered(objects, training_camera(objects), other).picture for other in MODES]
    assert sum(np.array_equal(frame.picture, other) for other in others) == 1


def test_depth_colors_do_not_depend_on_the_distance(objects):
    close = rendered(objects, training_camera(objects), "depth").picture
    far = rendered(objects, training_camera(objects, distance=1.5), "depth").picture
    row, column = (size // 2 for size in close.shape[:2])
    far_row, far_column = (size // 2 for size in far.shape[:2])
    assert near(close[row, column], far[far_row, far_column], most=25)


def test_depths_lie_where_the_object_is(objects):
    depth = rendered(objects, training_camera(objects)).depth
    config = objects.generator.config
    solid = depth[depth < FARTHEST]
    assert len(solid)
    assert config.rendering.near * math.cos(0.3) < solid.min()
    assert solid.max() < config.rendering.far


def test_a_frame_that_nobody_wants_is_given_up(objects):
    looks = iter([False, True])
    frame = render_frame(
        objects, training_camera(objects), Detail(128), is_stale=lambda: next(looks)
    )
    assert frame is None and next(looks, "asked twice") == "asked twice"


def test_details_get_finer_up_to_the_sharp_picture():
    sizes = [detail.size for detail in details(small_generator(), moving_size=48)]
    assert sizes == [48, 96, 192, 256]
