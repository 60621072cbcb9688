"""Draw the camera conventions, with the cameras that training/cameras.py computes.

python docs/figures/cameras.py docs/images/cameras.svg
"""

import math
import sys
from pathlib import Path

import click
import torch
from svg import INK, document, line, text
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from training.cameras import cam2world_from_pose, pose_from_degrees  # noqa: E402

WIDTH, HEIGHT = 660, 460
CENTER, SCALE = (330, 250), 70.0  # pixels; pixels per world unit
RADIUS = 2.7
EYE_YAW, EYE_PITCH = 38.0, 22.0  # from where the scene is drawn, degrees
YAW, PITCH = 75.0, 32.0  # of the camera that is shown, degrees
MEAN_H = math.pi / 2
RED, GREEN, BLUE, GRAY = "#c22", "#282", "#24c", "#bbb"
AXIS = 1.5
FRUSTUM = 0.55


def camera(yaw: float, pitch: float) -> Tensor:
    """cam2world [4, 4]."""
    pose = pose_from_degrees(torch.tensor([[yaw, pitch]]), MEAN_H)
    return cam2world_from_pose(pose, RADIUS, (0.0, 0.0, 0.0))[0]


def project(points: Tensor) -> list[list[float]]:
    """World points [N, 3] -> pixels, without perspective."""
    right, down = camera(EYE_YAW, EYE_PITCH)[:3, :2].T
    x, y = points @ right * SCALE + CENTER[0], points @ down * SCALE + CENTER[1]
    return torch.stack([x, y], dim=1).tolist()


def arc(yaws: Tensor, pitches: Tensor, radius: float) -> list[list[float]]:
    """Pixels of a path on the sphere of cameras."""
    yaw, pitch = torch.deg2rad(yaws), torch.deg2rad(pitches)
    directions = [pitch.cos() * yaw.sin(), pitch.sin().expand_as(yaw), pitch.cos() * yaw.cos()]
    return project(radius * torch.stack(torch.broadcast_tensors(*directions), dim=1))


def sphere() -> list[str]:
    """Outline, equator, and the meridian of the canonical view."""
    around = torch.linspace(0, 360, 121)
    zero = torch.zeros(())
    turn = torch.deg2rad(around)
    outline = [
        [CENTER[0] + RADIUS * SCALE * math.cos(t), CENTER[1] + RADIUS * SCALE * math.sin(t)]
        for t in turn.tolist()
    ]
    return [
        line(outline, GRAY),
        line(arc(around, zero, RADIUS), GRAY, dashed=True),
        line(arc(zero.expand(121), around, RADIUS), GRAY, dashed=True),
    ]


def world_axes() -> list[str]:
    """x, y (up) and z."""
    shapes = []
    for i, (name, color) in enumerate(zip(("x", "y (up)", "z"), (RED, GREEN, BLUE), strict=True)):
        end = torch.zeros(3)
        end[i] = AXIS
        start, tip = project(torch.stack([torch.zeros(3), end]))
        shapes += [
            line([start, tip], color, arrow=True, width=2),
            text(tip[0] + 12, tip[1] - 8, name),
        ]
    return shapes


def cube() -> list[str]:
    """The box round the object."""
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3)
    edges = [
        (a, b)
        for a in range(8)
        for b in range(a)
        if (corners[a] != corners[b]).sum() == 1
    ]  # fmt: skip
    points = project(corners)
    return [line([points[a], points[b]], GRAY) for a, b in edges]


def camera_at(yaw: float, pitch: float, label: str) -> list[str]:
    """A frustum and, if it has a label, the camera's axes."""
    cam2world = camera(yaw, pitch)
    right, down, forward, origin = cam2world[:3].T
    size = FRUSTUM / 2
    corners = torch.stack(
        [
            origin + forward * FRUSTUM + x * size * right + y * size * down
            for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        ]
    )
    apex, *image = project(torch.cat([origin[None], corners]))
    shapes = [line([apex, corner], INK) for corner in image] + [line([*image, image[0]], INK)]
    if not label:
        return shapes
    axes = {"right (x)": (right, RED), "down (y)": (down, GREEN), "forward (z)": (forward, BLUE)}
    for name, (direction, color) in axes.items():
        start, tip = project(torch.stack([origin, origin + direction]))
        shapes.append(line([start, tip], color, arrow=True, width=2))
        shapes.append(text(tip[0] + 8, tip[1] + 14, name, color, anchor="start"))
    return [*shapes, text(apex[0] - 20, apex[1] - 24, label, anchor="start")]


def angles() -> list[str]:
    """Yaw along the equator, pitch up from it."""
    steps = torch.linspace(0, 1, 40)
    zero = torch.zeros(())
    yaw = arc(steps * YAW, zero, RADIUS)
    pitch = arc(torch.full((40,), YAW), steps * PITCH, RADIUS)
    return [
        line(yaw, INK, arrow=True, width=2),
        text(yaw[20][0] - 5, yaw[20][1] + 22, "yaw = h - mean_h"),
        line(pitch, INK, arrow=True, width=2),
        text(pitch[3][0] + 12, pitch[3][1] + 4, "pitch", anchor="start"),
    ]


@click.command()
@click.argument("dest", type=click.Path(path_type=Path))
def main(dest: Path) -> None:
    """Write the drawing to DEST (.svg)."""
    front = project(torch.tensor([[0.0, 0.0, RADIUS]]))[0]
    shapes = sphere() + cube() + world_axes() + angles()
    shapes += camera_at(0.0, 0.0, "") + camera_at(YAW, PITCH, "camera at (h, v)")
    shapes.append(text(front[0] - 30, front[1] + 70, "canonical view: h = mean_h, v = pi/2"))
    dest.write_text(document(WIDTH, HEIGHT, shapes))


if __name__ == "__main__":
    main()
