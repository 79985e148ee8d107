"""A session: a run opened once, with methods that take and return data in the user's units.

The commands, Python and the report use the same methods. A session loads the model and the data
when they are first needed. It computes the codes of the same rows, and an attribute's direction,
once. If a source names the run's own data without options, the options of the run apply.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeAlias, final

import numpy as np
from torch import Tensor

import vaestro
from vaestro import latent
from vaestro.data import Data, Rows, load_rows
from vaestro.data.source_options import parse_source
from vaestro.densities import Decoding
from vaestro.diagnosis import Diagnosis
from vaestro.diagnosis.noise import Noises
from vaestro.evaluation import Evaluation
from vaestro.latent import Codes, Contrast, Direction, UserData
from vaestro.models import Model
from vaestro.runs import diagnosing, evaluating, generating, imputing
from vaestro.runs.run import Run
from vaestro.runs.sources import Conditions, HeldOut, Source
from vaestro.text import parse_pair

Say: TypeAlias = Callable[[str], None]


def open(run: str | Path | Run, device: str = "cpu", *, trust: bool = False) -> Session:
    """Open a session on a run.

    Args:
        run: the run, or its folder.
        device: the device to compute on: cpu, cuda or mps.
        trust: run code that the folder names.

    Raises:
        ValueError: it is not a run's folder.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="example", latent=2, steps=2)
    >>> session = vs.open(run)
    >>> session.encode(x[:1])["mean"].shape
    (1, 2)
    """
    return Session(run if isinstance(run, Run) else Run(run, trust=trust), device)


@final
class Session:
    """Use a run that is opened once.

    Args:
        run: the run, or its folder (`open` can trust its code).
        device: the device to compute on: cpu, cuda or mps.

    >>> import vaestro as vs
    >>> table = {"size": [0.5, 1.5, 2.5] * 20, "age": [3, 1, 4] * 20}
    >>> session = Session(vs.train(table, run="second", latent=2, steps=2))
    >>> len(session.reconstruct({"size": [1.1], "age": [3]}))
    1
    """

    def __init__(self, run: str | Path | Run, device: str = "cpu") -> None:
        self.run = run if isinstance(run, Run) else Run(run)
        self.device = device
        self._directions: dict[str, Direction] = {}

    def __repr__(self) -> str:
        return f"Session({str(self.run.path)!r})"

    @cached_property
    def _weights(self) -> tuple[Model, str]:
        model = self.run.model(self.device)
        return model, self.run.weights_sha256()

    @property
    def model(self) -> Model:
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

    @cached_property
    def codes(self) -> Codes:
        """Return what computes the codes of rows, and keeps them."""
        return Codes(self.model)

    # -- reading -----------------------------------------------------------------------------------

    def source(self, source: Source) -> Source:
        """Return a source with the options of the run if it names the run's data without any."""
        if not isinstance(source, (str, Path)):
            return source
        own: str = self.run.options["source"]
        names = (str(source), str(Path(source).expanduser().resolve()))
        return own if parse_source(own)[0] in names else str(source)

    def rows(self, source: Source, split: str | None = None, condition: Conditions = None) -> Rows:
        """Read a source as data of the run's space; rows are returned as they are.

        Args:
            source: a path or a name with options, an array (N, ...), a table or texts.
            split: train, valid, test or all; by default all rows of a source without splits of its
                own, and test of one with splits.
            condition: {name: value}, given to all rows instead of the source's own conditions.

        Raises:
            ValueError: the data do not fit the space, or a condition is missing.
        """
        if isinstance(source, Rows):
            return source
        model = self.model
        rows = load_rows(
            self.source(source), model.space, split, given=model.given, conditions=condition or {}
        )
        latent.check_conditions(model, rows)
        return rows

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
        rows = self.rows(source, split, condition)
        if draws:
            return latent.encode(self.model, rows, draws=draws, seed=seed)
        return {name: values.copy() for name, values in self.codes(rows).items()}

    def latents(
        self, source: Source, *, split: str | None = None, condition: Conditions = None
    ) -> np.ndarray:
        """Return the latents that `reconstruct` decodes, (N, *Z); see `latent.settled`."""
        mean = self.codes(self.rows(source, split, condition))["mean"]
        return latent.settled(self.model, mean).copy()

    def decode(
        self,
        z: np.ndarray,
        *,
        condition: Conditions = None,
        like: Rows | None = None,
        sample: bool = False,
        decoding: Decoding | None = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> UserData:
        """Return the mean of p(x | z) at latents (N, *Z), or a draw, in the user's units.

        Args:
            z: the latents.
            condition: {name: value}, a value for each condition of a conditional model.
            like: N rows, or one, whose conditions are used instead of `condition`.
            sample: return a draw instead of the mean.
            decoding: how texts are drawn or searched for.
            dtype: "own" or "float", of means.
            seed: of the draws.

        Raises:
            ValueError: a condition is missing, or the latents are not of the model.
        """
        given = self.given(condition, like, len(z))
        return latent.decode(
            self.model, z, given=given, sample=sample, seed=seed, decoding=decoding, dtype=dtype
        )

    def reconstruct(
        self,
        source: Source,
        *,
        split: str | None = None,
        condition: Conditions = None,
        decode_condition: Conditions = None,
        draws: int | None = None,
        library: float | None = None,
        decoding: Decoding | None = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> UserData:
        """Return the mean of p(x | z) at each datum's code, in the user's units.

        Args:
            source, split, condition: see `rows`.
            decode_condition: {name: value}, which the decoder has instead of the data's own.
            draws, library, seed: for counts, see `latent.expression`.
            decoding, dtype: see `decode`.
        """
        return generating.reconstruct(
            self,
            source,
            split=split,
            condition=condition,
            decode_condition=decode_condition,
            draws=draws,
            library=library,
            decoding=decoding,
            dtype=dtype,
            seed=seed,
        )

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
        return generating.contrast(
            self,
            source,
            attribute,
            first,
            second,
            delta=delta,
            level=level,
            draws=draws,
            split=split,
            condition=condition,
            decode_condition=decode_condition,
            seed=seed,
        )

    def sample(
        self,
        n: int = 64,
        *,
        condition: Conditions = None,
        like: Rows | None = None,
        temperature: float = 1.0,
        mean: bool | None = None,
        complete: bool | None = None,
        decoding: Decoding | None = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> UserData:
        """Draw n data from the model, in the user's units. A table includes the condition columns.

        Args:
            n, temperature, complete, decoding, dtype, seed: see `latent.sample`.
            condition: {name: value}, a value for each condition of a conditional model.
            like: n rows, or one, whose conditions are used instead of `condition`.
            mean: return the mean of p(x | z) at each drawn z; by default for images.

        Raises:
            ValueError: a condition is missing, or an argument is out of range.
        """
        return generating.sample(
            self,
            n,
            condition=condition,
            like=like,
            temperature=temperature,
            mean=mean,
            complete=complete,
            decoding=decoding,
            dtype=dtype,
            seed=seed,
        )

    def given(self, condition: Conditions, like: Rows | None, n: int) -> Tensor | None:
        """Return conditions as a model's input, (n, G); None without conditions."""
        if like is None:
            return latent.conditions(self.model, condition or {}, n)
        given = latent.given_of(like)
        return None if given is None else given.expand(n, -1)

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
        rows = self.rows(source, split, condition)
        return latent.interpolate(
            self.model, rows, i, j, steps=steps, path=path, decoding=decoding, dtype=dtype
        )

    @cached_property
    def _training_rows(self) -> tuple[Rows, frozenset[str]]:
        """Return the training rows from which directions are estimated, and their attributes."""
        rows = self.data.train.spread(latent.KNOWN).fixed()
        return rows, frozenset(latent.attributes(rows))

    def direction(self, source: Source, attribute: str) -> Direction:
        """Return the direction of an attribute in the latent space, estimated on the training data.

        Args:
            source: rows that are used instead if the training data do not have this attribute.
            attribute: NAME, or NAME=VALUE.

        Raises:
            ValueError: there is no such attribute or value, or latents are discrete.
        """
        name, value = parse_pair(attribute) or (attribute, None)
        rows, names = self._training_rows
        if name not in names:
            rows = self.rows(source).fixed()
            return latent.direction(self.model, rows, name, value, codes=self.codes)
        if attribute not in self._directions:
            along = latent.direction(self.model, rows, name, value, codes=self.codes)
            along.step.flags.writeable = False
            self._directions[attribute] = along
        return self._directions[attribute]

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
        rows = self.rows(source, split, condition)
        along = attribute if isinstance(attribute, Direction) else self.direction(rows, attribute)
        return latent.edit(
            self.model, rows, along, amount, decoding=decoding, dtype=dtype, codes=self.codes
        )

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
    ) -> UserData:
        """Return the data with missing cells filled in; see `latent.impute`."""
        how = imputing.How(k=k, sample=sample, dtype=dtype, seed=seed)
        return imputing.imputed(self, source, how, split, condition)[1][0]

    def imputations(
        self,
        source: Source,
        n: int,
        *,
        k: int = 100,
        split: str | None = None,
        condition: Conditions = None,
        seed: int = 0,
    ) -> list[UserData]:
        """Return the data n times, with draws in the missing cells; see `latent.imputations`."""
        how = imputing.How(n=n, k=k, seed=seed)
        return imputing.imputed(self, source, how, split, condition)[1]

    # -- judging -----------------------------------------------------------------------------------

    def held_out(
        self, data: Source | None = None, split: str | None = None, condition: Conditions = None
    ) -> HeldOut:
        """Return the rows to evaluate: those of `data`, or a split of the run's own data.

        Args:
            data: other data of the same kind; by default the run's own.
            split: see `rows`; by default test for the run's own data.
            condition: {name: value}, with `data` only.
        """
        return evaluating.held_out(self, data, split, condition)

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
        return evaluating.evaluating(
            self,
            held_out,
            methods=methods,
            k=k,
            limit=limit,
            seed=seed,
            rank=rank,
            processes=processes,
        )

    def diagnose(self, *, seed: int = 0) -> Diagnosis:
        """Find faults of the run, and write diagnosis.json and .npz."""
        return diagnosing.diagnose(self, seed=seed)

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
        return diagnosing.gradients(
            self, k=k, estimators=estimators, bound=bound, repeats=repeats, seed=seed
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
        return vaestro.write_report(self.run, output, force=force, say=say, session=self)
