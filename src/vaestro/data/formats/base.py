"""The interface of the formats of cells: how text is read as values and written back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar, Self, final

import numpy as np

NINES = bytes.maketrans(b"0123456789", b"9" * 10)


@final
@dataclass(frozen=True, eq=False)
class Sample:
    """Hold the words of a column from which its format is decided.

    Args:
        words: the distinct words that are not empty cells.
        times: how often each occurs, (n,).
        shapes: the words with 9 for each digit.
        comma: whether commas are decimal points in this table; None if nothing tells.
        day_first: whether days are before months in this table; None if nothing tells.
    """

    words: Sequence[str]
    times: np.ndarray
    shapes: Sequence[str]
    comma: bool | None = None
    day_first: bool | None = None

    @classmethod
    def of(
        cls,
        words: Sequence[str],
        times: np.ndarray,
        *,
        comma: bool | None = None,
        day_first: bool | None = None,
    ) -> Sample:
        """Return a sample of words.

        >>> Sample.of(["$12.50"], np.array([1])).by_shape
        {'$99.99': 1}
        """
        return cls(words, times, shapes_of(words), comma, day_first)

    @cached_property
    def by_shape(self) -> dict[str, int]:
        """Return how many cells have each shape."""
        counts: dict[str, int] = {}
        for shape, times in zip(self.shapes, self.times.tolist(), strict=True):
            counts[shape] = counts.get(shape, 0) + times
        return counts


@final
@dataclass(frozen=True, eq=False)
class Guess:
    """Hold a format that could be that of a column.

    Args:
        format: the format.
        others: other formats that fit as well, in words, with the option that chooses them.
    """

    format: CellFormat
    others: str = ""


@dataclass(frozen=True)
class CellFormat(ABC):
    """Describe how the cells of one column are written."""

    name: ClassVar[str]  # in a stored format
    values: ClassVar[str]  # what the cells are, in the plural
    continuous: ClassVar[bool] = False  # whether the values are points or lengths of time

    @abstractmethod
    def __str__(self) -> str:
        """Return the format in words, or an example."""

    @property
    def usual(self) -> bool:
        """Return whether the format is what everybody expects, which needs no note."""
        return False

    @property
    def decimal_comma(self) -> bool | None:
        """Return whether commas are decimal points; None if the format does not show it."""
        return None

    @property
    def day_first(self) -> bool | None:
        """Return whether days are before months; None if the format does not show it."""
        return None

    @property
    def strict(self) -> bool:
        """Return whether a single odd word says that the column has another format."""
        return False

    @classmethod
    @abstractmethod
    def guesses(cls, sample: Sample) -> list[Guess]:
        """Return the formats of this class that a column may have, the most likely first."""

    @abstractmethod
    def parse(self, words: Sequence[str]) -> np.ma.MaskedArray:
        """Return words as values, (n,); words of another format are masked."""

    @abstractmethod
    def write(self, values: np.ndarray) -> list[str]:
        """Return values, (n,), as words."""

    def stored(self) -> str:
        """Return a text from which `restored` makes the format."""
        options = {
            f.name: getattr(self, f.name)  # the fields of a dataclass
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }
        return f"{self.name} {json.dumps(options, ensure_ascii=False)}"

    @classmethod
    def restored(cls, options: Mapping[str, object]) -> Self:
        """Return a format from its options."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})


def shapes_of(words: Sequence[str]) -> list[str]:
    """Return words with 9 for each digit.

    >>> shapes_of(["$12.50", "a"])
    ['$99.99', 'a']
    """
    blob = "\n".join(words)
    if blob.count("\n") != len(words) - 1:
        blob = "\n".join(word.replace("\n", "\r") for word in words)
    return (
        blob.encode("utf-8", "surrogatepass")
        .translate(NINES)
        .decode("utf-8", "surrogatepass")
        .split("\n")[: len(words)]
    )
