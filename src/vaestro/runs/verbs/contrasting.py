"""The verb contrast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaestro.runs.verbs.base import Verbs
from vaestro.text import InputError, nearest, quoted

if TYPE_CHECKING:
    from vaestro.latent import Contrast
    from vaestro.runs.sources import Conditions, Source


class ContrastVerbs(Verbs):
    """Compare groups of data."""

    def contrast(
        self,
        source: Source,
        attribute: str,
        first: str,
        second: str,
        *,
        delta: float = 0.25,
        level: float = 0.05,
        draws: int = 200,
        split: str | None = None,
        condition: Conditions = None,
        decode_condition: Conditions = None,
        seed: int = 0,
    ) -> Contrast:
        """Compare data with two values of an attribute; see `latent.contrast`."""
        import numpy as np

        from vaestro import latent

        session = self.session
        model, rows = session.model, session.rows(source, split, condition).fixed()
        values = latent.attributes(rows)
        if rows.given is not None and rows.given_space is not None:
            given = rows.given_space.outward(rows.given).columns
            values |= {name: np.asarray(column.data) for name, column in given.items()}
        if attribute not in values:
            raise ValueError(
                f"expected an attribute of the data: "
                f"{nearest(attribute, values) if values else 'there are none'}; got {attribute!r}"
            )
        texts = values[attribute].astype(str)
        if first == second:
            raise ValueError(f"expected two different groups; got {first!r} twice")
        groups = [np.flatnonzero(texts == value) for value in (first, second)]
        for value, group in zip((first, second), groups, strict=True):
            if not len(group):
                names = np.unique(texts[texts != ""])[:12].tolist()
                raise InputError(
                    f"no row has {quoted(attribute)}={quoted(value)}: it is {nearest(value, names)}"
                )
        return latent.contrast(
            model,
            rows,
            *groups,
            delta=delta,
            level=level,
            draws=draws,
            decoded=latent.with_conditions(model, rows, decode_condition or {}),
            seed=seed,
        )
