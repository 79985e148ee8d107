"""The input of the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vaestro.diagnosis.code import off_units
from vaestro.diagnosis.continuation import Continuation
from vaestro.diagnosis.curves import Curves
from vaestro.diagnosis.measures import Measures
from vaestro.diagnosis.remedies import Remedies
from vaestro.diagnosis.statistics import Paired
from vaestro.evaluation.dependence import Dependence
from vaestro.files import Json

# share of the dependence between columns whose loss in samples is a fault
LOST = 0.25
RISE = (0.05, 0.005)  # negligible gain of further steps: nats, and share of the score


@dataclass(frozen=True, eq=False)
class Case:
    """The input of the rules.

    Args:
        remedy: command lines for the run, and its options.
        curves: the logged curves.
        measures: measurements on the model; None if the weights are not finite.
        units: the shape of one latent, *Z; (0,) for a model without a latent.
        beta: the final KL weight.
        extra: further terms of the loss, named as in metrics.jsonl: free_bits, capacity, penalties.
        failure: why the run ended early; None if it did not.
        notes: (name, sentence) about the data: duplicates between splits, changed files.
        autoregressive: whether the decoder is autoregressive and could therefore ignore z.
        reads_latent: whether the decoder has z as an input.
        log_det: log-determinant of the standardisation of the space.
        cells: number of cells per row.
        discrete: whether p(x) is a probability.
        known: further fields of diagnosis.json.
        continued: result of further training steps; None if none were taken.
        worsened: decrease of the training objective from initial to final weights, in nats; None if
            it was not measured.
        dependence: how much dependence between the columns of a table samples lose; None for other
            data, few rows, or columns that do not depend on each other.
    """

    remedy: Remedies
    curves: Curves
    measures: Measures | None
    units: tuple[int, ...] = ()
    beta: float = 1.0
    extra: tuple[str, ...] = ()
    failure: str | None = None
    notes: Sequence[tuple[str, str]] = ()
    autoregressive: bool = False
    reads_latent: bool = True
    log_det: float = 0.0
    cells: float = 1.0
    discrete: bool = True
    known: Mapping[str, Json] = field(default_factory=dict)
    continued: Continuation | None = None
    worsened: Paired | None = None
    dependence: Dependence | None = None

    @property
    def loses_dependence(self) -> bool:
        """Return whether samples certainly lose some of the dependence between columns."""
        return self.dependence is not None and self.dependence.limits[0] > LOST

    @property
    def inactive(self) -> int:
        """Return the number of units that are inactive and have no signal."""
        return 0 if self.measures is None else int(off_units(self.measures).sum())

    @property
    def scale(self) -> float:
        """Return the magnitude of the held-out score, in nats. Differences are relative to it.

        The zero of a log-density depends on the units of x. So densities are compared in
        standardised units, with at least half a nat per cell.
        """
        if self.measures is None:
            return 0.0
        score = self.measures.valid[0]
        return abs(score) if self.discrete else max(abs(score - self.log_det), 0.5 * self.cells)

    @property
    def rise(self) -> float:
        """Return the rise of the objective, in nats, above which more training is worthwhile."""
        return max(RISE[0], RISE[1] * self.scale)
