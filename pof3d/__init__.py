"""PoF3D: 3D-aware image synthesis with unknown pose distribution (Shi et al., CVPR 2023).

The names below are the public ones. They are loaded when first used, so that `import pof3d` and
`pof3d --help` answer at once.
"""

import importlib
from typing import Any

_MODULES = {
    "Config": "training.config",
    "Discriminator": "training.networks.discriminator",
    "Generator": "training.networks.generator",
    "ImageDataset": "training.data.dataset",
    "Mesh": "training.outputs.meshes",
    "Network": "training.files.network",
    "Objects": "training.outputs.objects",
    "UserError": "dnnlib",
    "View": "training.networks.generator",
    "build_config": "training.presets",
    "density_grid": "training.outputs.meshes",
    "estimate_labels": "training.outputs.pose_labels",
    "find_surface": "training.outputs.meshes",
    "latents_of_seeds": "training.outputs.objects",
    "load_network": "training.files.network_file",
    "project": "training.outputs.projection",
    "save_image_grid": "training.outputs.figures",
    "save_mesh": "training.outputs.mesh_files",
    "save_network": "training.files.network_file",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pof3d' has no attribute '{name}'")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
