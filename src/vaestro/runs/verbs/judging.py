"""The verbs evaluate, diagnose, gradients and report."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import vaestro
from vaestro.runs.verbs.base import Verbs

if TYPE_CHECKING:
    import numpy as np

    from vaestro.diagnosis import Diagnosis
    from vaestro.diagnosis.noise import Noises
    from vaestro.evaluation import Evaluation
    from vaestro.runs.sources import Conditions, HeldOut, Source

Say: TypeAlias = Callable[[str], None]


class JudgeVerbs(Verbs):
    """Judge a run."""

    def held_out(
        self, data: Source | None = None, split: str | None = None, condition: Conditions = None
    ) -> HeldOut:
        """Return the rows to evaluate: those of `data`, or a split of the run's own data.

        Args:
            data: other data of the same kind; by default the run's own.
            split: see `rows`; by default test for the run's own data.
            condition: {name: value}, with `data` only.
        """
        from vaestro.runs import evaluating

        return evaluating.held_out(self.session, data, split, condition)

    def evaluate(
        self,
        data: Source | None = None,
        *,
        methods: str | Sequence[str] = ("elbo", "iwae"),
        k: int = 500,
        split: str | None = None,
        limit: int | None = None,
        condition: Conditions = None,
        seed: int = 0,
    ) -> Evaluation:
        """Bound log p(x) of held-out data, and write evaluation.json and .npz: see `evaluating`."""
        evaluation = None
        for _, evaluation in self.evaluating(
            self.held_out(data, split, condition), methods=methods, k=k, limit=limit, seed=seed
        ):
            pass
        assert evaluation is not None
        return evaluation

    def evaluating(
        self,
        held_out: HeldOut,
        *,
        methods: str | Sequence[str] = ("elbo", "iwae"),
        k: int = 500,
        limit: int | None = None,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> Generator[tuple[float, Evaluation | None]]:
        """Evaluate held-out data, and write evaluation.json and .npz, a piece at a time; see
        `evaluating.evaluating`."""
        from vaestro.runs import evaluating

        return evaluating.evaluating(
            self.session,
            held_out,
            methods=methods,
            k=k,
            limit=limit,
            seed=seed,
            rank=rank,
            processes=processes,
        )

    def score_samples(
        self,
        source: Source,
        *,
        k: int = 100,
        split: str | None = None,
        condition: Conditions = None,
        seed: int = 0,
    ) -> np.ndarray:
        """Return a lower bound of log p(x) of each datum, (N,), in nats and in the user's units:
        IWAE (Burda, Grosse and Salakhutdinov 2016); of a model without a latent, log p(x) itself.

        Args:
            source: the data, or one datum, as `transform` takes them.
            k: number of draws for each datum; the bound is tighter with more.
            split, condition: see `rows`.
            seed: of the draws.

        Raises:
            ValueError: the data do not fit, or k is below 1.

        >>> import numpy as np, vaestro as vs
        >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
        >>> vs.fit(x, latent=2, steps=2).score_samples(x[:5], k=3).shape
        (5,)
        """
        from vaestro.evaluation import evaluate

        session = self.session
        rows = session.rows(source, split, condition)
        evaluation = evaluate(session.model, rows, methods=("iwae",), k=k, seed=seed)
        return evaluation.estimates[0].nats

    def diagnose(self, *, seed: int = 0) -> Diagnosis:
        """Find faults of the run, and write diagnosis.json and .npz."""
        from vaestro.runs import diagnosing

        return diagnosing.diagnose(self.session, seed=seed)

    def gradients(
        self,
        *,
        k: Sequence[int] | None = None,
        estimators: Sequence[str] | None = None,
        bound: str | None = None,
        repeats: int = 40,
        seed: int = 0,
    ) -> Iterator[tuple[float, Noises | None]]:
        """Measure the noise of gradient estimators, and write gradients.json and .png; see
        `diagnosing.gradients`."""
        from vaestro.runs import diagnosing

        return diagnosing.gradients(
            self.session, k=k, estimators=estimators, bound=bound, repeats=repeats, seed=seed
        )

    def report(
        self, output: str | Path | None = None, *, force: bool = False, say: Say = lambda line: None
    ) -> Path:
        """Write the report of the run, and return its path; see `vaestro.write_report`.

        Args:
            output: the .html file; by default report.html in the run's folder.
            force: overwrite a file that is not a report of this run.
            say: called with a line about each part that is computed first.

        Raises:
            ValueError: the output may not be written.
        """
        session = self.session
        return vaestro.write_report(session.run, output, force=force, say=say, session=session)
