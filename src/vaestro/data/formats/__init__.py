"""Formats of cells: how the text of a column is read as values, and how values are written back.

A format parses a whole column of distinct words, writes values in the same letters, and has a text
from which it is restored. `decide` chooses the one format of a column. A new format is one final
class and one row of `FORMATS`. Torch is not imported.
"""

from vaestro.data.formats.base import CellFormat, Sample
from vaestro.data.formats.dates import DateFormat
from vaestro.data.formats.deciding import FORMATS, Decision, decide, restored
from vaestro.data.formats.words import coded, empty_words, is_empty, spellings

__all__ = [
    "FORMATS",
    "CellFormat",
    "DateFormat",
    "Decision",
    "Sample",
    "coded",
    "decide",
    "empty_words",
    "is_empty",
    "restored",
    "spellings",
]
