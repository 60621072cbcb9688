"""Signals as polite requests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dnnlib import StopSignals, say_now, signals
from tests.helpers import PATIENCE

ROOT = Path(__file__).parents[2]
# Waits for a signal, and says which it was.
LISTENER = """
import time
from dnnlib import StopSignals
from tests.helpers import PATIENCE
with StopSignals() as stop:
    print("ready", flush=True)
    while stop.received is None:
        time.sleep(0.01)
print(stop.received)
"""


@pytest.fixture
def listener():
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_is_remembered(number):
    with StopSignals() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == number


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in STOPPING]
    with StopSignals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_first_signal_is_answered_at_once_and_once():
    said = []
    with StopSignals(on_first=said.append):
        os.kill(os.getpid(), signal.SIGINT)
        assert said == [
            "SIGINT: stopping after this step; Ctrl-C again stops at once, without saving"
        ]
        os.kill(os.getpid(), signal.SIGTERM)
    with StopSignals(on_first=said.append):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert said[1:] == ["SIGUSR1: stopping after this step"]


def test_a_forked_worker_says_nothing_and_goes_on(capfd):
    with StopSignals(on_first=say_now) as stop:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(7 if stop.received is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert capfd.readouterr().err == ""


def test_a_second_ctrl_c_interrupts_unless_it_is_the_same(monkeypatch):
    monkeypatch.setattr(signals, "PATIENCE", PATIENCE)
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(signals, "PATIENCE", -1)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt, match="after the last checkpoint is not saved"):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT


@pytest.mark.parametrize("early", [True, False])
def test_signals_are_sent_on(listener, early):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with StopSignals() as stop:
        if early:
            os.kill(os.getpid(), signal.SIGTERM)
        stop.forward_to([gone.pid, listener.pid])
        if not early:
            os.kill(os.getpid(), signal.SIGTERM)
        said, _ = listener.communicate(timeout=PATIENCE)
    assert said == f"{signal.SIGTERM.value}\n"
