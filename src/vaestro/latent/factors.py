"""Attributes of data as targets: numbers or classes, each with its missing values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from vaestro.data import Rows
from vaestro.data.columns import filled
from vaestro.latent.directions import attributes
from vaestro.spaces import Column, Kind
from vaestro.text import nearest

FEW_VALUES = 12  # whole numbers with at most so many distinct values are classes
CLASSES = 50  # largest number of classes of an attribute
KINDS = {
    Kind.REAL: "number",
    Kind.COUNT: "number",
    Kind.ORDINAL: "number",
    Kind.BINARY: "category",
    Kind.CATEGORY: "category",
}  # of the columns of a table


@final
@dataclass(frozen=True, eq=False)
class Factor:
    """Hold an attribute of N rows.

    Args:
        name: of the attribute.
        values: numbers, or class numbers, (N,) float64; NaN where the attribute is missing.
        classes: the names of the classes; empty for numbers.
        role: "attribute", "column" of the modelled table, or "condition" that the model is given.

    >>> factor = Factor("digit", np.array([0.0, 1.0, np.nan]), ("3", "8"))
    >>> factor.is_number, factor.known
    (False, array([ True,  True, False]))
    """

    name: str
    values: np.ndarray
    classes: tuple[str, ...] = ()
    role: str = "attribute"

    @property
    def is_number(self) -> bool:
        """Return whether the values are numbers."""
        return not self.classes

    @property
    def known(self) -> np.ndarray:
        """Return which rows have a value, (N,)."""
        return ~np.isnan(self.values)

    def pick(self, rows: np.ndarray) -> Factor:
        """Return the factor of some rows."""
        return Factor(self.name, self.values[rows], self.classes, self.role)

    def bins(self, count: int) -> np.ndarray:
        """Return class numbers, (N,) int64, -1 where missing. Numbers are cut at their quantiles
        into `count` bins with about the same number of rows."""
        codes = np.full(len(self.values), -1, np.int64)
        known = self.values[self.known]
        if self.is_number:
            known = cut(known, count)
        codes[self.known] = known
        return codes


def cut(values: np.ndarray, count: int) -> np.ndarray:
    """Return the bin of each number, (N,) int64: bins between quantiles, or the distinct values if
    there are at most `count`.

    >>> cut(np.array([0.1, 0.2, 0.3, 0.4]), 2).tolist()
    [0, 0, 1, 1]
    """
    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) <= count:
        return codes.astype(np.int64)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]))
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def factors_of(
    sets: Sequence[Rows], names: Sequence[str] | None = None
) -> tuple[dict[str, Factor], list[str]]:
    """Return the attributes of rows that can be targets, by name, and a note on each that cannot.

    Conditions and the columns of a table are attributes too. A column of a table has the kind that
    the run's space has for it. Other attributes are numbers if they are floats or dates, or whole
    numbers with more than 12 distinct values. All others are categories. Attributes that are
    constant, or that have more than 50 classes, such as names of rows, are left out.

    Args:
        sets: the data, with the same attributes. The values of a factor are those of the first set,
            then those of the second, and so on.
        names: the attributes to return; by default all.

    Raises:
        ValueError: there is no attribute of a name, or it can be no target.

    >>> import vaestro as vs
    >>> rows = vs.load({"size": [0.5, 1.5, 2.5] * 9, "word": ["a", "b", "c"] * 9}).train
    >>> found, notes = factors_of([rows])
    >>> found["size"].is_number, found["word"].classes
    (True, ('a', 'b', 'c'))
    """
    arrays = [_values(rows) for rows in sets]
    every = {
        name: np.concatenate([values[name] for values in arrays])
        for name in arrays[0]
        if all(name in values for values in arrays)
    }
    space, given = sets[0].space, sets[0].given_space
    conditions = given.columns if given is not None else ()
    declared = {c.name: c for c in (*space.columns, *conditions)}
    roles = {c.name: "column" for c in space.columns} | {c.name: "condition" for c in conditions}
    for name in names or ():
        if name not in every:
            some = nearest(name, every) if every else "there are none"
            raise ValueError(f"expected an attribute of the data: {some}; got {name!r}")
    factors, notes = {}, []
    for name in dict.fromkeys(names or every):
        role = roles.get(name, "attribute")
        factor, reason = _factor(name, every[name], declared.get(name), role)
        if factor is not None:
            factors[name] = factor
        elif names:
            raise ValueError(f"expected an attribute with several values; got {name}, {reason}")
        else:
            notes.append(f"{name} is left out: {reason.removeprefix('which ')}")
    return factors, notes


def _values(rows: Rows) -> dict[str, np.ndarray]:
    """Return the attributes, the columns and the conditions of rows, each (N,)."""
    values = attributes(rows)
    if rows.given is not None and rows.given_space is not None:
        given = rows.given_space.outward(rows.given).columns
        values |= {name: filled(cells) for name, cells in given.items()}
    return values


def _factor(
    name: str, values: np.ndarray, column: Column | None, role: str
) -> tuple[Factor | None, str]:
    """Return an attribute as a factor, or None with the reason why it can be none."""
    if values.ndim != 1:
        return None, "which has several values for each row"
    number = _is_number(values) if column is None else KINDS[column.kind] == "number"
    if number and values.dtype.kind in "biuf":
        numbers = values.astype(np.float64)
    elif number and values.dtype.kind == "M":
        numbers = values.astype("datetime64[s]").astype(np.float64)
        numbers[np.isnat(values)] = np.nan
    else:
        return _classes(name, values, role)
    numbers[~np.isfinite(numbers)] = np.nan
    if len(np.unique(numbers[~np.isnan(numbers)])) < 2:
        return None, "which has fewer than two values"
    return Factor(name, numbers, (), role), ""


def _is_number(values: np.ndarray) -> bool:
    """Return whether an attribute is a number: see `factors_of`."""
    if values.dtype.kind not in "iufM":
        return False
    if values.dtype.kind == "M":
        return True
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    distinct = np.unique(known)
    return len(distinct) > FEW_VALUES or bool((distinct != np.round(distinct)).any())


def _classes(name: str, values: np.ndarray, role: str) -> tuple[Factor | None, str]:
    """Return an attribute as classes, in the order of numbers or of words."""
    absent = values != values if values.dtype.kind in "fM" else np.zeros(len(values), bool)
    absent |= values.astype(str) == ""
    distinct, codes = np.unique(values[~absent], return_inverse=True)
    if len(distinct) < 2:
        return None, "which has fewer than two values"
    if len(distinct) > CLASSES:
        return None, f"which has {len(distinct):,} different values, more than {CLASSES}"
    numbers = np.full(len(values), np.nan)
    numbers[~absent] = codes
    words = tuple(f"{v:g}" if isinstance(v, float) else str(v) for v in distinct.tolist())
    return Factor(name, numbers, words, role), ""
