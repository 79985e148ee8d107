"""Diagnose a run, and measure the noise of gradient estimators on it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import vaestro
from vaestro.data import Data, Rows
from vaestro.data.writers import write_arrays
from vaestro.diagnosis import Case, Curves, Diagnosis, Remedies, diagnosed, measure
from vaestro.diagnosis.continuation import Continuation, continued, worsened
from vaestro.diagnosis.measure import Measures
from vaestro.diagnosis.noise import Noises, gradient_noise
from vaestro.diagnosis.noise_picture import draw as draw_noise
from vaestro.diagnosis.statistics import Paired
from vaestro.evaluation.dependence import Dependence, dependence
from vaestro.evaluation.sampling import as_drawn, draw_like, table_of
from vaestro.models import Model, with_latent
from vaestro.objectives import Objective, Schedule
from vaestro.options import Config, defaults, normalised
from vaestro.parts import find
from vaestro.randomness import numpy_generator, torch_generator
from vaestro.records import write_record
from vaestro.runs.checkpoints import read_checkpoint
from vaestro.runs.manifest import results
from vaestro.runs.preparing import make_objective, trial, untrained
from vaestro.runs.run import Run
from vaestro.text import parse

if TYPE_CHECKING:
    from vaestro.runs.session import Session

SAMPLED = (100, 2000)  # smallest and largest number of rows drawn to measure dependence


def diagnose(session: Session, *, seed: int = 0) -> Diagnosis:
    """Find faults of a session's run, and write diagnosis.json and diagnosis.npz.

    Args:
        session: on the run.
        seed: of the draws.

    Raises:
        ValueError: the run has no weights yet.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="example", latent=2, steps=2)
    >>> len(diagnose(vs.open(run)).units)
    2
    """
    run, model, data = session.run, session.model, session.data
    config = defaults() | normalised(run.config)
    weights = sum(p.numel() for p in model.parameters())
    remedy = Remedies(str(run.path), run.config, trial(data), weights, trust=run.trust)
    held_out = next((rows for rows in (data.valid, data.test) if len(rows)), data.valid)
    metrics, steps = run.metrics(), int(config["steps"])
    objective = _objective(model, data, config)
    logged = Curves(metrics, steps, run.finished)
    if objective.beta.adaptive and logged.lines and math.isfinite(logged.beta):
        objective.beta = Schedule(logged.beta)  # its value at the end of the run
    measures = _measures(run, model, data, held_out, objective, seed)
    curves = Curves(metrics, steps, run.finished, measures.valid[1] if measures else 0.0)
    complete = measures is not None and run.finished and run.failure is None
    further = complete and curves.valid and len(held_out)
    split = (held_out if len(held_out) else data.train).name
    log_dets = model.space.log_dets()
    case = Case(
        continued=_continued(model, data, held_out, objective, config, seed) if further else None,
        worsened=None
        if measures is None
        else _worsened(run, model, data, objective, curves, remedy, config),
        dependence=None if measures is None else _dependence(model, data, seed),
        remedy=remedy,
        curves=curves,
        measures=measures,
        units=model.units,
        beta=objective.beta.value,
        extra=objective.terms,
        autoregressive=model.capabilities.autoregressive,
        reads_latent=model.capabilities.reads_latent,
        failure=run.failure,
        notes=(
            *(("duplicates between splits", sentence) for sentence in data.shared),
            *(("data changed", sentence) for sentence in run.changed(data, split)),
            *(("damaged log", sentence) for sentence in run.damage()),
        ),
        log_det=0.0 if log_dets is None else float(log_dets.sum()),
        cells=float(model.space.cells),
        discrete=model.space.discrete,
        known={"weights_sha256": session.weights_sha256, "vaestro": vaestro.__version__},
    )
    diagnosis = diagnosed(case)
    with results(run.path, "diagnosis.json", "diagnosis.npz"):
        write_arrays(run.path / "diagnosis.npz", diagnosis.arrays)
        write_record(run.path / "diagnosis.json", diagnosis.line())
    return diagnosis


def _objective(model: Model, data: Data, config: Config) -> Objective:
    """Return the objective of a run, prepared as for its training."""
    objective = make_objective(config)
    device = next(model.parameters()).device
    objective.plan(max(int(config["steps"]), 1), len(data.train) / config["batch"])
    some = data.train.take(min(len(data.train), 2)).fixed().batch(slice(0, 2), device)
    objective.prepare(model, some, len(data.train), config["batch"], config["seed"])
    objective.to(device).eval()
    return objective


def _measures(
    run: Run, model: Model, data: Data, held_out: Rows, objective: Objective, seed: int
) -> Measures | None:
    """Measure a model on held-out data; None if some of its weights are not finite."""
    if not all(bool(p.isfinite().all()) for p in model.state_dict().values()):
        return None
    config = run.config
    validated = held_out is data.valid and config.get("keep") != "last"
    return measure(
        model,
        data.train,
        held_out,
        objective,
        batch=config["batch"],
        seed=seed,
        unseen=data.test if held_out is data.valid else None,
        validations=sum(line.get("split") == "valid" for line in run.metrics()) * validated,
    )


def _dependence(model: Model, data: Data, seed: int) -> Dependence | None:
    """Measure how much dependence between the columns of a table samples lose: two halves of some
    training rows are compared with as many drawn rows."""
    if not model.space.tabular or len(data.train) < 2 * SAMPLED[0]:
        return None
    rows = data.train.spread(2 * SAMPLED[1]).fixed()
    order = numpy_generator(seed, "halves").permutation(len(rows))
    half = len(rows) // 2
    first, second = rows.pick(order[:half]), rows.pick(order[half : 2 * half])
    device = next(model.parameters()).device
    drawn = draw_like(model, second, torch_generator(device, seed, "dependence"))
    samples = table_of(as_drawn(second, drawn))
    return dependence(table_of(first), table_of(second), samples, seed)


def _continued(
    model: Model, data: Data, held_out: Rows, objective: Objective, config: Config, seed: int
) -> Continuation | None:
    """Train a copy of the kept weights for some further steps."""
    return continued(
        model,
        data.train,
        held_out,
        objective,
        optimizer=find("optimizer", config["optimizer"]),
        steps=int(config["steps"]),
        batch=config["batch"],
        lr=config["lr"],
        clip=config["clip"],
        seed=seed,
        freeze=config["freeze"] or (),
    )


def _worsened(
    run: Run,
    model: Model,
    data: Data,
    objective: Objective,
    curves: Curves,
    remedy: Remedies,
    config: Config,
) -> Paired | None:
    """Compare the loss on training data before the first step and at the end, if the validation
    loss is higher at the end than at its start."""
    ends = curves.ends(remedy)
    checkpoints = sorted((run.path / "checkpoints").glob("*.safetensors"), reverse=True)
    if ends is None or ends[1] <= ends[0] or not checkpoints:
        return None
    try:
        tensors, _ = read_checkpoint(checkpoints[0])
        last, first = copy.deepcopy(model), untrained(model, data, config)
        last.load_state_dict(
            {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
        )
    except (ValueError, RuntimeError):
        return None  # the log alone decides
    return worsened(first, last, data.train, objective)


def gradients(
    session: Session,
    *,
    k: Sequence[int] | None = None,
    estimators: Sequence[str] | None = None,
    bound: str | None = None,
    repeats: int = 40,
    seed: int = 0,
) -> Iterator[tuple[float, Noises | None]]:
    """Measure the noise of each gradient estimator on a run's model and a batch of its data.

    Yields (share of the work that is done, None), and at the end (1, Noises), after gradients.json
    and gradients.png are written.

    Args:
        session: on the run.
        k: numbers of draws; by default the run's own, and 8.
        estimators: names with options; by default all that apply to the model.
        bound: "elbo" or "iwae"; by default the run's own.
        repeats: independent draws of the noise.
        seed: of batch and noise.

    Raises:
        ValueError: the run has no weights yet, or an estimator or a bound does not apply.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="second", latent=2, steps=2, network="linear")
    >>> *_, (share, noises) = gradients(vs.open(run), k=[1], estimators=["pathwise"], repeats=20)
    >>> share
    1.0
    """
    run = session.run
    config = defaults() | normalised(run.config)
    objective = make_objective(config)
    if bound is None:
        bound = "elbo" if parse(config["objective"]).name == "elbo" else "iwae"
    draws = tuple(dict.fromkeys((objective.k, 8))) if k is None else tuple(k)
    data, model = session.data, with_latent(session.model)
    for share, noises in gradient_noise(
        model,
        data.train,
        bound=bound,
        k=draws,
        beta=objective.beta.value,
        estimators=estimators,
        batch=config["batch"],
        repeats=repeats,
        seed=seed,
    ):
        if noises is not None:
            stamp = {"weights_sha256": session.weights_sha256, "vaestro": vaestro.__version__}
            with results(run.path, "gradients.json", "gradients.png"):
                write_record(run.path / "gradients.json", noises.line() | stamp)
                draw_noise(noises, run.path / "gradients.png")
        yield share, noises
