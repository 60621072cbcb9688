"""Volume rendering against what can be said of it analytically."""

import math

import pytest
import torch

from torch_utils.ops.triplane_render import DecoderWeights, FieldSamples
from training import cameras
from training.config import RenderingConfig
from training.networks import rendering

NEAR, FAR = 2.25, 3.3
FRONT = cameras.cam2world_from_pose(torch.full((1, 2), math.pi / 2), 2.7, (0.0, 0.0, 0.0))


def settings(**changes) -> RenderingConfig:
    return RenderingConfig(
        near=NEAR, far=FAR, **{"samples": 24, "importance_samples": 24} | changes
    )


def front_rays(resolution: int = 9, focal: float = 4.0) -> cameras.Rays:
    return cameras.rays_from_cameras(FRONT, cameras.intrinsics_from_focal(focal), resolution)


def render(
    field, config: RenderingConfig, rays: cameras.Rays, monkeypatch
) -> rendering.RenderedRays:
    """Render a function of points instead of planes."""
    monkeypatch.setattr(
        rendering, "triplane_render", lambda planes, points, *_, **__: field(points)
    )
    unused = torch.empty(0)
    decoder = DecoderWeights(unused, unused, unused, unused)
    sampling = rendering.midpoint_sampling(rays, config)
    return rendering.render_rays(unused, decoder, rays, config, sampling)


def uniform(sigma: float, color: float = 0.25):
    def field(points):
        return FieldSamples(torch.full_like(points[..., :1], sigma), torch.full_like(points, color))

    return field


def test_fog_of_constant_density_follows_beer_and_lambert(monkeypatch):
    density = 1.3
    sigma = math.log(math.expm1(density)) + 1  # softplus(sigma - 1) = density
    rendered = render(uniform(sigma), settings(), front_rays(), monkeypatch)
    opacity = 1 - math.exp(-density * (FAR - NEAR))
    torch.testing.assert_close(rendered.opacity, torch.full_like(rendered.opacity, opacity))
    color = 2 * 0.25 * opacity - 1
    torch.testing.assert_close(rendered.features, torch.full_like(rendered.features, color))
    # The same fog from a smaller unit of density: both passes know it.
    thinner = math.log(math.expm1(density / 4)) + 1
    scaled = render(uniform(thinner), settings(density_scale=4), front_rays(), monkeypatch)
    torch.testing.assert_close(scaled, rendered)


def test_white_background_shows_where_the_fog_lets_through(monkeypatch):
    plain = render(uniform(0.5), settings(), front_rays(), monkeypatch)
    white = render(uniform(0.5), settings(white_background=True), front_rays(), monkeypatch)
    torch.testing.assert_close(white.features, plain.features + 2 * (1 - plain.opacity))
    assert torch.equal(white.opacity, plain.opacity)


@pytest.mark.parametrize("white", [False, True])
def test_empty_space_is_background_at_the_far_end(monkeypatch, white):
    config = settings(white_background=white)
    rendered = render(uniform(-200.0), config, front_rays(), monkeypatch)
    assert torch.equal(rendered.opacity, torch.zeros_like(rendered.opacity))
    assert torch.equal(
        rendered.features, torch.full_like(rendered.features, 1.0 if white else -1.0)
    )
    assert rendered.depth.isfinite().all() and rendered.depth.min() > FAR - 0.05


def test_ball_has_the_right_silhouette_and_depth(monkeypatch):
    radius, resolution, focal = 0.3, 65, 4.0

    def ball(points):
        inside = points.norm(dim=-1, keepdim=True) < radius
        return FieldSamples(torch.where(inside, 2000.0, -200.0), points.new_ones(points.shape))

    config = settings(samples=96, importance_samples=96)
    rendered = render(ball, config, front_rays(resolution, focal), monkeypatch)
    image = rendered.opacity.view(resolution, resolution)
    assert ((image < 1e-3) | (image > 0.999)).float().mean() > 0.99
    # Rays touch the ball at an angle of asin(radius / distance) to the axis.
    edge = focal * math.tan(math.asin(radius / 2.7)) * resolution
    assert (image > 0.5).sum().item() == pytest.approx(math.pi * edge**2, rel=0.02)
    depth = rendered.depth.view(resolution, resolution)[resolution // 2, resolution // 2]
    assert depth.item() == pytest.approx(2.7 - radius, abs=0.01)


def test_no_gradient_is_lost_or_infinite_where_nothing_is_seen():
    sigma = torch.full((1, 2, 5, 1), -200.0, requires_grad=True)
    samples = FieldSamples(sigma, torch.rand(1, 2, 5, 3))
    depths = torch.linspace(1, 2, 5).expand(1, 2, 5)
    rendered = rendering.composite([samples], [depths], white_background=False)
    (rendered.depth.sum() + rendered.features.sum()).backward()
    assert sigma.grad.isfinite().all()


def test_passes_are_blended_in_the_order_of_their_depths():
    """Two interleaved passes give what one with all samples, sorted, gives."""
    g = torch.Generator().manual_seed(0)
    depths = torch.rand(2, 5, 11, generator=g).sort()[0]
    samples = FieldSamples(*(torch.randn(2, 5, 11, n, generator=g) for n in (1, 3)))
    whole = rendering.composite([samples], [depths], white_background=True)
    order = torch.randperm(11, generator=g)
    first, second = order[:4], order[4:]
    parts = rendering.composite(
        [FieldSamples(*(x[:, :, part] for x in samples)) for part in (first, second)],
        [depths[..., part] for part in (first, second)],
        white_background=True,
    )
    torch.testing.assert_close(parts, whole)


def test_stratified_depths_stay_in_their_interval():
    jitter = torch.rand(3, 4, 10, generator=torch.Generator().manual_seed(0))
    depths = rendering.stratified_depths(jitter, NEAR, FAR)
    even = torch.linspace(NEAR, FAR, 10)
    assert ((depths >= even) & (depths <= even + (FAR - NEAR) / 9)).all()


def random_field(dtype=torch.float32) -> tuple[torch.Tensor, DecoderWeights]:
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=dtype)

    return normal(1, 3, 2, 4, 4), DecoderWeights(normal(4, 2), normal(4), normal(3, 4), normal(3))


def test_midpoint_sampling_repeats_and_random_sampling_does_not():
    planes, decoder = random_field()
    config, rays = settings(), front_rays()

    def features(sample):
        return rendering.render_rays(planes, decoder, rays, config, sample(rays, config)).features

    assert torch.equal(features(rendering.midpoint_sampling), features(rendering.midpoint_sampling))
    torch.manual_seed(0)
    first = features(rendering.random_sampling)
    assert not torch.equal(first, features(rendering.random_sampling))
    torch.manual_seed(0)
    assert torch.equal(first, features(rendering.random_sampling))


def test_evaluation_can_sample_more_finely_than_training():
    rays = front_rays()
    finer = settings(sampling_multiplier=3)
    coarse, fine = (
        rendering.midpoint_sampling(rays, settings()),
        rendering.midpoint_sampling(rays, finer),
    )
    assert fine.stratified.shape[-1] == 3 * coarse.stratified.shape[-1]
    assert fine.importance.shape[-1] == 3 * coarse.importance.shape[-1]
    for ours, theirs in zip(
        rendering.random_sampling(rays, finer),
        rendering.random_sampling(rays, settings()),
        strict=True,
    ):
        assert ours.shape == theirs.shape


def test_second_pass_takes_part_in_the_image():
    planes, decoder = random_field()
    rays = front_rays()

    def features(count):
        config = settings(samples=8, importance_samples=count)
        sampling = rendering.midpoint_sampling(rays, config)
        return rendering.render_rays(planes, decoder, rays, config, sampling).features

    exact = features(400)
    errors = [(features(count) - exact).norm().item() for count in (0, 8, 64)]
    assert errors == sorted(errors, reverse=True)


def test_gradients_in_planes_decoder_and_rays():
    """In float64, without the second pass, whose depths carry no gradient by design."""
    planes, decoder = random_field(torch.float64)
    config = settings(samples=5, importance_samples=0)
    rays = cameras.rays_from_cameras(FRONT.double(), cameras.intrinsics_from_focal(4.0), 2)
    sampling = rendering.RaySampling(torch.full((1, 4, 5), 0.5).double(), torch.zeros(1, 4, 0))

    def outputs(planes, origins, directions, *weights):
        return rendering.render_rays(
            planes, DecoderWeights(*weights), cameras.Rays(origins, directions), config, sampling
        )

    inputs = [t.clone().requires_grad_() for t in (planes, *rays, *decoder)]
    assert torch.autograd.gradcheck(outputs, inputs)


@pytest.mark.parametrize("importance_samples", [0, 6])
def test_objects_of_a_large_batch_are_rendered_one_after_the_other(monkeypatch, importance_samples):
    """Samples are then not kept for the backward pass; images and gradients are the same."""
    config = settings(samples=8, importance_samples=importance_samples)
    planes, decoder = random_field()
    planes = torch.cat([planes, planes.flip(-1), -planes])
    rays = cameras.Rays(*(part.expand(3, -1, -1) for part in front_rays()))
    sampling = rendering.random_sampling(rays, config)
    calls = []
    triplane_render = rendering.triplane_render

    def counted(planes, *arguments, **options):
        calls.append(len(planes))
        return triplane_render(planes, *arguments, **options)

    monkeypatch.setattr(rendering, "triplane_render", counted)

    def rendered_and_gradients(limit):
        monkeypatch.setattr(rendering, "LARGE_BATCH", limit)
        inputs = [t.clone().requires_grad_() for t in (planes, *decoder)]
        calls.clear()
        result = rendering.render_objects(
            inputs[0], DecoderWeights(*inputs[1:]), rays, config, sampling
        )
        (result.features.square().sum() + result.opacity.sum()).backward()
        return result, [t.grad for t in inputs], list(calls)

    passes = 1 + (importance_samples > 0)
    together, gradients, shapes = rendered_and_gradients(2**40)
    assert shapes == [3] * passes
    alone, gradients_alone, shapes = rendered_and_gradients(1)
    assert shapes == [1] * 6 * passes  # once more each in the backward pass
    for name in ("features", "opacity"):
        torch.testing.assert_close(getattr(alone, name), getattr(together, name))
    for ours, theirs in zip(gradients_alone, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.norm().item())
    calls.clear()
    with torch.no_grad():
        rendering.render_objects(planes, decoder, rays, config, sampling)
    assert calls == [3] * passes
