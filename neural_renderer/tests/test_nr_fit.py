"""Optimizations that the derivatives must be good enough for."""

import torch

import neural_renderer as nr


def camera(size, eye):
    renderer = nr.Renderer(
        size, camera_mode="look_at", light_intensity_ambient=1, light_intensity_directional=0
    )
    renderer.eye = eye
    return renderer


def overlap(a, b):
    return ((a * b).sum() / (a + b - a * b).sum()).item()


def test_a_mesh_is_fitted_to_silhouettes(sphere):
    """A sphere becomes an ellipsoid that lies askew, seen from four sides."""
    vertices, faces = sphere(10, 16)
    stretch = torch.tensor([[0.5, 0.3, 0], [0, 0.8, 0], [0, 0, 1.0]])
    azimuths = torch.tensor([0.0, 45, 90, 135])
    eyes = nr.get_points_from_angles(torch.full((4,), 2.7), torch.full((4,), 15.0), azimuths)
    renderer = camera(64, eyes)
    faces = faces.repeat(4, 1, 1)
    with torch.no_grad():
        target = renderer((vertices @ stretch).repeat(4, 1, 1), faces, mode="silhouettes")

    moving = vertices.clone().requires_grad_()
    optimizer = torch.optim.Adam([moving], lr=0.02)
    overlaps = []
    for _ in range(40):
        image = renderer(moving.repeat(4, 1, 1), faces, mode="silhouettes")
        overlaps.append(overlap(image.detach(), target))
        optimizer.zero_grad()
        ((image - target) ** 2).sum().backward()
        optimizer.step()
    assert overlaps[0] < 0.75
    assert overlaps[-1] > 0.95


def test_a_camera_is_recovered(sphere):
    """The eye goes back to where a silhouette was seen from."""
    vertices, faces = sphere(10, 16)
    vertices = vertices * torch.tensor([1.0, 0.5, 0.3]) + torch.tensor([0.1, 0, 0])
    truth = torch.tensor(nr.get_points_from_angles(2.7, 20, 30))
    with torch.no_grad():
        target = camera(64, truth)(vertices, faces, mode="silhouettes")
    renderer = camera(64, None)
    renderer.eye = torch.nn.Parameter(torch.tensor(nr.get_points_from_angles(3.3, 5, 55)))
    optimizer = torch.optim.Adam(renderer.parameters(), lr=0.1)
    for _ in range(150):
        loss = ((renderer(vertices, faces, mode="silhouettes") - target) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.97
    assert (renderer.eye - truth).norm() < 0.05


def test_textures_are_recovered(sphere):
    torch.manual_seed(0)
    vertices, faces = sphere(6, 8)
    truth = torch.rand(1, faces.shape[1], 2, 2, 2, 3)
    renderer = camera(64, (0, 0.5, -2.7))
    target = renderer(vertices, faces, truth, mode="rgb")
    textures = torch.full_like(truth, 0.5).requires_grad_()
    optimizer = torch.optim.Adam([textures], lr=0.1)
    for _ in range(60):
        loss = ((renderer(vertices, faces, textures, mode="rgb") - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-5
