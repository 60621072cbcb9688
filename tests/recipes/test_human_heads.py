"""The recipe on a stand-in for the wheel: a head that is an ellipsoid, so that truths are known.

The last tests draw the real model, where the wheel is in the cache.
"""

import gzip
import hashlib
import io
import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from dnnlib import UserError, cache_dir
from recipes.human_heads import anatomy as anatomy_module
from recipes.human_heads.__main__ import main
from recipes.human_heads.anatomy import DATA, GROUPS, SKIN, WHEEL, Anatomy, find_wheel, read_anatomy
from recipes.human_heads.backdrop import random_backdrop
from recipes.human_heads.geometry import Shapes, Strands, vertex_normals
from recipes.human_heads.hair import grow_hair
from recipes.human_heads.hairstyle import STYLES
from recipes.human_heads.light import Light, shadow_map
from recipes.human_heads.person import EXPRESSIONS, Person, Shot, random_expression
from recipes.human_heads.photographs import Settings, random_pose, take
from recipes.human_heads.portrait import ORIGIN, SCALE, Model, photograph
from recipes.human_heads.roots import find_regions
from tests.helpers import PATIENCE, wait_until
from training.cameras import orbit, pose_from_degrees
from training.data.dataset import ImageDataset
from training.data.ground_truth import load_ground_truth
from training.data.toy_heads import BACKGROUND_DEPTH, PIVOT, RADIUS, toy_cameras, toy_intrinsics

CENTER, RADII = np.array([0.0, 7.35, 0.55]), np.array([0.76, 1.15, 0.97])
REAL_SHA256 = anatomy_module.SHA256
EYE = (0.3078, 7.2842, 1.2454)
SAMPLE = Path(__file__).parents[1] / "data" / "human_heads_64.zip"


def ball(center, radii, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and quads, outward, of an ellipsoid of `steps` by 2 `steps` patches."""
    down, round_ = np.linspace(0.02, math.pi - 0.02, steps + 1), np.arange(2 * steps) / steps
    theta, phi = np.meshgrid(down, round_ * math.pi, indexing="ij")
    unit = np.stack(
        [np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], axis=-1
    )
    index = np.arange(unit.size // 3).reshape(steps + 1, 2 * steps)
    right = np.roll(index, -1, axis=1)
    quads = np.stack([index[:-1], index[1:], right[1:], right[:-1]], -1).reshape(-1, 4)
    return unit.reshape(-1, 3) * radii + center, quads


def target_names() -> list[str]:
    """What people and expressions are mixed from, and one pair of opposites."""
    groups = [
        f"macrodetails/{race}-{sex}-{age}"
        for race in ("african", "asian", "caucasian")
        for sex in ("female", "male")
        for age in ("child", "young", "old")
    ]
    groups += [
        f"macrodetails/universal-{sex}-{age}-{muscle}muscle-{weight}weight"
        for sex in ("female", "male")
        for age in ("child", "young", "old")
        for muscle in ("min", "average", "max")
        for weight in ("min", "average", "max")
    ]
    shapes = ("oval", "round", "rectangular", "square", "triangular", "diamond")
    groups += [f"head/head-{shape}" for shape in shapes]
    groups += ["nose/nose-hump-decr", "nose/nose-hump-incr", "breast/not-of-the-head"]
    units = {unit for _, mood in EXPRESSIONS.values() for unit in mood} | {"eye-*-closure"}
    sides = [unit.replace("*", side) for unit in sorted(units) for side in ("left", "right")]
    return groups + [f"expression/units/caucasian/{unit}" for unit in dict.fromkeys(sides)]


def write_wheel(path: Path) -> None:
    parts = {
        "body": ball(CENTER, RADII, 40),
        "joint-head": ball(CENTER, (0.1, 0.1, 0.1), 2),
        "helper-l-eye": ball(EYE, (0.14, 0.14, 0.14), 6),
        "helper-r-eye": ball((-EYE[0], *EYE[1:]), (0.14, 0.14, 0.14), 6),
    }
    lines, first = [], 1
    for name, (vertices, quads) in parts.items():
        lines += [f"v {x} {y} {z}" for x, y, z in vertices]
        # Texture space is the view from the front; what faces back lies outside the masks.
        lines += [f"vt {(x + 1) / 4 + 0.5 * (z < 0.55)} {(y - 6) / 3}" for x, y, z in vertices]
        lines += [f"g {name}"]
        lines += ["f " + " ".join(f"{i + first}/{i + first}" for i in quad) for quad in quads]
        first += len(vertices)
    lips = np.zeros((300, 400), np.uint8)
    lips[300 - 72 : 300 - 48, 80:120] = 255  # x within 0.2, y from 6.48 to 6.72
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{DATA}3dobjs/base.obj", "\n".join(lines))
        for number, name in enumerate(target_names()):
            text = f"{number} 0.01 0 -0.02\n{number + 1} 0 0.01 0\n"
            wheel.writestr(f"{DATA}targets/{name}.target.gz", gzip.compress(text.encode()))
        for name in anatomy_module.MASKS:
            picture = Image.fromarray(lips if name == "lips" else np.zeros_like(lips))
            buffer = io.BytesIO()
            picture.resize((512, 512)).save(buffer, format="jpeg")
            wheel.writestr(f"{DATA}textures/mpfb_{name}.jpg", buffer.getvalue())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("wheel") / WHEEL
    write_wheel(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def this_wheel_is_right(wheel):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anatomy_module, "SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
        yield


@pytest.fixture(scope="module")
def model(wheel) -> Model:
    anatomy = read_anatomy(wheel)
    return Model(anatomy, find_regions(anatomy))


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def camera(yaw: float, pitch: float) -> np.ndarray:
    pose = pose_from_degrees(torch.tensor([[yaw, pitch]], dtype=torch.float64), math.pi / 2)
    return toy_cameras(pose)[0].numpy()


def plain_shot(yaw: float = 0, pitch: float = 0) -> Shot:
    grey = np.full(3, 0.5)
    light = Light(np.array([0.0, 0.6, 0.8]), grey, grey, grey)
    return Shot({}, np.zeros(2), light, camera(yaw, pitch), toy_intrinsics().double().numpy())


def plain_person(model: Model, style: str = "bald") -> Person:
    person = Person.random(model.anatomy, np.random.default_rng(0))
    hair = person.hair._replace(style=style, beard=0.0, recession=0.0, temples=0.0, crown=0.0)
    return person._replace(weights={}, hair=hair)


def test_the_model_is_read_with_its_parts_masks_and_targets(model):
    anatomy = model.anatomy
    assert set(anatomy.part) == {GROUPS["body"], GROUPS["helper-l-eye"], GROUPS["helper-r-eye"]}
    lips = anatomy.rest[(anatomy.masks["lips"] > 0.5) & (anatomy.part == SKIN)]
    assert (np.abs(lips - (0, 6.6, 1.25)) < (0.25, 0.17, 0.2)).all() and len(lips) > 10
    assert not any(name.startswith("breast") for name in anatomy.rows)
    name = target_names()[5]
    moved = anatomy.offsets({name: 0.5, target_names()[6]: 0.0})
    (changed,) = np.nonzero(np.abs(moved).sum(1))
    np.testing.assert_allclose(moved[changed], [[0.005, 0, -0.01], [0, 0.005, 0]], atol=1e-6)


def test_triangles_face_outward_after_some_are_cut(model):
    anatomy = model.anatomy
    skin = anatomy.triangles[(anatomy.part[anatomy.triangles] == SKIN).all(axis=1)]
    a, b, c = (anatomy.rest[skin] - CENTER).swapaxes(0, 1)
    volume = np.einsum("fc,fc->f", a, np.cross(b, c)) / 6
    assert (volume > -1e-9).all()
    assert volume.sum() == pytest.approx(4 / 3 * math.pi * RADII.prod(), rel=0.02)
    normals = vertex_normals(anatomy.rest, anatomy.triangles)
    outward = (anatomy.rest - CENTER)[anatomy.part == SKIN] / RADII**2
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    assert np.quantile((normals[anatomy.part == SKIN] * outward).sum(1), 0.02) > 0.98


def test_depth_is_the_distance_of_the_head(model):
    portrait = photograph(model, plain_person(model), plain_shot(), 64)
    # At the middle of the picture the front of the ellipsoid, as high as the world's origin.
    front = RADII[2] * math.sqrt(1 - ((ORIGIN[1] - CENTER[1]) / RADII[1]) ** 2)
    expected = RADIUS - (CENTER[2] + front - ORIGIN[2]) * SCALE
    assert portrait.depth[31:33, 31:33].mean() == pytest.approx(expected, abs=2e-3)
    assert (portrait.depth[0] == BACKGROUND_DEPTH).all() and (portrait.coverage[0] == 0).all()
    share = math.pi * RADII[0] * RADII[1] * (SCALE * toy_intrinsics()[0, 0].item() / RADIUS) ** 2
    assert portrait.coverage.mean() == pytest.approx(share, rel=0.05)


def test_the_eyes_turn_with_the_camera(model):
    """Pictures from left and right of a symmetric head in symmetric light are mirror images."""
    person = plain_person(model)
    person = person._replace(hair=person.hair._replace(brow_density=0.0))
    left, right = (photograph(model, person, plain_shot(yaw), 48) for yaw in (-25, 25))
    np.testing.assert_allclose(left.depth, right.depth[:, ::-1], atol=0.02)
    assert np.abs(left.coverage - right.coverage[:, ::-1]).mean() < 5e-3
    front = photograph(model, person, plain_shot(), 48)
    assert np.abs(left.image - front.image).mean() > 2e-3


@pytest.mark.parametrize("style", STYLES)
def test_hair_lies_on_the_head_and_leaves_the_face_free(model, style):
    person, anatomy = plain_person(model, style), model.anatomy
    normals = vertex_normals(anatomy.rest, anatomy.triangles)
    brows, *hair = grow_hair(person.hair, anatomy, model.regions, anatomy.rest, normals)
    assert len(hair) == {"bald": 0, "bun": 2, "ponytail": 2}.get(style, 1)
    for strands in (brows, *hair):
        assert np.isfinite(strands.points).all() and (strands.widths > 0).all()
        assert ((strands.color > 0) & (strands.color < 1)).all()
    for strands in hair[:1]:
        inside = np.linalg.norm((strands.points - CENTER) / RADII, axis=-1) < 0.93
        assert inside.mean() < 0.02
        x, y, z = np.moveaxis(strands.points, -1, 0)
        on_the_face = (np.abs(x) < 0.4) & (z > 0.8) & (y > 6.5) & (y < 7.3)
        assert on_the_face.mean() < 0.005


def test_longer_hair_covers_more(model):
    covered = [
        photograph(model, plain_person(model, style), plain_shot(), 32).coverage.sum()
        for style in ("bald", "short", "long")
    ]
    assert covered == sorted(covered) and covered[2] > 1.1 * covered[0]


def test_what_lies_behind_something_is_in_its_shadow():
    sheet = np.array([[-0.2, 0.3, -0.2], [-0.2, 0.3, 0.2], [0.2, 0.3, -0.2]], np.float32)
    empty = Strands(np.zeros((0, 2, 3), np.float32), np.zeros((0, 2)), np.zeros((0, 2, 3)))
    shapes = Shapes(sheet, np.array([[0, 1, 2]]), [empty])
    shadows = shadow_map(shapes, np.array([0.0, 1.0, 0.0]), 128)
    points = np.array([[-0.1, 0, -0.1], [-0.1, 0.4, -0.1], [0.3, 0, 0]], np.float32)
    np.testing.assert_allclose(shadows.visible(points, 0.01), [0, 1, 1])


def test_people_are_many_and_each_can_be_drawn_again(model):
    people = [Person.random(model.anatomy, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    same, again, other = (photograph(model, person, plain_shot(), 24).image for person in people)
    assert (same == again).all() and np.abs(same - other).mean() > 0.01
    styles = {
        Person.random(model.anatomy, np.random.default_rng(seed)).hair.style for seed in range(300)
    }
    assert styles == set(STYLES)


def test_a_set_is_the_same_whatever_the_number_of_processes(wheel, tmp_path):
    for workers, name in ((1, "one.zip"), (3, "three.zip")):
        run("--dest", tmp_path / name, "--wheel", wheel, "--kind", "wild", "--count", 5,
            "--resolution", 16, "--workers", workers)  # fmt: skip
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "three.zip").read_bytes()
    run("--dest", tmp_path / "other.zip", "--wheel", wheel, "--kind", "wild", "--count", 5,
        "--resolution", 16, "--seed", 1)  # fmt: skip
    assert (tmp_path / "one.zip").read_bytes() != (tmp_path / "other.zip").read_bytes()


def test_the_truth_is_in_the_toy_sets_format(wheel, tmp_path):
    path = tmp_path / "heads.zip"
    run("--dest", path, "--wheel", wheel, "--count", 7, "--resolution", 32, "--per-identity", 3)
    dataset = ImageDataset(path)
    assert len(dataset) == 7 and dataset.resolution == 32 and dataset.all_intrinsics is None
    truth = load_ground_truth(path)
    assert truth.identity.dtype == np.int64
    assert len(set(truth.identity)) == 3 and truth.identity[0] == truth.identity[2]
    torch.testing.assert_close(
        toy_cameras(torch.from_numpy(truth.pose)).float(), torch.from_numpy(truth.cam2world)
    )
    with zipfile.ZipFile(path) as archive, np.load(archive.open("ground_truth.npz")) as arrays:
        np.testing.assert_allclose(arrays["intrinsics"], [toy_intrinsics().numpy()] * 7)
    for image, depth in zip(dataset, truth.depth, strict=True):
        white = (image == 255).all(dim=0).numpy()
        assert depth.dtype == np.float16 and not (white & (depth < 3)).any()
        assert (depth[12:20, 12:20] < RADIUS).all()


def test_labels_are_the_true_cameras(wheel, tmp_path):
    path = tmp_path / "heads.zip"
    run("--dest", path, "--wheel", wheel, "--kind", "wild", "--count", 3, "--resolution", 32,
        "--labels")  # fmt: skip
    dataset, truth = ImageDataset(path), load_ground_truth(path)
    torch.testing.assert_close(dataset.all_cam2world, torch.from_numpy(truth.cam2world))
    with zipfile.ZipFile(path) as archive, np.load(archive.open("ground_truth.npz")) as arrays:
        np.testing.assert_allclose(dataset.all_intrinsics.numpy(), arrays["intrinsics"], rtol=1e-6)


def test_wild_pictures_differ_from_studio_ones_in_backdrop_and_crop(model):
    settings = Settings("studio", 32, 0, (0.4, 0.2), 2)
    shots = [[take(i, model, settings._replace(kind=kind)) for i in range(8)]
             for kind in ("studio", "wild")]  # fmt: skip
    corners = [
        np.stack([np.asarray(Image.open(io.BytesIO(shot.png)))[0, 0] for shot in row])
        for row in shots
    ]
    assert (corners[0] == 255).all() and len(np.unique(corners[1], axis=0)) > 5
    assert len({float(shot.intrinsics[0, 0]) for shot in shots[0]}) == 1
    focal, column, _ = np.stack([shot.intrinsics[0] for shot in shots[1]]).T[[0, 2, 1]]
    assert (np.abs(np.log(focal / toy_intrinsics()[0, 0].item())) < 0.08).all()
    assert len(set(focal)) == 8 and 0 < np.abs(column - 0.5).max() < 0.04
    assert [shot.truth.identity for shot in shots[0]] == [s.truth.identity for s in shots[1]]


def test_without_noise_the_same_wild_pictures_are_made(wheel, tmp_path):
    common = ("--wheel", wheel, "--kind", "wild", "--count", 4, "--resolution", 32)
    run("--dest", tmp_path / "noisy.zip", *common)
    run("--dest", tmp_path / "clean.zip", *common, "--noise", 0)
    noisy, clean = (
        torch.stack(list(ImageDataset(tmp_path / name))).double()
        for name in ("noisy.zip", "clean.zip")
    )
    noise = (noisy - clean)[(noisy > 20) & (noisy < 235)]
    assert abs(noise.mean()) < 0.2 and noise.std() == pytest.approx(0.012 * 255, rel=0.05)
    truths = [load_ground_truth(tmp_path / name) for name in ("noisy.zip", "clean.zip")]
    np.testing.assert_array_equal(*(truth.depth for truth in truths))
    np.testing.assert_array_equal(*(truth.cam2world for truth in truths))


def test_turned_photographs_are_of_one_moment_from_cameras_that_orbit_it(model):
    settings = Settings("studio", 32, 0, (0.4, 0.2), 1)
    plain = [take(i, model, settings) for i in range(2)]
    turned = [take(i, model, settings._replace(turns=(0, 30))) for i in range(4)]
    assert [shot.png for shot in turned[::2]] == [shot.png for shot in plain]
    assert len({shot.truth.identity.item() for shot in turned}) == 2
    cameras = torch.from_numpy(np.stack([shot.truth.cam2world for shot in turned]))
    torch.testing.assert_close(cameras[1::2], orbit(cameras[::2], 30, PIVOT))


def test_depths_of_large_pictures_are_reduced(model):
    settings = Settings("studio", 128, 0, (0.0, 0.0), 1)
    assert take(0, model, settings).truth.depth.shape == (64, 64)
    assert take(0, model, settings._replace(resolution=48)).truth.depth.shape == (48, 48)


def test_poses_spread_as_asked():
    rng = np.random.default_rng(0)
    h, v = torch.stack([random_pose(rng, (0.3, 0.1)) for _ in range(2000)]).numpy().T
    pitch = np.arcsin(1 - 2 * v / math.pi)
    assert (h - math.pi / 2).std() == pytest.approx(0.3, rel=0.1)
    assert pitch.std() == pytest.approx(0.1, rel=0.1)


def test_expressions_are_small_and_even_with_chance():
    rng = np.random.default_rng(0)
    faces = [random_expression(rng) for _ in range(200)]
    assert all(0 <= weight <= 1 for face in faces for weight in face.values())
    assert len({frozenset(face) for face in faces}) == len(EXPRESSIONS)


def test_backdrops_are_colors_of_all_kinds():
    pictures = [random_backdrop(np.random.default_rng(seed), 24) for seed in range(30)]
    assert all(p.shape == (24, 24, 3) and p.min() >= 0 and p.max() <= 1 for p in pictures)
    assert np.std([p.mean() for p in pictures]) > 0.05
    assert np.mean([p.std(axis=(0, 1)).mean() for p in pictures]) > 0.03


def test_another_file_than_the_wheel_is_an_error_in_one_line(tmp_path):
    other = tmp_path / "other.whl"
    other.write_bytes(b"not it")
    message = run("--dest", tmp_path / "heads.zip", "--wheel", other, code=1)
    assert "other.whl is not" in message and "\n" not in message.strip()
    assert not (tmp_path / "heads.zip").exists()


def test_a_folder_that_is_missing_is_an_error_in_one_line(wheel, tmp_path):
    message = run("--dest", tmp_path / "no" / "heads.zip", "--wheel", wheel, code=1)
    assert "there is no folder" in message and "Traceback" not in message


def test_a_rasterizer_that_does_not_exist_is_an_error_in_one_line(wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("NEURAL_RENDERER_OPS", "fast")
    message = run("--dest", tmp_path / "heads.zip", "--wheel", wheel, code=1)
    assert "'fast'" in message and "NEURAL_RENDERER_OPS" in message


@pytest.mark.parametrize("option", ["--yaw-std", "--pitch-std", "--noise"])
def test_spreads_are_finite(wheel, tmp_path, option):
    run("--dest", tmp_path / "heads.zip", "--wheel", wheel, option, "nan", code=2)


def test_without_a_network_the_error_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UserError, match="--wheel"):
        find_wheel()
    assert list((tmp_path / "wheels").iterdir()) == []


def test_a_wheel_in_the_cache_is_taken(wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / WHEEL).write_bytes(wheel.read_bytes())
    assert find_wheel().read_bytes() == wheel.read_bytes()


def test_a_run_that_is_stopped_leaves_nothing(wheel, tmp_path):
    script = (
        "from recipes.human_heads import anatomy, __main__ as command;"
        f"anatomy.SHA256 = {anatomy_module.SHA256!r};"
        f"command.main(['--dest', 'heads.zip', '--wheel', {str(wheel)!r}, '--count', '5000'])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: list(tmp_path.iterdir()) or process.poll() is not None)
    time.sleep(0.5)  # into the work
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_the_sample_beside_the_tests_is_whole():
    dataset, truth = ImageDataset(SAMPLE), load_ground_truth(SAMPLE)
    assert len(dataset) == len(truth.pose) and SAMPLE.stat().st_size < 300_000
    for image, depth in zip(dataset, truth.depth, strict=True):
        assert ((image < 255).any(dim=0).numpy() | (depth > 3)).all()


@pytest.fixture
def real(monkeypatch) -> Anatomy:
    path = cache_dir("wheels") / WHEEL
    if not path.exists():
        pytest.skip(f"{WHEEL} is not in the cache")
    monkeypatch.setattr(anatomy_module, "SHA256", REAL_SHA256)
    return read_anatomy(path)


def test_every_target_that_people_and_moods_ask_for_exists(real):
    rng = np.random.default_rng(0)
    for _ in range(50):
        person = Person.random(real, rng)
        assert set(person.weights) | set(random_expression(rng)) <= set(real.rows)
        assert sum(name.startswith("nose/") for name in person.weights) > 10


def test_real_heads_fill_the_frame_and_look_at_the_camera(real):
    model = Model(real, find_regions(real))
    for seed in range(12):
        person = Person.random(real, np.random.default_rng(seed))
        portrait = photograph(model, person, plain_shot(), 64)
        assert 0.3 < portrait.coverage.mean() < 0.85
        # The nose is nearer than the eyes' corners and the cheeks.
        nose = portrait.depth[30:44, 28:36].min()
        assert nose < portrait.depth[30:44, [20, 43]].min()
        assert RADIUS - 0.4 < nose < RADIUS
