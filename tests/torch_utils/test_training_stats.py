"""Mean and spread over a tick. Several processes: see test_distributed.py."""

import numpy as np
import pytest
import torch

from torch_utils.training_stats import StatsCollector


def test_moments_are_those_of_all_values():
    values = np.random.default_rng(0).normal(3, 2, (5, 4, 3))
    stats = StatsCollector()
    for part in values:
        stats.report("values", torch.from_numpy(part))
    stats.report("number", 2.5)
    found = stats.collect()
    assert list(found) == ["number", "values"]
    assert found["values"].number == 60
    assert found["values"].mean == pytest.approx(values.mean(), rel=1e-12)
    assert found["values"].std == pytest.approx(values.std(), rel=1e-12)
    assert found["number"] == (1, 2.5, 0)


def test_collecting_starts_anew():
    stats = StatsCollector()
    assert stats.collect() == {}
    stats.report("a", 1)
    assert list(stats.collect()) == ["a"]
    stats.report("b", 2)
    assert list(stats.collect()) == ["b"]
    assert stats.collect() == {}


def test_single_precision_is_added_up_in_double():
    stats = StatsCollector()
    stats.report("a", torch.full((1000,), 0.1))
    stats.report("a", torch.tensor(1e8))
    assert stats.collect()["a"].mean == pytest.approx((1e8 + 100) / 1001, rel=1e-9)


def test_reporting_keeps_no_graph_and_changes_nothing():
    stats = StatsCollector()
    tensor = torch.ones(3, requires_grad=True)
    stats.report("a", tensor * 2)
    (moments,) = stats.state_dict()["moments"]
    assert not moments.requires_grad
    assert torch.equal(tensor, torch.ones(3))


def test_state_is_bit_for_bit_what_was_reported():
    halves = np.random.default_rng(0).normal(size=(2, 7))
    whole, first = StatsCollector(), StatsCollector()
    for name in "ba":
        whole.report(name, torch.from_numpy(halves[0]))
        first.report(name, torch.from_numpy(halves[0]))
    second = StatsCollector()
    second.load_state_dict(first.state_dict())
    for stats in (whole, second):
        stats.report("a", torch.from_numpy(halves[1]))
    assert whole.collect() == second.collect()


def test_an_empty_state_can_be_saved():
    stats = StatsCollector()
    stats.load_state_dict(StatsCollector().state_dict())
    assert stats.collect() == {}
