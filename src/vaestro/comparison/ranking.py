"""Group what may stand in one ranking, take paired differences, and say what follows from each."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vaestro.comparison.evidence import Row, interval, names, read_exact, read_run
from vaestro.comparison.pairs import Pair, decided
from vaestro.comparison.significance import LEVEL
from vaestro.comparison.words import group_title, listing
from vaestro.data.writers import writing
from vaestro.runs import Run

# How far projections of one datum may lie apart, in standard deviations over data: float32 values
# standardised twice.
SAME_DATUM = 1e-4
SPOKEN_PAIRS = 10


@dataclass(frozen=True, eq=False)
class Group:
    """Hold rows that may be compared, the highest first, and what follows for each pair of them.

    Args:
        rows: the rows.
        pairs: one for each two rows.
        ranking: names, the best first, if every neighbouring pair is decided; else None.
        summary: the ranking in words, or what there is of one; empty for a single row.
    """

    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    ranking: tuple[str, ...] | None
    summary: str

    def pair(self, a: str, b: str) -> Pair:
        """Return what follows for two names, in any order."""
        return next(p for p in self.pairs if {p.higher, p.lower} == {a, b})


@dataclass(frozen=True, eq=False)
class Comparison:
    """Hold what can be said about some runs together.

    Args:
        rows: one for each run and each exact set, in the order asked.
        groups: rows that may stand in one ranking.
        refusals: why each two groups may not, in words.
        notes: what else must be known to read the numbers.
    """

    rows: tuple[Row, ...]
    groups: tuple[Group, ...]
    refusals: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def statements(self) -> tuple[str, ...]:
        """Return every refusal, note, pair and ranking as a sentence."""
        said = [s for g in self.groups for s in (*(p.sentence for p in g.pairs), g.summary) if s]
        return (*self.refusals, *said, *self.notes)

    @property
    def spoken(self) -> tuple[str, ...]:
        """Return the statements, but of a large group's pairs the neighbouring ones only."""
        said: list[str] = []
        for group in self.groups:
            pairs = group.pairs
            if len(pairs) > SPOKEN_PAIRS:
                order = [r.name for r in group.rows]
                pairs = tuple(group.pair(a, b) for a, b in pairwise(order))
            said += [p.sentence for p in pairs]
            if len(pairs) < len(group.pairs):
                said.append(
                    f"{len(group.pairs) - len(pairs)} more pairs, not next to each other, are in "
                    f"-o FILE.json"
                )
            said += [group.summary] if group.summary else []
        return (*self.refusals, *said, *self.notes)

    def record(self) -> dict[str, Any]:
        """Return all of it as plain values, for JSON; what is not finite is None."""
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
        """Write a picture (.png), everything (.json), or the rows (.csv); what is not known is
        empty there.

        Raises:
            ValueError: the suffix is another.
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
            lines = self._flat()
            with writing(path) as part, part.open("w", newline="") as file:
                writer = csv.DictWriter(file, lines[0])
                writer.writeheader()
                writer.writerows(lines)
        else:
            raise ValueError(f"expected a file ending in .png, .json, .csv; got {path}")

    def _flat(self) -> list[dict[str, Any]]:
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
    """Compare runs that were evaluated, and exact values of log p(x), from their files alone.

    Args:
        runs: folders, or runs.
        exact: {name: FILE.npz, with options such as :unit=bits,measure=counting}; see `read_exact`.

    Raises:
        ValueError: a run has no evaluation or stands twice, files are damaged, or an exact set has
            another length than every run.
    """
    opened = Run.several(runs)
    folders = [r.path.resolve() for r in opened]
    rows = [read_run(run, name) for run, name in zip(opened, names(folders), strict=True)]
    groups: list[list[Row]] = []
    for row in rows:
        _place(row, groups)
    notes = [f"{row.name}: {warning}" for row in rows for warning in row.warnings]
    for name, file in (exact or {}).items():
        if not name or name in [r.name for r in rows]:
            raise ValueError(f"expected a name for {file} that no other has; got {name!r}")
        row = read_exact(name, file)
        lengths = sorted({r.n for r in rows if not r.exact})
        if row.n not in lengths:
            were = " or ".join(f"{n:,}" for n in lengths)
            raise ValueError(
                f"expected log_px of the {were} data that the runs were evaluated on in "
                f"{row.path}; got {row.n:,}"
            )
        if not row.sha256:
            row = _on_word(row, groups)
            notes.append(
                f"{name} is taken to be of the same data on your word: {row.path} has no "
                f"data_sha256"
            )
        rows.append(_place(row, groups))
    refusals = []
    for other, one in combinations(groups, 2):
        verb = "is" if len(one) == 1 else "are"
        apart = (
            f"{listing([r.name for r in one])} {verb} not ranked with "
            f"{listing([r.name for r in other])}"
        )
        refusals.append(
            f"{apart}: {next(filter(None, (refusal(x, y) for x in one for y in other)))}"
        )
    pairs = decided([pair for group in groups for pair in combinations(group, 2)])
    tested = sum(pair.tested for pair in pairs.values())
    if tested > 1:
        notes.append(
            f"p-values are corrected for the {tested} pairs that are compared (Holm), so that "
            f"the chance of calling any difference wrongly "
            f"is at most {100 * LEVEL:.0f} %"
        )
    made = tuple(
        _group(group, [pairs[a.name, b.name] for a, b in combinations(group, 2)])
        for group in groups
    )
    return Comparison(tuple(rows), made, tuple(refusals), tuple(notes))


def refusal(a: Row, b: Row) -> str | None:
    """Say why two rows may not stand in one ranking, by the most basic reason; None if they may."""
    splits = "" != a.split != b.split != ""
    hashes = " and ".join(f"{r.split} {r.short_hash}" if splits else r.short_hash for r in (a, b))
    kinds = f"{a.measure} and {b.measure} measure"
    known = [(x, y) for x, y in ((a.space, b.space), (a.split, b.split)) if x and y and x != y]
    same = _same_values(a, b)
    if a.n != b.n:
        if known or same is False:
            return (
                f"different data ({' and '.join(known[0]) if known else hashes}), and {a.n:,} "
                f"and {b.n:,} of them"
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
        # Hashes once left the standardisation out.
        return scaled if same is False else conditions if set(a.given) != set(b.given) else None
    # The hash covers conditions and masks too: where they differ, they alone explain that it does.
    if same is not False and set(a.given) != set(b.given):
        return conditions
    if None not in (a.masked, b.masked) and a.masked != b.masked:
        holed, whole = (a, b) if a.masked else (b, a)
        return (
            f"different masks: {holed.name} is measured on data with missing cells, "
            f"{whole.name} on complete data ({hashes})"
        )
    if a.measure != b.measure:
        return (
            density if same or (same is None and not known and a.source == b.source) else different
        )
    return None if same and a.measure != "counting" else different


def _same_values(a: Row, b: Row) -> bool | None:
    """Tell whether two rows are of the same values as far as both go, by projections or by hash;
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
    """Tell whether both are known to be of other rows of a split."""
    return a.index is not None and b.index is not None and not np.array_equal(a.index, b.index)


def _place(row: Row, groups: list[list[Row]]) -> Row:
    """Put a row into the group that it can be compared with, or into one of its own; exact values
    learn their bits/dim there."""
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


def _on_word(row: Row, groups: list[list[Row]]) -> Row:
    """Give an exact set without a hash the hash of the runs that it must be meant for.

    Raises:
        ValueError: it could be meant for several.
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
    """Order the rows of a group, the highest first, and say what ranking follows."""
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
            " (as far as simulated data speak for the real)"
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


def _row_record(row: Row) -> dict[str, Any]:
    bound = row.headline
    ends = interval(bound) or (None, None, None)
    mean, error = bound.mean()
    record: dict[str, Any] = {
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


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return list(value) if isinstance(value, tuple) else value
