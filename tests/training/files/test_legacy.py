import bz2
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dnnlib import UserError
from pof3d.commands.convert import main
from tests.data.legacy.old_layout import (
    Call,
    New,
    pickled,
    state_of,
    stored_checkpoint,
    stored_tensor,
)
from training.files.legacy import load_legacy, read_legacy
from training.files.network_file import load_network
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.presets import build_config

DATA = Path(__file__).parents[2] / "data" / "legacy"
TINY = {
    "rendering.sampling_multiplier": 1,  # old files know of none,
    "rendering.density_scale": 1,  # nor of this
    "generator.z_dim": 8,
    "generator.w_dim": 12,
    "generator.channel_base": 128,
    "generator.channel_max": 8,
    "generator.plane_resolution": 16,
    "generator.plane_channels": 4,
    "generator.decoder_hidden": 8,
    "generator.feature_channels": 3,
    "discriminator.channel_base": 128,
    "discriminator.channel_max": 8,
    "discriminator.group_size": 2,
    "discriminator.half_precision_blocks": 1,
    "rendering.plane_axes": "eg3d",
    "rendering.samples": 5,
    "rendering.importance_samples": 6,
}


def tiny_config(**changes):
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return build_config("toy", TINY | changes)


def tiny_networks(seed=0, **changes):
    torch.manual_seed(seed)
    config = tiny_config(**changes)
    return Generator(config).eval(), Discriminator(config).eval()


def write(path, value, **how):
    path.write_bytes(pickled(value, **how))
    return path


def assert_same_weights(found, expected):
    expected = expected.state_dict()
    assert found.state_dict().keys() == expected.keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, expected[name].float()), name


def relative_error(found, expected):
    expected = torch.as_tensor(expected)
    return ((found - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """name -> (path of an old checkpoint, the values that its authors' code computes with it)."""
    folder = tmp_path_factory.mktemp("legacy")

    def unpacked(name):
        path = folder / f"{name}.pkl"
        path.write_bytes(bz2.decompress((DATA / f"{name}.pkl.bz2").read_bytes()))
        with np.load(DATA / f"{name}_expected.npz") as file:
            return path, {key: torch.from_numpy(file[key]) for key in file.files}

    return unpacked


# Agreement with the published code ---------------------------------------------------------------


@torch.no_grad()
def test_pof3d_checkpoint_computes_what_the_published_code_computes(published):
    path, expected = published("pof3d")
    network = load_network(path)
    pose = network.generator.latent(expected["z"]).pose
    view = network.generator(expected["z"], expected["intrinsics"]).select(0)
    estimate = network.discriminator(view.image, view.raw).pose
    assert relative_error(pose, expected["pose"]) < 1e-4
    assert relative_error(view.image[..., ::4, ::4], expected["image"]) < 1e-4
    assert relative_error(view.raw[..., ::2, ::2], expected["image_raw"]) < 1e-4
    assert relative_error(view.depth[..., ::2, ::2], expected["depth"]) < 1e-4
    assert relative_error(estimate, expected["D_pose"]) < 1e-4


@torch.no_grad()
def test_eg3d_checkpoint_computes_what_the_published_code_computes(published):
    path, expected = published("eg3d")
    network = load_network(path)
    generator = network.generator
    first_block = []
    generator.superresolution.block0.register_forward_hook(
        lambda module, inputs, outputs: first_block.append(outputs[1])
    )
    latent = generator.latent(expected["z"], expected["conditioning"], truncation=0.7, cutoff=14)
    cam2world = expected["view"][:, :16].reshape(-1, 1, 4, 4)
    intrinsics = expected["view"][:, 16:].reshape(-1, 3, 3)
    planes = generator.planes(latent.ws)
    view = generator.render(planes, latent.ws, cam2world, intrinsics).select(0)
    assert latent.pose is None and network.discriminator is None
    assert relative_error(latent.ws[:, 0], expected["ws_trunc0_7_cutoff14"]) < 1e-4
    assert relative_error(view.image[..., ::4, ::4], expected["image"]) < 1e-4
    assert relative_error(view.depth[..., ::2, ::2], expected["depth"]) < 1e-4
    # At 128 px, EG3D's super-resolution adds its first block's RGB to the raw image in place; the
    # raw image that its authors' code returns is that sum.
    assert relative_error(first_block[0][..., ::2, ::2], expected["image_raw"]) < 1e-4


def test_config_of_a_published_checkpoint(published):
    path, _ = published("pof3d")
    network = load_legacy(path)
    config = network.config
    assert config.preset == "ffhq"
    assert config.data.resolution == 128
    assert (config.generator.z_dim, config.generator.w_dim) == (64, 512)
    assert (config.generator.channel_base, config.generator.channel_max) == (512, 8)
    assert (config.generator.plane_resolution, config.generator.plane_channels) == (256, 32)
    assert config.camera.poses == "learned"
    assert (config.rendering.samples, config.rendering.importance_samples) == (12, 12)
    assert (config.rendering.near, config.rendering.far) == (2.25, 3.3)
    assert config.rendering.plane_axes == "eg3d"
    assert config.camera.pivot == (0, 0, 0.2)
    assert network.provenance["data"] == "FFHQ_512.zip"
    assert network.provenance["class"] == "TriPlaneGeneratorPose"


# Every setting that a file holds -----------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rendering__white_background": True, "rendering__box_warp": 1.6},
        {"rendering__plane_axes": "full", "rendering__near": 0.1, "rendering__far": 2.6},
        {"camera__radius": 1.7, "camera__mean_h": 3.0, "camera__range_h": (0.0, 6.0)},
        {"camera__range_v": (1.0, 2.0), "camera__pivot": (0.1, 0.0, 0.2)},
        {"generator__mapping_layers": 3, "generator__w_dim": 16},
        {"generator__plane_resolution": 32, "generator__channel_max": 5},
        {"discriminator__mapping_layers": 4, "discriminator__channel_base": 96},
    ],
    ids=lambda changes: ",".join(changes) or "plain",
)
def test_sizes_and_settings_come_from_the_file(tmp_path, changes):
    generator, discriminator = tiny_networks(**changes)
    path = write(tmp_path / "old.pkl", stored_checkpoint(generator, discriminator))
    network = load_legacy(path)
    for section in ("data", "generator", "discriminator", "rendering"):
        expected = getattr(generator.config, section)
        assert getattr(network.config, section).model_dump(exclude={"workers"}) == (
            expected.model_dump(exclude={"workers"})
        )
    cameras = {"radius", "pivot", "mean_h", "range_h", "range_v"}
    assert network.config.camera.model_dump(include=cameras) == (
        generator.config.camera.model_dump(include=cameras)
    )
    assert_same_weights(network.generator, generator)
    assert_same_weights(network.discriminator, discriminator)


@pytest.mark.parametrize("axes", ["eg3d", "full"])
def test_listed_plane_axes_outrank_the_option(tmp_path, axes):
    generator, _ = tiny_networks()
    checkpoint = stored_checkpoint(generator)
    third = (
        [[0, 0, 1], [1, 0, 0], [0, 1, 0]] if axes == "eg3d" else [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    )
    listed = torch.tensor([torch.eye(3).tolist(), [[1, 0, 0], [0, 0, 1], [0, 1, 0]], third])
    state = state_of(checkpoint["G_ema"])
    state["rendering_kwargs"]["wrong"] = axes != "eg3d"
    state["_modules"]["renderer"] = New(
        "training.volumetric_rendering.renderer.ImportanceRenderer",
        state={"plane_axes": stored_tensor(listed)},
    )
    assert load_legacy(write(tmp_path / "old.pkl", checkpoint)).config.rendering.plane_axes == axes


def test_names_written_in_the_oldest_way(tmp_path):
    generator, discriminator = tiny_networks()
    path = write(tmp_path / "old.pkl", stored_checkpoint(generator, discriminator), lines=True)
    assert_same_weights(load_legacy(path).generator, generator)


@pytest.mark.parametrize("size", [256, 512])
def test_super_resolution_of_every_size(tmp_path, size):
    generator = Generator(tiny_config(data__resolution=size, discriminator__dual=True))
    network = load_legacy(write(tmp_path / "old.pkl", stored_checkpoint(generator)))
    assert network.config.data.resolution == size
    assert_same_weights(network.generator, generator)


@pytest.mark.parametrize(
    ("option", "value", "scale"),
    [("c_scale", 1.0, 1), ("c_scale", 0.5, 0.5), ("c_gen_conditioning_zero", True, 0)],
)
@torch.no_grad()
def test_label_scale_of_eg3d(tmp_path, option, value, scale):
    generator, _ = tiny_networks(camera__poses="given")
    checkpoint = stored_checkpoint(generator)
    state_of(checkpoint["G_ema"])["rendering_kwargs"][option] = value
    loaded = load_legacy(write(tmp_path / "old.pkl", checkpoint)).generator
    z, label = torch.randn(2, 8), torch.randn(2, 25)
    expected = generator.latent(z, label * scale).w
    torch.testing.assert_close(loaded.latent(z, label).w, expected)


def test_weights_in_half_precision_become_float32(tmp_path):
    generator, _ = tiny_networks()
    path = write(tmp_path / "old.pkl", stored_checkpoint(generator.half()))
    assert_same_weights(load_legacy(path).generator, generator)


def test_discriminator_that_is_told_the_camera_is_left_out(tmp_path):
    generator, discriminator = tiny_networks()
    checkpoint = stored_checkpoint(generator, discriminator)
    epilogue = state_of(checkpoint["D"], "b4")["_modules"]
    del epilogue["cam_out1"], epilogue["cam_out2"]
    assert load_legacy(write(tmp_path / "old.pkl", checkpoint)).discriminator is None


def test_reading_keeps_unknown_classes_as_records(tmp_path):
    generator, _ = tiny_networks()
    checkpoint = stored_checkpoint(generator)
    extra = New("networks.IR", (1,), {"_modules": {}, "depth": 50})
    state_of(checkpoint["G_ema"])["_modules"]["IR"] = extra
    record = read_legacy(write(tmp_path / "old.pkl", checkpoint)).networks["G_ema"].part("IR")
    assert (record.name, record.args, record.state["depth"]) == ("networks.IR", (1,), 50)
    assert not callable(record)


# What cannot be used is refused in one line -------------------------------------------------------


def edit_option(checkpoint, **options):
    state_of(checkpoint["G_ema"])["rendering_kwargs"].update(options)


def edit_state(checkpoint, path="", **attributes):
    state_of(checkpoint["G_ema"], path).update(attributes)


def drop_tensor(checkpoint, path, name):
    del state_of(checkpoint["G_ema"], path)["_parameters"][name]


def reshape_tensor(checkpoint, path, name):
    state_of(checkpoint["G_ema"], path)["_parameters"][name] = stored_tensor(torch.zeros(3, 5))


def make_integer(checkpoint, path, name):
    tensor = stored_tensor(torch.zeros(4, dtype=torch.int64))
    state_of(checkpoint["G_ema"], path)["_parameters"][name] = tensor


REFUSALS = {
    "clamp_mode": (edit_option, {"clamp_mode": "relu"}, "clamp_mode 'relu' is not supported"),
    "disparity": (edit_option, {"disparity_space_sampling": True}, "disparity_space_sampling"),
    "noise": (edit_option, {"superresolution_noise_mode": "random"}, "noise_mode 'random'"),
    "auto": (edit_option, {"ray_start": "auto"}, "rendering.near"),
    "fov": (edit_state, {"learn_fov": True}, "learn_fov True"),
    "background": (edit_state, {"bg_kwargs": {}}, "bg_kwargs"),
    "uniform": (edit_state, {"path": "backbone.mapping", "uniform_sampling": True}, "uniform"),
    "channels": (edit_state, {"_init_kwargs": {"channel_base": 64}}, "shape"),
    "no channels": (edit_state, {"_init_kwargs": {"channel_base": 8}}, "no channels at 16 px"),
    "size": (edit_state, {"img_resolution": 100}, "data.resolution"),
    "rate": (
        edit_state,
        {"path": "backbone.mapping.fc0", "weight_gain": 1.0},
        "fc0 has weight_gain",
    ),
    "lacks": (
        drop_tensor,
        {"path": "decoder.net.0", "name": "bias"},
        "lacks the tensor decoder.net.0",
    ),
    "shape": (
        reshape_tensor,
        {"path": "decoder.net.0", "name": "bias"},
        r"shape \[3, 5\], not \[8\]",
    ),
    "integers": (make_integer, {"path": "decoder.net.2", "name": "bias"}, "not hold real numbers"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_the_config_cannot_say_is_refused(tmp_path, case):
    edit, arguments, reason = REFUSALS[case]
    generator, _ = tiny_networks()
    checkpoint = stored_checkpoint(generator)
    edit(checkpoint, **arguments)
    path = write(tmp_path / "old.pkl", checkpoint)
    with pytest.raises(UserError, match=reason) as refusal:
        load_legacy(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_missing_file_and_missing_network(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_network(tmp_path / "none.pkl")
    with pytest.raises(UserError, match="holds no network 'G_ema'"):
        load_network(write(tmp_path / "old.pkl", {"G": None, "D": Call("collections.OrderedDict")}))


# Conversion --------------------------------------------------------------------------------------


@torch.no_grad()
def test_conversion_keeps_everything(tmp_path):
    generator, discriminator = tiny_networks(camera__range_v=(1.0, 2.0))
    old = write(tmp_path / "old.pkl", stored_checkpoint(generator, discriminator))
    new = tmp_path / "new.safetensors"
    result = CliRunner().invoke(main, [str(old), str(new)])
    assert result.exit_code == 0, result.output
    assert result.output.count("\n") == 1
    assert "generator" in result.output and "discriminator" in result.output
    assert "32 px" in result.output
    before, after = load_network(old), load_network(new)
    assert after.config == before.config
    assert after.provenance == before.provenance
    assert json.dumps(after.provenance)
    z = torch.randn(2, 8)
    image = before.generator(z).select(0).image
    assert torch.equal(after.generator(z).select(0).image, image)
    assert torch.equal(after.discriminator(image).pose, before.discriminator(image).pose)


@pytest.mark.parametrize(
    ("new", "reason"),
    [("new.pkl", "safetensors"), ("no/folder/new.safetensors", "there is no folder")],
)
def test_conversion_refuses_a_useless_target(tmp_path, new, reason):
    generator, _ = tiny_networks()
    old = write(tmp_path / "old.pkl", stored_checkpoint(generator))
    result = CliRunner().invoke(main, [str(old), str(tmp_path / new)])
    assert result.exit_code == 1
    assert reason in result.output and result.output.count("\n") == 1
