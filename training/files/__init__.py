"""Network files, published checkpoints, transfer of weights."""
