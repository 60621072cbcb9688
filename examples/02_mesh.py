"""The surface of one object as a mesh, which Blender and other programs open.

    python examples/02_mesh.py models/toy.safetensors 3 head.glb

The number is the seed; the mesh's name may end in .glb, .ply, .obj or .stl.
"""

import sys

import torch

import pof3d

RESOLUTION = 128  # grid points a side

network_file, seed, dest = sys.argv[1:]
generator = pof3d.load_network(network_file).generator
with torch.no_grad():
    objects = pof3d.Objects.from_seeds(generator, [int(seed)], truncation=0.7)
surface = pof3d.find_surface(generator, objects.planes, RESOLUTION)
pof3d.save_mesh(dest, surface.mesh)

low, high = surface.mesh.vertices.min(axis=0), surface.mesh.vertices.max(axis=0)
print(f"{dest}: {len(surface.mesh.vertices)} vertices, {len(surface.mesh.faces)} triangles")
print("extent in world units:", " x ".join(f"{side:.2f}" for side in high - low))
