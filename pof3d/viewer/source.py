"""Where the viewer's networks come from: a file, or the newest snapshot of a run."""

from pathlib import Path

import torch
from PIL import Image

from training.files.network import Network
from training.files.network_file import find_network, load_network

RUN_PICTURES = {"reals": "Photographs", "fakes": "Samples", "poses": "Poses"}  # by file name


class NetworkSource:
    """The network that is shown, and the file it was read from.

    Args:
        path: a network file, or a run folder, of which `refresh` takes the newest network.
        device: where networks are put.
        precision: what they compute in; see `load_network`.

    Raises:
        UserError: where there is no network.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu", precision: str = "fp32"):
        self.path, self._how = path, (device, precision)
        self.file = find_network(path)
        self.network: Network = load_network(self.file, *self._how)

    def refresh(self) -> bool:
        """Take the newest network; returns whether it is another one.

        Raises:
            UserError: where it cannot be read; the one before stays.
        """
        newest = find_network(self.path)
        if newest == self.file:
            return False
        self.network, self.file = load_network(newest, *self._how), newest
        return True

    def pictures(self) -> dict[str, Image.Image]:
        """The run's newest pictures by title; none for a file, or where one is being written."""
        if not self.path.is_dir():
            return {}
        found = {title: _newest(self.file.parent, name) for name, title in RUN_PICTURES.items()}
        return {title: picture for title, picture in found.items() if picture is not None}


def _newest(folder: Path, name: str) -> Image.Image | None:
    files = sorted([*folder.glob(f"{name}.png"), *folder.glob(f"{name}-*.png")])
    try:
        return Image.open(files[-1]).convert("RGB") if files else None
    except OSError:
        return None
