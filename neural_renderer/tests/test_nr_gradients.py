"""Derivatives: exact ones against finite differences, the paper's against its formulas."""

import pytest
import torch

import neural_renderer as nr

SIZE = 64


def pixel_center(row, column):
    return (2 * column + 1 - SIZE) / SIZE, (SIZE - 1 - 2 * row) / SIZE


def moves(start, end, pixel, axis):
    """How far the pixel is from an edge along an axis, and the shares of the edge's two ends."""
    other = 1 - axis
    share = (pixel[other] - start[other]) / (end[other] - start[other])
    return pixel[axis] - (start[axis] + share * (end[axis] - start[axis])), 1 - share, share


def image_of(triangle, kind, ops):
    """Vertices [1, 3, 3] with a gradient, and a picture [SIZE, SIZE] of them."""
    vertices = torch.tensor([[(*v, 1.0) for v in triangle]], requires_grad=True)
    renderer = nr.Renderer(
        SIZE,
        anti_aliasing=False,
        camera_mode="look_at",
        perspective=False,
        light_intensity_ambient=1,
        light_intensity_directional=0,
        ops=ops,
    )
    faces = torch.tensor([[[0, 1, 2]]])
    if kind == "rgb":
        return vertices, renderer(vertices, faces, mode="rgb").mean(1)[0]
    return vertices, renderer(vertices, faces, mode="silhouettes")[0]


# The two cases of the paper's section 3.2, with its derivative worked out by hand: an edge's end
# that moves by 1 moves the edge by its share, and the pixel changes by 1 over the distance.


@pytest.mark.parametrize("kind", ["rgb", "silhouettes"])
def test_a_triangle_is_pulled_toward_a_pixel_outside(ops, kind):
    a, b, c = triangle = (0.8, 0.8), (0.0, -0.5), (0.2, -0.4)
    row, column = 25, 35
    vertices, image = image_of(triangle, kind, ops)
    assert image[row, column] == 0
    (1 - image[row, column]).backward()
    expected = torch.zeros(3, 3)
    for axis in (0, 1):  # only the edge a-b lies between the pixel and the triangle
        distance, share_a, share_b = moves(a, b, pixel_center(row, column), axis)
        expected[0, axis] -= share_a / distance
        expected[1, axis] -= share_b / distance
    torch.testing.assert_close(vertices.grad[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["rgb", "silhouettes"])
def test_a_triangle_is_pulled_away_from_a_pixel_inside(ops, kind):
    a, b, c = triangle = (0.8, 0.8), (-0.5, -0.8), (0.8, -0.8)
    row, column = 40, 50
    vertices, image = image_of(triangle, kind, ops)
    assert image[row, column] == 1
    image[row, column].backward()
    expected = torch.zeros(3, 3)
    edges = {0: ((a, b, 0, 1), (c, a, 2, 0)), 1: ((a, b, 0, 1), (b, c, 1, 2))}
    for axis, crossed in edges.items():
        for start, end, i, j in crossed:
            distance, share_i, share_j = moves(start, end, pixel_center(row, column), axis)
            expected[i, axis] -= share_i / distance
            expected[j, axis] -= share_j / distance
    torch.testing.assert_close(vertices.grad[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["rgb", "silhouettes"])
def test_what_would_raise_the_loss_has_no_gradient(ops, kind):
    for triangle, place, sign in (
        (((0.8, 0.8), (0.0, -0.5), (0.2, -0.4)), (25, 35), 1),
        (((0.8, 0.8), (-0.5, -0.8), (0.8, -0.8)), (40, 50), -1),
    ):
        vertices, image = image_of(triangle, kind, ops)
        (sign * image[place]).backward()
        assert (vertices.grad == 0).all()


def swept(behind_x, front_x, ops):
    """Gradients on a face at z = 2, and on a strip at z = 1, of a pixel at x = 0.5, y = 0.

    The face ends to the right at `behind_x`, the strip spans the columns `front_x`.
    """

    def quad(left, right, z):
        a, b, c, d = (left, -3, z), (right, -3, z), (right, 3, z), (left, 3, z)
        return [[a, b, c], [a, c, d]]

    face = [(-5, 0, 2), (behind_x, -3, 2), (behind_x, 3, 2)]
    faces = [face, *quad(*front_x, 1.0)]
    faces = torch.tensor([faces], requires_grad=True)
    textures = torch.ones(1, 3, 1, 1, 1, 3)
    textures[:, 1:] = 0.5
    image = nr.rasterize(faces, textures, 65, anti_aliasing=False, ops=ops)[0, 0]
    (1 - image[32, 48]).backward()
    return faces.grad[0, 0], faces.grad[0, 1:]


def test_occlusion_in_the_gradient(ops):
    free, _ = swept(0.1, (-0.8, -0.6), ops)
    assert (free[..., 0] < 0).any(), "an edge in the open is pulled to the pixel on its right"
    edge_hidden, _ = swept(0.1, (0.0, 0.2), ops)
    assert (edge_hidden == 0).all(), "an edge behind the strip is not seen"
    pixel_hidden, strip = swept(0.1, (0.4, 0.6), ops)
    assert (pixel_hidden == 0).all(), "a pixel that shows the strip would not change"
    assert (strip == 0).all(), "beyond the strip it is dark: to retreat would not help"


def test_eps_bounds_the_gradient(ops):
    faces = torch.tensor([[[[-0.5, -3, 1], [1e-5, -3, 1], [1e-5, 3, 1.0]]]], requires_grad=True)
    for eps, expected in ((1e-3, 1e3), (1e-2, 1e2)):
        alpha = nr.rasterize_silhouettes(faces, 1, anti_aliasing=False, eps=eps, ops=ops)
        grad = torch.autograd.grad(alpha.sum(), faces)[0]
        assert grad.abs().sum() == 0  # one pixel, so that nothing lies beyond the edge
        alpha = nr.rasterize_silhouettes(faces, 3, anti_aliasing=False, eps=eps, ops=ops)
        grad = torch.autograd.grad(alpha[0, 1, 1], faces)[0]
        assert grad[0, 0, :, 0].sum() == pytest.approx(expected, rel=0.05)


def random_faces(count):
    torch.manual_seed(0)
    faces = torch.rand(1, count, 3, 3, dtype=torch.float64) * 3 - 1.5
    faces[..., 2] = 1 + 2 * torch.rand(1, count, 3, dtype=torch.float64)
    return faces.requires_grad_()


def both_sides(faces):
    return torch.cat((faces, faces.flip(2)), 1)


@pytest.mark.parametrize("perspective", [True, False])
def test_depth_gradient_is_exact(ops, perspective):
    faces = random_faces(6)

    def depth(faces):
        return nr.rasterize_depth(both_sides(faces), 12, perspective=perspective, ops=ops)

    assert (depth(faces) < 100).sum() > 50
    assert torch.autograd.gradcheck(depth, faces, eps=1e-7, atol=1e-5)


def test_depth_gradient_is_exact_behind_the_camera_too(ops):
    world = torch.tensor([[[-9, -1, -4], [9, -1, -4], [0, -0.5, 30]]], dtype=torch.float64)
    screen = nr.perspective(world, 45)[:, None]
    drawn = [screen, screen.flip(2)]
    faces = min(drawn, key=lambda f: nr.rasterize_depth(f, 8, ops=ops).mean()).requires_grad_()

    def depth(faces):
        return nr.rasterize_depth(faces, 8, anti_aliasing=False, ops=ops)

    assert (depth(faces) < 100).sum() > 10
    assert torch.autograd.gradcheck(depth, faces, eps=1e-7, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("cube", [1, 2, 3])
def test_texture_gradient_is_exact(ops, cube):
    a, b, c, d = (-1, -1, 1), (1, -0.5, 2), (0.9, 1, 3), (-0.8, 0.8, 1.5)
    faces = torch.tensor([[[a, b, c], [a, c, d]]], dtype=torch.float64)
    textures = torch.rand(1, 2, cube, cube, cube, 3, dtype=torch.float64, requires_grad=True)

    def colors(textures):
        return nr.rasterize(faces, textures, 4, ops=ops)

    assert (colors(textures) > 0).sum() > 30
    assert torch.autograd.gradcheck(colors, textures)


def test_colors_reach_the_light(ops, sphere):
    vertices, faces = sphere()
    renderer = nr.Renderer(16, camera_mode="look_at", ops=ops)
    renderer.light_color_ambient = torch.tensor([0.5, 0.5, 0.5], requires_grad=True)
    image = renderer(vertices, faces, mode="rgb")
    image.sum().backward()
    alpha = renderer(vertices, faces, mode="silhouettes")
    expected = 0.5 * alpha.sum().expand(3)  # intensity x covered pixels
    torch.testing.assert_close(renderer.light_color_ambient.grad, expected)
