"""Files that outlive a process: networks for inference, checkpoints to go on training from.

A network file (.safetensors) holds the weights of the averaged generator (`G_ema.`) and of the
discriminator (`D.`), and in its metadata the config, where the weights come from, and the format.
A training checkpoint (.pt) holds all that moves while training. Nothing in either is ever executed.
"""

import contextlib
import functools
import json
import os
import re
import subprocess
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import nn

from dnnlib import UserError, atomic_write
from training.config import Config, config_from_dict
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator

FORMAT = "pof3d-network"
CHECKPOINT_FORMAT = "pof3d-training"
FORMAT_VERSION = 1

T = TypeVar("T")


class Network(NamedTuple):
    """Trained networks in evaluation mode. discriminator is None where the file has none.

    provenance: what the run that made the weights said of itself (kimg, data, seed, versions).
    """

    generator: Generator
    discriminator: Discriminator | None
    config: Config
    provenance: dict[str, Any]


def save_network(
    path: str | os.PathLike,
    generator: Generator,
    discriminator: Discriminator | None,
    provenance: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a network file atomically. dtype: store floating weights in it (None: as they are)."""
    networks = {"G_ema": generator, "D": discriminator}
    tensors = {
        f"{prefix}.{name}": _stored(tensor, dtype)
        for prefix, network in networks.items()
        if network is not None
        for name, tensor in network.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": generator.config.model_dump_json(),
        "raw_resolution": str(generator.raw_resolution),
        "provenance": json.dumps(dict(provenance)),
    }
    with atomic_write(path) as temporary:  # bytes, since safetensors' own files hide a full disk
        temporary.write_bytes(safetensors.torch.save(tensors, metadata))


def load_network(path: str | os.PathLike, device: str | torch.device = "cpu") -> Network:
    """Read a network file, or an old .pkl. Raises UserError, one line, for anything else."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"network file {path} does not exist")
    if path.suffix == ".pkl":
        from training.files.legacy import (
            load_legacy,  # which itself returns this module's `Network`
        )

        return load_legacy(path, device)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable network file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} is a safetensors file, but not one of PoF3D's networks")
    version = _described(path, metadata, "format_version", int)
    _refuse_newer(path, version)
    config = _described(path, metadata, "config", _config_from_json)
    generator = Generator(config)
    generator.raw_resolution = _described(path, metadata, "raw_resolution", int)
    _load_weights(generator, tensors, "G_ema.", path)
    discriminator = None
    if any(name.startswith("D.") for name in tensors):
        discriminator = Discriminator(config)
        _load_weights(discriminator, tensors, "D.", path)
        discriminator.eval().requires_grad_(False).to(device)
    generator.eval().requires_grad_(False).to(device)
    provenance = _described(path, metadata, "provenance", json.loads)
    return Network(generator, discriminator, config, provenance)


def _config_from_json(text: str) -> Config:
    return config_from_dict(json.loads(text))


def _described(path: Path, metadata: Mapping[str, str], key: str, parse: Callable[[str], T]) -> T:
    """One entry of a network file's metadata. Raises UserError where it is missing or broken."""
    if key not in metadata:
        raise UserError(f"{path} lacks '{key}' in its metadata: save the network again")
    try:
        return parse(metadata[key])
    except (ValueError, RecursionError, UserError) as error:
        raise UserError(f"{path}: '{key}' in its metadata cannot be read ({error})") from error


def _refuse_newer(path: Path, version: int) -> None:
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}: update this code, which reads {FORMAT_VERSION}"
        )


def _stored(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor


def _load_weights(
    network: nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str, path: Path
) -> None:
    state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    for name, expected in network.state_dict().items():
        if name not in state:
            raise UserError(f"{path} lacks the tensor {prefix}{name}")
        if state[name].shape != expected.shape:
            found = list(state[name].shape)
            raise UserError(
                f"{path}: tensor {prefix}{name} has shape {found}, not {list(expected.shape)}"
            )
    network.load_state_dict(state, strict=False)


def start_from(path: Path, generator: Generator, discriminator: Discriminator) -> str:
    """Copy a network file's weights into networks of the same shape and meaning.

    The resolution of images may differ (progressive growing, Karras et al. 2018): the
    discriminator's layers that only one of the two has then begin afresh. Returns what was done,
    for the log. Raises UserError where anything else differs.
    """
    network = load_network(path)
    for field in ("plane_axes", "box_warp"):  # what the same numbers would mean something else by
        theirs = getattr(network.config.rendering, field)
        if theirs != getattr(generator.config.rendering, field):
            raise UserError(
                f"{path} was trained with another field in space: "
                f"add --set rendering.{field}={theirs}"
            )
    done = f"starting from the weights of {path}"
    pairs = {"generator": (generator, network.generator.state_dict())}
    if (source := network.discriminator) is not None:
        weights = source.state_dict()
        if source.resolution != discriminator.resolution:
            lower = min(source.resolution, discriminator.resolution)
            weights = _topped(weights, discriminator.state_dict(), lower)
            done += f"; the discriminator begins afresh above {lower} px"
        pairs["discriminator"] = (discriminator, weights)
    for name, (target, weights) in pairs.items():
        try:
            target.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(
                f"the {name} in {path} has other sizes than this configuration "
                f"({str(error).splitlines()[1].strip()})"
            ) from error
    return done


def _topped(
    weights: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], resolution: int
) -> dict[str, torch.Tensor]:
    """A discriminator's weights with `own` above a resolution, and in what reads images there."""

    def above(name: str) -> bool:
        block = re.match(r"b(\d+)\.", name)
        return name.startswith(f"b{resolution}.fromrgb.") or (
            block is not None and int(block[1]) > resolution
        )

    below = {name: tensor for name, tensor in weights.items() if not above(name)}
    return below | {name: tensor for name, tensor in own.items() if above(name)}


@functools.cache
def code_version() -> str:
    """The git revision of this code, '-dirty' where files differ from it; else the package's."""
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        describe = ["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=12"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.check_output(
                [*describe, "--exclude=*"], stderr=subprocess.DEVNULL, text=True
            ).strip()
    return re.search(r'^version = "(.+)"', (root / "pyproject.toml").read_text(), re.M)[1]


def save_checkpoint(path: Path, state: Mapping[str, Any], config: Config) -> None:
    """Write all training state atomically. state: tensors, numbers, strings and their containers.

    Raises OSError when the disk is full.
    """
    record = {
        "format": CHECKPOINT_FORMAT,
        "format_version": FORMAT_VERSION,
        "config": config.model_dump_json(),
        **state,
    }
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(record, file)
        except RuntimeError as error:  # what torch makes of an error in file.write
            raise error.__context__ or error from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote. Raises UserError unless every byte of it is there."""
    try:
        with zipfile.ZipFile(path) as archive:
            flipped = archive.testzip()  # torch.load does not look at checksums
        if flipped:
            raise zipfile.BadZipFile(f"wrong checksum of {flipped}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever these readers raise on a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path} is not a training checkpoint")
    return state


class Found(NamedTuple):
    """A checkpoint that is whole. faults: what is wrong with each of the newer ones."""

    path: Path
    state: dict[str, Any]
    faults: list[str]


def load_newest(paths: Sequence[Path]) -> Found:
    """The first of `paths` (newest first) that is whole.

    Raises UserError when none is, and when newer code wrote it.
    """
    faults: list[str] = []
    for path in paths:
        try:
            state = load_checkpoint(path)
        except UserError as error:
            faults.append(str(error))
            continue
        _refuse_newer(path, state["format_version"])
        return Found(path, state, faults)
    raise UserError("; ".join([*faults, "no checkpoint is left: start the run anew"]))
