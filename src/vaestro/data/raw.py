"""What a reader returns: the user's data in their own units, by split. Torch is not imported."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, final

import numpy as np

from vaestro.data.passes import W

if TYPE_CHECKING:
    from vaestro.data.series.record import Record

Options = Mapping[str, Any]  # of a source; `parse_source` has checked names and types
Json = dict[str, Any]  # a JSON object, as `json` reads and writes it
# attributes that name rows: the cells of AnnData, the files of images, and the identifiers of
# sequences. Files of codes and of reconstructions contain the first one that a source has.
IDENTIFIERS = ("obs_names", "file", "id")
# what np.load raises for a damaged .npy or .npz: NumPy reads the header of an array as Python
DAMAGED_ARRAY = (
    *(OSError, EOFError, ValueError, RuntimeError, SyntaxError, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error),
)


@final
@dataclass(frozen=True, eq=False)
class Raw(Generic[W]):
    """Hold the data of a source in the user's layout and units.

    Args:
        splits: the data of each split, by its name, or all data under "all". They are arrays
            (N, ...), possibly memory-mapped and read-only, tables, texts, sparse counts or
            streams. All splits have one type (`data.containers`).
        attributes: for each split, other values of each row, by name, each (N,).
        notes: decisions of the reader, one line each.
        missing: whether NaN means that a cell does not exist, such as after the end of a series.
        series: how series were read; None for other data.

    >>> raw = Raw({"all": np.zeros((10, 3))}, {"all": {"label": np.arange(10)}})
    >>> raw.splits["all"].shape
    (10, 3)
    """

    splits: Mapping[str, W]
    attributes: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    missing: bool = False
    series: Record | None = None
