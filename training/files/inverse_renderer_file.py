"""Inverse renderers from files: published checkpoints, and network files that hold one."""

import os

import torch

from dnnlib import UserError
from training.files.file_kinds import is_pickle
from training.files.legacy_inverse_renderer import read_inverse_renderer
from training.files.network_file import find_network, load_weights, read_network_file
from training.networks.image_formation import frustum_of
from training.networks.inverse_renderer import InverseRenderer

PREFIX = "IR."


def load_inverse_renderer_file(
    path: str | os.PathLike, device: str | torch.device = "cpu"
) -> InverseRenderer:
    """The inverse renderer in a network file or in an old checkpoint (.pkl), frozen.

    Raises:
        UserError: one line, where there is none or the file cannot be read.
    """
    path = find_network(path)
    if is_pickle(path):
        return read_inverse_renderer(path).to(device)
    contents = read_network_file(path)
    if not any(name.startswith(PREFIX) for name in contents.tensors):
        raise UserError(
            f"{path} holds no inverse renderer: it was written without --geod or --with-ir"
        )
    network = InverseRenderer(frustum_of(contents.config), contents.config.geod.width)
    load_weights(network, contents.tensors, PREFIX, path)
    return network.eval().requires_grad_(False).to(device)
