"""What all tests share: global settings of torch and of this code return to what they were."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers import write_photographs
from torch_utils import ops


@pytest.fixture(autouse=True)
def global_settings() -> Iterator[None]:
    """Undo what a run changes in its process: the operations' mode, the number of threads."""
    mode, threads = ops.get_mode(), torch.get_num_threads()
    yield
    ops.set_mode(mode)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """A folder of a dozen small images; not to be written to."""
    return write_photographs(tmp_path_factory.mktemp("data") / "discs")
