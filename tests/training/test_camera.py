"""Cameras against the reference's and against their own geometry."""

import math

import pytest
import torch

from tests.parity import check_cameras, fixture
from training import camera


def test_agrees_with_the_reference():
    for quantity in check_cameras(fixture("cameras")):
        assert quantity.error < 1e-5, quantity
