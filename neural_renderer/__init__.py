"""A differentiable renderer of triangle meshes, on CPU and CUDA.

An implementation of Kato, Ushiku and Harada, "Neural 3D Mesh Renderer" (CVPR 2018).
"""

from .camera import get_points_from_angles, look, look_at, perspective, projection
from .lights import lighting
from .mesh import Mesh, vertices_to_faces
from .obj import load_obj, save_obj
from .rasterizer import (
    Rasterize,
    rasterize,
    rasterize_depth,
    rasterize_rgbad,
    rasterize_silhouettes,
)
from .renderer import Renderer

__version__ = "1.0.0"

__all__ = [
    "Mesh",
    "Rasterize",
    "Renderer",
    "get_points_from_angles",
    "lighting",
    "load_obj",
    "look",
    "look_at",
    "perspective",
    "projection",
    "rasterize",
    "rasterize_depth",
    "rasterize_rgbad",
    "rasterize_silhouettes",
    "save_obj",
    "vertices_to_faces",
]
