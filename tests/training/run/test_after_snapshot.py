"""A command of the user's runs with each new network file, and can do no harm."""

import shlex
import sys
from pathlib import Path

import pytest

from dnnlib import UserError
from tests.helpers import PATIENCE, tiny_config, wait_until
from training.run import loop
from training.run.after_snapshot import AfterSnapshot
from training.run.loop import train


def command(code: str, *words: str) -> str:
    return shlex.join([sys.executable, "-c", f"import sys; {code}", *words])


def run(photographs: Path, folder: Path, monkeypatch, hook: str) -> str:
    """Two snapshots; returns the log."""
    monkeypatch.setattr(loop, "snapshot_pictures", lambda *_, **__: {})
    length = {"run__kimg": 0.008, "run__tick": 0.004, "run__snap": 1}
    assert train(tiny_config(photographs, **length, run__after_snapshot=hook), folder) is None
    return (folder / "log.txt").read_text()


def test_it_gets_each_network_whole_and_in_order(photographs, tmp_path, monkeypatch):
    """All of them before the run ends, at whatever place of the command the path stands."""
    out = tmp_path / "uploaded $HOME"
    folder = tmp_path / "run"
    folder.mkdir()
    write = "print(sys.argv[1], os.path.getsize(sys.argv[1]), file=open(sys.argv[2], 'a'))"
    slow = f"import os, time; time.sleep(0.5); {write}"
    run(photographs, folder, monkeypatch, command(slow, "{}", str(out)))
    networks = sorted(folder.glob("network-*.safetensors"))
    assert len(networks) == 2
    assert out.read_text() == "".join(f"{path} {path.stat().st_size}\n" for path in networks)


@pytest.mark.parametrize(
    "hook, reason",
    [
        (command("sys.exit('the bucket is full')"), "network-000000.00.*: the bucket is full"),
        (command("sys.exit(3)"), "network-000000.00.*: status 3"),
        ("/no/such/program --fast", "/no/such/program: No such file or directory"),
    ],
)
def test_its_failure_is_one_warning(photographs, tmp_path, monkeypatch, hook, reason):
    log = run(photographs, tmp_path, monkeypatch, hook)
    (line,) = [line for line in log.splitlines() if "WARNING" in line]
    assert line.endswith("going on") and "run.after_snapshot failed" in line
    assert reason.split(".*")[0] in line and reason.split(".*")[-1] in line


def test_a_command_that_hangs_is_ended(tmp_path):
    warnings: list[str] = []
    hook = AfterSnapshot(f"sh -c 'sleep {PATIENCE}; true'", warnings.append)
    hook(tmp_path / "network-1.safetensors")
    hook(tmp_path / "network-2.safetensors")
    wait_until(lambda: hook._process is not None)
    hook.close(patience=0.2)
    assert warnings[0] == "not finished within 0.2 s"
    hook._thread.shutdown(wait=True)  # as Python does at its end
    assert len(warnings) == 2 and "network-1.safetensors: status -9" in warnings[1]


@pytest.mark.parametrize("hook", ["echo 'open", "", "  "])
def test_what_is_no_command_is_refused(photographs, hook):
    with pytest.raises(UserError, match="run.after_snapshot: (No closing quotation|must not be)"):
        tiny_config(photographs, run__after_snapshot=hook)
