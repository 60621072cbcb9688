"""What all tests share: global settings of torch and of this code return to what they were."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers import write_photographs
from torch_utils import ops

# A shell that runs the tests in the background has them ignore these two signals, and with them the
# commands under test.
for number, handler in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)


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
