"""What a run with GeoD has beside its generator and discriminator."""

import torch
from torch import Tensor

from dnnlib import UserError
from training import geod
from training.config import Config
from training.files.inverse_renderer_file import load_inverse_renderer_file
from training.losses import Phase, ViewLoss
from training.networks.generator import View
from training.networks.image_formation import frustum_of
from training.networks.inverse_renderer import InverseRenderer
from training.networks.perceptual import describe_features, load_features


class Supervisor:
    """The inverse renderer of a run, and all that training it takes.

    Raises:
        UserError: where the preset's depths, its file or its features do not fit.
    """

    def __init__(self, config: Config, device: torch.device):
        self.config, self.device = config.geod, device
        self.network = inverse_renderer_of(config).to(device)
        self.optimizer = geod.optimizer_of(self.network, config.geod)
        self._features: torch.nn.Module | None = None

    @property
    def note(self) -> str:
        """A line for the log: where the inverse renderer comes from."""
        if self.config.pretrained is not None:
            return f"GeoD: the inverse renderer of {self.config.pretrained}, not trained further"
        features = describe_features(self.config.features)
        return f"GeoD: an inverse renderer learns, comparing images by {features}"

    @property
    def features(self) -> torch.nn.Module:
        """Read when the inverse renderer is trained for the first time."""
        if self._features is None:
            self._features = load_features(self.config.features).to(self.device)
        return self._features

    def main(self, photographs: Tensor) -> Phase:
        """`inverse_renderer_main`, photographs: [B, 3, R, R]."""
        return geod.inverse_renderer_main(self.network, self.features, photographs, self.config)

    def view_losses(self, images: int, step: int) -> list[ViewLoss]:
        """Those of `losses.generator_main`, after so many images: one or none."""
        weight = geod.normal_weight(self.config, images, step)

        def normals(view: View, _pose: Tensor, intrinsics: Tensor) -> Phase:
            return geod.generator_geometry(self.network, view, intrinsics, self.config, weight)

        return [normals] if weight else []


def check_supervision(config: Config) -> None:
    """Raises UserError where a run with GeoD could not begin."""
    supervisor = Supervisor(config, torch.device("cpu"))
    if geod.is_trained(config.geod, 0):
        load_features(supervisor.config.features)


def inverse_renderer_of(config: Config) -> InverseRenderer:
    """As the configuration says: with random weights, or those of a file. Raises UserError."""
    frustum = frustum_of(config)
    if config.geod.pretrained is None:
        return InverseRenderer(frustum, config.geod.width)
    network = load_inverse_renderer_file(config.geod.pretrained)
    if network.frustum != frustum:
        raise UserError(
            f"the inverse renderer of {config.geod.pretrained} works with {network.frustum}, not "
            f"with this run's {frustum}, which follows from rendering.near, rendering.far and "
            "geod.camera_fov: change these, or train one"
        )
    return network
