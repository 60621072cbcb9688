"""A process that is lost or stands still ends all, with a line that says which and where."""

import os
import signal
import time

import pytest
import torch

from dnnlib import UserError
from torch_utils import distributed, watchdog


def stand_still() -> None:
    """The second process sleeps; the first waits for it."""
    if distributed.rank() == 1:
        time.sleep(600)
    distributed.barrier()


def freeze() -> None:
    """The second process stops as a whole, as if its machine were gone."""
    watchdog.LOST_SECONDS = 3.0
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    distributed.barrier()


def take_long() -> int:
    """The first process works for longer than anything may stand still."""
    if distributed.rank() == 0:
        exec("time.sleep(0.02)\n" * 500)  # at another line whenever somebody looks
    distributed.barrier()
    return distributed.world_size()


@pytest.mark.slow
def test_a_process_that_stands_still_is_named_with_its_place(capfd):
    said = (
        r"^nothing has moved on for 0\.\d+ minutes: "
        r"process 1 on \S+ stands in torch_utils/test_watchdog.py:17 stand_still; "
        r"process 0 on \S+ waits in torch_utils/distributed.py:\d+ largest; start again"
    )
    with pytest.raises(UserError, match=said):
        distributed.launch(stand_still, 2, "cpu", stall_minutes=0.05)
    stack = capfd.readouterr().err
    assert "in stand_still\n    time.sleep(600)" in stack and "distributed.barrier()" not in stack


@pytest.mark.slow
def test_a_process_that_goes_silent_is_named(monkeypatch):
    monkeypatch.setattr(distributed, "GRACE_SECONDS", 1)
    said = r"^process 1 on \S+ went silent \(last seen in torch_utils"
    with pytest.raises(UserError, match=said):
        distributed.launch(freeze, 2, "cpu")


@pytest.mark.slow
def test_work_of_one_for_which_the_others_wait_is_no_standstill():
    assert distributed.launch(take_long, 2, "cpu", stall_minutes=0.1) == 2


@pytest.mark.parametrize(
    "error, broken",
    [
        (torch.distributed.DistBackendError("NCCL error"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (UserError("no connection to the data: mend it"), False),
    ],
)
def test_errors_that_only_miss_another_process(error, broken):
    assert watchdog.is_broken_connection(error) == broken
