"""The verbs interpolate and edit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaestro.runs.returning import as_given
from vaestro.runs.verbs.base import Verbs

if TYPE_CHECKING:
    from vaestro.densities import Decoding
    from vaestro.latent import Direction, UserData
    from vaestro.runs.sources import Conditions, Source


class MoveVerbs(Verbs):
    """Move codes in the latent space, and decode them."""

    def interpolate(
        self,
        source: Source,
        i: int,
        j: int,
        *,
        steps: int = 9,
        path: str = "linear",
        split: str | None = None,
        condition: Conditions = None,
        decoding: Decoding | None = None,
        dtype: str | None = None,
    ) -> UserData:
        """Decode codes on a path from row i to row j, including both ends; see
        `latent.interpolate`."""
        from vaestro import latent

        session = self.session
        rows = session.rows(source, split, condition)
        return latent.interpolate(
            session.model, rows, i, j, steps=steps, path=path, decoding=decoding, dtype=dtype
        )

    def edit(
        self,
        source: Source,
        attribute: str | Direction,
        amount: float = 1.0,
        *,
        split: str | None = None,
        condition: Conditions = None,
        decoding: Decoding | None = None,
        dtype: str | None = None,
    ) -> UserData:
        """Move the code of each datum along the direction of an attribute, and decode it; see
        `latent.edit`.

        Args:
            source, split, condition: the data to edit; see `rows`.
            attribute: NAME, NAME=VALUE, or a direction.
            amount: 1 moves to data with the value, or by one unit of a number.
            decoding, dtype: see `decode`.
        """
        from vaestro import latent

        session = self.session
        rows = session.rows(source, split, condition)
        along = session.direction(rows, attribute) if isinstance(attribute, str) else attribute
        data = latent.edit(
            session.model, rows, along, amount, decoding=decoding, dtype=dtype, codes=session.codes
        )
        return as_given(source, data)
