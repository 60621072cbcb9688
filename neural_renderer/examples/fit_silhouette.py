"""A sphere takes on a shape that is known only by its outlines: writes fit_silhouette.png.

Upper row: one of eight silhouettes to fit, then the mesh's at the start and after some steps.
Lower row: the same bodies in light, the first one being what is never shown to the optimization.
"""

import torch
from shapes import save_grid, sphere

import neural_renderer as nr

VIEWS, STEPS, SHOWN = 8, 200, (0, 20, 60, 200)

vertices, faces = sphere(28, 40)
x, y, z = vertices.unbind(-1)
lobes = 1 + 0.25 * (3 * torch.atan2(x, y)).cos() * (1 - z * z)
body = vertices * lobes[..., None] * torch.tensor([0.85, 0.85, 0.55])

renderer = nr.Renderer(
    image_size=112,
    camera_mode="look_at",
    light_direction=(0.3, 0.6, -0.7),
    light_intensity_ambient=0.3,
    light_intensity_directional=0.65,
)
renderer.eye = nr.get_points_from_angles(
    torch.full((VIEWS,), 2.6),
    torch.tensor([15.0, 40, -20, 5] * 2),
    torch.arange(VIEWS) * (360 / VIEWS) + 20,
)
batch = faces.repeat(VIEWS, 1, 1)


def silhouettes(vertices):
    return renderer(vertices.repeat(VIEWS, 1, 1), batch, mode="silhouettes")


def in_light(vertices):
    return renderer(vertices.repeat(VIEWS, 1, 1), batch, mode="rgb")[0].detach()


def roughness(vertices):
    """How far vertices lie from the mean of their neighbors, squared."""
    a, b = torch.cat((faces[0], faces[0].roll(1, 1))).reshape(-1, 3)[:, :2].T
    count = torch.bincount(a, minlength=vertices.shape[1])[:, None]
    mean = torch.zeros_like(vertices[0]).index_add(0, a, vertices[0, b]) / count
    return ((vertices[0] - mean) ** 2).sum()


target = silhouettes(body)
moving = (0.7 * vertices).requires_grad_()
optimizer = torch.optim.Adam([moving], lr=0.01)
outlines, bodies = [target[0]], [in_light(body)]
for step in range(STEPS + 1):
    image = silhouettes(moving)
    if step in SHOWN:
        overlap = (image * target).sum() / (image + target - image * target).sum()
        print(f"step {step}: intersection over union {overlap.item():.3f}")
        outlines.append(image[0].detach())
        bodies.append(in_light(moving))
    loss = ((image - target) ** 2).sum() / VIEWS + 100 * roughness(moving)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
save_grid("fit_silhouette.png", [outlines, bodies])
print("wrote fit_silhouette.png")
