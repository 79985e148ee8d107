"""Orders of ordinal columns: ordinal=level+grade=low<mid<high, or an order that a table declares.

Numbers and dates have an order of their own; text needs a stated or declared one.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable
from contextlib import suppress

import numpy as np

from vaestro.data.raw import Options
from vaestro.data.refusals import Unfit
from vaestro.frames import Order
from vaestro.text import quoted, split_names, unquoted


def stated_orders(options: Options, names: Collection[str]) -> dict[str, list[str]]:
    """Return the orders that the option ordinal= states, by column.

    >>> stated_orders({"ordinal": "level+grade=low<mid<high"}, ["level", "grade"])
    {'grade': ['low', 'mid', 'high']}
    """
    stated = options.get("ordinal", ())
    pieces = stated if isinstance(stated, (list, tuple)) else split_names(str(stated))
    pairs = [str(piece).partition("=") for piece in pieces if piece not in names]
    return {unquoted(name): order.split("<") for name, _, order in pairs if order}


def declared_order(values: Iterable[object]) -> Order:
    """Return the order of the values of a dictionary, without empty cells; dates are ISO text.

    >>> declared_order(["low", None, "", "high"])
    ('low', 'high')
    """
    full = [v for v in values if v is not None and v == v and v != ""]
    return tuple(v if isinstance(v, (str, int, float, bool)) else str(v) for v in full)


def ordered_values(name: str, values: np.ndarray, order: Order | None) -> np.ndarray:
    """Return the distinct values of an ordinal column in increasing order.

    It is the stated or declared order, which may contain values that no row has, or that of numbers
    and dates.

    Raises:
        Unfit: text has no stated order, a value is not in it, or a value is in it twice.

    >>> ordered_values("grade", np.array(["high", "low"]), ["low", "mid", "high"]).tolist()
    ['low', 'mid', 'high']
    """
    if order is None:
        if values.dtype.kind == "U":
            example = shlex.quote(f"ordinal={quoted(name)}={'<'.join(values.tolist())}")
            raise Unfit(
                f"an order of the values of column {name!r}, such as {example}", "text without one"
            )
        return values
    categories = np.array(order)
    if values.dtype.kind != "U":
        with suppress(ValueError):  # text is none of the column's values
            categories = categories.astype(values.dtype)
    strangers = [str(value) for value in values.tolist() if value not in categories.tolist()]
    if strangers or len(set(order)) < len(order):
        raise Unfit(
            f"the values of column {name!r} to be in {'<'.join(map(str, order))}, each once",
            ", ".join(strangers[:3]) or "one value twice",
        )
    return categories
