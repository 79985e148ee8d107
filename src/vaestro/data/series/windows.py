"""Windows of series, and their division into training, validation and test rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from vaestro.data.grouping import divided_by_group
from vaestro.text import InputError

LEAST_GROUPS = 10  # number of series from which whole series are held out


def starts_of(length: int, window: int, stride: int) -> np.ndarray:
    """Return the first step of each window of a series; a shorter series is one window.

    >>> starts_of(10, 4, 2), starts_of(3, 4, 2)
    (array([0, 2, 4, 6]), array([0]))
    """
    return np.arange(0, max(1, length - window + 1), stride)


@final
@dataclass(frozen=True, eq=False)
class Windows:
    """Hold the series and the first step of each window.

    Args:
        series: number of the series, (N,).
        start: the first step within the series, (N,).
        length: steps of a window.
        noun: what a series is, for notes, such as "unit".

    >>> windows = Windows(np.repeat(np.arange(20), 3), np.tile([0, 4, 8], 20), 4)
    >>> index, note = windows.divide({"valid": 3, "test": 3}, 0)
    >>> {split: len(rows) for split, rows in index.items()}
    {'test': 3, 'valid': 3, 'train': 54}
    """

    series: np.ndarray
    start: np.ndarray
    length: int
    noun: str = "series"

    def divide(
        self, sizes: Mapping[str, int], seed: int, where: str = "the data"
    ) -> tuple[dict[str, np.ndarray], str]:
        """Return the rows of each split, and a note.

        No step is in two splits. Of 10 or more series, whole ones are held out, by seed. Otherwise
        the last windows of each series are.

        Args:
            sizes: the least number of rows of each held-out split.
            seed: of the draw.
            where: the source, for messages.

        Raises:
            ValueError: a split would be empty.
        """
        count = len(np.unique(self.series))
        if count >= LEAST_GROUPS:
            index = divided_by_group(self.series, sizes, seed)
            note = f"split by seed {seed} by {self.noun}: no {self.noun} is in two splits"
        else:
            index = self._by_time(sizes)
            note = "split by time: the last windows are those for validation, then those for test"
            if count > 1:
                note = f"{note} (of each {self.noun}, because there are fewer than {LEAST_GROUPS})"
        empty = [s for s, rows in index.items() if not len(rows) and sizes.get(s, 1)]
        if empty:
            raise InputError(
                f"too few windows in {where} for a {empty[0]} split without steps of another "
                f"split: use a smaller window= or stride="
            )
        return index, note

    def _by_time(self, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {split: [] for split in (*sizes, "train")}
        for number in np.unique(self.series):
            rows = np.flatnonzero(self.series == number)
            rows = rows[np.argsort(self.start[rows], kind="stable")]
            left = len(rows)
            for split, size in reversed(list(sizes.items())):
                share = size and max(1, round(size * len(rows) / len(self.series)))
                held = rows[max(0, left - share) : left]
                left = max(0, left - share)
                if len(held):
                    parts[split].append(held)
                    # windows that overlap the held-out steps are left out
                    while left and self.start[rows[left - 1]] + self.length > self.start[held[0]]:
                        left -= 1
            parts["train"].append(rows[:left])
        return {s: np.sort(np.concatenate([*p, np.zeros(0, int)])) for s, p in parts.items()}
