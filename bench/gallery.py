"""Write docs/gallery.md: runs with one fault each, their diagnosis, and the first screen of their
report.

    python bench/gallery.py [FOLDER]

The runs are defined in tests/ill_runs.py, and a test checks their verdicts. Playwright and Chromium
take the pictures.
"""

import os
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from screenshots import FLAGS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.ill_runs import CASES, Ill
from vaestro import write_report
from vaestro.diagnosis import Diagnosis

HEAD = """# Gallery of faults

    python bench/gallery.py

Small runs on generated data. Each run has one fault, or only appears to have one. A heading is the
name of a run and its verdict. The page quotes all findings of `vaestro diagnose`. The runs are
defined in `tests/ill_runs.py`, and a test checks each verdict. [diagnosis.md](diagnosis.md) defines
the verdicts.
"""


def section(case: Ill, found: Diagnosis) -> str:
    """Return the section of a run: data, options, picture and findings."""
    options = " ".join(f"--{k} {v}" for k, v in case.options.items())
    doc = (
        (case.data.__doc__ or "")
        .split("\n\n")[0]
        .removeprefix("Return ")
        .replace("\n    ", " ")
        .rstrip(".")
    )
    stop = f", stopped after {case.stop} steps" if case.stop else ""
    findings = "\n".join(
        wrapped(
            f"- **{f.severity}: {f.name}.** {f.evidence}"
            + ("" if f.remedy else f". No command: {f.no_remedy}"),
            "  ",
        )
        + (f"\n\n      {f.remedy}" if f.remedy else "")
        for f in found.findings
    )
    picture = f"![The first screen of its report](images/gallery/{case.name}.png)"
    data = wrapped(f"Data: {doc}. `{options}`{stop}")
    return (
        f"\n## {case.name}: {found.verdict}\n\n{data}\n\n{picture}\n\n{findings or 'No finding.'}\n"
    )


def wrapped(text: str, indent: str = "") -> str:
    """Return text in lines of at most 100 columns."""
    return textwrap.fill(
        text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def main() -> None:
    docs = Path(sys.argv[1] if len(sys.argv) > 1 else "docs").resolve()
    images = docs / "images" / "gallery"
    images.mkdir(parents=True, exist_ok=True)
    page_text = HEAD
    with tempfile.TemporaryDirectory() as place, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        os.chdir(place)  # so that paths on the pages are short
        Path("runs").mkdir()
        for case in CASES:
            run = case.train(Path("runs"))
            found = run.diagnose()
            page_text += section(case, found)
            page = browser.new_context(viewport={"width": 1100, "height": 720}).new_page()
            page.goto(write_report(run.path).resolve().as_uri())
            page.wait_for_selector("html[data-ready]")
            file = images / f"{case.name}.png"
            page.screenshot(path=file)
            shot = Image.open(file).convert("RGB")
            shot.resize((825, 540), Image.Resampling.LANCZOS).quantize(64).save(file, optimize=True)
            print(f"{case.name}: {found.verdict}")
        browser.close()
    (docs / "gallery.md").write_text(page_text)


if __name__ == "__main__":
    main()
