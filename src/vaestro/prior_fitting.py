"""Fit a prior to the aggregate posterior after training, with encoder and decoder frozen (ex-post
density estimation; Ghosh et al. 2020).

If only the prior is trained, the ELBO is E_q(z|x) log p(z) up to a constant. Its maximum is the
prior with the smallest KL(mean_n q(z | x_n) || p(z)). The result is a run like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaestro import latent
from vaestro.data import Rows
from vaestro.data.writers import write_data, write_grid
from vaestro.evaluation import evaluate, plus_minus
from vaestro.evaluation.records import mean_and_error
from vaestro.files import Json
from vaestro.models import Model, with_latent
from vaestro.options import Config
from vaestro.parts import find
from vaestro.runs import Job, Run
from vaestro.runs.manifest import register

EPOCHS, STEPS = 5.0, 2000  # default length: the larger of the two
LR = 1e-2  # a prior alone can be trained at a higher rate than a whole model
ROWS, DRAWS = 2000, 20  # number of data, and of draws for each, that compare the two priors
SHOWN = 64


@dataclass(frozen=True)
class Fitted:
    """Hold the result of fitting a prior.

    Args:
        run: the new run.
        split, n: of the held-out data.
        before, after: ELBO on these data, (mean, standard error), in nats.
        gain: `after` minus `before`, paired over data and draws, (mean, standard error), in nats.
        samples: the files of samples from the old prior and from the new one.
        kept: whether the new run was kept. It is removed if it lowers the bound, unless forced.

    >>> from vaestro.runs import Run
    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="example", latent=2, steps=2)
    >>> numbers = {"before": (-5.0, 0.1), "after": (-4.0, 0.1), "gain": (1.0, 0.05)}
    >>> files = Path("a.csv"), Path("b.csv")
    >>> Fitted(run, "test", 3, **numbers, samples=files, kept=True).sentence()
    'the fitted prior raises the bound by 1.00 +- 0.05 nats'
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
        """Return by how much the prior changes the bound, in words."""
        change, error = self.gain
        words = f"the fitted prior {'raises' if change >= 0 else 'lowers'} the bound by "
        within = ", which is within the error" if abs(change) < 2 * error else ""
        return f"{words}{plus_minus((abs(change), error))} nats{within}"


def prepare(
    run: Run, prior: str, path: str | Path | None = None, *, force: bool = False, **options: Json
) -> Job:
    """Prepare a run that fits a prior to another run's aggregate posterior.

    Args:
        run: a trained run.
        prior: the name of a prior, with options.
        path: the new folder; by default RUN-PRIOR.
        force: overwrite an existing run.
        options: of training, such as epochs, lr and seed.

    Raises:
        ValueError: the run has no weights, or the prior does not apply to it.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="second", latent=2, steps=2)
    >>> prepare(run, "mixture:components=2", steps=2).training.settings.freeze
    ('posterior', 'likelihood')
    """
    # raise an error for a run without weights before anything is written
    model = with_latent(run.model())
    name = find("prior", prior).name.replace(":", "-")
    kept = (
        "source",
        "condition",
        "model",
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
    length = {} if {"steps", "epochs", "minutes"} & given.keys() else _length(run)
    asked: Config = {"lr": LR, **length}
    # The encoder is frozen, so no gradient is needed through z: discrete latents are not relaxed.
    gradient = "score:baseline=none" if model.alphabet else "pathwise"
    fixed = {
        "prior": prior,
        "init": str(run.path),
        "freeze": ["posterior", "likelihood"],
        "objective": "elbo",
        "gradient": gradient,
    }
    where = Path(f"{str(run.path).rstrip('/')}-{name}") if path is None else Path(path)
    options = {**config, **asked, **given, **fixed}
    return Job.new(source, run=where, force=force, trust=run.trust, **options)


def _length(run: Run) -> Config:
    """Return the default length: a prior needs some number of steps, however few the rows are."""
    last = run.metrics()[-1]
    a_pass = last["step"] / last["epoch"] if last["epoch"] else 0.0
    return {"epochs": EPOCHS} if EPOCHS * a_pass > STEPS else {"steps": STEPS}


def finish(run: Run, job: Job, seed: int = 0, *, force: bool = False) -> Fitted:
    """Compare the old prior and the new one on held-out data, and write samples from both into the
    new run's folder. If the new prior lowers the bound, its run is removed.

    Args:
        run: the old run.
        job: the new run, trained.
        seed: of the draws.
        force: keep the new run in any case.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="third", latent=2, steps=2)
    >>> job = prepare(run, "mixture:components=2", steps=2)
    >>> with job:
    ...     for step in job:
    ...         pass
    >>> finish(run, job, force=True).n
    3
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
    old, new, gain = (
        mean_and_error(s.astype(np.float64)) for s in (*scores, scores[1] - scores[0])
    )
    fitted = Fitted(
        job.run,
        rows.name,
        len(rows),
        before=old,
        after=new,
        gain=gain,
        samples=(files[0], files[1]),
        kept=force or gain[0] >= 0,
    )
    if not fitted.kept:
        job.discard()
    return fitted


def _samples(model: Model, folder: Path, when: str, rows: Rows, seed: int) -> Path:
    """Write samples from a model, and return their file."""
    given = latent.given_of(rows.spread(SHOWN))
    drawn = latent.sample(
        model,
        SHOWN if given is None else len(given),
        given=given,
        seed=seed,
        mean=model.space.image,
    )
    path = folder / f"samples-{when}{latent.file_suffix(model.space)}"
    register(folder, path.name)
    if model.space.image:
        title = f"means of p(x|z) at draws of z, {when} the prior was fitted"
        write_grid(path, {"": drawn}, model.space, title)
    else:
        write_data(path, drawn)
    return path


def fit_prior(
    run: str | Path | Run,
    prior: str = "mixture",
    path: str | Path | None = None,
    *,
    force: bool = False,
    **options: Json,
) -> Fitted:
    """Fit a prior to a run's aggregate posterior, with encoder and decoder frozen, and write a new
    run, as `vaestro fit-prior` does.

    Args:
        run: a trained run.
        prior, path, force, options: see `prepare`.

    Raises:
        ValueError: the run has no weights, or the prior does not apply; nothing was written.
        RuntimeError: the fitted prior lowers the bound; its run was removed. It is kept with
            `force`.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="fourth", latent=2, steps=2)
    >>> fit_prior(run, "mixture:components=2", steps=2, force=True).kept
    True
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
