"""What the data are: one class for each kind of data, column and layout.

To add a kind of data, write a class and one row of `SPACES`; a kind of column, a class and one row
of `COLUMNS`; a layout, a class and one row of `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vaestro.files import Json
from vaestro.spaces.array import ArraySpace
from vaestro.spaces.base import Space
from vaestro.spaces.batch import Batch
from vaestro.spaces.columns import (
    BinaryColumn,
    CategoryColumn,
    Column,
    CountColumn,
    DateColumn,
    RealColumn,
    UnknownCategory,
)
from vaestro.spaces.continuous import RealSpace, UnitSpace
from vaestro.spaces.discrete import BinarySpace, CategorySpace, CountSpace, LevelsSpace
from vaestro.spaces.grids import FINEST, LARGEST_COUNT, rounded, widths
from vaestro.spaces.kinds import COLUMN_ORDER, Kind
from vaestro.spaces.layouts import (
    AXES,
    DECLARED,
    LAYOUTS,
    Layout,
    declared_layout,
    layout_of_axes,
    stored_layout,
    usual_layout,
)
from vaestro.spaces.missing import as_value, missing_cells, with_gaps
from vaestro.spaces.ordinal import OrdinalColumn
from vaestro.spaces.series import LongTable
from vaestro.spaces.support import check_batch
from vaestro.spaces.table import TableSpace
from vaestro.spaces.texts import TokensSpace

SPACES: dict[Kind, type[Space]] = {
    space.kind: space
    for space in (
        BinarySpace,
        LevelsSpace,
        RealSpace,
        UnitSpace,
        CategorySpace,
        CountSpace,
        TokensSpace,
        TableSpace,
    )
}
COLUMNS: dict[Kind, type[Column]] = {
    column.kind: column
    for column in (RealColumn, CountColumn, BinaryColumn, OrdinalColumn, CategoryColumn)
}


def column_class(kind: Kind, dtype: str) -> type[Column]:
    """Return the class of a table's column; dates are real columns of a class of their own.

    >>> column_class(Kind.REAL, "datetime64[D]").__name__
    'DateColumn'
    """
    dates = kind is Kind.REAL and dtype.startswith("datetime64")
    return DateColumn if dates else COLUMNS[kind]


def restored_space(scalars: Mapping[str, Json], arrays: Mapping[str, np.ndarray]) -> Space:
    """Return a space from its `scalars()` and `arrays()`.

    >>> space = BinarySpace((4,), (4,), levels=2)
    >>> str(restored_space(space.scalars(), space.arrays()))
    'binary (4,)'
    """
    columns = []
    for stored in scalars.get("columns", ()):
        fields: dict[str, Json] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in stored.items()
        }
        columns.append(column_class(Kind(fields.pop("kind")), fields["dtype"])(**fields))
    return SPACES[Kind(scalars["kind"])].restored({**scalars, "columns": columns}, arrays)


__all__ = [
    "AXES",
    "COLUMNS",
    "COLUMN_ORDER",
    "DECLARED",
    "FINEST",
    "LARGEST_COUNT",
    "LAYOUTS",
    "SPACES",
    "ArraySpace",
    "Batch",
    "BinaryColumn",
    "BinarySpace",
    "CategoryColumn",
    "CategorySpace",
    "Column",
    "CountColumn",
    "CountSpace",
    "DateColumn",
    "Kind",
    "Layout",
    "LevelsSpace",
    "LongTable",
    "OrdinalColumn",
    "RealColumn",
    "RealSpace",
    "Space",
    "TableSpace",
    "TokensSpace",
    "UnitSpace",
    "UnknownCategory",
    "as_value",
    "check_batch",
    "column_class",
    "declared_layout",
    "layout_of_axes",
    "missing_cells",
    "restored_space",
    "rounded",
    "stored_layout",
    "usual_layout",
    "widths",
    "with_gaps",
]
