"""Numbers as people write them: money, units, percents, separators, brackets, exponents."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np

from vaestro.data.formats.base import CellFormat, Guess, Sample, shapes_of

MINUS = r"\-\u2212\u2013"  # minus signs, in a class of characters
SPACES = " \u00a0\u202f\u2009"
APOSTROPHES = "'\u2019"
CURRENCIES = (
    "AED ARS AUD BDT BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY "
    "KES KRW KZT MAD MXN MYR NGN NOK NZD PEN PHP PKR PLN QAR RON RSD RUB SAR SEK SGD THB TRY TWD "
    "UAH USD UYU VND ZAR Rs Rs. Fr Fr. SFr. kr kr. Kč zł Ft lei US A C NZ HK S R CA AU"
)
# thousands and decimal separators that are tried, the first of equal ones is taken
SEPARATORS = (
    ("", "."),
    (",", "."),
    ("", ","),
    (".", ","),
    (" ", "."),
    (" ", ","),
    ("'", "."),
    ("'", ","),
)
SHAPE = re.compile(
    rf"(?P<open>\()?(?P<sign>[+{MINUS}])?\s*(?P<prefix>[^\d\s()+{MINUS},'\u2019<>≤≥=~#][^\d()+{MINUS},"
    rf"<>≤≥=]*?)?(?P<gap>\s*)(?P<inner>[+{MINUS}])?(?P<body>\d+(?:[.,{APOSTROPHES}{SPACES}]\d+)*|"
    rf"[.,]\d+)(?P<exponent>[eE][+-]?\d+)?(?P<suffix>[^\d(){MINUS}]*?(?:m\d)?)"
    rf"(?P<after>[{MINUS}])?(?P<close>\))?"
)
LARGEST = 2**53  # whole numbers below are exact in float64


@final
@dataclass(frozen=True)
class NumberFormat(CellFormat):
    """Describe numbers.

    Args:
        prefix, suffix: around the digits, such as "$" and " kg", with their spaces.
        thousands: the separator of thousands; "" without.
        decimal: the decimal separator.
        places: decimals; in brief numbers the most decimals.
        brief: whether trailing zeros are left out: "" never, "all" always, "whole" those of whole
            numbers.
        negative: how negative numbers are written: a minus sign, "()", or "after".
        inner: whether the sign is between prefix and digits.
        plus: whether positive numbers have a plus sign.
        exponent: "e" or "E", and the width of the exponent, such as "e+2" or "E1"; "" without.
        lakh: whether digits are grouped as in 12,34,567.
        whole: whether the values are integers.

    >>> price = NumberFormat("$", thousands=",", places=2)
    >>> price.parse(["$1,234.50", "-$7.00", "n/a"]).tolist()
    [1234.5, -7.0, None]
    >>> price.write(np.array([1234.5, -7]))
    ['$1,234.50', '-$7.00']
    """

    prefix: str = ""
    suffix: str = ""
    thousands: str = ""
    decimal: str = "."
    places: int = 0
    brief: str = ""
    negative: str = "-"
    inner: bool = False
    plus: bool = False
    exponent: str = ""
    lakh: bool = False
    whole: bool = False

    name = "number"
    values = "numbers"

    def __str__(self) -> str:
        example = 0.00012345 if self.exponent else 1234567.0 if self.lakh else 1234.0
        fraction = 0.0 if not self.places else 0.5 if self.places == 1 else 0.56
        return self.write(np.array([example + fraction * (not self.exponent)]))[0]

    @property
    def usual(self) -> bool:
        return self == NumberFormat(places=self.places, brief=self.brief, whole=self.whole)

    @property
    def decimal_comma(self) -> bool | None:
        if self.places and self.decimal in ".,":
            return self.decimal == ","
        return self.thousands == "." if self.thousands in (".", ",") else None

    # -- reading -----------------------------------------------------------------------------------

    @cached_property
    def _digits(self) -> str:
        """Return the pattern of the digits with their separators."""
        return _body(self.thousands, self.decimal, lakh=self.lakh)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        prefix, suffix = (re.escape(s.strip()) for s in (self.prefix, self.suffix))
        return re.compile(
            rf"\s*(\()?([+{MINUS}])?\s*(?:{prefix})?\s*([+{MINUS}])?\s*({self._digits})"
            rf"([eE][+-]?\d+)?\s*(?:{suffix})?\s*([{MINUS}])?(\))?\s*"
        )

    def parse(self, words: Sequence[str]) -> np.ma.MaskedArray:
        around = self.prefix + self.suffix
        exponents = any("e" in w or "E" in w for w in words) and not re.search("[eE]", around)
        lines = any("\n" in word for word in words)
        if not (exponents or lines) and not re.search(rf"[\d\n{re.escape(self.decimal)}]", around):
            values, fits = self._parse_alike(words)
        else:
            values, fits = self._parse_each(words)
        fits &= np.isfinite(values)  # 1e400 is no number
        values = np.where(fits, values, 0.0)
        if self.whole and (np.abs(values) < LARGEST).all() and (values == np.rint(values)).all():
            values = values.astype(np.int64)
        return np.ma.MaskedArray(values, ~fits)

    def _parse_alike(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers and which words are numbers; each shape is compared once."""
        shapes = shapes_of(words)
        negative = {s: self._sign(s) for s in set(shapes)}
        fits = np.array([negative[s] is not None for s in shapes], bool)
        signs = np.array([-1.0 if negative[s] else 1.0 for s in shapes])
        good = "\n".join(w for w, f in zip(words, fits.tolist(), strict=True) if f)
        table = {ord(c): "" for c in set(good) if not c.isdecimal() and c != "\n"}
        values = np.zeros(len(words))
        if good:
            texts = good.translate({**table, ord(self.decimal): "."}).split("\n")
            values[fits] = [float(text) for text in texts]
        return values * signs, fits

    def _parse_each(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers and which words are numbers, one by one."""
        values, fits = np.zeros(len(words)), np.zeros(len(words), bool)
        for i, word in enumerate(words):
            if (negative := self._sign(word)) is None:
                continue
            match = self._pattern.fullmatch(word)
            assert match is not None
            digits = "".join(c for c in match[4] if c.isdecimal() or c == self.decimal)
            values[i] = float(digits.replace(self.decimal, ".") + (match[5] or ""))
            values[i], fits[i] = -values[i] if negative else values[i], True
        return values, fits

    def _sign(self, word: str) -> bool | None:
        """Return whether a word is a negative number; None if it is no number."""
        match = self._pattern.fullmatch(word)
        if match is None or (match[1] is None) != (match[7] is None):
            return None
        signs = [s for s in (match[2], match[3], match[6], match[1]) if s]
        return None if len(signs) > 1 else bool(signs) and signs[0] != "+"

    # -- writing -----------------------------------------------------------------------------------

    def write(self, values: np.ndarray) -> list[str]:
        return [self._written(v) for v in np.asarray(values).tolist()]

    def _written(self, value: float) -> str:
        digits = self._magnitude(abs(value))
        # -0.001 is written as 0.00
        negative = value < 0 and any(c in "123456789" for c in digits)
        sign = "+" if self.plus and not negative and value != 0 else ""
        if negative and self.negative not in ("()", "after"):
            sign = self.negative
        text = f"{self.prefix}{sign}{digits}" if self.inner else f"{sign}{self.prefix}{digits}"
        text += self.suffix
        if negative and self.negative == "()":
            return f"({text})"
        return f"{text}-" if negative and self.negative == "after" else text

    def _magnitude(self, value: float) -> str:
        """Return a number of 0 or more without sign, prefix and suffix."""
        if self.exponent:
            mantissa, power = f"{value:.{self.places}e}".split("e")
            mantissa = _trimmed(mantissa) if self.brief else mantissa
            plus = "-" if int(power) < 0 else "+" if "+" in self.exponent else ""
            digits = str(abs(int(power))).zfill(int(self.exponent[-1]))
            return f"{mantissa.replace('.', self.decimal)}{self.exponent[0]}{plus}{digits}"
        number = f"{value:.{self.places}f}"
        if self.brief == "all" or (self.brief == "whole" and float(number).is_integer()):
            number = _trimmed(number)
        whole, _, fraction = number.partition(".")
        if self.thousands:
            whole = _grouped(whole, self.thousands, lakh=self.lakh)
        return whole + (self.decimal + fraction if fraction else "")

    # -- deciding ----------------------------------------------------------------------------------

    @classmethod
    def guesses(cls, sample: Sample) -> list[Guess]:
        pieces = [
            (shape, match, n)
            for shape, n in sample.by_shape.items()
            if (match := SHAPE.fullmatch(shape.strip())) and _plausible(match)
        ]
        if not pieces:
            return []
        around: Counter[tuple[str, str]] = Counter()
        for _, match, n in pieces:
            around[_around(match)] += n
        (prefix, suffix), _ = around.most_common(1)[0]
        same = [piece for piece in pieces if _around(piece[1]) == (prefix, suffix)]
        bare = [piece for piece in pieces if _around(piece[1]) == ("", "")]
        bodies: Counter[str] = Counter()
        for _, match, n in same if (prefix, suffix) == ("", "") else same + bare:
            bodies[match["body"]] += n
        chosen = _separators(bodies, sample, money=_is_currency(prefix) or _is_currency(suffix))
        if chosen is None:
            return []
        thousands, decimal, lakh, others = chosen
        bare_format = cls(prefix, suffix, thousands, decimal, lakh=lakh)
        found = bare_format._with_spelling([shape.strip() for shape, _, _ in same], sample)
        return [] if found is None else [Guess(found, others)]

    def _with_spelling(self, shapes: Sequence[str], sample: Sample) -> NumberFormat | None:
        """Return the format with the spaces, signs and decimals of a column; None if its words are
        codes with zeros before them."""
        of_shape = set(shapes)
        words = [
            w.strip()
            for w, s in zip(sample.words, sample.shapes, strict=True)
            if s.strip() in of_shape
        ]
        plain = not (self.prefix or self.suffix or self.thousands)
        if plain and any(re.match(rf"[+{MINUS}]?0\d+$", w) for w in words):
            return None
        matches = [m for shape in shapes if (m := SHAPE.fullmatch(shape))]
        whole = [m for w in words[:1000] if (m := SHAPE.fullmatch(w))]
        prefix = _commonest(m["prefix"] + m["gap"] for m in whole if m["prefix"])
        suffix = _commonest(m["suffix"] for m in whole if m["suffix"])
        return replace(self, prefix=prefix, suffix=suffix)._with_digits(matches, words)

    def _with_digits(self, matches: Sequence[re.Match[str]], words: Sequence[str]) -> NumberFormat:
        """Return the format with the signs and decimals of a column."""
        parts = [m["body"].rpartition(self.decimal) for m in matches]
        places = {len(last) if separator else 0 for _, separator, last in parts}
        exponents = {m["exponent"] for m in matches}
        negative, inner = "-", False
        for m in matches:
            sign = m["sign"] or m["inner"]
            if m["open"]:
                negative = "()"
            elif m["after"]:
                negative = "after"
            elif sign and sign != "+":
                negative, inner = sign, bool(m["inner"]) and bool(self.prefix)
        signs = [m["sign"] or m["inner"] or m["open"] for m in matches]
        plus = any(s == "+" for s in signs) and all(
            s or m["body"].strip("0.,") in ("", "9") for s, m in zip(signs, matches, strict=True)
        )
        found = replace(
            self, places=max(places), negative=negative, inner=inner, plus=plus, whole=places == {0}
        )
        if exponents != {None}:
            return found._with_exponents(words, None in exponents)
        if len(places) > 1:
            zeros = any(
                self.decimal in w and _digits_after(w, self.decimal).endswith("0") for w in words
            )
            all_zeros = any(
                self.decimal in w and not _digits_after(w, self.decimal).strip("0") for w in words
            )
            two = places == {0, max(places)}
            found = replace(found, brief="whole" if two and zeros and not all_zeros else "all")
        return found

    def _with_exponents(self, words: Sequence[str], mixed: bool) -> NumberFormat:
        """Return the format of numbers with exponents; `mixed` if some numbers have none."""
        if mixed:
            values = self.parse(words)
            whole = bool((values == np.rint(values)).all())
            places = 0 if whole else min(15, max(len(repr(v).partition(".")[2]) for v in values))
            return replace(self, places=places, brief="all", whole=whole)
        marks = [m for w in words if (m := re.search(r"([eE])([+-]?)(\d+)\D*$", w))]
        plus = "+" if any(m[2] == "+" for m in marks) else ""
        width = min(len(m[3]) for m in marks)
        mantissas = {len(_digits_after(re.split("[eE]", w)[0], self.decimal)) for w in words}
        return replace(
            self,
            exponent=f"{marks[0][1]}{plus}{width}",
            places=max(mantissas),
            brief="all" if len(mantissas) > 1 else "",
            whole=False,
        )


def _commonest(texts: Iterable[str]) -> str:
    """Return the most frequent text, or an empty one."""
    return next((text for text, _ in Counter(texts).most_common(1)), "")


def _trimmed(number: str) -> str:
    return number.rstrip("0").rstrip(".") if "." in number else number


def _digits_after(word: str, decimal: str) -> str:
    """Return the digits after the decimal separator."""
    match = re.match(r"\d+", word.rpartition(decimal)[2]) if decimal in word else None
    return match[0] if match else ""


def _grouped(digits: str, separator: str, *, lakh: bool) -> str:
    """Return digits with a separator of thousands."""
    if not lakh or len(digits) <= 3:
        return f"{int(digits):,}".replace(",", separator)
    head, tail = digits[:-3], digits[-3:]
    pairs = [head[max(0, i - 2) : i] for i in range(len(head), 0, -2)][::-1]
    return separator.join([*pairs, tail])


def _class(separator: str) -> str:
    """Return a pattern of a separator in its spellings."""
    if separator == " ":
        return f"[{SPACES}]"
    return f"[{APOSTROPHES}]" if separator in APOSTROPHES else re.escape(separator)


def _body(thousands: str, decimal: str, *, lakh: bool = False) -> str:
    """Return the pattern of digits with separators."""
    plain, point = r"\d+", re.escape(decimal)
    if thousands:
        t = _class(thousands)
        groups = rf"\d{{1,2}}(?:{t}\d{{2}})*{t}\d{{3}}" if lakh else rf"\d{{1,3}}(?:{t}\d{{3}})+"
        plain = rf"(?:{groups}|\d+)"
    return rf"(?:{plain}(?:{point}\d+)?|{point}\d+)"


def _around(match: re.Match[str]) -> tuple[str, str]:
    """Return the prefix and the suffix of a number without spaces."""
    return (match["prefix"] or "").strip(), match["suffix"].strip()


def _is_currency(text: str) -> bool:
    letters = text.strip().rstrip("".join(c for c in text if unicodedata.category(c) == "Sc"))
    return bool(text.strip()) and (not letters.strip() or letters.strip() in CURRENCIES.split())


def _plausible(match: re.Match[str]) -> bool:
    """Return whether what is before the digits can be a part of a number: a currency."""
    if (match["open"] is None) != (match["close"] is None):
        return False
    prefix = (match["prefix"] or "").strip()
    if not prefix:
        return True
    symbol = unicodedata.category(prefix[-1]) == "Sc"
    spaced = bool(match["gap"]) or not match["body"].isdigit()
    return _is_currency(prefix) and (symbol or spaced)


def _separators(
    bodies: Counter[str], sample: Sample, *, money: bool
) -> tuple[str, str, bool, str] | None:
    """Return the separators of thousands and decimals, whether digits are grouped as lakhs, and
    other separators that fit, in words.

    Args:
        bodies: the digits and separators of numbers, with 9 for each digit, and how often each
            occurs.
        sample: the column.
        money: whether the numbers have a currency.
    """
    fits = {
        pair: sum(n for body, n in bodies.items() if re.fullmatch(_body(*pair), body))
        for pair in SEPARATORS
    }
    lakh = re.compile(_body(",", ".", lakh=True))
    indian = sum(n for body, n in bodies.items() if lakh.fullmatch(body))
    most = max(fits.values())
    if indian > most:
        return ",", ".", True, ""
    best = [pair for pair in SEPARATORS if fits[pair] == most]
    if not most:
        return None
    if ("", ".") in best and ("", ",") in best:  # no separators at all
        return "", "," if sample.comma else ".", False, ""
    if (",", ".") in best and ("", ",") in best:
        return _doubtful(",", bodies, sample, thousands=True)
    if ("", ".") in best and (".", ",") in best:
        return _doubtful(".", bodies, sample, thousands=money)
    thousands, decimal = next((pair for pair in best if sample.comma and pair[1] == ","), best[0])
    if thousands == "'" and any("\u2019" in body for body in bodies):
        thousands = "\u2019"
    if thousands == " ":
        thousands = next((c for c in SPACES if any(c in body for body in bodies)), " ")
    return thousands, decimal, False, ""


def _doubtful(
    mark: str, bodies: Iterable[str], sample: Sample, *, thousands: bool
) -> tuple[str, str, bool, str]:
    """Return what a separator is that is always before three digits.

    Args:
        mark: the separator, "," or ".".
        bodies: the digits with separators.
        sample: the column.
        thousands: whether it separates thousands if nothing else decides.
    """
    if sample.comma is not None:
        thousands = sample.comma == (mark == ".")
    long = any(len(body) > 3 and mark not in body for body in bodies)
    zero = re.compile(rf"(?:^|\D)0{re.escape(mark)}\d")
    sure = sample.comma is not None
    if long or any(zero.search(word) for word in sample.words):
        thousands, sure = False, True
    decimal = {",": ".", ".": ","}[mark]
    others = (
        ""
        if sure
        else f"decimal={'comma' if (mark == ',') == thousands else 'point'} reads {mark} "
        f"{'as the decimal point' if thousands else 'as a separator of thousands'}"
    )
    return (mark, decimal, False, others) if thousands else ("", mark, False, others)
