"""The verb score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaestro.runs.verbs.base import Verbs

if TYPE_CHECKING:
    from vaestro.latent import Scores
    from vaestro.runs.sources import Conditions, Source


class ScoreVerbs(Verbs):
    """Score how unusual data are."""

    def score(
        self,
        source: Source,
        *,
        by: str = "combined",
        k: int = 20,
        cells: bool = False,
        maps: bool = False,
        units: bool = False,
        false_alarms: float | None = None,
        normal: Source | None = None,
        window: int | None = None,
        stride: int | None = None,
        split: str | None = None,
        condition: Conditions = None,
        seed: int = 0,
    ) -> Scores:
        """Score how unusual each row is, with its bound and where it is unusual.

        Args:
            source, split, condition: see `rows`.
            by: the score: combined, residual, standardised, local, reconstruction, latent, bound,
                likelihood-ratio, complexity or typicality; see `latent.scoring`.
            k: draws of z for each row.
            cells, maps, units: also return the share of each cell in the distortion and in the
                score, and the rate of each unit.
            false_alarms: compute a threshold with this rate of false alarms among normal rows.
            normal: normal rows for the threshold, in addition to the test split.
            window, stride: cut series into windows, `stride` steps apart.
            seed: of the draws.

        Raises:
            ValueError: there is no such score for these data, or an argument is out of range.
        """
        from vaestro.runs import scoring

        session = self.session
        rows = scoring.scored_rows(session, source, window, stride, split, condition)
        return scoring.score(
            session,
            rows,
            by,
            k=k,
            cells=cells,
            maps=maps,
            units=units,
            false_alarms=false_alarms,
            normal=normal,
            seed=seed,
        )
