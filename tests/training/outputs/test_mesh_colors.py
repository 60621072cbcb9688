"""Meshes look like renderings of the field they come from: on the network that is shipped."""

import torch

from training.outputs.mesh_colors import vertex_normals
from training.outputs.meshes import extract_mesh


def test_a_colored_mesh_looks_like_the_volume_rendering(head, head_mesh, worst_psnr):
    assert worst_psnr(head, head_mesh) >= 25
    swapped = head_mesh._replace(colors=head_mesh.colors[:, ::-1].copy())
    assert worst_psnr(head, swapped) < 20


def test_normals_point_outward():
    axis = torch.linspace(-0.5, 0.5, 40)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    mesh = extract_mesh(0.3 - points.norm(dim=-1), 0, 1.0)
    radial = torch.nn.functional.normalize(torch.from_numpy(mesh.vertices), dim=-1)
    assert (vertex_normals(mesh) * radial).sum(dim=-1).min() > 0.95
