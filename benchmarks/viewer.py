"""Frames per second of the viewer while its camera moves.

    python -m benchmarks.viewer [--network FILE] [--threads 1] [--sizes 48,64,96,128] [--browser]

A camera goes round an object; each frame is rendered and encoded as the server does it. Median over
frames, by the clock and per second of processor time, which a busy machine hardly changes.

With --browser a mouse turns the camera in a page (headless Chromium, driven by Selenium), and the
frames are those that come to this page; processor time is the server's.
"""

import contextlib
import math
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import imageio.v3 as imageio
import torch

from dnnlib import Command
from pof3d.viewer import live
from pof3d.viewer.rendering import Detail, FreeCamera, own_window_fov, render_frame
from pof3d.viewer.server import Viewer
from pof3d.viewer.source import NetworkSource
from training.files.network_file import load_network
from training.outputs.objects import Objects

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FRAMES = 24
ASPECT = 16 / 9
PORT = 8090  # or a later one
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-unsafe-swiftshader", "--window-size=1100,900",
)  # fmt: skip
# The page makes a URL of every picture that comes; those of moving cameras are JPEGs.
COUNT_FRAMES = """
    window.frames_shown = 0
    const make = URL.createObjectURL
    URL.createObjectURL = blob => {
        window.frames_shown += blob.type == "image/jpeg"
        return make(blob)
    }
"""
WARM_UP_SECONDS, DRAG_SECONDS, MOUSE_SECONDS = 3.0, 10.0, 0.02


@click.command(cls=Command)
@click.option("--network", type=click.Path(path_type=Path), default="models/toy.safetensors")
@click.option("--threads", type=click.IntRange(min=1), default=1)
@click.option("--sizes", default="48,64,96,128", help="Pixels a side of the rendered window.")
@click.option("--browser", is_flag=True, help="Count frames in a page.")
def main(network: Path, threads: int, sizes: str, browser: bool) -> None:
    """Print a line for every size."""
    torch.set_num_threads(threads)
    objects = Objects.from_seeds(load_network(network).generator, [0], truncation=0.7)
    frame_seconds(objects, 32)  # builds operations
    click.echo("size  frames/s  frames/s of processor time")
    for size in map(int, sizes.split(",")):
        seconds = page_frame_seconds(network, size) if browser else frame_seconds(objects, size)
        click.echo("{:4}  {:8.1f}  {:8.1f}".format(size, *(1 / x for x in seconds)))


def frame_seconds(objects: Objects, size: int) -> tuple[float, float]:
    """The median frame's seconds, by the clock and of the processor."""
    generator = objects.generator
    yaws = torch.linspace(-30, 30, FRAMES)
    poses = generator.pose_from_degrees(torch.stack([yaws, torch.zeros(FRAMES)], dim=1))
    times = []
    for cam2world in generator.cam2world(poses):
        start = time.perf_counter(), time.process_time()
        camera = FreeCamera(cam2world, own_window_fov(generator), ASPECT)
        frame = render_frame(objects, camera, Detail(size))
        assert frame is not None
        imageio.imwrite("<bytes>", frame.picture, extension=".jpg")
        imageio.imwrite("<bytes>", (frame.depth * 255 / frame.depth.max()).astype("uint8"),
                        extension=".png")  # fmt: skip
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    clock, processor = zip(*times, strict=True)
    return statistics.median(clock), max(statistics.median(processor), math.ulp(1))


def page_frame_seconds(network: Path, size: int) -> tuple[float, float]:
    """The mean seconds between frames in a page, by the clock and of the server's processor."""
    live.SMALLEST = live.LARGEST = size  # it would adapt to what else the machine does
    viewer = Viewer(NetworkSource(network), port=PORT)
    with tempfile.TemporaryDirectory() as profile, contextlib.ExitStack() as stack:
        stack.callback(viewer.stop)
        page = open_browser(Path(profile))
        stack.callback(page.quit)
        page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": COUNT_FRAMES})
        page.get(f"http://localhost:{viewer.port}")
        while page.execute_script("return frames_shown") == 0:
            time.sleep(0.5)
        _drag(page, WARM_UP_SECONDS)
        first = page.execute_script("return frames_shown")
        start = time.perf_counter(), time.process_time()
        _drag(page, DRAG_SECONDS)
        clock, processor = time.perf_counter() - start[0], time.process_time() - start[1]
        frames = page.execute_script("return frames_shown") - first
    return clock / frames, processor / frames


def open_browser(profile: Path, preferences: dict[str, Any] | None = None) -> "Chrome":
    """Headless Chromium with a profile of its own, which downloads into what preferences say."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", preferences or {})
    options.binary_location = str(shutil.which("chromium"))
    return Chrome(options=options, service=Service(shutil.which("chromedriver")))


def _drag(page: "Chrome", seconds: float) -> None:
    """Turn the camera to and fro with the mouse."""
    begun = time.perf_counter()
    mouse = {"type": "mousePressed", "button": "left", "buttons": 1, "x": 300, "y": 400}
    page.execute_cdp_cmd("Input.dispatchMouseEvent", {**mouse, "clickCount": 1})
    while (passed := time.perf_counter() - begun) < seconds:
        mouse |= {"type": "mouseMoved", "x": 300 + 150 * math.sin(passed)}
        page.execute_cdp_cmd("Input.dispatchMouseEvent", mouse)
        time.sleep(MOUSE_SECONDS)
    page.execute_cdp_cmd("Input.dispatchMouseEvent", {**mouse, "type": "mouseReleased"})


if __name__ == "__main__":
    main()
