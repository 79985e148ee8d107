"""Tables in memory: columns by name, each with a mask of its empty cells. Torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

Index = np.ndarray | slice | Sequence[int]  # which rows: numbers, truth values or a slice
Order = Sequence[str | int | float | bool]  # the values of ordered categories, increasing


@final
@dataclass(frozen=True, eq=False)
class Frame:
    """Hold a user's table.

    Args:
        columns: {name: masked array (N,)} of numbers, text, truth values or datetime64.
        orders: {name: values in increasing order} of the columns that are declared as ordered
            categories, as by `pandas.Categorical(ordered=True)`; dates are ISO text.

    >>> import numpy as np
    >>> frame = Frame({"age": np.ma.MaskedArray([31, 47, 0], [False, False, True])})
    >>> len(frame), frame.shape
    (3, (3, 1))
    >>> frame[:2].columns["age"].tolist()
    [31, 47]
    """

    columns: Mapping[str, np.ma.MaskedArray]
    orders: Mapping[str, Order] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, rows: Index) -> Frame:
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Frame(columns, self.orders)

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
        return Frame(columns, {n: order for n, order in self.orders.items() if n in columns})

    def with_first(self, name: str, cells: np.ma.MaskedArray) -> Frame:
        """Return the table with a further column before the others.

        >>> import numpy as np
        >>> cells = np.ma.MaskedArray([1, 2])
        >>> list(Frame({"a": cells}).with_first("b", cells).columns)
        ['b', 'a']
        """
        return replace(self, columns={name: cells, **self.columns})

    @classmethod
    def concatenated(cls, frames: Sequence[Frame]) -> Frame:
        """Return the rows of several tables one below the other.

        The first table names the columns. A declared order is kept if all tables have the same.

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
        return cls(columns, orders)
