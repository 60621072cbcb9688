"""GeoD's losses, options and schedules. Values: `tests/test_parity_geod.py`."""

import math

import pydantic
import pytest
import torch

from dnnlib import UserError
from training import geod
from training.cameras import focal_from_fov, intrinsics_from_focal, rays_from_cameras
from training.config import GeodConfig
from training.networks.generator import View
from training.networks.image_formation import Frustum, frustum_of, surface_normals
from training.networks.inverse_renderer import InverseRenderer
from training.networks.perceptual import random_features
from training.presets import build_config

ON = GeodConfig(weight_end=0.1)


def network_and_images(dtype: torch.dtype = torch.float64, batch: int = 2):
    torch.manual_seed(0)
    network = InverseRenderer(width=16).to(dtype)
    noise = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    images = torch.nn.functional.interpolate(noise, size=128, mode="bilinear").clamp(-1, 1)
    return network, images.to(dtype)


def ray_depth(seed: int = 0, size: int = 64) -> torch.Tensor:
    noise = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(seed)).double()
    return 2.6 + 0.1 * torch.nn.functional.interpolate(noise, size=size, mode="bicubic")


def changed(**fields) -> GeodConfig:
    return GeodConfig(**{"weight_end": 0.1} | fields)


# --- The inverse renderer's losses


@pytest.mark.parametrize(
    "options", [{}, {"confidence": False}, {"smoothness_weight": 1.0, "perceptual_weight": 0.0}]
)
def test_training_lowers_the_loss(options):
    network, images = network_and_images(torch.float32)
    settings, features = changed(lr=1e-3, **options), random_features()
    optimizer = geod.optimizer_of(network, settings)
    losses = []
    for _ in range(6):
        phase = geod.inverse_renderer_main(network, features, images, settings)
        optimizer.zero_grad()
        phase.loss.backward()
        optimizer.step()
        losses.append(phase.loss.item())
    assert losses[-1] < losses[0]
    assert all(not value.requires_grad and value.ndim == 0 for value in phase.terms.values())
    assert len(phase.terms) == 5


def test_the_total_weighs_its_terms():
    numbers = (torch.tensor(float(10**i)) for i in range(5))
    own, mirrored, own_features, mirrored_features, smoothness = numbers
    terms = geod.DecompositionTerms((own, mirrored), (own_features, mirrored_features), smoothness)
    settings = changed(mirror_weight=0.25, perceptual_weight=2.0, smoothness_weight=0.5)
    assert terms.total(settings) == 1 + 0.25 * 10 + 2 * (100 + 0.25 * 1000) + 0.5 * 10000


def test_the_whole_loss_has_the_gradients_of_finite_differences():
    """Of a parameter of each network, confidence included."""
    network, images = network_and_images()
    features = random_features().double()

    def loss() -> torch.Tensor:
        return geod.inverse_renderer_main(network, features, images, ON).loss

    for name in ("netD.network.42", "netA.network.20", "netL.network.6", "netV.network.10"):
        weight = network.get_parameter(f"{name}.weight")
        (gradient,) = torch.autograd.grad(loss(), weight)
        direction = torch.randn_like(weight)
        with torch.no_grad():
            weight += 1e-7 * direction
            ahead = loss()
            weight -= 2e-7 * direction
            behind = loss()
            weight += 1e-7 * direction
        expected = (ahead - behind).item() / 2e-7
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=2e-3, abs=1e-6)


def test_an_empty_mask_gives_zero_and_no_gradient_but_zero():
    mask = torch.zeros(2, 1, 64, 64)
    image = torch.rand(2, 3, 64, 64, requires_grad=True)
    sigma = torch.rand(2, 1, 64, 64, requires_grad=True)
    normal = torch.rand(2, 64, 64, 3, requires_grad=True)
    loss = (
        geod.photometric_loss(image, torch.zeros_like(image), mask, sigma)
        + geod.perceptual_loss(image, torch.zeros_like(image), mask, sigma)
        + geod.normal_loss(normal, torch.zeros_like(normal), mask[:, 0])
    )
    loss.backward()
    assert loss == 0
    assert not any(leaf.grad.any() for leaf in (image, sigma, normal))


def test_objects_out_of_sight_give_finite_numbers():
    network, images = network_and_images(torch.float32)
    network.view = lambda image: image.new_tensor([0, 0, 0, 9, 0, 0]).expand(len(image), 6)
    phase = geod.inverse_renderer_main(network, random_features(), images, ON)
    phase.loss.backward()
    assert phase.loss == 0
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("confidence", [True, False])
def test_constant_photographs_give_finite_numbers(value, confidence):
    network, images = network_and_images(torch.float32)
    images = torch.full_like(images, value)
    settings = changed(confidence=confidence, smoothness_weight=1.0)
    phase = geod.inverse_renderer_main(network, random_features(), images, settings)
    phase.loss.backward()
    assert phase.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_a_perfect_reconstruction_with_a_vanishing_spread_is_finite():
    image = torch.rand(1, 3, 64, 64)
    sigma = torch.zeros(1, 1, 64, 64, requires_grad=True)
    for loss in (geod.photometric_loss, geod.perceptual_loss):
        value = loss(image, image, torch.ones(1, 1, 64, 64), sigma)
        value.backward()
        assert value.isfinite() and sigma.grad.isfinite().all()


def test_the_best_confidence_is_the_size_of_the_error():
    """Of a Laplace distribution: sigma = sqrt 2 times the mean error."""
    image, mask = torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 8, 8)
    found = image + 0.3
    best = math.sqrt(2) * 0.3
    losses = [
        geod.photometric_loss(found, image, mask, torch.full((1, 1, 8, 8), sigma)).item()
        for sigma in (0.8 * best, best, 1.2 * best)
    ]
    assert losses[1] == min(losses)


# --- The generator's term


def consistency(settings: GeodConfig, depth, image, network=None):
    network = network_and_images()[0] if network is None else network
    network.requires_grad_(False)
    intrinsics = intrinsics_from_focal(4.26)
    return geod.normal_consistency(network, depth, image, intrinsics, settings)


def test_gradients_reach_depth_and_image():
    depth, image = ray_depth().requires_grad_(), network_and_images()[1].requires_grad_()
    consistency(ON, depth, image).backward()
    assert depth.grad.any() and image.grad.any()


def test_the_phase_weighs_the_term_and_logs_it_as_it_is():
    network, image = network_and_images()
    view = View(image, image, ray_depth(), torch.ones(2, 1, 64, 64))
    phase = geod.generator_geometry(network, view, intrinsics_from_focal(4.26), ON, weight=0.25)
    loss = consistency(ON, view.depth, image, network)
    assert phase.terms == {"G/normal_loss": loss} and phase.loss == 0.25 * loss


def test_a_detached_target_leaves_the_image_alone_and_the_depth_as_it_was():
    _, image = network_and_images()
    gradients = []
    for settings in (ON, changed(detach_target=True)):
        depth, painted = ray_depth().requires_grad_(), image.clone().requires_grad_()
        loss = consistency(settings, depth, painted)
        loss.backward()
        gradients.append(depth.grad)
    assert painted.grad is None
    torch.testing.assert_close(*gradients)
    assert loss == consistency(ON, ray_depth(), image)


@pytest.mark.parametrize("options", [{"axial_depth": True}, {"erode_mask": True}, {}])
@pytest.mark.parametrize("size", [32, 64, 48])
def test_the_term_has_the_gradients_of_finite_differences(options, size):
    network, image = network_and_images()
    settings, depth = changed(**options), ray_depth(size=size).requires_grad_()
    (gradient,) = torch.autograd.grad(consistency(settings, depth, image, network), depth)
    direction = torch.randn(depth.shape, dtype=depth.dtype)
    with torch.no_grad():
        ahead, behind = (
            consistency(settings, depth + step * direction, image, network)
            for step in (1e-7, -1e-7)
        )
    expected = (ahead - behind).item() / 2e-7
    assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-3)


def test_distances_of_a_plane_become_its_depth():
    """Along rays a plane looks like a bowl; with the option it is flat again."""
    focal, size = focal_from_fov(18.837), 64
    intrinsics = intrinsics_from_focal(focal).double()
    rays = rays_from_cameras(torch.eye(4).double()[None], intrinsics, size).directions
    distance = (2.7 / rays[..., 2]).reshape(1, 1, size, size)
    frustum = Frustum()
    flat = torch.tensor([0.0, 0, 1]).double().expand(1, size, size, 3)
    axial = geod.normals_of_depth(distance, frustum, intrinsics)
    torch.testing.assert_close(axial, flat, atol=1e-3, rtol=0)
    one_for_each = geod.normals_of_depth(distance, frustum, intrinsics[None])
    assert torch.equal(axial, one_for_each)
    tilt = geod.normals_of_depth(distance, frustum)[0, 5, 5, :2].norm()
    assert 0.05 < tilt < 0.2  # some degrees


def test_an_odd_raw_resolution_is_brought_to_size():
    assert geod.normals_of_depth(ray_depth(size=45), Frustum()).shape == (2, 64, 64, 3)


def test_erosion_takes_what_touches_an_empty_pixel():
    mask = (torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.9).float()
    eroded = geod.erode(mask)
    for b in range(3):
        for y in range(16):
            for x in range(16):
                around = mask[b, 0, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                assert eroded[b, 0, y, x] == around.min()
    assert torch.equal(geod.erode(torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 8, 8))


def test_erosion_changes_the_term():
    depth, (network, image) = ray_depth(), network_and_images()
    eroded = consistency(changed(erode_mask=True), depth, image, network)
    assert eroded.isfinite() and eroded != consistency(ON, depth, image, network)


def test_places_without_a_normal_do_not_count():
    normal = surface_normals(Frustum().points(ray_depth()[:, 0]))
    target, mask = torch.zeros_like(normal), torch.ones(2, 64, 64).double()
    target[..., 2] = 1
    with_holes = normal.clone()
    with_holes[:, :32] = 0
    mask_of_holes = mask.clone()
    mask_of_holes[:, :32] = 0
    assert geod.normal_loss(with_holes, target, mask) == geod.normal_loss(
        normal, target, mask_of_holes
    )


# --- Which cameras, and when


def test_the_field_of_view_is_the_published_one_or_the_camera_s():
    config = build_config("cats")
    assert frustum_of(config) == Frustum(2.25, 3.3, 18.837)
    own = frustum_of(build_config("cats", {"geod.camera_fov": True}))
    assert own.fov == pytest.approx(13.38, abs=0.01)


def test_depths_are_those_of_the_preset():
    config = build_config("toy")
    frustum = frustum_of(config)
    assert (frustum.near, frustum.far) == (config.rendering.near, config.rendering.far)
    with pytest.raises(UserError, match="faces"):
        frustum_of(build_config("shapenet_cars"))


def test_it_cannot_be_had_for_objects_seen_from_all_round():
    with pytest.raises(UserError, match="shapenet_cars") as refusal:
        build_config("shapenet_cars", {"geod.weight_end": 0.1})
    assert len(str(refusal.value).splitlines()) == 1


def weight(settings: GeodConfig, kimg: float, step: int = 0) -> float:
    return geod.normal_weight(settings, round(1000 * kimg), step)


def test_the_weight_grows_between_its_ends_and_stops():
    settings = changed(weight_start=0.02, start_kimg=20, end_kimg=60, stop_kimg=100)
    assert weight(settings, 20) == 0 and weight(settings, 100) == 0 and weight(settings, 0) == 0
    assert weight(settings, 40) == pytest.approx(0.06)
    assert weight(settings, 60) == weight(settings, 99.9) == pytest.approx(0.1)


def test_a_falling_weight_stays_between_its_ends():
    settings = changed(weight_start=0.3, start_kimg=10, end_kimg=50, stop_kimg=500)
    weights = [weight(settings, kimg) for kimg in range(11, 500)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 0.29 and weights[-1] == pytest.approx(0.1)


def test_equal_ends_are_a_step():
    settings = changed(weight_start=0.05, weight_end=0.2, start_kimg=50, end_kimg=50)
    assert weight(settings, 50) == 0 and weight(settings, 50.001) == pytest.approx(0.2)


def test_the_interval_counts_steps_from_where_it_sets_in():
    settings = changed(start_kimg=0, end_kimg=0, interval=3, interval_from_kimg=10)
    assert all(weight(settings, 10, step) for step in range(6))
    assert [bool(weight(settings, 11, step)) for step in range(6)] == [1, 0, 0] * 2


def test_the_inverse_renderer_trains_up_to_its_end_and_only_where_it_is_of_use():
    settings = changed(train_until_kimg=5)
    assert geod.is_trained(settings, 5000) and not geod.is_trained(settings, 5001)
    assert not geod.is_trained(GeodConfig(), 0)
    assert not geod.is_trained(changed(pretrained="published.pkl"), 0)


def test_it_is_off_by_default_and_without_time():
    assert not GeodConfig().active
    assert ON.active and changed(weight_start=0.1, weight_end=0.0).active
    assert not changed(start_kimg=30, end_kimg=30, stop_kimg=30).active


@pytest.mark.parametrize(
    "fields",
    [
        {"start_kimg": 70.0},  # after end_kimg
        {"weight_end": -0.1},
        {"interval": 0},
        {"width": 24},
        {"pretrained": "published.pkl", "weight_end": 0.0},
        {"lr": 0.0},
        {"weight_start": float("nan")},
        {"novelty": 1},
    ],
)
def test_refuses_settings_that_cannot_be(fields):
    with pytest.raises(pydantic.ValidationError):
        changed(**fields)


def test_every_setting_is_described():
    assert all(field.description for field in GeodConfig.model_fields.values())
