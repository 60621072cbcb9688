"""Draw eight objects, a row each: from their own pose, then turned by fixed angles.

python examples/01_sample.py models/toy.safetensors samples.png
"""

import sys

import torch

import pof3d

SEEDS = range(8)
YAWS = (-40.0, -20.0, 0.0, 20.0, 40.0)  # degrees round the canonical view

network_file, dest = sys.argv[1:]
generator = pof3d.load_network(network_file).generator
with torch.no_grad():
    objects = pof3d.Objects.from_seeds(generator, SEEDS, truncation=0.7)
    own = objects.own_view().image[:, None]
    poses = generator.pose_from_degrees(torch.tensor([[yaw, 0.0] for yaw in YAWS]))
    turned = objects.render(poses).image

rows = torch.cat([own, turned], dim=1)  # [objects, views, 3, R, R]
pof3d.save_image_grid(dest, rows.flatten(0, 1), columns=rows.shape[1])
for seed, (yaw, pitch) in zip(SEEDS, generator.degrees_from_pose(objects.pose), strict=True):
    print(f"seed {seed}: yaw {yaw:+.0f}, pitch {pitch:+.0f} degrees")
