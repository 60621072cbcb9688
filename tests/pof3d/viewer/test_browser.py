"""The viewer in a real browser: headless Chromium, driven by Selenium."""

import io
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from tests.pof3d.viewer.test_server import free_port

pytest.importorskip("viser", reason="viser is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver import ActionChains, Chrome  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

from benchmarks import viewer as benchmark  # noqa: E402
from pof3d.viewer.server import Viewer  # noqa: E402
from pof3d.viewer.source import NetworkSource  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium is not installed"),
]

ROOT = Path(__file__).parents[3]
PATIENCE = 60  # seconds
SCENE = (330, 150, 720, 500)  # what of the window shows the field alone: left, top, right, bottom


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    viewer = Viewer(NetworkSource(ROOT / "models/toy.safetensors"), port=free_port())
    yield viewer
    viewer.stop()


@pytest.fixture
def browse(viewer, tmp_path) -> Iterator[Callable[[], Chrome]]:
    """Opens browsers, each with a profile of its own, that download into tmp_path."""
    browsers: list[Chrome] = []

    def open_browser() -> Chrome:
        several = "profile.default_content_setting_values.automatic_downloads"
        prefs = {"download.default_directory": str(tmp_path), several: 1}
        browsers.append(benchmark.open_browser(tmp_path / f"profile{len(browsers)}", prefs))
        browsers[-1].get(f"http://localhost:{viewer.port}")
        wait(lambda: " pixels; " in text(browsers[-1]), "no sharp picture")
        wait(lambda: is_settled(browsers[-1]), "the page does not come to rest")
        return browsers[-1]

    yield open_browser
    for browser in browsers:
        browser.quit()


def wait(is_done: Callable[[], object], failure: str) -> None:
    end = time.monotonic() + PATIENCE
    while not is_done():
        assert time.monotonic() < end, failure
        time.sleep(0.1)


def text(browser: Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def scene(browser: Chrome) -> np.ndarray:
    window = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    return np.asarray(window.crop(SCENE)).astype(float)


def is_settled(browser: Chrome) -> bool:
    """Whether there is an object, and the same one a moment later: drawing is slow at times."""
    before = scene(browser)
    time.sleep(0.5)
    return before.std() > 10 and np.abs(scene(browser) - before).mean() < 0.5


def wait_for_change(browser: Chrome, before: np.ndarray) -> None:
    wait(lambda: np.abs(scene(browser) - before).mean() > 2, "the picture did not change")


def drag(browser: Chrome, right: int, down: int) -> None:
    """Turn the camera."""
    canvas = browser.find_element(By.TAG_NAME, "canvas")
    (
        ActionChains(browser)
        .move_to_element_with_offset(canvas, -200, 0)
        .click_and_hold()
        .move_by_offset(right, down)
        .release()
        .perform()
    )


def click(browser: Chrome, label: str) -> None:
    button = browser.find_element(By.XPATH, f"//button[contains(., '{label}')]")
    browser.execute_script("arguments[0].click()", button)


def upload(browser: Chrome, path: Path) -> None:
    browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(path))


def test_the_picture_follows_the_camera_and_downloads(browse, tmp_path):
    browser = browse()
    before = scene(browser)
    assert before.std() > 10  # there is an object
    drag(browser, 120, 20)
    wait_for_change(browser, before)

    click(browser, "Picture")
    wait((tmp_path / "view.png").exists, "no picture came")
    assert np.asarray(Image.open(tmp_path / "view.png")).std() > 10
    click(browser, "Mesh (GLB)")
    wait((tmp_path / "object.glb").exists, "no mesh came")
    assert len(trimesh.load(tmp_path / "object.glb").to_geometry().faces) > 1000


def test_photographs_are_read_and_wrong_uploads_answered_in_the_page(browse, tmp_path):
    browser = browse()
    (tmp_path / "notes.txt").write_text("no photograph")
    upload(browser, tmp_path / "notes.txt")
    wait(lambda: "notes.txt is not a picture" in text(browser), "no message")
    Image.new("RGB", (64, 48), "gray").save(tmp_path / "gray.png")
    upload(browser, tmp_path / "gray.png")
    wait(lambda: "estimate: yaw" in text(browser), "no pose")


def test_two_browsers_do_not_disturb_each_other(browse, viewer):
    first, second = browse(), browse()
    seen_by_second = scene(second)
    before = scene(first)
    drag(first, 120, 20)
    wait_for_change(first, before)
    assert np.abs(scene(second) - seen_by_second).mean() < 1
    first.quit()
    drag(second, -120, 20)
    wait_for_change(second, seen_by_second)
    wait(lambda: len(viewer.server.get_clients()) == 1, "the closed browser is still served")
