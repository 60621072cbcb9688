"""A training run: its loop, folder, checkpoints, logs and snapshot pictures."""
