"""A prior fitted after training to the aggregate posterior, encoder and decoder left as they are
(ex-post; Ghosh et al. 2020).

The ELBO with everything but the prior frozen is, up to a constant, E_q(z|x) log p(z): its maximum
is the prior nearest to the aggregate posterior mean_n q(z | x_n). What results is a run like any
other, whose samples start where codes lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaestro import latent
from vaestro.data.writers import write_data, write_grid
from vaestro.evaluation import evaluate, plus_minus
from vaestro.evaluation.records import mean_and_error
from vaestro.models import LatentModel
from vaestro.parts import find
from vaestro.runs import Job, Run

EPOCHS, LR = 5.0, 1e-2  # a prior alone learns at a higher rate than a whole model
ROWS, DRAWS = 2000, 20  # data and draws that before and after are compared by
SHOWN = 64


@dataclass(frozen=True)
class Fitted:
    """Hold what fitting a prior did.

    Args:
        run: the new run.
        before, after: ELBO of the same held-out data, (mean, standard error), in nats; n data of a
            split.
        gain: after less before, paired over data and draws, (mean, standard error).
        samples: the pictures or tables of samples, before and after.
        kept: whether the new run is on the disk. One that lowers the bound is removed, unless that
            was forced.
    """

    run: Run
    split: str
    n: int
    before: tuple[float, float]
    after: tuple[float, float]
    gain: tuple[float, float]
    samples: tuple[Path, Path]
    kept: bool

    def lines(self) -> list[str]:
        """Return the bounds before and after in words, with the files of samples."""
        before, after = [f", samples in {path}" if self.kept else "" for path in self.samples]
        return [
            f"before: log p(x) >= {plus_minus(self.before)} nats (ELBO, {self.n:,} {self.split} "
            f"data){before}",
            f"after:  log p(x) >= {plus_minus(self.after)} nats{after}",
        ]

    def sentence(self) -> str:
        """Say by how much the prior moves the bound."""
        moved, error = self.gain
        return (
            f"the fitted prior {'raises' if moved >= 0 else 'lowers'} the bound by "
            f"{plus_minus((abs(moved), error))} nats"
        )


def prepare(
    run: Run, prior: str, path: str | Path | None = None, *, force: bool = False, **options: Any
) -> Job:
    """Prepare a run that fits a prior to another run's aggregate posterior.

    Args:
        run: a trained run.
        prior: a name of the table, with options.
        path: the new folder; by default RUN-PRIOR.
        force: overwrite an existing run.
        options: of training, such as epochs, lr, seed; other parts than the prior stay as they are.

    Raises:
        ValueError: the run has no weights, or the prior has no meaning for it.
    """
    model = run.model()  # says what is wrong before anything is written
    name = find("prior", prior).name.replace(":", "-")
    kept = (
        "source",
        "condition",
        "latent",
        "likelihood",
        "posterior",
        "network",
        "encoder",
        "decoder",
        "batch",
        "device",
    )
    config = {key: run.config[key] for key in kept if run.config.get(key) is not None}
    source = config.pop("source")
    given = {k: v for k, v in options.items() if v is not None}
    asked: dict[str, Any] = (
        {"lr": LR}
        if {"steps", "epochs", "minutes"} & given.keys()
        else {"lr": LR, "epochs": EPOCHS}
    )
    # Nothing goes through z to a frozen encoder: hard draws of discrete latents are what the prior
    # is for.
    gradient = "score:baseline=none" if model.alphabet else "pathwise"
    fixed = {
        "prior": prior,
        "init": str(run.path),
        "freeze": ["posterior", "likelihood"],
        "objective": "elbo",
        "gradient": gradient,
    }
    where = Path(f"{str(run.path).rstrip('/')}-{name}") if path is None else Path(path)
    return Job.new(source, run=where, force=force, **{**config, **asked, **given, **fixed})


def finish(run: Run, job: Job, seed: int = 0, *, force: bool = False) -> Fitted:
    """Compare before and after on held-out data, and write samples of both into the new run's
    folder.

    A run that lowers the bound is removed, unless `force`.
    """
    data = job.data
    rows = (
        next((r for r in (data.valid, data.test, data.train) if len(r)), data.train)
        .spread(ROWS)
        .fixed()
    )
    before, after = run.model(), job.run.model()
    scores = [
        evaluate(m, rows, k=DRAWS, methods="elbo", seed=seed)["elbo"].nats for m in (before, after)
    ]
    files = tuple(
        _samples(m, job.path, when, rows, seed)
        for m, when in ((before, "before"), (after, "after"))
    )
    found = [mean_and_error(s.astype(np.float64)) for s in (*scores, scores[1] - scores[0])]
    fitted = Fitted(
        job.run,
        rows.name,
        len(rows),
        found[0],
        found[1],
        found[2],
        (files[0], files[1]),
        force or found[2][0] >= 0,
    )
    if not fitted.kept:
        job.discard()
    return fitted


def _samples(model: LatentModel, folder: Path, when: str, rows: Any, seed: int) -> Path:
    given = latent.given_of(rows.spread(SHOWN))
    drawn = latent.sample(
        model,
        SHOWN if given is None else len(given),
        given=given,
        seed=seed,
        mean=model.space.image,
    )
    if model.space.image:
        path = folder / f"samples-{when}.png"
        write_grid(
            path,
            {"": drawn},
            model.space,
            f"means of p(x|z) at draws of z, {when} the prior was fitted",
        )
    else:
        suffix = "txt" if model.space.tokeniser else "csv" if model.space.columns else "npz"
        path = folder / f"samples-{when}.{suffix}"
        write_data(path, drawn)
    return path


def fit_prior(
    run: str | Path | Run,
    prior: str = "mixture",
    path: str | Path | None = None,
    *,
    force: bool = False,
    **options: Any,
) -> Fitted:
    """Fit a prior to a run's aggregate posterior, encoder and decoder frozen, and write a new run:
    what `vaestro fit-prior` calls.

    Args:
        run: a trained run.
        prior, path, force, options: see `prepare`.

    Raises:
        ValueError: the run has no weights, or the prior has no meaning for it; nothing was written.
        RuntimeError: the fitted prior lowers the bound; its run was removed. With `force` it is
            kept.
    """
    opened = run if isinstance(run, Run) else Run(run)
    job = prepare(opened, prior, path, force=force, **options)
    with job:
        for _ in job:
            pass
    fitted = finish(opened, job, force=force)
    if not fitted.kept:
        raise RuntimeError(f"{fitted.sentence()}: its run was not written (force=True writes it)")
    return fitted
