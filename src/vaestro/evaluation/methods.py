"""The methods of evaluation, and `evaluate`, which applies some of them to a model and data."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vaestro.data import Rows
from vaestro.evaluation.annealing import annealing
from vaestro.evaluation.bounds import bounding, in_space
from vaestro.evaluation.chosen import drawn
from vaestro.evaluation.exact import exactly
from vaestro.evaluation.gaps import searching
from vaestro.evaluation.information import informing
from vaestro.evaluation.records import SIMULATED, Evaluation
from vaestro.evaluation.sampling import sampling
from vaestro.evaluation.work import Job, Store, Work, key_of, perform
from vaestro.models import Model
from vaestro.parts import Part, find
from vaestro.text import split_specs

BOUNDS = ("elbo", "iwae")  # methods that use the same k draws
METHODS: dict[str, Callable[..., Sequence[Work]]] = {
    "exact": exactly,
    "elbo": bounding,
    "iwae": bounding,
    "ais": annealing,
    "gap": searching,
    "information": informing,
    "samples": sampling,
}
ANY_MODEL = ("samples",)  # methods for models with and without a latent


def evaluate(
    model: Model,
    rows: Rows,
    *,
    k: int = 500,
    methods: str | Sequence[str] = ("elbo", "iwae"),
    limit: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    train: Rows | None = None,
) -> Evaluation:
    """Estimate log p(x) of each datum by some methods.

    Args:
        model: a trained model.
        rows: data of the model's space, such as `data.test`.
        k: number of draws per datum.
        methods: elbo and iwae (from the same k draws), ais, gap, information, samples, each with
            options: "ais:chains=16,temperatures=500". A model without a latent has the method exact
            instead of bounds.
        limit: number of rows to evaluate, drawn at random without replacement. Their places are in
            `Evaluation.index`.
        seed: seed of the draws, and of the choice of the rows. Two models evaluated with the same
            seed are evaluated on the same rows.
        device: device of the computation; by default that of the model.
        train: the training rows, which samples compares with.

    Raises:
        ValueError: k or limit is out of range, a method or option is unknown, or the data do not
            fit the model.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> evaluation = evaluate(model, data.train, k=10, limit=20)
    >>> [(estimate.method, estimate.nats.shape) for estimate in evaluation.estimates]
    [('elbo', (20,)), ('iwae', (20,))]
    """
    done: Evaluation | None = None
    for _, done in evaluating(
        model, rows, k=k, methods=methods, limit=limit, seed=seed, device=device, train=train
    ):
        pass
    assert done is not None
    return done


def evaluating(
    model: Model,
    rows: Rows,
    *,
    k: int = 500,
    methods: str | Sequence[str] = ("elbo", "iwae"),
    limit: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    train: Rows | None = None,
    folder: Path | None = None,
    rank: int = 0,
    processes: int = 1,
) -> Generator[tuple[float, Evaluation | None]]:
    """Evaluate in steps. Yields (share of the work done, None), and finally (1, Evaluation).

    Args:
        model, rows, k, methods, limit, seed, device, train: see `evaluate`.
        folder: folder for finished pieces. Those of the same evaluation are used again.
        rank, processes: of the torch.distributed group over which the pieces are distributed.

    Raises:
        ValueError: see `evaluate`.

    >>> import vaestro as vs
    >>> data = vs.load(np.eye(40, dtype="uint8"))
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> [share for share, _ in evaluating(model, data.valid, k=10)][-1]
    1.0
    """
    _check(model, rows, k, limit)
    parts = _parts(methods, model)
    names = [part.name for part in parts]
    # Methods that stop after n data visit the rows in this order, so that their n data are also a
    # random sample.
    rows, order = drawn(rows.fixed(), len(rows) if limit is None else limit, seed)
    rows = in_space(rows, model.space)
    device = next(model.parameters()).device if device is None else torch.device(device)
    bounded = bool(set(BOUNDS) & set(names))
    job = Job(model, rows, int(k) if bounded else 1, seed, device, train)
    training = model.training
    model.eval()
    try:
        works: list[Work] = [*(exactly(job) if model.capabilities.exact else bounding(job))]
        # In the order of METHODS: the decompositions need the bounds.
        for part in sorted(parts, key=lambda p: list(METHODS).index(p.name)):
            if part.name not in (*BOUNDS, works[0].name):
                works += part(job)
        store = Store(folder, key_of(job, parts) if folder else "", rank)
        for share, tables in perform(works, store, rank, processes):
            if tables is None:
                yield share, None
        assert tables is not None
        done = Evaluation((), 0.0, 0.0)
        for work, table in zip(works, tables, strict=True):
            done = work.finish(table, done)
    finally:
        model.train(training)
    yield 1.0, _requested(done, names).of_rows(order, seed)
    if rank == 0:
        store.clear()  # only now, after the caller could write the evaluation


def compares_with_training(methods: str | Sequence[str]) -> bool:
    """Return whether some of the methods use the training rows.

    Raises:
        ValueError: a method or an option is unknown.

    >>> compares_with_training("elbo,iwae"), compares_with_training("samples:n=100")
    (False, True)
    """
    return any(part.name == "samples" for part in _found(methods))


def _found(methods: str | Sequence[str]) -> list[Part[Sequence[Work]]]:
    specs = split_specs(methods) if isinstance(methods, str) else methods
    return [find("method", spec, METHODS) for spec in specs]


def _requested(done: Evaluation, names: Sequence[str]) -> Evaluation:
    """Return the evaluation with the estimates of the requested methods only."""
    bounded = bool(set(BOUNDS) & set(names))
    estimates = tuple(
        e
        for e in done.estimates
        if e.method in names or (e.on == SIMULATED and e.method in BOUNDS and bounded)
    )
    return replace(done, estimates=estimates)


def _check(model: Model, rows: Rows, k: int, limit: int | None) -> None:
    """Raise ValueError if the numbers are out of range, or the rows are not data of the model."""
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
        raise ValueError(f"expected k of 1 or more draws; got {k}")
    if limit is not None and not 1 <= limit <= len(rows):
        raise ValueError(
            f"expected a limit between 1 and the {len(rows)} data of the {rows.name} split; got "
            f"{limit}"
        )
    if not model.capabilities.prior_density:
        raise ValueError(
            "expected a prior with a density; got one that can only be sampled: without log p(z) "
            "there is no bound on log p(x)"
        )
    mine, theirs = model.space, rows.space
    if (theirs.kind, theirs.shape, theirs.names) != (mine.kind, mine.shape, mine.names):
        raise ValueError(f"expected {mine} data; got {theirs}")
    if model.given is not None and rows.given is None:
        raise ValueError(
            f"expected data with the conditions {', '.join(model.given.names)}; got none"
        )
    if not len(rows):
        raise ValueError(f"expected data to evaluate; got an empty {rows.name} split")


def _parts(methods: str | Sequence[str], model: Model) -> list[Part[Sequence[Work]]]:
    """Return the methods with their options. In a model without a latent, exact replaces the
    bounds.

    Raises:
        ValueError: a method or an option is unknown, or a method is named twice.
    """
    parts = _found(methods)
    names = [part.name for part in parts]
    if not names or len(set(names)) < len(names) or not set(names) <= set(METHODS):
        raise ValueError(
            f"expected each method once, among {', '.join(METHODS)}; got "
            f"{', '.join(names) or 'none'}"
        )
    if not model.capabilities.exact:
        return parts
    if not set(names) <= {*BOUNDS, "exact", *ANY_MODEL}:
        raise ValueError(
            f"expected the methods exact and samples for a model without a latent, whose log p(x) "
            f"is exact; got {', '.join(names)}"
        )
    others = [part for part in parts if part.name in ANY_MODEL]
    exact = [find("method", "exact", METHODS)] if len(others) < len(parts) else []
    return [*exact, *others]
