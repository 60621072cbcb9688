"""From one photograph to an object that can be turned.

    python examples/03_project.py models/toy.safetensors photograph.png turned.png

The picture shows the photograph, what was found, and that from five sides.
"""

import sys

import numpy as np
import torch
from PIL import Image, ImageOps

import pof3d

YAWS = (-40.0, -20.0, 0.0, 20.0, 40.0)  # degrees round the canonical view

network_file, photograph, dest = sys.argv[1:]
network = pof3d.load_network(network_file)
generator, size = network.generator, network.config.data.resolution

image = ImageOps.fit(Image.open(photograph).convert("RGB"), (size, size))  # crops to the middle
pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # uint8 [1, 3, size, size]
found = pof3d.project(generator, network.discriminator, pixels)

with torch.no_grad():
    poses = generator.pose_from_degrees(torch.tensor([[yaw, 0.0] for yaw in YAWS]))
    turned = found.objects.render(poses).image[0]
views = torch.cat([pixels / 127.5 - 1, found.images, turned])
pof3d.save_image_grid(dest, views, columns=len(views))

yaw, pitch = generator.degrees_from_pose(found.objects.pose)[0].tolist()
print(f"PSNR {found.psnr.item():.1f} dB, yaw {yaw:+.0f}, pitch {pitch:+.0f} degrees")
