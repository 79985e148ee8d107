"""Dates, with or without a time, in the common orders and with names of months."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import final

import numpy as np

from vaestro.data.formats.base import CellFormat, Guess, Sample
from vaestro.data.formats.names import DAYS, case_of, language_of
from vaestro.data.formats.patterns import Pattern

FIELD = r"\d{1,4}|[^\W\d_]+\.?"
SHAPE = re.compile(
    rf"(?:(?P<weekday>[^\W\d_]+)(?P<s0>,? ))?(?P<a>{FIELD})(?P<s1>[/.\-]|,? |\. ?)(?P<b>{FIELD})"
    rf"(?P<s2>[/.\-]|,? |\. ?)(?P<c>\d{{1,4}})"
    r"(?:(?P<gap>T|,? )(?P<time>\d{1,2}:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?: ?[AaPp]\.?[Mm]\.?)?)"
    r"(?P<zone> ?(?:Z|UTC|GMT)| ?[+-]\d\d:?\d\d)?)?"
)
DENSE = re.compile(r"\d{8}|\d{8}T\d{6}")
YEARS = (1000, 2999)
PIVOT = 69  # two-digit years from here are of 19xx, as in POSIX


@final
@dataclass(frozen=True)
class DateFormat(CellFormat):
    """Describe dates and times.

    Args:
        pattern: as of `strptime`, such as "%d/%m/%Y".
        language, case: of names of months.
        digits: number of decimals of seconds.
        zone: the offset from UTC that is written; values are in UTC if the pattern has one.
        brief: whether decimals of seconds are left out if they are zero.

    >>> DateFormat("%d/%m/%Y").parse(["24/12/2024"]).tolist()
    [datetime.date(2024, 12, 24)]
    >>> DateFormat("%b %-d, %Y").write(np.array(["2024-12-04"], "datetime64[D]"))
    ['Dec 4, 2024']
    """

    pattern: str
    language: str = "en"
    case: str = "title"
    digits: int = 6
    zone: str = ""
    brief: bool = False

    name = "date"
    values = "dates"
    continuous = True

    @cached_property
    def _pattern(self) -> Pattern:
        return Pattern(self.pattern, self.language, self.case, self.digits)

    def __str__(self) -> str:
        return str(self._pattern)

    @property
    def usual(self) -> bool:
        return self.pattern.startswith("%Y-%m-%d")

    @property
    def day_first(self) -> bool | None:
        return _day_first(self.pattern) if "%b" not in self.pattern.lower() else None

    @property
    def strict(self) -> bool:
        return "%y" in self.pattern

    def parse(self, words: Sequence[str]) -> np.ma.MaskedArray:
        fields, fits = self._pattern.fields(words)
        zeros = np.zeros(len(words), np.int64)
        get = lambda name: fields.get(name, zeros)  # noqa: E731
        year = get("year")
        if "short" in fields:
            year = fields["short"] + np.where(fields["short"] < PIVOT, 2000, 1900)
        month = get("month") + get("name")
        first = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
        day = get("day") if "day" in fields else zeros + 1
        days = first.astype("datetime64[D]") + (day - 1)
        hour = get("hour")
        if "half" in fields:
            fits &= (hour >= 1) & (hour <= 12)
            hour = hour % 12 + 12 * fields["half"]
        fits &= (month >= 1) & (month <= 12) & (days.astype("datetime64[M]") == first)
        fits &= (year >= YEARS[0]) & (year <= YEARS[1]) & (get("minute") < 60)
        fits &= (hour < 24) & (get("second") < 60) & (day >= 1)
        if not ({"H", "I"} & set(self._pattern.directives)):
            return np.ma.MaskedArray(days, ~fits)
        seconds = (hour * 60 + get("minute") - get("zone")) * 60 + get("second")
        micro = (seconds * 1_000_000 + get("fraction")).astype("timedelta64[us]")
        times = days.astype("datetime64[us]") + micro
        whole = times.astype("datetime64[D]")
        return np.ma.MaskedArray(whole if (whole == times)[fits].all() else times, ~fits)

    def write(self, values: np.ndarray) -> list[str]:
        times = np.asarray(values).astype("datetime64[us]")
        if self.zone[:1] in ("+", "-"):
            sign, digits = self.zone[0], self.zone[1:].replace(":", "")
            minutes = (int(digits[:2]) * 60 + int(digits[2:])) * (-1 if sign == "-" else 1)
            times = times + np.timedelta64(minutes, "m")
        half = np.timedelta64(10 ** (6 - self.digits) // 2 if "%f" in self.pattern else 0, "us")
        if "%f" not in self.pattern and "%S" in self.pattern:
            half = np.timedelta64(500_000, "us")
        elif "%S" not in self.pattern and "%M" in self.pattern:
            half = np.timedelta64(30_000_000, "us")
        times = times + half
        days, months = times.astype("datetime64[D]"), times.astype("datetime64[M]")
        months_since = months.astype(np.int64)
        micro = (times - days).astype(np.int64)
        fields = {
            "year": months_since // 12 + 1970,
            "month": months_since % 12 + 1,
            "day": (days - months).astype(np.int64) + 1,
            "weekday": (days.astype(np.int64) + 3) % 7,
            "hour": micro // 3_600_000_000,
            "minute": micro // 60_000_000 % 60,
            "second": micro // 1_000_000 % 60,
            "fraction": micro % 1_000_000,
        }
        words = self._pattern.write(fields, self.zone)
        if self.brief:
            zeros = re.compile(rf"[.,]0{{{self.digits}}}(?!\d)")
            words = [zeros.sub("", word) for word in words]
        return words

    # -- deciding ----------------------------------------------------------------------------------

    @classmethod
    def guesses(cls, sample: Sample) -> list[Guess]:
        shapes = sample.by_shape
        matches = {s: m for s in shapes if (m := SHAPE.fullmatch(s.strip()))}
        if not matches:
            return cls._dense(sample)
        layouts: Counter[tuple[str, ...]] = Counter()
        for s, m in matches.items():
            layouts[_layout(m)] += shapes[s]
        days = layouts.most_common(1)[0][0][:6]
        # some dates may have no time
        layout = max(k for k, _ in layouts.most_common() if k[:6] == days)
        same = [m for m in matches.values() if _layout(m) == layout]
        patterns = _patterns(same)
        zones: set[str] = set()
        if any(m["zone"] for m in same):
            zones = {
                w.strip()[len(w.strip()) - len(m["zone"].strip()) :]
                for w, s in zip(sample.words, sample.shapes, strict=True)
                if (m := matches.get(s)) is not None and m["zone"]
            }
        names = {g.rstrip(".") for m in same for g in (m["a"], m["b"]) if not g[0].isdigit()}
        language = language_of([n.lower() for n in names]) if names else "en"
        if not language:
            return []
        digits = max(
            (
                len(re.split("[.,]", m["time"])[1].rstrip(" apmAPM"))
                for m in same
                if (m["time"] and re.search(r"\d[.,]\d", m["time"]))
            ),
            default=6,
        )
        zone = "" if not zones else next(iter(zones)) if len(zones) == 1 else "+00:00"
        options = (language, case_of(names) if names else "title", min(digits, 6), zone)
        decimals = {bool(re.search(r"\d[.,]\d", m["time"] or "")) for m in same}
        return _chosen([cls(pattern, *options, len(decimals) > 1) for pattern in patterns], sample)

    @classmethod
    def _dense(cls, sample: Sample) -> list[Guess]:
        """Return dates without separators, 20241231."""
        shapes = sample.by_shape
        good = {s for s in shapes if DENSE.fullmatch(s.strip())}
        if not good:
            return []
        pattern = "%Y%m%dT%H%M%S" if any("T" in s for s in good) else "%Y%m%d"
        found = cls(pattern)
        cells = found.parse(sample.words)
        years = cells.compressed().astype("datetime64[Y]").astype(np.int64) + 1970
        likely = len(years) > 1 and years.min() >= 1900 and years.max() <= 2100
        return [Guess(found)] if likely else []


def _layout(match: re.Match[str]) -> tuple[str, ...]:
    """Return what has to be the same in all dates of a column, apart from the number of digits."""
    fields = tuple(
        "name" if not match[k][0].isdigit() else "year" if len(match[k]) == 4 else "number"
        for k in "abc"
    )
    time = re.sub(r"\d+", "9", match["time"] or "").upper()
    zone = "zone" if match["zone"] else ""
    day = str(len(match["weekday"]) > 3) if match["weekday"] else ""
    gap = (match["gap"] or "").replace("T", " ")
    gaps = (match["s0"] or "", match["s1"], match["s2"], gap)
    return (*fields, *gaps, re.sub(r"[.,]9", "", time), zone, day)


def _patterns(same: Sequence[re.Match[str]]) -> list[str]:
    """Return the patterns that dates of one layout may have, days before months first."""
    first = same[0]
    kinds = _layout(first)[:3]
    single = {k: any(len(m[k]) == 1 for m in same) for k in "abc"}
    if len(first["c"]) == 3 or ("year" not in kinds and len(first["c"]) != 2):
        return []
    name = _name_directive([m[k] for m in same for k in "ab" if not m[k][0].isdigit()])
    orders: dict[tuple[str, ...], list[str]] = {
        ("year", "number", "number"): ["Ymd"],
        ("year", "name", "number"): [f"Y{name}d"],
        ("number", "number", "year"): ["dmY", "mdY"],
        ("number", "name", "year"): [f"d{name}Y"],
        ("name", "number", "year"): [f"{name}dY"],
        ("number", "number", "number"): ["dmy", "mdy", "ymd"],
        ("number", "name", "number"): [f"d{name}y"],
        ("name", "number", "number"): [f"{name}dy"],
    }
    tail = (first["gap"] or "") + _time_pattern(same)
    day = first["weekday"] or ""
    if day and day.lower() not in {d.lower()[:n] for d, n in product(DAYS, (3, 9))}:
        return []
    head = ("%a" if len(day) <= 3 else "%A") + first["s0"] if day else ""
    patterns = []
    for order in orders.get(kinds, []):
        pieces = [
            f"%{'-' if single[k] and d in 'md' else ''}{d}"
            for k, d in zip("abc", order, strict=True)
        ]
        patterns.append(head + pieces[0] + first["s1"] + pieces[1] + first["s2"] + pieces[2] + tail)
    return patterns


def _name_directive(names: Sequence[str]) -> str:
    """Return b for short names of months, B for whole ones."""
    letters = [name.rstrip(".") for name in names]
    return "b" if letters and max(map(len, letters)) <= 4 else "B"


def _time_pattern(same: Sequence[re.Match[str]]) -> str:
    if not same[0]["time"]:
        return ""
    time = max((m["time"] for m in same), key=lambda t: "." in t or "," in t)
    half = re.search(r" ?[AaPp]\.?[Mm]", time)
    bare = "-" if any(re.match(r"\d:", m["time"]) for m in same) else ""
    pattern = f"%{bare}{'I' if half else 'H'}:%M"
    clock = time[: half.start()] if half else time
    if clock.count(":") == 2:
        pattern += ":%S"
    if separator := re.search(r"[.,]", clock):
        pattern += separator[0] + "%f"
    if half:
        pattern += (" " if " " in half[0] else "") + "%p"
    zone = same[0]["zone"]
    return pattern + ((" " if zone[0] == " " else "") + "%z" if zone else "")


def _chosen(formats: Sequence[DateFormat], sample: Sample) -> list[Guess]:
    """Return the formats that parse most cells; what is left is decided by the whole column."""
    if len(formats) < 2:
        return [Guess(f) for f in formats]
    cells = [(f, f.parse(sample.words)) for f in formats]
    fits = [int(sample.times[~np.ma.getmaskarray(values)].sum()) for _, values in cells]
    if not cells or not max(fits):
        return []
    best = [pair for pair, n in zip(cells, fits, strict=True) if n == max(fits)]
    if len(best) == 1:
        return [Guess(best[0][0])]
    for f, _ in best:
        if sample.day_first is not None and _day_first(f.pattern) is sample.day_first:
            return [Guess(f)]
    # the first of a month, for monthly data: the number that is always 1 is the day
    for f, values in best:
        day = values.compressed().astype("datetime64[D]")
        if len(day) > 2 and (day == day.astype("datetime64[M]")).all():
            return [Guess(f)]
    chosen, other = best[0][0], Pattern(best[1][0].pattern.replace("%-", "%"))
    return [Guess(chosen, f"dates={other.text} reads {other}")]


def _day_first(pattern: str) -> bool | None:
    """Return whether days are before months; None if the year is first."""
    letters = Pattern(pattern).directives
    if "d" not in letters or "m" not in letters or letters[0] in "Yy":
        return None
    return letters.index("d") < letters.index("m")
