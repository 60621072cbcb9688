"""Objects before a background of their own (`generator.background`)."""

import pytest
import torch

from dnnlib import UserError
from tests.helpers import (
    DUAL,
    PLAIN,
    small_config,
    small_discriminator,
    small_generator,
    tiny_config,
)
from training import losses
from training.networks.background import RESOLUTION, Background
from training.networks.generator import Generator
from training.outputs.objects import Objects
from training.outputs.projection import ProjectionOptions, project
from training.step_inputs import StepInputs

YAWS = torch.tensor([[-20.0, 0.0], [0.0, 0.0], [20.0, 0.0]])


def with_background(sizes=PLAIN) -> Generator:
    return small_generator(sizes, generator__background=True).eval()


def emptied(generator: Generator) -> Generator:
    """Without matter: what is left to see is the background."""
    with torch.no_grad():
        generator.decoder.net["2"].bias[0] = -100
    return generator


@pytest.mark.parametrize("sizes", [PLAIN, DUAL], ids=["plain", "super-resolved"])
def test_it_is_the_same_from_all_sides_and_another_for_each_object(sizes):
    generator = emptied(with_background(sizes))
    views = Objects.from_seeds(generator, range(2)).render(generator.pose_from_degrees(YAWS)).raw
    torch.testing.assert_close(views[:, 0], views[:, 1])
    torch.testing.assert_close(views[:, 0], views[:, 2])
    assert views.abs().max() <= 1 and views[0, 0].std() > 0.01
    assert not torch.allclose(views[0, 0], views[1, 0], atol=0.01)


@torch.no_grad()
def test_it_shows_as_far_as_the_object_lets_it_through():
    generator = with_background()
    objects = Objects.from_seeds(generator, range(2))
    whole = objects.own_view()
    behind = Objects.from_seeds(emptied(with_background()), range(2)).own_view().image
    background, generator.background = generator.background, None
    alone = objects.own_view()
    generator.background = background
    assert whole.opacity.mean() > 0.1
    expected = alone.image + (1 - whole.opacity) * (behind + 1)
    torch.testing.assert_close(whole.image, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(whole.depth, alone.depth)


def test_objects_that_are_alike_have_different_backgrounds():
    config = tiny_config(
        generator__background=True,
        rendering__white_background=False,
        generator__diversity_clarity=0.5,
    )
    torch.manual_seed(0)
    generator = Generator(config)
    z = torch.randn(3, config.generator.z_dim)
    inputs = StepInputs(z, generator.intrinsics, None, truncation=torch.zeros([]))
    seen: list[torch.Tensor] = []
    generator.planes = lambda ws, noise: seen.append(ws) or Generator.planes(generator, ws, noise)
    losses.generate(generator, inputs)
    (ws,) = seen
    of_object, of_background = ws.split(
        [generator.num_object_ws, generator.background.num_ws], dim=1
    )
    assert torch.equal(of_object[0], of_object[1])
    assert not torch.allclose(of_background[0], of_background[1], atol=1e-3)


def test_a_photograph_is_found_with_its_background():
    generator = emptied(with_background())
    discriminator = small_discriminator().eval()
    with torch.no_grad():
        images = Objects.from_seeds(generator, range(2)).own_view().image
    options = ProjectionOptions(steps=60, perceptual_weight=0, prior_weight=0)
    found = project(generator, discriminator, images, options)
    assert found.psnr.min() > 20


def test_white_and_a_background_of_its_own_are_a_contradiction():
    with pytest.raises(UserError, match=r"generator\.background: set one of them to false"):
        small_config(generator__background=True, rendering__white_background=True)


@torch.no_grad()
def test_while_training_each_view_moves_it_to_the_side():
    background = Background(w_dim=8, features=3).eval()
    ws, views = torch.randn(2, background.num_ws, 8), 6
    shape = len(ws) * views, 3, RESOLUTION, RESOLUTION
    empty = torch.full(shape, -1.0), torch.zeros(shape)[:, :1]
    still = background(ws, *empty)
    moved = background.train()(ws, *empty)
    reflected = torch.cat(
        [still, still.flip(-1), still], dim=-1
    )  # any columns side by side may be seen
    windows = reflected.unfold(-1, RESOLUTION, 1)[..., : 2 * RESOLUTION, :].movedim(-2, 1)
    distance = (windows - moved[:, None]).abs().amax(dim=(2, 3, 4))
    assert (distance.min(dim=1).values == 0).all()
    assert len(set(distance.argmin(dim=1).tolist())) > 4
