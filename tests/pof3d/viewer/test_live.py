"""The thread that follows a moving camera."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pof3d.viewer.live import FRAME_SECONDS, LARGEST, SMALLEST, LiveRenderer, Wish, quick_size
from pof3d.viewer.rendering import Frame, FreeCamera, own_window_fov
from pof3d.viewer.scene import Settings
from tests.helpers import PATIENCE, small_generator
from training.networks.generator import Generator


class Screen:
    """Collects what a renderer shows."""

    def __init__(self) -> None:
        self.frames: list[tuple[Frame, bool]] = []
        self.failures: list[Exception] = []
        self.sharp = threading.Semaphore(0)
        self.failed = threading.Semaphore(0)
        self.ready = threading.Event()  # until then, the first frame is not done with
        self.ready.set()

    def show(self, frame: Frame, sharpest: bool) -> None:
        self.ready.wait(PATIENCE)
        self.frames.append((frame, sharpest))
        if sharpest:
            self.sharp.release()

    def fail(self, error: Exception) -> None:
        self.failures.append(error)
        self.failed.release()


@pytest.fixture(scope="module")
def generator() -> Generator:
    return small_generator(rendering__white_background=True).eval()


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def renderer(screen) -> Iterator[LiveRenderer]:
    renderer = LiveRenderer(screen.show, screen.fail)
    yield renderer
    renderer.close()
    assert renderer.join(PATIENCE)


def wish(generator: Generator, **settings) -> Wish:
    pose = generator.pose_from_degrees(generator.intrinsics.new_zeros(1, 2))
    camera = FreeCamera(generator.cam2world(pose)[0], own_window_fov(generator), 1.5)
    return Wish(generator, Settings(**settings), camera)


def test_a_resting_camera_gets_sharper_pictures(generator, renderer, screen):
    renderer.request(wish(generator))
    assert screen.sharp.acquire(timeout=PATIENCE)
    heights = [frame.picture.shape[0] for frame, _ in screen.frames]
    assert heights == sorted(heights) and heights[-1] > 2 * heights[0]
    assert renderer.frame_rate > 0
    assert [sharpest for _, sharpest in screen.frames] == [False] * (len(heights) - 1) + [True]


def test_the_newest_wish_is_what_remains(generator, renderer, screen):
    screen.ready.clear()
    for seed in range(20):
        renderer.request(wish(generator, seed=seed))
    renderer.request(replace(wish(generator), mode="opacity"))
    screen.ready.set()
    assert screen.sharp.acquire(timeout=PATIENCE)
    last = screen.frames[-1][0].picture
    assert (last[..., 0] == last[..., 1]).all()  # gray
    assert len(screen.frames) < 20  # most wishes were passed over


def test_a_fault_is_told_and_the_next_wish_fulfilled(generator, renderer, screen):
    renderer.request(wish(generator, seed=-1))
    assert screen.failed.acquire(timeout=PATIENCE)
    assert "seed -1" in str(screen.failures[0])
    renderer.request(wish(generator, seed=1))
    assert screen.sharp.acquire(timeout=PATIENCE)


def test_the_size_of_moving_frames_adapts_to_the_machine():
    assert quick_size(64, FRAME_SECONDS) == 64
    assert quick_size(64, 2 * FRAME_SECONDS) < 64 < quick_size(64, FRAME_SECONDS / 2)
    assert quick_size(SMALLEST, 100.0) == SMALLEST
    assert quick_size(LARGEST, 0.001) == LARGEST
