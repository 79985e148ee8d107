"""A session: a run opened once, which the verbs use (`vaestro.runs.verbs`).

The commands, Python and the report use the same verbs. A session loads the model and the data
when they are first needed. It computes the codes of the same rows, and an attribute's direction,
once. If a source names the run's own data without options, the options of the run apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import final

from torch import Tensor

from vaestro import latent
from vaestro.data import Data, Rows, load_rows
from vaestro.data.source_options import parse_source
from vaestro.latent import Codes, Direction
from vaestro.models import Model, with_latent
from vaestro.runs.run import Run
from vaestro.runs.sources import Conditions, Source, as_rows
from vaestro.runs.stored_diffusion import (
    FOLDER,
    WEIGHTS,
    StoredDiffusion,
    separated,
    stored_diffusion,
)
from vaestro.runs.verbs import AllVerbs
from vaestro.text import parse_pair


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
class Session(AllVerbs):
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
        self._diffusion: tuple[int, StoredDiffusion] | None = None

    @property
    def session(self) -> Session:
        """Return the session itself."""
        return self

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

    def diffusion(self) -> StoredDiffusion:
        """Return the diffusion model of the run, which is read again when its file changes.

        Raises:
            ValueError: the run has none, or it is damaged, or of other weights.
        """
        file = self.run.path / FOLDER / WEIGHTS
        stamp = file.stat().st_mtime_ns if file.exists() else 0
        if self._diffusion is None or self._diffusion[0] != stamp:
            self._diffusion = stamp, stored_diffusion(self)
        return self._diffusion[1]

    def with_diffusion(
        self, condition: Conditions, sampler: str | None = None, guidance: float = 1.0
    ) -> tuple[Model, Conditions]:
        """Return the model with the diffusion model of the run as its prior, and the conditions
        that the model has; see `StoredDiffusion.prior`.

        Raises:
            ValueError: the run has no diffusion model, or a condition is missing or unknown.
        """
        stored = self.diffusion()
        own, further = separated(stored, self.model, condition)
        prior = stored.prior(self.model, further, sampler=sampler, guidance=guidance)
        return with_latent(self.model).with_prior(prior), own

    def own_conditions(self, condition: Mapping[str, str]) -> dict[str, str]:
        """Return those conditions that the model has, without those of its diffusion model."""
        names = () if self.model.given is None else self.model.given.names
        return {name: value for name, value in condition.items() if name in names}

    # -- reading -----------------------------------------------------------------------------------

    def source(self, source: Source) -> Source:
        """Return a source with the options of the run if it names the run's data without any, and
        one datum as the only row of a source."""
        source = as_rows(source, self.model.space)
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

    def given(self, condition: Conditions, like: Rows | None, n: int) -> Tensor | None:
        """Return conditions as a model's input, (n, G); None without conditions."""
        if like is None:
            return latent.conditions(self.model, condition or {}, n)
        given = latent.given_of(like)
        return None if given is None else given.expand(n, -1)

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
