"""What commands print: plain lines, or a live display on a terminal."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, final

from vaestro.text import duration, visible

if TYPE_CHECKING:
    from vaestro.diagnosis import Unit
    from vaestro.runs import Job

Item = TypeVar("Item")


@final
class Stopped(Exception):
    """Say that a command was stopped and has printed what to do next."""


def discard_output() -> None:
    """Discard what is printed from now on, because nobody reads it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Console:
    """Print lines, unless --quiet was given."""

    quiet = False
    delay: float | None = 1.5  # seconds of work after which it is named; None for never

    def __init__(self) -> None:
        self.pending: list[str] = []  # lines for standard error, if the command succeeds
        self._printing = threading.RLock()
        self._drawn = ""  # what the current line shows, if it will be drawn again: progress or time

    def say(self, line: str = "") -> None:
        """Print a line."""
        if self.quiet:
            return
        try:
            with self._printing:
                self._clear()
                print(visible(line), flush=True)
        except BrokenPipeError:  # as with `| head`: the command goes on without a reader
            discard_output()

    def warn(self, line: str) -> None:
        """Print a line to standard error, unless it is empty or --quiet was given."""
        if line and not self.quiet:
            with self._printing:
                self._clear()
                print(visible(line), file=sys.stderr, flush=True)

    def warn_at_end(self, line: str) -> None:
        """Print a line to standard error once the command has succeeded, because a command that
        fails prints one line only."""
        if line and line not in self.pending:
            self.pending.append(line)

    def end(self) -> None:
        """Print the pending lines."""
        while self.pending:
            self.warn(self.pending.pop(0))

    @property
    def live(self) -> bool:
        """Return whether lines can be redrawn."""
        return sys.stdout.isatty() and not self.quiet

    def run(self, job: Job) -> None:
        """Run a job to its end and show its progress.

        Raises:
            Stopped: Ctrl-C or SIGTERM; what continues the run was printed.
        """
        training = job.training
        try:
            with job:
                self.watch(job)
        except KeyboardInterrupt:
            if job.published:
                self.say(
                    f"stopped at step {training.index:,} of {training.steps:,}; continue with: "
                    f"vaestro train --resume {job.path}"
                )
            else:
                self.say(f"stopped before the first step: {job.path} is as it was")
            raise Stopped from None

    def watch(self, job: Job) -> None:
        """Take all steps of a job and show its progress."""
        from vaestro.runs.watching import live_console, watch

        watch(job, self.say, live_console() if self.live else None)

    def reading(self, what: str, done: int, total: int) -> None:
        """Show the progress of reading data, on a terminal."""
        if self.live:
            self._draw(f"{what} {done:,} / {total:,}")
            if done >= total:
                self._end_line()

    def _after_the_first(self, items: Iterable[Item], what: str) -> Iterator[Item]:
        """Yield items, and name the work if the first one takes long."""
        steps = iter(items)
        with self.during(what):
            first = list(itertools.islice(steps, 1))
        yield from first
        yield from steps

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Name work that takes more than some seconds; on a terminal also show for how long.

        Args:
            what: the work; "" to print nothing.
        """
        done = threading.Event()
        thread = threading.Thread(target=self._name, args=(what, done), daemon=True)
        if what and not self.quiet and self.delay is not None:
            thread.start()
        try:
            yield
        finally:
            done.set()
            if thread.ident is not None:
                thread.join()
            with self._printing:
                self._clear()

    def _name(self, what: str, done: threading.Event) -> None:
        """Name work after the delay, unless it is done or its progress is drawn."""
        start = time.monotonic()
        if done.wait(self.delay):
            return
        if not self.live:
            self.say(f"{what} ..")
            return
        while True:
            if self._drawn != "progress":
                self._draw(f"{what}: {time.monotonic() - start:.0f} s", "time")
            if done.wait(0.5):
                return

    def _draw(self, line: str, kind: str = "progress") -> None:
        """Draw a line that will be drawn again."""
        with self._printing:
            print(f"\r{visible(line)}   ", end="", flush=True)
            self._drawn = kind

    def _end_line(self) -> None:
        """Leave the drawn line as it is."""
        with self._printing:
            print(flush=True)
            self._drawn = ""

    def _clear(self) -> None:
        """Remove the drawn line."""
        if self._drawn:
            print("\r" + " " * 79 + "\r", end="", flush=True)
            self._drawn = ""

    def progress(
        self, items: Iterable[tuple[float, Item]], what: str
    ) -> Iterator[tuple[float, Item]]:
        """Yield the (share done, item) pairs; print the expected time after a second, and show the
        progress on a terminal."""
        start, first, announced = time.perf_counter(), 0.0, False
        for done, item in self._after_the_first(items, what):
            if not first:
                # The first piece includes loading and warming up, so it is not representative.
                start, first = time.perf_counter(), done
            elapsed = time.perf_counter() - start
            left = elapsed * (1 - done) / max(1e-9, done - first)
            if not announced and elapsed > 1 and done < 1:
                self.say(f"{what}: about {duration(elapsed + left)}")
                announced = True
            if self.live and announced:
                self._draw(f"{done:4.0%}  {duration(left)} left")
            yield done, item
        with self._printing:
            self._clear()


console = Console()


def unit_lines(units: Sequence[Unit], most: int = 8) -> Iterator[str]:
    """Yield lines on latent units: the number of each role, and the units with the largest rate."""
    if not units:
        return
    roles = {
        role: sum(u.role == role for u in units)
        for role in ("informative", "noise", "off", "unclear")
    }
    yield f"{len(units)} units: " + ", ".join(
        f"{count} {role}" for role, count in roles.items() if count
    )
    ranked = sorted(units, key=lambda u: u.activity if u.rate is None else u.rate, reverse=True)
    yield (
        f"{'unit':>6} {'KL':>7} {'activity':>9} {'effect':>8}   (KL and effect in nats; "
        f"effect: loss of reconstruction without the unit)"
    )
    if any(u.rate is None for u in ranked):
        yield "    (no KL of single units: q or the prior does not factorise over units)"
    for u in ranked[:most]:
        rate, effect = ("-" if x is None else f"{x:.2f}" for x in (u.rate, u.effect))
        yield f"{u.unit:>6} {rate:>7} {u.activity:>9.2g} {effect:>8}   {u.role}"
    if len(ranked) > most:
        yield f"{'..':>6}"
