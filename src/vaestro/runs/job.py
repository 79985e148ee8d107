"""The steps of a run, and the files that they write."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
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
from vaestro.new_categories import NEW_CATEGORIES
from vaestro.options import Config, defaults, dump_config, normalised, resumable
from vaestro.parts import find
from vaestro.processes import rank
from vaestro.records import Damaged, read_object, write_record
from vaestro.runs.checkpoints import newest_state
from vaestro.runs.folder import environment, model_record, store_source
from vaestro.runs.manifest import register
from vaestro.runs.preparing import prepare, starting_model, trial, with_library, with_size_factors
from vaestro.runs.run import Run
from vaestro.runs.sources import Source, of_sources
from vaestro.runs.writer import Writer, default_folder, recover, refuse_existing
from vaestro.storage import append, make_folder, remove, truncate, write_text
from vaestro.tensor_files import save_tensors
from vaestro.text import alternatives, duration
from vaestro.transfer import stored_columns, stored_origin, stored_source, take_over
from vaestro.trust import permit, remember

CHECKPOINT_SECONDS = 20.0
LONG_SECONDS, SHORT_MINUTES = 1800.0, 10  # a run longer than this, and the length to suggest
# of a signal, as `signal.signal` returns it
Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None


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
        self._logged = 0  # size of metrics.jsonl at the state from which it continues
        self._writer: Writer | None = None

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
            grows = NEW_CATEGORIES in (asked.get("freeze") or ())
            origin = Origin(asked["init"], model.space, model.given, grows)
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
        path = Path(run) if run is not None else default_folder(data.source)
        if not dry and rank() == 0:
            refuse_existing(path, force)
        asked, notes = with_size_factors(asked, data)
        training, resolved = prepare(data, asked)
        notes = [*data.notes, *notes]
        if model is not None and own is not None:
            notes += take_over(training, model, own, resolved, asked["init"])
        job = cls(training, data, resolved, path, tuple(notes))
        if not dry and job.writes:
            job._writer = Writer.new(None if run is None else path, data.source, force=force)
            job.path = job._writer.path
            job._make_folder(source if in_python else None)
            if model is not None:
                job.checkpoint()  # the run can then be resumed without the old run
            if not job._writer.replaces:
                job._publish()
        return job

    def _make_folder(self, source: Source | None) -> None:
        """Write the files of a new run; `source` is given if its data are not in files."""
        place = self.place
        make_folder(place / "checkpoints")
        if source is not None:
            self.config["source"] = store_source(place, source, self.data.source, self.path)
            register(place, *(p.name for p in place.glob("data.*")))
        self._write_records()
        self._write_config()
        append(place / "metrics.jsonl", "")
        self._new = True

    def _write_records(self) -> list[str]:
        """Write the records of the run that do not exist or are damaged, and return their names."""
        splits = {"train": self.data.train, "valid": self.data.valid, "test": self.data.test}
        records: dict[str, Callable[[], Mapping[str, Json]]] = {
            "config.json": lambda: model_record(self.training.model, self.config),
            "data.json": lambda: {name: rows.fingerprint() for name, rows in splits.items()},
            "environment.json": lambda: environment(self.training),
        }
        absent = [name for name in records if read_object(self.place / name) is None]
        for name in absent:
            write_record(self.place / name, records[name]())
        return absent

    def _publish(self) -> None:
        """Rename the folder of a new run to the one that the user named."""
        if self._writer is not None and not self._writer.published:
            self._writer.publish()
            self.path = self._writer.path

    @classmethod
    def resumed(cls, run: str | Path, *, trust: bool = False, **options: Json) -> Job:
        """Prepare to continue a run from its last readable checkpoint, or from the start if it has
        none yet. Files that an interruption left out or damaged are written again.

        Raises:
            ValueError: it is not a run's folder, another process writes it, or an option was given
                that cannot change.
        """
        if rank() > 0:
            return cls._continued(Run(run, trust=trust), options)
        recover(Path(run))
        opened = Run(run, trust=trust)
        writer = Writer.opened(opened.path)
        try:
            job = cls._continued(opened, options)
            job._writer = writer
            job._mend()
        except BaseException:
            writer.release()
            raise
        return job

    @classmethod
    def _continued(cls, opened: Run, options: Mapping[str, Json]) -> Job:
        """Return a job at the state of the last readable checkpoint of a run; nothing is
        written."""
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
        origin = start = None
        with suppress(Damaged):  # damaged weights are written again from a checkpoint
            origin = stored_origin(opened.path, asked["init"])
        if asked["init"] and origin is None:
            start = starting_model(asked["init"], trust=opened.trust)
            grows = NEW_CATEGORIES in (asked["freeze"] or ())
            origin = Origin(asked["init"], start[0].space, start[0].given, grows)
        data = load(
            asked["source"] if origin else stored_source(opened.path, asked["source"]),
            condition=asked["condition"] or (),
            origin=origin,
            columns=stored_columns(opened.path),
        )
        state, damaged = newest_state(opened.path)
        if state is not None and not any(k.startswith("model.absences.") for k in state[1]):
            data = data.without_absences()
        training, resolved = prepare(data, asked)
        notes = [*data.notes, *damaged]
        job = cls(training, data, resolved, opened.path, tuple(notes))
        if state is not None:
            checkpoint, tensors, numbers = state
            _load(training, checkpoint, tensors, numbers)
            if "epochs" in options or "steps" in options:
                training.stopped_early = False  # more steps were requested than patience allowed
            job._logged = numbers["metrics_bytes"]
            job.notes = (*notes, f"continuing from step {training.index:,} of {training.steps:,}")
        else:
            if asked["init"]:
                notes += take_over(
                    training,
                    *(start or starting_model(asked["init"], trust=opened.trust)),
                    resolved,
                    asked["init"],
                )
            job.notes = (*notes, "no checkpoint yet: starting from the beginning")
        return job

    def _mend(self) -> None:
        """Bring the files of a run to the state from which it continues."""
        make_folder(self.path / "checkpoints")
        remove(self.path / "failure.json")
        metrics = self.path / "metrics.jsonl"
        if metrics.exists() and metrics.stat().st_size < self._logged:
            self.notes += (f"{metrics} is shorter than it was: its last lines are lost",)
        truncate(metrics, self._logged)
        if names := self._write_records():
            self.notes += (f"wrote {', '.join(names)} again, which could not be read",)
        self._write_config()

    def _write_config(self) -> None:
        """Write config.yaml, and record first that this user trains the run."""
        text, file = dump_config(self.config), self.place / "config.json"
        if note := remember(self.config, text, file.read_text(encoding="utf-8"), self.path):
            self.notes += (note,)
        write_text(self.place / "config.yaml", text)

    @property
    def run(self) -> Run:
        """Return the run."""
        return Run(self.place, trust=True)  # its code runs already

    @property
    def place(self) -> Path:
        """Return where the files are now: a temporary folder until the first step, if the run
        replaces another."""
        return self.path if self._writer is None else self._writer.place

    @property
    def published(self) -> bool:
        """Return whether the files are in the folder that the user named."""
        return self.place == self.path

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
        if self._writer is not None:
            if not self.published:
                self._writer.discard()  # the run that was to be replaced stays
            self._writer.release()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def __next__(self) -> Step:
        if self._interrupted:
            if self.writes and self.training.index and self._saved_step != self.training.index:
                self.checkpoint()  # the signal came between two steps
            raise KeyboardInterrupt
        try:
            step = next(self.training)
        except StopIteration:
            self._save_weights()
            if self._writer is not None:
                self._writer.release()
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
                failure = {"step": self.training.index, "reason": str(error)}
                write_record(self.place / "failure.json", failure)
            raise
        try:
            self._write(step)
        except FileNotFoundError as error:
            if self.place.is_dir():
                raise
            raise OSError(
                f"the folder {self.path} was removed or renamed during training (vaestro train "
                f"--resume NEW-NAME continues a renamed one)"
            ) from error
        return step

    def _write(self, step: Step) -> None:
        """Write what a step has added to the run."""
        if step.index:
            self._publish()
        if self.writes:
            # the first step cannot be compiled on this machine
            if self.training.compile != self.config["compile"]:
                self.config["compile"] = self.training.compile
                self._write_config()
            for record in step.records:
                append(self.place / "metrics.jsonl", json.dumps(record.line()) + "\n")
            due = time.monotonic() - self._saved_at > CHECKPOINT_SECONDS
            # A run that continues from step 0 repeats its validation, so it starts from nothing.
            if step.index and (step.last or self._interrupted or due):
                self.checkpoint()

    def checkpoint(self) -> None:
        """Save the complete state and the weights in use."""
        tensors, numbers = self.training.state()
        numbers["metrics_bytes"] = (self.place / "metrics.jsonl").stat().st_size
        folder = self.place / "checkpoints"
        name = folder / f"step-{self.training.index:010d}.safetensors"
        save_tensors(name, tensors, {"numbers": json.dumps(numbers)})
        for old in sorted(folder.glob("step-*.safetensors"))[:-2]:
            remove(old)
        self._save_weights()
        self._saved_at, self._saved_step = time.monotonic(), self.training.index

    def discard(self) -> None:
        """Remove the files of the run, and its folder if it is empty then."""
        if self._writer is not None:
            self._writer.discard()

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
            save_tensors(self.place / "model.safetensors", tensors, {"format": "pt"})
            kept = {"step": self.training.kept_step, "why": self.training.kept_sentence()}
            write_record(self.place / "kept.json", kept)


def _load(training: Training, checkpoint: Path, tensors: State, numbers: Numbers) -> None:
    """Continue a training from a checkpoint.

    Raises:
        Damaged: the checkpoint is that of another model.
    """
    try:
        training.load(tensors, numbers)
    except (KeyError, TypeError, RuntimeError) as error:
        raise Damaged(
            f"{checkpoint} is that of another model than config.yaml and config.json describe"
        ) from error
