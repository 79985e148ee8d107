"""Months, quarters and weeks of a year; times of day; durations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from vaestro.data.formats.base import CellFormat, Guess, Sample
from vaestro.data.formats.names import case_of, language_of
from vaestro.data.formats.patterns import Pattern

PERIOD = re.compile(
    r"(?P<year>\d{4})(?P<s1>[-/. ]?)(?P<mark>[QWM])?(?P<n>\d{1,2})|"
    r"(?P<mark2>[QWM])?(?P<n2>\d{1,2})(?P<s2>[-/. ])(?P<year2>\d{4})|"
    r"(?P<name>[^\W\d_]+\.?)(?P<s3>[-/ ]|, )(?P<year3>\d{4}|\d\d)|"
    r"(?P<year4>\d{4})(?P<s4>[-/ ])(?P<name4>[^\W\d_]+\.?)"
)
CLOCK = re.compile(
    r"(?P<hour>\d+):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:(?P<point>[.,])(?P<fraction>\d+))?)?"
    r"(?P<half> ?[AaPp]\.?[Mm]\.?)?"
)
UNITS = (  # seconds of a unit, and how people write it
    (86400, ("d", "day", "days")),
    (3600, ("h", "hr", "hrs", "hour", "hours")),
    (60, ("m", "min", "mins", "minute", "minutes")),
    (1, ("s", "sec", "secs", "second", "seconds")),
)
SECONDS = {word: seconds for seconds, words in UNITS for word in words}
PIECE = re.compile(r"(\d+)( ?)([a-z]+)(,? ?)")
DAYS = re.compile(r"(-?\d+) days?,? (?:\+?)(\d{1,2}):(\d\d):(\d\d)(?:\.(\d{1,9}))?")


@final
@dataclass(frozen=True)
class PeriodFormat(CellFormat):
    """Describe months, quarters or ISO weeks; values are their numbers since January 1970, the
    first quarter of 1970, or the week of 1970-01-01.

    >>> quarters = PeriodFormat("%Y-Q%q")
    >>> quarters.parse(["2024-Q1"]).tolist(), quarters.write(np.array([217]))
    ([216], ['2024-Q2'])
    """

    pattern: str
    language: str = "en"
    case: str = "title"

    name = "period"
    values = "periods"
    continuous = True

    @cached_property
    def _pattern(self) -> Pattern:
        return Pattern(self.pattern, self.language, self.case)

    @property
    def _unit(self) -> str:
        directives = self._pattern.directives
        return "quarter" if "q" in directives else "week" if "V" in directives else "month"

    def __str__(self) -> str:
        return str(self._pattern)

    def parse(self, words: Sequence[str]) -> np.ma.MaskedArray:
        fields, fits = self._pattern.fields(words)
        zeros = np.zeros(len(words), np.int64)
        year = fields.get("year", zeros)
        if "short" in fields:
            year = fields["short"] + np.where(fields["short"] < 69, 2000, 1900)
        fits &= (year >= 1900) & (year <= 2199)
        if self._unit == "week":
            week = fields["week"]
            numbers = _first_week(year) + week - 1
            fits &= (week >= 1) & (numbers < _first_week(year + 1))
            return np.ma.MaskedArray(numbers, ~fits)
        many = 4 if self._unit == "quarter" else 12
        part = fields.get("quarter", zeros) + fields.get("month", zeros) + fields.get("name", zeros)
        fits &= (part >= 1) & (part <= many)
        return np.ma.MaskedArray((year - 1970) * many + part - 1, ~fits)

    def write(self, values: np.ndarray) -> list[str]:
        numbers = np.rint(np.asarray(values)).astype(np.int64)
        if self._unit == "week":
            # the Thursday of a week is in its year
            year = (numbers * 7).astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64)
            year += 1970
            return self._pattern.write({"year": year, "week": numbers - _first_week(year) + 1})
        many = 4 if self._unit == "quarter" else 12
        part = numbers % many + 1
        year = numbers // many + 1970
        return self._pattern.write({"year": year, "quarter": part, "month": part})

    @classmethod
    def guesses(cls, sample: Sample) -> list[Guess]:
        by_pattern: Counter[str] = Counter()
        words: dict[str, set[str]] = {}
        for shape, n in sample.by_shape.items():
            if (match := PERIOD.fullmatch(shape.strip())) and (layout := _period(match)):
                by_pattern[layout[0]] += n
                words.setdefault(layout[0], set()).update({layout[1]} - {""})
        guesses = []
        for pattern, _ in by_pattern.most_common(2):
            months = {w.rstrip(".") for w in words[pattern]}
            language = language_of([w.lower() for w in months]) if months else "en"
            if language:
                if "%b" in pattern and max(map(len, months)) > 4:
                    pattern = pattern.replace("%b", "%B")
                guesses.append(
                    Guess(cls(pattern, language, case_of(months) if months else "title"))
                )
        return guesses


def _period(match: re.Match[str]) -> tuple[str, str] | None:
    """Return the pattern of a month, quarter or week, and the name of its month."""
    if name := match["name"] or match["name4"]:
        year = "%y" if match["year3"] and len(match["year3"]) == 2 else "%Y"
        if match["name"]:
            return f"%b{match['s3']}{year}", name
        return f"%Y{match['s4']}%b", name
    mark = match["mark"] or match["mark2"] or ""
    number = match["n"] or match["n2"]
    gap = match["s1"] if match["n"] else match["s2"]
    if not mark and (not gap or (len(number) == 1 and gap in ". ")):
        return None
    directive = {"Q": "%q", "W": "%V"}.get(mark, "%m" if len(number) == 2 else "%-m")
    if (mark == "Q") != (len(number) == 1) and mark in ("Q", "W"):
        return None
    part = mark + directive
    return (f"%Y{gap}{part}" if match["n"] else f"{part}{gap}%Y"), ""


def _first_week(year: np.ndarray) -> np.ndarray:
    """Return the number of the first ISO week of years; week 0 contains 1970-01-01."""
    fourth = (year - 1970).astype("datetime64[Y]").astype("datetime64[D]") + 3  # January 4
    return np.floor_divide(fourth.astype(np.int64) + 3, 7)


@final
@dataclass(frozen=True)
class ClockFormat(CellFormat):
    """Describe times of day, or durations with colons; values are seconds.

    Args:
        parts: 2 for 10:30, 3 for 10:30:00.
        short: whether two parts are minutes and seconds.
        bare: whether the first part has no zero before it.
        digits: number of decimals of seconds.
        point: before the decimals.
        half: AM or PM after the time, as in " PM"; "" without.
        day: whether the values are times of day, which end at 24:00.
        brief: whether decimals of seconds are left out if they are zero.

    >>> ClockFormat(parts=2, bare=True, half=" PM").write(np.array([13 * 3600]))
    ['1:00 PM']
    """

    parts: int = 3
    bare: bool = False
    digits: int = 0
    point: str = "."
    half: str = ""
    day: bool = True
    short: bool = False
    brief: bool = False

    name = "clock"
    values = "times"
    continuous = True

    def __str__(self) -> str:
        parts = ("minutes", "seconds") if self.short else ("hours", "minutes", "seconds")
        return f"{':'.join(parts[: self.parts])}" + ("" if self.day else ", durations")

    def parse(self, words: Sequence[str]) -> np.ma.MaskedArray:
        values, fits = np.zeros(len(words)), np.zeros(len(words), bool)
        for i, word in enumerate(words):
            match = CLOCK.fullmatch(word.strip())
            if match is None or bool(match["half"]) != bool(self.half):
                continue
            hour, minute, second = (
                int(match["hour"]),
                int(match["minute"]),
                int(match["second"] or 0),
            )
            if self.half:
                if not 1 <= hour <= 12:
                    continue
                hour = hour % 12 + 12 * (match["half"].strip()[0] in "pP")
            if (minute >= 60 and not self.short) or second >= 60 or (self.day and hour >= 24):
                continue
            seconds = (hour * 60 + minute) * 60 + second
            if self.short and match["second"] is None:
                seconds //= 60
            values[i] = seconds + float(f"0.{match['fraction'] or 0}")
            fits[i] = True
        return np.ma.MaskedArray(values if self.digits else values.astype(np.int64), ~fits)

    def write(self, values: np.ndarray) -> list[str]:
        scale = 10**self.digits
        step = 1 if self.parts == 3 or self.short else 60
        ticks = np.rint(np.asarray(values, np.float64) * scale / step).astype(np.int64) * step
        ticks = np.clip(ticks, 0, (86400 * scale - step) if self.day else None)
        return [self._written(t, scale) for t in ticks.tolist()]

    def _written(self, ticks: int, scale: int) -> str:
        seconds, fraction = divmod(ticks, scale)
        minute, second = divmod(seconds, 60)
        if self.short:
            return f"{minute}:{second:02d}" if self.bare else f"{minute:02d}:{second:02d}"
        hour, minute = divmod(minute, 60)
        half = ""
        if self.half:
            letters = "pm" if hour >= 12 else "am"
            half = self.half[:-2] + (letters if self.half[-1].islower() else letters.upper())
            hour = (hour + 11) % 12 + 1
        text = f"{hour}:{minute:02d}" if self.bare else f"{hour:02d}:{minute:02d}"
        text += f":{second:02d}" if self.parts == 3 else ""
        if self.digits and (fraction or not self.brief):
            text += f"{self.point}{fraction:0{self.digits}d}"
        return text + half

    @classmethod
    def guesses(cls, sample: Sample) -> list[Guess]:
        shapes = sample.by_shape
        matches = {s: m for s in shapes if (m := CLOCK.fullmatch(s.strip()))}
        if not matches:
            return []
        parts = Counter(3 if m["second"] else 2 for m in matches.values()).most_common(1)[0][0]
        halves = [m["half"] for m in matches.values() if m["half"]]
        points = [m["point"] for m in matches.values() if m["point"]]
        digits = max((len(m["fraction"]) for m in matches.values() if m["fraction"]), default=0)
        hours = [
            int(w.strip().split(":")[0])
            for w, s in zip(sample.words, sample.shapes, strict=True)
            if s in matches
        ]
        day = max(hours) < 24
        found = cls(
            parts=parts,
            bare=any(m["hour"] == "9" for m in matches.values()),
            digits=min(digits, 6),
            point=points[0] if points else ".",
            half=halves[0] if halves else "",
            day=day,
            brief=digits > 0 and any(m["fraction"] is None for m in matches.values()),
            short=not day and parts == 2 and max(hours) < 60,
        )
        return [Guess(found)]


@final
@dataclass(frozen=True)
class DurationFormat(CellFormat):
    """Describe durations with units; values are seconds.

    Args:
        units: the words of the units, the largest first, such as ("h", "m"); ("days", ":") for
            1 days 02:03:04.
        gap: between number and unit.
        between: between units.
        all: whether units of 0 are written.
        digits: number of decimals of seconds.

    >>> DurationFormat(("h", "m"), between=" ").parse(["1h 30m", "45m"]).tolist()
    [5400, 2700]
    >>> DurationFormat(("h", "m"), between=" ").write(np.array([5400, 2700]))
    ['1h 30m', '45m']
    """

    units: tuple[str, ...] = ("h", "m")
    gap: str = ""
    between: str = ""
    all: bool = False
    digits: int = 0

    name = "duration"
    values = "durations"
    continuous = True

    def __str__(self) -> str:
        return self.write(np.array([93784]))[0]

    def parse(self, words: Sequence[str]) -> np.ma.MaskedArray:
        numbers = [_of_days(w) if self.units[-1] == ":" else _of_units(w) for w in words]
        values = np.array([n if n is not None else 0 for n in numbers], np.float64)
        whole = bool((values == np.rint(values)).all())
        fits = np.array([n is not None for n in numbers], bool)
        return np.ma.MaskedArray(values.astype(np.int64) if whole else values, ~fits)

    def write(self, values: np.ndarray) -> list[str]:
        return [self._written(v) for v in np.asarray(values, np.float64).tolist()]

    def _written(self, value: float) -> str:
        if self.units[-1] == ":":
            ticks = round(value * 10**self.digits)
            seconds, fraction = divmod(ticks, 10**self.digits)
            days, seconds = divmod(seconds, 86400)
            clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
            return f"{days} {self.units[0]}{self.between}{clock}" + (
                f".{fraction:0{self.digits}d}" if self.digits else ""
            )
        smallest = SECONDS[self.units[-1]]
        rest = max(0, round(value / smallest)) * smallest
        pieces: list[str] = []
        for unit in self.units:
            count, rest = divmod(rest, SECONDS[unit])
            if count or self.all or (unit == self.units[-1] and not pieces):
                pieces.append(f"{count}{self.gap}{unit}")
        return self.between.join(pieces)

    @classmethod
    def guesses(cls, sample: Sample) -> list[Guess]:
        days = [m for s in sample.by_shape if (m := DAYS.fullmatch(s.strip()))]
        if days:
            digits = min(6, max(len(m[5] or "") for m in days))
            word = re.search("days?", days[0][0])
            assert word is not None
            between = ", " if "," in days[0][0] else " "
            return [Guess(cls((word[0], ":"), between=between, digits=digits))]
        good = {
            s: PIECE.findall(s.strip().lower()) for s in sample.by_shape if _of_units(s) is not None
        }
        if not good:
            return []
        units = {u for pieces in good.values() for _, _, u, _ in pieces}
        longest = max(good.values(), key=len)
        if len(units) < 2:
            return []  # a number with a unit
        return [
            Guess(
                cls(
                    tuple(sorted(units, key=lambda u: -SECONDS[u])),
                    gap=longest[0][1],
                    between=longest[0][3],
                    all=all(len(pieces) == len(units) for pieces in good.values()),
                )
            )
        ]


def _of_days(word: str) -> float | None:
    """Return the seconds of 1 days 02:03:04."""
    if (match := DAYS.fullmatch(word.strip())) is None:
        return None
    days, hours, minutes, seconds = (int(match[i]) for i in range(1, 5))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds + float(f"0.{match[5] or 0}")


def _of_units(word: str) -> float | None:
    """Return the seconds of 1h 30m."""
    text = word.strip().lower()
    pieces = PIECE.findall(text)
    if not pieces or PIECE.sub("", text) or any(u not in SECONDS for _, _, u, _ in pieces):
        return None
    sizes = [SECONDS[u] for _, _, u, _ in pieces]
    if sizes != sorted(set(sizes), reverse=True):
        return None
    return float(sum(int(n) * size for (n, _, _, _), size in zip(pieces, sizes, strict=True)))
