"""The verbs interpolate, edit, traverse, neighbours and analogy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vaestro.runs.returning import as_given
from vaestro.runs.verbs.base import Verbs

if TYPE_CHECKING:
    from vaestro.densities import Decoding
    from vaestro.latent import Direction, Neighbours, UserData
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

    def traverse(
        self,
        units: Sequence[int] | None = None,
        *,
        source: Source | None = None,
        row: int = 0,
        reach: float = 3.0,
        steps: int = 9,
        split: str | None = None,
        condition: Conditions = None,
        decoding: Decoding | None = None,
        dtype: str | None = None,
    ) -> dict[int, UserData]:
        """Decode codes in which one unit at a time takes several values: {unit: data}, in the
        user's layout and units; see `latent.traverse`.

        Args:
            units: numbers of units, of channels for grids, or of one-hot groups; by default the 8
                with the largest rates.
            source: the data whose row `row` is moved; by default the run's held-out data.
            row: its number, from 0.
            reach: in standard deviations of the codes.
            steps: number of values of a real unit.
            split, condition: see `rows`.
            decoding, dtype: see `decode`.

        Raises:
            ValueError: there is no such unit or row, or the model has no latent.
        """
        from vaestro.runs import moving

        return moving.traverse(
            self.session,
            units,
            moving.Start(source, row, split, condition),
            reach=reach,
            steps=steps,
            decoding=decoding,
            dtype=dtype,
        )[1]

    def neighbours(
        self,
        source: Source,
        i: int,
        *,
        k: int = 10,
        among: Source | None = None,
        metric: str = "euclidean",
        split: str | None = None,
        condition: Conditions = None,
    ) -> Neighbours:
        """Find the data whose codes are nearest to that of row i; see `latent.nearest`.

        Args:
            source: the data.
            i: the row number, from 0.
            k: number of neighbours.
            among: the data to search; by default the other rows of `source`.
            metric: "euclidean" or "posterior".
            split, condition: see `rows`, of both sources.

        Raises:
            ValueError: there is no such row, k is out of range, or the metric does not apply.
        """
        from vaestro.runs import moving

        return moving.neighbours(
            self.session,
            source,
            i,
            k=k,
            among=among,
            metric=metric,
            split=split,
            condition=condition,
        )

    def analogy(
        self,
        source: Source,
        a: int,
        b: int,
        c: int,
        *,
        split: str | None = None,
        condition: Conditions = None,
        decoding: Decoding | None = None,
        dtype: str | None = None,
    ) -> UserData:
        """Decode the code of row a minus that of row b plus that of row c: one datum, in the user's
        layout and units (Larsen et al. 2016).

        Args:
            source: the data.
            a, b, c: row numbers, from 0. The conditions are those of row c.
            split, condition: see `rows`.
            decoding, dtype: see `decode`.

        Raises:
            ValueError: there is no such row, or the latents are discrete.
        """
        from vaestro.runs import moving

        rows = self.session.rows(source, split, condition)
        data = moving.analogy(self.session, rows, (a, b, c), decoding=decoding, dtype=dtype)[0]
        return as_given(source, data)
