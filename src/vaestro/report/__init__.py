"""Write the report of a run's folder as one self-contained HTML file.

    gather.py      compute what a report needs and the folder lacks; write the page
    showcase.py    chosen data, reconstructions, samples, traversals -> RUN/showcase.json, .npz
    mapping.py     the map of the latent space
    distributions.py    rows as text, and histograms
    reading.py     read the files of the folder; without torch, like all modules below
    figures/       Plotly figures as plain values, one file per figure
    sketches.py    small SVG pictures
    pictures.py    images as data URIs
    words.py       numbers and results in words
    sections.py    the content of each section of the page
    render.py      files -> HTML

`render` needs neither torch nor the data, so it also works on a folder that was copied elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaestro.report.gather import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> object:
    if name == "write_report":
        from vaestro.report import gather

        return gather.write_report
    raise AttributeError(f"module 'vaestro.report' has no attribute {name!r}")
