"""Evaluate a run, and write the results into its folder."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vaestro import evaluation as evaluation_module
from vaestro.data import Rows
from vaestro.evaluation import Evaluation, Independent, compares_with_training
from vaestro.latent import fidelity
from vaestro.models import Model
from vaestro.runs.independent import compared
from vaestro.runs.results import evaluated, write_evaluation
from vaestro.runs.run import Run
from vaestro.runs.sources import Conditions, HeldOut, Source

if TYPE_CHECKING:
    from vaestro.runs.session import Session


def evaluate(
    model: Model | str | Path | Run | Session,
    data: Source | None = None,
    *,
    methods: str | Sequence[str] = ("elbo", "iwae"),
    k: int = 500,
    limit: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    split: str | None = None,
    condition: Conditions = None,
    train: Rows | None = None,
) -> Evaluation:
    """Bound log p(x) of held-out data, in nats.

    For a run, write the files that `vaestro evaluate` writes: evaluation.json and evaluation.npz in
    its folder. For a bare model, write nothing and return the evaluation alone.

    Args:
        model: a run, its folder, or a session; or a trained model.
        data: for a run, other data of the same kind; by default its own. For a model, rows of its
            space, such as `data.test`.
        methods: elbo, iwae, ais, gap, information and samples, with options: "ais:chains=16".
        k: draws for each datum.
        limit: the number of rows, drawn at random by the seed; by default all.
        seed: of the draws.
        device: the device to compute on; by default cpu, or where the model is.
        split, condition: for a run; see `Session.held_out`.
        train: for a model, the training rows, which samples compares with.

    Raises:
        ValueError: the data do not fit, or an argument is out of range.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="example", latent=2, steps=2)
    >>> vs.evaluate(run, k=8)["iwae"].side
    'lower'
    >>> vs.evaluate(run.model(), run.data().test, k=8)["elbo"].k
    8
    """
    if isinstance(model, Model):
        if not isinstance(data, Rows):
            raise ValueError(f"expected rows to evaluate a model on; got {type(data).__name__}")
        return evaluation_module.evaluate(
            model, data, methods=methods, k=k, limit=limit, seed=seed, device=device, train=train
        )
    if isinstance(model, (str, Path, Run)):
        from vaestro.runs.session import Session

        model = Session(model, "cpu" if device is None else str(device))
    return model.evaluate(
        data, methods=methods, k=k, split=split, limit=limit, condition=condition, seed=seed
    )


def held_out(
    session: Session, data: Source | None, split: str | None, condition: Conditions
) -> HeldOut:
    """Return the rows to evaluate: see `Session.held_out`.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="second", latent=2, steps=2)
    >>> held_out(vs.open(run), x[:7], None, None).source
    'real (3,)'
    """
    space = session.model.space
    if data is not None:
        source = session.source(data)
        rows = session.rows(source, split, condition)
        return HeldOut(rows.fixed(), source if isinstance(source, str) else str(space))
    if condition:
        raise ValueError(
            "expected --condition only with --data; got it for the run's own data, which have "
            "their conditions"
        )
    name = split or "test"
    rows = session.data.split(name).fixed()
    changed = tuple(session.run.changed(session.data, name))
    return HeldOut(rows, session.run.options["source"], changed)


def evaluating(
    session: Session,
    held_out: HeldOut,
    *,
    methods: str | Sequence[str],
    k: int,
    limit: int | None,
    seed: int,
    rank: int = 0,
    processes: int = 1,
) -> Generator[tuple[float, Evaluation | None]]:
    """Evaluate held-out data, and write evaluation.json and .npz.

    Yields (share of the work that is done, None), and at the end (1, the evaluation), after the
    files are written. A stopped evaluation continues from the pieces that were finished.

    Args:
        session: a session on the run.
        held_out: the rows to evaluate, from `held_out`.
        methods: names of methods, with options.
        k: draws for each datum.
        limit: the number of rows, drawn at random by the seed; by default all.
        seed: of the draws.
        rank: of this process; the first one writes.
        processes: the number of processes that share the work.

    Raises:
        ValueError: a method is unknown, or an argument is out of range.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> session = vs.open(vs.train(x, run="third", latent=2, steps=2))
    >>> steps = evaluating(
    ...     session, session.held_out(), methods="elbo", k=2, limit=None, seed=0
    ... )
    >>> [share for share, _ in steps][-1]
    1.0
    """
    steps = evaluation_module.evaluating(
        session.model,
        held_out.rows,
        k=k,
        methods=methods,
        limit=limit,
        seed=seed,
        train=session.data.train if compares_with_training(methods) else None,
        folder=session.run.path / "evaluating",
        rank=rank,
        processes=processes,
    )
    weights = session.weights_sha256
    try:
        for share, evaluation in steps:
            if evaluation is not None:
                warnings = (*held_out.changed, *evaluation.warnings)
                evaluation = replace(evaluation, warnings=warnings)
                if processes == 1:
                    alone = _independent(session, evaluation, held_out.rows)
                    evaluation = replace(evaluation, independent=alone)
                if rank == 0:
                    close = fidelity(session.model, evaluated(held_out.rows, evaluation.index))
                    evaluation = replace(evaluation, fidelity=close)
                    write_evaluation(
                        session.run, evaluation, held_out.rows, held_out.source, weights
                    )
            yield share, evaluation
    finally:
        steps.close()  # keeps the finished pieces


def _independent(session: Session, evaluation: Evaluation, rows: Rows) -> Independent | None:
    """Return the comparison with independent cells; None if the run is such a model, no
    bound was asked for, or its training data cannot be read."""
    if session.run.config["model"] == "independent" or not evaluation.estimates:
        return None
    try:
        data = session.data
    except ValueError:
        return None
    return compared(evaluation, data, rows, session.run.config)
