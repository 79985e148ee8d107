"""Truth values in the spelling of the data: True, TRUE or true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from vaestro.data.formats.base import CellFormat, Guess, Sample

MOST_SPELLINGS = 50  # of the two words and of odd ones


@final
@dataclass(frozen=True)
class TruthFormat(CellFormat):
    """Describe truth values.

    Args:
        true, false: the two words.

    >>> TruthFormat("TRUE", "FALSE").write(np.array([True, False]))
    ['TRUE', 'FALSE']
    """

    true: str = "true"
    false: str = "false"

    name = "truth"
    values = "truth values"

    def __str__(self) -> str:
        return f"{self.true} and {self.false}"

    @property
    def usual(self) -> bool:
        return True

    def parse(self, words: Sequence[str]) -> np.ma.MaskedArray:
        plain = [word.strip().lower() for word in words]
        fits = [word in ("true", "false") for word in plain]
        return np.ma.MaskedArray(
            np.array([word == "true" for word in plain]), ~np.array(fits, bool)
        )

    def write(self, values: np.ndarray) -> list[str]:
        return [self.true if value else self.false for value in np.asarray(values).tolist()]

    @classmethod
    def guesses(cls, sample: Sample) -> list[Guess]:
        if len(sample.words) > MOST_SPELLINGS:
            return []
        times = dict(zip(sample.words, sample.times.tolist(), strict=True))
        words = [
            max(
                (w for w in times if w.strip().lower() == plain),
                key=lambda w: times[w],
                default=plain,
            )
            for plain in ("true", "false")
        ]
        good = sum(n for w, n in times.items() if w.strip().lower() in ("true", "false"))
        return [Guess(cls(*(w.strip() for w in words)))] if good == sum(times.values()) else []
