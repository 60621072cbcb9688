import math
import os
from pathlib import Path

import pytest
import torch

import neural_renderer
from neural_renderer.ops import native

# Processes that tests start are to import the package that the tests import.
_ROOT = str(Path(neural_renderer.__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))

torch.set_num_threads(1)  # the pictures are small: more threads would cost more than they give


@pytest.fixture(params=["torch", "native"])
def ops(request):
    """Each of the two implementations."""
    if request.param == "native" and native.library(torch.device("cpu"), "auto") is None:
        pytest.skip("the native op cannot be built here")
    return request.param


@pytest.fixture
def sphere():
    """A function that makes a closed sphere: vertices [1, V, 3], faces [1, F, 3]."""

    def make(rings=12, segments=16, dtype=torch.float32):
        polar = torch.linspace(0, math.pi, rings + 1, dtype=dtype)[1:-1, None]
        around = torch.arange(segments, dtype=dtype) * (2 * math.pi / segments)
        x, z = polar.sin() * around.cos(), polar.sin() * around.sin()
        y = polar.cos().expand_as(x)
        poles = torch.tensor([[0, 1, 0], [0, -1, 0]], dtype=dtype)
        vertices = torch.cat((torch.stack((x, y, z), -1).reshape(-1, 3), poles))
        last = (rings - 2) * segments
        top, bottom = last + segments, last + segments + 1
        faces = []
        for j in range(segments):
            k = (j + 1) % segments
            faces += [[top, k, j], [bottom, last + j, last + k]]
            for i in range(0, last, segments):
                faces += [[i + j, i + k, i + segments + j]]
                faces += [[i + k, i + segments + k, i + segments + j]]
        return vertices[None], torch.tensor(faces)[None]

    return make
