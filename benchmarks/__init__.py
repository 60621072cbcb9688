"""Benchmarks, to be run from the checkout: python -m benchmarks.NAME."""
