"""The verb cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaestro.runs.verbs.base import Verbs

if TYPE_CHECKING:
    from vaestro.latent import Clusters
    from vaestro.runs.sources import Conditions, Source


class GroupVerbs(Verbs):
    """Group data by their codes."""

    def cluster(
        self,
        source: Source | None = None,
        *,
        clusters: int | None = None,
        split: str | None = None,
        condition: Conditions = None,
        seed: int = 0,
    ) -> Clusters:
        """Cluster the codes of data by Gaussian mixtures; see `latent.cluster`.

        Args:
            source: the data; by default the training data of the run.
            clusters: their number; by default the one with the lowest BIC.
            split, condition: see `rows`.
            seed: of initial values and bootstrap samples.

        Raises:
            ValueError: the latents are discrete, or the number is out of range.
        """
        from vaestro import latent
        from vaestro.models import with_latent

        session = self.session
        if with_latent(session.model).alphabet:
            raise ValueError(
                "expected real latents to cluster; got discrete ones, whose values are groups "
                "already"
            )
        rows = session.data.train if source is None else session.rows(source, split, condition)
        rows = rows.fixed()
        factors, _ = latent.factors_of([rows])
        return latent.cluster(session.codes(rows)["mean"], clusters, [*factors.values()], seed)
