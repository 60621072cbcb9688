"""Gradients averaged over processes, message by message, during the backward pass."""

from typing import NamedTuple
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn

from torch_utils import distributed
from torch_utils.gradients import GradientAverager

LAYER_BYTES = 4 * (7 * 7 + 7)
# Layers that the passes of one phase reach, in this order: the second is as planned after the
# first; the third reaches others.
PASSES = ([0, 1, 2, 3], [0, 1, 2, 3], [1, 4, 3], [1, 4, 3])


class Pass(NamedTuple):
    """averaged, expected: gradients of all parameters. messages: sent before the last gradient
    was there, and in all."""

    averaged: list
    expected: list
    size: float
    messages: tuple[int, int]


def loss_of(network: nn.ModuleList, use: list[int]) -> Tensor:
    """Differs between processes, and reaches the layers `use` only."""
    x = torch.sin(torch.arange(21.0).view(3, 7) + distributed.rank())
    for number in use:
        x = torch.tanh(network[number](x))
    return x.square().sum()


def gradients(network: nn.Module) -> list:
    return [None if p.grad is None else p.grad.tolist() for p in network.parameters()]


def run_passes() -> list[list[Pass]]:
    """With a message for every layer, and with one for all."""
    return [passes_with(LAYER_BYTES), passes_with(10 * LAYER_BYTES)]


def passes_with(bucket_bytes: int) -> list[Pass]:
    torch.manual_seed(0)
    network = nn.ModuleList([nn.Linear(7, 7) for _ in range(5)])
    parameters, averager = list(network.parameters()), GradientAverager(bucket_bytes)
    return [run_pass(network, parameters, averager, use) for use in PASSES]


def run_pass(network, parameters, averager: GradientAverager, use: list[int]) -> Pass:
    network.zero_grad(set_to_none=True)
    loss_of(network, use).backward()
    for parameter in parameters:
        if parameter.grad is not None:
            distributed.all_reduce_mean(parameter.grad)
    expected = gradients(network)
    network.zero_grad(set_to_none=True)
    before, sent_early = averager.bytes_averaged, []
    with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as all_reduce:
        last = network[use[0]].bias
        hook = last.register_hook(lambda _: sent_early.append(all_reduce.call_count))
        averager.backward(loss_of(network, use), parameters, "phase")
        hook.remove()
    messages = sent_early[0], all_reduce.call_count
    return Pass(gradients(network), expected, averager.bytes_averaged - before, messages)


def test_averages_are_those_of_each_tensor_however_they_travel():
    """With two processes, where the order of a sum does not matter, to the last bit."""
    by_layer, at_once = distributed.launch(run_passes, 2, "cpu")
    for use, found in zip(PASSES * 2, by_layer + at_once, strict=True):
        assert found.averaged == found.expected
        reached = [place for place, g in enumerate(found.averaged) if g is not None]
        assert sorted({place // 2 for place in reached}) == sorted(use)
        assert found.size == len(use) * LAYER_BYTES
    # All but the last layer's leave early, where the plan knows them.
    assert [found.messages for found in by_layer] == [(0, 1), (3, 4), (1, 3), (2, 3)]
    assert [found.messages for found in at_once] == [(0, 1), (0, 1), (0, 2), (0, 1)]


def test_alone_nothing_is_sent_or_changed():
    parameter = nn.Parameter(torch.ones(3))
    averager = GradientAverager()
    averager.backward(parameter.square().sum(), [parameter], "phase")
    assert parameter.grad.tolist() == [2, 2, 2] and averager.bytes_averaged == 0
