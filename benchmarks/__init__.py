"""Benchmarks, to be run from the checkout: python -m benchmarks.NAME."""

import os

# Before torch is imported: threads that wait by spinning would take the cores from whoever's turn
# it is.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
