"""Pictures of the report for docs/report.md, taken in a headless Chromium.

They show questions of the test bed's first six videos:

    python -m sweeps run +experiment=comparison retention=.25,.15,.1 \
        tasks.evidence_vqa.environment.CACOVID_TESTBED_VIDEOS=6 --results results/six
    python -m analysis report results/six -o results/six/report.html
    python -m benchmarks.report_pictures results/six/report.html -o docs/report
"""

import argparse
import shutil
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

PROGRAMS = ("chromium", "chromedriver")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
)


@dataclass(frozen=True)
class Picture:
    """A question of the viewer under some methods at one ratio."""

    name: str
    question: int
    retention: float
    methods: tuple[str, ...]


PICTURES = (
    Picture("shape", 29, 0.1, ("CaCoVID (testbed)", "VisionZip", "HoliTom")),
    Picture("count", 12, 0.1, ("CaCoVID (testbed)", "DivPrune", "FastVID on received attention")),
    Picture("direction", 4, 0.1, ("CaCoVID (testbed)", "FastV", "attention top-k A1, global")),
)


@contextmanager
def chromium() -> Iterator[Chrome]:
    """A headless Chromium with a fresh profile, of PROGRAMS on the path; it logs errors and requests."""
    with tempfile.TemporaryDirectory() as profile:
        options = ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = Chrome(options, Service(shutil.which("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


def resize(browser: Chrome, width: int, height: int) -> None:
    """Make the page this many CSS pixels large; a narrow one is a telephone's."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def take(browser: Chrome, page: Path, picture: Picture, out: Path) -> None:
    """Write one picture of the viewer."""
    browser.get("about:blank")
    browser.get(page.as_uri())
    read = "return [...document.querySelectorAll('#method-boxes label')].map((box) => box.textContent.trim())"
    names = WebDriverWait(browser, 20).until(lambda _: browser.execute_script(read))
    methods = ".".join(str(names.index(method)) for method in picture.methods)
    address = urlencode({"part": 0, "question": picture.question, "r": picture.retention, "methods": methods})
    browser.get("about:blank")
    browser.get(f"{page.as_uri()}#viewer?{address}")
    shown = f"return [...document.querySelectorAll('.card canvas')].length == {len(picture.methods)}"
    WebDriverWait(browser, 20).until(lambda _: browser.execute_script(shown))
    Select(browser.find_element(By.ID, "size")).select_by_visible_text("small")
    corner = "const box = document.getElementById('question').getBoundingClientRect();"
    clip = browser.execute_script(
        f"{corner} return {{x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height, scale: 1}}"
    )
    # Of an element that is larger than the window; the driver's own element.screenshot scrolls, and may never end.
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    write(b64decode(shot["data"]), out / f"{picture.name}.webp")


def write(png: bytes, path: Path) -> None:
    """Write a picture as WebP: a quarter of the bytes, and a palette would change the colours."""
    Image.open(BytesIO(png)).convert("RGB").save(path, quality=85, method=6)


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="of `python -m analysis report`")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    page = args.page.resolve()
    with chromium() as browser:
        resize(browser, 1280, 900)
        for picture in PICTURES:
            take(browser, page, picture, args.output)
        browser.get("about:blank")
        browser.get(page.as_uri())
        browser.execute_script("document.getElementById('table').scrollIntoView({behavior: 'instant'})")
        write(browser.get_screenshot_as_png(), args.output / "page.webp")
    print(*sorted(args.output.glob("*.webp")), sep="\n")


if __name__ == "__main__":
    main()
