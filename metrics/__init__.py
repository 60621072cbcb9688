"""Scores of generated images. Knows tensors of images, and nothing of training."""
