"""The choice between plain torch and compiled kernels, and what is said where there are none."""

import logging

import pytest
import torch

from dnnlib import UserError
from torch_utils.ops import get_mode, kernels, set_mode, triplane_render, using
from torch_utils.ops.triplane_render import DecoderWeights


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty cache, and no memory of earlier builds."""
    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "_mode", None)
    kernels.KERNELS.forget()
    yield
    kernels.KERNELS.forget()


def _render():
    decoder = DecoderWeights(torch.ones(4, 2), torch.zeros(4), torch.ones(3, 4), torch.zeros(3))
    return triplane_render(torch.ones(1, 3, 2, 4, 4), torch.zeros(1, 5, 3), decoder, box_warp=1)


def _built(tmp_path):
    return list((tmp_path / "cache" / "ops").glob("*.so"))


def test_missing_compiler_costs_one_warning_line(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.WARNING):
        _render()
        _render()
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "no-such-compiler" in message and "\n" not in message
    assert not _built(tmp_path)


def test_mode_native_makes_failure_an_error(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    set_mode("native")
    with pytest.raises(UserError, match="no-such-compiler"):
        _render()


def test_mode_torch_compiles_nothing(tmp_path):
    set_mode("torch")
    _render()
    assert not _built(tmp_path)


def test_environment_variable_sets_the_mode(tmp_path, monkeypatch):
    monkeypatch.setenv("POF3D_OPS", "torch")
    _render()
    assert not _built(tmp_path)


def test_using_restores_the_mode():
    set_mode("native")
    with using("torch"):
        assert get_mode() == "torch"
    assert get_mode() == "native"


def test_unknown_mode_is_refused(monkeypatch):
    with pytest.raises(UserError, match="turbo"):
        set_mode("turbo")
    monkeypatch.setenv("POF3D_OPS", "fast")
    with pytest.raises(UserError, match="fast"):
        _render()
