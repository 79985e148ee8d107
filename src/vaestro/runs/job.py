"""A run's folder: what was asked, what was logged, the weights, and the results.

    RUN/config.yaml            every option, resolved; `vaestro train --config RUN/config.yaml`
    repeats the run RUN/metrics.jsonl          a line each time something is logged
    RUN/data.json              how many data of each split there were, and hashes of them
    RUN/environment.json       the machine and the versions that the run was made with
    RUN/config.json            what the model is, and RUN/model.safetensors its weights in use
    RUN/kept.json              the step of these weights, and why they were kept
    RUN/checkpoints/           complete states to resume from, written aside and renamed; the last
    two are kept RUN/evaluation.json, .npz  bounds on held-out data
    RUN/diagnosis.json, .npz   what is wrong with it, and what each latent unit carries
    RUN/gradients.json, .png   how noisy each gradient estimator is on its model and data
    RUN/failure.json           why training ended, where it did not end by itself
    RUN/showcase.json, .npz    what the report shows of data, reconstructions, samples, traversals
    and codes; RUN/report.html

Weights are tensors only, and nothing here is ever unpickled.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaestro
from vaestro.data import Data, load, tables
from vaestro.data.matching import Origin
from vaestro.data.readers import Progress, parse_source
from vaestro.data.sets import Streamed
from vaestro.data.texts import as_texts
from vaestro.diagnosis import Finding, Remedies, Watcher, lint
from vaestro.diagnosis.lint import Plan
from vaestro.diagnosis.remedies import Trial
from vaestro.evaluation import in_space
from vaestro.files import FORMAT, read_config
from vaestro.frames import Frame
from vaestro.loop import Diverged, Step, Training, training
from vaestro.models import LatentModel
from vaestro.objectives import Objective, Schedule
from vaestro.options import defaults, documented, dump_config, names, normalised, resumable
from vaestro.parts import (
    build,
    default_gradient,
    default_likelihood,
    default_network,
    default_prior,
    find,
)
from vaestro.penalties import Capacity, FreeBits, RateTerm
from vaestro.randomness import derive, numpy_generator
from vaestro.runs.checkpoints import read_checkpoint, save_tensors, write_text
from vaestro.runs.run import Run
from vaestro.text import Spec, alternatives, as_number, parse
from vaestro.transfer import stored_origin, take_over

CHECKPOINT_SECONDS = 20.0
FILES = (
    "config.yaml",
    "config.json",
    "metrics.jsonl",
    "model.safetensors",
    "evaluation*.json",
    "evaluation*.npz",
    "samples.*",
    "samples-before.*",
    "samples-after.*",
    "data.npy",
    "data.parquet",
    "data.json",
    "kept.json",
    "failure.json",
    "diagnosis.json",
    "diagnosis.npz",
    "environment.json",
    "gradients.json",
    "gradients.png",
    "showcase.*",
    "report.html",
)


@documented(lambda row: row.name != "source")
def train(
    source: Any = None,
    *,
    run: str | Path | None = None,
    force: bool = False,
    config: str | Path | None = None,
    recipe: str | None = None,
    **options: Any,
) -> Run:
    """Train a model, write a run's folder, and return the run; `vaestro train` does the same.

    Args:
        source: `mnist` (the default), a path with options, or an array (N, ...) or table, which is
            stored with the run.
        run: the folder; by default runs/SOURCE-DATE-TIME.
        force: overwrite an existing run.
        config: a YAML file of options; options that are given override it.
        recipe: a named set of options, such as "beta-tcvae:beta=6"; options that are given
            override it.
        {options}

    Raises:
        ValueError: the options are invalid; nothing was written.
        Diverged: training failed; the weights before the failure are kept.
        KeyboardInterrupt: after the state has been saved.
    """
    return _run_through(
        Job.new(source, run=run, force=force, config=config, recipe=recipe, **options)
    )


@documented(lambda row: row.resumable)
def resume(run: str | Path, **options: Any) -> Run:
    """Continue a stopped run and return it. The result is the same as without the stop.

    Args:
        run: the run's folder.
        {options}

    Raises:
        ValueError: it is not a run's folder, or the options are invalid.
    """
    return _run_through(Job.resumed(run, **options))


def _run_through(job: Job) -> Run:
    with job:
        for _ in job:
            pass
    return job.run


class Job(Iterator[Step]):
    """Iterate over a run's steps while its folder is written. Made by `Job.new` or `Job.resumed`.

    `with job:` holds Ctrl-C back until the state is saved; the next step then raises
    KeyboardInterrupt.
    """

    def __init__(
        self,
        training: Training,
        data: Data,
        config: dict[str, Any],
        path: Path,
        notes: tuple[str, ...],
    ) -> None:
        self.training, self.data, self.config, self.path, self.notes = (
            training,
            data,
            config,
            path,
            notes,
        )
        self.writes = training.rank == 0
        self._saved_at = time.monotonic()
        self._interrupted = False
        self._handlers: dict[int, Any] = {}
        self._saved_step = -1
        self._new = False  # whether its folder was made by it

    # -- making one --------------------------------------------------------------------------------

    @classmethod
    def new(
        cls,
        source: Any = None,
        *,
        run: str | Path | None = None,
        force: bool = False,
        config: str | Path | None = None,
        recipe: str | None = None,
        dry: bool = False,
        progress: Progress | None = None,
        **options: Any,
    ) -> Job:
        """Prepare a run; unless `dry`, make its folder. Options given here win over those of the
        file `config`.

        Raises:
            ValueError: something that was asked for is impossible; nothing was written.
        """
        asked = {} if config is None else read_config(config)
        given = {k: v for k, v in options.items() if v is not None}
        if any(k in given for k in ("epochs", "steps", "minutes")):
            asked = {k: v for k, v in asked.items() if k not in ("epochs", "steps", "minutes")}
        asked |= {} if recipe is None else find("recipe", recipe)()
        asked |= given
        asked = normalised(asked)
        held = source is not None and not isinstance(source, (str, Path))
        if source is not None and not held:
            asked["source"] = str(source)
        model = own = origin = None
        if asked.get("init"):
            model, own = _start(asked["init"])
            origin = Origin(asked["init"], model.space, model.given)
            asked = own | {k: v for k, v in asked.items() if v is not None}
            asked["condition"] = list(origin.conditions(asked.get("condition") or ())) or None
        asked = defaults() | asked
        data = load(
            source if held else asked["source"],
            condition=asked["condition"] or (),
            origin=origin,
            progress=progress,
        )
        path = Path(run) if run is not None else _fresh_name(data.source)
        if not dry and os.environ.get("RANK", "0") == "0":
            _refuse_existing(path, force)
        training, resolved = _prepare(data, asked)
        taken = (
            []
            if model is None or own is None
            else take_over(training, model, own, resolved, asked["init"])
        )
        job = cls(training, data, resolved, path, (*data.notes, *taken))
        if not dry and job.writes:
            _clear(path)
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            found = as_texts(source)
            if isinstance(source, np.ndarray) and found is None:
                np.save(path / "data.npy", source, allow_pickle=False)
                resolved["source"] = f"{path / 'data.npy'}{data.source.removeprefix('array')}"
            elif held:
                frame = source if isinstance(source, Frame) else None
                if found is not None:
                    frame = Frame({"text": np.ma.MaskedArray(found.lines.astype(str))})
                tables.write_frame(
                    path / "data.parquet", tables.frame_of(source) if frame is None else frame
                )
                resolved["source"] = str(path / "data.parquet") + (
                    ":text=text" if found is not None else ""
                )
            write_text(path / "config.yaml", dump_config(resolved))
            write_text(
                path / "config.json",
                json.dumps(_model_json(training.model, resolved), indent=1) + "\n",
            )
            prints = {
                name: getattr(data, name).fingerprint() for name in ("train", "valid", "test")
            }
            write_text(path / "data.json", json.dumps(prints, indent=1) + "\n")
            write_text(
                path / "environment.json", json.dumps(environment(training), indent=1) + "\n"
            )
            (path / "metrics.jsonl").touch()
            job._new = True
            if model is not None:
                job.checkpoint()  # the run can then be resumed without the one that it started from
        return job

    @classmethod
    def resumed(cls, run: str | Path, **options: Any) -> Job:
        """Prepare to go on with a run, from its last whole checkpoint, or from its beginning if it
        has none yet.

        Raises:
            ValueError: it is not a run, or an option other than epochs, steps, device and workers
                was given.
        """
        opened = Run(run)
        options = {k: v for k, v in options.items() if v is not None}
        other = [k for k in options if k not in resumable()]
        if other:
            raise ValueError(
                f"expected only {alternatives(resumable())} with resume; got {', '.join(other)}"
            )
        asked = normalised(opened.config)
        if "epochs" in options or "steps" in options:
            asked |= {"epochs": None, "steps": None, "minutes": None}
        asked = defaults() | asked | normalised(options)
        origin, start = stored_origin(opened.path, asked["init"]), None
        if asked["init"] and origin is None:
            start = _start(asked["init"])
            origin = Origin(asked["init"], start[0].space, start[0].given)
        data = load(asked["source"], condition=asked["condition"] or (), origin=origin)
        training, resolved = _prepare(data, asked)
        notes = list(data.notes)
        state = None
        for checkpoint in sorted((opened.path / "checkpoints").glob("*.safetensors"), reverse=True):
            try:
                state = read_checkpoint(checkpoint)
                break
            except ValueError as error:
                notes.append(
                    f"{checkpoint.name} is damaged ({error}); going on from the one before it"
                )
        job = cls(training, data, resolved, opened.path, tuple(notes))
        metrics, size = opened.path / "metrics.jsonl", 0
        if state is not None:
            tensors, numbers = state
            training.load(tensors, numbers)
            if "epochs" in options or "steps" in options:
                training.stopped_early = False  # more steps were asked for than patience allowed
            size = numbers["metrics_bytes"]
            job.notes = (*notes, f"going on from step {training.index:,} of {training.steps:,}")
        else:
            if asked["init"]:
                notes += take_over(
                    training, *(start or _start(asked["init"])), resolved, asked["init"]
                )
            job.notes = (*notes, "no checkpoint yet: starting from the beginning")
        if job.writes:
            (opened.path / "checkpoints").mkdir(exist_ok=True)
            (opened.path / "failure.json").unlink(missing_ok=True)
            metrics.touch()
            with metrics.open("r+b") as file:
                file.truncate(min(size, metrics.stat().st_size))
            write_text(opened.path / "config.yaml", dump_config(resolved))
        return job

    @property
    def run(self) -> Run:
        """Return the run."""
        return Run(self.path)

    def lint(self) -> list[Finding]:
        """Say what options and data show before the first step."""
        training = self.training
        parameters, units = (
            sum(p.numel() for p in training.model.parameters()),
            math.prod(training.model.units),
        )
        return lint(
            Plan(
                self._remedies(),
                self.data,
                parameters,
                units,
                training.objective.beta,
                training.steps,
                training.batch,
            )
        )

    def watcher(self) -> Watcher:
        """Return what says at each validation what the curves show."""
        return Watcher(
            self.training.steps,
            self._remedies(),
            reads_latent=self.training.model.capabilities.reads_latent,
        )

    def _remedies(self) -> Remedies:
        return Remedies(
            str(self.path),
            self.config,
            trial(self.data),
            sum(p.numel() for p in self.training.model.parameters()),
        )

    def __enter__(self) -> Job:
        """Hold Ctrl-C and SIGTERM back until the step in hand is whole and saved; a second one goes
        through."""
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *_: object) -> None:
        self.training.let_go()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def __next__(self) -> Step:
        if self._interrupted:
            if self.writes and self._saved_step != self.training.index:
                self.checkpoint()  # the signal came between two steps
            raise KeyboardInterrupt
        try:
            step = next(self.training)
        except StopIteration:
            self._save_weights()
            raise
        except (OSError, ValueError) as error:
            # a first step that is impossible as asked
            if self._new and self.training.index == 0 and isinstance(error, ValueError):
                self.discard()
            # streamed data that cannot be read any more
            elif self.writes and self.training.index > self._saved_step:
                self.checkpoint()
            raise
        except Diverged as error:
            self._save_weights()
            if self.writes:
                write_text(
                    self.path / "failure.json",
                    json.dumps({"step": self.training.index, "reason": str(error)}) + "\n",
                )
            raise
        if self.writes:
            # the first step turned out not to compile here
            if self.training.compile != self.config["compile"]:
                self.config["compile"] = self.training.compile
                write_text(self.path / "config.yaml", dump_config(self.config))
            for record in step.records:
                with (self.path / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps(record.line()) + "\n")
            if (
                step.last
                or self._interrupted
                or time.monotonic() - self._saved_at > CHECKPOINT_SECONDS
            ):
                self.checkpoint()
        return step

    def checkpoint(self) -> None:
        """Save the complete state and the weights in use."""
        tensors, numbers = self.training.state()
        numbers["metrics_bytes"] = (self.path / "metrics.jsonl").stat().st_size
        folder = self.path / "checkpoints"
        name = folder / f"step-{self.training.index:010d}.safetensors"
        save_tensors(name, tensors, {"numbers": json.dumps(numbers)})
        for old in sorted(folder.glob("step-*.safetensors"))[:-2]:
            old.unlink()
        self._save_weights()
        self._saved_at, self._saved_step = time.monotonic(), self.training.index

    def discard(self) -> None:
        """Remove what the run has written, and its folder if nothing else is in it."""
        if self.writes:
            _clear(self.path)
            with suppress(OSError):
                self.path.rmdir()

    def _save_weights(self) -> None:
        if self.writes:
            space = self.data.space
            tensors = {
                k: v.detach().cpu().clone().contiguous() for k, v in self.training.kept().items()
            }
            tensors |= {
                f"space.{k}": torch.from_numpy(np.array(v, order="C"))
                for k, v in space.arrays().items()
            }
            save_tensors(self.path / "model.safetensors", tensors, {"format": "pt"})
            kept = {"step": self.training.kept_step, "why": self.training.kept_sentence()}
            write_text(self.path / "kept.json", json.dumps(kept) + "\n")


def _prepare(data: Data, asked: Mapping[str, Any]) -> tuple[Training, dict[str, Any]]:
    """Build everything that a run needs; returns the training and every option, resolved."""
    seed = asked["seed"]
    if seed < 0:
        raise ValueError(f"expected a seed of 0 or more; got {seed!r}")
    objective = make_objective(asked)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        model = build(data.space, given=data.given, **{k: asked[k] for k in names("model")})
    made = training(
        model,
        objective,
        data,
        **{name: asked[name] for name in names("training") if asked[name] is not None},
    )
    resolved = dict(asked) | {
        "source": data.source,
        "likelihood": default_likelihood(data.space)
        if asked["likelihood"] is None
        else asked["likelihood"],
        "network": default_network(data.space) if asked["network"] is None else asked["network"],
        "prior": default_prior(asked["posterior"]) if asked["prior"] is None else asked["prior"],
        "gradient": default_gradient(asked["posterior"])
        if asked["gradient"] is None
        else asked["gradient"],
        "epochs": None,
        "steps": made.steps,
        "minutes": None,
        "batch": made.batch,
        "lr": made.lr,
        "clip": made.clip,
        "ema": made.ema,
        "compile": made.compile,
    }
    return made, resolved


def untrained(model: LatentModel, data: Data, config: Mapping[str, Any]) -> LatentModel:
    """Return a run's model as it was before the first step."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config["seed"], "weights"))
        first = build(model.space, given=model.given, **{k: config[k] for k in names("model")}).to(
            device
        )
    if first.start_rows:
        rows = np.sort(
            numpy_generator(config["seed"], "start").permutation(len(data.train))[
                : first.start_rows
            ]
        )
        first.start(
            in_space(data.train.pick(rows).fixed(), model.space).batch(slice(0, len(rows)), device)
        )
    return first.eval()


def _start(run: str) -> tuple[LatentModel, dict[str, Any]]:
    """Return the model of a run to start from, with its options.

    Raises:
        ValueError: it is not a run, or has no weights yet.
    """
    opened = Run(run)
    model = opened.model()
    config = opened.config
    return model, {k: config[k] for k in names("model") if config.get(k) is not None}


def trial(data: Data) -> Trial | None:
    """Return what prepares a run on data with other options and counts its weights; None where a
    second run cannot be prepared."""
    if isinstance(data.train.values, Streamed) or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return None

    def weights(config: Mapping[str, Any]) -> int:
        asked = defaults() | normalised({k: v for k, v in config.items() if v is not None})
        return sum(p.numel() for p in _prepare(data, asked)[0].model.parameters())

    return weights


def make_objective(asked: Mapping[str, Any]) -> Objective:
    """Make the objective that options name.

    Raises:
        ValueError: the weight of the KL or a part is not one.
    """
    beta = asked["beta"]
    with suppress(ValueError):
        beta = float(beta)
    if isinstance(beta, float) and not 0 <= beta < math.inf:
        raise ValueError(
            f"expected beta as a number of 0 or more or a schedule such as warmup:share=0.1; got "
            f"{beta}"
        )
    gradient = find("gradient", asked["gradient"] or default_gradient(asked["posterior"]))()
    made = find("objective", asked["objective"])(
        gradient,
        beta=find("schedule", beta)() if isinstance(beta, str) else Schedule(beta),
        rate=_rate_term(asked),
        penalties=[find("penalty", spec)() for spec in asked["penalty"] or ()],
        aggressive=asked["aggressive"],
    )
    return made


def _rate_term(asked: Mapping[str, Any]) -> RateTerm | None:
    """Make what stands in place of the rate in the loss: free bits ("0.5:group=all,smooth=0.1") or
    a capacity ("to=25,share=0.5")."""
    bits, most = asked["free_bits"], asked["capacity"]
    if bits is not None and most is not None:
        raise ValueError("expected free bits or a capacity; got both")
    if most is not None:
        return find("capacity", f"capacity:{most}", {"capacity": Capacity})()
    if bits is None:
        return None
    number, options = parse(str(bits))
    nats = as_number(number)
    if nats is None:
        raise ValueError(f"expected free bits as NATS or NATS:group=all,smooth=0.1; got {bits!r}")
    spec = str(Spec("free-bits", options))
    return find("free bits", spec, {"free-bits": FreeBits})(nats)


# -- files -----------------------------------------------------------------------------------------


def _fresh_name(source: str) -> Path:
    name = Path(parse_source(source)[0]).stem or "run"
    base = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    path, n = base, 2
    while path.exists():
        path, n = base.with_name(f"{base.name}-{n}"), n + 1
    return path


def _refuse_existing(path: Path, force: bool) -> None:
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise ValueError(f"expected a folder to write {path} into; got {existing}, which is a file")
    if path.exists() and any(path.iterdir()):
        if not (path / "config.yaml").exists():
            raise ValueError(
                f"expected a new run folder; got {path}, which has files that are not a run's "
                f"(give another --run)"
            )
        if not force:
            raise ValueError(
                f"expected a new run folder; got {path}, which exists (--force overwrites it, "
                f"--resume goes on with it)"
            )


def _clear(path: Path) -> None:
    """Remove what an overwritten run has written, and nothing else."""
    for name in FILES:
        for file in path.glob(name):
            file.unlink()
    for name in ("checkpoints", "evaluating"):
        shutil.rmtree(path / name, ignore_errors=True)


def _model_json(model: LatentModel, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "vaestro": vaestro.__version__,
        "format": FORMAT,
        "model": {k: config[k] for k in names("model") if config[k] is not None},
        "space": model.space.scalars(),
        "given": None if model.given is None else model.given.scalars(),
    }


def environment(training: Training) -> dict[str, Any]:
    """Say on what a run is made, and when."""
    return {
        **machine(),
        "numpy": np.__version__,
        "trained_on": str(training.device),
        "cores": os.cpu_count(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "begun": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def machine() -> dict[str, str]:
    """Say what this machine and its versions are."""
    return {
        "vaestro": vaestro.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu, {torch.get_num_threads()} threads",
        "system": f"{platform.system()} {platform.machine()}",
    }
