"""A column of text of all splits: its distinct words, and which cell has which word."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from vaestro.data.formats import coded
from vaestro.frames import RAW, Frame


@final
@dataclass(frozen=True, eq=False)
class TextColumn:
    """Hold a column of text of all splits.

    Args:
        name: of the column.
        words: the distinct words; "" is an empty cell.
        codes: of the cells, by split.
        raw: whether empty cells may be words.
    """

    name: str
    words: list[str]
    codes: Mapping[str, np.ndarray]
    raw: bool

    @classmethod
    def of(cls, splits: Mapping[str, Frame], name: str) -> TextColumn:
        """Return a column of tables.

        >>> table = Frame({"a": np.ma.array(["x", "y", "x"])})
        >>> TextColumn.of({"all": table}, "a").times.tolist()
        [2, 1]
        """
        parts: dict[str, np.ndarray] = {}
        table: dict[str, int] = {}
        for split, frame in splits.items():
            if name in frame.columns:
                cells = frame.columns[name]
                data, mask = np.asarray(cells.data), np.ma.getmaskarray(cells)
                data = data.astype(str) if data.dtype.kind != "U" else data
                words, codes = coded(np.where(mask, "", data) if mask.any() else data)
                places = [table.setdefault(word, len(table)) for word in words]
                parts[split] = np.array(places, np.int64)[codes]
        raw = any(frame.formats.get(name) == RAW for frame in splits.values())
        return cls(name, list(table), parts, raw)

    @cached_property
    def times(self) -> np.ndarray:
        """Return how often each word occurs, (n,)."""
        return np.bincount(np.concatenate(list(self.codes.values())), minlength=len(self.words))

    def cells(self, words: Collection[str]) -> int:
        """Return the number of cells with these words."""
        return sum(int(n) for w, n in zip(self.words, self.times, strict=True) if w in words)

    def rows(self, word: str) -> list[str]:
        """Return the numbers of the rows with a word, with their split if there are several."""
        code, one = self.words.index(word), len(self.codes) == 1
        return [
            f"{row + 1:,}" if one else f"{row + 1:,} of {split}"
            for split, codes in self.codes.items()
            for row in np.flatnonzero(codes == code).tolist()
        ]

    def values(self, of_words: np.ma.MaskedArray) -> dict[str, np.ma.MaskedArray]:
        """Return the cells of each split from the values of the words."""
        data, mask = np.ma.getdata(of_words), np.ma.getmaskarray(of_words)
        return {
            split: np.ma.MaskedArray(data[codes], mask[codes] if mask.any() else np.ma.nomask)
            for split, codes in self.codes.items()
        }

    def kept(self, empty: Collection[str]) -> dict[str, np.ma.MaskedArray]:
        """Return the words of each split, without those that are empty cells."""
        mask = np.array([word == "" or word in empty for word in self.words], bool)
        data = np.array(["" if gone else w for w, gone in zip(self.words, mask, strict=True)], str)
        return self.values(np.ma.MaskedArray(data, mask))
