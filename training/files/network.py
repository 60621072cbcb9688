"""What a network file of any format holds."""

from typing import Any, NamedTuple

from training.config import Config
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator


class Network(NamedTuple):
    """Trained networks in evaluation mode. discriminator is None where the file has none.

    provenance: what the run that made the weights said of itself (kimg, data, seed, versions).
    """

    generator: Generator
    discriminator: Discriminator | None
    config: Config
    provenance: dict[str, Any]
