"""The progress of a training: plain lines, or a live display in a terminal or a notebook.

The command `vaestro train`, `vs.train` and `vs.fit` show it. The display is that of Rich, which
draws in terminals and, through ipywidgets, in notebooks.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from vaestro.text import duration, visible

if TYPE_CHECKING:
    from rich.console import Console

    from vaestro.loop import Record
    from vaestro.runs.job import Job

BARS = "▁▂▃▄▅▆▇█"


def live_console() -> Console | None:
    """Return the console of a terminal or a notebook in which lines can be redrawn; None if there
    is none.

    >>> live_console() is None  # the output of an example is neither
    True
    """
    from rich.console import Console

    console = Console()
    if console.is_jupyter:
        return console if importlib.util.find_spec("ipywidgets") else None
    return console if sys.stdout.isatty() else None


def is_interactive() -> bool:
    """Return whether a person reads the output: in a terminal or a notebook.

    >>> is_interactive()
    False
    """
    if sys.stdout.isatty():
        return True
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter


def watch(job: Job, say: Callable[[str], None], console: Console | None = None) -> None:
    """Run a job to its end and show its progress.

    Args:
        job: the training.
        say: prints a line; for outputs that cannot be redrawn.
        console: of the live display; None for plain lines.

    >>> import numpy as np
    >>> from vaestro.runs import Job
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> lines = []
    >>> with Job.new(x, run="watched", latent=2, steps=2) as job:
    ...     watch(job, lines.append)
    >>> lines[0].split()[:5]
    ['step', '0', '/', '2', 'valid']
    """
    if console is not None:
        _watch_live(job, console)
        return
    watcher, unread = job.watcher(), 0
    for step in job:
        for record in step.records:
            say(line(record, job.training.steps))
            if (record.unread or 0) > unread:
                unread = record.unread or 0
                say(job.training.unread())
        for finding in watcher.see([record.line() for record in step.records]):
            for text in finding.lines():
                say(text)


def line(record: Record, steps: int) -> str:
    """Return a record in one line: the bound, reconstruction and KL.

    Args:
        record: a line of metrics.jsonl.
        steps: number of steps of the run.

    >>> from vaestro.loop.records import Record
    >>> record = Record("train", 1, 0.1, -3.0, 1.0, 2.0, 3.0, 1.0, 1e-3, 0.5, None, 0.1)
    >>> line(record, 10).split()[:7]
    ['step', '1', '/', '10', 'train', 'bound', '-3.00']
    """
    speed = (
        f"  {record.examples_per_second:,.0f}/s"
        if record.split == "train" and record.examples_per_second
        else ""
    )
    skipped = (
        f"  ({record.skipped} steps skipped)" if record.skipped and record.split == "train" else ""
    )
    altered = f"  (with {record.altered}: the bound of another model)" if record.altered else ""
    waited = (
        f"  (waiting for data {record.waited:.0%} of the time)"
        if record.waited and record.waited >= 0.02
        else ""
    )
    unread = f"  ({record.unread:,} rows could not be read)" if record.unread else ""
    return (
        f"step {record.step:>{len(f'{steps:,}')},} / {steps:,}  {record.split:5}  bound "
        f"{record.bound:9.2f}  "
        f"reconstruction {record.distortion:9.2f}  KL {record.rate:7.2f} "
        f"nats{speed}{waited}{unread}{skipped}{altered}"
    )


def trend(values: Iterable[float]) -> str:
    """Return numbers as a line of small bars, the lowest empty and the highest full.

    >>> trend([0.0, 7.0])
    '▁█'
    """
    numbers = [v for v in values if v == v and abs(v) != float("inf")]
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    return "".join(BARS[int((v - low) / ((high - low) or 1) * (len(BARS) - 1))] for v in numbers)


def _parts(record: Record) -> dict[str, float]:
    """Return the bound and its two parts, in nats."""
    return {"bound": record.bound, "distortion": record.distortion, "rate": record.rate}


def _watch_live(job: Job, console: Console) -> None:
    """Run a job to its end with a live display."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    training = job.training
    history: dict[str, dict[str, deque[float]]] = {
        s: {n: deque(maxlen=24) for n in ("bound", "distortion", "rate")}
        for s in ("train", "valid")
    }
    latest: dict[str, Record] = {}
    start, first, shown, unread = time.monotonic(), training.index, 0.0, 0
    watcher = job.watcher()

    def picture() -> Group:
        done = training.index
        elapsed = time.monotonic() - start
        rate = (done - first) / elapsed if elapsed > 0 else 0.0
        left = duration((training.steps - done) / rate) + " left" if rate > 0 else ""
        speed = f"{rate * training.batch:,.0f} examples/s" if rate > 0 else ""
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(training.steps, done, width=32), f"step {done:,} / {training.steps:,}",
            f"epoch {done / training.steps_per_epoch:.1f}", speed, left,
        )  # fmt: skip
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("", "bound", "", "reconstruction", "", "KL (nats)", ""):
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        for split, record in latest.items():
            cells = [
                c
                for name, h in history[split].items()
                for c in (f"{_parts(record)[name]:.2f}", trend(h))
            ]
            table.add_row(split, *cells)
        return Group(head, table, Text(""))

    with Live(picture(), console=console, refresh_per_second=4, auto_refresh=False) as live:
        for step in job:
            for record in step.records:
                latest[record.split] = record
                for name, values in history[record.split].items():
                    values.append(_parts(record)[name])
                if (record.unread or 0) > unread:
                    unread = record.unread or 0
                    live.console.print(
                        visible(job.training.unread()),
                        markup=False,
                        highlight=False,
                        soft_wrap=True,
                    )
            for finding in watcher.see([record.line() for record in step.records]):
                for text in finding.lines():
                    live.console.print(visible(text), markup=False, highlight=False, soft_wrap=True)
            if step.records or time.monotonic() - shown > 0.25:
                shown = time.monotonic()
                live.update(picture(), refresh=True)
