"""From where were these photographs taken? The discriminator's estimate for a whole folder.

    python examples/04_poses_of_a_folder.py models/toy.safetensors photographs poses.csv

Photographs are square, and of what the network was trained on.
"""

import csv
import sys

import torch

import pof3d
from training.cameras import pose_from_cam2world

network_file, folder, dest = sys.argv[1:]
network = pof3d.load_network(network_file)
cameras = pof3d.estimate_labels(network, folder)  # by name: cam2world (16), intrinsics (9)

cam2world = torch.tensor(list(cameras.values()))[:, :16].reshape(-1, 4, 4)
pose = pose_from_cam2world(cam2world, network.config.camera.mean_h)
degrees = network.generator.degrees_from_pose(pose)  # yaw and pitch round the canonical view
with open(dest, "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["photograph", "yaw_degrees", "pitch_degrees"])
    for name, angles in zip(cameras, degrees.tolist(), strict=True):
        table.writerow([name, *(f"{angle:.1f}" for angle in angles)])

spread = degrees.std(axis=0)
print(f"{dest}: {len(cameras)} photographs, spread {spread[0]:.0f} x {spread[1]:.0f} degrees")
