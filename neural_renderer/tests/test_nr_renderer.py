"""The renderer as users call it."""

import math

import numpy as np
import pytest
import torch

import neural_renderer as nr


def test_three_images_and_each_alone(sphere):
    vertices, faces = sphere()
    textures = torch.rand(1, faces.shape[1], 2, 2, 2, 3)
    renderer = nr.Renderer(32, camera_mode="look_at")
    rgb, depth, alpha = renderer(vertices, faces, textures)
    assert rgb.shape == (1, 3, 32, 32) and depth.shape == alpha.shape == (1, 32, 32)
    for image, mode in ((rgb, "rgb"), (depth, "depth"), (alpha, "silhouettes")):
        assert torch.equal(image, renderer(vertices, faces, textures, mode=mode))
        alone = getattr(renderer, f"render_{mode}")
        assert torch.equal(image, alone(vertices, faces, *([textures] if mode == "rgb" else [])))


def test_a_sphere_looks_like_one(sphere):
    """Distance, outline and depth of a unit sphere, from the default eye."""
    vertices, faces = sphere(48, 96)
    renderer = nr.Renderer(128, camera_mode="look_at")
    distance = 1 / math.tan(math.radians(30)) + 1
    assert renderer.eye == pytest.approx((0, 0, -distance))
    depth, alpha = renderer.render(vertices, faces)[1:]
    radius = math.tan(math.asin(1 / distance)) / math.tan(math.radians(30))  # on the screen
    assert alpha.mean().item() == pytest.approx(math.pi * radius**2 / 4, rel=5e-3)
    assert depth.min().item() == pytest.approx(distance - 1, abs=2e-3)
    assert depth[0, 0, 0] == renderer.far


def test_numpy_and_tensors_give_the_same(sphere):
    vertices, faces = sphere()
    renderer = nr.Renderer(16, camera_mode="look_at")
    expected = renderer(vertices, faces)
    got = renderer(vertices.double().numpy(), faces.int().numpy())
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_light_on_a_face():
    """Ambient and directional light on a face that looks at the camera, and on its back."""
    vertices = torch.tensor([[[-9.0, -9, 0], [9, -9, 0], [0, 9, 0]]])
    front, back = torch.tensor([[[0, 1, 2]]]), torch.tensor([[[2, 1, 0]]])
    direction = (0, 0.6, -0.8)  # -z is where the camera is
    renderer = nr.Renderer(
        8,
        camera_mode="look_at",
        light_intensity_ambient=0.25,
        light_color_ambient=(1, 1, 0),
        light_intensity_directional=0.5,
        light_color_directional=(1, 0, 1),
        light_direction=direction,
    )
    ambient, directional = torch.tensor([0.25, 0.25, 0]), torch.tensor([0.5, 0, 0.5])
    for faces in (front, back):  # with fill_back the side that is seen is lit
        color = renderer(vertices, faces, mode="rgb")[0, :, 4, 4]
        torch.testing.assert_close(color, ambient + 0.8 * directional)
    renderer.light_direction = (0, 0, 1)
    torch.testing.assert_close(renderer(vertices, front, mode="rgb")[0, :, 4, 4], ambient)


def test_fill_back_draws_both_sides_with_the_same_texture():
    torch.manual_seed(0)
    vertices = torch.tensor([[[-0.9, -0.8, 0], [0.8, -0.7, 0], [0.1, 0.9, 0]]])
    textures = torch.rand(1, 1, 3, 3, 3, 3)
    renderer = nr.Renderer(
        32, camera_mode="look_at", light_intensity_ambient=1, light_intensity_directional=0
    )
    front = renderer(vertices, torch.tensor([[[0, 1, 2]]]), textures, mode="rgb")
    turned = renderer(vertices, torch.tensor([[[2, 1, 0]]]), textures.transpose(2, 4), mode="rgb")
    torch.testing.assert_close(front, turned)
    renderer.fill_back = False
    torch.testing.assert_close(
        renderer(vertices, torch.tensor([[[0, 1, 2]]]), textures, mode="rgb"), front
    )
    assert renderer(vertices, torch.tensor([[[2, 1, 0]]]), textures, mode="rgb").sum() == 0


def test_look_mode_sees_what_look_at_sees(sphere):
    vertices, faces = sphere()
    eye = (1.0, 0.5, -2.5)
    at, ahead = (nr.Renderer(32, camera_mode=mode) for mode in ("look_at", "look"))
    at.eye = ahead.eye = eye
    ahead.camera_direction = [-x for x in eye]
    torch.testing.assert_close(at(vertices, faces)[1], ahead(vertices, faces)[1])


def test_projection_mode_takes_the_camera_from_attributes_or_the_call(sphere):
    vertices, faces = sphere()
    K = torch.tensor([[[60.0, 0, 32], [0, 60, 32], [0, 0, 1]]])
    R, t = torch.eye(3)[None], torch.tensor([[[0.0, 0, 4]]])
    own = nr.Renderer(32, K=K, R=R, t=t, orig_size=64)
    bare = nr.Renderer(32)
    expected = own(vertices, faces, mode="depth")
    assert (expected < 100).sum() > 100
    given = bare(vertices, faces, mode="depth", K=K, R=R, t=t, orig_size=64)
    assert torch.equal(given, expected)
    assert torch.equal(bare.render_depth(vertices, faces, K, R, t, None, 64), expected)
    with pytest.raises(ValueError, match="needs K, R and t"):
        bare(vertices, faces)


def test_attributes_may_change(sphere):
    vertices, faces = sphere()
    renderer = nr.Renderer(16, camera_mode="look_at")
    before = renderer(vertices, faces).depth
    renderer.eye = nr.get_points_from_angles(4, 0, 0)
    assert renderer(vertices, faces).depth.min() > before.min() + 1
    renderer.image_size, renderer.background_color = 8, (1, 0, 0)
    assert renderer(vertices, faces).rgb[0, :, 0, 0].tolist() == [1, 0, 0]
    renderer.perspective = False
    assert renderer(vertices, faces).rgb.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"mode": "color"}, "mode must be"),
        ({"vertices": torch.zeros(4, 3)}, "vertices must be"),
        ({"faces": torch.tensor([[0, 1, 2]])}, "faces must be"),
        ({"faces": torch.tensor([[[0, 1, 4]]])}, "only 4"),
        ({"faces": torch.tensor([[[0, 1, -1]]])}, "vertices -1 to 1"),
        ({"faces": torch.tensor([[[0.0, 1, 2]]])}, "whole numbers"),
        ({"faces": torch.tensor([[[0, 1, 2]]] * 2)}, "batch=1"),
        ({"textures": torch.zeros(1, 3, 2, 2, 2, 3)}, "textures must be"),
    ],
)
def test_bad_input_is_refused_in_words(arguments, message):
    good = {"vertices": torch.zeros(1, 4, 3), "faces": torch.tensor([[[0, 1, 2]]])}
    with pytest.raises(ValueError, match=message):
        nr.Renderer(8, camera_mode="look_at")(**(good | arguments))


@pytest.mark.parametrize("mode", ["none", None, "identity"])
def test_another_camera_mode_leaves_vertices_where_they_are(mode):
    vertices = torch.tensor([[[-1.0, -1, 1], [1, -1, 1], [0, 1, 1]]])
    faces = torch.tensor([[[0, 1, 2]]])
    picture = nr.Renderer(16, camera_mode=mode)(vertices, faces, mode="silhouettes")
    assert torch.equal(picture, nr.rasterize_silhouettes(vertices[:, None], 16))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "uint64"])
def test_faces_may_be_any_whole_numbers(dtype, ops):
    vertices = torch.tensor([[[-1.0, -1, 1], [1, -1, 1], [0, 1, 1]]])
    faces = np.array([[[0, 1, 2]]])
    renderer = nr.Renderer(16, camera_mode="none", ops=ops)
    expected = renderer(vertices, faces, mode="rgb")
    for given in (faces.astype(dtype), torch.from_numpy(faces.astype(dtype))):
        assert torch.equal(renderer(vertices, given, mode="rgb"), expected)


@pytest.mark.parametrize("dtype", ["float32", "bool", "complex64"])
def test_faces_that_are_no_whole_numbers_are_refused(dtype):
    faces = np.array([[[0, 1, 2]]]).astype(dtype)
    with pytest.raises(ValueError, match="must be whole numbers"):
        nr.Renderer(16, camera_mode="none")(torch.zeros(1, 3, 3), faces)


@pytest.mark.parametrize("mode", ["look_at", "look", "projection"])
@pytest.mark.parametrize("batch, count", [(0, 2), (2, 0), (0, 0)])
def test_nothing_is_drawn_of_nothing(batch, count, mode, ops):
    camera = {"K": torch.eye(3)[None], "R": torch.eye(3)[None], "t": torch.zeros(1, 3)}
    renderer = nr.Renderer(8, camera_mode=mode, ops=ops, **camera)
    vertices = torch.rand(batch, 3, 3, requires_grad=True)
    faces = torch.zeros(batch, count, 3, dtype=torch.int64)
    textures = torch.rand(batch, count, 2, 2, 2, 3, requires_grad=True)
    rgb, depth, alpha = renderer(vertices, faces, textures)
    assert rgb.shape == (batch, 3, 8, 8) and depth.shape == alpha.shape == (batch, 8, 8)
    (rgb.sum() + depth.sum() + alpha.sum()).backward()
    assert vertices.grad.abs().sum() == 0 and textures.grad.shape == textures.shape
