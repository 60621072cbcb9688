"""A camera that circles a colored knot: writes orbit.gif."""

import math

import torch
from shapes import closed_surface, to_image

import neural_renderer as nr


def trefoil(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """A tube around a trefoil knot; u runs along it, v around it."""

    def knot(u):
        x, y = u.sin() + 2 * (2 * u).sin(), u.cos() - 2 * (2 * u).cos()
        return torch.stack((x, y, -(3 * u).sin()), -1) / 3.2

    step = 1e-2
    along = torch.nn.functional.normalize(knot(u + step) - knot(u - step), dim=-1)
    side = torch.linalg.cross(along, torch.tensor([0.0, 0, 1]).expand_as(along))
    side = torch.nn.functional.normalize(side, dim=-1)
    up = torch.linalg.cross(side, along)
    return knot(u) + 0.16 * (v.cos()[..., None] * side + v.sin()[..., None] * up)


vertices, faces, u = closed_surface(trefoil, 180, 20)
shift = torch.tensor([0, 2 * math.pi / 3, 4 * math.pi / 3])
colors = 0.55 + 0.45 * (2 * u[:, None] + shift).cos()
textures = colors[None, :, None, None, None]

renderer = nr.Renderer(
    image_size=200,
    camera_mode="look_at",
    background_color=(1, 1, 1),
    light_intensity_ambient=0.45,
    light_intensity_directional=0.7,
    light_direction=(0.3, 0.8, -0.5),
)
frames = []
for azimuth in range(0, 360, 15):
    renderer.eye = nr.get_points_from_angles(2.3, 15, azimuth)
    frames.append(to_image(renderer(vertices, faces, textures, mode="rgb")[0]).quantize(128))
frames[0].save("orbit.gif", save_all=True, append_images=frames[1:], duration=80, loop=0)
print("wrote orbit.gif")
