"""What verbs return: data in the caller's own type.

A table that was passed as a DataFrame of pandas or polars comes back as one. Arrays come back as
arrays, and texts as texts. Codes and scores are NumPy arrays, whatever was passed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

from vaestro.frames import Frame

if TYPE_CHECKING:
    import pandas

Data = TypeVar("Data")


def as_given(source: object, data: Data) -> Data:
    """Return data of a verb in the type of the source from which they were computed.

    A DataFrame of pandas has the index and the order of columns of the source, and each column the
    source's dtype if it holds the values exactly.

    Args:
        source: what the user passed.
        data: what a verb computed from it; changed only if it is a Frame.

    >>> import numpy as np
    >>> import pandas as pd
    >>> source = pd.DataFrame({"age": [31, 47]}, index=["a", "b"])
    >>> as_given(source, Frame({"age": np.ma.MaskedArray([30.5, 46.0])}))
        age
    a  30.5
    b  46.0
    """
    if not isinstance(data, Frame):
        return data
    # A library that was not imported did not make the source.
    if (pandas := sys.modules.get("pandas")) and isinstance(source, pandas.DataFrame):
        return _as_pandas(source, data)
    if (polars := sys.modules.get("polars")) and isinstance(source, polars.DataFrame):
        return polars.DataFrame(data)
    return data


def example_of(source: object) -> object | None:
    """Return an empty DataFrame of the type and the columns of the source; None for other data.

    A run that was trained on a DataFrame returns samples and decoded latents in its type.

    >>> import pandas as pd
    >>> example_of(pd.DataFrame({"age": [31, 47]})).columns.tolist(), example_of([1.0])
    (['age'], None)
    """
    for library in (sys.modules.get("pandas"), sys.modules.get("polars")):
        if library is not None and isinstance(source, library.DataFrame):
            empty: object = source[:0]
            return empty
    return None


def _as_pandas(source: pandas.DataFrame, data: Frame) -> pandas.DataFrame:
    table = data.to_pandas()
    if len(table) == len(source):
        table.index = source.index
    first = [name for name in source.columns if name in table.columns]
    table = table[[*first, *(name for name in table.columns if name not in first)]]
    for name in first:
        try:
            cast = table[name].astype(source[name].dtype)
            same = bool((cast == table[name]).all())
        except (TypeError, ValueError):
            continue
        if same:
            table[name] = cast
    return table
