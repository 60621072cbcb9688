"""Minutes to a good network, in miniature."""

import json

from click.testing import CliRunner

from benchmarks.learn import main
from tests.helpers import SIZES
from training.data.toy_set import make_toy_dataset


def test_seeds_learn_until_they_are_good_or_done_and_go_on_where_they_stopped(tmp_path):
    data, out = tmp_path / "toy.zip", tmp_path / "learn"
    make_toy_dataset(data, 8, 32, 0)

    def learn(goal, seeds, kimg="0.016"):
        settings = {**SIZES, "data.path": data, "run.kimg": kimg}
        del settings["run.seed"]
        pairs = [f"{key}={value}" for key, value in settings.items()]
        arguments = [item for pair in pairs for item in ("--set", pair)]
        goals = ["--goal", goal, "--every", "0.008"]
        return CliRunner().invoke(
            main, ["--seeds", seeds, "--outdir", str(out), *goals, *arguments]
        )

    easy = learn("pose_error=180", "0,1")
    assert easy.exit_code == 0, easy.output
    assert "2 of 2 good, median: " in easy.output
    courses = json.loads((out / "learn.json").read_text())
    assert [course["kimg"] for course in courses.values()] == [0.008, 0.008]
    again = learn("pose_error=180", "0,1")
    assert "kimg" not in again.output and "2 of 2 good" in again.output

    hard = learn("pose_error=0", "2")
    assert "seed 2: 0.016 kimg" in hard.output and "0 of 1 good" in hard.output
    on = learn("pose_error=180", "2", kimg="0.032")
    assert on.output.count("kimg") == 1 and "seed 2: 0.024 kimg" in on.output


def test_nonsense_is_told_in_a_line():
    for arguments in (["--goal", "pose_error"], ["--goal", "pose=1"], ["--seeds", "a"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code != 0 and len(result.output.splitlines()) == 1, result.output
