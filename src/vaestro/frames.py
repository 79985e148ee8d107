"""Tables in memory: columns by name, each with a mask of its empty cells. Torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

Index = np.ndarray | slice | Sequence[int]  # which rows: numbers, truth values or a slice


@final
@dataclass(frozen=True, eq=False)
class Frame:
    """Hold a user's table.

    Args:
        columns: {name: masked array (N,)} of numbers, text, truth values or datetime64.

    >>> import numpy as np
    >>> frame = Frame({"age": np.ma.MaskedArray([31, 47, 0], [False, False, True])})
    >>> len(frame), frame.shape
    (3, (3, 1))
    >>> frame[:2].columns["age"].tolist()
    [31, 47]
    """

    columns: Mapping[str, np.ma.MaskedArray]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, rows: Index) -> Frame:
        return Frame({name: values[rows] for name, values in self.columns.items()})

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""
        return len(self), len(self.columns)

    def without(self, names: Sequence[str]) -> Frame:
        """Return the table without some columns.

        >>> import numpy as np
        >>> cells = np.ma.MaskedArray([1, 2])
        >>> list(Frame({"a": cells, "b": cells}).without(["a"]).columns)
        ['b']
        """
        return Frame({name: cells for name, cells in self.columns.items() if name not in names})

    @classmethod
    def concatenated(cls, frames: Sequence[Frame]) -> Frame:
        """Return the rows of several tables one below the other; the first names the columns.

        >>> import numpy as np
        >>> one = Frame({"a": np.ma.MaskedArray([1, 2])})
        >>> Frame.concatenated([one, one]).columns["a"].tolist()
        [1, 2, 1, 2]
        """
        return cls(
            {
                name: np.ma.concatenate([frame.columns[name] for frame in frames])
                for name in frames[0].columns
            }
        )
