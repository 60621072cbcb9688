"""Train PoF3D on unposed images. `python train.py --help` lists the options."""

import re
import sys
from pathlib import Path
from typing import Any

import click
import torch

from dnnlib import EXIT_STATUS_BASE, Command, UserError
from metrics.registry import check_names
from torch_utils import distributed
from training import pose_sources
from training.config import Config, parse_settings
from training.data.toy_heads import toy_dataset_path
from training.files.transfer import start_from
from training.geod_supervisor import check_supervision
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.presets import PRESET_ALIASES, PRESETS, build_config, suggested_gamma
from training.run.loop import open_dataset, train
from training.run.run_folder import checkpoints, latest_run_folder, new_run_folder

# Options that are fields of the config, and the fields that they set.
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
    "seed": "run.seed",
    "device": "run.device",
    "precision": "run.precision",
    "gamma": "loss.gamma",
    "aug": "augment.mode",
    "poses": "camera.poses",
    "ops": "run.ops",
    "geod_from": "geod.pretrained",
    "with_ir": "geod.in_network_files",
}

GEOD_WEIGHT = 0.1  # the published classes' default


@click.command(cls=Command)
@click.option("--outdir", type=click.Path(path_type=Path), required=True, help="Where runs go.")
@click.option(
    "--cfg", "preset", type=click.Choice([*PRESETS, *PRESET_ALIASES]), required=True, help="Preset."
)
@click.option("--data", metavar="ZIP|DIR", help="Images. The toy preset makes its own.")
@click.option("--gpus", type=int, help="Processes, one device each.  [1]")
@click.option("--batch", type=int, help="Images per step, over all processes.")
@click.option("--batch-gpu", type=int, help="Images per process and pass, to save memory.")
@click.option("--gamma", type=float, help="Weight of R1.")
@click.option("--kimg", type=float, help="Length of training in thousand images.")
@click.option("--tick", type=float, help="kimg between status lines.")
@click.option("--snap", type=int, help="Ticks between snapshots.")
@click.option("--metrics", metavar="NAMES", help="Measured at snapshots, as fid50k_full,relief.")
@click.option("--keep", type=int, help="Checkpoints to keep.")
@click.option("--seed", type=int, help="Random seed.")
@click.option("--mirror", type=bool, help="Also show the images flipped left to right.")
@click.option("--aug", type=click.Choice(["noaug", "ada", "fixed"]), help="Augmentation.")
@click.option(
    "--poses",
    type=click.Choice(["learned", "dataset", "prior"]),
    help="Learned; from the labels, as EG3D; from a Gaussian (camera.prior_std).  [learned]",
)
@click.option("--workers", type=int, help="Data loading processes per training process.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to compute.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "fp16", "bf16"]))
@click.option(
    "--ops",
    type=click.Choice(["auto", "torch", "native"]),
    help="Compiled operations where they can be built, plain torch, or compiled only.  [auto]",
)
@click.option(
    "--geod", is_flag=True, help="Supervise geometry by an inverse renderer (docs/geod.md)."
)
@click.option(
    "--geod-from", metavar="FILE", help="Take the inverse renderer from a file; with --geod."
)
@click.option(
    "--with-ir", is_flag=True, default=None, help="Store the inverse renderer in network files."
)
@click.option("--resume", metavar="latest|RUN|FILE", help="Go on with a run, or start from a file.")
@click.option("--desc", help="Words to add to the run folder's name.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.FIELD=VALUE", help="Any field.")
@click.option("--dry-run", is_flag=True, help="Print the configuration and stop.")
def main(
    outdir: Path,
    preset: str,
    resume: str | None,
    desc: str | None,
    settings: tuple[str, ...],
    dry_run: bool,
    **options: Any,
) -> None:
    """Train a 3D-aware generator from images whose poses nobody knows."""
    config = _configure(preset, options, settings, weights=_weights(resume))
    description = _describe(config, desc)
    if dry_run:
        click.echo(config.model_dump_json(indent=2))
        return
    kind = "cuda" if config.run.device != "cpu" and torch.cuda.is_available() else "cpu"
    received = distributed.launch(
        _train, config.run.gpus, kind, config, outdir, description, resume
    )
    if received:
        sys.exit(EXIT_STATUS_BASE + received)


def _train(config: Config, outdir: Path, description: str, resume: str | None) -> int | None:
    """In every process: agree on the run folder, and train there."""

    def run_folder() -> Path:
        if resume == "latest":
            folder = latest_run_folder(outdir, description)
        elif resume is not None and _weights(resume) is None:
            folder = _run_folder_of(Path(resume))
        else:
            folder = new_run_folder(outdir, description)
        click.echo(f"run folder: {folder}")
        return folder

    named = None if resume in (None, "latest") else Path(resume)
    return train(config, distributed.from_first(run_folder), named)


def _configure(
    preset: str, options: dict[str, Any], settings: tuple[str, ...], weights: Path | None
) -> Config:
    """The preset, then the options, then --set. Raises UserError for what cannot work."""
    geod = options.pop("geod")
    changes = {FIELDS[name]: value for name, value in options.items() if value is not None}
    if geod:
        changes["geod.weight_end"] = GEOD_WEIGHT
    for key, value in parse_settings(settings).items():
        if key in changes:
            raise UserError(f"{key} is given twice: by its option and by --set")
        changes[key] = value
    if weights is not None:
        changes.setdefault("augment.kimg", 100)  # ADA has less to find out (Karras et al. 2020b)
    config = build_config(preset, changes)
    if config.data.path is None:
        if config.preset != "toy":
            raise UserError(f"--cfg {preset} needs --data, a zip or a folder of images")
        path = toy_dataset_path(config.data.resolution, labels=config.camera.poses == "dataset")
        config = build_config(preset, changes | {"data.path": str(path)})
    _check_devices(config)
    check_names(config.run.metrics)
    # Complain before a folder is made.
    dataset = open_dataset(config)
    pose_sources.build(config).prepare(dataset.all_cam2world, config.data.path)
    if config.geod.active:
        check_supervision(config)
    if weights is not None:
        start_from(weights, Generator(config), Discriminator(config))
    if config.preset == "custom" and "loss.gamma" not in changes:
        gamma = suggested_gamma(config.data.resolution, config.run.batch)
        click.echo(
            f"--gamma is not given: taking {gamma:.4g}, a guess from resolution and batch; "
            "try 5 times less and more"
        )
        config = build_config(preset, changes | {"loss.gamma": gamma})
    return config


def _check_devices(config: Config) -> None:
    available = torch.cuda.device_count()
    if config.run.device == "cuda" and not available:
        raise UserError("--device cuda: PyTorch sees no CUDA device here; use --device cpu")
    on_cuda = config.run.device != "cpu" and available
    if on_cuda and config.run.gpus > available:
        raise UserError(f"--gpus {config.run.gpus}: only {available} CUDA devices are here")
    if config.run.precision == "fp16" and not on_cuda:
        raise UserError("--precision fp16 needs CUDA; on the CPU use fp32 or bf16")


def _describe(config: Config, desc: str | None) -> str:
    """What tells runs apart at a glance; `--resume latest` looks for the same words."""
    run, data = config.run, re.sub(r"\W+", "_", Path(config.data.path).stem)
    words = [config.preset, data, f"gpus{run.gpus}", f"batch{run.batch}"]
    words.append(f"gamma{config.loss.gamma:g}")
    if config.camera.poses != "learned":
        words.append(f"{config.camera.poses}_poses")
    return "-".join([*words, *([desc] if desc else [])])


def _weights(resume: str | None) -> Path | None:
    """The network file that --resume names, if it names one."""
    is_network = resume is not None and Path(resume).suffix in (".safetensors", ".pkl")
    return Path(resume) if is_network else None


def _run_folder_of(path: Path) -> Path:
    """The run folder that --resume names, itself or by one of its checkpoints."""
    known = checkpoints(path if path.is_dir() else path.parent)
    if not known or not (path.is_dir() or path in known):
        raise UserError(
            f"--resume {path}: not a run folder with checkpoints, nor a checkpoint-*.pt in one, "
            "nor a network file"
        )
    return known[0].parent


if __name__ == "__main__":
    main()
