"""Diagnose a run, and measure the noise of gradient estimators on it."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence

import vaestro
from vaestro.data import Data, Rows
from vaestro.data.writers import write_arrays
from vaestro.diagnosis import Case, Curves, Diagnosis, Remedies, diagnosed, measure
from vaestro.diagnosis.continuation import Continuation, continued, worsened
from vaestro.diagnosis.noise import Noises, gradient_noise
from vaestro.diagnosis.noise_picture import draw as draw_noise
from vaestro.diagnosis.statistics import Paired
from vaestro.models import Model, with_latent
from vaestro.objectives import Objective, Schedule
from vaestro.options import defaults, normalised
from vaestro.parts import find
from vaestro.runs.checkpoints import read_checkpoint, write_text
from vaestro.runs.preparing import make_objective, trial, untrained
from vaestro.runs.run import Run
from vaestro.text import parse


def diagnose(
    run: Run, *, seed: int = 0, device: str = "cpu", data: Data | None = None
) -> Diagnosis:
    """Say what is wrong with the run, and write diagnosis.json and diagnosis.npz.

    Args:
        run: the run.
        seed: of the draws.
        device: where.
        data: the run's own, where they are read already.

    Raises:
        ValueError: the run has no weights yet.
    """
    model, config = run.model(device), run.config
    data = run.data() if data is None else data
    remedy = Remedies(
        str(run.path), config, trial(data), sum(p.numel() for p in model.parameters())
    )
    steps = int(config["steps"])
    objective = make_objective(defaults() | normalised(config))
    objective.plan(max(steps, 1), len(data.train) / config["batch"])
    some = data.train.take(min(len(data.train), 2)).fixed().batch(slice(0, 2), device)
    objective.prepare(model, some, len(data.train), config["batch"], config["seed"])
    objective.to(device).eval()
    held_out = next((rows for rows in (data.valid, data.test) if len(rows)), data.valid)
    finite = all(bool(p.isfinite().all()) for p in model.state_dict().values())
    log_dets = model.space.log_dets()
    metrics = run.metrics()
    logged, measures = Curves(metrics, steps, run.finished), None
    if objective.beta.adaptive and logged.lines and math.isfinite(logged.beta):
        objective.beta = Schedule(logged.beta)  # what it had come to
    if finite:
        chosen = (
            sum(line.get("split") == "valid" for line in metrics)
            if held_out is data.valid and config.get("keep") != "last"
            else 0
        )
        unseen = data.test if held_out is data.valid else None
        measures = measure(
            model,
            data.train,
            held_out,
            objective,
            batch=config["batch"],
            seed=seed,
            unseen=unseen,
            validations=chosen,
        )
    curves = Curves(metrics, steps, run.finished, measures.valid[1] if measures else 0.0)
    further = (
        measures is not None
        and run.finished
        and run.failure is None
        and curves.valid
        and len(held_out)
    )
    case = Case(
        continued=_continued(run, model, data, held_out, objective, seed) if further else None,
        worsened=_worsened(run, model, data, objective, curves, remedy)
        if measures is not None
        else None,
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
            *(
                ("data changed", sentence)
                for sentence in run.changed(data, (held_out if len(held_out) else data.train).name)
            ),
        ),
        log_det=0.0 if log_dets is None else float(log_dets.sum()),
        cells=float(model.space.cells),
        discrete=model.space.discrete,
        known={"weights_sha256": run.weights_sha256(), "vaestro": vaestro.__version__},
    )
    found = diagnosed(case)
    write_arrays(run.path / "diagnosis.npz", found.arrays)
    write_text(run.path / "diagnosis.json", json.dumps(found.line(), indent=1) + "\n")
    return found


def _continued(
    run: Run, model: Model, data: Data, held_out: Rows, objective: Objective, seed: int
) -> Continuation | None:
    """Train a copy of the kept weights a little further."""
    config = defaults() | normalised(run.config)
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
    run: Run, model: Model, data: Data, objective: Objective, curves: Curves, remedy: Remedies
) -> Paired | None:
    """Compare training data before the first step and at the end, where the validation loss
    ended above its start."""
    ends = curves.ends(remedy)
    newest = next(
        iter(sorted((run.path / "checkpoints").glob("*.safetensors"), reverse=True)), None
    )
    if ends is None or ends[1] <= ends[0] or newest is None:
        return None
    try:
        tensors, _ = read_checkpoint(newest)
        last, first = (
            copy.deepcopy(model),
            untrained(model, data, defaults() | normalised(run.config)),
        )
        last.load_state_dict(
            {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
        )
    except (ValueError, RuntimeError):
        return None  # the log alone decides
    return worsened(first, last, data.train, objective)


def gradients(
    run: Run,
    *,
    k: Sequence[int] | None = None,
    estimators: Sequence[str] | None = None,
    bound: str | None = None,
    repeats: int = 40,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[tuple[float, Noises | None]]:
    """Measure how noisy each gradient estimator is on the run's model and a batch of its
    training data.

    Yields (share of the work done, None), and at the end (1, Noises), when gradients.json and
    gradients.png are written.

    Args:
        run: the run.
        k: numbers of draws; by default the run's own, and 8.
        estimators: names with options; by default every one that has a meaning.
        bound: "elbo" or "iwae"; by default the run's own.
        repeats: independent draws of the noise.
        seed: of batch and noise.
        device: where.

    Raises:
        ValueError: the run has no weights yet, or what was asked for has no meaning.
    """
    config = defaults() | normalised(run.config)
    objective = make_objective(config)
    bound = (
        ("elbo" if parse(config["objective"]).name == "elbo" else "iwae")
        if bound is None
        else bound
    )
    draws = tuple(dict.fromkeys((objective.k, 8))) if k is None else tuple(k)
    data, model = run.data(), with_latent(run.model(device))
    found = None
    for share, found in gradient_noise(
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
        if found is not None:
            known = {"weights_sha256": run.weights_sha256(), "vaestro": vaestro.__version__}
            write_text(
                run.path / "gradients.json", json.dumps(found.line() | known, indent=1) + "\n"
            )
            draw_noise(found, run.path / "gradients.png")
        yield share, found
