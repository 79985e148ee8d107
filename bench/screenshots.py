"""Take the screenshots of a report for the README. This needs playwright and chromium.

python bench/screenshots.py RUN [FOLDER]
"""

import shutil
import sys
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import sync_playwright

from vaestro import write_report

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
POINT = 730  # point of the map whose datum is shown
# name -> (width, height, theme, what to scroll to)
SHOTS: dict[str, tuple[int, int, Literal["light", "dark"], str | None]] = {
    "report-light": (1180, 780, "light", None),
    "report-dark": (1180, 780, "dark", "#latent figure:has(#map-plot)"),
    "report-phone": (390, 780, "light", None),
}


def main() -> None:
    report = write_report(sys.argv[1])
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, (width, height, theme, target) in SHOTS.items():
            page = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=theme
            ).new_page()
            page.goto(report.resolve().as_uri())
            page.wait_for_selector("html[data-ready]")
            if target:
                page.locator(target).evaluate(
                    "e => scrollTo({top: e.offsetTop - 70, behavior: 'instant'})"
                )
                box = page.locator("#map-plot .point").nth(POINT).bounding_box()
                assert box is not None
                page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.wait_for_timeout(500)
            file = folder / f"{name}.png"
            page.screenshot(path=file)
            # 128 colours are enough for a page, and a fraction of the bytes.
            Image.open(file).convert("RGB").quantize(128).save(file, optimize=True)
            print(f"{file}: {file.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main()
