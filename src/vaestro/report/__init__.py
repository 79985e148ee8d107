"""The report: a run's folder -> one HTML file that stands for itself.

    gather.py       runs what a report needs and the folder lacks, or has of earlier weights:
    evaluation, diagnosis, showcase showcase.py     chosen data, their reconstructions, samples,
    traversals, codes on a map -> RUN/showcase.json, .npz reading.py      the folder's files, as
    they are; without torch, as all below figures.py      Plotly figures as plain values;
    sketches.py: small pictures drawn as SVG; pictures.py: sheets of images words.py        numbers
    and results in words sections.py     what each part of the page holds
    render.py       files -> HTML

`render` needs no torch, and no data: a folder that was copied elsewhere renders the same.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from vaestro.report.gather import write_report

        return write_report
    raise AttributeError(f"module 'vaestro.report' has no attribute {name!r}")
