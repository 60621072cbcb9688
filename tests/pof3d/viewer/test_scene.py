"""What is made of a person's settings, of uploads and for downloads."""

import functools
import io

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dnnlib import UserError
from pof3d.viewer import scene
from pof3d.viewer.rendering import Frame
from pof3d.viewer.scene import Projected, Settings, mix
from tests.helpers import small_discriminator, small_generator
from torch_utils.images import to_float
from training.files.network import Network
from training.outputs.objects import Objects
from training.outputs.projection import ProjectionOptions, project


@pytest.fixture(scope="module")
def network() -> Network:
    generator, discriminator = small_generator().eval(), small_discriminator().eval()
    return Network(generator, discriminator, generator.config, {})


def encoded(image: Image.Image, kind: str = "png") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def of_seed(network: Network, seed: int) -> Objects:
    return Objects.from_seeds(network.generator, [seed], Settings().truncation)


@pytest.mark.parametrize(
    ("changes", "seed"),
    [
        ({"interpolation": 0.0}, 3),
        ({"interpolation": 1.0}, 5),
        ({"styles_from": 0}, 5),
        ({"styles_from": 99}, 3),
    ],
)
def test_the_ends_of_mixing_are_the_two_seeds(network, changes, seed):
    objects = mix(network.generator, Settings(seed=3, other_seed=5, **changes))
    torch.testing.assert_close(objects.ws, of_seed(network, seed).ws)
    torch.testing.assert_close(objects.planes, of_seed(network, seed).planes)


def test_styles_come_from_the_other_seed_by_layer(network):
    ws = mix(network.generator, Settings(seed=3, other_seed=5, styles_from=2)).ws
    torch.testing.assert_close(ws[:, :2], of_seed(network, 3).ws[:, :2])
    torch.testing.assert_close(ws[:, 2:], of_seed(network, 5).ws[:, 2:])


def test_a_projected_photograph_takes_the_place_of_the_seed(network):
    generator = network.generator
    objects = of_seed(network, 9)
    pose = torch.tensor([[1.2, 1.4]])
    projected = Projected(generator, objects.ws, pose, psnr=30.0)
    shown = mix(generator, Settings(photograph=projected))
    torch.testing.assert_close(shown.ws, objects.ws)
    assert torch.equal(shown.pose, pose)
    other = small_generator(seed=1).eval()  # a newer snapshot: its styles mean other things
    torch.testing.assert_close(
        mix(other, Settings(photograph=projected)).ws, mix(other, Settings()).ws
    )


def test_an_upload_is_cropped_and_its_pose_estimated(network):
    image = Image.new("RGB", (50, 40), "gray")
    image.paste("red", (10, 0, 20, 40))
    photograph = scene.read_photograph(network, "a.jpg", encoded(image, "jpeg"))
    assert photograph.image.shape == (1, 3, 32, 32)
    height, width, _ = photograph.picture.shape
    assert height == width
    torch.testing.assert_close(photograph.pose, network.estimate_pose(photograph.image))


@torch.no_grad()
def test_an_upload_is_projected_to_what_looks_like_it(network, monkeypatch):
    quick = functools.partial(project, options=ProjectionOptions(steps=4))
    monkeypatch.setattr(scene, "project", quick)
    photograph = scene.read_photograph(network, "a.png", encoded(Image.new("RGB", (32, 32), "tan")))
    projected = scene.project_photograph(network, photograph)
    shown = mix(network.generator, Settings(photograph=projected)).own_view().image
    assert -10 * ((shown - to_float(photograph.image)) ** 2 / 4).mean().log10() == pytest.approx(
        projected.psnr, abs=0.5
    )


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"%PDF-1.4", encoded(Image.new("RGB", (64, 64)))[:60]]
)
def test_what_is_no_picture_is_refused_by_name(network, data):
    with pytest.raises(UserError, match="notes.txt"):
        scene.read_photograph(network, "notes.txt", data)


def test_no_pose_without_a_discriminator(network):
    data = encoded(Image.new("RGB", (32, 32)))
    with pytest.raises(UserError, match="discriminator"):
        scene.read_photograph(network._replace(discriminator=None), "a.png", data)


def test_cameras_stand_on_the_sphere_and_look_inward(network):
    lines = scene.frustum_lines(network.generator).reshape(-1, 8, 2, 3)
    assert len(lines) == scene.CAMERAS_DRAWN
    apex, corners = lines[:, 4:, 0], lines[:, 4:, 1]
    radius = network.config.camera.radius
    np.testing.assert_allclose(np.linalg.norm(apex, axis=-1), radius, rtol=1e-4)
    assert (np.linalg.norm(corners.mean(axis=1), axis=-1) < radius).all()


def test_the_picture_downloads_as_a_png():
    frame = Frame(np.full((4, 6, 3), 7, np.uint8), np.zeros((4, 6), np.float32))
    assert np.array_equal(imageio.imread(scene.picture_png(frame)), frame.picture)


def test_the_mesh_downloads_as_a_glb(network, monkeypatch):
    monkeypatch.setattr(scene, "find_surface", sphere)
    data = scene.mesh_glb(of_seed(network, 0))
    assert trimesh.load(io.BytesIO(data), file_type="glb").to_geometry().is_watertight
    assert b"COLOR_0" in data


def sphere(*_):
    from training.outputs.meshes import Mesh, Surface

    ball = trimesh.creation.icosphere(1, radius=0.2)
    return Surface(Mesh(ball.vertices.astype(np.float32), ball.faces.astype(np.int32)), None, False)


def test_an_object_without_surface_has_no_mesh(network):
    with pytest.raises(UserError, match="no surface"):
        scene.mesh_glb(of_seed(network, 0))


def test_the_turntable_downloads_as_an_mp4(network, monkeypatch):
    monkeypatch.setattr(scene, "TURNTABLE_FRAMES", 4)
    monkeypatch.setattr(scene, "TURNTABLE_SIZE", 32)
    frames = imageio.imread(scene.turntable_mp4(of_seed(network, 0)), extension=".mp4")
    assert frames.shape == (4, 32, 32, 3)
