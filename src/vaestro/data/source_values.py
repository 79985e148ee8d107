"""The values that options of a source take."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from typing import final

from vaestro.text import Value, split_names

SPELLINGS = {"gray": "grey", "color": "colour", "centre": "center"}


class Values(ABC):
    """Describe the values that an option takes; `named` says whether they are names, which keep
    their quotes."""

    named = False

    @abstractmethod
    def __str__(self) -> str:
        """Return the values in words."""

    @abstractmethod
    def checked(self, name: str, value: Value) -> Value:
        """Return a value in its usual spelling.

        Raises:
            ValueError: the option `name` cannot have this value.
        """


@final
class Choice(Values):
    """Describe a choice between words.

    >>> Choice("grey", "colour").checked("channels", "gray")
    'grey'
    """

    def __init__(self, *words: str) -> None:
        self.words = words

    def __str__(self) -> str:
        return " or ".join(filter(None, [", ".join(self.words[:-1]), self.words[-1]]))

    def checked(self, name: str, value: Value) -> Value:
        value = SPELLINGS.get(str(value), value)
        if value not in self.words:
            raise ValueError(f"expected {name} to be {self}; got {value!r}")
        return value


@final
class Truth(Values):
    """Describe a truth value.

    >>> Truth().checked("strict", True)
    True
    """

    def __str__(self) -> str:
        return "true or false"

    def checked(self, name: str, value: Value) -> Value:
        if not isinstance(value, bool):
            raise ValueError(f"expected {name} to be {self}; got {value!r}")
        return value


@final
class Number(Values):
    """Describe a whole number of 0 or more; `what` says of what.

    >>> str(Number("a number of rows"))
    'a number of rows'
    """

    def __init__(self, what: str = "a number") -> None:
        self.what = what

    def __str__(self) -> str:
        return self.what

    def checked(self, name: str, value: Value) -> Value:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"expected {name} to be a whole number of 0 or more; got {value!r}")
        return value


@final
class Limit(Values):
    """Describe a number, or "none".

    >>> Limit().checked("low", -80), Limit().checked("low", "none")
    (-80, 'none')
    """

    def __str__(self) -> str:
        return "a number, or none"

    def checked(self, name: str, value: Value) -> Value:
        number = isinstance(value, int | float) and math.isfinite(value)
        if value != "none" and (not number or isinstance(value, bool)):
            raise ValueError(f"expected {name} to be {self}; got {value!r}")
        return value


class _Unchecked(Values):
    """Describe values that the reader checks, in words."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __str__(self) -> str:
        return self.what

    def checked(self, name: str, value: Value) -> Value:
        return value


@final
class Name(_Unchecked):
    """Describe names of columns or arrays, which the reader checks.

    >>> Name("a column").named
    True
    """

    named = True


@final
class Series(Values):
    """Describe a truth value, or the columns of a long table, which the reader checks.

    >>> Series().checked("series", "true"), Series().checked("series", "unit:cycle")
    (True, 'unit:cycle')
    """

    named = True

    def __str__(self) -> str:
        return "true, or columns of a long table: GROUP:ORDER, GROUP or :ORDER"

    def checked(self, name: str, value: Value) -> Value:
        if isinstance(value, bool):
            return value
        text = "" if value is None else str(value)
        if not text:
            raise ValueError(f"expected {name} to be {self}; got nothing")
        return {"true": True, "false": False}.get(text.lower(), text)


@final
class Words(_Unchecked):
    """Describe other values, which the reader checks.

    >>> str(Words("64, or 48x64 (height x width)"))
    '64, or 48x64 (height x width)'
    """


@final
class Absent(Values):
    """Describe the values that mean a missing cell; see `missing_values`.

    >>> Absent().checked("missing", -9999), Absent().checked("missing", "NaN+1e+20")
    ('-9999', 'nan+1e20')
    """

    def __str__(self) -> str:
        return "nan, inf, a number or a word; several joined by +"

    def checked(self, name: str, value: Value) -> Value:
        if isinstance(value, bool) or not (words := missing_values(value)):
            raise ValueError(f"expected {name} to be {self}; got {value!r}")
        return "+".join(words)


def missing_values(value: Value) -> tuple[str, ...]:
    """Return the values in missing=, as text. "nan" is NaN, and "inf" infinity of both signs.

    >>> missing_values("nan+-9999"), missing_values(1e20)
    (('nan', '-9999'), ('1e20',))
    """
    if value is None:
        return ()
    # the plus of an exponent joins nothing
    text = re.sub(r"(?<=[0-9.][eE])\+(?=[0-9])", "", str(value))
    words = [re.sub(r"\.0$", "", word.strip()) for word in split_names(text)]
    same = {"nan": "nan", "inf": "inf", "-inf": "inf", "+inf": "inf", "infinity": "inf"}
    return tuple(dict.fromkeys(same.get(word.lower(), word) for word in words if word))


@final
class TruthOrAxis(Values):
    """Describe a truth value, or the number of an axis of an array.

    >>> TruthOrAxis().checked("onehot", -1)
    -1
    """

    def __str__(self) -> str:
        return "true or false, or the number of an axis (the rows are axis 0)"

    def checked(self, name: str, value: Value) -> Value:
        if not isinstance(value, int) or (value == 0 and not isinstance(value, bool)):
            raise ValueError(f"expected {name} to be {self}; got {value!r}")
        return value
