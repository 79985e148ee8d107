"""The names of the kinds of data, as config.json stores them."""

from enum import StrEnum


class Kind(StrEnum):
    """Name what one cell of the data can be.

    >>> Kind("real") is Kind.REAL
    True
    """

    BINARY = "binary"
    LEVELS = "levels"
    REAL = "real"
    UNIT = "unit"  # the open interval (0, 1)
    CATEGORY = "category"
    COUNT = "count"
    ORDINAL = "ordinal"  # ordered categories
    TOKENS = "tokens"
    TABLE = "table"


# the kinds of a table's columns, in the order that they have inside
COLUMN_ORDER = (Kind.REAL, Kind.COUNT, Kind.BINARY, Kind.ORDINAL, Kind.CATEGORY)
