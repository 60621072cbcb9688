"""What networks compute in where nobody says it, and on which cores."""

import psutil
import pytest
import torch

from torch_utils.devices import find_shared_cores, select_precision


@pytest.mark.parametrize(
    "device, capabilities, expected",
    [
        ("cuda", {}, "fp16"),
        ("cpu", {"avx512_bf16": True}, "bf16"),
        ("cpu", {"avx512_bf16": False}, "fp32"),
        ("cpu", {}, "fp32"),
    ],
)
def test_auto_is_what_the_device_has_instructions_for(monkeypatch, device, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert select_precision("auto", torch.device(device)) == expected
    assert select_precision("fp32", torch.device(device)) == "fp32"


@pytest.mark.parametrize(
    "threads, percent, advice",
    [
        (2, 10, None),
        (2, 50, "1.0 of 2 cores busy: 2 threads would wait for each other"),
        (2, 100, "OMP_NUM_THREADS=1"),
        (1, 100, None),
        (4, 0, None),  # more threads than cores, and nobody else
    ],
)
def test_threads_that_share_a_core_are_reported(monkeypatch, threads, percent, advice):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: percent)
    said = find_shared_cores(torch.device("cpu"))
    assert bool(said) == bool(advice) and (advice or "") in "".join(said)
    assert find_shared_cores(torch.device("cuda")) == []
