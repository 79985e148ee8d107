"""Train a run, and write its folder."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import EllipsisType, FrameType
from typing import TypeAlias, final

import numpy as np
import torch

from vaestro.data import Data, load
from vaestro.data.matching import Origin
from vaestro.data.readers import Progress
from vaestro.diagnosis import Finding, Remedies, Watcher, lint
from vaestro.diagnosis.lint import Plan
from vaestro.files import Json, read_config
from vaestro.loop import Diverged, Step, Training
from vaestro.loop.state import Numbers, State
from vaestro.loop.timing import expected_seconds
from vaestro.options import Config, defaults, documented, dump_config, normalised, resumable
from vaestro.parts import find
from vaestro.runs.checkpoints import read_checkpoint, save_tensors, write_text
from vaestro.runs.folder import (
    clear,
    environment,
    fresh_folder,
    model_record,
    refuse_existing,
    store_source,
)
from vaestro.runs.preparing import prepare, starting_model, trial, with_library, with_size_factors
from vaestro.runs.run import Run
from vaestro.runs.sources import Source, of_sources
from vaestro.text import alternatives, duration
from vaestro.transfer import stored_columns, stored_origin, take_over
from vaestro.trust import permit, remember

CHECKPOINT_SECONDS = 20.0
LONG_SECONDS, SHORT_MINUTES = 1800.0, 10  # a run longer than this, and the length to suggest
# of a signal, as `signal.signal` returns it
Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None


@documented(lambda row: row.name != "source")
def train(
    source: Source | EllipsisType = ...,
    *,
    run: str | Path | None = None,
    force: bool = False,
    config: str | Path | None = None,
    recipe: str | None = None,
    trust: bool = False,
    **options: Json,
) -> Run:
    """Train a model, write a run's folder, and return the run; `vaestro train` does the same.

    Args:
        source: `mnist` (the default), a path with options, or an array (N, ...), a table or a
            list of series, which is stored with the run. Options of a source (docs/sources.md) are
            keyword arguments too, such as series="unit:cycle".
        run: the folder; by default runs/SOURCE-DATE-TIME.
        force: overwrite an existing run.
        config: a YAML file of options; options that are given override it.
        recipe: a named set of options, such as "beta-tcvae:beta=6"; options that are given
            override it.
        trust: run code (module:Class) that `config`, or the files of the run to start from, name.
        {options}

    Raises:
        ValueError: the options are invalid; nothing was written.
        Diverged: training failed; the weights before the failure are kept.
        KeyboardInterrupt: after the state was saved.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> train(x, run="example", latent=2, steps=2)
    Run('example')
    """
    if source is None:
        raise ValueError(
            "expected a source: a name such as mnist, a path, an array, a table or a list of "
            "texts; got None"
        )
    given = None if isinstance(source, EllipsisType) else source
    return _run_through(
        Job.new(given, run=run, force=force, config=config, recipe=recipe, trust=trust, **options)
    )


@documented(lambda row: row.resumable)
def resume(run: str | Path, *, trust: bool = False, **options: Json) -> Run:
    """Continue a stopped run and return it. The result is the same as that of an uninterrupted run.

    Args:
        run: the run's folder.
        trust: run code (module:Class) that its files name.
        {options}

    Raises:
        ValueError: it is not a run's folder, or the options are invalid.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = train(x, run="second", latent=2, steps=2)
    >>> resume(run.path, steps=3).metrics()[-1]["step"]
    3
    """
    return _run_through(Job.resumed(run, trust=trust, **options))


def _run_through(job: Job) -> Run:
    with job:
        for _ in job:
            pass
    return job.run


@final
class Job(Iterator[Step]):
    """Iterate over the steps of a run, and write its folder.

    `Job.new` and `Job.resumed` create a job. Within `with job:`, Ctrl-C is deferred until the
    state is saved; the next step then raises KeyboardInterrupt.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> with Job.new(x, run="third", latent=2, steps=2) as job:
    ...     for step in job:
    ...         pass
    >>> job.run.finished
    True
    """

    def __init__(
        self, training: Training, data: Data, config: Config, path: Path, notes: tuple[str, ...]
    ) -> None:
        self.training, self.data, self.config, self.path, self.notes = (
            training,
            data,
            config,
            path,
            notes,
        )
        self.writes = training.processes.rank == 0
        self._saved_at = time.monotonic()
        self._interrupted = False
        self._handlers: dict[int, Handler] = {}
        self._saved_step = -1
        self._new = False  # whether it created its folder

    # -- creating a job ----------------------------------------------------------------------------

    @classmethod
    def new(
        cls,
        source: Source | None = None,
        *,
        run: str | Path | None = None,
        force: bool = False,
        config: str | Path | None = None,
        recipe: str | None = None,
        dry: bool = False,
        progress: Progress | None = None,
        trust: bool = False,
        **options: Json,
    ) -> Job:
        """Prepare a run, and create its folder unless `dry`. For the other arguments, see `train`.

        Raises:
            ValueError: the options are invalid; nothing was written.
        """
        asked = file = {} if config is None else read_config(config)
        given = {k: v for k, v in options.items() if v is not None}
        of_source = {k: given.pop(k) for k in of_sources(given)}
        if any(k in given for k in ("epochs", "steps", "minutes")):
            asked = {k: v for k, v in asked.items() if k not in ("epochs", "steps", "minutes")}
        asked |= {} if recipe is None else find("recipe", recipe)()
        asked |= given
        if config is not None:
            from_file = {k: v for k, v in file.items() if asked.get(k) is v}
            permit(from_file, Path(config), trust=trust, run=Path(config).parent)
        asked = normalised(asked)
        in_python = source is not None and not isinstance(source, (str, Path))
        if source is not None and not in_python:
            asked["source"] = str(source)
        model = own = origin = None
        if asked.get("init"):
            model, own = starting_model(asked["init"], trust=trust)
            origin = Origin(asked["init"], model.space, model.given)
            asked = own | {k: v for k, v in asked.items() if v is not None}
            asked["condition"] = list(origin.conditions(asked.get("condition") or ())) or None
        asked = with_library(defaults() | asked)
        data = load(
            source if in_python else asked["source"],
            condition=asked["condition"] or (),
            origin=origin,
            progress=progress,
            **of_source,
        )
        path = Path(run) if run is not None else fresh_folder(data.source)
        if not dry and os.environ.get("RANK", "0") == "0":
            refuse_existing(path, force)
        asked, notes = with_size_factors(asked, data)
        training, resolved = prepare(data, asked)
        notes = [*data.notes, *notes]
        if model is not None and own is not None:
            notes += take_over(training, model, own, resolved, asked["init"])
        job = cls(training, data, resolved, path, tuple(notes))
        if not dry and job.writes:
            job._make_folder(source if in_python else None)
            if model is not None:
                job.checkpoint()  # the run can then be resumed without the old run
        return job

    def _make_folder(self, source: Source | None) -> None:
        """Write the files of a new run; `source` is given if its data are not in files."""
        path = self.path
        clear(path)
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        if source is not None:
            self.config["source"] = store_source(path, source, self.data.source)
        splits = {"train": self.data.train, "valid": self.data.valid, "test": self.data.test}
        records = {
            "config.json": model_record(self.training.model, self.config),
            "data.json": {name: rows.fingerprint() for name, rows in splits.items()},
            "environment.json": environment(self.training),
        }
        for name, record in records.items():
            write_text(path / name, json.dumps(record, indent=1) + "\n")
        self._write_config()
        (path / "metrics.jsonl").touch()
        self._new = True

    @classmethod
    def resumed(cls, run: str | Path, *, trust: bool = False, **options: Json) -> Job:
        """Prepare to continue a run from its last readable checkpoint, or from the start if it has
        none yet.

        Raises:
            ValueError: it is not a run's folder, or an option was given that cannot change.
        """
        opened = Run(run, trust=trust)
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
            start = starting_model(asked["init"], trust=trust)
            origin = Origin(asked["init"], start[0].space, start[0].given)
        data = load(
            asked["source"],
            condition=asked["condition"] or (),
            origin=origin,
            columns=stored_columns(opened.path),
        )
        training, resolved = prepare(data, asked)
        state, damaged = _newest_state(opened.path / "checkpoints")
        notes = [*data.notes, *damaged]
        job = cls(training, data, resolved, opened.path, tuple(notes))
        metrics, size = opened.path / "metrics.jsonl", 0
        if state is not None:
            tensors, numbers = state
            training.load(tensors, numbers)
            if "epochs" in options or "steps" in options:
                training.stopped_early = False  # more steps were requested than patience allowed
            size = numbers["metrics_bytes"]
            job.notes = (*notes, f"continuing from step {training.index:,} of {training.steps:,}")
        else:
            if asked["init"]:
                notes += take_over(
                    training,
                    *(start or starting_model(asked["init"], trust=trust)),
                    resolved,
                    asked["init"],
                )
            job.notes = (*notes, "no checkpoint yet: starting from the beginning")
        if job.writes:
            (opened.path / "checkpoints").mkdir(exist_ok=True)
            (opened.path / "failure.json").unlink(missing_ok=True)
            metrics.touch()
            with metrics.open("r+b") as file:
                file.truncate(min(size, metrics.stat().st_size))
            job._write_config()
        return job

    def _write_config(self) -> None:
        """Write config.yaml, and record first that this user trains the run."""
        text, file = dump_config(self.config), self.path / "config.json"
        model = file.read_text() if file.exists() else ""
        if note := remember(self.config, text, model, self.path):
            self.notes = (*self.notes, note)
        write_text(self.path / "config.yaml", text)

    @property
    def run(self) -> Run:
        """Return the run."""
        return Run(self.path, trust=True)  # its code runs already

    def lint(self) -> list[Finding]:
        """Return the findings on options and data before the first step."""
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

    def expectation(self) -> str:
        """Return the expected time of the run in words; "" if its length was given in minutes, or
        it has fewer than 20 steps. Some steps are timed and then undone."""
        training = self.training
        expected = None if training.settings.minutes else expected_seconds(training)
        if expected is None:
            return ""
        each, total = expected
        pace = f", {each:.1f} s a step" if each >= 0.1 else ""
        shorter = f" (--minutes {SHORT_MINUTES} for a shorter run)" if total > LONG_SECONDS else ""
        steps = training.steps - training.index
        return f"about {duration(total)} for {steps:,} steps{pace}{shorter}"

    def watcher(self) -> Watcher:
        """Return what reports findings on the curves at each validation."""
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
        """Hold Ctrl-C and SIGTERM back until the current step is complete and saved. A second
        signal takes effect at once."""
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *_: object) -> None:
        self.training.release()
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
            # the first step fails with these options
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
            # the first step cannot be compiled on this machine
            if self.training.compile != self.config["compile"]:
                self.config["compile"] = self.training.compile
                self._write_config()
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
        """Remove the files of the run, and its folder if it is empty then."""
        if self.writes:
            clear(self.path)
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


def _newest_state(folder: Path) -> tuple[tuple[State, Numbers] | None, list[str]]:
    """Return the newest readable checkpoint of a folder, and a note on each damaged one."""
    notes: list[str] = []
    for checkpoint in sorted(folder.glob("*.safetensors"), reverse=True):
        try:
            return read_checkpoint(checkpoint), notes
        except ValueError as error:
            notes.append(
                f"{checkpoint.name} is damaged ({error}); continuing from the one before it"
            )
    return None, notes
