"""The losses' own promises; their numbers and gradients agree with the reference in test_parity."""

import copy
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests.helpers import DUAL, PLAIN, small_discriminator, small_generator
from torch_utils.images import blur
from training import losses
from training.cameras import intrinsics_from_focal
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator, View
from training.step_inputs import density_points

BATCH = 4
PLAINLY = losses.DiscriminatorTransform()


class Step(NamedTuple):
    generator: Generator
    discriminator: Discriminator
    inputs: losses.StepInputs
    real: Tensor

    def run(self, phase: str, transform: losses.DiscriminatorTransform = PLAINLY) -> losses.Phase:
        torch.manual_seed(0)  # the depths along rays
        g, d, inputs = self[:3]
        real = losses.RealBatch(self.real)
        if phase == "generator_density":
            points = density_points(g, BATCH)
            return losses.generator_density(g, inputs.z, *points)
        if phase == "generator_main":
            return losses.generator_main(g, d, inputs, transform)
        if phase == "discriminator_main":
            return losses.discriminator_main(g, d, inputs, real, transform)
        return losses.discriminator_r1(g, d, real, transform)


PHASES = ("generator_main", "generator_density", "discriminator_main", "discriminator_r1")


def step(sizes=PLAIN, mirror: str | None = "horizontal", **changes) -> Step:
    generator, discriminator = (
        small_generator(sizes, **changes),
        small_discriminator(sizes, **changes),
    )
    size = generator.config.data.resolution
    inputs = losses.StepInputs(torch.randn(BATCH, 16), intrinsics_from_focal(4.2647), mirror)
    return Step(generator, discriminator, inputs, torch.randn(BATCH, 3, size, size))


def gradients(phase: losses.Phase, network: torch.nn.Module) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(phase.loss, parameters, allow_unused=True)
    return {name: g for name, g in zip(names, found, strict=True) if g is not None}


# --- How much work a phase does


@pytest.mark.parametrize(
    "phase, backbone, trunk",
    [
        ("generator_main", [BATCH], [2 * BATCH]),
        ("generator_density", [BATCH], []),
        ("discriminator_main", [BATCH], [3 * BATCH]),
        ("discriminator_r1", [], [BATCH]),
    ],
)
@pytest.mark.parametrize("sizes", [PLAIN, DUAL], ids=["plain", "dual"])
def test_each_latent_passes_the_backbone_once_and_each_image_the_trunk(
    sizes, phase, backbone, trunk
):
    s = step(sizes)
    passes: dict[str, list[int]] = {"backbone": [], "trunk": [], "epilogue": []}

    def count(name, module):
        module.register_forward_hook(lambda _, inputs, __: passes[name].append(len(inputs[0])))

    count("backbone", s.generator.backbone.synthesis)
    count("trunk", s.discriminator.blocks()[0])
    count("epilogue", s.discriminator.b4)
    s.run(phase)
    assert passes == {"backbone": backbone, "trunk": trunk, "epilogue": trunk}


def test_single_view_where_no_mirror_is_drawn():
    s = step(mirror=None)
    terms = s.run("generator_main").terms
    assert "G/loss_own_view" in terms and "G/loss_mirrored" not in terms


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("sizes", [PLAIN, DUAL], ids=["plain", "dual"])
def test_phases_leave_everything_as_it_was(sizes, phase):
    s = step(sizes)
    state = copy.deepcopy([network.state_dict() for network in (s.generator, s.discriminator)])
    z, real = s.inputs.z.clone(), s.real.clone()
    result = s.run(
        phase, losses.DiscriminatorTransform(sigma=1.0, augment=lambda image, raw: (-image, raw))
    )
    result.loss.backward(
        inputs=[s.generator.decoder.net["0"].weight, s.discriminator.b4.out.weight]
    )
    assert torch.equal(s.inputs.z, z) and torch.equal(s.real, real)
    assert not s.real.requires_grad and s.real.grad is None
    after = [network.state_dict() for network in (s.generator, s.discriminator)]
    for old, new in zip(state, after, strict=True):
        assert all(torch.equal(old[key], new[key]) for key in old)
    assert not any(term.requires_grad for term in result.terms.values())


# --- Poses that are known


@pytest.mark.parametrize("phase", ["generator_main", "discriminator_main"])
def test_known_poses_are_rendered_and_condition_the_discriminator(phase):
    s = step(camera__poses="dataset", mirror=None)
    s.generator.pose_source.known = known = torch.tensor([[1.2, 1.4]])
    conditions = []
    s.discriminator.mapping.register_forward_hook(
        lambda _, args, options, __: conditions.append(options["c"]), with_kwargs=True
    )
    result = s.run(phase)
    assert torch.equal(conditions[0], known.expand(BATCH, 2))
    assert "G/pose_consistency" not in result.terms
    if phase == "generator_main":
        assert torch.equal(result.terms["pose/generated_h"], known.expand(BATCH, 2)[:, 0])
        assert not any(".affine_layer" in name for name in gradients(result, s.generator))


@pytest.mark.parametrize("phase", [losses.discriminator_main, losses.discriminator_r1])
def test_scores_of_photographs_are_conditioned_on_their_known_poses(phase):
    s = step(camera__poses="prior", mirror=None)
    with_inputs = (s.inputs,) if phase is losses.discriminator_main else ()
    results = []
    for condition in (torch.zeros(BATCH, 2), torch.ones(BATCH, 2)):
        torch.manual_seed(0)
        real = losses.RealBatch(s.real, condition)
        results.append(phase(s.generator, s.discriminator, *with_inputs, real, PLAINLY))
    key = "D/score_real" if with_inputs else "D/r1_penalty"
    assert not torch.equal(results[0].terms[key], results[1].terms[key])


# --- Learned poses: entropy, swapping, consistency


def test_entropy_widens_the_poses_and_moves_only_their_head():
    spread, s = step(loss__pose_entropy_weight=0.5), step()
    widened, plain = (run.run("generator_main") for run in (spread, s))
    entropy = widened.terms["G/pose_entropy"]
    found, free = (
        gradients(result, run.generator) for result, run in ((widened, spread), (plain, s))
    )
    name = "backbone.mapping.affine_layer2.weight"
    change = found[name] - free[name]
    head = spread.generator.mapping.affine_layer2
    with torch.no_grad():
        head.weight -= 1e-3 / found[name].norm() * change
    assert spread.run("generator_main").terms["G/pose_entropy"] > entropy


def test_entropy_reaches_nothing_but_the_pose_head():
    s = step(loss__pose_entropy_weight=0.5)
    source = s.generator.pose_source
    w = s.generator.mapping(s.inputs.z)
    poses = source.sample(s.generator, s.inputs.z, w)
    terms = {term.name: term for term in source.losses(s.generator, w, poses, poses.pose)}
    assert terms["pose_entropy"].weight == -0.5
    parameters = dict(s.generator.named_parameters())
    found = torch.autograd.grad(terms["pose_entropy"].value, parameters.values(), allow_unused=True)
    reached = {name for name, g in zip(parameters, found, strict=True) if g is not None}
    assert reached == {name for name in parameters if ".affine_layer" in name}


@pytest.mark.parametrize("swapped", [False, True])
def test_poses_may_be_those_of_the_neighbors(swapped):
    s = step(mirror=None, camera__swap_poses_prob=float(swapped))
    own = s.generator.latent(s.inputs.z).pose
    rendered = s.run("generator_main").terms["pose/generated_h"]
    assert torch.equal(rendered, (own.roll(1, dims=0) if swapped else own)[:, 0])


@pytest.mark.parametrize("swapped", [False, True])
def test_a_discriminator_that_knows_the_rendered_poses_changes_no_pose(swapped):
    s = step(mirror=None, camera__swap_poses_prob=float(swapped))
    own = s.generator.latent(s.inputs.z).pose.detach()
    pose = own.roll(1, dims=0) if swapped else own
    forward = s.discriminator.forward
    s.discriminator.forward = lambda *inputs, batches: forward(*inputs, batches=batches)._replace(
        pose=pose.repeat(batches, 1)
    )
    terms = s.run("generator_main").terms
    assert terms["G/pose_consistency"].item() == pytest.approx(0, abs=1e-10)
    assert s.run("discriminator_main").terms["D/pose_error"].item() == pytest.approx(0, abs=1e-10)


# --- What a phase teaches whom


def test_discriminator_phases_teach_the_generator_nothing():
    s = step()
    for phase in ("discriminator_main", "discriminator_r1"):
        assert gradients(s.run(phase), s.generator) == {}


def test_pose_consistency_moves_only_the_pose_head():
    with_term, without = (
        step(loss__pose_consistency_weight=1.0),
        step(loss__pose_consistency_weight=0.0),
    )
    with_it = gradients(with_term.run("generator_main"), with_term.generator)
    free = gradients(without.run("generator_main"), without.generator)
    assert with_it.keys() == free.keys()
    moved = {name for name in with_it if not torch.allclose(with_it[name], free[name], atol=1e-7)}
    head = {name for name in with_it if ".affine_layer" in name}
    assert len(head) == 4 and moved == head


def test_pose_error_moves_only_trunk_and_pose_head():
    taught, untaught = step(loss__pose_weight=1.0), step(loss__pose_weight=0.0)
    with_pose = gradients(taught.run("discriminator_main"), taught.discriminator)
    without = gradients(untaught.run("discriminator_main"), untaught.discriminator)
    moved = {n for n in with_pose if not torch.allclose(with_pose[n], without[n], atol=1e-7)}
    assert {"b4.cam_out1.weight", "b4.cam_out2.bias", "b4.conv.weight", "b32.conv0.weight"} <= moved
    assert not any(name.startswith(("b4.fc", "b4.out", "mapping")) for name in moved)


def test_weights_scale_their_terms():
    for phase, changes in [
        ("generator_density", {"loss__density_weight": 0.5}),  # twice the preset's
        ("discriminator_r1", {"loss__gamma": 2.0}),
    ]:
        torch.testing.assert_close(step(**changes).run(phase).loss, 2 * step().run(phase).loss)


def test_density_term_is_zero_for_a_field_without_variation():
    s = step()
    s.generator.decoder.net["0"].weight.data.zero_()
    assert s.run("generator_density").loss.item() == 0
    assert step().run("generator_density").loss.item() > 0


def test_density_points_and_their_neighbors():
    s = step(loss__density_points=5000, loss__density_step=0.01)
    points, nearby = density_points(s.generator, 2)
    assert points.shape == nearby.shape == (2, 5000, 3)
    assert -1 <= points.min() < -0.99 and 0.99 < points.max() <= 1
    assert (nearby - points).std().item() == pytest.approx(0.01, rel=0.05)


def test_style_mixing_changes_the_image_and_not_the_pose():
    s = step()
    other = torch.randn(BATCH, 16)

    def generate(start):
        torch.manual_seed(0)
        mixing = None if start is None else (other, start)
        return losses.generate(s.generator, s.inputs._replace(mixing=mixing))

    num_ws = s.generator.backbone.synthesis.num_ws
    _, plain, plain_views = generate(None)
    for start in (1, num_ws - 1):
        _, mixed, views = generate(start)
        assert torch.equal(mixed.pose, plain.pose)
        assert not torch.allclose(views[0].image, plain_views[0].image, atol=1e-3)
    assert torch.equal(generate(num_ws).views[0].image, plain_views[0].image)


# --- R1


@pytest.mark.parametrize("sigma", [0.0, 0.8])
def test_r1_against_finite_differences(sigma):
    """The penalty, and its gradient in D's weights: in float64, with steps that cross no kink."""
    s = step(loss__gamma=3.0)
    s.discriminator.double()
    s = s._replace(real=s.real.double())
    transform, h = losses.DiscriminatorTransform(sigma), 1e-8
    phase = s.run("discriminator_r1", transform)

    # The score is conditioned on the estimated pose, through which no gradient goes.
    pose = s.discriminator(blur(s.real, sigma)).pose.detach()

    def score(real: Tensor, discriminator=s.discriminator) -> Tensor:
        return discriminator(blur(real, sigma), condition=pose).score.sum()

    real, direction = s.real.clone().requires_grad_(), torch.randn_like(s.real)
    (gradient,) = torch.autograd.grad(score(real), real)
    slope = (score(real + h * direction) - score(real - h * direction)).item() / (2 * h)
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-5)
    penalty = gradient.square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(phase.terms["D/r1_penalty"], penalty)
    torch.testing.assert_close(phase.loss, 1.5 * penalty.mean())

    def weights(discriminator: Discriminator) -> list[Tensor]:
        return [m.weight for n, m in discriminator.named_modules() if n.endswith("conv0")]

    directions = [torch.randn_like(weight) for weight in weights(s.discriminator)]

    def loss_after(distance: float) -> float:
        moved = copy.deepcopy(s.discriminator)
        for weight, direction in zip(weights(moved), directions, strict=True):
            weight.data.add_(distance * direction)
        (gradient,) = torch.autograd.grad(score(real, moved), real)
        return 1.5 * gradient.square().sum().item() / BATCH

    ours = torch.autograd.grad(phase.loss, weights(s.discriminator))
    products = [(a * b).sum().item() for a, b in zip(ours, directions, strict=True)]
    slope = (loss_after(h) - loss_after(-h)) / (2 * h)
    assert sum(products) == pytest.approx(slope, rel=1e-4)


def test_r1_reaches_through_the_augmentation_to_the_photographs():
    def steeper(image, raw):  # the same values with twice the slope
        return 2 * image - image.detach(), raw if raw is None else 2 * raw - raw.detach()

    for sizes in (PLAIN, DUAL):
        s = step(sizes)
        plain = s.run("discriminator_r1")
        augmented = s.run("discriminator_r1", losses.DiscriminatorTransform(augment=steeper))
        torch.testing.assert_close(augmented.loss, 4 * plain.loss)


def test_r1_counts_the_raw_image_as_an_input_of_its_own():
    def blind(image, raw):
        return image.detach() + 0 * image, raw

    s = step(DUAL)
    both = s.run("discriminator_r1").terms["D/r1_penalty"]
    raw_only = s.run("discriminator_r1", losses.DiscriminatorTransform(augment=blind)).terms[
        "D/r1_penalty"
    ]
    assert (0 < raw_only).all() and (raw_only < both).all()


# --- What images pass on their way to D


@pytest.mark.parametrize("sigma", [0.5, 1.7])
def test_blur_of_a_point_is_the_kernel(sigma):
    image = torch.zeros(1, 2, 31, 31)
    image[..., 15, 15] = 1
    x = torch.arange(31) - 15.0
    taps = torch.exp2(-((x / sigma) ** 2)) * (x.abs() <= math.floor(3 * sigma))
    taps = taps / taps.sum()
    expected = torch.outer(taps, taps).expand(1, 2, 31, 31)
    torch.testing.assert_close(blur(image, sigma), expected)


def test_no_blur_once_it_has_faded():
    image = torch.randn(1, 3, 8, 8)
    assert blur(image, 0.0) is image
    assert torch.equal(blur(image, 0.3), image)


def test_images_are_blurred_once_and_then_augmented():
    s = step(DUAL)
    received = []

    def watch(image, raw):
        received.append((image, raw))
        return image, raw

    s.run("discriminator_main", losses.DiscriminatorTransform(2.0, watch))
    assert len(received) == 1  # both views and the photographs
    image, raw = (part.chunk(3)[-1] for part in received[0])
    torch.testing.assert_close(image, blur(s.real, 2.0))
    small = torch.nn.functional.interpolate(s.real, size=16, mode="bilinear")
    torch.testing.assert_close(raw, blur(small, 2.0))


def test_single_discrimination_augments_no_raw_image():
    s = step(PLAIN)
    received = []
    s.run(
        "discriminator_main",
        losses.DiscriminatorTransform(0, lambda *pair: received.append(pair[1]) or pair),
    )
    assert received == [None]


def test_depth_spread_is_that_of_what_is_opaque():
    depth = torch.tensor([[1.0, 3.0], [9.0, 9.0]]).expand(2, 1, 2, 2)
    opacity = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).expand(2, 1, 2, 2)
    view = View(depth, depth, depth, opacity)
    torch.testing.assert_close(losses.depth_spread(view), torch.ones(2))
    flat_view = view._replace(depth=torch.full_like(depth, 2.0))
    torch.testing.assert_close(losses.depth_spread(flat_view), torch.zeros(2))
    nothing = view._replace(opacity=torch.zeros_like(opacity))
    assert losses.depth_spread(nothing).isfinite().all()
