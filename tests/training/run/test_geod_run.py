"""Runs with GeoD: what is built when, and that a cut run goes on as if nothing had happened."""

import gzip
import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from dnnlib import UserError
from tests.helpers import tiny_config
from tests.training.run.test_resume import assert_same_run, run, same
from training import losses
from training.config import Config
from training.files.inverse_renderer_file import load_inverse_renderer_file
from training.files.legacy_inverse_renderer import read_inverse_renderer
from training.files.network_file import load_network
from training.run import loop
from training.run.checkpoint import load_checkpoint
from training.run.loop import open_dataset
from training.run.run_folder import checkpoints
from training.step import Trainer

LEGACY = Path(__file__).parents[2] / "data" / "geod" / "geod_legacy_ir.pkl.gz"
# Steps of 4 images: the ramp goes from step 1 to step 5, the inverse renderer trains to step 4.
GEOD = {
    "geod__weight_end": 0.1,
    "geod__start_kimg": 0.002,
    "geod__end_kimg": 0.02,
    "geod__train_until_kimg": 0.016,
    "geod__width": 16,
    "geod__features": "random",
    "run__kimg": 0.028,
    "run__tick": 0.008,
    "run__snap": 2,
    "run__keep": 9,
}


@pytest.fixture
def without_pictures(monkeypatch):
    monkeypatch.setattr(loop, "snapshot_pictures", lambda *_, **__: {})
    monkeypatch.setattr(loop, "geod_pictures", lambda *_, **__: {})


def config_of(photographs: Path, **changes) -> Config:
    return tiny_config(photographs, **(GEOD | changes))


def trainer_of(config: Config) -> Trainer:
    return Trainer(config, open_dataset(config), torch.device("cpu"))


def test_without_weight_nothing_is_built(photographs):
    off = trainer_of(config_of(photographs, geod__weight_end=0.0))
    assert off.supervisor is None and "IR" not in off.state_dict()


def test_it_leaves_the_rest_of_the_run_alone_until_its_time(photographs):
    """The inverse renderer draws no random numbers, so the first step is that of any run."""
    generators = {}
    for weight in (0.1, 0.0):
        trainer = trainer_of(config_of(photographs, geod__weight_end=weight))
        assert trainer.supervisor is None or "random features" in trainer.supervisor.note
        for step in (1, 2):
            trainer.step()
            generators[weight, step] = [p.detach().clone() for p in trainer.generator.parameters()]
    assert same(generators[0.1, 1], generators[0.0, 1])
    assert not same(generators[0.1, 2], generators[0.0, 2])


@pytest.mark.parametrize(
    "stop_at",
    [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(6, marks=pytest.mark.slow)],
)
def test_a_cut_run_goes_on_as_if_nothing_had_happened(
    photographs,
    tmp_path,
    without_pictures,
    stop_at,
):
    """Cut before the ramp, within it, and after the inverse renderer's end."""
    config = config_of(photographs)
    run(config, tmp_path / "whole")
    assert run(config, tmp_path / "cut", stop_at=stop_at)
    run(config, tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    state = load_checkpoint(checkpoints(tmp_path / "whole")[0])["trainer"]
    assert state["ir_optimizer"]["state"][0]["step"] == 5


@pytest.fixture
def published(tmp_path) -> str:
    path = tmp_path / "published.pkl"
    path.write_bytes(gzip.decompress(LEGACY.read_bytes()))
    return str(path)


def test_a_file_s_inverse_renderer_is_not_trained_further(photographs, published):
    changes = {"rendering__near": 2.25, "rendering__far": 3.3, "geod__pretrained": published}
    trainer = trainer_of(config_of(photographs, **changes))
    for _ in range(3):
        trainer.step()
    assert published in trainer.supervisor.note
    expected = read_inverse_renderer(published).state_dict()
    for name, value in trainer.supervisor.network.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert trainer.stats.collect()["G/normal_loss"].mean > 0


def test_a_file_s_depths_must_be_the_run_s(photographs, published):
    with pytest.raises(UserError, match="rendering.near") as refusal:
        trainer_of(config_of(photographs, geod__pretrained=published))
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.slow
def test_a_run_s_network_files_hold_it_on_request(photographs, tmp_path):
    """And then it can be taken from there; the run's pictures are there too."""
    changes = {"run__kimg": 0.008, "run__snap": 1}
    run(config_of(photographs, **changes), tmp_path / "without")
    run(config_of(photographs, geod__in_network_files=True, **changes), tmp_path / "with")
    (without,), (holding,) = (
        list((tmp_path / name).glob("*.safetensors")) for name in ("without", "with")
    )
    with pytest.raises(UserError, match="--with-ir"):
        load_inverse_renderer_file(without)
    stored = load_inverse_renderer_file(holding)
    newest = checkpoints(tmp_path / "with")[0]
    assert same(stored.state_dict(), load_checkpoint(newest)["trainer"]["IR"])
    assert load_network(holding).generator is not None
    later = trainer_of(config_of(photographs, geod__pretrained=str(holding)))
    assert same(later.supervisor.network.state_dict(), stored.state_dict())
    assert list((tmp_path / "with").glob("normals_ir-*.png"))


def test_a_file_without_geod_is_refused(photographs):
    with pytest.raises(UserError, match="--geod"):
        config_of(photographs, geod__weight_end=0.0, geod__pretrained="published.pkl")


# Two processes of 4 samples against one of 2 x 4: the same latents, noise, photographs.


def gradients_of(photographs: Path, indices: list[int], **changes) -> dict[str, torch.Tensor]:
    """Of both phases that GeoD has a part in, averaged over micro-batches and processes."""
    trainer = trainer_of(config_of(photographs, run__batch=8, **changes))
    supervisor = trainer.supervisor
    named = {"generator": trainer.generator, "IR": supervisor.network}
    for index in indices:
        torch.manual_seed(100 + index)
        z = torch.randn(4, trainer.config.generator.z_dim)
        inputs, terms = trainer._inputs(z), supervisor.view_losses(images=5000, step=0)
        transform = losses.DiscriminatorTransform()
        phases = {
            "generator": losses.generator_main(
                trainer.generator, trainer.discriminator, inputs, transform, terms
            ),
            "IR": supervisor.main(torch.rand(4, 3, 32, 32) * 2 - 1),
        }
        for name, phase in phases.items():
            parameters, loss = list(named[name].parameters()), phase.loss / len(indices)
            trainer.averager.backward(loss, parameters, name, last=index == indices[-1])
    return {
        f"{name}.{key}": parameter.grad
        for name, network in named.items()
        for key, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def one_of_two(rank: int, folder: Path, photographs: Path) -> None:
    torch.set_num_threads(1)
    store = (folder / "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    gradients = gradients_of(photographs, [rank], run__gpus=2)
    torch.save(gradients, folder / f"gradients-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_compute_the_gradients_of_one(photographs, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    arguments = [(rank, tmp_path, photographs) for rank in range(2)]
    processes = [spawn.Process(target=one_of_two, args=a) for a in arguments]
    for process in processes:
        process.start()
    expected = gradients_of(photographs, [0, 1], run__batch_gpu=4)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for rank in range(2):
        found = torch.load(tmp_path / f"gradients-{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for network in ("generator", "IR"):
            names = [name for name in expected if name.startswith(network)]
            a, b = (torch.cat([part[n].flatten() for n in names]) for part in (found, expected))
            assert ((a - b).norm() / b.norm()).item() < 1e-5
