"""Tables in memory: columns by name, each with a mask of its empty cells. Torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

Index = np.ndarray | slice | Sequence[int]  # which rows: numbers, truth values or a slice
Order = Sequence[str | int | float | bool]  # the values of ordered categories, increasing
RAW = "raw"  # text of a file in which empty cells may be words, such as NA


@final
@dataclass(frozen=True, eq=False)
class Frame:
    """Hold a user's table.

    Args:
        columns: {name: masked array (N,)} of numbers, text, truth values or datetime64.
        orders: {name: values in increasing order} of the columns that are declared as ordered
            categories, as by `pandas.Categorical(ordered=True)`; dates are ISO text.
        formats: {name: stored format of its cells} of the columns that were text in the source, as
            in `data.formats`; `RAW` if it is not decided yet what the text is.

    >>> import numpy as np
    >>> frame = Frame({"age": np.ma.MaskedArray([31, 47, 0], [False, False, True])})
    >>> len(frame), frame.shape
    (3, (3, 1))
    >>> frame[:2].columns["age"].tolist()
    [31, 47]
    """

    columns: Mapping[str, np.ma.MaskedArray]
    orders: Mapping[str, Order] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, rows: Index) -> Frame:
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Frame(columns, self.orders, self.formats)

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
        columns = {name: cells for name, cells in self.columns.items() if name not in names}
        orders = {n: order for n, order in self.orders.items() if n in columns}
        return Frame(columns, orders, {n: f for n, f in self.formats.items() if n in columns})

    def beside(self, other: Frame) -> Frame:
        """Return the columns of this table and of another with the same rows, which replace equal
        ones.

        >>> import numpy as np
        >>> one, two = (Frame({n: np.ma.MaskedArray([1])}) for n in "ab")
        >>> list(one.beside(two).columns)
        ['a', 'b']
        """
        return Frame(
            {**self.columns, **other.columns},
            {**self.orders, **other.orders},
            {**self.formats, **other.formats},
        )

    @classmethod
    def concatenated(cls, frames: Sequence[Frame]) -> Frame:
        """Return the rows of several tables one below the other.

        The first table names the columns. A declared order or format is kept if all tables have
        the same.

        >>> import numpy as np
        >>> one = Frame({"a": np.ma.MaskedArray([1, 2])})
        >>> Frame.concatenated([one, one]).columns["a"].tolist()
        [1, 2, 1, 2]
        """
        columns = {
            name: np.ma.concatenate([frame.columns[name] for frame in frames])
            for name in frames[0].columns
        }
        orders = {
            name: order
            for name, order in frames[0].orders.items()
            if all(list(frame.orders.get(name, ())) == list(order) for frame in frames)
        }
        formats = {
            name: stored
            for name, stored in frames[0].formats.items()
            if all(frame.formats.get(name) == stored for frame in frames)
        }
        return cls(columns, orders, formats)
