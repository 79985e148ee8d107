"""What each unit of a code means: its rank correlation with every attribute, and its extremes.

For numbers the correlation is Spearman's (1904), with its sign. For classes it is the correlation
ratio of the ranks, between 0 and 1, whose test is that of Kruskal and Wallis (1952). The p-values
of all units and attributes are corrected together by the procedure of Benjamini and Hochberg
(1995). Correlations that are not significant after that are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from vaestro.files import Json
from vaestro.latent.factors import Factor

DISCOVERIES = 0.05  # expected share of false ones among the correlations that are shown
FEW = 20  # rows below which no correlation is shown
EXTREMES = 3  # rows with the lowest codes, and as many with the highest
SHOWN = 24  # units that are printed


@final
@dataclass(frozen=True)
class Association:
    """Hold a significant correlation of a unit with an attribute.

    Args:
        attribute: its name.
        kind: number or category.
        value: Spearman's correlation, or the correlation ratio of the ranks of a category.
        p: p-value, before the correction.

    >>> Association("slant", "number", -0.91, 0.0).words
    'slant -0.91'
    """

    attribute: str
    kind: str
    value: float
    p: float

    @property
    def words(self) -> str:
        """Return the attribute with its correlation, which has a sign for numbers."""
        return f"{self.attribute} {self.value:{'+' if self.kind == 'number' else ''}.2f}"


@final
@dataclass(frozen=True)
class UnitMeaning:
    """Hold what is known of one unit.

    Args:
        unit: its number in the flattened latent.
        rate: mean KL to the prior in nats; None for families without a rate per unit.
        activity: variance of its mean over data.
        role: informative, noise, off or unclear, as the diagnosis says.
        associations: significant correlations, the strongest first.
        lowest, highest: row numbers with the lowest and the highest codes.
        name: given by the user; "" without one.

    >>> UnitMeaning(3, 1.2, 0.9, "informative", (), (7,), (4,), "slant").title
    '3 (slant)'
    """

    unit: int
    rate: float | None
    activity: float
    role: str
    associations: tuple[Association, ...]
    lowest: tuple[int, ...]
    highest: tuple[int, ...]
    name: str = ""

    @property
    def title(self) -> str:
        """Return the number of the unit, with its name."""
        return f"{self.unit} ({self.name})" if self.name else str(self.unit)

    @property
    def size(self) -> float:
        """Return the rate, or the activity of a unit without one, by which units are ordered."""
        return self.activity if self.rate is None else self.rate

    def record(self) -> dict[str, Json]:
        """Return the entry in units.json."""
        return {
            **{k: v for k, v in vars(self).items() if k != "associations"},
            "lowest": list(self.lowest),
            "highest": list(self.highest),
            "attributes": [dict(vars(a)) for a in self.associations],
        }


@final
@dataclass(frozen=True)
class UnitTable:
    """Hold what is known of all units.

    Args:
        units: the largest rate first.
        split: the name of the split whose rows were encoded.
        n: number of these rows.
        notes: one line each.

    >>> unit = UnitMeaning(3, 1.2, 0.9, "informative", (), (7,), (4,), "slant")
    >>> list(UnitTable((unit,), "test", 100).lines())[1].split()
    ['3', '(slant)', '1.20', '0.9', 'informative', '-', '7', '4']
    """

    units: tuple[UnitMeaning, ...]
    split: str
    n: int
    notes: tuple[str, ...] = ()

    def lines(self, most: int = SHOWN) -> Iterator[str]:
        """Yield a table of the units, the largest rate first, as lines of text."""
        shown = self.units[:most]
        head = ("unit", "KL", "activity", "role", "attributes", "lowest rows", "highest rows")
        cells: list[tuple[str, ...]] = [head]
        for u in shown:
            rate = "-" if u.rate is None else f"{u.rate:.2f}"
            words = ", ".join(a.words for a in u.associations[:3]) or "-"
            ends = (", ".join(map(str, rows)) for rows in (u.lowest, u.highest))
            cells.append((u.title, rate, f"{u.activity:.2g}", u.role, words, *ends))
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        for row in cells:
            yield "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip()
        if len(self.units) > most:
            yield f".. and {len(self.units) - most:,} units with smaller rates (see units.json)"
        yield f"from {self.n:,} {self.split} rows; row numbers are in this split, from 0"
        for note in self.notes:
            yield f"note: {note}"

    def record(self) -> dict[str, Json]:
        """Return the content of units.json."""
        return {
            "split": self.split,
            "n": self.n,
            "units": [u.record() for u in self.units],
            "notes": list(self.notes),
        }

    def columns(self) -> dict[str, list[object]]:
        """Return a table with a row for each unit and significant attribute; a unit without one has
        one row."""
        table: dict[str, list[object]] = {
            n: [] for n in ("unit", "name", "rate", "activity", "role")
        }
        table |= {n: [] for n in ("attribute", "correlation", "p", "lowest", "highest")}
        for u in self.units:
            for a in u.associations or (Association("", "", math.nan, math.nan),):
                rate = math.nan if u.rate is None else u.rate
                ends = (" ".join(map(str, rows)) for rows in (u.lowest, u.highest))
                row = (u.unit, u.name, rate, u.activity, u.role, a.attribute, a.value, a.p, *ends)
                for column, cell in zip(table.values(), row, strict=True):
                    column.append(cell)
        return table

    def named(self, names: Mapping[int, str]) -> UnitTable:
        """Return the table with the names of units."""
        units = tuple(replace(u, name=names.get(u.unit, "")) for u in self.units)
        return replace(self, units=units)


def associations(
    codes: np.ndarray, factors: Sequence[Factor], *, discoveries: float = DISCOVERIES
) -> list[tuple[Association, ...]]:
    """Return the significant correlations of each unit, the strongest first.

    Args:
        codes: (N, units).
        factors: attributes of the same rows; rows without a value are left out.
        discoveries: expected share of false ones among all correlations that are returned.

    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> [[a.words for a in unit] for unit in associations(x, [Factor("x", x[:, 1])])]
    [[], ['x +1.00']]
    """
    units = codes.shape[1]
    values, p = np.zeros((len(factors), units)), np.ones((len(factors), units))
    for k, factor in enumerate(factors):
        rows = np.flatnonzero(factor.known)
        if len(rows) >= FEW:
            ranks = np.stack([ranked(column) for column in codes[rows].T], 1)
            measure = _spearman if factor.is_number else _correlation_ratio
            values[k], p[k] = measure(ranks, factor.values[rows])
    significant = false_discoveries(p.ravel(), discoveries).reshape(p.shape)
    found = []
    for u in range(units):
        own = [
            Association(f.name, "number" if f.is_number else "category", *_pair(values, p, k, u))
            for k, f in enumerate(factors)
            if significant[k, u]
        ]
        found.append(tuple(sorted(own, key=lambda a: -abs(a.value))))
    return found


def _pair(values: np.ndarray, p: np.ndarray, k: int, u: int) -> tuple[float, float]:
    return float(values[k, u]), float(p[k, u])


def ranked(values: np.ndarray) -> np.ndarray:
    """Return the ranks of numbers from 1, (N,); equal ones have their mean rank.

    >>> ranked(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def _spearman(ranks: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Spearman's correlations, (units,), and p-values by the transform of Fisher
    (1915)."""
    a, b = ranks - ranks.mean(0), ranked(target) - (len(target) + 1) / 2
    scale = np.sqrt((a**2).sum(0) * (b**2).sum())
    rho = np.clip(a.T @ b / np.maximum(scale, 1e-300), -1, 1)
    z = np.abs(np.arctanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15))) * math.sqrt(len(b) - 3)
    return rho, np.array([math.erfc(x / math.sqrt(2)) for x in z])


def _correlation_ratio(ranks: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlation ratios of ranks, (units,), and the p-values of Kruskal and Wallis."""
    import torch

    classes, codes, counts = np.unique(target, return_inverse=True, return_counts=True)
    centred = ranks - ranks.mean(0)
    sums = np.stack([np.bincount(codes, column) for column in centred.T], 1)
    between, total = (sums**2 / counts[:, None]).sum(0), (centred**2).sum(0)
    share = between / np.maximum(total, 1e-300)
    if len(classes) < 2:
        return np.zeros(ranks.shape[1]), np.ones(ranks.shape[1])
    half = torch.from_numpy((len(target) - 1) * share / 2)
    p = torch.special.gammaincc(torch.full_like(half, (len(classes) - 1) / 2), half)
    return np.sqrt(share), p.numpy()


def false_discoveries(p: np.ndarray, share: float) -> np.ndarray:
    """Return which p-values (N,) are significant if an expected share of them may be false
    (Benjamini and Hochberg 1995).

    >>> false_discoveries(np.array([0.001, 0.04, 0.03]), 0.05).tolist()
    [True, True, True]
    """
    ordered = np.sort(p)
    below = np.flatnonzero(ordered <= share * np.arange(1, len(p) + 1) / max(1, len(p)))
    return np.asarray(p <= ordered[below[-1]]) if len(below) else np.zeros(len(p), bool)


def extremes(codes: np.ndarray, n: int = EXTREMES) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers of the n lowest and of the n highest codes of each unit, each
    (units, n), the most extreme first.

    >>> [rows.tolist() for rows in extremes(np.array([[3.0], [1.0], [2.0]]), 1)]
    [[[1]], [[0]]]
    """
    order = np.argsort(codes, 0, kind="stable")
    return order[:n].T, order[::-1][:n].T
