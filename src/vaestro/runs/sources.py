"""What a session takes: sources of data, conditions, and the rows to evaluate."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, final

import numpy as np

from vaestro import latent
from vaestro.data import Rows
from vaestro.data.named import NAMED
from vaestro.data.source_options import OPTIONS as SOURCE_OPTIONS
from vaestro.options import OPTIONS as TRAINING_OPTIONS
from vaestro.spaces import Space
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


def as_rows(source: Source, space: Space) -> Source:
    """Return one datum as the only row of a source; other sources unchanged.

    One datum is an array of the datum's shape, a mapping from columns to values or a pandas Series
    of a row, or for text data a text that is not like a path.

    Args:
        source: what the user passed.
        space: of the model.

    >>> import vaestro as vs
    >>> space = vs.load({"size": [0.5, 1.5, 2.5] * 9, "age": [3, 1, 4] * 9}).space
    >>> as_rows({"size": 1.5, "age": 3}, space)
    {'size': [1.5], 'age': [3]}
    """
    if isinstance(source, np.ndarray) and not space.tabular and not space.ragged:
        return source[None] if source.ndim and source.shape == space.outside else source
    if isinstance(source, str):
        return [source] if space.ragged and not _is_like_a_path(source) else source
    if (pandas := sys.modules.get("pandas")) and isinstance(source, pandas.Series):
        source = source.to_dict() if space.tabular else source.to_numpy()[None]
    if isinstance(source, Mapping) and source and space.tabular:
        values = list(source.values())
        if all(
            value is None or isinstance(value, str) or not np.ndim(np.asarray(value))
            for value in values
        ):
            return {name: [value] for name, value in source.items()}
    return source


def _is_like_a_path(text: str) -> bool:
    """Return whether a text is the name of a source: an existing path, a name, or a path's form."""
    name = text.partition(":")[0]
    if text.startswith("hf:") or name in NAMED or "/" in name or re.search(r"\.\w{1,8}$", name):
        return True
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a path
        return False


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
