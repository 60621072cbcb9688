"""Train PoF3D on unposed images."""

import sys
from pathlib import Path
from typing import Any

import click

from dnnlib import EXIT_STATUS_BASE
from pof3d.commands import options
from pof3d.commands.eg3d_options import TRAIN, HintingCommand

# Options that are settings, and the settings that they are.
FIELDS = {
    "data": "data.path",
    "mirror": "data.mirror",
    "workers": "data.workers",
    "gpus": "run.gpus",
    "batch": "run.batch",
    "batch_gpu": "run.batch_gpu",
    "kimg": "run.kimg",
    "tick": "run.tick",
    "snap": "run.snap",
    "metrics": "run.metrics",
    "keep": "run.keep",
    "wandb": "run.wandb",
    "seed": "run.seed",
    "device": "run.device",
    "precision": "run.precision",
    "gamma": "loss.gamma",
    "aug": "augment.mode",
    "poses": "camera.poses",
    "ops": "run.ops",
    "geod_from": "geod.pretrained",
    "with_ir": "geod.in_network_files",
    "geod": "geod.weight_end",
}

GEOD_WEIGHT = 0.1  # what the published classes have; their scripts have 0


def _show_settings(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from training.config import describe_settings

        for name, default, description in describe_settings():
            click.echo(f"{name}={default}\n    {description}")
        ctx.exit()


@click.command(
    cls=HintingCommand,
    elsewhere=TRAIN,
    memory_hint="a smaller --batch-gpu or --set data.resolution",
)
@click.option("--outdir", type=click.Path(path_type=Path), required=True, help="Output directory.")
@click.option("--cfg", "preset", type=options.Preset(), required=True, help="Preset.")
@click.option("--data", metavar="ZIP|DIR", help="Images. The toy preset makes its own.")
@click.option(
    "--gpus", type=int, help="Processes of the run, one device each.  [1; under torchrun, its]"
)
@click.option("--batch", type=int, help="Images per step, over all processes.")
@click.option("--batch-gpu", type=int, help="Images per process and pass, to save memory.")
@click.option("--gamma", type=float, help="Weight of R1.")
@click.option("--kimg", type=float, help="Length of training in thousand images.")
@click.option("--tick", type=float, help="kimg between status lines.")
@click.option("--snap", type=int, help="Ticks between snapshots.")
@click.option("--metrics", metavar="NAMES", help="Measured at snapshots, as fid50k_full; or none.")
@click.option("--keep", type=int, help="Checkpoints to keep.")
@click.option("--wandb", metavar="PROJECT", help="Mirror TensorBoard in Weights & Biases.")
@click.option("--seed", type=int, help="Random seed.")
@click.option("--mirror", type=bool, help="Also train on the images flipped left to right.")
@click.option("--aug", type=click.Choice(["noaug", "ada", "fixed"]), help="Augmentation.")
@click.option(
    "--poses",
    type=click.Choice(["learned", "dataset", "prior"]),
    help="Learned; from the labels, as EG3D; from a Gaussian (camera.prior_std).  [learned]",
)
@click.option("--workers", type=int, help="Data loading threads per process.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to compute.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "bf16"]),
    help="Of D's largest blocks and super-resolution.  [fp16 on CUDA, else fp32]",
)
@click.option(
    "--ops",
    type=click.Choice(["auto", "torch", "native"]),
    help="Compiled operations where they can be built, plain torch, or compiled only.  [auto]",
)
@click.option(
    "--geod",
    is_flag=True,
    flag_value=GEOD_WEIGHT,
    default=None,
    type=float,
    help="Supervise geometry by an inverse renderer (docs/geod.md).",
)
@click.option(
    "--geod-from", metavar="FILE", help="Take the inverse renderer from a file; with --geod."
)
@click.option(
    "--with-ir", is_flag=True, default=None, help="Store the inverse renderer in network files."
)
@click.option(
    "--resume",
    metavar="latest|auto|RUN|FILE",
    help="Resume the newest run of this description (auto: or start one), a run, or its "
    "checkpoint; or start from the weights of a network file.",
)
@click.option("--desc", help="Words to add to the run folder's name.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.FIELD=VALUE", help="Any field.")
@click.option(
    "--help-settings",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_settings,
    help="List all settings, with their defaults.",
)
@click.option("--dry-run", is_flag=True, help="Print the configuration and stop.")
def main(
    outdir: Path,
    preset: str,
    resume: str | None,
    desc: str | None,
    settings: tuple[str, ...],
    dry_run: bool,
    **chosen: Any,
) -> None:
    """Train a 3D-aware generator from images with unknown camera poses."""
    from training.config import config_json
    from training.run.start import Request, start

    changes = {FIELDS[name]: value for name, value in chosen.items() if value is not None}
    request = Request(preset, changes, settings, outdir, resume, desc)
    if dry_run:
        click.echo(config_json(request.config(), indent=2))
        return
    received = start(request)
    if received:
        sys.exit(EXIT_STATUS_BASE + received)
