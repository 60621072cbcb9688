"""From what a user asks for to a run: settings, checks, the run folder, processes."""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from dnnlib import UserError
from metrics.registry import check_names, parse_names
from torch_utils import distributed
from training import pose_sources
from training.config import Config, config_from_dict, parse_settings
from training.data.archive import refuse_inside
from training.data.dataset import has_white_background
from training.data.toy_set import toy_dataset_path
from training.files.network_file import load_network
from training.files.transfer import start_from
from training.geod_supervisor import check_supervision
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.presets import (
    BEFORE_BACKGROUNDS,
    BY_VERSION,
    ON_WHITE,
    UNTUNED,
    build_config,
    build_small_custom,
    is_super_resolved,
    suggested_gamma,
)
from training.run.loop import open_dataset, train
from training.run.run_folder import checkpoints, latest_run_folder, new_run_folder
from training.run.wandb_run import check_wandb

WEIGHTS = (".safetensors", ".pkl")


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    preset: name. changes: settings ('section.field': value) that have options of their own.
    settings: 'section.field=value', further ones. outdir: where run folders are. resume: 'latest',
    'auto', a run folder, a checkpoint, a network file, or None. desc: words for the folder's name.
    """

    preset: str
    changes: Mapping[str, Any]
    settings: tuple[str, ...]
    outdir: Path
    resume: str | None
    desc: str | None

    def settings_alone(self) -> Config:
        """The preset, then the options, then --set; no file is looked at.

        Raises:
            UserError: for what makes no sense.
        """
        return self._config_of(self._changes())

    def config(self) -> Config:
        """The settings of the run, checked against data and weights; makes the toy set if needed.

        Raises:
            UserError: for what cannot work.
        """
        changes = self._changes()
        config = self._config_of(changes)
        if self._takes_small(changes):
            click.echo(
                f"no GPU is used: --cfg custom takes the networks of --cfg small, at "
                f"{config.data.resolution} pixels; --set data.resolution=256 takes the paper's"
            )
        if config.data.path is None:
            if config.preset != "toy":
                raise UserError(f"--cfg {self.preset} needs --data, a zip or a folder of images")
            labels = config.camera.poses == "dataset"
            changes["data.path"] = str(toy_dataset_path(config.data.resolution, labels=labels))
        if config.preset in UNTUNED:
            found = _found_in_data(config, changes)
            if self.weights is not None:
                theirs = load_network(self.weights).config  # what their densities and axes mean
                found["rendering.density_scale"] = theirs.rendering.density_scale
                found["generator.depth_trial_kimg"] = theirs.generator.depth_trial_kimg
            folder = self._resumed(self._config_of(found | changes))
            if folder is not None:
                found = _as_begun(found, folder)
            changes = found | changes
        config = self._config_of(changes)
        self._check(config)
        return config

    def _config_of(self, changes: Mapping[str, Any]) -> Config:
        if self._takes_small(changes):
            return build_small_custom(changes)
        return build_config(self.preset, changes)

    def _takes_small(self, changes: Mapping[str, Any]) -> bool:
        """Whether preset custom is to be small: where the paper's networks would take weeks."""
        on_gpu = changes.get("run.device", "auto") != "cpu" and torch.cuda.is_available()
        return self.preset == "custom" and not on_gpu and not is_super_resolved(changes)

    def _check(self, config: Config) -> None:
        """Complain before a folder is made."""
        on_cuda = config.run.device != "cpu" and torch.cuda.is_available()
        if config.run.precision == "fp16" and not on_cuda:
            raise UserError("--precision fp16 needs CUDA; on the CPU use fp32 or bf16")
        check_names(config.run.metrics)
        check_wandb(config.run.wandb)
        refuse_inside(self.outdir, str(config.data.path))
        dataset = open_dataset(config)
        pose_sources.build(config).prepare(dataset.all_cam2world, str(config.data.path))
        if config.geod.active:
            check_supervision(config)
        if self.weights is not None:
            start_from(self.weights, Generator(config), Discriminator(config))

    def run_folder(self, config: Config) -> Path:
        """Where to train: the folder to resume, or a new one.

        Raises:
            UserError: where there is none to resume, or none can be made.
        """
        return self._resumed(config) or new_run_folder(self.outdir, describe(config, self.desc))

    def _resumed(self, config: Config) -> Path | None:
        """The folder to resume; None: the run is a new one."""
        if self.resume in ("latest", "auto"):
            with contextlib.suppress(*[UserError] * (self.resume == "auto")):
                return latest_run_folder(self.outdir, describe(config, self.desc))
        elif self.resume is not None and self.weights is None:
            return run_folder_of(Path(self.resume))
        return None

    @property
    def weights(self) -> Path | None:
        """The network file that `resume` names, if it names one."""
        named = None if self.resume is None else Path(self.resume)
        return named if named and named.suffix.lower() in WEIGHTS else None

    def _changes(self) -> dict[str, Any]:
        changes = dict(self.changes)
        for key, value in parse_settings(self.settings).items():
            if key in changes:
                raise UserError(f"{key} is given twice: by its option and by --set")
            changes[key] = value
        if changes.get("data.path") == "":
            raise UserError("--data is empty: give a zip or a folder of images")
        if isinstance(metrics := changes.get("run.metrics"), str):
            changes["run.metrics"] = parse_names(metrics)
        if (place := distributed.Place.from_environment()) is not None:
            changes.setdefault("run.gpus", place.world_size)  # torchrun has decided
        if self.weights is not None:
            # ADA has less to adapt to (Karras et al. 2020b).
            changes.setdefault("augment.kimg", 100)
            changes.setdefault("generator.diversity_clarity", None)  # they are different already
        return changes


def _found_in_data(config: Config, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that follow from the photographs, for presets that are of no data set.

    Raises:
        UserError: for bad data.
    """
    gamma = suggested_gamma(config.data.resolution, config.run.batch)
    white = has_white_background(open_dataset(config))
    found: dict[str, Any] = {"rendering.white_background": white}
    if white and config.generator.diversity_clarity is not None:
        found |= ON_WHITE
    if not white and "rendering.white_background" not in given:
        found |= BEFORE_BACKGROUNDS
    words = ", ".join(f"{key}={json.dumps(value)}" for key, value in found.items())
    click.echo(
        f"unless they are given: --gamma {gamma:.4g}, a guess from resolution and batch (try 5 "
        f"times less and more); {words}, as most images are {'' if white else 'not '}on white"
    )
    return {"loss.gamma": gamma, **found}


def _as_begun(found: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What was found in data when a run began; its version may have chosen otherwise."""
    try:
        begun = config_from_dict(json.loads((folder / "config.json").read_text())).model_dump()
    except (OSError, ValueError, UserError):
        return dict(found)  # that the file is wrong is seen later
    places = {key: key.split(".") for key in (*found, *BEFORE_BACKGROUNDS, *BY_VERSION)}
    return {key: begun[section][field] for key, (section, field) in places.items()}


def start(request: Request) -> int | None:
    """Check everything that can be checked, then train, in as many processes as asked for.

    Returns:
        The number of the signal that ended the run early, or None.

    Raises:
        UserError: before a run folder is made, for what cannot work; see also `train`.
    """
    run = request.settings_alone().run
    kind = distributed.check_gpus(run.gpus, run.device)
    return distributed.launch(_train, run.gpus, kind, request, stall_minutes=run.stall_minutes)


def _train(request: Request) -> int | None:
    """In every process: agree on settings and run folder, and train there."""
    config = distributed.from_first(request.config)
    folder = distributed.from_first(lambda: request.run_folder(config))
    if distributed.rank() == 0:
        click.echo(f"run folder: {folder}")
    named = None if request.resume in (None, "latest", "auto") else Path(str(request.resume))
    return train(config, folder, named)


def describe(config: Config, desc: str | None) -> str:
    """What distinguishes run folders at a glance; `--resume latest` looks for the same words."""
    run, data = config.run, re.sub(r"\W+", "_", Path(str(config.data.path)).stem)
    words = [config.preset, data, f"gpus{run.gpus}", f"batch{run.batch}"]
    words.append(f"gamma{config.loss.gamma:g}")
    if config.camera.poses != "learned":
        words.append(f"{config.camera.poses}_poses")
    return "-".join([*words, *([desc] if desc else [])])


def run_folder_of(path: Path) -> Path:
    """The run folder that a path names, itself or by one of its checkpoints.

    Raises:
        UserError: where it is neither.
    """
    known = checkpoints(path if path.is_dir() else path.parent)
    if not known or not (path.is_dir() or path in known):
        raise UserError(
            f"--resume {path}: not a run folder with checkpoints, nor a checkpoint-*.pt in one, "
            "nor a network file"
        )
    return known[0].parent
