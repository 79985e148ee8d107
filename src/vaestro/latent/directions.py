"""The direction of an attribute in the latent space, and edits of data along it."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from vaestro.data import Rows
from vaestro.data.columns import filled
from vaestro.densities import Decoding
from vaestro.frames import Frame
from vaestro.latent.codes import Codes, means_of
from vaestro.latent.outputs import UserData, decode, given_of
from vaestro.models import Model
from vaestro.text import nearest

KNOWN = 10_000  # largest number of rows from which a direction is estimated
WEAK = 0.5  # upper limit of the correlation below which `Direction.warning` warns


class Direction(NamedTuple):
    """Describe the direction of an attribute in the latent space.

    Args:
        step: what is added to a code for an amount of 1, (*Z).
        correlation: between the attribute and the codes projected on `step`, over the rows from
            which the direction was estimated.
        n: the number of these rows.
        unit: what an amount of 1 is, in words.
        name: of the attribute, with its value if it has one: slant, digit=7.
        valued: whether the name has a value.

    >>> Direction(np.ones(2), 0.9, 1000, "1 of slant", "slant").moved(0.5)
    'slant +0.5'
    """

    step: np.ndarray
    correlation: float
    n: int
    unit: str
    name: str = ""
    valued: bool = False

    @property
    def warning(self) -> str:
        """Return a warning if the codes depend too little on the attribute for an edit; "" if not.

        The upper limit of the correlation is Fisher's (1915): its inverse hyperbolic tangent has
        standard error 1 / sqrt(n - 3).
        """
        reach = 1.96 / math.sqrt(max(1, self.n - 3))
        most = math.tanh(math.atanh(min(abs(self.correlation), 1 - 1e-9)) + reach)
        if most > WEAK:
            return ""
        return (
            f"warning: the codes along this direction explain at most {most * most:.0%} of the "
            f"variance of {self.name}, so the edit may "
            f"not change it: train with --condition {self.name.partition('=')[0]}, or with more "
            f"latent units or steps"
        )

    def moved(self, amount: float) -> str:
        """Return an edit in words: "1 towards digit=7", "slant +0.5"."""
        if not self.valued:
            return f"{self.name} {amount:+g}"
        return f"{abs(amount):g} {'towards' if amount >= 0 else 'away from'} {self.name}"


def direction(
    model: Model,
    rows: Rows,
    name: str,
    value: str | float | np.generic | None = None,
    *,
    codes: Codes | None = None,
) -> Direction:
    """Return the direction in which an attribute grows, from rows whose attribute is known.

    With a value, or for an attribute of two values, it is the mean code of the rows with the value
    (of two, the larger) minus the mean code of the others (Larsen et al. 2016). For numbers, it is
    the least-squares slope of the codes on the attribute. The direction includes whatever is
    correlated with the attribute in the data.

    Args:
        model: a trained model with real latents.
        rows: data with attributes. The columns of a table are attributes too.
        name: of the attribute.
        value: the value to move towards; None for numbers, and for an attribute of two values.
        codes: computes and keeps the codes; by default they are computed anew.

    Raises:
        ValueError: there is no such attribute or value, the attribute is constant or a condition of
            the model, or latents are discrete.

    >>> import numpy as np, vaestro as vs
    >>> random = np.random.default_rng(0)
    >>> rows = vs.load({"size": random.normal(size=99), "age": random.normal(size=99)}).train
    >>> direction(vs.build(rows.space, latent=2), rows, "size").step.shape
    (2,)
    """
    rows, values = _with_attribute(model, rows, name)
    distinct = np.unique(values)
    if value is None and len(distinct) == 2:
        value = distinct[1]
    elif value is None and values.dtype.kind not in "biuf":
        raise ValueError(
            f"expected {name}=VALUE, one of {_some(distinct)}; got {name} alone, which has "
            f"{len(distinct):,} values"
        )
    if value is None:
        target = values.astype(np.float64)
        unit = f"1 of {name}, whose standard deviation is {target.std():.3g}"
    else:
        target = _having(values, value, name).astype(np.float64)
        unit = f"the step from the mean code of other data to that of data with {name}={value}"
    if len(distinct) < 2:
        raise ValueError(
            f"expected an attribute that varies; got {name}, which is {_some(distinct)} in all data"
        )
    step, correlation = _slope(means_of(model, rows, codes), target)
    full_name = name if value is None else f"{name}={value}"
    return Direction(step, correlation, len(rows), unit, full_name, value is not None)


def _with_attribute(model: Model, rows: Rows, name: str) -> tuple[Rows, np.ndarray]:
    """Return the rows whose attribute is known, and its values, (N,).

    Raises:
        ValueError: there is no such attribute, the model is given it, or latents are discrete.
    """
    if model.alphabet:
        raise ValueError(
            "expected real latents to edit; got discrete ones, to which nothing can be added"
        )
    attribute = attributes(rows)
    if model.given is not None and name in model.given.names:
        raise ValueError(
            f"expected an attribute that the code can contain; got {name!r}, which the model is "
            f"given (--condition {name}=VALUE sets it)"
        )
    if name not in attribute:
        raise ValueError(
            f"expected an attribute of {rows.name} data: "
            f"{nearest(name, attribute) if attribute else 'there are none'}; got {name!r}"
        )
    values = attribute[name]
    present = values == values
    if values.dtype.kind == "U":
        present &= values != ""
    return rows.pick(np.flatnonzero(present)), values[present]


def _having(values: np.ndarray, value: str | float | np.generic, name: str) -> np.ndarray:
    """Return which values (N,) equal a value.

    Raises:
        ValueError: none do, or all.
    """
    exact = values.dtype.kind != "U" and not isinstance(value, str)
    equal = values == value if exact else _equal(values, str(value))
    if not equal.any() or equal.all():
        raise ValueError(
            f"expected a value of {name} that some data have and others do not: "
            f"{_some(np.unique(values))}; got {value}"
        )
    return np.asarray(equal)


def _slope(codes: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the least-squares slope of codes (N, *Z) on a target (N,), and the correlation of the
    target with the codes projected on it."""
    codes = codes.astype(np.float64)
    centred = target - target.mean()
    step = np.tensordot(centred, codes - codes.mean(0), 1) / (centred @ centred)
    along = codes.reshape(len(codes), -1) @ step.ravel()
    correlation = float(np.corrcoef(along, target)[0, 1]) if along.std() > 0 else 0.0
    return step.astype(np.float32), correlation


def edit(
    model: Model,
    rows: Rows,
    along: Direction,
    amount: float,
    *,
    decoding: Decoding | None = None,
    dtype: str | None = None,
    codes: Codes | None = None,
) -> UserData:
    """Move the code of each datum along a direction and decode it, in the user's layout and units.

    Args:
        model: the model from which the direction was estimated.
        rows: the data to edit, which keep their conditions.
        along: the direction, from `direction`.
        amount: the number of steps along it; negative values move back.
        decoding, dtype: as for `decode`.
        codes: computes and keeps the codes; by default they are computed anew.

    Raises:
        ValueError: the amount is not finite.

    >>> import numpy as np, vaestro as vs
    >>> random = np.random.default_rng(0)
    >>> rows = vs.load({"size": random.normal(size=99), "age": random.normal(size=99)}).train
    >>> model = vs.build(rows.space, latent=2)
    >>> len(edit(model, rows, direction(model, rows, "size"), 0.5))
    89
    """
    if not math.isfinite(amount):
        raise ValueError(f"expected a finite amount; got {amount}")
    z = means_of(model, rows, codes) + np.float32(amount) * along.step
    return decode(model, z, given=given_of(rows), decoding=decoding, dtype=dtype)


def attributes(rows: Rows) -> dict[str, np.ndarray]:
    """Return the attributes of rows, each (N,), and the columns of a table.

    Empty cells are NaN, NaT or empty text.

    >>> import vaestro as vs
    >>> sorted(attributes(vs.load({"size": [0.5, 1.5, 2.5] * 9, "age": [3, 1, 4] * 9}).train))
    ['age', 'size']
    """
    arrays = {name: np.asarray(values) for name, values in rows.attributes.items()}
    if rows.space.tabular and isinstance(frame := rows.outward(), Frame):
        arrays |= {name: filled(column) for name, column in frame.columns.items()}
    return arrays


def _equal(values: np.ndarray, text: str) -> np.ndarray:
    """Return which values equal a text: numbers by value, others by their text."""
    with suppress(ValueError):
        if values.dtype.kind in "iuf":
            return np.asarray(values == float(text))
    return np.asarray(values.astype(str) == text)


def _some(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:8].tolist())) + (" .." if len(values) > 8 else "")
