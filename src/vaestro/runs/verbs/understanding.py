"""The verbs probe, units and disentangle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vaestro.runs.verbs.base import Verbs

if TYPE_CHECKING:
    from vaestro.latent import Disentanglement, Probes, UnitTable
    from vaestro.runs.sources import Source


class UnderstandVerbs(Verbs):
    """Find out what codes and units mean."""

    def probe(
        self,
        attributes: str | Sequence[str] | None = None,
        *,
        data: Source | None = None,
        table: str | Path | None = None,
        labels: int = 100,
        draws: int = 5,
        seed: int = 0,
    ) -> Probes:
        """Predict attributes from codes, raw data and PCA, and write probes.json; see
        `latent.probes`.

        Args:
            attributes: their names; by default all.
            data: other data of the same kind with attributes. Two thirds of the rows fit the
                probes, the others score them.
            table: a table of attributes with a row for each row of the data, in order.
            labels, draws: number of labels of the small draws, and of draws.
            seed: of the draws.

        Raises:
            ValueError: the data have no attributes, or not these; or the model has no latent.
        """
        from vaestro.runs import understanding

        names = [attributes] if isinstance(attributes, str) else attributes
        return understanding.probe(
            self.session, names, data, table, labels=labels, draws=draws, seed=seed
        )

    def units(self, names: Mapping[int, str] | None = None) -> UnitTable:
        """Describe each unit, and write units.json: rate, activity, role, correlations with all
        attributes, and the rows at its extremes; see `latent.units`.

        Args:
            names: {unit: name} to add to the names in units.json; "" removes one.

        Raises:
            ValueError: the model has no latent, or there is no such unit.
        """
        from vaestro.runs import understanding

        return understanding.units(self.session, names)

    def disentangle(
        self,
        factors: Sequence[str] | None = None,
        *,
        data: Source | None = None,
        table: str | Path | None = None,
        repeats: int = 10,
        seed: int = 0,
    ) -> Disentanglement:
        """Measure how the units contain the factors of the data, and write disentanglement.json;
        see `latent.disentangle`.

        Args:
            factors: names of attributes; by default all.
            data, table: see `probe`.
            repeats: number of random halves of the rows from which intervals are estimated.
            seed: of the random choices.

        Raises:
            ValueError: the data have no such attributes, or too few rows; or the model has no
                latent.
        """
        from vaestro.runs import understanding

        return understanding.disentangle(
            self.session, factors, data, table, repeats=repeats, seed=seed
        )
