"""Rows as text, and how each column of the data and of the samples is distributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypeAlias, TypedDict

import numpy as np

from vaestro.data import Rows
from vaestro.evaluation import samples
from vaestro.frames import Frame
from vaestro.latent import UserData
from vaestro.spaces import Space
from vaestro.text import brief
from vaestro.tokens import Texts, Tokeniser

COLUMNS = 12  # that are shown
BINS = 32
SAMPLES = 12  # number of sampled rows that are shown
TEXT = 60  # characters of a cell
LINE = 240  # characters of a text

Columns: TypeAlias = dict[str, np.ma.MaskedArray]


class Histogram(TypedDict):
    """Describe how a column of the data and of the samples is distributed, on one scale.

    `shares` has a list for the data and one for the samples: shares in bins between `edges`, or of
    the most frequent `values`. `outside` is the share of all others; `missing` and `drawn_missing`
    are those of empty cells in the data and in the samples.
    """

    name: str
    missing: float
    drawn_missing: float
    kind: str
    edges: NotRequired[list[float]]
    values: NotRequired[list[str]]
    shares: list[list[float]]
    outside: list[float]


class Shown(TypedDict):
    """Hold what the report shows of data that are not images.

    `rows` has a table of texts for each set of data; `moved` has for each column the values that
    traversals decode to.
    """

    columns: dict[str, object]
    rows: dict[str, list[list[str]]]
    histograms: list[Histogram]
    moved: dict[str, list[float | None] | None]


def shown_rows(sets: Mapping[str, UserData], space: Space, counted: Rows) -> Shown:
    """Return rows as text, and the histograms of columns.

    Args:
        sets: data by name; samples and traversals among them.
        space: of the data.
        counted: rows of the data, for the histograms.
    """
    data: UserData = counted.outward()
    keep: list[int] | None = None
    total = 1 if space.tokeniser else len(space.columns) or space.cells
    if not isinstance(data, (Frame, Texts)):
        flat = np.asarray(data, np.float64).reshape(len(data), -1)
        keep = sorted(
            np.argsort(-np.nan_to_num(np.nanvar(flat, 0)), kind="stable")[:COLUMNS].tolist()
        )
    ours, theirs = columns_of(data, keep), columns_of(sets["samples"], keep)
    names = list(ours)[:COLUMNS]
    tables, most = {}, LINE if space.tokeniser else TEXT
    for name, values in sets.items():
        columns = columns_of(values, keep)
        n = len(values) if name != "samples" else min(SAMPLES, len(values))
        tables[name] = [[cell(columns[c], i, most) for c in names] for i in range(n)]
    histograms = [histogram(c, ours[c], theirs[c]) for c in names if space.tokeniser is None]
    if space.tokeniser is not None:
        sizes = [_sizes(space.tokeniser, texts) for texts in (data, sets["samples"])]
        histograms = [histogram("tokens in a text", *sizes)]
    traversed = "traversals" in sets and space.tokeniser is None
    moved = columns_of(sets["traversals"], keep) if traversed else {}
    return {
        "columns": {"names": names, "of": total, "by": "varying most" if keep else "first"},
        "rows": tables,
        "histograms": histograms,
        "moved": {c: _places(moved[c], ours[c]) for c in names if moved},
    }


def columns_of(values: UserData, keep: Sequence[int] | None = None) -> Columns:
    """Return data as columns by name; of arrays only the cells `keep`."""
    if isinstance(values, Texts):
        return {"text": np.ma.MaskedArray(values.lines.astype(str))}
    return samples.columns_of(values, keep)


def _sizes(tokeniser: Tokeniser, texts: UserData) -> np.ma.MaskedArray:
    """Return the number of tokens of each text."""
    assert isinstance(texts, Texts)
    return np.ma.MaskedArray(np.array([len(row) for row in tokeniser.encode(texts)]))


def cell(column: np.ma.MaskedArray, row: int, most: int = TEXT) -> str:
    """Return one cell as text of at most `most` characters; an empty cell is empty text."""
    if np.ma.getmaskarray(column)[row]:
        return ""
    value = np.asarray(column.data)[row]
    if np.asarray(value).dtype.kind == "f":
        return brief(float(value))
    return shortened(str(value), most)


def shortened(text: str, most: int) -> str:
    """Return a text of at most `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def numbers_of(column: np.ma.MaskedArray) -> np.ndarray | None:
    """Return the observed values as numbers, dates as days since 1970; None for categories."""
    data = np.asarray(column.data)[~np.ma.getmaskarray(column)]
    if data.dtype.kind == "M":
        return (data - np.datetime64(0, "D")) / np.timedelta64(1, "D")
    return data.astype(np.float64) if data.dtype.kind in "iuf" else None


def histogram(name: str, data: np.ma.MaskedArray, samples: np.ma.MaskedArray) -> Histogram:
    """Return how a column of the data and of the samples is distributed, on one scale."""
    ours, theirs = numbers_of(data), numbers_of(samples)
    missing, drawn_missing = (float(np.ma.getmaskarray(c).mean()) for c in (data, samples))
    kind = np.asarray(data.data).dtype.kind
    several = 2 if kind in "fM" else COLUMNS
    if ours is None or theirs is None or len(np.unique(ours)) <= several:
        return _of_categories(name, (missing, drawn_missing), data, samples)
    low, high = np.quantile(ours, [0.005, 0.995])
    bins = min(BINS, max(8, round(2 * len(ours) ** (1 / 3))))
    if kind in "iu" and high - low < bins:
        edges = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    else:
        edges = np.linspace(low, high, bins + 1)
    counts = [np.histogram(v, edges)[0] / max(1, len(v)) for v in (ours, theirs)]
    outside = [
        1 - float(c.sum()) if len(v) else 0.0 for c, v in zip(counts, (ours, theirs), strict=True)
    ]
    return {
        "name": name,
        "missing": missing,
        "drawn_missing": drawn_missing,
        "kind": "date" if kind == "M" else "number",
        "edges": edges.tolist(),
        "shares": [c.tolist() for c in counts],
        "outside": outside,
    }


def _of_categories(
    name: str, missing: tuple[float, float], data: np.ma.MaskedArray, samples: np.ma.MaskedArray
) -> Histogram:
    """Return the shares of the most frequent values."""
    texts = [np.asarray(c.data)[~np.ma.getmaskarray(c)].astype(str) for c in (data, samples)]
    values, counts_of = np.unique(np.concatenate(texts), return_counts=True)
    if len(values) > COLUMNS:
        values = values[np.sort(np.argsort(-counts_of, kind="stable")[:COLUMNS])]
    shares = [[float((t == v).mean()) if len(t) else 0.0 for v in values] for t in texts]
    others = [max(0.0, 1 - sum(s)) if len(t) else 0.0 for s, t in zip(shares, texts, strict=True)]
    return {
        "name": name,
        "missing": missing[0],
        "drawn_missing": missing[1],
        "kind": "category",
        "values": [v[:TEXT] for v in values.tolist()],
        "shares": shares,
        "outside": others,
    }


def _places(moved: np.ma.MaskedArray, data: np.ma.MaskedArray) -> list[float | None] | None:
    """Return decoded numbers in standard deviations from the mean of the data; None for
    categories."""
    numbers, own = numbers_of(moved), numbers_of(data)
    if (
        numbers is None
        or own is None
        or len(own) < 2
        or not own.std()
        or len(numbers) != len(moved)
    ):
        return None
    return [
        round(float(v), 3) if np.isfinite(v) else None for v in (numbers - own.mean()) / own.std()
    ]
