"""The same images from a world of reversed depth.

Under parallel projection, an object whose depth is reversed looks like the object itself, if
cameras turn the other way (the ambiguity of the Necker cube). Perspective and what covers what
decide between the two, but a young object is a fog that shows little of either, and once it has
taken shape, training does not cross over. Not in the paper; `training.run.depth_trial` uses it.
"""

import torch

from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.networks.mapping import PoseMapping


@torch.no_grad()
def reverse_depth(generator: Generator, discriminator: Discriminator) -> None:
    """Reflect objects in the plane z = 0, and make all poses those of opposite yaw and pitch.

    That is done to the weights of what G makes of w, and to those of what D estimates and is
    conditioned on. Images stay what they are, but for perspective and what covers what.

    Args:
        generator: learns its poses, and has `generator.depth_trial_kimg`.
        discriminator: its own.
    """
    mapping, reversed_ = generator.mapping, generator.backbone.depth_reversed
    assert isinstance(mapping, PoseMapping) and reversed_ is not None
    reversed_.logical_not_()
    mapping.affine_layer2.weight.neg_()
    mapping.affine_layer2.bias.neg_()
    center = mapping.mean
    # An opposite pose is 2 center - pose.
    estimate, condition = discriminator.b4.cam_out2, discriminator.mapping.embed
    estimate.weight.neg_()
    estimate.bias.neg_().add_(2 * center / estimate.bias_gain)
    condition.bias.add_(condition.effective()[0] @ (2 * center) / condition.bias_gain)
    condition.weight.neg_()
