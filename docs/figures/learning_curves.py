"""Draw metrics over the length of training, of several runs beside each other.

python docs/figures/learning_curves.py --dest FILE.png --metric fd1k_full-effnet \
    --metric "pose_error=median pose error, degrees" "learned=RUN" "the data set's=RUN"

A RUN is a run folder, whose metric-*.jsonl tell the numbers (train.py --metrics, calc_metrics.py).
"""

import json
import re
from pathlib import Path

import click
from matplotlib.figure import Figure


def curve(folder: Path, metric: str) -> list[tuple[float, float]]:
    """(kimg, value) of the metric, in order; the newest measurement of each snapshot counts."""
    values: dict[float, float] = {}
    for path in sorted(folder.glob("metric-*.jsonl")):
        for record in map(json.loads, path.read_text().splitlines()):
            if metric in record["results"]:
                snapshot = re.search(r"network-(\d+\.\d+)", record["snapshot_pkl"] or "")
                if snapshot:
                    values[float(snapshot[1])] = record["results"][metric]
    return sorted(values.items())


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="NAME=RUN…")
@click.option(
    "--metric", "metrics", multiple=True, required=True, help="Key of a result, or KEY=AXIS LABEL."
)
@click.option("--dest", type=click.Path(path_type=Path), required=True, help="PNG to write.")
def main(runs: tuple[str, ...], metrics: tuple[str, ...], dest: Path) -> None:
    """One panel for each metric, one line for each run; the same numbers as a table on stdout."""
    if not all("=" in run for run in runs):
        raise click.ClickException("write each run as NAME=RUN")
    figure = Figure(figsize=(5.5 * len(metrics), 3.8), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, (metric, _, label) in zip(panels, (m.partition("=") for m in metrics), strict=True):
        for name, folder in (run.split("=", 1) for run in runs):
            points = curve(Path(folder), metric)
            if not points:
                raise click.ClickException(
                    f"no {metric} in {folder}/metric-*.jsonl: measure it first"
                )
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
            click.echo(f"{metric} | {name} | " + ", ".join(f"{k:g}: {v:.4g}" for k, v in points))
        axes.set(xlabel="thousand images", ylabel=label or metric, ylim=(0, None))
        axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(dest, dpi=110)


if __name__ == "__main__":
    main()
