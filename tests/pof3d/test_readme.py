"""The Python example of the README runs, and gives what it says."""

import re
from pathlib import Path

import torch
import trimesh
from PIL import Image

from tests.helpers import DUAL, small_discriminator, small_generator, write_photographs
from training.files.network_file import save_network


def lines_of_readme() -> str:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = [x for x in re.findall("```python\n(.*?)```", readme, re.S) if "load_network" in x]
    return block


def with_surface(generator: torch.nn.Module) -> torch.nn.Module:
    """A random field that crosses the level at which surfaces lie."""
    last = generator.decoder.net["2"]
    with torch.no_grad():
        last.weight[0] *= 40
        planes = generator.planes(generator.latent(torch.randn(4, 16)).ws)
        sigma = generator.field(planes, torch.rand(4, 1000, 3) - 0.5).sigma
        last.bias[0] += 10 - sigma.mean()
    return generator


def test_the_python_interface_in_a_few_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path / "photographs", resolution=128)
    networks = with_surface(small_generator(DUAL)), small_discriminator(DUAL)
    save_network("network.safetensors", *networks, {})
    exec(lines_of_readme(), found := {})
    own, turned = found["own"], found["turned"]
    assert own.image.shape == (4, 3, 128, 128) and own.raw.shape == (4, 3, 16, 16)
    assert turned.raw.shape == (4, 3, 128, 128)
    assert Image.open("turned.png").size == (256, 256)
    assert len(trimesh.load("head.ply").faces) > 0
    assert found["poses"].shape == (4, 2) and len(set(found["poses"][:, 0].tolist())) == 4
