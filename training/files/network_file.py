"""Network files: weights for inference, with what is needed to use them.

A network file (.safetensors) holds the weights of the averaged generator (`G_ema.`), of the
discriminator (`D.`) and, on request, of the inverse renderer (`IR.`); in its metadata the config,
where the weights come from, and the format.
Nothing in it is ever executed.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import nn

from dnnlib import UserError, atomic_write
from torch_utils.devices import INNER_DTYPES, select_precision
from training import old_names
from training.config import Config, config_from_dict, config_json
from training.files.file_kinds import foreign_kind, is_address, is_pickle
from training.files.legacy import load_legacy
from training.files.network import Network
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator

FORMAT = "pof3d-network"
FORMAT_VERSION = 1  # of network files and checkpoints

T = TypeVar("T")


def save_network(
    path: str | os.PathLike,
    generator: Generator,
    discriminator: Discriminator | None,
    provenance: Mapping[str, Any],
    *,
    inverse_renderer: nn.Module | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a network file atomically.

    Args:
        path: .safetensors file.
        generator: usually the averaged one.
        discriminator: likewise; None leaves it out; poses of images cannot be estimated then.
        provenance: where the weights come from, JSON values.
        inverse_renderer: stored too, if any (`training/geod.py`).
        dtype: of floating-point weights in the file; None: as they are.

    Raises:
        OSError: where the file cannot be written; an earlier one is then as it was.
    """
    networks = {"G_ema": generator, "D": discriminator, "IR": inverse_renderer}
    tensors = {
        f"{prefix}.{name}": _stored(tensor, dtype)
        for prefix, network in networks.items()
        if network is not None
        for name, tensor in network.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": config_json(generator.config),
        "raw_resolution": str(generator.raw_resolution),
        "provenance": json.dumps(dict(provenance)),
    }
    with atomic_write(path) as temporary:  # bytes, since safetensors' own files hide a full disk
        temporary.write_bytes(safetensors.torch.save(tensors, metadata))


def find_network(path: str | os.PathLike) -> Path:
    """The file that --network names: itself, or the newest network in a run folder.

    Of a folder of runs, the newest run counts that has a network.

    Raises:
        UserError: one line, where there is none, or where it is something else.
    """
    path = Path(path)
    if is_address(path):
        raise UserError(f"{path} is an address: download the file and name the copy")
    if path.is_dir():
        name = "network-*.safetensors"
        networks = sorted(path.glob(name)) or sorted(path.glob(f"[0-9]*-*/{name}"))
        if not networks:
            raise UserError(
                f"the folder {path} holds no {name}: name a run folder after its first snapshot, "
                "or a file"
            )
        return networks[-1]
    if not path.exists():
        raise UserError(f"network file {path} does not exist")
    if not path.is_file():
        raise UserError(f"network file {path} is a device or a pipe: name an ordinary file")
    if what := foreign_kind(path):
        raise UserError(f"network file {path} {what}")
    return path


class Contents(NamedTuple):
    """What a network file says. metadata: its texts by name."""

    tensors: dict[str, torch.Tensor]
    config: Config
    metadata: dict[str, str]


def read_network_file(path: Path) -> Contents:
    """Read a .safetensors file. Raises UserError, one line, for anything else."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable network file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} is a safetensors file, but not one of PoF3D's networks")
    refuse_newer(path, _parse_metadata(path, metadata, "format_version", int))
    return Contents(tensors, _parse_metadata(path, metadata, "config", _config_from_json), metadata)


def load_network(
    path: str | os.PathLike, device: str | torch.device = "cpu", precision: str = "fp32"
) -> Network:
    """Read a network file, the newest one of a run folder, or an old .pkl.

    Args:
        path: the file or folder.
        device: where the networks are put.
        precision: what the generator computes in; see `select_precision`.

    Returns:
        The networks, in evaluation mode and without gradients.

    Raises:
        UserError: one line, for anything else.
    """
    path = find_network(path)
    network = load_legacy(path, device) if is_pickle(path) else _load(path, device)
    precision = select_precision(precision, torch.device(device))
    network.generator.set_inner_dtype(INNER_DTYPES[precision])
    return network


def _load(path: Path, device: str | torch.device) -> Network:
    tensors, config, metadata = read_network_file(path)
    generator = Generator(config)
    generator.raw_resolution = _parse_metadata(path, metadata, "raw_resolution", int)
    load_weights(generator, tensors, "G_ema.", path)
    discriminator = None
    if any(name.startswith("D.") for name in tensors):
        discriminator = Discriminator(config)
        load_weights(discriminator, tensors, "D.", path)
        discriminator.eval().requires_grad_(False).to(device)
    generator.eval().requires_grad_(False).to(device)
    provenance = _parse_metadata(path, metadata, "provenance", json.loads)
    return Network(generator, discriminator, config, provenance)


def _config_from_json(text: str) -> Config:
    return config_from_dict(json.loads(text))


def _parse_metadata(
    path: Path, metadata: Mapping[str, str], key: str, parse: Callable[[str], T]
) -> T:
    """One entry of a network file's metadata; UserError where it is missing or broken."""
    if key not in metadata:
        raise UserError(f"{path} lacks '{key}' in its metadata: save the network again")
    try:
        return parse(metadata[key])
    except (ValueError, RecursionError, UserError) as error:
        raise UserError(f"{path}: '{key}' in its metadata cannot be read ({error})") from error


def _stored(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor


def load_weights(
    network: nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str, path: Path
) -> None:
    """Fill a network with a file's tensors `prefix`NAME. Raises UserError where they do not fit."""
    state = old_names.current_tensors(
        {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    )
    for name, expected in network.state_dict().items():
        if name not in state:
            raise UserError(f"{path} lacks the tensor {prefix}{name}")
        if state[name].shape != expected.shape:
            found = list(state[name].shape)
            raise UserError(
                f"{path}: tensor {prefix}{name} has shape {found}, not {list(expected.shape)}"
            )
    network.load_state_dict(state, strict=False)


def refuse_newer(path: Path, version: int) -> None:
    """Refuse a file of a format that only newer code reads.

    Raises:
        UserError: for a version above `FORMAT_VERSION`.
    """
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}: update this code, which reads {FORMAT_VERSION}"
        )
