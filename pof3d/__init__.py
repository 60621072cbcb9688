"""PoF3D: 3D-aware image synthesis with unknown pose distribution (Shi et al., CVPR 2023)."""
