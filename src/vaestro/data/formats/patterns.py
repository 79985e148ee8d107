"""Patterns of dates, such as %d/%m/%Y: text to numbers and back.

The directives are those of `strptime`, and: `%-d`, `%-m`, `%-H` and `%-I` without a zero before,
`%q` a quarter, `%V` an ISO week. `%z` is an offset from UTC.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from vaestro.data.formats.names import DAYS, month_names, months

NUMBERS = {  # directive -> the field, and its digits
    "Y": ("year", r"\d{4}"),
    "y": ("short", r"\d{2}"),
    "m": ("month", r"\d{1,2}"),
    "d": ("day", r"\d{1,2}"),
    "H": ("hour", r"\d{1,2}"),
    "I": ("hour", r"\d{1,2}"),
    "M": ("minute", r"\d{2}"),
    "S": ("second", r"\d{2}"),
    "f": ("fraction", r"\d{1,9}"),
    "q": ("quarter", r"[1-4]"),
    "V": ("week", r"\d{2}"),
}
NAMES = {
    "b": ("name", r"[^\W\d_]+\.?"),
    "B": ("name", r"[^\W\d_]+\.?"),
    "p": ("half", r"[AaPp]\.?[Mm]\.?"),
    "z": ("zone", r"[+-]\d{2}:?\d{2}|Z|UTC|GMT"),
    "a": ("", r"[^\W\d_]+\.?"),
    "A": ("", r"[^\W\d_]+\.?"),
}
TOKEN = re.compile(r"%(-?)([A-Za-z%])|([^%]+)")
WORDS = {  # for notes
    **{"Y": "year", "y": "year", "m": "month", "d": "day", "b": "month", "B": "month"},
    **{"H": "hour", "I": "hour", "M": "minute", "S": "second", "f": "fraction", "q": "quarter"},
    **{"V": "week", "p": "AM/PM", "z": "offset", "a": "weekday", "A": "weekday"},
}


@final
@dataclass(frozen=True)
class Pattern:
    """Describe a pattern of dates.

    Args:
        text: the pattern, such as "%d/%m/%Y".
        language: of the names of months.
        case: of names: title, upper or lower.
        digits: number of decimals of seconds.

    Raises:
        ValueError: a directive is unknown.

    >>> fields, fits = Pattern("%d/%m/%Y").fields(["24/12/2024", "x"])
    >>> fields["day"].tolist(), fits.tolist()
    ([24, 0], [True, False])
    """

    text: str
    language: str = "en"
    case: str = "title"
    digits: int = 6

    def __post_init__(self) -> None:
        unknown = [d for _, d, _ in self._tokens if d and d not in NUMBERS and d not in NAMES]
        if (
            unknown
            or not any(d for _, d, _ in self._tokens)
            or "".join(f"%{m}{d}" if d else t for m, d, t in self._tokens) != self.text
        ):
            raise ValueError(
                f"expected a pattern of dates such as %d/%m/%Y or %Y-%m-%d; got {self.text!r}"
            )

    @property
    def _tokens(self) -> list[tuple[str, str, str]]:
        return TOKEN.findall(self.text)

    @property
    def directives(self) -> str:
        """Return the letters of the directives.

        >>> Pattern("%d/%m/%Y").directives
        'dmY'
        """
        return "".join(d for _, d, _ in self._tokens)

    def __str__(self) -> str:
        """Return the pattern in words: day/month/year."""
        return "".join(WORDS[d] if d else t for _, d, t in self._tokens)

    # -- reading -----------------------------------------------------------------------------------

    @cached_property
    def _regex(self) -> tuple[re.Pattern[str], list[str]]:
        pieces, names = [r"\s*"], []
        tokens, optional = self._tokens, False
        for i, (_, d, text) in enumerate(tokens):
            if not d:
                before = tokens[i - 1][1] if i else ""
                after = tokens[i + 1][1] if i + 1 < len(tokens) else ""
                if text in ("T", " ") and after in ("H", "I"):
                    # a date without a time is at midnight
                    optional = i > 0
                    pieces.append(r"(?:(?:T|\s+)" if optional else r"\s+")
                elif before == "S" and after == "f":
                    continue  # the fraction has it
                else:
                    pieces.append(r"\s+".join(map(re.escape, re.split(r"\s+", text))))
                continue
            name, digits = NUMBERS.get(d) or NAMES[d]
            dense = i + 1 < len(tokens) and tokens[i + 1][1] in NUMBERS
            dense |= i > 0 and tokens[i - 1][1] in NUMBERS
            if dense and digits == r"\d{1,2}":
                digits = r"\d{2}"
            if d == "f":
                digits = r"\d{1,9}"
                pieces.append(rf"(?:{re.escape(tokens[i - 1][2])}({digits}))?")
                names.append(name)
                continue
            pieces.append(f"({digits})" if name else f"(?:{digits})")
            names += [name] if name else []
        end = ")?" if optional else ""
        return re.compile("".join([*pieces, end, r"\s*"])), names

    def fields(self, words: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the numbers in words by field, each (n,), 0 in other words; and which words have
        this pattern. `fraction` is in microseconds, `zone` in minutes."""
        regex, names = self._regex
        matches = [regex.fullmatch(word) for word in words]
        fits = np.array([match is not None for match in matches], bool)
        groups = [match.groups() for match in matches if match is not None]
        fields = {}
        for name, texts in zip(names, zip(*groups, strict=True), strict=False):
            numbers, known = self._numbers(name, texts)
            fields[name] = np.zeros(len(words), np.int64)
            fields[name][fits] = numbers
            if not known.all():
                fits[np.flatnonzero(fits)[~known]] = False
                return self.fields([w if f else "" for w, f in zip(words, fits, strict=True)])
        return fields, fits

    def _numbers(self, name: str, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of one field, and which are known."""
        distinct = dict.fromkeys(texts)
        values: dict[str | None, int] = {
            None: 12 if name == "hour" and "p" in self.directives else 0
        }
        if name == "name":
            table = months(self.language)
            values |= {t: table.get(t.lower().rstrip("."), -1) for t in distinct}
        elif name == "half":
            values |= {t: int(t[0] in "pP") for t in distinct if t}
        elif name == "zone":
            values |= {t: _minutes(t) for t in distinct if t}
        elif name == "fraction":
            values |= {t: int(t.ljust(6, "0")[:6]) for t in distinct if t}
        else:
            values |= {t: int(t) for t in distinct if t}
        numbers = np.array([values[t] for t in texts], np.int64)
        return numbers, (numbers >= 0) if name == "name" else np.ones(len(numbers), bool)

    # -- writing -----------------------------------------------------------------------------------

    def write(self, fields: Mapping[str, np.ndarray], zone: str = "") -> list[str]:
        """Return words from fields, each (n,); `weekday` counts from Monday.

        Args:
            fields: the numbers.
            zone: the text of `%z`.
        """
        pieces: list[str] = []
        columns: list[Sequence[int | str]] = []
        for bare, d, text in self._tokens:
            if not d:
                pieces.append(text.replace("{", "{{").replace("}", "}}"))
            elif d == "z":
                pieces.append(zone)
            else:
                pieces.append(f"{{{len(columns)}{_width(d, bare, self.digits)}}}")
                columns.append(self._written(d, fields))
        template = "".join(pieces)
        return [template.format(*row) for row in zip(*columns, strict=True)]

    def _written(self, d: str, fields: Mapping[str, np.ndarray]) -> Sequence[int | str]:
        """Return the column of a directive."""
        if d in "bB":
            names = month_names(self.language, short=d == "b", case=self.case)
            return [names[i - 1] for i in fields["month"].tolist()]
        if d in "aA":
            days = [day[:3] if d == "a" else day for day in DAYS]
            return [days[i] for i in fields["weekday"].tolist()]
        if d == "p":
            return ["PM" if hour >= 12 else "AM" for hour in fields["hour"].tolist()]
        if d == "I":
            return ((fields["hour"] + 11) % 12 + 1).tolist()
        if d == "y":
            return (fields["year"] % 100).tolist()
        if d == "f":
            return (fields["fraction"] // 10 ** (6 - self.digits)).tolist()
        return fields[NUMBERS[d][0]].tolist()


def _width(d: str, bare: str, digits: int) -> str:
    if d in NAMES or bare or d == "q":
        return ""
    return ":04d" if d == "Y" else f":0{digits}d" if d == "f" else ":02d"


def _minutes(zone: str) -> int:
    """Return an offset from UTC in minutes."""
    if zone[0] not in "+-":
        return 0
    digits = zone[1:].replace(":", "")
    return (int(digits[:2]) * 60 + int(digits[2:])) * (-1 if zone[0] == "-" else 1)
