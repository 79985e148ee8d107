"""How series were read from a long table, in which each row is a step, or cut into windows: what is
needed to read other data in the same way, and to write series as such a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np

from vaestro.text import quoted


@final
@dataclass(frozen=True)
class LongTable:
    """Describe a long table, or with neither group nor order series that were read otherwise.

    Args:
        group: the column that names the series of a row; "" if the table is one series.
        order: the column that orders the rows of a series; "" for the order of the rows.
        kind: NumPy dtype of the order column; "" without one, or if its steps are irregular.
        first: the value of the order column at which most series begin; for dates in `unit`s since
            1970.
        step: the distance between two steps in the same unit; 0 if steps are irregular.
        dtypes: NumPy dtypes of the channels.
        window, stride: steps of a window, and between the starts of two; 0 if series are whole.
        columns: all columns, in the order of the table.
        constants: columns that are the same in all rows, with their value.

    >>> LongTable("unit", "cycle").option
    'unit:cycle'
    """

    group: str
    order: str = ""
    kind: str = ""
    first: float = 0.0
    step: float = 0.0
    dtypes: tuple[str, ...] = ()
    window: int = 0
    stride: int = 0
    columns: tuple[str, ...] = ()
    constants: tuple[tuple[str, float], ...] = ()

    @property
    def option(self) -> str:
        """Return the columns as the value of the option `series`."""
        group = quoted(self.group) if self.group else ""
        return f"{group}:{quoted(self.order)}" if self.order else group

    @property
    def options(self) -> dict[str, str | int]:
        """Return the options of a source with which a table is read in the same way."""
        cut: dict[str, str | int] = (
            {"window": self.window, "stride": self.stride} if self.window else {}
        )
        return {"series": self.option or True, **cut}

    def order_values(self, first: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Return the values of the order column at some steps.

        Args:
            first: the value at the first step of each series, in the user's units, (...,).
            steps: how many steps later, (...,).
        """
        if not self.step:
            return steps
        if self.kind.startswith("datetime64"):
            apart = (steps * self.step).astype(f"timedelta64[{np.datetime_data(self.kind)[0]}]")
            return np.asarray(first + apart)
        values = first + steps * self.step
        return np.rint(values).astype(self.kind) if np.dtype(self.kind).kind in "iu" else values

    def scalars(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)

    @classmethod
    def restored(cls, scalars: Mapping[str, Any]) -> LongTable:
        """Return a description from `scalars()`.

        >>> LongTable.restored(LongTable("unit", "cycle").scalars()).order
        'cycle'
        """
        names = {n: tuple(scalars[n]) for n in ("dtypes", "columns")}
        constants = tuple((name, value) for name, value in scalars["constants"])
        return cls(**{**scalars, **names, "constants": constants})
