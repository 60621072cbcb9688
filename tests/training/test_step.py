"""One training step: what it changes, what it survives, and that processes agree on it."""

import copy
import math
import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from dnnlib import UserError
from tests.helpers import record_gradients, set_diversity, tiny_config
from training import losses
from training.run.loop import open_dataset
from training.schedules import blur_sigma, raw_resolution
from training.step import Trainer, TrainingDiverged
from training.step_inputs import density_points

CPU = torch.device("cpu")


def make_trainer(photographs: Path, **changes) -> Trainer:
    config = tiny_config(photographs, **changes)
    return Trainer(config, open_dataset(config), CPU)


def weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(before: dict, network: torch.nn.Module) -> set[str]:
    after = network.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_step_moves_all_parameters_and_their_averages(photographs):
    trainer = make_trainer(photographs)
    networks = (
        *(trainer.generator, trainer.discriminator),
        *(trainer.averaged_generator, trainer.averaged_discriminator),
    )
    before = [weights(network) for network in networks]
    trainer.step()
    for old, network in zip(before, networks, strict=True):
        parameters = {name for name, _ in network.named_parameters()}
        assert parameters <= changed(old, network)
    assert trainer.images_processed == 4
    w_avg = "backbone.mapping.w_avg"
    assert torch.equal(
        trainer.averaged_generator.state_dict()[w_avg], trainer.generator.state_dict()[w_avg]
    )


@pytest.mark.parametrize(
    "name, tensor", [("generator", "decoder.net.0.weight"), ("discriminator", "b4.fc.weight")]
)
def test_averages_follow_their_half_life(photographs, name, tensor):
    trainer = make_trainer(photographs, optim__ema_kimg=0.008, optim__ema_rampup="null")
    old = weights(getattr(trainer, f"averaged_{name}"))[tensor]
    trainer.step()
    decay = 0.5 ** (4 / 8)
    expected = old.lerp(getattr(trainer, name).state_dict()[tensor], 1 - decay)
    averaged = getattr(trainer, f"averaged_{name}").state_dict()[tensor]
    torch.testing.assert_close(averaged, expected)


def test_regularizers_run_in_their_own_rhythm(photographs):
    trainer = make_trainer(photographs, loss__density_every=2, loss__r1_every=3)
    counted = {"generator_density": 0, "discriminator_r1": 0}

    def counting(name):
        original = getattr(losses, name)

        def count(*args):
            counted[name] += 1
            return original(*args)

        return count

    trainer.losses = losses.LOSSES._replace(**{name: counting(name) for name in counted})
    for _ in range(4):
        trainer.step()
    assert counted == {"generator_density": 2, "discriminator_r1": 2}  # 0, 2 and 0, 3


def test_lazy_regularization_slows_adam_down(photographs):
    trainer = make_trainer(photographs)
    group = trainer.g_optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.0025 * 4 / 5)
    assert group["betas"] == pytest.approx((0, 0.99 ** (4 / 5)))
    group = trainer.d_optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.002 * 16 / 17)
    assert group["betas"] == pytest.approx((0, 0.99 ** (16 / 17)))


def test_same_seed_same_weights_other_seed_other_weights(photographs):
    results = []
    for seed in (1, 1, 2):
        trainer = make_trainer(photographs, run__seed=seed)
        trainer.step()
        results.append(weights(trainer.generator))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert not torch.equal(results[0]["decoder.net.0.weight"], results[2]["decoder.net.0.weight"])


@pytest.mark.parametrize("augment", ["noaug", "fixed", "ada"])
def test_augmentation_modes(photographs, augment):
    trainer = make_trainer(
        photographs, augment__mode=augment, augment__every=1, augment__kimg=0.1, augment__target=0
    )
    for _ in range(2):
        trainer.step()
    p = trainer.augmentation.p.item()
    if augment == "ada":
        assert p in (0, pytest.approx(0.04), pytest.approx(0.08))  # 4 images move p by 0.04
        assert trainer.feedback.ada.state_dict()["steps"] == 0
    else:
        assert p == pytest.approx({"noaug": 0.0, "fixed": 0.2}[augment])


@pytest.mark.parametrize("augment", ["noaug", "fixed"])
def test_colors_of_ds_images_change_while_objects_are_alike(photographs, augment):
    changes = {"augment__mode": augment, "augment__p": 0.0, "augment__color_p": 1.0}
    trainer = make_trainer(photographs, generator__diversity_clarity=0.5, **changes)
    image = torch.rand(16, 3, 32, 32)

    def recolored():
        found, _ = trainer._transform().augment(image, None)
        return (found - image).abs().flatten(1).amax(1) > 1e-4

    assert recolored().all()
    trainer.feedback.diversity.psi.fill_(0.9)
    assert 0 < recolored().sum() < 16
    trainer.feedback.diversity.psi.fill_(1)
    assert not recolored().any()
    without = make_trainer(photographs, generator__diversity_clarity=None, **changes)
    assert (without._transform().augment is None) == (augment == "noaug")


def test_objects_are_held_while_psi_grows(photographs):
    changes = {"loss__pose_anchor_weight": 4.0, "generator__diversity_clarity": 0.5}
    trainer = make_trainer(photographs, **changes)
    assert trainer.feedback.pose_anchor_weight == 0
    set_diversity(trainer.feedback.diversity, psi=0.5, explained=0.9)
    assert trainer.feedback.pose_anchor_weight == 2
    trainer.step()
    assert "G/pose_anchor" in trainer.stats.collect()
    for name, value in changes.items():
        trainer = make_trainer(photographs, **{name: value})
        trainer.step()
        assert "G/pose_anchor" not in trainer.stats.collect()


def test_gradient_accumulation_covers_the_batch(photographs):
    trainer = make_trainer(photographs, run__batch_gpu=2)
    sizes = []

    def record(g, d, inputs, real, transform):
        sizes.append((len(inputs.z), len(real.images)))
        return losses.discriminator_main(g, d, inputs, real, transform)

    trainer.losses = losses.LOSSES._replace(discriminator_main=record)
    trainer.step()
    assert sizes == [(2, 2), (2, 2)]


def test_accumulated_gradient_is_the_mean(photographs):
    """Two phases of loss a . p and b . p step along (a + b) / 2."""
    trainer = make_trainer(photographs, run__batch_gpu=2)
    parameter = trainer.generator.decoder.net["0"].bias
    a, b = torch.randn_like(parameter), torch.randn_like(parameter)

    def phase(slope: torch.Tensor) -> losses.Phase:
        return losses.Phase((slope * parameter).sum(), {"x": slope})

    gradients = record_gradients(trainer.g_optimizer, [parameter])
    assert trainer._update(trainer.g_optimizer, phase, [a, b], scale=4)
    torch.testing.assert_close(gradients, [4 * (a + b) / 2])
    assert parameter.grad is None  # its memory is for the other phases


def test_bad_steps_are_skipped_named_and_end_the_run(photographs):
    trainer = make_trainer(photographs, run__max_bad_steps=3, loss__gamma=0)
    bias = trainer.generator.decoder.net["2"].bias
    good = bias.detach().clone()
    with torch.no_grad():
        bias[0] = math.nan
    before = weights(trainer.discriminator)
    for _ in range(2):
        trainer.step()
    assert trainer.bad_steps == 2 and not changed(before, trainer.discriminator)
    assert trainer.stats.collect()["steps_skipped"].mean == 1
    with torch.no_grad():
        bias.copy_(good)
    trainer.step()
    assert trainer.bad_steps == 0 and changed(before, trainer.discriminator)
    with torch.no_grad():
        bias[0] = math.nan
    for _ in range(2):
        trainer.step()
    with pytest.raises(TrainingDiverged, match="3 steps in a row .* loss term D/loss_own_view"):
        trainer.step()


def test_a_gradient_that_is_not_finite_is_named(photographs):
    trainer = make_trainer(photographs)
    parameter = trainer.generator.decoder.net["0"].bias
    phase = losses.Phase((parameter * 0).sqrt().sum(), {"fine": torch.zeros(1)})
    before = weights(trainer.generator)
    assert trainer._update(trainer.g_optimizer, lambda _: phase, [0]) == []
    assert not changed(before, trainer.generator)
    assert trainer._first_non_finite == "gradient of Generator.decoder.net.0.bias"


def test_schedules():
    config = tiny_config(loss__blur_sigma=10, loss__blur_kimg=200, run__batch=16)
    assert [blur_sigma(config, kimg) for kimg in (0, 50, 100, 200)] == [10, 5, 0, 0]
    growing = tiny_config(
        data__resolution=512,
        rendering__raw_resolution=64,
        rendering__raw_resolution_end=128,
        rendering__raw_growth_kimg=1000,
    )
    assert [raw_resolution(growing, k) for k in (0, 500, 1000, 2000)] == [64, 96, 128, 128]


@pytest.mark.parametrize(
    "changes",
    [
        {"camera__mirrors": ""},
        {"camera__mirrors": "shapenet_horizontal"},
        {"camera__range_h": "1.5,1.6", "camera__range_v": "0.1,3"},
        {"camera__init_std": "null"},
        {"camera__swap_poses_prob": 0},
        {"loss__pose_entropy_weight": 0},
        {"rendering__density_scale": 1},
        {"generator__style_mixing": 1},
        {"generator__diversity_clarity": 0.6},
        {"generator__diversity_clarity": 0.6, "augment__color_p": 0.9},
        {"camera__spread_rate": 50, "loss__pose_entropy_weight": 0},
        {"rendering__plane_axes": "eg3d"},
        {"rendering__importance_samples": 0},
        {"rendering__white_background": False},
        {"run__precision": "bf16"},
        {"data__mirror": True, "data__crop": "pad", "data__max_images": 5},
        {"loss__blur_sigma": 2, "loss__blur_kimg": 1},
        {"loss__gamma": 0, "loss__density_weight": 0},
        {"data__resolution": 64, "rendering__raw_resolution": 64},
        {"data__resolution": 128},
        {"data__resolution": 128, "discriminator__dual": True},
    ],
    ids=str,
)
def test_every_option_trains_and_changes_what_is_learned(photographs, changes):
    torch.manual_seed(0)
    plain = make_trainer(photographs)
    plain.step()
    trainer = make_trainer(photographs, **changes)
    trainer.step()
    assert trainer.bad_steps == 0
    pairs = [(plain.generator, trainer.generator), (plain.discriminator, trainer.discriminator)]
    states = [(a.state_dict(), b.state_dict()) for a, b in pairs]
    assert any(
        a.keys() != b.keys()
        or any(a[name].shape != b[name].shape or not torch.equal(a[name], b[name]) for name in a)
        for a, b in states
    )


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [256, 512])
def test_large_images_train(photographs, resolution):
    trainer = make_trainer(
        photographs,
        data__resolution=resolution,
        discriminator__dual=True,
        run__batch=2,
        rendering__raw_resolution=16,
        rendering__raw_resolution_end=24,
        rendering__raw_growth_kimg=0.002,
        discriminator__channel_base=512,
    )
    for _ in range(2):
        trainer.step()
    assert trainer.bad_steps == 0
    assert trainer.generator.raw_resolution == 24
    z = torch.randn(1, trainer.config.generator.z_dim)
    assert trainer.averaged_generator(z).image.shape == (1, 1, 3, resolution, resolution)


def test_frozen_blocks_stay(photographs):
    trainer = make_trainer(photographs, discriminator__freeze_blocks=2)
    before = weights(trainer.discriminator)
    trainer.step()
    moved = {name.split(".")[0] for name in changed(before, trainer.discriminator)}
    assert moved == {"b8", "b4", "mapping"}  # of b32, b16, b8


def test_a_network_without_channels_is_refused(photographs):
    with pytest.raises(UserError, match="channel_base of 16 leaves no channels at 32 px"):
        make_trainer(photographs, discriminator__channel_base=16)


def test_a_generator_with_given_poses_is_refused(photographs):
    with pytest.raises(UserError, match="cannot be trained"):
        make_trainer(photographs, camera__poses="given")


# Two processes of 4 samples against one of 2 x 4: the same latents, noise, coins, photographs.

PHASES = ("generator_main", "generator_density", "discriminator_main", "discriminator_r1")


def micro_batch_phase(trainer: Trainer, name: str, index: int) -> losses.Phase:
    """Phase `name` of micro-batch `index`, whose chance is seeded by the index alone."""
    torch.manual_seed(100 + index)
    g, d = trainer.generator, trainer.discriminator
    z = torch.randn(4, trainer.config.generator.z_dim)
    real = losses.RealBatch(torch.rand(4, 3, 32, 32) * 2 - 1)
    transform = losses.DiscriminatorTransform()
    if name == "generator_main":
        return losses.generator_main(g, d, trainer._inputs(z), transform)
    if name == "generator_density":
        return losses.generator_density(g, z, *density_points(g, 4))
    if name == "discriminator_main":
        return losses.discriminator_main(g, d, trainer._inputs(z), real, transform)
    return losses.discriminator_r1(g, d, real, transform)


def gradients_of(trainer: Trainer, indices: list[int]) -> dict[str, torch.Tensor]:
    """Mean gradients of all phases over micro-batches and processes."""
    found = {}
    for phase in PHASES:
        network = trainer.generator if phase.startswith("generator") else trainer.discriminator
        network.zero_grad(set_to_none=True)
        for index in indices:
            loss = micro_batch_phase(trainer, phase, index).loss / len(indices)
            parameters, last = list(network.parameters()), index == indices[-1]
            trainer.averager.backward(loss, parameters, phase, last)
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                found[f"{phase}/{name}"] = parameter.grad.clone()
    return found


def one_of_two(rank: int, folder: Path, photographs: Path) -> None:
    torch.set_num_threads(1)
    store = (folder / "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    gradients = gradients_of(make_trainer(photographs, run__batch=8, run__gpus=2), [rank])
    torch.save(gradients, folder / f"gradients-{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_compute_the_gradients_of_one(photographs, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=one_of_two, args=(rank, tmp_path, photographs)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    torch.set_num_threads(1)  # as they have: L1's gradient is a sign, which rounding can turn
    expected = gradients_of(make_trainer(photographs, run__batch=8, run__batch_gpu=4), [0, 1])
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for rank in range(2):
        found = torch.load(tmp_path / f"gradients-{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for phase in PHASES:
            names = [name for name in expected if name.startswith(phase)]
            a, b = (torch.cat([part[n].flatten() for n in names]) for part in (found, expected))
            assert (a - b).norm() <= 1e-6 * b.norm(), phase


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_trainer_goes_on_bit_for_bit(photographs, precision):
    options = {"run__precision": precision, "loss__r1_every": 2}
    trainer = make_trainer(photographs, **options)
    trainer.step()
    state = copy.deepcopy(trainer.state_dict())
    trainer.step()
    resumed = make_trainer(photographs, **options)
    assert resumed.load_state_dict(state) == []
    resumed.step()
    for network in ("generator", "discriminator"):
        assert not changed(weights(getattr(trainer, network)), getattr(resumed, network))


def test_a_run_keeps_its_precision_unless_one_is_asked_for(photographs):
    state = make_trainer(photographs).state_dict() | {"precision": "bf16"}
    automatic = make_trainer(photographs, run__precision="auto")
    other = "fp32" if automatic.precision == "bf16" else "bf16"
    notes = automatic.load_state_dict(state | {"precision": other})
    assert automatic.precision == other and other in notes[0]
    asked = make_trainer(photographs, run__precision="fp32")
    assert asked.load_state_dict(state) == [] and asked.precision == "fp32"
