"""What a session takes: sources of data, conditions, and the rows to evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, final

import numpy as np

from vaestro import latent
from vaestro.data import Rows
from vaestro.data.source_options import OPTIONS as SOURCE_OPTIONS
from vaestro.options import OPTIONS as TRAINING_OPTIONS
from vaestro.tokens import Texts


class Table(Protocol):
    """Describe a table of another library, such as a pandas DataFrame or an Arrow table."""

    def __len__(self) -> int:
        """Return the number of rows."""

    @property
    def columns(self) -> object:
        """Return the columns, or their names."""


# a path or a name with options, an array (N, ...), a table, texts, or rows that were read before
Source: TypeAlias = (
    str
    | Path
    | np.ndarray
    | Table
    | Texts
    | Rows
    | Sequence[str]
    | Mapping[str, Sequence[object] | np.ndarray]
)
Conditions: TypeAlias = latent.Conditions | None  # {name: value}, the same for all rows


def of_sources(options: Mapping[str, object]) -> list[str]:
    """Return the names of those options that are about a source and not about training.

    >>> of_sources({"series": "unit:cycle", "latent": 8, "seed": 1})
    ['series']
    """
    of_training = {name for row in TRAINING_OPTIONS for name in (row.name, *row.aliases)}
    return [name for name in options if name in SOURCE_OPTIONS and name not in of_training]


@final
@dataclass(frozen=True, eq=False)
class HeldOut:
    """Hold the rows to evaluate.

    Args:
        rows: the rows; binary data that are drawn from grey levels are drawn once.
        source: from where they were read.
        changed: a sentence for each split of the run that differs from the data of the training.

    >>> import vaestro as vs
    >>> rows = vs.load({"size": [0.5, 1.5, 2.5] * 9, "age": [3, 1, 4] * 9}).test
    >>> HeldOut(rows, "table").changed
    ()
    """

    rows: Rows
    source: str
    changed: tuple[str, ...] = ()
