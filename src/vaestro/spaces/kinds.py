"""The names of the kinds of data, as config.json stores them."""

from enum import StrEnum


class Kind(StrEnum):
    """Name what one cell of the data can be."""

    BINARY = "binary"
    LEVELS = "levels"
    REAL = "real"
    UNIT = "unit"  # the open interval (0, 1)
    CATEGORY = "category"
    COUNT = "count"
    TOKENS = "tokens"
    TABLE = "table"
