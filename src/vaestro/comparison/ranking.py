"""Group rows that may be ranked together, and rank them by their paired differences."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from vaestro.comparison.evidence import Row, interval, names, read_run
from vaestro.comparison.exact import read_exact
from vaestro.comparison.pairs import Pair, decided
from vaestro.comparison.significance import LEVEL
from vaestro.comparison.words import group_title, listing
from vaestro.data.formulas import guarded_text
from vaestro.files import Json
from vaestro.notebook import Card, Shown
from vaestro.runs import Run
from vaestro.storage import writing

# Largest difference between projections of one datum, in standard deviations over data. It allows
# for the rounding of float32 values that were standardised twice.
SAME_DATUM = 1e-4
SPOKEN_PAIRS = 10  # with more pairs in a group, only neighbours are printed


@dataclass(frozen=True, eq=False)
class Group:
    """Rows that may be compared, the highest first, and the conclusion about each pair.

    Args:
        rows: the rows.
        pairs: one for each two rows.
        ranking: names, the best first, if every neighbouring pair is decided; else None.
        summary: the (partial) ranking in words; empty for a single row.

    >>> pair = Pair("a", "b", "better", 2.0, 0.1, 100, ("exact", "exact"), "", 1e-9, 1e-9)
    >>> Group((), (pair,), ("a", "b"), "").pair("b", "a").higher
    'a'
    """

    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    ranking: tuple[str, ...] | None
    summary: str

    def pair(self, a: str, b: str) -> Pair:
        """Return the pair of two names, in any order."""
        return next(p for p in self.pairs if {p.higher, p.lower} == {a, b})


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Shown):
    """The comparison of several runs.

    Args:
        rows: one for each run and each exact set, in the order of the arguments.
        groups: rows that may be ranked together.
        refusals: for each two groups, the reason why they may not be ranked together.
        notes: warnings and assumptions.

    >>> Comparison((), (), (), ("a: few data",)).statements
    ('a: few data',)
    """

    rows: tuple[Row, ...]
    groups: tuple[Group, ...]
    refusals: tuple[str, ...]
    notes: tuple[str, ...]

    def card(self) -> Card:
        """Return the rankings and the reasons why rows are not ranked together."""
        return Card(
            f"Comparison: {len(self.rows)} run or set"
            if len(self.rows) == 1
            else f"Comparison of {len(self.rows)} runs and sets",
            self.spoken,
        )

    @property
    def statements(self) -> tuple[str, ...]:
        """Return every refusal, note, pair and ranking as a sentence."""
        sentences = [
            s for g in self.groups for s in (*(p.sentence for p in g.pairs), g.summary) if s
        ]
        return (*self.refusals, *sentences, *self.notes)

    @property
    def spoken(self) -> tuple[str, ...]:
        """Return the statements for the terminal: of a large group only the neighbouring pairs."""
        sentences: list[str] = []
        for group in self.groups:
            pairs = group.pairs
            if len(pairs) > SPOKEN_PAIRS:
                order = [r.name for r in group.rows]
                pairs = tuple(group.pair(a, b) for a, b in pairwise(order))
            sentences += [p.sentence for p in pairs]
            if len(pairs) < len(group.pairs):
                sentences.append(
                    f"{len(group.pairs) - len(pairs)} more pairs, not next to each other, are in "
                    f"-o FILE.json"
                )
            sentences += [group.summary] if group.summary else []
        return (*self.refusals, *sentences, *self.notes)

    def record(self) -> dict[str, Json]:
        """Return the comparison as JSON values; numbers that are not finite are None."""
        return {
            "rows": [_row_record(r) for r in self.rows],
            "groups": [
                {
                    "title": group_title(g.rows),
                    "names": [r.name for r in g.rows],
                    "ranking": None if g.ranking is None else list(g.ranking),
                    "summary": g.summary,
                    "pairs": [
                        {k: _plain(getattr(p, k)) for k in Pair.__dataclass_fields__}
                        | {"decided": p.decided}
                        for p in g.pairs
                    ],
                }
                for g in self.groups
            ],
            "refusals": list(self.refusals),
            "notes": list(self.notes),
            "statements": list(self.statements),
        }

    def save(self, path: str | Path) -> None:
        """Write a picture (.png), the whole comparison (.json), or the rows (.csv).

        Unknown values are empty in the .csv.

        Raises:
            ValueError: the file has another suffix.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".png":
            from vaestro.comparison.picture import draw

            draw(self, path)
        elif suffix == ".json":
            with writing(path) as part:
                part.write_text(json.dumps(self.record(), indent=1) + "\n")
        elif suffix == ".csv":
            lines = [
                {k: guarded_text(v) if isinstance(v, str) else v for k, v in line.items()}
                for line in self._flat()
            ]
            with writing(path) as part, part.open("w", newline="") as file:
                writer = csv.DictWriter(file, lines[0])
                writer.writeheader()
                writer.writerows(lines)
        else:
            raise ValueError(f"expected a file name that ends in .png, .json, .csv; got {path}")

    def _flat(self) -> list[dict[str, Json]]:
        flat = []
        for row in self.rows:
            line = _row_record(row)
            line |= {
                "given": "+".join(row.given),
                "group": next(i for i, g in enumerate(self.groups) if row in g.rows),
            }
            del line["bounds"], line["warnings"]
            flat.append({k: "" if v is None else v for k, v in line.items()})
        return flat


def compare(
    runs: Sequence[str | Path | Run], exact: Mapping[str, str | Path] | None = None
) -> Comparison:
    """Compare evaluated runs, and exact values of log p(x), from their files.

    Args:
        runs: folders, or runs.
        exact: {name: FILE.npz, with options such as :unit=bits,measure=counting}; see `read_exact`.

    Raises:
        ValueError: a run has no evaluation or is given twice, a file is damaged, or an exact set
            has a different length from every run.

    >>> compare(["runs/wide", "runs/narrow"]).statements  # doctest: +SKIP
    ("wide's bound is higher than narrow's by 0.80 +- 0.10 nats ...",)
    """
    opened = Run.several(runs)
    folders = [r.path.resolve() for r in opened]
    rows = [read_run(run, name) for run, name in zip(opened, names(folders), strict=True)]
    groups: list[list[Row]] = []
    for row in rows:
        _place(row, groups)
    notes = [f"{row.name}: {warning}" for row in rows for warning in row.warnings]
    for name, file in (exact or {}).items():
        row = _exact_row(name, file, rows)
        if not row.sha256:
            row = _with_hash(row, groups)
            notes.append(f"{name} is assumed to be of the same data: {row.path} has no data_sha256")
        rows.append(_place(row, groups))
    pairs = decided([pair for group in groups for pair in combinations(group, 2)])
    tested = sum(pair.tested for pair in pairs.values())
    if tested > 1:
        notes.append(
            f"p-values are corrected for the {tested} pairs that are compared (Holm), so that "
            f"the probability of any false difference is at most {100 * LEVEL:.0f} %"
        )
    ranked = tuple(
        _group(group, [pairs[a.name, b.name] for a, b in combinations(group, 2)])
        for group in groups
    )
    refusals = tuple(_apart(one, other) for other, one in combinations(groups, 2))
    return Comparison(tuple(rows), ranked, refusals, tuple(notes))


def _exact_row(name: str, file: str | Path, rows: Sequence[Row]) -> Row:
    """Read an exact set that is compared with rows.

    Raises:
        ValueError: its name is taken, or no run has as many data.
    """
    if not name or name in [r.name for r in rows]:
        raise ValueError(f"expected a name for {file} that no other has; got {name!r}")
    row = read_exact(name, file)
    lengths = sorted({r.n for r in rows if not r.exact})
    if row.n not in lengths:
        counts = " or ".join(f"{n:,}" for n in lengths)
        raise ValueError(
            f"expected log_px of the {counts} data that the runs were evaluated on in "
            f"{row.path}; got {row.n:,}"
        )
    return row


def _apart(rows: Sequence[Row], others: Sequence[Row]) -> str:
    """Write why the rows of two groups are not ranked together."""
    verb = "is" if len(rows) == 1 else "are"
    reason = next(filter(None, (refusal(x, y) for x in rows for y in others)))
    return (
        f"{listing([r.name for r in rows])} {verb} not ranked with "
        f"{listing([r.name for r in others])}: {reason}"
    )


def refusal(a: Row, b: Row) -> str | None:
    """Return the reason why two rows may not be ranked together; None if they may.

    >>> from vaestro.comparison.evidence import Bound
    >>> bound = Bound("elbo", "lower", np.zeros(20))
    >>> row = Row("a", Path("a"), (bound,), "test", 20, "aa", "", "", "counting")
    >>> refusal(row, replace(row, sha256="bb"))
    'different data or binarisation (aa and bb)'
    """
    splits = "" != a.split != b.split != ""
    hashes = " and ".join(f"{r.split} {r.short_hash}" if splits else r.short_hash for r in (a, b))
    kinds = f"{a.measure} and {b.measure} measure"
    known = [(x, y) for x, y in ((a.space, b.space), (a.split, b.split)) if x and y and x != y]
    same = _same_values(a, b)
    if a.n != b.n:
        if known or same is False:
            return (
                f"different data ({' and '.join(known[0]) if known else hashes}): {a.n:,} and "
                f"{b.n:,} rows"
            )
        advice = (
            ""
            if a.exact or b.exact
            else f": evaluate both with --limit "
            f"{min(a.n, b.n)}{min(a, b, key=lambda r: r.n).seed_option}"
        )
        return f"measured on {a.n:,} and on {b.n:,} data{advice}"
    if same is not False and a.sha256 != b.sha256 and _other_rows(a, b) and a.source == b.source:
        return (
            f"measured on different rows of the same data, {a.n:,} each: evaluate both with "
            f"--limit {a.n} and the same --seed"
        )
    different = f"different data or binarisation ({hashes})"
    scaled = f"different data: equal as standardised ({a.short_hash}), but not in their own units"
    density = (
        f"a density and a probability, or densities of different measure, have no common "
        f"scale ({kinds})"
    )
    conditions = f"different conditions: {a.of} and {b.of}"
    if a.sha256 == b.sha256:
        if a.measure != b.measure:
            return density
        # Hashes of earlier versions did not cover the standardisation.
        return scaled if same is False else conditions if set(a.given) != set(b.given) else None
    # The hash also covers conditions and masks, so their difference explains different hashes.
    if same is not False and set(a.given) != set(b.given):
        return conditions
    if None not in (a.masked, b.masked) and a.masked != b.masked:
        masked, complete = (a, b) if a.masked else (b, a)
        return (
            f"different masks: {masked.name} is measured on data with missing cells, "
            f"{complete.name} on complete data ({hashes})"
        )
    if a.measure != b.measure:
        return (
            density if same or (same is None and not known and a.source == b.source) else different
        )
    return None if same and a.measure != "counting" else different


def _same_values(a: Row, b: Row) -> bool | None:
    """Return whether the data that two rows have in common are equal, by projections or by hash;
    None if unknown."""
    equal = a.sha256 == b.sha256
    if a.datum is None or b.datum is None or (equal and "counting" in (a.measure, b.measure)):
        return equal or None
    n = min(a.n, b.n)
    one, other = a.datum[:n], b.datum[:n]
    if a.index is not None and b.index is not None:
        _, at_a, at_b = np.intersect1d(a.index, b.index, return_indices=True)
        if not len(at_a):
            return None
        one, other = a.datum[at_a], b.datum[at_b]
    near = SAME_DATUM * (float(one.std()) or float(np.abs(one).max()))
    return bool((np.abs(one - other) <= near).all())


def _other_rows(a: Row, b: Row) -> bool:
    """Return whether both rows state their indices in the split, and these differ."""
    return a.index is not None and b.index is not None and not np.array_equal(a.index, b.index)


def _place(row: Row, groups: list[list[Row]]) -> Row:
    """Add a row to the group that it can be compared with, or to a new one.

    In a group, exact values are also converted to bits/dim.
    """
    home = next((g for g in groups if all(refusal(r, row) is None for r in g)), None)
    if home is None:
        groups.append([row])
        return row
    scales = [
        (b.bits_per_dim / b.mean()[0], b.per) for r in home for b in r.bounds if b.bits_per_dim
    ]
    if row.exact and scales:
        scale, per = scales[0]
        row = replace(
            row,
            bounds=tuple(replace(b, bits_per_dim=scale * b.mean()[0], per=per) for b in row.bounds),
        )
    home.append(row)
    return row


def _with_hash(row: Row, groups: list[list[Row]]) -> Row:
    """Return an exact set without a hash, with the hash of the runs that match it.

    Raises:
        ValueError: it matches runs of different data.
    """
    homes = [g[0] for g in groups if g[0].n == row.n]
    fits = [h for h in homes if (h.measure, set(h.given)) == (row.measure, set(row.given))]
    if len(fits) > 1:
        hashes = " or ".join(h.sha256 for h in fits)
        raise ValueError(
            f"expected an array data_sha256 in {row.path}, because the runs differ in their data "
            f"({hashes}); got none"
        )
    return replace(row, sha256=(fits or homes)[0].sha256)


def _group(rows: list[Row], pairs: list[Pair]) -> Group:
    """Return the rows of a group, the highest first, with their ranking."""
    wins = {r.name: sum(p.higher == r.name for p in pairs) for r in rows}
    ordered = sorted(rows, key=lambda r: (-wins[r.name], -r.headline.mean()[0]))
    place = {r.name: i for i, r in enumerate(ordered)}
    pairs.sort(key=lambda p: sorted((place[p.higher], place[p.lower])))
    group = Group(tuple(ordered), tuple(pairs), None, "")
    if len(rows) == 1:
        return group
    steps = [(a.name, b.name, group.pair(a.name, b.name)) for a, b in pairwise(ordered)]
    ordered_so = [p.decided and p.higher == a for a, _, p in steps]
    if all(ordered_so):
        ranking = tuple(r.name for r in ordered)
        hedge = (
            " (if gaps on real data are as on simulated data)"
            if any(p.relation != "better" for *_, p in steps)
            else ""
        )
        return replace(
            group, ranking=ranking, summary=f"ranking, best first: {', '.join(ranking)}{hedge}"
        )
    if not any(ordered_so):
        return replace(
            group,
            summary=f"no ranking of {listing(list(wins))} follows from these numbers"
            if len(rows) > 2
            else "",
        )
    chain = ordered[0].name + "".join(
        f" {'>' if yes else '?'} {b}" for yes, (_, b, _) in zip(ordered_so, steps, strict=True)
    )
    return replace(
        group, summary=f"the ranking is partial: {chain} (> is better than; ? is not decided)"
    )


def _row_record(row: Row) -> dict[str, Json]:
    bound = row.headline
    ends = interval(bound) or (None, None, None)
    mean, error = bound.mean()
    record: dict[str, Json] = {
        "name": row.name,
        "path": str(row.path),
        "exact": row.exact,
        "method": bound.label,
        "side": bound.side,
        "log_px": mean,
        "stderr": error,
        "interval_low": ends[0],
        "interval_high": ends[1],
        "interval_high_stderr": ends[2],
        "bits_per_dim": bound.bits_per_dim,
        "n": bound.n,
        "of_n": row.n,
        "split": row.split,
        "data_sha256": row.sha256,
        "source": row.source,
        "measure": row.measure,
        "given": list(row.given),
        "masked": row.masked,
        "warnings": list(row.warnings),
    }
    record = {key: _plain(value) for key, value in record.items()}
    bounds = []
    for each in row.bounds:
        value, deviation = each.mean()
        gap = (
            None
            if each.gap is None
            else dict(zip(("at_most", "stderr", "simulated"), each.gap, strict=True))
        )
        bounds.append(
            {
                "method": each.label,
                "side": each.side,
                "log_px": _plain(value),
                "stderr": _plain(deviation),
                "n": each.n,
                "gap": gap,
            }
        )
    return record | {"bounds": bounds}


def _plain(value: Json) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return list(value) if isinstance(value, tuple) else value
