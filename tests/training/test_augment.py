"""Augmentation: each transform by itself, images and raw renders alike, gradients, and ADA's p."""

import math

import pytest
import torch
import torch.nn.functional as F

from training.augment import (
    AdaController,
    Augmentation,
    AugmentParams,
    augment,
    draw,
    recolor,
    resample,
)


def neutral(batch: int) -> AugmentParams:
    pairs = torch.zeros(batch, 2, dtype=torch.float64)
    return AugmentParams(
        *(pairs if "shift" in name else pairs[:, 0] for name in AugmentParams._fields)
    )


def only(**parameters: list) -> AugmentParams:
    """AugmentParams that are neutral but for the given ones, a list with one entry per sample."""
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in parameters.items()}
    return neutral(len(next(iter(tensors.values()))))._replace(**tensors)


def random_picture(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1


def waves(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A smooth pattern on the unit square; even at its borders, so its mirror images are itself."""
    red = (math.pi * 2 * x).cos() * (math.pi * y).cos()
    green = (math.pi * x).cos() - 0.5 * (math.pi * 3 * y).cos()
    blue = 0.3 + 0.5 * (math.pi * x).cos() * (math.pi * 2 * y).cos()
    return torch.stack([red, green, blue], dim=-3)


def pixel_centers(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    centers = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    y, x = torch.meshgrid(centers, centers, indexing="ij")
    return x, y


# Geometry


def mirror_tiled(picture: torch.Tensor) -> torch.Tensor:
    row = torch.cat([picture.flip(-1), picture, picture.flip(-1)], dim=-1)
    return torch.cat([row.flip(-2), row, row.flip(-2)], dim=-2)


def middle_third(tiles: torch.Tensor) -> torch.Tensor:
    size = tiles.shape[-1] // 3
    return tiles[..., size : 2 * size, size : 2 * size]


@pytest.mark.parametrize("size", [16, 33])
@pytest.mark.parametrize("pixels", [(3, 0), (0, -4), (-2, 1)])
def test_whole_pixel_shifts_are_exact_and_reflect_at_the_border(size, pixels):
    picture = random_picture(1, 3, size, size)
    moved = resample(picture, only(whole_shift=[[n / size for n in pixels]]))
    expected = middle_third(mirror_tiled(picture).roll((pixels[1], pixels[0]), (-2, -1)))
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)


def test_beyond_its_border_the_picture_goes_on_as_in_a_mirror():
    picture = random_picture(1, 3, 16, 16)
    moved = resample(picture, only(zoom=[-0.3], shift=[[0.33, -0.17]]))
    tiles_moved = resample(mirror_tiled(picture), only(zoom=[-0.3], shift=[[0.11, -0.17 / 3]]))
    torch.testing.assert_close(moved, middle_third(tiles_moved), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [32, 64, 45])
@pytest.mark.parametrize(
    ("params", "source"),
    [
        (only(shift=[[0.071, -0.113]]), lambda x, y: (x - 0.071, y + 0.113)),
        (only(zoom=[1.0]), lambda x, y: (0.5 + (x - 0.5) / 2, 0.5 + (y - 0.5) / 2)),
        (only(zoom=[-0.5]), lambda x, y: (0.5 + (x - 0.5) * 2**0.5, 0.5 + (y - 0.5) * 2**0.5)),
        (only(stretch=[0.3]), lambda x, y: (0.5 + (x - 0.5) / 2**0.3, 0.5 + (y - 0.5) * 2**0.3)),
        (  # the whole shift comes before the scale, the fractional one after it
            only(whole_shift=[[0.125, 0.0]], zoom=[0.5], shift=[[0.2, 0.0]]),
            lambda x, y: (0.5 + (x - 0.7) / 2**0.5 - 0.125, 0.5 + (y - 0.5) / 2**0.5),
        ),
    ],
    ids=["shift", "enlarge", "shrink", "stretch", "order"],
)
def test_geometry_samples_the_picture_where_it_should(params, source, size):
    x, y = pixel_centers(size)
    moved = resample(waves(x, y)[None], params)[0]
    torch.testing.assert_close(moved, waves(*source(x, y)), rtol=0, atol=0.01)


def test_shrinking_averages_detail_away_instead_of_aliasing():
    x, _ = pixel_centers(64)
    nearly_nyquist = (math.pi * 60 * x).cos().expand(1, 3, 64, 64)
    assert resample(nearly_nyquist, only(zoom=[-1.0])).abs().mean() < 0.05


def test_flat_pictures_stay_flat():
    flat = torch.full((8, 3, 32, 32), 0.7)
    params = draw(flat, torch.tensor(1.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(resample(flat, params), flat)


# Color


def test_brightness_adds_and_contrast_scales_what_brightness_made():
    picture = random_picture(1, 3, 8, 8)
    torch.testing.assert_close(recolor(picture, only(brightness=[0.25])), picture + 0.25)
    torch.testing.assert_close(recolor(picture, only(contrast=[-1.0])), picture / 2)
    both = recolor(picture, only(brightness=[0.25], contrast=[1.0]))
    torch.testing.assert_close(both, 2 * (picture + 0.25))


def test_luma_flip_negates_luma_keeps_chroma_and_undoes_itself():
    picture = random_picture(1, 3, 8, 8)
    flipped = recolor(picture, only(luma_flip=[1.0]))
    luma = picture.mean(1, keepdim=True)
    torch.testing.assert_close(flipped, picture - 2 * luma)
    torch.testing.assert_close(recolor(flipped, only(luma_flip=[1.0])), picture)


def test_hue_turns_round_the_gray_axis():
    picture = random_picture(1, 3, 8, 8)
    turned = recolor(picture, only(hue=[1.0]))
    torch.testing.assert_close(turned.mean(1), picture.mean(1))
    torch.testing.assert_close(turned.norm(dim=1), picture.norm(dim=1))
    assert (turned - picture).abs().mean() > 0.1
    third = recolor(picture, only(hue=[2 * math.pi / 3]))
    torch.testing.assert_close(third, picture[:, [2, 0, 1]])  # red to green to blue


def test_saturation_scales_the_distance_from_gray():
    picture = random_picture(1, 3, 8, 8)
    luma = picture.mean(1, keepdim=True)
    vivid = recolor(picture, only(saturation=[1.0]))
    torch.testing.assert_close(vivid, luma + 2 * (picture - luma))


# AugmentParams


def draw_many(p: float) -> AugmentParams:
    pictures = torch.empty(1, 1, 64, 64).expand(20_000, 3, 64, 64)
    return draw(pictures, torch.tensor(p), torch.Generator().manual_seed(0))


def test_strengths_are_the_published_ones():
    params = draw_many(p=1.0)
    normal = {"zoom": 0.2, "stretch": 0.2, "shift": 0.125}
    normal |= {"brightness": 0.2, "contrast": 0.5, "saturation": 1.0}
    for name, std in normal.items():
        values = getattr(params, name)
        assert values.mean().abs() < 0.03 * std, name
        assert values.std().item() == pytest.approx(std, rel=0.03), name
    pixels = params.whole_shift * 64
    assert torch.equal(pixels, pixels.round())
    assert pixels.unique().tolist() == list(range(-8, 9))
    assert params.luma_flip.mean().item() == pytest.approx(0.5, abs=0.02)
    assert params.hue.abs().max() <= math.pi
    assert params.hue.std().item() == pytest.approx(math.pi / 3**0.5, rel=0.03)


def test_each_transform_applies_to_a_share_p_of_the_samples_independently():
    params = draw_many(p=0.3)
    hit = torch.stack([params.zoom, params.contrast, params.shift[:, 0], params.hue]) != 0
    torch.testing.assert_close(
        hit.double().mean(1), torch.full((4,), 0.3).double(), atol=0.02, rtol=0
    )
    assert torch.corrcoef(hit.double()).triu(1).abs().max() < 0.03
    assert torch.equal(params.shift[:, 0] != 0, params.shift[:, 1] != 0)


# The module


def test_without_strength_the_inputs_come_back_themselves():
    image, raw = random_picture(2, 3, 32, 32), random_picture(2, 3, 16, 16)
    same_image, same_raw = Augmentation()(image, raw)
    assert same_image is image and same_raw is raw


def test_colors_can_change_alone():
    """Every pixel by the same affine map of its color, and nothing where nothing is drawn."""
    picture = random_picture(16, 3, 8, 8)
    generator = torch.Generator().manual_seed(0)
    moved, raw = Augmentation()(picture, picture[..., ::2, ::2], generator, color_p=0.5)
    assert torch.equal(moved[..., ::2, ::2], raw)
    colors = torch.cat([picture, torch.ones(16, 1, 8, 8)], dim=1).flatten(2).mT.double()
    expected = moved.flatten(2).mT.double()
    fitted = colors @ torch.linalg.lstsq(colors, expected).solution
    torch.testing.assert_close(fitted, expected, rtol=0, atol=1e-5)
    params = draw(picture, torch.tensor(0.0), torch.Generator().manual_seed(0), 0.5)
    assert not any(values.any() for values in params[:4]) and all(v.any() for v in params[4:])


def test_the_larger_probability_of_colors_counts():
    picture, p = random_picture(64, 3, 8, 8), torch.tensor(0.7)
    drawn = [
        draw(picture, p, torch.Generator().manual_seed(0), color_p) for color_p in (None, 0.5, 1.0)
    ]
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))
    assert drawn[2].hue.all() and torch.equal(drawn[0].zoom, drawn[2].zoom)


def test_samples_without_transforms_are_unchanged():
    picture = random_picture(4, 3, 33, 33).float()
    torch.testing.assert_close(augment(picture, neutral(4)), picture, rtol=0, atol=1e-6)


def test_image_and_raw_see_the_same_transform():
    pattern, coarse = (waves(*pixel_centers(size)).expand(16, -1, -1, -1) for size in (64, 32))
    image, raw = Augmentation(p=1.0)(pattern, coarse, torch.Generator().manual_seed(0))
    resized = F.avg_pool2d(image, 2)
    assert (resized - raw).norm() / raw.norm() < 0.01
    assert (raw - coarse).norm() / coarse.norm() > 0.5


def test_whole_shifts_are_whole_pixels_of_the_raw_image_too(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "training.augment.draw",
        lambda picture, *_: sizes.append(picture.shape[-1]) or neutral(len(picture)),
    )
    Augmentation(p=1.0)(random_picture(1, 3, 64, 64), random_picture(1, 3, 32, 32))
    Augmentation(p=1.0)(random_picture(1, 3, 64, 64))
    assert sizes == [32, 64]


@pytest.mark.parametrize("size", [32, 64, 33])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_any_size_and_type_is_returned_in_kind_and_leaves_the_input_alone(size, dtype):
    picture = random_picture(1, 3, size, size)
    image = picture.to(dtype)
    before = image.clone()
    moved, raw = Augmentation(p=1.0)(image, None, torch.Generator().manual_seed(3))
    exact, _ = Augmentation(p=1.0)(before.double(), None, torch.Generator().manual_seed(3))
    assert raw is None and moved.dtype == dtype and moved.shape == image.shape
    assert torch.equal(image, before)
    tolerance = {torch.float64: 0, torch.float32: 1e-4}.get(dtype, torch.finfo(dtype).eps * 8)
    torch.testing.assert_close(moved.double(), exact, rtol=0, atol=tolerance)


def test_the_seed_decides_and_the_default_generator_is_torchs():
    picture = random_picture(4, 3, 32, 32)
    augmentation = Augmentation(p=0.5)
    torch.manual_seed(5)
    first, _ = augmentation(picture)
    second, _ = augmentation(picture)
    torch.manual_seed(5)
    again, _ = augmentation(picture)
    explicit, _ = augmentation(picture, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first, again) and torch.equal(first, explicit)
    assert not torch.equal(first, second)


def test_strength_is_saved_and_learns_nothing():
    augmentation = Augmentation(p=0.25)
    restored = Augmentation()
    restored.load_state_dict(augmentation.state_dict())
    assert restored.p == 0.25
    assert list(augmentation.parameters()) == [] and not augmentation.p.requires_grad


# Gradients


def test_first_and_second_derivatives():
    picture = random_picture(2, 3, 5, 5).requires_grad_()
    params = draw(picture, torch.tensor(1.0), torch.Generator().manual_seed(0))

    def curved(x):
        return augment(x, params).sin()  # linear alone, the second derivative would be zero

    assert torch.autograd.gradcheck(curved, picture)
    assert torch.autograd.gradgradcheck(curved, picture)


def test_r1_through_the_augmentation_agrees_with_finite_differences():
    torch.manual_seed(0)
    critic = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Softplus(), torch.nn.Conv2d(4, 1, 6)
    ).double()
    image, raw = random_picture(2, 3, 8, 8), random_picture(2, 3, 8, 8).flip(0)

    def r1() -> torch.Tensor:
        inputs = [image.detach().requires_grad_(), raw.detach().requires_grad_()]
        moved = Augmentation(p=1.0)(*inputs, torch.Generator().manual_seed(2))
        score = torch.stack([critic(picture).sum() for picture in moved]).sum()
        gradients = torch.autograd.grad(score, inputs, create_graph=True)
        return torch.stack([gradient.square().sum() for gradient in gradients]).sum()

    weight = critic[0].weight
    (gradient,) = torch.autograd.grad(r1(), weight)
    direction, step = torch.randn_like(weight), 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        values.append(r1().item())
        with torch.no_grad():
            weight -= sign * step * direction
    slope = (values[0] - values[1]) / (2 * step)
    assert gradient.isfinite().all()
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-6)


# The controller


def paper_controller(augmentation: Augmentation, kimg_per_unit: float = 500) -> AdaController:
    return AdaController(augmentation, kimg_per_unit, target=0.6, interval=4)


def test_p_rises_on_overfitting_every_fourth_step_by_the_reals_shown():
    augmentation = Augmentation()
    controller = paper_controller(augmentation)
    for _ in range(3):
        controller.step(signs=32, reals=32)
    assert augmentation.p == 0
    controller.step(signs=32, reals=32)
    assert augmentation.p.item() == pytest.approx(4 * 32 / 500_000)


def test_p_falls_below_the_target_and_the_whole_interval_counts():
    augmentation = Augmentation(p=0.5)
    controller = paper_controller(augmentation, kimg_per_unit=100)
    for signs in (10, 10, 0, 2):  # the mean is 0.55, though two steps are above 0.6
        controller.step(signs, reals=10)
    assert augmentation.p.item() == pytest.approx(0.5 - 40 / 100_000)


def test_p_stays_in_its_range_and_still_on_target():
    for start, signs, end in ((0.0, -10, 0.0), (1.0, 10, 1.0), (0.3, 6, 0.3)):
        augmentation = Augmentation(p=start)
        controller = paper_controller(augmentation)
        for _ in range(4):
            controller.step(signs, reals=10)
        assert augmentation.p.item() == pytest.approx(end)


def test_a_resumed_controller_goes_on_where_it_stopped():
    straight, resumed = Augmentation(p=0.1), Augmentation()
    controller = paper_controller(straight)
    for signs in (8, 8, 8, 8, -8, 8):
        controller.step(signs, reals=8)
    successor = paper_controller(resumed)
    resumed.load_state_dict(straight.state_dict())
    successor.load_state_dict(controller.state_dict())
    for signs in (-8, -8, 8, 8):
        controller.step(signs, reals=8)
        successor.step(signs, reals=8)
    assert torch.equal(straight.p, resumed.p)
    assert controller.state_dict() == successor.state_dict()
