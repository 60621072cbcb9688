"""Presets, overrides, and the one line that answers a mistake."""

import json
import math

import pytest

from dnnlib import UserError
from training.config import config_from_dict, parse_settings
from training.presets import build_config, suggested_gamma

# The table of the paper's settings: image, raw, S, S', near, far, box, radius, pivot, focal,
# h_mean, gamma, weight of D's pose, of the pull.
PAPER = {
    "ffhq": (256, 64, 48, 48, 2.25, 3.3, 1, 2.7, (0, 0, 0.2), 4.2647, math.pi / 2, 1, 2, 1),
    "cats": (256, 64, 48, 48, 2.25, 3.3, 1, 2.7, (0, 0, 0), 4.26339, math.pi / 2, 5, 10, 10),
    "shapenet_cars": (
        *(128, 64, 64, 64, 0.1, 2.6, 1.6, 1.7),
        *((0, 0, 0), 1.025390625, math.pi, 0.3, 2, 2),
    ),
}


@pytest.mark.parametrize("preset", PAPER)
def test_presets_are_those_of_the_paper(preset):
    c = build_config(preset)
    found = (
        *(c.data.resolution, c.rendering.raw_resolution),
        *(c.rendering.samples, c.rendering.importance_samples),
        *(c.rendering.near, c.rendering.far, c.rendering.box_warp),
        *(c.camera.radius, c.camera.pivot, c.camera.focal, c.camera.mean_h),
        *(c.loss.gamma, c.loss.pose_weight, c.loss.pose_consistency_weight),
    )
    for value, expected in zip(found, PAPER[preset], strict=True):
        assert value == pytest.approx(expected, rel=1e-5)
    assert (c.run.batch, c.run.kimg) == (32, 25000)
    assert (c.generator.z_dim, c.generator.w_dim) == (512, 512)
    assert c.rendering.plane_axes == "full" and c.discriminator.dual
    assert c.camera.init_std is None  # as published


def test_what_sets_cars_and_faces_apart():
    cars, faces = build_config("shapenet_cars"), build_config("ffhq")
    assert cars.rendering.white_background and not faces.rendering.white_background
    assert cars.camera.range_h == pytest.approx((0, 2 * math.pi))
    assert cars.camera.range_v == pytest.approx((0, math.pi))
    assert cars.camera.mirrors == ("shapenet_horizontal", "vertical")
    assert faces.camera.range_h is None and faces.camera.mirrors == ("horizontal", "vertical")
    assert faces.camera.intrinsics == "labels"


@pytest.mark.parametrize("alias", ["shapenet", "shapenetcars"])
def test_aliases(alias):
    assert build_config(alias) == build_config("shapenet_cars")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("camera.mirrors=horizontal", ("horizontal",)),
        ("camera.mirrors=", ()),
        ("camera.pivot=0,0,0.1", (0, 0, 0.1)),
        ("camera.pivot=[0, 0, 0.1]", (0, 0, 0.1)),
        ("camera.init_std=null", None),
        ("camera.range_h=null", None),
        ("loss.gamma=2", 2.0),
        ("rendering.white_background=false", False),
        ("data.path=/a=b", "/a=b"),
    ],
)
def test_settings_are_read(setting, value):
    (key,) = parse_settings([setting])
    section, field = key.split(".")
    config = build_config("toy", parse_settings([setting]))
    assert getattr(getattr(config, section), field) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera.init_sdt": 1}, "did you mean 'camera.init_std'"),
        ({"camera": 1}, "unknown setting 'camera'"),
        ({"nonsense.gamma": 1}, "unknown setting 'nonsense.gamma'"),
        ({"loss.gamma": "much"}, "loss.gamma: .*not 'much'"),
        ({"loss.gamma": -1}, "loss.gamma: .*greater than or equal to 0"),
        ({"loss.gamma": float("nan")}, "loss.gamma: .*finite"),
        ({"data.resolution": 48}, "data.resolution: .*32, 64, 128, 256 or 512"),
        ({"run.batch": 7, "run.gpus": 2}, "batch 7 is not divisible by gpus 2"),
        ({"run.batch": 8, "run.batch_gpu": 3}, "8 is not divisible by batch_gpu 3"),
        ({"rendering.near": 9}, "near must be smaller than far"),
        ({"camera.range_h": (3, 1)}, "lower end must lie below"),
        (
            {"data.resolution": 64, "rendering.raw_resolution": 32},
            "rendering.raw_resolution must be 64",
        ),
        ({"discriminator.dual": True}, "set discriminator.dual=false"),
        ({"discriminator.freeze_blocks": 4}, "at most 3 at 32 px"),
        ({"rendering.raw_resolution_end": 64}, "needs a data.resolution of 128 or more"),
        ({"camera.mirrors": "diagonal"}, "camera.mirrors.0: .*'diagonal'"),
    ],
)
def test_nonsense_gets_one_line(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        build_config("toy", changes)
    assert "\n" not in str(caught.value)


def test_unknown_preset_and_missing_equals_sign():
    with pytest.raises(UserError, match="unknown preset 'dogs': choose one of ffhq, cats"):
        build_config("dogs")
    with pytest.raises(UserError, match="write it as section.field=value"):
        parse_settings(["loss.gamma"])


def test_survives_json():
    config = build_config("shapenet_cars", {"loss.gamma": 0.7})
    assert config_from_dict(json.loads(config.model_dump_json())) == config


def test_suggested_gamma_grows_with_pixels_and_shrinks_with_batch():
    assert suggested_gamma(256, 32) == pytest.approx(0.4096)
    assert suggested_gamma(512, 32) == pytest.approx(4 * suggested_gamma(256, 32))
    assert suggested_gamma(256, 64) == pytest.approx(suggested_gamma(256, 32) / 2)
