"""Textures are recovered from pictures: writes fit_textures.png.

Upper row: two of the pictures to fit, and a view that is kept back. Lower row: the same views of
the fitted textures.
"""

import torch
from shapes import closed_surface, save_grid

import neural_renderer as nr

VIEWS, STEPS, SIZE = 10, 100, 3


def torus(u, v):
    radius = 0.68 + 0.3 * v.cos()
    return torch.stack((radius * u.cos(), radius * u.sin(), 0.3 * v.sin()), -1)


def pattern(points):
    """A color for each point in space, in bands and patches."""
    bands = (points @ torch.tensor([[6.0, 2, 0], [0, 7, 3], [5, -5, 4]]).T).sin()
    return (0.5 + 0.5 * torch.tanh(4 * bands)).clamp(0, 1)


vertices, faces, _ = closed_surface(torus, 48, 24)
axis = torch.linspace(0, 1, SIZE)
weights = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
weights = (weights + 1e-6) / (weights + 1e-6).sum(-1, keepdim=True)
truth = pattern(torch.einsum("ijkv,fvc->fijkc", weights, vertices[0, faces[0]]))[None]

renderer = nr.Renderer(image_size=160, camera_mode="look_at", background_color=(1, 1, 1))
eyes = nr.get_points_from_angles(
    torch.full((VIEWS + 1,), 2.6),
    torch.tensor([30.0, -30]).repeat(VIEWS)[: VIEWS + 1],
    torch.cat((torch.arange(VIEWS) * (360 / VIEWS), torch.tensor([17.0]))),  # the last is kept back
)


def pictures(textures, eyes):
    renderer.eye = eyes
    n = len(eyes)
    mesh = vertices.repeat(n, 1, 1), faces.repeat(n, 1, 1)
    return renderer(*mesh, textures.expand(n, -1, -1, -1, -1, -1), mode="rgb")


with torch.no_grad():
    target = pictures(truth, eyes)
textures = torch.full_like(truth, 0.5).requires_grad_()
optimizer = torch.optim.Adam([textures], lr=0.1)
for step in range(STEPS + 1):
    loss = ((pictures(textures, eyes[:-1]) - target[:-1]) ** 2).mean()
    if step % 25 == 0:
        print(f"step {step}: mean squared error {loss.item():.6f}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.no_grad():
    fitted = pictures(textures, eyes)
error = ((fitted[-1] - target[-1]) ** 2).mean().item()
print(f"view that was kept back: mean squared error {error:.6f}")
shown = (0, 3, VIEWS)
save_grid("fit_textures.png", [[images[i] for i in shown] for images in (target, fitted)])
print("wrote fit_textures.png")
