"""What is drawn where."""

import pytest
import torch

import neural_renderer as nr


def triangle(*vertices, dtype=torch.float32):
    return torch.tensor([[vertices]], dtype=dtype)


def red_green_blue(count=1, cube=2, dtype=torch.float32):
    """Textures whose color is the barycentric weights."""
    axis = torch.linspace(0, 1, cube, dtype=dtype)
    texture = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return texture.expand(1, count, -1, -1, -1, -1)


LEFT_HALF = (-1, -3, 1), (0, 0, 1), (-1, 3, 1)


def test_image_rows_run_from_top_to_bottom_and_columns_from_left(ops):
    upper_left = triangle((-1, 0, 2), (0, 1, 2), (-1, 1, 2))
    alpha = nr.rasterize_silhouettes(upper_left, 4, anti_aliasing=False, ops=ops)[0]
    assert alpha.tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_only_counter_clockwise_faces_are_drawn(ops):
    faces = triangle(*LEFT_HALF)
    assert nr.rasterize_silhouettes(faces, 8, ops=ops).sum() > 0
    assert nr.rasterize_silhouettes(faces.flip(2), 8, ops=ops).sum() == 0


def test_nearest_face_wins_whatever_the_order(ops):
    near, far = (triangle(*((x, y, z) for x, y, _ in LEFT_HALF)) for z in (2.0, 5.0))
    for faces in (torch.cat((near, far), 1), torch.cat((far, near), 1)):
        depth = nr.rasterize_depth(faces, 8, anti_aliasing=False, far=9, ops=ops)
        torch.testing.assert_close(depth.unique(), torch.tensor([2.0, 9.0]))


def test_equally_near_faces_show_the_first(ops):
    faces = triangle(*LEFT_HALF).repeat(1, 2, 1, 1)
    textures = torch.stack((torch.zeros(1, 1, 1, 3), torch.ones(1, 1, 1, 3)))[None]
    assert nr.rasterize(faces, textures, 8, ops=ops).sum() == 0
    assert nr.rasterize(faces, textures.flip(1), 8, ops=ops).sum() > 0


def test_faces_beyond_near_and_far_are_cut(ops):
    sloping = triangle((-5, -5, 1), (5, -5, 9), (0, 5, 5), dtype=torch.float64)
    depth = nr.rasterize_depth(
        sloping, 32, anti_aliasing=False, near=4.5, far=5.5, perspective=False, ops=ops
    )
    drawn = depth[depth < 5.5]  # the plane is z = 5 + 0.8 x
    assert 4.5 < drawn.min() < 4.56 and 5.44 < drawn.max() < 5.5


def test_weights_are_correct_in_perspective(ops):
    """A ray through a pixel must meet the face's plane where depth and weights say."""
    world = torch.tensor([[-1.0, -1, 2], [1, -1, 4], [0, 1, 3]], dtype=torch.float64)
    screen = torch.cat((world[:, :2] / world[:, 2:], world[:, 2:]), 1)[None, None]
    out = nr.rasterize_rgbad(screen, red_green_blue(dtype=torch.float64), 64, False, ops=ops)
    rows, columns = out["alpha"][0].nonzero(as_tuple=True)
    assert len(rows) > 100
    weights = out["rgb"][0, :, rows, columns].T
    x, y, z = (weights @ world).unbind(1)
    torch.testing.assert_close(x / z, (2 * columns + 1 - 64).double() / 64, atol=1e-12, rtol=0)
    torch.testing.assert_close(y / z, (63 - 2 * rows).double() / 64, atol=1e-12, rtol=0)
    torch.testing.assert_close(z, out["depth"][0, rows, columns])


def test_parallel_projection_has_linear_depth(ops):
    faces = triangle((-1, -1, 2), (1, -1, 4), (0, 1, 3), dtype=torch.float64)
    depth = nr.rasterize_depth(faces, 64, anti_aliasing=False, perspective=False, ops=ops)[0]
    rows, columns = (depth < 100).nonzero(as_tuple=True)
    x = (2 * columns + 1 - 64).double() / 64
    torch.testing.assert_close(depth[rows, columns], 3 + x)


def test_texture_cube_is_looked_up_trilinearly(ops):
    torch.manual_seed(0)
    faces = triangle((-1, -1, 1), (1, -1, 1), (0, 1, 1), dtype=torch.float64)
    cube = torch.rand(1, 1, 4, 4, 4, 3, dtype=torch.float64)
    weights = nr.rasterize(faces, red_green_blue(dtype=torch.float64), 16, False, ops=ops)
    color = nr.rasterize(faces, cube, 16, False, ops=ops)
    # grid_sample, with aligned corners, reads its coordinates in the order k, j, i.
    expected = torch.nn.functional.grid_sample(
        cube[0].permute(0, 4, 1, 2, 3),
        2 * weights.flip(1).permute(0, 2, 3, 1)[:, None] - 1,
        align_corners=True,
    )[:, :, 0]
    drawn = (weights.sum(1, keepdim=True) > 0.5).expand_as(color)
    torch.testing.assert_close(color[drawn], expected[drawn])


def test_anti_aliasing_is_the_mean_of_the_double_size(ops, sphere):
    vertices, faces = sphere()
    faces = nr.vertices_to_faces(nr.perspective(vertices + torch.tensor([0, 0, 3.0])), faces)
    smooth = nr.rasterize_depth(faces, 16, anti_aliasing=True, ops=ops)
    fine = nr.rasterize_depth(faces, 32, anti_aliasing=False, ops=ops)
    torch.testing.assert_close(smooth, fine.view(1, 16, 2, 16, 2).mean((2, 4)))


def test_background_color_and_depth(ops):
    nothing = triangle((2, 2, 1), (3, 2, 1), (2, 3, 1))
    out = nr.rasterize_rgbad(
        nothing, red_green_blue(), 4, far=7, background_color=[0.25, 0.5, 0.75], ops=ops
    )
    assert out["rgb"][0, :, 0, 0].tolist() == [0.25, 0.5, 0.75]
    assert (out["depth"] == 7).all() and (out["alpha"] == 0).all()


@pytest.mark.parametrize("size", [1, 31, 33, 100])
def test_neighbors_leave_no_crack(ops, size):
    """A fan around a point covers the screen, whatever the rounding."""
    torch.manual_seed(size)
    angle = torch.linspace(0, 2 * torch.pi, 38)
    rim = torch.stack((3 * angle.cos(), 3 * angle.sin(), 1 + torch.rand(38)), -1)
    rim[-1] = rim[0]
    hub = torch.tensor([0.123, -0.077, 1.5]).expand(37, 3)
    faces = torch.stack((hub, rim[:-1], rim[1:]), 1)[None]
    assert (nr.rasterize_silhouettes(faces, size, anti_aliasing=False, ops=ops) == 1).all()


def test_a_face_that_passes_behind_the_camera(ops):
    """A floor below the camera, as one face and cut at the camera's plane: same picture."""

    def screen(*points):
        return nr.perspective(torch.tensor([points], dtype=torch.float64), 45)[:, None]

    whole = screen((-9, -1, -4), (0, -1, 30), (9, -1, -4))
    near = 1e-3  # the part ahead of the camera, as two faces
    left, right = (sign * 9 * (30 - near) / 34 for sign in (-1, 1))
    cut = screen((left, -1, near), (0, -1, 30), (right, -1, near))
    depths = [
        nr.rasterize_depth(f, 64, anti_aliasing=False, near=0.1, ops=ops)
        for f in (whole.flip(2), whole, cut)
    ]
    one_sided = min(depths[:2], key=lambda depth: depth.mean())
    other = nr.rasterize_depth(cut.flip(2), 64, anti_aliasing=False, near=0.1, ops=ops)
    expected = min((depths[2], other), key=lambda depth: depth.mean())
    assert (expected < 100).sum() > 1000
    torch.testing.assert_close(one_sided, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "face",
    [
        [[0, 0, 1], [0, 0, 1], [0, 0, 1]],
        [[-1, 0, 1], [0, 0, 1], [1, 0, 1]],
        [[-1, -1, -1], [1, -1, -1], [0, 1, -1]],
        [[float("nan"), 0, 1], [1, 0, 1], [0, 1, 1]],
        [[float("inf"), 0, 1], [1, 0, 1], [0, 1, 1]],
        [[50, 0, 1], [51, 0, 1], [50, 1, 1]],
        [[1e30, 0, 1], [2e30, 0, 1], [1e30, 1, 1]],
        [[0, 0, 0], [1, 0, 0], [0, 1, 0]],
    ],
    ids=["point", "line", "behind", "nan", "inf", "off screen", "far off", "in the camera"],
)
def test_what_cannot_be_seen_draws_nothing_and_has_no_gradient(ops, face):
    good = [[-0.5, -0.5, 2], [0.5, -0.5, 2], [0, 0.5, 2]]
    faces = torch.tensor([[face, good]], dtype=torch.float32, requires_grad=True)
    out = nr.rasterize_rgbad(faces, torch.ones(1, 2, 1, 1, 1, 3), 16, ops=ops)
    alone = nr.rasterize_silhouettes(faces[:, 1:].detach(), 16, ops=ops)
    assert torch.equal(out["alpha"], alone)
    sum(((image - 0.5) ** 2).sum() for image in out.values()).backward()
    assert (faces.grad[0, 0] == 0).all()
    assert faces.grad[0, 1].isfinite().all() and faces.grad[0, 1].abs().sum() > 0


@pytest.mark.parametrize("batch, count", [(2, 0), (0, 3), (0, 0)])
def test_empty_batches_and_meshes(ops, batch, count):
    faces = torch.zeros(batch, count, 3, 3, requires_grad=True)
    textures = torch.zeros(batch, count, 2, 2, 2, 3, requires_grad=True)
    out = nr.rasterize_rgbad(faces, textures, 8, background_color=[1, 1, 1], ops=ops)
    assert out["rgb"].shape == (batch, 3, 8, 8) and (out["rgb"] == 1).all()
    sum(image.sum() for image in out.values()).backward()
    assert faces.grad.shape == faces.shape and textures.grad.shape == textures.shape


def test_images_of_a_batch_are_independent(ops, sphere):
    vertices, faces = sphere()
    moved = torch.cat((vertices + torch.tensor([0.3, 0, 3]), vertices + torch.tensor([0, 0, 4.0])))
    both = nr.vertices_to_faces(nr.perspective(moved), faces.repeat(2, 1, 1))
    together = nr.rasterize_depth(both, 32, ops=ops)
    apart = torch.cat([nr.rasterize_depth(f[None], 32, ops=ops) for f in both])
    assert torch.equal(together, apart)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_size": 0}, "image_size"),
        ({"near": 2.0, "far": 1.0}, "near"),
        ({"eps": 0}, "eps"),
        ({"ops": "numpy"}, "'auto', 'torch' or 'native'"),
        ({"faces": torch.zeros(1, 1, 3, 2)}, "faces must be"),
        ({"faces": torch.zeros(1, 1, 3, 3).half()}, "float32 or float64"),
        ({"textures": None}, "need textures"),
        ({"textures": torch.zeros(1, 2, 2, 2, 2, 3)}, "textures must be"),
        ({"textures": torch.zeros(1, 1, 2, 2, 3, 3)}, "textures must be"),
        ({"textures": torch.zeros(1, 1, 2, 2, 2, 3).double()}, "must match"),
        ({"background_color": [1, 1]}, "background_color"),
    ],
)
def test_bad_input_is_refused_in_words(arguments, message):
    good = {"faces": triangle(*LEFT_HALF), "textures": red_green_blue(), "image_size": 8}
    with pytest.raises(ValueError, match=message):
        nr.rasterize(**(good | arguments))
