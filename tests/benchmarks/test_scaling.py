"""The traffic that the calculation assumes is that of training."""

import pytest
import torch

from benchmarks.scaling import NETWORKS, Traffic, efficiency, traffic
from tests.helpers import tiny_config
from torch_utils import distributed
from training.config import Config
from training.run.loop import open_dataset
from training.step import Trainer


def bytes_per_step(config: Config, steps: int) -> float:
    torch.set_num_threads(1)
    trainer = Trainer(config, open_dataset(config), torch.device("cpu"))
    for _ in range(steps):
        trainer.step()
    return trainer.averager.bytes_averaged / steps


@pytest.mark.slow
def test_training_averages_as_many_bytes_as_calculated(photographs):
    config = tiny_config(photographs, run__gpus=2, loss__r1_every=4)
    calculated = traffic(config).size
    measured = distributed.launch(bytes_per_step, 2, "cpu", config, 4)  # a round of all phases
    assert measured == pytest.approx(calculated, rel=0.02)


def test_overlap_hides_what_the_network_can_keep_up_with():
    found = Traffic(size=400e6, messages=16, phases=2, exposed=50e6)
    for network in NETWORKS:
        without, overlapped = efficiency(found, 0.1, network)
        assert 0 < without < overlapped < 1
        assert efficiency(found, 1.0, network)[0] > without
