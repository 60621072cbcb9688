"""Files for clusters, as far as they can be tried without one."""

import fnmatch
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from pof3d.commands.train import main as train_command
from tests.helpers import PATIENCE, wait_until
from training.presets import PRESETS

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"

# Slurm

SRUN = """#!/bin/bash
# As many tasks on one machine as SLURM_NTASKS says; signals go to all; the largest status counts.
[ "$1" = --kill-on-bad-exit=1 ] || exit 99
shift
for task in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
    tasks+=($!)
done
trap 'kill -TERM "${tasks[@]}"' TERM
trap 'kill -USR1 "${tasks[@]}"' USR1
touch ready
largest=0
for task in "${tasks[@]}"; do
    while wait "$task"; status=$?; kill -0 "$task" 2>/dev/null; do :; done
    [ "$status" -gt "$largest" ] && largest=$status
done
exit "$largest"
"""
SCONTROL = """#!/bin/sh
case $1 in
    show) echo node7; echo node8 ;;
    requeue) echo "$2" >> requeued ;;
esac
"""
# Takes the place of python: notes its place and what it was called with, then ends as asked for.
PYTHON = """#!/bin/bash
trap 'sleep 0.3; echo saved >> saved; exit 138' USR1
trap 'sleep 0.3; echo saved >> saved; exit 143' TERM
echo "$RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR:$MASTER_PORT | $*" > "started-$RANK"
[ -z "$STATUS" ] || exit "$STATUS"
for _ in $(seq 6000); do sleep 0.1; done
"""


def submit(folder: Path, **environment: str) -> subprocess.Popen:
    """Start the batch file as Slurm does: a copy, in the folder where sbatch was called."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "trainer": PYTHON}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "1234567",
        "SLURM_NTASKS": "2",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "PYTHON": str(folder / "trainer"),
        "PATH": f"{folder}:{os.environ['PATH']}",
        "STATUS": "",
    }
    batch = [str(CLUSTER / "train.sbatch"), "--cfg", "custom", "--data", "my photos.zip"]
    return subprocess.Popen(["bash", *batch], cwd=folder, env=os.environ | slurm | environment)


@pytest.mark.parametrize(
    "task, outdir",
    [(None, "runs/slurm-1234567 "), ("3", "runs/slurm-1234500_3 ")],
)
def test_each_process_gets_its_place_and_each_job_a_folder_of_its_own(tmp_path, task, outdir):
    array = {"SLURM_ARRAY_JOB_ID": "1234500", "SLURM_ARRAY_TASK_ID": task} if task else {}
    assert submit(tmp_path, STATUS="0", **array).wait(timeout=PATIENCE) == 0
    for rank in range(2):
        place, _, words = (tmp_path / f"started-{rank}").read_text().partition(" | ")
        assert place == f"{rank}/2 {rank} node7:{10000 + 1234567 % 50000}"
        assert words.startswith("train.py --cfg custom --data my photos.zip ")
        assert f"--outdir {outdir}--resume auto" in words
        assert ("--seed 3" in words) == (task is not None)
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_job_that_is_told_to_stop_saves_and_is_queued_again(tmp_path, number):
    """USR1 reaches the processes, TERM the batch file too."""
    job = submit(tmp_path)
    ready = [tmp_path / name for name in ("ready", "started-0", "started-1")]
    wait_until(lambda: all(path.exists() for path in ready))
    if number == signal.SIGTERM:
        job.send_signal(number)
    else:
        srun = f"pkill -USR1 -P {job.pid}"
        subprocess.run(shlex.split(srun), check=True)
    assert job.wait(timeout=PATIENCE) == 128 + number
    assert (tmp_path / "saved").read_text() == "saved\n" * 2
    assert (tmp_path / "requeued").read_text() == "1234567\n"


@pytest.mark.parametrize("status", ["1", "137"])
def test_a_job_that_failed_is_not_queued_again(tmp_path, status):
    assert submit(tmp_path, STATUS=status).wait(timeout=PATIENCE) == int(status)
    assert not (tmp_path / "requeued").exists()


# Command lines in scripts and examples


def options_of(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("--")]


def known_to_train(option: str) -> bool:
    return any(option in parameter.opts for parameter in train_command.params)


@pytest.mark.parametrize("name", ["train.sbatch", "torchrun.sh", "Dockerfile"])
def test_scripts_and_their_examples_name_options_of_train(name):
    text = (CLUSTER / name).read_text().replace("\\\n", " ")
    words = re.findall(r"(--(?:cfg|resume)\b.*)", text)
    assert words
    for line in words:
        for option in options_of(re.split(r"[ \"']", line)):
            assert known_to_train(option), option


@pytest.mark.parametrize("name", ["train.sbatch", "torchrun.sh"])
def test_scripts_are_programs_without_mistakes_of_syntax(name):
    path = CLUSTER / name
    shell = path.read_text().splitlines()[0].removeprefix("#!")
    subprocess.run([shell, "-n", path], check=True)
    assert os.access(path, os.X_OK)


def test_torchrun_gets_options_that_it_knows(tmp_path):
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    environment = os.environ | {"PYTHON": str(tmp_path / "python"), "NODES": "1:2", "GPUS": "2"}
    said = subprocess.run(
        [CLUSTER / "torchrun.sh", "--cfg", "toy"], env=environment, capture_output=True, text=True
    ).stdout.split()
    arguments = get_args_parser().parse_args(said[2:])
    assert (arguments.nnodes, arguments.nproc_per_node) == ("1:2", "2")
    assert arguments.training_script == "train.py"
    assert arguments.training_script_args == ["--resume", "auto", "--cfg", "toy"]


# Kubernetes


def test_the_kubernetes_job_hangs_together():
    service, job = yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text())
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    assert spec["parallelism"] == spec["completions"]
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment["NODES"] == str(spec["completions"])
    host, _, port = environment["HEAD"].partition(":")
    assert host == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert int(port) == container["ports"][0]["containerPort"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert os.access(ROOT / container["command"][0], os.X_OK)
    assert all(map(known_to_train, options_of(container["args"])))
    assert container["args"][1] in PRESETS


# Docker


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (CLUSTER / "Dockerfile").read_text(), flags=re.M)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2]) for line in lines if line.strip()]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for name, rest in instructions():
        if name == "FROM":
            base, stage = rest.split(" AS ")
            assert re.fullmatch(r"[\w/]+:[\w.-]*\d[\w.-]*", base), "a version that stays"
            found[stage] = []
        else:
            found[list(found)[-1]].append((name, rest))
    return found


@pytest.mark.parametrize("stage", ["cpu", "cuda"])
def test_an_image_is_made_of_what_is_there(stage):
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text().split()
    found = stages()[stage]
    for name, rest in found:
        assert name in {"RUN", "WORKDIR", "COPY", "USER", "ENV", "ENTRYPOINT", "CMD"}
        if name == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source == "." or not any(fnmatch.fnmatch(source, x) for x in ignored)
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)
            if "apt-get install" in rest:  # neither stale lists nor what nobody asked for
                assert rest.startswith("apt-get update &&") and "rm -rf /var/lib/apt/lists" in rest
                assert "--no-install-recommends" in rest
    kinds = [name for name, _ in found]
    assert "USER" in kinds and "RUN" not in kinds[kinds.index("USER") :]
    assert dict(found)["ENTRYPOINT"] == '["python", "train.py"]'


@pytest.mark.parametrize("stage", ["cpu", "cuda"])
def test_an_image_s_set_up_asks_for_files_that_were_copied(stage):
    """`setup.sh` runs as in the image: beside what was copied, and nothing else."""
    copied: set[str] = set()
    for name, rest in stages()[stage]:
        if name == "COPY":
            copied |= set(rest.split()[:-1])
        elif name == "RUN" and rest.startswith("./setup.sh"):
            words = rest.partition("&&")[0].split()
            wanted = {words[0].removeprefix("./"), *words[1:]} - {"--cpu"}
            assert wanted <= copied
            assert ("--cpu" in words) == (stage == "cpu")
            return
    pytest.fail("no set-up")
