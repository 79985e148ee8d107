"""Strings that a person writes or reads: the parser of `name:key=value,...`, quotes, nearest names,
numbers and durations in words.

`parse` is the only parser of option strings in the package. This module does not import torch.
"""

from __future__ import annotations

import difflib
import math
import re
import shlex
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

Value = bool | int | float | str | None
SHOWN = 12  # largest number of names in a message; of a longer list, the five nearest are named
# The name ends at the first colon that is followed by `key=`.
_SPEC = re.compile(r'(.*?):(?=[^:=/",]*=)(.*)', re.DOTALL)
_QUOTED = re.compile(r'"([^"]|"")*"')

# marks of the writing direction, which can show a name as another one
DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class InputError(ValueError):
    """Report wrong input to the user, without a traceback on the command line.

    The message says what is wrong, where, and what to type instead. A ValueError whose message
    begins with "expected" is reported in the same way.
    """


def is_input_error(error: BaseException) -> bool:
    """Return whether an error reports wrong input to the user.

    Example:
        >>> is_input_error(InputError("the test split of mnist is empty"))
        True
        >>> is_input_error(ValueError("operands could not be broadcast together"))
        False
    """
    expected = isinstance(error, ValueError) and str(error).startswith("expected")
    return expected or isinstance(error, InputError)


class Spec(NamedTuple):
    """Hold a name and its options, such as `gaussian:variance=pixel,version=1`.

    Args:
        name: the text before the options. It may contain colons, such as `my_module:MyClass`.
        options: the values by key, parsed as YAML scalars.

    Example:
        >>> str(Spec("gaussian", {"variance": "pixel", "version": 1}))
        'gaussian:variance=pixel,version=1'
    """

    name: str
    options: dict[str, Value]

    def __str__(self) -> str:
        pairs = ",".join(f"{key}={_written(value)}" for key, value in self.options.items())
        return f"{self.name}:{pairs}" if pairs else self.name


def parse(text: str, names: Collection[str] = ()) -> Spec:
    """Return the name and the options of `name:key=value,key=value`.

    The name ends at the first colon that is followed by `key=`. Values are parsed as YAML scalars,
    and otherwise kept as text. A comma in double quotes is a part of the value. A hyphen in a key
    is read as an underscore.

    Args:
        text: what was written.
        names: keys whose values are names. These values remain text, with their quotes;
            `split_names` parses them.

    Raises:
        ValueError: a piece is not key=value, a key is repeated, or a quote is not closed.

    Example:
        >>> parse("normal:min-rate=0.1")
        Spec(name='normal', options={'min_rate': 0.1})
        >>> parse("my_module:MyClass:width=30").name
        'my_module:MyClass'
    """
    match = _SPEC.fullmatch(text)
    name, rest = match.groups() if match else (text.removesuffix(":"), "")
    if rest.count('"') % 2:
        raise ValueError(f"expected closed quotes in options; got {rest!r}")
    options: dict[str, Value] = {}
    for piece in filter(None, _split(rest, ",")):
        key, equals, value = piece.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key.isidentifier():
            raise ValueError(f"expected options as key=value,key=value; got {piece!r}")
        if key in options:
            raise ValueError(f"expected each option once; got {key} twice")
        options[key] = value.strip() if key in names else _read(value)
    return Spec(name, options)


def parse_path(text: str, names: Collection[str] = ()) -> Spec:
    """Return the path and the options of `path:key=value,...`. If a file has exactly this name,
    there are no options.

    Args:
        text: what was written.
        names: keys whose values are names, as for `parse`.

    Raises:
        ValueError: the options are malformed.

    Example:
        >>> parse_path("s3://bucket/date=2026/x.tar:size=64")
        Spec(name='s3://bucket/date=2026/x.tar', options={'size': 64})
    """
    return Spec(text, {}) if Path(text).exists() else parse(text, names)


def split_specs(text: str) -> list[str]:
    """Return the pieces of `a,b:key=value,key=value`: a piece `key=value` belongs to the name
    before it.

    Example:
        >>> split_specs("elbo,ais:chains=16,temperatures=100")
        ['elbo', 'ais:chains=16,temperatures=100']
    """
    specs: list[str] = []
    for piece in filter(None, (p.strip() for p in _split(text, ","))):
        if "=" in piece.partition(":")[0] and specs:
            specs[-1] += ("," if ":" in specs[-1] else ":") + piece
        else:
            specs.append(piece)
    return specs


def parse_pair(text: str) -> tuple[str, str] | None:
    """Return name and value of `NAME=VALUE`, or None if the text is not such a pair. The name may
    be in double quotes.

    Example:
        >>> parse_pair('"a=b"=3')
        ('a=b', '3')
    """
    match = re.match(r'("(?:[^"]|"")*")=', text)
    name, equals, value = (match[1], "=", text[match.end() :]) if match else text.partition("=")
    name = unquoted(name)
    return (name, value) if equals and name else None


def _read(value: str) -> Value:
    """Return the value of an option by its YAML type."""
    value = value.strip()
    if _QUOTED.fullmatch(value):
        return unquoted(value)
    try:
        scalar = yaml.safe_load(value) if value else ""
    except (yaml.YAMLError, ValueError):
        return value
    if scalar is None or isinstance(scalar, (bool, int, float)):
        return scalar
    number = as_number(value)  # YAML reads 1e-3 as text
    return value if number is None else number


def _written(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    if value is None:
        return "none"
    text = str(value)
    return quoted(text) if len(_split(text, ",")) > 1 else text


def _split(text: str, at: str) -> list[str]:
    """Split a text at a character, except in double quotes."""
    return [
        piece.replace("\0", at)
        for piece in re.sub(r'"[^"]*"', lambda m: m[0].replace(at, "\0"), text).split(at)
    ]


def as_number(text: object) -> float | None:
    """Return a text as a number, or None if it is no number.

    Example:
        >>> as_number("1e-3"), as_number("pixel")
        (0.001, None)
    """
    try:
        return float(str(text))
    except ValueError:
        return None


# -- names -----------------------------------------------------------------------------------------


def split_names(text: str) -> list[str]:
    """Return the names in a text that joins them by +. In a name in double quotes, "" means one
    quote.

    Example:
        >>> split_names('a+"b, c"')
        ['a', 'b, c']
    """
    return [unquoted(piece) for piece in _split(text, "+")]


def unquoted(name: str) -> str:
    """Return a name without the double quotes around it.

    Example:
        >>> unquoted('"b, c"')
        'b, c'
    """
    return name[1:-1].replace('""', '"') if _QUOTED.fullmatch(name) else name


def quoted(name: str) -> str:
    """Return a name as options accept it, in double quotes if it needs them.

    Example:
        >>> quoted("age"), quoted("b, c")
        ('age', '"b, c"')
    """
    return (
        name
        if re.fullmatch(r"[^\s,+:=\"]([^,+:=\"]*[^\s,+:=\"])?", name)
        else '"' + name.replace('"', '""') + '"'
    )


def typed(key: str, names: str | Sequence[str]) -> str:
    """Return an option whose value is one or several names as it is typed in a shell.

    Args:
        key: the option.
        names: its value.

    Example:
        >>> print(typed("ignore", ["age", "sex"]), typed("ignore", ["b, c"]))
        ignore=age+sex 'ignore="b, c"'
    """
    names = [names] if isinstance(names, str) else names
    return shlex.quote(f"{key}={'+'.join(map(quoted, names))}")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a phrase with the known names, the nearest one first. For long lists of names, pass
    `few(name, names)`.

    Example:
        >>> nearest("wramup", ["constant", "warmup"])
        "'warmup' (one of constant, warmup)"
    """
    names = list(names)
    close = difflib.get_close_matches(name, names, 1, 0.4)
    return f"{close[0]!r} (one of {', '.join(names)})" if close else f"one of {', '.join(names)}"


def few(name: str, names: Collection[str]) -> Collection[str]:
    """Return the names to list in a message: all of them, or the nearest five of many.

    Example:
        >>> few("x3", ["x1", "x2", "x3"])
        ['x1', 'x2', 'x3']
    """
    return names if len(names) <= SHOWN else difflib.get_close_matches(name, names, 5, 0.0)


# -- sentences -------------------------------------------------------------------------------------


def article(noun: str) -> str:
    """Return a noun with its indefinite article.

    Example:
        >>> article("objective"), article("prior")
        ('an objective', 'a prior')
    """
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"


def alternatives(words: Sequence[str]) -> str:
    """Join words by commas and "or".

    Example:
        >>> alternatives(["auto", "on", "off"])
        'auto, on or off'
    """
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def duration(seconds: float) -> str:
    """Return a time in words.

    Example:
        >>> duration(42), duration(200), duration(7500)
        ('42 s', '3 min 20 s', '2 h 05 min')
    """
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    if seconds < 5400:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def visible(text: str) -> str:
    """Return a text whose control characters are escaped, so that a name in a file cannot control a
    terminal. Marks of the writing direction and bytes that are not UTF-8 are escaped too.

    >>> print(visible("a\x1b[2Jb \u202ec"))
    a\\x1b[2Jb \\u202ec
    """
    return "".join(
        c.encode("unicode_escape").decode()
        if c in DIRECTIONS or (c != "\n" and unicodedata.category(c) in ("Cc", "Cs"))
        else c
        for c in text
    )


def brief(value: float, digits: int = 4) -> str:
    """Return a number to some digits, without an exponent if it is in 0.0001 .. 10^9.

    >>> brief(20040.12), brief(0.5), brief(-3.14159), brief(2e12)
    ('20,040', '0.5', '-3.142', '2e+12')
    """
    if not value or not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def one_line(error: BaseException) -> str:
    """Return the message of a library's error as one line of at most 120 characters.

    Example:
        >>> one_line(ValueError("first\\nsecond"))
        'first'
    """
    return (str(error) or type(error).__name__).splitlines()[0][:120]
