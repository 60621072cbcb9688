import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from dataset_tool import main as dataset_tool
from dnnlib import UserError
from recipes import torcs_cars
from recipes.torcs_cars import Mesh
from training.cameras import degrees_from_pose, pose_from_degrees
from training.data.dataset import ImageDataset
from training.data.ground_truth import load_ground_truth
from training.data.toy_heads import RADIUS, toy_cameras

# A square in the plane z = 0 as a polygon, the same as a strip, and a line, which draws nothing.
SQUARE = """AC3Db
MATERIAL "paint" rgb 1 1 1 amb 1 1 1 emis 0 0 0 spec 0 0 0 shi 0 trans 0
OBJECT world
kids 1
OBJECT poly
name "square"
texture "square.rgb" base
texture "shadow.rgb" shad
numvert 4
-0.2 -0.2 0
0.2 -0.2 0
0.2 0.2 0
-0.2 0.2 0
numsurf 3
SURF 0x20
mat 0
refs 4
0 0 0
1 1 0
2 1 1
3 0 1
SURF 0x14
mat 0
refs 4
0 0 0 0 0
1 1 0 0 0
3 0 1 0 0
2 1 1 0 0
SURF 0x2
mat 0
refs 2
0 0 0
1 1 1
kids 0
"""

XML = """<params>
<section name="Front Axle"><attnum name="xpos" val="1.2"/></section>
<section name="Rear Axle"><attnum name="xpos" val="-1.2"/></section>
{}
</params>"""
XML_WHEEL = """<section name="{} Right Wheel">
<attnum name="ypos" unit="m" val="-0.8"/><attnum name="rim diameter" unit="in" val="20"/>
<attnum name="tire width" unit="mm" val="200"/><attnum name="tire height-width ratio" val="0.5"/>
<attnum name="ride height" unit="mm" val="100"/></section>"""


@pytest.fixture
def square(tmp_path) -> Mesh:
    path = tmp_path / "square.ac"
    path.write_text(SQUARE)
    return torcs_cars.read_ac3d(path)


@pytest.fixture
def source(tmp_path) -> Path:
    """One car, a box 4 x 1 x 2 meters of strips, with a second paint job."""
    folder = tmp_path / "torcs" / "cars" / "box"
    driver = tmp_path / "torcs" / "drivers" / "somebody" / "0"
    folder.mkdir(parents=True)
    driver.mkdir(parents=True)
    corners = [(x, y, z) for x in (-2, 2) for y in (0, 1) for z in (-1, 1)]
    vertices = "\n".join(f"{x} {y} {z} {x / 2} {y * 2 - 1} {z}" for x, y, z in corners)
    sides = [(0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 4, 5), (2, 3, 6, 7), (0, 2, 4, 6), (1, 3, 5, 7)]
    surfaces = "\n".join(
        "SURF 0x14\nmat 0\nrefs 4\n" + "\n".join(f"{corner} 0.5 0.5" for corner in side)
        for side in sides
    )
    (folder / "box.acc").write_text(
        f'AC3Db\nOBJECT poly\ntexture "box.rgb" base\nnumvert 8\n{vertices}\nnumsurf 6\n{surfaces}'
    )
    (folder / "box-lod1.acc").write_text("a coarser one, not to be read")
    (folder / "box.xml").write_text(XML.format("".join(map(XML_WHEEL.format, ("Front", "Rear")))))
    for path in (folder / "box.rgb", folder / "tex-wheel.rgb", driver / "box.rgb"):
        Image.new("RGBA", (8, 8), (200, 100, 50, 255)).save(path, format="sgi")
    return tmp_path / "torcs"


def camera(yaw: float, pitch: float) -> np.ndarray:
    pose = pose_from_degrees(torch.tensor([[yaw, pitch]], dtype=torch.float64), math.pi / 2)
    return toy_cameras(pose)[0].numpy()


def test_polygons_and_strips_become_the_same_triangles(square):
    assert square.names == ("square.rgb",)
    assert square.positions.shape == (4, 3, 3)
    np.testing.assert_allclose(square.uv, square.positions[..., :2] / 0.4 + 0.5)
    a, b, c = square.positions.swapaxes(0, 1)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2
    np.testing.assert_allclose(areas, 0.08)
    np.testing.assert_allclose(np.abs(square.normals), np.broadcast_to([0, 0, 1], (4, 3, 3)))


@pytest.mark.parametrize(
    "text",
    ["", "solid teapot", SQUARE[: SQUARE.index("0.2 0.2 0")], SQUARE.replace("3 0 1", "9 0 1")],
)
def test_a_file_that_is_broken_is_named(tmp_path, text):
    path = tmp_path / "broken.ac"
    path.write_text(text)
    with pytest.raises(UserError, match="broken.ac"):
        torcs_cars.read_ac3d(path)


def test_a_picture_shows_the_texture_upright_and_knows_its_distance(square):
    texels = np.zeros((2, 2, 3), np.uint8)
    texels[:] = [[(200, 0, 0), (0, 200, 0)], [(0, 0, 200), (200, 200, 0)]]
    picture = torcs_cars.photograph(square, [texels], camera(0, 0), 32)
    assert (picture.image[0] == 255).all()
    corners = picture.image[[10, 10, 22, 22], [10, 22, 10, 22]].reshape(2, 2, 3)
    np.testing.assert_array_equal(corners > 0, texels > 0)
    assert picture.depth[16, 16] == pytest.approx(RADIUS, abs=1e-3)
    # A focal length of 4.26 widths makes 0.4 at a distance of 2.7 fill 0.632 of the width.
    assert (picture.image[16] < 255).any(-1).sum() == pytest.approx(0.632 * 32, abs=1)


def test_both_sides_of_a_face_are_drawn_and_lit(square):
    gray = np.full((2, 2, 3), 200, np.uint8)
    front, back = (
        torcs_cars.photograph(square, [gray], camera(yaw, 0), 16).image[8, 8] for yaw in (0, 180)
    )
    assert (front > back).all()  # the lamp is in front
    assert back[0] == round(200 * torcs_cars.AMBIENT)


def test_a_car_stands_on_its_wheels_in_the_frame_from_every_side(source):
    (car,) = torcs_cars.find_cars(source)
    assert [path.name for path in car.liveries] == ["box", "0"]
    size = np.ptp(car.mesh.positions.reshape(-1, 3), axis=0)
    scale = torcs_cars.DIAGONAL / math.hypot(4, 2)
    assert size[1] == pytest.approx(1.1 * scale)  # the body's meter and 100 mm below it
    gray = [np.full((2, 2, 3), 100, np.uint8)] * 2
    for yaw in (-torcs_cars.YAW_LIMIT, 0, torcs_cars.YAW_LIMIT):
        image = torcs_cars.photograph(car.mesh, gray, camera(yaw, torcs_cars.PITCH_MEAN), 32).image
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (border == 255).all() and (image < 255).any()


def test_the_nose_comes_round_from_the_front_view_to_the_side_view(source):
    (car,) = torcs_cars.find_cars(source)
    gray = [np.full((2, 2, 3), 100, np.uint8)] * 2
    front, between, side = (
        (torcs_cars.photograph(car.mesh, gray, camera(yaw, 0), 64).image < 255).any((0, 2)).sum()
        for yaw in (-45, 0, 45)
    )
    assert front < 0.6 * side and front < between


def test_poses_spread_about_a_view_from_above():
    rng = np.random.default_rng(0)
    poses = torch.from_numpy(np.stack([torcs_cars.sample_pose(rng) for _ in range(2000)]))
    yaw, pitch = degrees_from_pose(poses, math.pi / 2).numpy().T
    assert abs(yaw.mean()) < 2 and yaw.std() == pytest.approx(torcs_cars.YAW_STD, rel=0.1)
    assert pitch.mean() == pytest.approx(torcs_cars.PITCH_MEAN, abs=1)
    assert np.abs(yaw).max() <= torcs_cars.YAW_LIMIT + 1e-6
    assert pitch.min() >= torcs_cars.PITCH_MEAN - torcs_cars.PITCH_LIMIT - 1e-6


def test_told_labels_are_the_true_cameras(source, tmp_path):
    cars, data = tmp_path / "cars", tmp_path / "cars.zip"
    arguments = ["--source", source, "--dest", cars, "--count", 3, "--resolution", 16, "--labels"]
    assert CliRunner().invoke(torcs_cars.main, [str(a) for a in arguments]).exit_code == 0
    arguments = ["convert", "--source", cars, "--dest", data, "--resolution", 8]
    assert CliRunner().invoke(dataset_tool, [str(a) for a in arguments]).exit_code == 0
    np.testing.assert_array_equal(
        ImageDataset(data).all_cam2world, load_ground_truth(data).cam2world
    )


def test_the_recipe_makes_what_dataset_tool_converts_and_makes_it_again(source, tmp_path):
    folders = [tmp_path / "cars", tmp_path / "again"]
    for folder in folders:
        arguments = ["--source", source, "--dest", folder, "--count", 3, "--resolution", 16]
        result = CliRunner().invoke(torcs_cars.main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
    pictures = [[path.read_bytes() for path in sorted(f.glob("*.png"))] for f in folders]
    assert pictures[0] == pictures[1] and len(set(pictures[0])) == 3

    data = tmp_path / "cars.zip"
    arguments = ["convert", "--source", folders[0], "--dest", data, "--resolution", 8]
    assert CliRunner().invoke(dataset_tool, [str(a) for a in arguments]).exit_code == 0
    dataset = ImageDataset(data)
    assert len(dataset) == 3 and dataset.resolution == 8 and dataset.all_intrinsics is None
    assert load_ground_truth(data).pose.shape == (3, 2)


def test_a_folder_without_cars_is_an_error(tmp_path):
    result = CliRunner().invoke(
        torcs_cars.main, ["--source", str(tmp_path), "--dest", str(tmp_path / "cars")]
    )
    assert result.exit_code != 0 and "no cars" in result.output


def test_pictures_of_two_sets_are_never_mixed(source, tmp_path):
    left_over = tmp_path / "cars" / "dataset.json"
    left_over.parent.mkdir()
    left_over.write_text("{}")
    arguments = ["--source", source, "--dest", left_over.parent, "--count", 3]
    result = CliRunner().invoke(torcs_cars.main, [str(argument) for argument in arguments])
    assert result.exit_code != 0 and "is not empty" in result.output
    assert list(left_over.parent.iterdir()) == [left_over]
