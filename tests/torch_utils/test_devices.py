"""What networks compute in where nobody says it."""

import pytest
import torch

from torch_utils.devices import select_precision


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
