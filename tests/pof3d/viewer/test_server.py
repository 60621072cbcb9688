"""The server without a browser."""

import socket
import urllib.request
from collections.abc import Iterator

import pytest

from benchmarks.kill_drill import free_port
from tests.helpers import PATIENCE, small_discriminator, small_generator
from training.files.network_file import save_network

pytest.importorskip("viser", reason="viser is not installed")

from pof3d.viewer.server import Viewer  # noqa: E402
from pof3d.viewer.source import NetworkSource  # noqa: E402


@pytest.fixture
def viewer(tmp_path) -> Iterator[Viewer]:
    path = tmp_path / "network-000001.00.safetensors"
    save_network(path, small_generator(), small_discriminator(), {})
    viewer = Viewer(NetworkSource(tmp_path), port=free_port())
    yield viewer
    viewer.stop()


def answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def test_the_page_is_served_to_this_machine_alone(viewer):
    with urllib.request.urlopen(f"http://localhost:{viewer.port}", timeout=PATIENCE) as page:
        assert b"<html" in page.read()
    assert not answers("127.0.0.2", viewer.port)  # as any interface but localhost


def test_after_stop_nobody_answers(viewer):
    port = viewer.port
    viewer.stop()
    assert not answers("127.0.0.1", port)


def test_a_port_in_use_is_passed_over(viewer, tmp_path):
    second = Viewer(NetworkSource(tmp_path), port=viewer.port)
    try:
        assert second.port != viewer.port and answers("127.0.0.1", second.port)
    finally:
        second.stop()


def test_a_snapshot_that_cannot_be_read_is_waited_out(viewer, tmp_path, caplog):
    path = tmp_path / "network-000002.00.safetensors"
    path.write_bytes(b"half")
    viewer.refresh()
    assert path.name in caplog.text
    save_network(path, small_generator(seed=1), None, {})
    viewer.refresh()
    assert viewer.source.file == path
