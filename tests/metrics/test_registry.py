"""Metrics by name, from a model and photographs whose scores are known."""

import dataclasses
import json
import math
from collections.abc import Sequence

import pytest
import torch

from dnnlib import UserError
from metrics import detectors, registry, scores
from metrics.context import ImageSet, Views
from metrics.quality import QualityName
from metrics.registry import compute, parse_names
from metrics.result import MetricResult
from metrics.statistics import Moments
from tests.metrics.fakes import (
    FakeModel,
    colored_noise,
    directions,
    make_context,
    numbered_images,
    save_stand_in,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    return save_stand_in(tmp_path_factory.mktemp("detector") / "standin.pt")


@pytest.fixture
def inception(stand_in, monkeypatch):
    """The stand-in, believed to be the field's file."""
    monkeypatch.setattr(detectors, "INCEPTION_SHA256", detectors._sha256(stand_in))
    return str(stand_in)


@pytest.fixture
def images():
    return {"real": colored_noise(300, seed=0), "fake": colored_noise(200, seed=1, mean=120)}


def image_context(images, detector, **changes):
    model = FakeModel(images["fake"], directions(200))
    return make_context(model, images["real"], detector=detector, **changes)


@pytest.mark.parametrize(
    "name",
    [
        "fid50k_full",
        "fid50k",
        "fid5k_full",
        "fid0.2k_full",
        "kid50k_full",
        "pr50k3_full",
        "is50k",
        "fd50k_full-effnet",
        "kd2.5k-effnet",
        "pr50k3_full-effnet",
        "pr50k3_full-inception",
        "is50k-effnet",
        "relief",
        "depth_error",
        "identity_consistency-effnet",
    ],
)
def test_names_that_are_metrics(name):
    registry.check_names([name])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fid50k_ful", r"\(did you mean fid50k_full\?\)"),
        ("fid50k_full-effnet", r"\(did you mean fd50k_full-effnet\?\)"),  # FID is Inception's
        ("pose-error", r"\(did you mean pose_error\?\)"),
        ("fd50k_full", ""),  # of which features?
        ("pr50k_full", ""),  # of how many neighbors?
        ("is50k_full", ""),
        ("fid3k3", ""),
        ("fid0k", ""),
        ("beauty", ""),
    ],
)
def test_names_that_are_not(name, hint):
    with pytest.raises(UserError, match=f"unknown metric '{name}'.*{hint}: there are .*relief"):
        registry.check_names([name])


def test_names_tell_the_detector_and_the_count():
    def reported_name(name, detector, count=None):
        parsed = QualityName.parse(name)
        return dataclasses.replace(parsed, count=count or parsed.count).reported_name(detector)

    assert reported_name("fid50k_full", "inception") == "fid50k_full"
    assert reported_name("fid50k_full", "inception", 5000) == "fid5k_full"
    assert reported_name("fid50k_full", "inception", 64) == "fid0.064k_full"
    assert reported_name("fid50k_full", "effnet") == "fd50k_full-effnet"
    assert reported_name("kid50k_full", "vgg16-0a1b2c3d") == "kd50k_full-vgg16-0a1b2c3d"
    assert reported_name("pr50k3_full", "inception") == "pr50k3_full-inception"
    assert reported_name("is50k", "effnet") == "is50k-effnet"


def test_fid_is_the_distance_of_the_features(images, inception):
    result = compute("fid50k_full", image_context(images, inception, count=200))
    detector = detectors.load_detector(inception, torch.device("cpu"))
    moments = (Moments.of(detector.features(images[kind])) for kind in ("real", "fake"))
    assert result.name == "fid0.2k_full"
    assert result.values == {"fid0.2k_full": pytest.approx(scores.frechet_distance(*moments))}


def test_fid_of_the_photographs_themselves_is_zero(images, inception):
    same = {"real": images["real"], "fake": images["real"]}
    value = compute("fid0.3k_full", image_context(same, inception)).values["fid0.3k_full"]
    assert value < 1e-9
    other = compute("fid0.2k_full", image_context(images, inception)).values["fid0.2k_full"]
    assert other > 0.05


def test_numbers_of_another_detector_are_not_called_fid(images, stand_in):
    context = image_context(images, str(stand_in), count=200)
    for name, start in {
        "fid50k": "fd0.2k-standin-",
        "pr50k3_full": "pr0.2k3_full-standin-",
    }.items():
        result = compute(name, context)
        assert result.name.startswith(start)
        assert all(key.startswith(result.name) for key in result.values)


def test_every_quality_metric_reports_under_its_name(images, inception):
    context = image_context(images, inception, count=200)
    found = [compute(n, context) for n in ("fid50k", "kid50k_full", "pr50k3_full", "is50k")]
    keys = {key for result in found for key in result.values}
    assert keys == {
        "fid0.2k",
        "kid0.2k_full",
        "pr0.2k3_full-inception_precision",
        "pr0.2k3_full-inception_recall",
        "is0.2k_mean",
        "is0.2k_std",
    }
    assert all(math.isfinite(v) for result in found for v in result.values.values())


def test_full_means_all_photographs_and_plain_as_many_as_samples(images, inception):
    context = image_context(images, inception)
    full, plain = (compute(f"fid0.2k{kind}", context) for kind in ("_full", ""))
    assert full.values["fid0.2k_full"] != plain.values["fid0.2k"]


def test_statistics_of_photographs_are_kept_until_they_change(images, inception):
    class Counted:
        reads = 0

        def __len__(self):
            return len(images["real"])

        def __getitem__(self, i):
            Counted.reads += 1
            return images["real"][i]

    def score(fingerprint):
        context = image_context(images, inception, count=50)
        taken = context.all_images._replace(images=Counted(), fingerprint=fingerprint)
        context.all_images = taken
        return compute("fid50k_full", context).values["fid0.05k_full"]

    first = score("monday")
    assert Counted.reads == 300
    assert score("monday") == first and Counted.reads == 300
    assert score("tuesday") == first and Counted.reads == 600


def test_pose_error_is_that_of_the_discriminator():
    """It estimates poses of a mirrored, turned world, and is wrong by 3 degrees of yaw."""
    true = directions(200)
    turn = math.radians(3)
    sign = torch.where(torch.arange(200) % 2 == 0, 1.0, -1.0).double() * turn
    x, y, z = true.unbind(1)
    wrong = torch.stack(
        [x * sign.cos() + z * sign.sin(), y, z * sign.cos() - x * sign.sin()], dim=1
    )
    mirrored = wrong * torch.tensor([-1.0, 1, 1])
    context = make_context(FakeModel(numbered_images(200), mirrored), numbered_images(200), true)
    values = compute("pose_error", context).values
    assert values["pose_error_mirrored"] == 1
    assert values["pose_error"] == pytest.approx(3, abs=0.5)
    assert values["pose_error_yaw"] == pytest.approx(3, abs=0.5)
    assert values["pose_error_pitch"] < 0.5
    assert values["pose_error_yaw_correlation"] > 0.97
    assert values["pose_error_constant"] > 15


class ModelOfDiscs(FakeModel):
    """Its samples are the photographs' discs, of a depth that differs by `offset`."""

    def __init__(self, depths: torch.Tensor, true: torch.Tensor, offset: float):
        super().__init__(numbered_images(len(true)), true)
        self.depths, self.offset = depths, offset

    def views(self, indices: range, yaws: Sequence[float]) -> Views:
        depth = self.depths[list(indices), None, None] + self.offset
        unused = torch.empty(0)
        return Views(unused, depth.nan_to_num(9), depth.isfinite(), unused, unused)


@pytest.mark.parametrize("offset", [0.0, 0.05, -0.1])
def test_depth_error_is_the_distance_from_the_most_similar_surface(offset):
    """Discs whose radius tells the photograph, so that each has one that is most similar."""
    true = directions(40)
    away = torch.linspace(-1, 1, 32)
    radius = torch.linspace(0.3, 0.9, 20).repeat(2)[:, None, None]  # each in both halves
    depths = torch.where(away[:, None].hypot(away) < radius, 2 + radius, math.nan)
    order = ImageSet(numbered_images(40), "").choose(40)
    shuffled = torch.empty_like(depths)
    shuffled[torch.from_numpy(order)] = depths
    model = ModelOfDiscs(shuffled, true, offset)
    context = make_context(model, numbered_images(40), true, count=40, true_depths=shuffled)
    values = compute("depth_error", context).values
    assert values["depth_error"] == pytest.approx(abs(offset), abs=1e-6)
    assert values["depth_error_of_photographs"] == pytest.approx(0, abs=1e-6)


def test_depth_error_needs_depths():
    context = make_context(FakeModel(numbered_images(8), directions(8)), numbered_images(8))
    with pytest.raises(UserError, match="depths of this data set are not known"):
        compute("depth_error", context)


def test_shuffled_poses_are_as_bad_as_they_should_be():
    true = directions(200)
    shuffled = true[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    context = make_context(FakeModel(numbered_images(200), shuffled), numbered_images(200), true)
    values = compute("pose_error", context).values
    assert values["pose_error"] > values["pose_error_constant"]
    assert abs(values["pose_error_yaw_correlation"]) < 0.3


def test_pose_flip_consistency_is_asked_of_flipped_photographs():
    """The left of a photograph says its number, the right that of its mirror image's pose."""
    drawn = directions(100)
    drawn = torch.cat([drawn, drawn * torch.tensor([-1.0, 1, 1])])
    photographs = numbered_images(100).clone()
    photographs[..., 4:] += 100
    values = compute(
        "pose_flip_consistency", make_context(FakeModel(photographs, drawn), photographs)
    ).values
    assert values["pose_flip_consistency"] < 1e-3 < 15 < values["pose_flip_consistency_chance"]
    assert values["pose_flip_consistency_yaw_correlation"] == pytest.approx(1)


def test_pose_distribution_is_measured_after_alignment():
    true = directions(200)
    turned = true[:, [2, 0, 1]]
    context = make_context(FakeModel(numbered_images(200), turned), numbered_images(200), true)
    context.count = 200
    values = compute("pose_distribution", context).values
    assert values["pose_distribution"] < 1e-6 < values["pose_distribution_of_halves"]


def test_pose_metrics_without_truth_get_one_line():
    context = make_context(FakeModel(numbered_images(9), directions(9)), numbered_images(9))
    for name in ("pose_error", "pose_distribution"):
        with pytest.raises(UserError, match="dataset.json"):
            compute(name, context)


def test_json_line_is_what_the_fields_tools_read(tmp_path):
    result = MetricResult("fid5k_full", {"fid5k_full": 12.3}, 4.5, 5000, 1e9)
    for _ in range(2):
        result.append_to(tmp_path, "network-0012.pkl")
    lines = (tmp_path / "metric-fid5k_full.jsonl").read_text().splitlines()
    record = json.loads(lines[1])
    assert len(lines) == 2
    assert record == {
        "results": {"fid5k_full": 12.3},
        "metric": "fid5k_full",
        "total_time": 4.5,
        "num_gpus": 1,
        "num_gen": 5000,
        "snapshot_pkl": "network-0012.pkl",
        "timestamp": 1e9,
    }


@pytest.mark.parametrize("count", [1, 2])
def test_a_kernel_distance_needs_two_images_of_each(images, inception, count):
    few = {"real": images["real"][:count], "fake": images["fake"]}
    context = image_context(few, inception, count=2)
    if count == 2:
        assert math.isfinite(compute("kid50k_full", context).values["kid0.002k_full"])
        return
    with pytest.raises(UserError, match="at least 2 photographs and 2 samples, not 1 and 2"):
        compute("kid50k_full", context)


@pytest.mark.parametrize("name", ["fid50k_full", "pr50k3_full", "is50k"])
def test_one_photograph_gives_numbers_to_the_others(images, inception, name):
    context = image_context(
        {"real": images["real"][:1], "fake": images["fake"]}, inception, count=2
    )
    assert all(map(math.isfinite, compute(name, context).values.values()))


def test_what_is_not_a_number_is_an_error_and_not_json(images, monkeypatch):
    monkeypatch.setitem(
        registry._OTHERS, "relief", lambda _: MetricResult("relief", {"relief": math.nan})
    )
    with pytest.raises(UserError, match="relief is nan: there are too few"):
        compute("relief", image_context(images, "inception"))
    with pytest.raises(ValueError, match="JSON"):
        MetricResult("relief", {"relief": math.inf}).json_line(None)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("none", ()),
        (" None ", ()),
        ("", ()),
        ("relief", ("relief",)),
        ("fid50k_full, relief,,fid50k_full", ("fid50k_full", "relief")),
    ],
)
def test_names_from_a_command_line(text, names):
    assert parse_names(text) == names


@pytest.mark.parametrize("text", ["none,relief", "releif"])
def test_names_that_cannot_be_meant(text):
    with pytest.raises(UserError, match="unknown metric"):
        parse_names(text)
