"""Kill a machine of a run again and again; then see whether anything is lost.

    nice python -m benchmarks.kill_drill --kills 20

Two machines with two processes each (agents of torchrun on loopback ports) train a tiny network.
Again and again one of them is killed by SIGKILL, all its processes at once, in the middle of a
step, a checkpoint or a metric, and comes back. In the end the run must hold, bit for bit, what a
run of four processes of one machine holds without a break.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import psutil
import torch

from benchmarks.tiny import TINY
from dnnlib import Command, UserError
from training.run.checkpoint import load_checkpoint
from training.run.run_folder import checkpoints

ROOT = Path(__file__).parents[1]
MOMENTS = ("step", "checkpoint", "metric")
PATIENCE = 300.0  # seconds for anything to happen
LIMIT = 60.0  # seconds until the processes that are left have ended
METRIC = "relief"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # see cluster/torchrun.sh
}
BATCH, STEPS_PER_TICK = 4, 5


class Kill(NamedTuple):
    """What happened at one. machine: 0 keeps the store where all meet. seconds: until all processes
    that were left had ended. steps_lost: trained since the checkpoint that was resumed. cause: what
    the processes that were left said."""

    moment: str
    machine: int
    seconds: float
    steps_lost: int
    cause: str


class Machine:
    """An agent of torchrun, and the processes that it starts."""

    def __init__(self, number: int, arguments: list[str], log: Path):
        self.number = number
        self._file = open(log, "ab")  # noqa: SIM115  closed with the machine
        environment = os.environ | ENVIRONMENT
        self.agent = psutil.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )

    def processes(self) -> list[psutil.Process]:
        try:
            return self.agent.children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """All at once, as a loss of power does."""
        for process in [self.agent, *self.processes()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.agent.wait()
        self._file.close()


class Job:
    """Machines that train together in one run folder.

    Args:
        folder: for everything.
        machines: how many; two numbers, as '1:2', let the run go on with fewer.
        processes: on each.
        options: further ones of train.py.
    """

    def __init__(self, folder: Path, machines: str, processes: int, *options: str):
        self.folder, self.outdir = folder, folder / "runs"
        self._machines, self._processes, self._options = machines, processes, options
        self.machines: dict[int, Machine] = {}
        self._port = free_port()

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self, number: int) -> None:
        """Start a machine, or start it again."""
        if not self.machines:
            self._port = free_port()
        arguments = [
            *(sys.executable, "-m", "torch.distributed.run"),
            *("--nnodes", self._machines, "--nproc-per-node", str(self._processes)),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{self._port}"),
            *("--rdzv-id", "drill", "--local-addr", "127.0.0.1", "--monitor-interval", "0.1"),
            *("--rdzv-conf", f"is_host={int(number == 0)},last_call_timeout=3"),
            *("--max-restarts", "100", str(ROOT / "train.py"), "--outdir", str(self.outdir)),
            *("--resume", "auto", "--cfg", "toy", "--device", "cpu", "--workers", "0"),
            *(x for key, value in TINY.items() for x in ("--set", f"{key}={value}")),
            *("--batch", str(BATCH), "--tick", str(STEPS_PER_TICK * BATCH / 1000), "--snap", "1"),
            *self._options,
        ]
        self.machines[number] = Machine(number, arguments, self.log(number))

    def log(self, number: int) -> Path:
        return self.folder / f"machine-{number}.log"

    def kill(self, number: int) -> None:
        self.machines.pop(number).kill()

    def end(self) -> None:
        for number in list(self.machines):
            self.kill(number)

    def finish(self) -> None:
        """Wait for the end of the run."""
        for number, machine in self.machines.items():
            if machine.agent.wait(timeout=20 * PATIENCE):
                raise UserError(f"machine {number} failed: {self.log(number).read_text()[-3000:]}")
        self.end()

    @property
    def run_folder(self) -> Path | None:
        """The newest one: a run that is killed before its first checkpoint begins anew."""
        return max(self.outdir.glob("0*"), default=None)

    def steps(self) -> int:
        """Up to the last tick."""
        with contextlib.suppress(OSError, IndexError, ValueError, TypeError):
            line = Path(str(self.run_folder), "stats.jsonl").read_text().splitlines()[-1]
            return round(json.loads(line)["kimg"] * 1000 / BATCH)
        return 0

    def saved_steps(self) -> int:
        """In the newest checkpoint; 0 without any. Raises UserError where one is damaged."""
        found = checkpoints(self.run_folder) if self.run_folder else []
        return max((load_checkpoint(path)["trainer"]["steps"] for path in found), default=0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], bool], what: str, pause: float = 0.05) -> None:
    """Raises UserError where it does not come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise UserError(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(pause)


def await_moment(job: Job, moment: str) -> None:
    """Return in the middle of a step, a checkpoint or a metric; all are training before."""
    seen = job.steps()
    wait_for(lambda: job.steps() > seen, f"a tick after {seen} steps")
    folder = job.run_folder
    assert folder is not None  # there was a tick
    if moment == "step":
        time.sleep(random.uniform(0, 0.5))
    elif moment == "checkpoint":
        pattern = ".checkpoint-*.tmp"
        wait_for(lambda: any(folder.glob(pattern)), "a checkpoint being written", pause=0.0005)
    else:  # which follows a checkpoint
        newest = checkpoints(folder)[:1]
        wait_for(lambda: checkpoints(folder)[:1] > newest, "a checkpoint", pause=0.001)


def kill_once(job: Job, moment: str, victim: int) -> Kill:
    """Kill one machine at that moment; wait for the end of what was started by the others."""
    await_moment(job, moment)
    steps = job.steps()
    left = [p for n, machine in job.machines.items() if n != victim for p in machine.processes()]
    other = 1 - victim
    said = job.log(other).stat().st_size
    job.kill(victim)
    started = time.monotonic()
    _, alive = psutil.wait_procs(left, timeout=LIMIT)
    if alive:
        raise UserError(f"{len(alive)} processes still run {LIMIT:.0f} s after the kill")
    seconds = time.monotonic() - started
    lost = max(steps - job.saved_steps(), 0)
    return Kill(moment, victim, seconds, lost, cause_in(job.log(other).read_bytes()[said:]))


def cause_in(said: bytes) -> str:
    """The line of the processes that were left; all must name the same cause.

    Raises:
        UserError: where there is none.
    """
    lines = {line for line in said.decode(errors="replace").splitlines() if "Error: " in line}
    causes = {line.partition("Error: ")[2] for line in lines if "--resume auto" in line}
    if not causes:
        raise UserError(f"no line names the cause:\n{said.decode(errors='replace')[-3000:]}")
    return " / ".join(sorted(causes))


def bring_back(job: Job, victim: int) -> None:
    """Start the killed machine. Where it had the store, the others cannot wait: all start anew."""
    if victim == 0:
        for machine in job.machines.values():
            machine.agent.wait(timeout=LIMIT)
        job.end()
        job.start(0)
        job.start(1)
    else:
        job.start(victim)


def same(a: Any, b: Any) -> bool:
    """Bit by bit, in all tensors and numbers of nested containers."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def drill(folder: Path, kills: int, steps: int, processes: int = 2, *options: str) -> list[Kill]:
    """Kill, in turn at each moment and on either machine; then finish the run.

    Raises:
        UserError: where a process outlives a kill, nobody names the cause, or a checkpoint is
            damaged.
    """
    found = []
    length = ("--kimg", str(steps * BATCH / 1000), "--metrics", METRIC, *options)
    with Job(folder, "2", processes, *length) as it:
        it.start(0)
        it.start(1)
        for number in range(kills):
            moment, victim = MOMENTS[number % len(MOMENTS)], 1 - number % 2
            found.append(kill_once(it, moment, victim))
            click.echo(
                f"{number + 1:3d}: machine {victim} in a {moment}: ended after "
                f"{found[-1].seconds:.1f} s, {found[-1].steps_lost} steps lost; {found[-1].cause}"
            )
            bring_back(it, victim)
        it.finish()
    return found


def final_state(folder: Path) -> dict[str, Any]:
    """Of the newest checkpoint of the newest run below a job's folder."""
    newest = max((folder / "runs").glob("*/checkpoint-*.pt"))
    return load_checkpoint(newest)["trainer"]


@click.command(cls=Command)
@click.option("--kills", type=int, default=20, show_default=True, help="How often.")
@click.option(
    "--steps-per-kill", type=int, default=15, show_default=True, help="Length of the run."
)
@click.option("--folder", type=click.Path(path_type=Path), help="Kept.  [a temporary one]")
def main(kills: int, steps_per_kill: int, folder: Path | None) -> None:
    """Kill machines of a run, and compare what it leaves with an unbroken run."""
    steps = steps_per_kill * (kills + 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        (folder / "unbroken").mkdir(parents=True)
        (folder / "killed").mkdir()
        length = ("--kimg", str(steps * BATCH / 1000), "--snap", "1000")
        with Job(folder / "unbroken", "1", 4, *length) as unbroken:
            unbroken.start(0)
            unbroken.finish()
        found = drill(folder / "killed", kills, steps)
        lost = not same(final_state(folder / "killed"), final_state(folder / "unbroken"))
    seconds = sorted(kill.seconds for kill in found)
    click.echo(
        f"{kills} kills; processes that were left ended within {seconds[len(seconds) // 2]:.1f} s "
        f"(median), {seconds[-1]:.1f} s (longest); at most "
        f"{max(kill.steps_lost for kill in found)} steps trained twice; the final state is "
        f"{'NOT ' * lost}that of the unbroken run"
    )
    sys.exit(lost)


if __name__ == "__main__":
    main()
