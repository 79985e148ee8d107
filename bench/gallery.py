"""Write docs/gallery.md: faulty runs, their diagnosis, and the first screen of each report.

    python bench/gallery.py [FOLDER]

The runs are those of tests/ill_runs.py; a test checks their verdicts. The pictures need playwright
and chromium.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from screenshots import FLAGS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.ill_runs import CASES, Ill
from vaestro import write_report
from vaestro.diagnosis import Diagnosis

HEAD = """# Runs made ill on purpose

    python bench/gallery.py

Small runs on generated data. Each has one fault, or looks faulty and is not. The page quotes what
`vaestro diagnose` says in full. `tests/ill_runs.py` makes the runs, and a test checks each verdict.
How verdicts are reached: [diagnosis.md](diagnosis.md).
"""


def section(case: Ill, found: Diagnosis) -> str:
    """Return the section of the page on a run."""
    options = " ".join(f"--{k} {v}" for k, v in case.options.items())
    doc = (
        (case.data.__doc__ or "")
        .split("\n\n")[0]
        .removeprefix("Return ")
        .replace("\n    ", " ")
        .rstrip(".")
    )
    stop = f", stopped after {case.stop} steps" if case.stop else ""
    said = "\n".join(
        f"- **{f.severity}: {f.name}.** {f.evidence}"
        + (f"\n\n      {f.remedy}" if f.remedy else f". No command: {f.no_remedy}")
        for f in found.findings
    )
    picture = f"![The first screen of its report](images/gallery/{case.name}.png)"
    return (
        f"\n## {case.name}: {found.verdict}\n\nData: {doc}. "
        f"`{options}`{stop}\n\n{picture}\n\n{said or 'No finding.'}\n"
    )


def main() -> None:
    docs = Path(sys.argv[1] if len(sys.argv) > 1 else "docs").resolve()
    images = docs / "images" / "gallery"
    images.mkdir(parents=True, exist_ok=True)
    page_text = HEAD
    with tempfile.TemporaryDirectory() as place, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        os.chdir(place)  # for short paths on the pages
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
