"""What a reader returns: the user's data as they are, by split. Torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

Options = Mapping[str, Any]  # of a source; `parse_source` has checked names and types
Json = dict[str, Any]  # as json reads and writes it


@final
@dataclass(frozen=True, eq=False)
class Raw:
    """Hold what a source has, in the user's layout and units: by split, or all of it under "all".

    Args:
        splits: arrays (N, ...), possibly memory-mapped and read-only, tables, texts, sparse counts
            or streams, by the name of the split. All are of one type (`data.containers`).
        attributes: for each split, other values of each row, by name, each (N,).
        notes: decisions of the reader, a line each.
        missing: whether NaN means that a cell does not exist, such as after the end of a series.
    """

    splits: Mapping[str, Any]
    attributes: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    missing: bool = False
