"""Cameras, by what they do to points."""

import math

import numpy as np
import pytest
import torch

import neural_renderer as nr


def points(*rows):
    return torch.tensor([rows], dtype=torch.float64)


def test_look_at_puts_the_target_on_the_z_axis_and_up_upward():
    seen = nr.look_at(points((0, 0, 0), (0, 1, 0)), eye=(3, 0, -4))
    torch.testing.assert_close(seen[0, 0], points((0, 0, 5))[0, 0])
    torch.testing.assert_close(seen[0, 1], points((0, 1, 5))[0, 0])


def test_look_at_from_the_front_leaves_x_and_y_as_they_are():
    vertices = points((0.1, 0.2, 0.3), (-1, 2, 0))
    seen = nr.look_at(vertices, (0, 0, -2))
    torch.testing.assert_close(seen, vertices + torch.tensor([0, 0, 2.0]))


def test_look_at_keeps_distances_and_handedness():
    torch.manual_seed(0)
    basis = torch.cat((torch.zeros(1, 1, 3), torch.eye(3)[None]), 1).double()
    seen = nr.look_at(basis, (0.3, 1, -2), at=(0.1, 0.2, 0.3), up=(0.1, 1, 0.2))
    axes = seen[0, 1:] - seen[0, :1]
    torch.testing.assert_close(axes @ axes.T, torch.eye(3).double())
    assert torch.linalg.det(axes) == pytest.approx(1)


def test_look_is_look_at_along_a_direction():
    torch.manual_seed(0)
    vertices = torch.rand(2, 5, 3)
    eye, direction = torch.rand(2, 3) - 2, torch.tensor([0.1, 0.2, 1.0])
    torch.testing.assert_close(
        nr.look(vertices, eye, direction), nr.look_at(vertices, eye, eye + direction)
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda v: nr.look_at(v, (0, 5, 0)),
        lambda v: nr.look_at(v, (0, 0, 0)),
        lambda v: nr.look(v, (0, 0, 0), direction=(0, -1, 0)),
    ],
)
def test_cameras_without_a_horizon_are_refused(call):
    with pytest.raises(ValueError, match="must not look along"):
        call(torch.zeros(1, 1, 3))


def test_perspective_maps_the_viewing_angle_to_the_edge():
    z = 3.0
    seen = nr.perspective(points((z * math.tan(math.radians(40)), 0, z)), angle=40)
    torch.testing.assert_close(seen, points((1, 0, z)))


def test_perspective_of_a_point_in_the_camera_has_a_gradient():
    vertices = torch.zeros(1, 1, 3, requires_grad=True)
    nr.perspective(vertices).sum().backward()
    assert vertices.grad.isfinite().all()


def calibrated():
    K = torch.tensor([[[800.0, 0, 500], [0, 700, 520], [0, 0, 1]]])
    angle = 0.3
    R = torch.tensor(
        [[[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]]
    )
    return K, R, torch.tensor([[[0.1, -0.2, 3.0]]])


def test_projection_gives_the_pixel_of_the_camera_matrix():
    K, R, t = calibrated()
    point = torch.tensor([[[0.3, -0.4, 0.5]]])
    ray = K[0] @ (R[0] @ point[0, 0] + t[0, 0])
    u, v = (ray[:2] / ray[2]).tolist()
    x, y, z = nr.projection(point, K, R, t, None, 1024)[0, 0].tolist()
    assert x == pytest.approx(u / 512 - 1, abs=1e-5)
    assert y == pytest.approx(1 - v / 512, abs=1e-5)
    assert z == pytest.approx(ray[2].item(), abs=1e-6)


def test_each_distortion_coefficient_does_what_the_model_says():
    """Brown and Conrady's model, term by term, for K = 1 and a square of side 2."""
    one = torch.eye(3)[None].double()
    x, y = 0.3, -0.2
    r2 = x * x + y * y
    shifts = {
        0: (x * r2, y * r2),
        1: (x * r2**2, y * r2**2),
        2: (2 * x * y, r2 + 2 * y * y),
        3: (r2 + 2 * x * x, 2 * x * y),
        4: (x * r2**3, y * r2**3),
    }
    still = torch.zeros(1, 1, 3).double()
    plain = nr.projection(points((x, y, 1)), one, one, still, None, 2)
    for which, (dx, dy) in shifts.items():
        coefficients = torch.zeros(1, 5).double()
        coefficients[0, which] = 0.1
        moved = nr.projection(points((x, y, 1)), one, one, still, coefficients, 2)
        expected = points((0.1 * dx, -0.1 * dy, 0))  # v runs down, y up
        torch.testing.assert_close(moved - plain, expected)


def test_projection_takes_numpy_and_refuses_wrong_shapes():
    K, R, t = calibrated()
    point = torch.rand(2, 4, 3)
    as_numpy = nr.projection(point, *(m.numpy() for m in (K, R, t)), np.zeros((1, 5)), 1024)
    torch.testing.assert_close(as_numpy, nr.projection(point, K, R, t, None, 1024))
    with pytest.raises(ValueError, match="t must be"):
        nr.projection(point, K, R, t[..., :2], None, 1024)
    with pytest.raises(ValueError, match="K must be"):
        nr.projection(point, K[0], R, t, None, 1024)
    with pytest.raises(ValueError, match="dist_coeffs must be"):
        nr.projection(point, K, R, t, torch.zeros(1, 4), 1024)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1, 3)])
def test_a_translation_may_lack_dimensions(shape):
    K, R, t = calibrated()
    point = torch.rand(2, 4, 3)
    expected = nr.projection(point, K, R, t, None, 1024)
    assert torch.equal(nr.projection(point, K, R, t.reshape(shape), None, 1024), expected)


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 3)])
def test_each_mesh_may_have_its_own_translation(shape):
    K, R, t = calibrated()
    point, ts = torch.rand(2, 4, 3), torch.cat((t, t + 1))
    both = nr.projection(point, K, R, ts.reshape(shape), None, 1024)
    for i in range(2):
        alone = nr.projection(point[i : i + 1], K, R, ts[i : i + 1], None, 1024)
        torch.testing.assert_close(both[i : i + 1], alone)


def test_points_from_angles():
    assert nr.get_points_from_angles(2, 0, 0) == pytest.approx((0, 0, -2))
    assert nr.get_points_from_angles(2, 0, 90) == pytest.approx((2, 0, 0))
    assert nr.get_points_from_angles(2, 90, 0) == pytest.approx((0, 2, 0))
    radians = nr.get_points_from_angles(2, math.pi / 6, math.pi / 4, degrees=False)
    assert nr.get_points_from_angles(2, 30, 45) == pytest.approx(radians)
    several = nr.get_points_from_angles(
        torch.tensor([2.0, 2.0]), torch.tensor([0.0, 30.0]), torch.tensor([90.0, 45.0])
    )
    torch.testing.assert_close(several, torch.tensor([[2, 0, 0], radians]))
