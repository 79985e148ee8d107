"""One option of training: its type, its default and its check. Torch is not imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Literal, final

from vaestro.signatures import checked
from vaestro.text import Value, alternatives, as_number

Group = Literal["data", "model", "objective", "training"]
Setting = Value | list[str]


@final
@dataclass(frozen=True)
class Option:
    """Describe one option of training.

    Args:
        name: in Python and YAML; on the command line with hyphens.
        kind: its type: bool, int, float, str, or a union of these.
        group: the function that reads it. `build` and `training` receive every option of the groups
            "model" and "training" by name.
        help: its meaning, in sentences.
        default: the value if it is not given; None if the value then depends on other things.
        otherwise: in words, the value if it is not given and the default is None.
        aliases: other names.
        values: the only values that it can have.
        former: values of earlier versions, each with the value that replaced it.
        metavar: what the command's help shows for the value.
        repeatable: whether it is a list of values.
        resumable: whether `--resume` may change it.

    Example:
        >>> Option("k", int, "objective", "Draws of z.", default=1).checked("5")
        5
    """

    name: str
    kind: type | UnionType
    group: Group
    help: str
    default: Value = None
    otherwise: str = ""
    aliases: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    former: tuple[tuple[str, str], ...] = ()
    metavar: str = ""
    repeatable: bool = False
    resumable: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """Return the option as the command line has it, its aliases included."""
        return tuple(f"--{name.replace('_', '-')}" for name in (self.name, *self.aliases))

    @property
    def hint(self) -> object:
        """Return the type of its argument in Python."""
        kind = str | list[str] if self.repeatable else self.kind
        return kind if self.default is not None else kind | None

    @property
    def in_default(self) -> str:
        """Return the default in words; "" if there is none."""
        if self.default is None:
            return self.otherwise
        return "" if self.default is False else str(self.default).removesuffix(".0")

    @property
    def sentences(self) -> str:
        """Return its meaning, and whether it may be repeated."""
        return f"{self.help} May be repeated." if self.repeatable else self.help

    def checked(self, value: object) -> Setting:
        """Return a value that was written in YAML, Python or on the command line, as its own type.

        Raises:
            ValueError: the value is of another type, or not one of its values.
        """
        if self.repeatable:
            return self._listed(value)
        if isinstance(value, Path):
            value = str(value)
        if isinstance(value, bool) and {"on", "off"} <= set(self.values):
            value = "on" if value else "off"  # YAML reads on and off as truth values
        if isinstance(value, str) and self.kind in (int, float):
            number = as_number(value)  # YAML reads 1e-3 as text
            value = value if number is None else number
        typed = checked(self.name, value, self.kind)
        typed = dict(self.former).get(typed, typed) if isinstance(typed, str) else typed
        if self.values and typed not in self.values:
            raise ValueError(f"expected {self.name} {alternatives(self.values)}; got {typed}")
        return typed

    def _listed(self, value: object) -> list[str] | None:
        names = [value] if isinstance(value, str) else value
        if names is None or names == () or names == []:
            return None
        if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
            raise ValueError(f"expected {self.name} to be a name or a list of names; got {value!r}")
        return list(names)
