"""Screenshots of the viewer in a headless Chromium.

PYTHONPATH=. python docs/figures/viewer.py --photograph portrait.png [--network FILE]

The pictures in the docs show a portrait of `tests/data/human_heads_64.zip`. It needs viser,
selenium, chromium and its driver.
"""

import tempfile
import time
from pathlib import Path

import click
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By

from benchmarks.viewer import PORT, open_browser
from dnnlib import Command, UserError
from pof3d.viewer.server import Viewer
from pof3d.viewer.source import NetworkSource

PICTURES = Path(__file__).parents[1] / "images"
PATIENCE = 120.0  # seconds
SETTLE = 3.0  # seconds, for pictures that become sharper


@click.command(cls=Command)
@click.option("--network", type=click.Path(path_type=Path), default="models/heads.safetensors")
@click.option("--photograph", type=click.Path(path_type=Path), required=True)
def main(network: Path, photograph: Path) -> None:
    """Write viewer.png, viewer-photograph.png and viewer-cameras.png into docs/images."""
    viewer = Viewer(NetworkSource(network), port=PORT)
    with tempfile.TemporaryDirectory() as profile:
        page = open_browser(Path(profile))
        try:
            page.get(f"http://localhost:{viewer.port}")
            wait_for(page, " pixels; ")
            press(page, "//div[contains(@class, 'Notification')]/button")  # of a software renderer
            save(page, "viewer.png")
            upload(page, photograph.resolve())
            save(page, "viewer-photograph.png")
            for label in ("Mesh", "Training cameras"):
                press(page, f"//label[.='{label}']/following::input[@type='checkbox']")
            stand_aside(page)
            save(page, "viewer-cameras.png")
        finally:
            page.quit()
            viewer.stop()


def wait_for(page: Chrome, words: str) -> None:
    """Until the page shows these words. Raises UserError."""
    end = time.monotonic() + PATIENCE
    while words not in page.find_element(By.TAG_NAME, "body").text:
        if time.monotonic() > end:
            raise UserError(f"the page does not show {words!r}")
        time.sleep(0.5)


def upload(page: Chrome, photograph: Path) -> None:
    """Have a photograph projected."""
    page.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(photograph))
    wait_for(page, "estimate: yaw")
    press(page, "//button[contains(., 'Project it')]")
    wait_for(page, "Projected:")


def press(page: Chrome, xpath: str) -> None:
    """Click what an XPath names, if it is there."""
    for element in page.find_elements(By.XPATH, xpath)[:1]:
        page.execute_script("arguments[0].click()", element)


def stand_aside(page: Chrome) -> None:
    """Move the camera away from the object and to its side."""
    canvas = page.find_element(By.TAG_NAME, "canvas")
    for _ in range(12):
        page.execute_script(
            "arguments[0].dispatchEvent(new WheelEvent('wheel', {deltaY: 100, bubbles: true}))",
            canvas,
        )
        time.sleep(0.1)
    mouse = ActionChains(page).move_to_element_with_offset(canvas, -200, 0).click_and_hold()
    mouse.move_by_offset(-220, 40).release().perform()


def save(page: Chrome, name: str) -> None:
    """Write what the window shows."""
    time.sleep(SETTLE)
    page.save_screenshot(str(PICTURES / name))
    click.echo(name)


if __name__ == "__main__":
    main()
