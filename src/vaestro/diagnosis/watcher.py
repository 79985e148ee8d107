"""Apply the rules on the curves at each validation of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from vaestro.diagnosis.curve_rules import (
    falling_bound,
    silent_code,
    skipped_steps,
    slow_data,
    stagnation,
)
from vaestro.diagnosis.curves import Curves
from vaestro.diagnosis.records import Finding
from vaestro.diagnosis.remedies import Remedies
from vaestro.files import Json

LIVE = (silent_code, stagnation, falling_bound)
AT_ONCE = (skipped_steps, slow_data)  # from the first validation on


@final
class Watcher:
    """Applies the rules at each validation, and reports each finding once.

    Args:
        steps: number of steps of the run.
        remedy: command lines for this run.
        settle: share of the run after which the code is judged. Before, the KL of a healthy model
            may still rise from near zero.
        reads_latent: whether z is an input of the decoder; if not, the code is not judged.

    >>> watcher = Watcher(100, Remedies("run", {"lr": 1e-3}))
    >>> line = {"split": "valid", "step": 10, "skipped": 2}
    >>> [finding.name for finding in watcher.see([line])], watcher.see([line])
    (['steps skipped'], [])
    """

    def __init__(
        self, steps: int, remedy: Remedies, settle: float = 0.2, reads_latent: bool = True
    ) -> None:
        self.steps, self.remedy, self.settle = steps, remedy, settle
        self.live = (
            LIVE if reads_latent else tuple(rule for rule in LIVE if rule is not silent_code)
        )
        self._lines: list[Mapping[str, Json]] = []
        self._reported: set[str] = set()

    def see(self, lines: Sequence[Mapping[str, Json]]) -> list[Finding]:
        """Add the lines that were logged at a step, and return the new findings."""
        self._lines += lines
        if not any(line["split"] == "valid" for line in lines):
            return []
        curves = Curves(self._lines, self.steps)
        rules = (*(self.live if lines[-1]["step"] >= self.settle * self.steps else ()), *AT_ONCE)
        findings = [
            f
            for f in (rule(curves, self.remedy) for rule in rules)
            if f is not None and f.name not in self._reported
        ]
        self._reported |= {f.name for f in findings}
        return findings
