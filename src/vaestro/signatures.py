"""The options of a constructor: its keyword-only arguments, with their types and defaults.

This module does not import torch.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypedDict

from vaestro.text import Value

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class Argument(NamedTuple):
    """Hold the type of an option and its default; the default is None if there is none."""

    hint: object
    default: Value


def options_of(constructor: Callable[..., object]) -> dict[str, Argument]:
    """Return the keyword-only arguments of a constructor by name.

    Example:
        >>> def warmup(*, share: float = 0.1) -> None: ...
        >>> options_of(warmup)
        {'share': Argument(hint=<class 'float'>, default=0.1)}
    """
    return {
        p.name: Argument(
            Any if p.annotation is p.empty else p.annotation,
            None if p.default is p.empty else p.default,
        )
        for p in _keyword_only(constructor)
    }


def required_options(constructor: Callable[..., object]) -> set[str]:
    """Return the names of the keyword-only arguments that have no default.

    Example:
        >>> def geco(*, target: float, decay: float = 0.99) -> None: ...
        >>> required_options(geco)
        {'target'}
    """
    return {p.name for p in _keyword_only(constructor) if p.default is p.empty}


def _keyword_only(constructor: Callable[..., object]) -> list[inspect.Parameter]:
    parameters = inspect.signature(constructor, eval_str=True).parameters.values()
    return [p for p in parameters if p.kind is p.KEYWORD_ONLY]


class Entry(TypedDict):
    """Describe a constructor for programs; `needed` are its options without a default."""

    name: str
    options: dict[str, Value]
    needed: list[str]
    summary: str


def entry_of(name: str, constructor: Callable[..., object]) -> Entry:
    """Return the description of a constructor.

    Example:
        >>> def warmup(*, share: float = 0.1) -> None: "Raise a weight from 0."
        >>> entry_of("warmup", warmup)["summary"]
        'Raise a weight from 0.'
    """
    return {
        "name": name,
        "options": {key: known.default for key, known in options_of(constructor).items()},
        "needed": sorted(required_options(constructor)),
        "summary": (inspect.getdoc(constructor) or "").split("\n\n")[0].replace("\n", " "),
    }


def checked(name: str, value: object, hint: object) -> Value:
    """Return a value as the type of an argument.

    Args:
        name: of the argument, for the message.
        value: the value.
        hint: bool, int, float, str, None, a Literal of these, or a union of such types.

    Raises:
        ValueError: the value is of another type.

    Example:
        >>> checked("k", 5.0, int), checked("share", 1, float | None)
        (5, 1.0)
    """
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    words: list[str] = []
    for choice in typing.get_args(hint) if union else (hint,):
        if typing.get_origin(choice) is Literal:
            literals = typing.get_args(choice)
            words += map(repr, literals)
            if value in literals:
                return typing.cast(Value, value)
        elif choice is Any or (choice is bool and isinstance(value, bool)):
            return typing.cast(Value, value)
        elif choice is type(None) and value in (None, "none"):
            return None
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            if choice is int and float(value).is_integer():
                return int(value)
            if choice is float:
                return float(value)
        if choice is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return str(value)
        if isinstance(choice, type) and choice in WORDS:
            words.append(WORDS[choice])
    raise ValueError(f"expected {name} to be {' or '.join(words)}; got {value!r}")
