"""Out of memory: told from other errors, with its size, as one line."""

import numpy as np
import pytest
import torch

from dnnlib import UserError
from torch_utils.out_of_memory import explain_out_of_memory

TOO_MUCH = 2**52  # bytes; no address space holds them


@pytest.mark.parametrize(
    "allocate", [lambda: torch.empty(TOO_MUCH, dtype=torch.uint8), lambda: np.empty(TOO_MUCH, "u1")]
)
def test_real_failures_name_size_and_remedy(allocate):
    with pytest.raises(UserError, match=r"^out of memory for [\d.]+ \S+: lower --batch$"):
        with explain_out_of_memory("lower --batch"):
            allocate()


def test_a_failure_of_a_gpu_names_its_size():
    message = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 1 GiB"
    with pytest.raises(UserError, match="^out of memory for 2.50 GiB: x$"):
        with explain_out_of_memory("x"):
            raise torch.OutOfMemoryError(message)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("x"), OSError(5)])
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught:
        with explain_out_of_memory("x"):
            raise error
    assert caught.value is error
