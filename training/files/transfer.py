"""Start a run from the weights of a network file."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from dnnlib import UserError
from training.files.network_file import load_network
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator


def start_from(path: Path, generator: Generator, discriminator: Discriminator) -> str:
    """Copy a network file's weights into networks of the same shape and meaning.

    The resolution of images may differ (progressive growing, Karras et al. 2018): the
    discriminator's layers that only one of the two has are then initialized anew.

    Args:
        path: network file or run folder.
        generator: receives weights.
        discriminator: receives weights, if the file has any.

    Returns:
        What was done, for the log.

    Raises:
        UserError: where anything else differs.
    """
    network = load_network(path)
    # The same weights mean something different under another value of these.
    for field in ("plane_axes", "box_warp"):
        theirs = getattr(network.config.rendering, field)
        if theirs != getattr(generator.config.rendering, field):
            raise UserError(
                f"{path} was trained with another field in space: "
                f"add --set rendering.{field}={theirs}"
            )
    _copy_weights(network.generator.state_dict(), generator, f"the generator in {path}")
    done = f"starting from the weights of {path}"
    if (source := network.discriminator) is None:
        return done
    weights = source.state_dict()
    if source.resolution != discriminator.resolution:
        lower = min(source.resolution, discriminator.resolution)
        weights = _keep_own_above(weights, discriminator.state_dict(), lower)
        done += f"; the discriminator begins afresh above {lower} px"
    _copy_weights(weights, discriminator, f"the discriminator in {path}")
    return done


def _copy_weights(weights: Mapping[str, torch.Tensor], target: nn.Module, source: str) -> None:
    try:
        target.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{source} has other sizes than this configuration "
            f"({str(error).splitlines()[1].strip()})"
        ) from error


def _keep_own_above(
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
