"""What a network file of any format holds."""

from typing import Any, NamedTuple

from torch import Tensor

from dnnlib import UserError
from training.config import Config
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator


class Network(NamedTuple):
    """Trained networks in evaluation mode. discriminator is None where the file has none.

    provenance: what was recorded about the run that made the weights (kimg, data, seed, versions).
    """

    generator: Generator
    discriminator: Discriminator | None
    config: Config
    provenance: dict[str, Any]

    def estimate_pose(self, images: Tensor) -> Tensor:
        """See `Discriminator.estimate_pose`; raw images are of the generator's resolution.

        Raises:
            UserError: where the file has no discriminator.
        """
        if self.discriminator is None:
            raise UserError("this network file has no discriminator, which estimates poses")
        return self.discriminator.estimate_pose(images, self.generator.raw_resolution)
