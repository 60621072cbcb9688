"""PoF3D: configuration, networks, data, training, outputs, evaluation."""
