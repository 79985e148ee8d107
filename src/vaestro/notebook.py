"""How objects show themselves: HTML in notebooks, and lines in a terminal.

The HTML has no colours of its own, so that it is readable in light and dark notebooks. All text is
escaped. Torch is not imported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import final

from vaestro.text import visible

_BOX = "border:1px solid rgba(128,128,128,.5);border-radius:6px;padding:.6em .9em;"
_STYLE = f"{_BOX}display:inline-block;max-width:60em;color:inherit;background:transparent"
_TABLE = "border:0;margin-top:.4em;color:inherit;font:inherit"
_CELL = "text-align:{};padding:.1em .8em .1em 0;background:transparent;color:inherit"


@final
@dataclass(frozen=True)
class Card:
    """Hold what is shown of an object.

    Args:
        title: the object in a few words.
        lines: sentences.
        header: of the table; () for none.
        rows: of the table, each with as many cells as the header.

    >>> print(Card("Data", ("90 rows",), ("a",), (("1",),)).text())
    Data
      90 rows
      a
      1
    """

    title: str
    lines: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    def text(self) -> str:
        """Return the card as lines."""
        table = [self.header, *self.rows] if self.header else []
        widths = [max(len(row[i]) for row in table) for i in range(len(self.header))]
        lines = [
            "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return visible("\n".join([self.title, *(f"  {line}" for line in [*self.lines, *lines])]))

    def html(self) -> str:
        """Return the card as HTML."""
        parts = [f"<b>{_escaped(self.title)}</b>"]
        parts += [f"<div>{_escaped(line)}</div>" for line in self.lines]
        if self.header:
            cells = [_row(self.header, "th"), *(_row(row, "td") for row in self.rows)]
            parts.append(f'<table style="{_TABLE}">{"".join(cells)}</table>')
        return f'<div style="{_STYLE}">{"".join(parts)}</div>'


def _row(cells: Sequence[str], tag: str) -> str:
    """Return a row of a table; the first column is aligned to the left."""
    style = (_CELL.format("left" if i == 0 else "right") for i in range(len(cells)))
    inner = (
        f'<{tag} style="{how}">{_escaped(cell)}</{tag}>'
        for cell, how in zip(cells, style, strict=True)
    )
    return f'<tr style="background:transparent">{"".join(inner)}</tr>'


def _escaped(text: str) -> str:
    return escape(visible(text))


class Shown(ABC):
    """Show an object by its card.

    >>> from vaestro.frames import Frame
    >>> issubclass(Frame, Shown)
    True
    """

    @abstractmethod
    def card(self) -> Card:
        """Return what is shown of the object."""

    def __repr__(self) -> str:
        return self.card().text()

    def _repr_html_(self) -> str:
        return self.card().html()
