"""Tables in memory: columns by name, each with a mask of its empty cells. Torch is not imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar, final

import numpy as np

from vaestro.column_types import as_arrow, as_pandas
from vaestro.notebook import Card, Shown

if TYPE_CHECKING:
    import pandas
    import pyarrow

T = TypeVar("T")
Index = np.ndarray | slice | Sequence[int]  # which rows: numbers, truth values or a slice
Order = Sequence[str | int | float | bool]  # the values of ordered categories, increasing
SHOWN = 8  # rows and columns that are shown of a table
RAW = "raw"  # text of a file in which empty cells may be words, such as NA


@final
@dataclass(frozen=True, eq=False, repr=False)
class Frame(Shown):
    """Hold a user's table.

    Args:
        columns: {name: masked array (N,)} of numbers, text, truth values or datetime64.
        orders: {name: values in increasing order} of the columns that are declared as ordered
            categories, as by `pandas.Categorical(ordered=True)`; dates are ISO text.
        types: {name: declared type} of columns whose type is not that of the array, such as
            categories and time zones (`vaestro.column_types`).
        categories: {name: values} of the columns that are declared as unordered categories.
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
    types: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, Order] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def card(self) -> Card:
        """Return the first rows and columns."""
        names, rows, more = list(self.columns)[:SHOWN], min(SHOWN, len(self)), self.shape[1] - SHOWN
        cells = [[_shown(self.columns[name][i]) for name in names] for i in range(rows)]
        title = f"{len(self):,} rows, {self.shape[1]:,} columns"
        left = [f"{len(self) - rows:,} more rows"] * (len(self) > rows)
        left += [f"{more:,} more columns"] * (more > 0)
        return Card(title, [f"shown without {' and '.join(left)}"] if left else [], names, cells)

    def __getitem__(self, rows: Index) -> Frame:
        return self.changed(lambda name, cells: cells[rows])

    def changed(self, change: Callable[[str, np.ma.MaskedArray], np.ma.MaskedArray]) -> Frame:
        """Return the table with other cells in the same columns.

        Args:
            change: a function of the name and the cells of a column, (N,), that returns its cells.

        >>> import numpy as np
        >>> frame = Frame({"age": np.ma.MaskedArray([31, 47])})
        >>> frame.changed(lambda name, cells: cells + 1).columns["age"].tolist()
        [32, 48]
        """
        return replace(self, columns={n: change(n, cells) for n, cells in self.columns.items()})

    def with_columns(self, other: Frame) -> Frame:
        """Return the table with the columns of another table, which replace those of their names.

        >>> import numpy as np
        >>> cells = np.ma.MaskedArray([1, 2])
        >>> list(Frame({"a": cells}).with_columns(Frame({"b": cells})).columns)
        ['a', 'b']
        """
        rest = self.without(list(other.columns))
        return Frame(
            {**self.columns, **other.columns},
            {**rest.orders, **other.orders},
            {**rest.types, **other.types},
            {**rest.categories, **other.categories},
            {**rest.formats, **other.formats},
        )

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
        left_out = set(names)

        def rest(values: Mapping[str, T]) -> dict[str, T]:
            return {name: value for name, value in values.items() if name not in left_out}

        return Frame(
            rest(self.columns),
            rest(self.orders),
            rest(self.types),
            rest(self.categories),
            rest(self.formats),
        )

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

        The first table names the columns. A declared order, type or format is kept if all
        tables have the same.

        >>> import numpy as np
        >>> one = Frame({"a": np.ma.MaskedArray([1, 2])})
        >>> Frame.concatenated([one, one]).columns["a"].tolist()
        [1, 2, 1, 2]
        """
        columns = {
            name: np.ma.concatenate([frame.columns[name] for frame in frames])
            for name in frames[0].columns
        }

        def common(values: Sequence[Mapping[str, T]]) -> dict[str, T]:
            first, *others = values
            return {n: v for n, v in first.items() if all(o.get(n) == v for o in others)}

        return cls(
            columns,
            common([frame.orders for frame in frames]),
            common([frame.types for frame in frames]),
            common([frame.categories for frame in frames]),
            common([frame.formats for frame in frames]),
        )

    # -- as tables of other libraries --------------------------------------------------------------

    def to_arrow(self) -> pyarrow.Table:
        """Return the table as an Arrow table with the declared types; needs PyArrow.

        >>> import numpy as np
        >>> frame = Frame({"age": np.ma.MaskedArray([31, 0], [False, True])})
        >>> frame.to_arrow().to_pylist()
        [{'age': 31}, {'age': None}]
        """
        import pyarrow

        names = {
            name: self.orders.get(name) or self.categories.get(name, ()) for name in self.columns
        }
        return pyarrow.table(
            {
                name: as_arrow(pyarrow, cells, self.types.get(name, ""), names[name])
                for name, cells in self.columns.items()
            }
        )

    def to_pandas(self) -> pandas.DataFrame:
        """Return the table as a pandas DataFrame with the declared types; needs pandas.

        Whole numbers with empty cells have the type Int64, truth values with empty cells boolean.

        >>> import numpy as np
        >>> frame = Frame({"age": np.ma.MaskedArray([31, 0], [False, True])})
        >>> frame.to_pandas()["age"].dtype
        Int64Dtype()
        """
        import pandas

        table = self.to_arrow()
        return pandas.DataFrame(
            {name: as_pandas(table[name], self.types.get(name, "")) for name in self.columns}
        )

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the table to libraries that read Arrow data, such as polars and DuckDB."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)


def _shown(value: object) -> str:
    """Return a cell as it is shown; "" for an empty one."""
    if value is np.ma.masked:
        return ""
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else str(value)
