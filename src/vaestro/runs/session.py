"""A run opened once, with the verbs in the user's own units: the commands, Python and the report
call it.

Model and data are loaded when first needed and kept. A source that names the run's own data without
options is read with the options of the run.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from vaestro import latent
from vaestro.data import Data, Rows, load_rows
from vaestro.data.loading import completed, load_with_own
from vaestro.data.readers import parse_source
from vaestro.data.tables import condition_columns
from vaestro.densities import Decoding
from vaestro.diagnosis import Diagnosis
from vaestro.diagnosis.noise import Noises
from vaestro.evaluation import Evaluation, evaluating
from vaestro.frames import Frame
from vaestro.latent import Direction
from vaestro.models import LatentModel
from vaestro.runs.run import Run
from vaestro.text import parse_pair

Source = Any  # a path or a name with options, an array, a table, texts, or rows already read
Conditions = Mapping[str, Any] | None


@final
@dataclass(frozen=True, eq=False)
class HeldOut:
    """Hold the rows to evaluate.

    Args:
        rows: the rows, with one binarisation for good.
        source: what they were read from.
        changed: sentences on how the run's data differ from those of the training.
    """

    rows: Rows
    source: str
    changed: tuple[str, ...] = ()


def open(run: str | Path | Run, device: str = "cpu") -> Session:
    """Open a run for use.

    Args:
        run: the run, or its folder.
        device: the device to compute on: cpu, cuda or mps.

    Raises:
        ValueError: it is not a run's folder.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="example", latent=2, steps=2)
    >>> session = vs.open(run)
    >>> session.encode(x[:1])["mean"].shape
    (1, 2)
    >>> session.sample(4).shape
    (4, 3)
    """
    return Session(run, device)


@final
class Session:
    """A run opened once.

    Args:
        run: the run, or its folder.
        device: the device to compute on: cpu, cuda or mps.

    Raises:
        ValueError: it is not a run's folder.
    """

    def __init__(self, run: str | Path | Run, device: str = "cpu") -> None:
        self.run = run if isinstance(run, Run) else Run(run)
        self.device = device

    def __repr__(self) -> str:
        return f"Session({str(self.run.path)!r})"

    @cached_property
    def _weights(self) -> tuple[LatentModel, str]:
        model = self.run.model(self.device)
        return model, self.run.weights_sha256()

    @property
    def model(self) -> LatentModel:
        """Return the model with the weights in use.

        Raises:
            ValueError: the run has no weights yet, or they are damaged.
        """
        return self._weights[0]

    @property
    def weights_sha256(self) -> str:
        """Return the hash of the weights that the session uses."""
        return self._weights[1]

    @cached_property
    def data(self) -> Data:
        """Return the data that the run was trained on."""
        return self.run.data()

    # -- reading -----------------------------------------------------------------------------------

    def source(self, source: Source) -> Source:
        """Return a source with the options of the run if it names the run's data without any."""
        if not isinstance(source, (str, Path)):
            return source
        own: str = self.run.config["source"]
        named = (str(source), str(Path(source).expanduser().resolve()))
        return own if parse_source(own)[0] in named else str(source)

    def rows(self, source: Source, split: str | None = None, condition: Conditions = None) -> Rows:
        """Read a source as data of the run's space; rows are returned as they are.

        Args:
            source: a path or a name with options, an array (N, ...), a table or texts.
            split: train, valid, test or all; by default every row of a source without splits, and
                else test.
            condition: {name: value}, given to all rows instead of the source's own conditions.

        Raises:
            ValueError: the data do not fit the space, or a condition is missing.
        """
        if isinstance(source, Rows):
            return source
        model = self.model
        return load_rows(
            self.source(source), model.space, split, given=model.given, conditions=condition or {}
        )

    # -- using -------------------------------------------------------------------------------------

    def encode(
        self,
        source: Source,
        *,
        draws: int = 0,
        split: str | None = None,
        condition: Conditions = None,
        seed: int = 0,
    ) -> dict[str, np.ndarray]:
        """Return `mean` and `logvar` of q(z | x), each (N, *Z); with `draws`, also `z` (draws, N,
        *Z)."""
        return latent.encode(
            self.model, self.rows(source, split, condition), draws=draws, seed=seed
        )

    def decode(
        self,
        z: np.ndarray,
        *,
        condition: Conditions = None,
        sample: bool = False,
        decoding: Decoding | None = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> Any:
        """Return the mean of p(x | z) at latents (N, *Z), or a draw, in the user's units."""
        given = latent.conditions(self.model, condition or {}, len(z))
        return latent.decode(
            self.model, z, given=given, sample=sample, seed=seed, decoding=decoding, dtype=dtype
        )

    def reconstruct(
        self,
        source: Source,
        *,
        split: str | None = None,
        condition: Conditions = None,
        decoding: Decoding | None = None,
        dtype: str | None = None,
    ) -> Any:
        """Return the mean of p(x | z) at each datum's code, in the user's units."""
        rows = self.rows(source, split, condition)
        return latent.reconstruct(self.model, rows, decoding=decoding, dtype=dtype)

    def sample(
        self,
        n: int = 64,
        *,
        condition: Conditions = None,
        temperature: float = 1.0,
        mean: bool = False,
        decoding: Decoding | None = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> Any:
        """Draw n data from the model, in the user's units; tables have the condition columns too.

        Args:
            n: the number of data.
            condition: {name: value}, a value for each condition of a conditional model.
            temperature: multiplies the prior's standard deviation.
            mean: return the mean of p(x | z) at each drawn z instead of a draw.
            decoding: how texts are drawn or searched for.
            dtype: "own" or "float", of means.
            seed: of the draws.

        Raises:
            ValueError: a condition is missing, or an argument is out of range.
        """
        model, values = self.model, condition or {}
        drawn = latent.sample(
            model,
            n,
            given=latent.conditions(model, values, n),
            temperature=temperature,
            seed=seed,
            mean=mean,
            decoding=decoding,
            dtype=dtype,
        )
        if isinstance(drawn, Frame):
            return Frame(
                {**drawn.columns, **condition_columns(model.given, values, n)}, drawn.orders
            )
        return drawn

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
    ) -> Any:
        """Return the decoded codes between those of two data, both ends among them."""
        rows = self.rows(source, split, condition)
        return latent.interpolate(
            self.model, rows, i, j, steps=steps, path=path, decoding=decoding, dtype=dtype
        )

    def direction(self, source: Source, attribute: str) -> Direction:
        """Return the direction of an attribute in the latent space.

        Args:
            source: rows whose attributes are used if the run's own training data lack this one.
            attribute: NAME, or NAME=VALUE.

        Raises:
            ValueError: there is no such attribute or value, or latents are discrete.
        """
        name, value = parse_pair(attribute) or (attribute, None)
        trained = self.data.train.spread(latent.KNOWN).fixed()
        known = name in latent.attributes(trained)
        return latent.direction(
            self.model, trained if known else self.rows(source).fixed(), name, value
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
    ) -> Any:
        """Return the decoded codes of the data after an amount of an attribute is added to them."""
        rows = self.rows(source, split, condition)
        along = attribute if isinstance(attribute, Direction) else self.direction(rows, attribute)
        return latent.edit(self.model, rows, along, amount, decoding=decoding, dtype=dtype)

    def impute(
        self,
        source: Source,
        *,
        k: int = 100,
        sample: bool = False,
        split: str | None = None,
        condition: Conditions = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> Any:
        """Return the data with missing cells filled in; see `latent.impute`."""
        return self.imputed(
            source, k=k, sample=sample, split=split, condition=condition, dtype=dtype, seed=seed
        )[1]

    def imputed(
        self,
        source: Source,
        *,
        k: int = 100,
        sample: bool = False,
        split: str | None = None,
        condition: Conditions = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> tuple[Rows, Any]:
        """Return the rows that were read, and the data with missing cells filled in."""
        model, whole = self.model, self.source(source)
        rows, own = load_with_own(
            whole, model.space, split, given=model.given, conditions=condition or {}
        )
        filled = latent.impute(model, rows, k=k, sample=sample, seed=seed, dtype=dtype, own=own)
        return rows, (completed(whole, filled, rows.name) if isinstance(filled, Frame) else filled)

    # -- judging -----------------------------------------------------------------------------------

    def held_out(
        self, data: Source = None, split: str | None = None, condition: Conditions = None
    ) -> HeldOut:
        """Return the rows to evaluate: those of `data`, or a split of the run's own data.

        The weights are loaded first, so that a run without any is refused before data are read.

        Raises:
            ValueError: the data do not fit, or conditions were given for the run's own data.
        """
        space = self.model.space
        if data is not None:
            source = self.source(data)
            rows = self.rows(source, split, condition)
            return HeldOut(rows.fixed(), source if isinstance(source, str) else str(space))
        if condition:
            raise ValueError(
                "expected --condition with --data, for data that do not say theirs; got it for the "
                "run's own data"
            )
        name = split or "test"
        rows = self.data.split(name).fixed()
        changed = tuple(self.run.changed(self.data, name))
        return HeldOut(rows, self.run.config["source"], changed)

    def evaluate(
        self,
        data: Source = None,
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
        """Evaluate held-out data, and write evaluation.json and .npz.

        Yields (share of the work that is done, None), and at the end (1, the evaluation), after
        the files are written. A stopped evaluation continues from the pieces that were finished.

        Args:
            held_out: the rows to evaluate, from `held_out`.
            methods: names of methods, with options.
            k: draws for each datum.
            limit: the number of rows, drawn at random by the seed; by default all.
            seed: of the draws.
            rank: of this process; the first one writes.
            processes: the number of processes that share the work.

        Raises:
            ValueError: a method is unknown, or an argument is out of range.
        """
        steps = evaluating(
            self.model,
            held_out.rows,
            k=k,
            methods=methods,
            limit=limit,
            seed=seed,
            folder=self.run.path / "evaluating",
            rank=rank,
            processes=processes,
        )
        weights = self.weights_sha256
        try:
            for share, evaluation in steps:
                if evaluation is not None:
                    warnings = (*held_out.changed, *evaluation.warnings)
                    evaluation = replace(evaluation, warnings=warnings)
                    if rank == 0:
                        self.run.save_evaluation(
                            evaluation, held_out.rows, held_out.source, weights
                        )
                yield share, evaluation
        finally:
            steps.close()  # keeps the finished pieces

    def diagnose(self, *, seed: int = 0) -> Diagnosis:
        """Diagnose the run, and write diagnosis.json and .npz."""
        return self.run.diagnose(seed=seed, device=self.device, data=self.data)

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
        return self.run.gradients(
            k=k, estimators=estimators, bound=bound, repeats=repeats, seed=seed, device=self.device
        )
