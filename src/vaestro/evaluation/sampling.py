"""The method `samples`: rows drawn from the model against held-out rows.

The pieces of the work are the drawn rows, which depend on the seed and their places alone. The
figures are computed when all of them are there.
"""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.util import find_spec
from typing import final

import numpy as np
import torch

from vaestro.data import Rows
from vaestro.densities import DataDensity
from vaestro.evaluation.records import Evaluation
from vaestro.evaluation.resemblance import default_target, resemblance
from vaestro.evaluation.samples import Columns, columns_of
from vaestro.evaluation.work import Job, Work
from vaestro.frames import Frame
from vaestro.models import Model, with_latent
from vaestro.randomness import numpy_generator, torch_generator
from vaestro.spaces import Batch, Space
from vaestro.text import nearest

MOST = 5000  # default number of drawn rows, and largest number of held-out rows
CELLS = 1_000_000  # largest number of cells of the drawn rows, by default
KNOWN = 50_000  # largest number of training rows among which the nearest is searched
WIDE = 1000  # largest number of columns


def sampling(job: Job, *, n: int | None = None, target: str | None = None) -> list[Work]:
    """Compare rows that are drawn from the model with held-out rows.

    Drawn rows have the conditions of training rows. Column shapes, pair trends,
    a detector, utility for prediction, and distances to training rows are measured, each also for
    as many training rows.

    Args:
        job: model and data, with the training rows.
        n: number of drawn rows, at most that of training rows; by default up to 5,000, fewer for
            more than 200 columns.
        target: the column that utility is about; by default a condition, or else the last column of
            categories, or else the last column.

    Raises:
        ValueError: the data are not a table or short vectors, there are no training rows or too few
            rows, or the target does not exist.

    >>> import vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> job = Job(model.eval(), data.test, 1, 0, torch.device("cpu"), data.train)
    >>> [work.rows for work in sampling(job, n=50)]
    [50]
    """
    check_comparable(job.model.space)
    if find_spec("sklearn") is None:
        raise ValueError(
            "expected the extra vaestro[sklearn] for samples; got an installation without it"
        )
    if job.train is None:
        raise ValueError(
            "expected the training rows for samples, as in vs.evaluate(model, data.test, "
            'methods="samples", train=data.train); got none'
        )
    if job.rows.name == "train":
        raise ValueError("expected held-out rows for samples; got the train split")
    if n is not None and n < 2:
        raise ValueError(f"expected n of 2 or more rows for samples; got {n}")
    return [Samples(job, job.train, n, target)]


def is_comparable(space: Space) -> bool:
    """Return whether drawn data are rows of columns, of which there are not too many.

    >>> import vaestro as vs
    >>> is_comparable(vs.load(np.random.default_rng(0).normal(size=(100, 3))).space)
    True
    """
    return (space.tabular or space.layout.name == "vector") and space.cells <= WIDE


def check_comparable(space: Space) -> None:
    """Raise ValueError if drawn data are not rows of columns.

    >>> import vaestro as vs
    >>> check_comparable(vs.load(np.random.default_rng(0).normal(size=(100, 3))).space)
    """
    if is_comparable(space):
        return
    look = "`vaestro sample RUN` shows samples"
    if space.image:
        look = "elbo also measures reconstructions of images, by PSNR and SSIM, and " + look
    raise ValueError(
        f"expected a table or vectors, with at most {WIDE:,} columns, for samples; got {space} "
        f"({look})"
    )


@final
class Samples(Work):
    """Draw rows, and compare them with held-out rows.

    >>> import vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(100, 3)))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> evaluation = vs.evaluate(model, data.test, methods="samples:n=50", train=data.train)
    >>> evaluation.samples.n
    50
    """

    name = "samples"

    def __init__(self, job: Job, train: Rows, n: int | None, target: str | None) -> None:
        super().__init__(job)
        space = job.model.space
        columns = max(1, len(space.columns) or space.cells)
        most = min(MOST, max(200, CELLS // columns))
        train = train.spread(KNOWN).fixed()
        order = numpy_generator(job.seed, "samples").permutation(len(train))
        self.train = train.pick(order[: most if n is None else n])
        held = job.rows.take(most).fixed()
        if min(len(self.train), len(held)) < 2:
            raise ValueError(
                f"expected 2 or more training rows and held-out rows for samples; got "
                f"{len(self.train)} and {len(held)}"
            )
        self.rows, self.chunk = len(self.train), space.chunk
        self.columns = math.prod(space.shape)
        self._tables = tuple(table_of(rows) for rows in (held, self.train, train))
        self._target = self._checked(target)

    def _checked(self, target: str | None) -> tuple[str, str]:
        """Return the column to predict, and why."""
        held, train, _ = self._tables
        if target is None:
            return default_target(train, held, self.job.given)
        if target not in train:
            raise ValueError(
                f"expected a column of the data for samples:target=: "
                f"{nearest(target, list(train))}; got {target!r}"
            )
        if len(train) < 2 or len(np.unique(held[target].compressed())) < 2:
            raise ValueError(
                f"expected a target with two or more values in the held-out rows, and other "
                f"columns; got {target!r}"
            )
        return target, "the target"

    @torch.inference_mode()
    def compute(self, first: int) -> np.ndarray:
        """Return drawn rows inside of the space, (cells, rows), with NaN for empty cells."""
        size = min(self.chunk, self.rows - first)
        like = self.train.pick(slice(first, first + size))
        generator = torch_generator(self.job.device, self.job.seed, "samples", first)
        return draw_like(self.job.model, like, generator).T

    def finish(self, table: np.ndarray, done: Evaluation) -> Evaluation:
        """Add the comparison to the evaluation."""
        held, train, every = self._tables
        drawn = table_of(as_drawn(self.train, table.T))
        result = resemblance(drawn, held, train, every, self._target, self.job.seed)
        return replace(done, samples=replace(result, notes=self._notes()))

    def _notes(self) -> tuple[str, ...]:
        if self.job.model.absences is not None or not self.train.missing_cells():
            return ()
        return ("drawn rows have the empty cells of training rows: the model does not draw these",)


@torch.inference_mode()
def draw_like(model: Model, like: Rows, generator: torch.Generator) -> np.ndarray:
    """Draw as many rows as there are in `like`, with its conditions: values inside of the space,
    (N, cells), float64, with NaN for empty cells.

    A model without a distribution of empty cells has those of `like`.

    Args:
        model: a trained model.
        like: N rows.
        generator: of the draws, on the device of the model.

    >>> import vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).test
    >>> model = vs.build(rows.space, latent=2, network="mlp:width=8")
    >>> draw_like(model, rows, torch.Generator()).shape
    (5, 3)
    """
    device, n = next(model.parameters()).device, len(like)
    batch = like.batch(slice(0, n), device)
    z = None
    if model.absences is None:
        density = model.sample(n, batch.given, generator=generator)
    else:
        latent = with_latent(model)
        z = latent.draw_prior(n, batch.given, generator)
        density = latent.decode(z, batch.given)
    assert isinstance(density, DataDensity)
    values = density.sample(generator)[0]
    empty = None if batch.observed is None else ~batch.observed
    if z is not None and model.absences is not None:
        empty = model.absences.draw(z, Batch(values, None, batch.given), generator)
    drawn = np.asarray(values.reshape(n, -1).cpu().numpy(), np.float64)
    return drawn if empty is None else np.where(empty.reshape(n, -1).cpu().numpy(), np.nan, drawn)


def as_drawn(like: Rows, values: np.ndarray) -> Rows:
    """Return drawn values as rows with the conditions of other rows.

    Args:
        like: N rows.
        values: drawn inside of the space, (N, cells), with NaN for empty cells.

    >>> import vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).test
    >>> as_drawn(rows, np.zeros((5, 3))).read().shape
    (5, 3)
    """
    cells = values.reshape(len(values), *like.space.shape)
    seen = ~np.isnan(cells)
    codes = np.where(seen, cells, 0).astype(like.read(slice(0, 1)).dtype)
    mask = None if seen.all() else seen
    return replace(like, values=codes, observed=mask, index=None, channels_last=False)


def table_of(rows: Rows) -> Columns:
    """Return rows as columns in the user's units, conditions among them.

    >>> import vaestro as vs
    >>> list(table_of(vs.load(np.random.default_rng(0).normal(size=(100, 3))).test))
    ['[0]', '[1]', '[2]']
    """
    outside = rows.outward()
    assert isinstance(outside, (np.ndarray, Frame))
    columns = columns_of(rows.space.limited(outside))
    if rows.given is None or rows.given_space is None:
        return columns
    return {**columns, **rows.given_space.outward(rows.given).columns}
