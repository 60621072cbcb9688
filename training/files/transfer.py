"""Start a run from the weights of a network file."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from dnnlib import UserError
from training.config import Config
from training.files.network_file import load_network
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator

# Settings without which the weights of a generator do not fit, or mean something else.
_SHARED = (
    "rendering.plane_axes",
    "rendering.box_warp",
    *(f"generator.{size}" for size in ("w_dim", "channel_base", "channel_max")),
    *(f"generator.{size}" for size in ("plane_resolution", "plane_channels")),
    *(f"generator.{size}" for size in ("decoder_hidden", "feature_channels", "background")),
    "generator.depth_trial_kimg",
)
_OF_MAPPING = ("generator.z_dim", "generator.mapping_layers")


def start_from(path: Path, generator: Generator, discriminator: Discriminator) -> str:
    """Copy a network file's weights into networks of the same shape and meaning.

    The resolution of images may differ, and that of planes may be higher (progressive growing,
    Karras et al. 2018): layers that the file has not are then initialized anew, in the generator so
    that they change nothing at first. So are mapping and pose head for the weights of a generator
    that is given its poses (EG3D).

    Args:
        path: network file or run folder.
        generator: receives weights.
        discriminator: receives weights, if the file has any.

    Returns:
        What was done, for the log.

    Raises:
        UserError: where anything else differs; it names all settings to change.
    """
    network = load_network(path)
    source_dim = network.generator.pose_source.label_dim
    same_mapping = source_dim == generator.pose_source.label_dim
    shared = (*_SHARED, *_OF_MAPPING) if same_mapping else _SHARED
    if network.config.super_resolved or generator.config.super_resolved:
        shared = (*shared, "data.resolution")  # super-resolution is made for one size
    theirs, ours = (
        config.generator.plane_resolution for config in (network.config, generator.config)
    )
    if theirs < ours:
        shared = tuple(key for key in shared if key != "generator.plane_resolution")
    _require_same(path, network.config, generator.config, shared)
    own = ("pose_source.",) if same_mapping else ("pose_source.", "backbone.mapping.")
    weights = _with_own(
        network.generator.state_dict(), generator.state_dict(), lambda name: name.startswith(own)
    )
    if theirs < ours:
        weights = _with_silent_blocks(weights, generator.state_dict(), theirs)
    done = f"starting from the weights of {path}"
    if not same_mapping:
        done += "; its generator is given its poses, so mapping network and pose head begin afresh"
    _copy_weights(weights, generator, f"the generator in {path}")
    if (source := network.discriminator) is None:
        return f"{done}; the discriminator begins afresh"
    weights = source.state_dict()
    if source.resolution != discriminator.resolution:
        lower = min(source.resolution, discriminator.resolution)
        weights = _with_own(
            weights, discriminator.state_dict(), lambda name: _is_above(name, lower)
        )
        done += f"; the discriminator begins afresh above {lower} px"
    _copy_weights(weights, discriminator, f"the discriminator in {path}")
    return done


def _require_same(path: Path, theirs: Config, ours: Config, settings: Sequence[str]) -> None:
    """Raises UserError, with all options that are needed, where settings differ."""
    needed = []
    for key in settings:
        section, _, field = key.partition(".")
        wanted, found = (getattr(getattr(config, section), field) for config in (theirs, ours))
        if wanted != found:
            value = wanted if isinstance(wanted, str) else json.dumps(wanted, separators=(",", ":"))
            needed.append(f"--set {key}={value}")
    if needed:
        raise UserError(f"{path} has other sizes or axes than this run: add {' '.join(needed)}")


def _with_own(
    weights: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    is_own: Callable[[str], bool],
) -> dict[str, torch.Tensor]:
    """Weights, but `own` where names are so."""
    kept = {name: tensor for name, tensor in weights.items() if not is_own(name)}
    return kept | {name: tensor for name, tensor in own.items() if is_own(name)}


def _is_above(name: str, resolution: int) -> bool:
    """Whether a discriminator's tensor is of a block above a resolution, or reads images there."""
    block = re.match(r"b(\d+)\.", name)
    return name.startswith(f"b{resolution}.fromrgb.") or (
        block is not None and int(block[1]) > resolution
    )


def _with_silent_blocks(
    weights: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], resolution: int
) -> dict[str, torch.Tensor]:
    """Weights, and `own` of blocks above a resolution, which add nothing to the planes yet."""
    added = {}
    for name, tensor in own.items():
        block = re.match(r"backbone\.synthesis\.b(\d+)\.", name)
        if block is not None and int(block[1]) > resolution:
            silent = name.endswith((".torgb.weight", ".torgb.bias"))
            added[name] = torch.zeros_like(tensor) if silent else tensor
    return dict(weights) | added


def _copy_weights(weights: Mapping[str, torch.Tensor], target: nn.Module, source: str) -> None:
    try:
        target.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{source} has other sizes than this configuration "
            f"({str(error).splitlines()[1].strip()})"
        ) from error
