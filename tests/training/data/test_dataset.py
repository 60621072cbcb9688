import math
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib import UserError
from tests.training.data.numbered import LABEL, numbers, save_numbered, write_labels
from training.cameras import cam2world_from_pose, pose_from_cam2world
from training.data.dataset import ImageDataset
from training.data.writer import dataset_writer, png_bytes


def pixel(dataset: ImageDataset, index: int = 0) -> list[int]:
    return dataset[index][:, dataset.resolution // 2, dataset.resolution // 2].tolist()


@pytest.fixture
def photo(tmp_path) -> Path:
    """A folder with one 40 x 20 image: left quarter red, middle green, right quarter blue."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10, 0] = pixels[:, 10:30, 1] = pixels[:, 30:, 2] = 255
    (tmp_path / "photo").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photo" / "wide.png")
    return tmp_path / "photo"


# Reading


def test_folder_and_zip_give_the_same_images(tmp_path):
    folder = tmp_path / "set"
    (folder / "deep" / "er").mkdir(parents=True)
    save_numbered(folder, 3)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(folder / "deep" / "er" / "x.PNG")
    (folder / "notes.txt").write_text("not an image")
    (folder / "._000.png").write_text("a resource fork")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    from_folder, from_zip = ImageDataset(folder), ImageDataset(tmp_path / "set.zip")
    assert len(from_folder) == len(from_zip) == 4
    assert from_folder.name == from_zip.name == "set"
    assert [pixel(from_zip, i)[0] for i in range(4)] == [0, 1, 2, 9]
    assert all(torch.equal(a, b) for a, b in zip(from_folder, from_zip, strict=True))


def test_center_crop_keeps_the_middle(photo):
    dataset = ImageDataset(photo, crop="center")
    assert dataset.resolution == 20
    assert dataset[0].dtype == torch.uint8 and dataset[0].shape == (3, 20, 20)
    assert (dataset[0] == torch.tensor([0, 255, 0])[:, None, None]).all()


def test_padding_keeps_everything_on_white(photo):
    image = ImageDataset(photo, crop="pad")[0]
    assert image.shape == (3, 40, 40)
    assert (image[:, :10] == 255).all() and (image[:, 30:] == 255).all()
    assert image[:, 20, 5].tolist() == [255, 0, 0] and image[:, 20, 35].tolist() == [0, 0, 255]


def test_resizing_is_lanczos(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    expected = Image.fromarray(noise).resize((16, 16), Image.Resampling.LANCZOS)
    image = ImageDataset(tmp_path, resolution=16)[0]
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_mirror_appends_flipped_copies(tmp_path):
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    dataset = ImageDataset(tmp_path, mirror=True)
    assert len(dataset) == 4 and len(list(dataset)) == 4
    for index in range(2):
        assert torch.equal(dataset[index + 2], dataset[index].flip(-1))


def test_max_images_takes_a_seeded_subset(tmp_path):
    save_numbered(tmp_path, 30)

    def chosen(**options) -> list[int]:
        return numbers([ImageDataset(tmp_path, **options)])

    assert len(set(chosen(max_images=10))) == 10
    assert chosen(max_images=10) == chosen(max_images=10) != chosen(max_images=10, seed=1)
    assert chosen(max_images=99) == chosen() == list(range(30))
    assert len(chosen(max_images=10, mirror=True)) == 20


# Labels


def test_intrinsics_come_from_labels_and_follow_the_mirror(tmp_path):
    save_numbered(tmp_path, 2)
    other = [*LABEL[:16], 5, 0, 0.5, 0, 5, 0.5, 0, 0, 1]
    write_labels(tmp_path, [["001.png", other], ["000.png", LABEL]])
    intrinsics = ImageDataset(tmp_path, mirror=True).all_intrinsics
    assert intrinsics.shape == (4, 3, 3) and intrinsics.dtype == torch.float32
    expected = torch.tensor([[4.2, 0.1, 0.4], [0, 4.3, 0.55], [0, 0, 1]])
    torch.testing.assert_close(intrinsics[0], expected)
    expected = torch.tensor([[4.2, -0.1, 0.6], [0, 4.3, 0.55], [0, 0, 1]])
    torch.testing.assert_close(intrinsics[2], expected)
    assert intrinsics[1, 0, 0] == intrinsics[3, 0, 0] == 5

    # The mirrored camera projects the mirrored point to the mirrored pixel.
    point = torch.tensor([0.05, 0.02, 1.0])
    x, y = (intrinsics[0] @ point)[:2]
    mirrored = intrinsics[2] @ (point * torch.tensor([-1.0, 1, 1]))
    torch.testing.assert_close(mirrored[:2], torch.stack([1 - x, y]))


def test_cameras_of_mirrored_images_are_mirrored(tmp_path):
    save_numbered(tmp_path, 1)
    pose = torch.tensor([[1.2, 1.4]])
    cam2world = cam2world_from_pose(pose, 2.7, (0, 0, 0))
    write_labels(tmp_path, [["000.png", [*cam2world.flatten().tolist(), *LABEL[16:]]]])
    found = ImageDataset(tmp_path, mirror=True).all_cam2world
    poses = pose_from_cam2world(found, mean_h=math.pi / 2)
    expected = torch.tensor([[1.2, 1.4], [math.pi - 1.2, 1.4]])
    torch.testing.assert_close(poses, expected, atol=1e-5, rtol=0)


def test_labels_follow_the_subset(tmp_path):
    save_numbered(tmp_path, 12)
    write_labels(tmp_path, [[f"{i:03d}.png", [*LABEL[:16], i + 1, *LABEL[17:]]] for i in range(12)])
    dataset = ImageDataset(tmp_path, max_images=5)
    assert dataset.all_intrinsics[:, 0, 0].tolist() == [i + 1 for i in numbers([dataset])]


@pytest.mark.parametrize("labels", [None, "absent"])
def test_sets_without_labels_have_no_intrinsics(tmp_path, labels):
    save_numbered(tmp_path, 1)
    if labels is None:
        write_labels(tmp_path, None)
    assert ImageDataset(tmp_path).all_intrinsics is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["000.png", LABEL]], "no label for image 001.png"),
        ([["000.png", LABEL], ["001.png", LABEL[:24]]], "label of 001.png is not a list of 25"),
        ([["000.png", LABEL], ["001.png", [*LABEL[:24], "1"]]], "label of 001.png is not"),
        ([["000.png", LABEL], ["001.png", [*LABEL[:24], float("nan")]]], "label of 001.png is not"),
        ([1, 2], "dataset.json is not of the form"),
        ("nonsense", "dataset.json is not of the form"),
    ],
)
def test_bad_labels_are_named(tmp_path, labels, message):
    write_labels(save_numbered(tmp_path, 2), labels)
    with pytest.raises(UserError, match=message):
        ImageDataset(tmp_path)


def test_labeled_images_must_be_square(photo):
    write_labels(photo, [["wide.png", LABEL]])
    with pytest.raises(UserError, match="wide.png has a camera label but is 40 x 20, not square"):
        ImageDataset(photo, resolution=8)[0]


def test_ground_truth_is_never_read(tmp_path):
    contents = []
    for truth in (b"truth", b"\0corrupt"):
        with dataset_writer(tmp_path / "set.zip") as writer:
            writer.add_image(png_bytes(Image.new("RGB", (8, 8), (5, 6, 7))))
            writer.add_file("ground_truth.npz", truth)
        data = bytearray((tmp_path / "set.zip").read_bytes())
        if truth != b"truth":  # break the member's checksum too: reading it would raise
            data[data.index(truth)] ^= 1
        (tmp_path / "set.zip").write_bytes(data)
        contents.append(ImageDataset(tmp_path / "set.zip")[0])
    assert torch.equal(*contents)


# Bad data


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_missing_and_empty_and_foreign_paths(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("not a zip")
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    for name, message in [
        ("absent", "no such data set"),
        ("empty", "no images in"),
        ("empty.zip", "no images in"),
        ("text.zip", "neither a folder nor a readable zip"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            ImageDataset(tmp_path / name)
        assert str(tmp_path / name) in one_line(error)


@pytest.mark.parametrize("options", [{"crop": "left"}, {"max_images": 0}])
def test_bad_options(tmp_path, options):
    with pytest.raises(UserError):
        ImageDataset(save_numbered(tmp_path, 1), **options)


def test_corrupt_zip_member_is_named(tmp_path):
    with dataset_writer(tmp_path / "set.zip") as writer:
        name = writer.add_image(png_bytes(Image.new("RGB", (8, 8))))
    data = bytearray((tmp_path / "set.zip").read_bytes())
    data[80] ^= 255
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(UserError, match=name):
        ImageDataset(tmp_path / "set.zip", resolution=8)[0]


def test_dataset_with_an_open_zip_can_be_pickled(tmp_path):
    with dataset_writer(tmp_path / "set.zip") as writer:
        writer.add_image(png_bytes(Image.new("RGB", (8, 8), (5, 6, 7))))
    dataset = ImageDataset(tmp_path / "set.zip")
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0], dataset[0])
