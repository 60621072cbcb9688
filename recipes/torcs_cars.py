"""Photograph the racing cars of Debian's package torcs-data from random, unrecorded cameras.

    apt-get download torcs-data && dpkg -x torcs-data_*.deb torcs
    python -m recipes.torcs_cars --source torcs/usr/share/games/torcs --dest cars/

docs/real_pictures.md has the whole way, and the licence of the models, which stay where they are:
no part of them is in this repository.

Models are AC3D text files (https://www.inivis.com/ac3d/man/ac3dfileformat.html). TORCS' variant,
.acc, adds triangle strips, normals, and more texture layers, of which the first is used here. The
bodies come without wheels; the game puts them where a car's XML file says, and so does this.
"""

import functools
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

import neural_renderer as nr
from dnnlib import Command, UserError, atomic_write
from training.cameras import focal_from_fov, pose_from_degrees
from training.data.archive import GROUND_TRUTH, LABEL_FILE
from training.data.ground_truth import GroundTruth
from training.data.labels import camera_labels, label_file
from training.data.processes import in_processes
from training.data.toy_heads import (
    BACKGROUND_DEPTH,
    FOV_DEGREES,
    POSE_MEAN,
    toy_cameras,
    toy_intrinsics,
)

# Thin parts that networks of the toy's size have no chance with.
LEFT_OUT = {"buggy", "car1-ow1"}

# Where the camera stands, in degrees. At yaw 0 it sees the car from 45 degrees off its nose; at
# -45 it would see the front, at +45 the side.
YAW_STD, YAW_LIMIT = 23.0, 45.0
PITCH_MEAN, PITCH_STD, PITCH_LIMIT = 18.0, 8.0, 16.0
HEADING = math.radians(45)  # of the car's nose, from +z toward -x

DIAGONAL = 0.6  # of the outline seen from above, in world units: in the frame from every side
STRETCH = 0.06  # each axis of each car is scaled by 1 +- this
SUPERSAMPLE = 4
LIGHT = np.array([0.2, 0.85, 0.5]) / math.hypot(0.2, 0.85, 0.5)
AMBIENT = 0.6
TEXTURE_SIDE = 512  # larger ones are reduced to this many texels
BEHIND_GLASS = 50  # gray level that shows through transparent texels

WHEEL_TEXTURE = "tex-wheel.rgb"
WHEEL_SEGMENTS = 24
METERS = {"in": 0.0254, "mm": 0.001, "m": 1.0, None: 1.0}

FACE_KINDS = {0: "polygon", 4: "strip"}  # low bits of SURF; the others are lines


class Mesh(NamedTuple):
    """F triangles, each seen from both sides.

    positions, normals: float64 [F, 3 corners, 3]. uv: float64 [F, 3, 2], v running upward.
    texture: int [F], an index into `names`, the file names of textures.
    """

    positions: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    names: tuple[str, ...]


class Car(NamedTuple):
    """A model, and the folders that hold a paint job for it: its own, and those of drivers."""

    mesh: Mesh
    folder: Path
    liveries: tuple[Path, ...]


class Picture(NamedTuple):
    """image: uint8 [R, R, 3]. depth: float32 [R, R], along the ray of each pixel."""

    image: np.ndarray
    depth: np.ndarray


def read_ac3d(path: Path) -> Mesh:
    """The triangles of an AC3D file, polygons and strips cut up, without transformations.

    TORCS' cars have none. Raises UserError when the file is not AC3D, or is cut short.
    """
    lines = iter(path.read_text(encoding="latin-1").splitlines())
    if not next(lines, "").startswith("AC3D"):
        raise UserError(f"{path} is not an AC3D file")
    faces, vertices, texture = [], np.zeros((0, 3)), None
    try:
        for line in lines:
            match line.replace('"', "").split():
                case ["OBJECT", *_]:
                    texture = None
                case ["texture", name, *_]:
                    texture = texture or name
                case ["numvert", count]:
                    vertices = np.array([next(lines).split() for _ in range(int(count))], float)
                case ["SURF", flags] if texture:
                    faces.append(_read_surface(lines, int(flags, 16) & 15, vertices, texture))
    except (ValueError, IndexError, StopIteration) as error:
        raise UserError(f"{path} cannot be read as AC3D: {error!r}") from error
    if not faces:
        raise UserError(f"{path} has no textured faces")
    return joined(faces)


def _read_surface(lines: Iterator[str], kind: int, vertices: np.ndarray, texture: str) -> Mesh:
    """The triangles of the face that follows a SURF line; vertices: [V, 3], or 6 with normals."""
    word, count = "", "0"
    while word != "refs":
        word, count = next(lines).split()[:2]
    references = np.array([next(lines).split()[:3] for _ in range(int(count))], float)
    corners = _triangles(len(references), kind)
    index, uv = references[:, 0].astype(int), references[:, 1:]
    found = vertices[index[corners]]
    return Mesh(
        found[..., :3], _normals(found), uv[corners], np.zeros(len(corners), int), (texture,)
    )


def _triangles(count: int, kind: int) -> np.ndarray:
    """Corners [T, 3] of the triangles that a face of `count` corners is made of."""
    match FACE_KINDS.get(kind):
        case "polygon":
            return np.array([(0, i, i + 1) for i in range(1, count - 1)], int).reshape(-1, 3)
        case "strip":
            return np.array([(i, i + 1, i + 2) for i in range(count - 2)], int).reshape(-1, 3)
    return np.zeros((0, 3), int)


def _normals(corners: np.ndarray) -> np.ndarray:
    """[T, 3, 3] for corners [T, 3, 3 or 6]: those of the file, or else each triangle's own."""
    if corners.shape[-1] == 6:
        return corners[..., 3:]
    a, b, c = corners.swapaxes(0, 1)
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True).clip(1e-12)
    return np.repeat(normal[:, None], 3, axis=1)


def wheel(radius: float, width: float) -> Mesh:
    """A closed cylinder round the z axis, in meters.

    Its caps show the wheel's picture, its tread the colors at the picture's rim.
    """
    angle = np.linspace(0, 2 * math.pi, WHEEL_SEGMENTS + 1)
    rim = np.stack([np.cos(angle), np.sin(angle)], -1)
    triangles, places = [], []
    for start, end in zip(rim[:-1], rim[1:], strict=True):
        left, right = ([(*p * radius, z) for p in (start, end)] for z in (-width / 2, width / 2))
        for cap in (left, right):
            triangles.append([(0, 0, cap[0][2]), *cap])
            places.append(np.array([(0, 0), start, end]) / 2 + 0.5)
        triangles += [[*left, right[0]], [left[1], *right[::-1]]]
        places += [np.tile(start / 2 + 0.5, (3, 1))] * 2
    positions = np.array(triangles)
    count = len(positions)
    return Mesh(
        positions, _normals(positions), np.array(places), np.zeros(count, int), (WHEEL_TEXTURE,)
    )


def joined(meshes: Iterable[Mesh]) -> Mesh:
    """All triangles in one mesh."""
    meshes = list(meshes)
    names = tuple(dict.fromkeys(name for mesh in meshes for name in mesh.names))
    texture = [np.array([names.index(n) for n in mesh.names])[mesh.texture] for mesh in meshes]
    return Mesh(
        np.concatenate([mesh.positions for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate(texture),
        names,
    )


def read_wheels(path: Path) -> Iterator[Mesh]:
    """The four wheels of a car's XML file, in the axes of its body (x forward, y up)."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error

    def number(section: str, name: str) -> float:
        entry = root.find(f"./section[@name='{section}']/attnum[@name='{name}']")
        value = None if entry is None else entry.get("val")
        if entry is None or value is None:
            raise UserError(f"{path} does not say the {name} of {section}")
        return float(value) * METERS.get(entry.get("unit"), 1.0)

    for axle in ("Front", "Rear"):
        tyre, side = f"{axle} Right Wheel", abs(number(f"{axle} Right Wheel", "ypos"))
        width = number(tyre, "tire width")
        radius = number(tyre, "rim diameter") / 2 + width * number(tyre, "tire height-width ratio")
        # Bodies begin at y = 0, the road lies deeper by the ride height.
        height = radius - number(tyre, "ride height")
        for z in (-side, side):
            mesh = wheel(radius, width)
            center = (number(f"{axle} Axle", "xpos"), height, z)
            yield mesh._replace(positions=mesh.positions + center)


def find_cars(source: Path) -> list[Car]:
    """All cars below `source`, the folder that holds cars/ and drivers/, sorted by name."""
    folders = sorted(path.parent for path in source.glob("cars/*/*.acc") if _is_car(path))
    if not folders:
        raise UserError(f"no cars in {source}: it should hold cars/ and drivers/ of torcs-data")
    return [_read_car(folder, source) for folder in folders]


def _is_car(path: Path) -> bool:
    for_far_away = path.stem != path.parent.name
    return not for_far_away and path.stem not in LEFT_OUT


def _read_car(folder: Path, source: Path) -> Car:
    name = folder.name
    body = read_ac3d(folder / f"{name}.acc")
    mesh = joined([body, *read_wheels(folder / f"{name}.xml")])
    painted = sorted(path.parent for path in source.glob(f"drivers/*/*/{name}.rgb"))
    return Car(in_the_frame(mesh), folder, (folder, *painted))


def in_the_frame(mesh: Mesh) -> Mesh:
    """Centered at the origin, of the size DIAGONAL, its nose (+x) turned to HEADING."""
    corners = mesh.positions.reshape(-1, 3)
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = DIAGONAL / math.hypot(*(high - low)[[0, 2]])
    sin, cos = math.sin(HEADING), math.cos(HEADING)
    turn = np.array([[-sin, 0, -cos], [0, 1, 0], [cos, 0, -sin]])
    return mesh._replace(
        positions=(mesh.positions - (low + high) / 2) * scale @ turn.T,
        normals=mesh.normals @ turn.T,
    )


def stretched(mesh: Mesh, factors: np.ndarray) -> Mesh:
    """Scaled by `factors` [3] along the world's axes; normals by their inverse."""
    normals = mesh.normals / factors
    length = np.linalg.norm(normals, axis=-1, keepdims=True).clip(1e-12)
    return mesh._replace(positions=mesh.positions * factors, normals=normals / length)


@functools.lru_cache(maxsize=128)  # all of the package's
def read_texture(path: Path) -> Image.Image:
    """RGB, with the dark inside of the car behind what is transparent."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGBA")
    except OSError as error:
        raise UserError(f"cannot read the texture {path}: {error}") from error
    image.thumbnail((TEXTURE_SIDE, TEXTURE_SIDE))
    inside = Image.new("RGBA", image.size, (BEHIND_GLASS, BEHIND_GLASS, BEHIND_GLASS, 255))
    return Image.alpha_composite(inside, image).convert("RGB")


def repaint(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Another hue and a tint: few paint jobs make many, and none is as white as the background."""
    hue, saturation, value = image.convert("HSV").split()
    shift = int(rng.integers(256))
    turned = Image.merge("HSV", (hue.point(lambda h: (h + shift) % 256), saturation, value))
    tint = rng.uniform(0.45, 1.0, 3)
    tint *= rng.uniform(0.85, 1.05) / tint.max()
    pixels = np.asarray(turned.convert("RGB")) * tint
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def linear_cubes(corners: np.ndarray) -> np.ndarray:
    """Texture cubes [F, 2, 2, 2, C] whose lookup at barycentric weights is linear interpolation.

    corners: [F, 3, C]. `neural_renderer` looks cubes up trilinearly, and a sum of the corners'
    values over the axes is itself trilinear.
    """
    weights = np.stack(np.meshgrid(*[(0.0, 1.0)] * 3, indexing="ij"), -1)
    return np.einsum("ijkv,fvc->fijkc", weights, corners)


def photograph(
    mesh: Mesh, textures: list[np.ndarray], cam2world: np.ndarray, resolution: int
) -> Picture:
    """A mesh on white, lit by one lamp that is fixed in the world.

    textures: uint8 [H, W, 3], in the order of `mesh.names`. cam2world: [4, 4].
    """
    fine = resolution * SUPERSAMPLE
    scale = 2 * focal_from_fov(FOV_DEGREES)  # the screen runs from -1 to 1
    camera = (mesh.positions - cam2world[:3, 3]) @ cam2world[:3, :3]
    z = camera[..., 2]
    screen = np.stack([camera[..., 0] / z * scale, -camera[..., 1] / z * scale, z], -1)
    texture = np.repeat(mesh.texture[:, None, None], 3, axis=1)
    surface = np.concatenate([mesh.uv, texture], -1)
    # Three channels a picture: where in which texture, and the normal. Faces show both sides.
    drawn = nr.rasterize_rgbad(
        _both_sides(screen).expand(2, -1, -1, -1),
        torch.stack([_both_sides(surface, cubes=True), _both_sides(mesh.normals, cubes=True)]),
        image_size=fine,
        anti_aliasing=False,
        far=BACKGROUND_DEPTH,
    )
    rgb, alpha, depth = drawn["rgb"], drawn["alpha"], drawn["depth"]
    assert rgb is not None and alpha is not None and depth is not None
    surface, normal = rgb.double().permute(0, 2, 3, 1).numpy()
    seen = alpha[0].numpy() > 0.5
    color = np.ones((fine, fine, 3))
    color[seen] = _look_up(textures, surface[seen]) * _shade(normal[seen], cam2world)[:, None]
    return Picture(
        (_per_pixel(color) * 255).round().clip(0, 255).astype(np.uint8),
        _depth(depth[0].double().numpy(), seen, scale),
    )


def _both_sides(corners: np.ndarray, cubes: bool = False) -> torch.Tensor:
    """Triangles [F, 3, C], then the same with their corners the other way round: [2F, …]."""
    both = np.concatenate([corners, corners[:, ::-1]])
    return torch.from_numpy(linear_cubes(both) if cubes else both).float()


def _look_up(textures: list[np.ndarray], surface: np.ndarray) -> np.ndarray:
    """Nearest texels, [P, 3] in [0, 1], at surface [P, (u, v, texture)]; textures repeat."""
    color = np.empty((len(surface), 3))
    which = surface[:, 2].round().astype(int)
    for index, texels in enumerate(textures):
        here = which == index
        height, width = texels.shape[:2]
        u, v = (surface[here, :2] % 1).T
        column = np.minimum((u * width).astype(int), width - 1)
        row = np.minimum(((1 - v) * height).astype(int), height - 1)
        color[here] = texels[row, column] / 255
    return color


def _shade(normal: np.ndarray, cam2world: np.ndarray) -> np.ndarray:
    """Lambert's law, [P], for normals [P, 3] turned toward the camera."""
    toward_camera = -cam2world[:3, 2]
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True).clip(1e-9)
    normal = normal * np.where(normal @ toward_camera < 0, -1, 1)[:, None]
    return AMBIENT + (1 - AMBIENT) * (normal @ LIGHT).clip(0)


def _per_pixel(samples: np.ndarray) -> np.ndarray:
    size = len(samples) // SUPERSAMPLE
    return samples.reshape(size, SUPERSAMPLE, size, SUPERSAMPLE, -1).mean(axis=(1, 3))


def _depth(z: np.ndarray, seen: np.ndarray, scale: float) -> np.ndarray:
    """Distances along rays, [R, R], averaged over what is hit, as the toy set keeps them."""
    across = (np.arange(len(z)) + 0.5) / len(z) * 2 - 1
    distance = z * np.sqrt(1 + (across[:, None] ** 2 + across**2) / scale**2)
    share = _per_pixel(seen.astype(float))[..., 0]
    mean = _per_pixel(distance * seen)[..., 0] / share.clip(1e-6)
    return np.where(share >= 0.5, mean, BACKGROUND_DEPTH)


def sample_pose(rng: np.random.Generator) -> np.ndarray:
    """One pose [2], (h, v) in radians, from a clipped normal distribution of yaw and pitch."""
    limit = np.array([YAW_LIMIT, PITCH_LIMIT])
    spread = np.clip(rng.normal(0, (YAW_STD, PITCH_STD)), -limit, limit)
    directions = torch.from_numpy(spread + (0, PITCH_MEAN))
    return pose_from_degrees(directions, POSE_MEAN[0]).numpy()


def random_photograph(
    index: int, cars: list[Car], resolution: int, seed: int
) -> tuple[Image.Image, GroundTruth]:
    """Picture number `index` of a set: any car, painted and stretched at random."""
    rng = np.random.default_rng([seed, index])
    identity = rng.integers(len(cars))
    car = cars[identity]
    livery = car.liveries[rng.integers(len(car.liveries))]
    body = f"{car.folder.name}.rgb"
    textures = {name: read_texture(car.folder / name) for name in car.mesh.names}
    textures[body] = repaint(read_texture(livery / body), rng)
    mesh = stretched(car.mesh, rng.uniform(1 - STRETCH, 1 + STRETCH, 3))
    pose = sample_pose(rng)
    cam2world = toy_cameras(torch.from_numpy(pose)[None])[0].numpy()
    picture = photograph(mesh, list(map(np.asarray, textures.values())), cam2world, resolution)
    truth = GroundTruth(
        pose, picture.depth.astype(np.float16), np.asarray(identity), cam2world.astype(np.float32)
    )
    return Image.fromarray(picture.image), truth


@click.command(cls=Command)
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="usr/share/games/torcs of the unpacked package.",
)
@click.option("--dest", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--count", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--resolution", type=click.IntRange(8, 512), default=64, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--labels", is_flag=True, help="Also tell the cameras, for train.py --poses dataset.")
def main(source: Path, dest: Path, count: int, resolution: int, seed: int, labels: bool) -> None:
    """Write --count PNG files to the folder --dest, and beside them, for evaluation only, the truth
    that training must not see (ground_truth.npz)."""
    cars = find_cars(source)
    paint_jobs = sum(len(car.liveries) for car in cars)
    click.echo(f"{len(cars)} cars, {paint_jobs} paint jobs")
    dest.mkdir(parents=True, exist_ok=True)
    if any(dest.iterdir()):  # pictures or labels of another set would become part of this one
        raise UserError(f"{dest} is not empty: empty it, or name another folder with --dest")
    take = functools.partial(random_photograph, cars=cars, resolution=resolution, seed=seed)
    names = [f"{index:06d}.png" for index in range(count)]
    truths = []
    pictures = tqdm(in_processes(take, count), total=count, unit="img", disable=None)
    for name, (image, truth) in zip(names, pictures, strict=True):
        image.save(dest / name)
        truths.append(truth)
    together = GroundTruth.stack(truths)
    with atomic_write(dest / GROUND_TRUTH) as temporary:
        temporary.write_bytes(together.to_bytes())
    if labels:
        intrinsics = toy_intrinsics().expand(count, 3, 3).numpy()
        cameras = camera_labels(together.cam2world, intrinsics)
        with atomic_write(dest / LABEL_FILE) as temporary:
            temporary.write_bytes(label_file(zip(names, cameras, strict=True)))


if __name__ == "__main__":
    main()
