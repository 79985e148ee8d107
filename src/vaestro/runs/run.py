"""A run's folder, and its files."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, final

from vaestro.files import Json
from vaestro.locks import is_locked
from vaestro.notebook import Card, Shown
from vaestro.options import read_options
from vaestro.records import Damaged, file_sha256, log_faults, read_log, read_object, read_record
from vaestro.runs.manifest import is_unfinished
from vaestro.runs.verbs import AllVerbs
from vaestro.trust import permit

if TYPE_CHECKING:
    from vaestro.data import Data, Rows
    from vaestro.diagnosis import Diagnosis
    from vaestro.evaluation import Evaluation
    from vaestro.models import Model
    from vaestro.options import Config
    from vaestro.runs.session import Session


@final
class Run(AllVerbs, Shown):
    """Read the files of a run's folder.

    The verbs (`encode`, `sample`, ...; see `vaestro.runs.verbs`) use `session`, which is opened
    when the first one is called.

    Args:
        path: the folder.
        trust: whether code that the folder names (module:Class) may run; see `vaestro.trust`.

    Raises:
        ValueError: it is not a run's folder.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> path = vs.train(x, run="example", latent=2, steps=2).path
    >>> run = Run(path)
    >>> run.finished, run.config["latent"], run.model().units
    (True, 2, (2,))
    """

    def __init__(self, path: str | Path, *, trust: bool = False) -> None:
        self.path, self.trust = Path(path), trust
        self._session: tuple[int, Session] | None = None
        if not self.path.is_dir():
            raise ValueError(f"expected a run's folder; got {self.path}, which does not exist")
        if not (self.path / "config.yaml").exists():
            raise ValueError(f"expected a run's folder; got {self.path}, which has no config.yaml")

    @classmethod
    def newest(cls, folder: str | Path = "runs", *, trust: bool = False) -> Run:
        """Return the newest run under a folder.

        Raises:
            ValueError: there is no run.
        """
        configs = sorted(
            (p for p in Path(folder).glob("*/config.yaml") if not is_unfinished(p.parent)),
            key=lambda p: p.stat().st_mtime,
        )
        if not configs:
            raise ValueError(f"expected a run; got none under {folder}/ (vaestro train makes one)")
        return cls(configs[-1].parent, trust=trust)

    @classmethod
    def several(
        cls, runs: str | Path | Run | Iterable[str | Path | Run], *, trust: bool = False
    ) -> list[Run]:
        """Return one run or several.

        Raises:
            ValueError: there is no run, a folder is not a run's, or a run is named twice.
        """
        named = [runs] if isinstance(runs, (str, Path, Run)) else list(runs)
        opened = [r if isinstance(r, Run) else cls(r, trust=trust) for r in named]
        if not opened:
            raise ValueError("expected one run or more; got none")
        folders = [r.path.resolve() for r in opened]
        twice = next((r.path for i, r in enumerate(opened) if folders[i] in folders[:i]), None)
        if twice is not None:
            raise ValueError(f"expected each run once; got {twice} twice")
        return opened

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def card(self) -> Card:
        """Return the state of the run, its main options, and its last validation bound."""
        options = self.options
        names = ("source", "model", "latent", "likelihood", "network", "objective", "beta")
        lines = [f"{name}: {options[name]}" for name in names if options.get(name) is not None]
        last = [r for r in self.metrics() if r.get("split") == "valid"][-1:]
        for record in last:
            error = record.get("stderr")
            about = "" if error is None else f" ± {error:.2f}"
            lines.append(
                f"validation bound at step {record['step']:,}: {record['bound']:.2f}{about} nats"
            )
        state = "complete" if self.finished else self.incomplete() or "not complete"
        return Card(f"Run {self.path}", [f"training: {state}", *lines])

    @property
    def config(self) -> Config:
        """Return every option of the run, from config.yaml, to be used.

        Raises:
            Untrusted: the options name code that may not run.
        """
        options = self.options
        permit(options, self.path / "config.yaml", trust=self.trust, run=self.path)
        return options

    @property
    def options(self) -> Config:
        """Return every option of the run, from config.yaml, to be shown: no part is looked up by
        them, because they may name code that is not trusted."""
        return read_options(self.path / "config.yaml")

    def metrics(self) -> list[dict[str, Json]]:
        """Return the lines of metrics.jsonl; damaged ones are left out: see `damage`."""
        return read_log(self.path / "metrics.jsonl")[0]

    def damage(self) -> list[str]:
        """Return a sentence on the damaged lines of metrics.jsonl, if there are any."""
        return log_faults(self.path / "metrics.jsonl")

    @property
    def finished(self) -> bool:
        """Return whether the training is complete."""
        from vaestro.runs.checkpoints import newest_numbers

        last = self.metrics()[-1:]
        numbers = newest_numbers(self.path)
        return bool(
            last
            and numbers
            and (numbers["index"] >= self.options["steps"] or numbers["stopped_early"])
        )

    def model(self, device: str = "cpu") -> Model:
        """Build the model with the weights in use.

        Raises:
            ValueError: the run has no weights yet, or they are damaged.
            Untrusted: the run names code that may not run.
        """
        from vaestro.runs.weights import load_model

        return load_model(self.path, device, trust=self.trust)

    @property
    def kept(self) -> dict[str, Json] | None:
        """Return the step of the weights in use and why they were kept, {"step": .., "why": ..};
        None for runs of older versions.

        Raises:
            Damaged: it is damaged.
        """
        return read_record(self.path / "kept.json")

    def weights_sha256(self) -> str:
        """Return the hash of the file of the weights in use."""
        return file_sha256(self.path / "model.safetensors")

    def data(self) -> Data:
        """Read the data that the run was trained on."""
        from vaestro.data import load
        from vaestro.data.opening import has_images
        from vaestro.data.source_options import parse_source
        from vaestro.transfer import stored_columns, stored_origin, stored_source

        config = self.options
        condition = config.get("condition") or ()
        origin = stored_origin(self.path, config.get("init"))
        columns = stored_columns(self.path)
        source = config["source"] if origin else stored_source(self.path, config["source"])
        data = load(source, condition=condition, origin=origin, columns=columns)
        space = (read_object(self.path / "config.json") or {}).get("space") or {}
        deeper = (space.get("dtype"), data.space.dtype) == ("uint8", "uint16")
        if deeper and has_images(parse_source(config["source"])[0]):
            # Earlier versions scaled images of 16 bits to 8 bits.
            data = load(config["source"], condition=condition, origin=origin, depth=8)
        return data

    @property
    def evaluation(self) -> dict[str, Json] | None:
        """Return evaluation.json, or None.

        Raises:
            Damaged: it is damaged.
        """
        return read_record(self.path / "evaluation.json")

    @property
    def diagnosis(self) -> dict[str, Json] | None:
        """Return diagnosis.json, or None.

        Raises:
            Damaged: it is damaged.
        """
        return read_record(self.path / "diagnosis.json")

    @property
    def unit_names(self) -> dict[int, str]:
        """Return the names that the user gave to latent units, by unit; see `units`.

        >>> import numpy as np, vaestro as vs
        >>> run = vs.train(np.eye(40, dtype="uint8"), run="named", latent=2, steps=2)
        >>> _ = run.units(names={1: "side"})
        >>> run.unit_names
        {1: 'side'}
        """
        units = (read_object(self.path / "units.json") or {}).get("units") or []
        return {unit["unit"]: unit["name"] for unit in units if unit["name"]}

    @property
    def failure(self) -> str | None:
        """Return why training failed, or None."""
        reason = (read_object(self.path / "failure.json") or {}).get("reason")
        return None if reason is None else str(reason)

    def incomplete(self) -> str:
        """Return a sentence on a training that failed or did not end; "" if it is complete.

        >>> import numpy as np, vaestro as vs
        >>> run = vs.train(np.eye(40, dtype="uint8"), run="run", latent=2, steps=2)
        >>> run.incomplete()
        ''
        """
        if self.failure is not None:
            return f"the training of {self.path} failed: {self.failure}"
        if is_locked(self.path):
            return f"{self.path} is in training: its weights are those so far"
        if self.finished or not self.metrics() or not (self.path / "checkpoints").is_dir():
            return ""  # without its log and checkpoints, this is not known
        return (
            f"the training of {self.path} did not end (vaestro train --resume "
            f"{shlex.quote(str(self.path))} continues it)"
        )

    def changed(self, data: Data, split: str) -> list[str]:
        """Return a sentence for each of the training split and another one whose data have changed
        since the run was made, with both hashes."""
        try:
            then = read_record(self.path / "data.json")
        except Damaged as error:
            return [f"the data cannot be compared with those of the training: {error}"]
        if then is None:
            return []
        splits = {"train": data.train, "valid": data.valid, "test": data.test}
        changes: list[str] = []
        for name in dict.fromkeys(("train", split)):
            now = splits[name].fingerprint()
            if name in then and then[name] != now:
                before, after = (
                    f"{f['n']:,} with hash {f['sha256'][:12]}" for f in (then[name], now)
                )
                # Values are hashed with their standardisation, which depends on the training data.
                or_units = (
                    ", or have another standardisation"
                    if changes and data.space.measure != "counting"
                    else ""
                )
                changes.append(
                    f"the {name} data are not those of the training{or_units}: {before} then, "
                    f"{after} now"
                )
        return changes

    def save_evaluation(
        self, evaluation: Evaluation, rows: Rows, source: str, weights: str | None = None
    ) -> None:
        """Write evaluation.json and evaluation.npz: see `results.write_evaluation`."""
        from vaestro.runs.results import write_evaluation

        write_evaluation(self, evaluation, rows, source, weights)

    def save(self, path: str | Path) -> Run:
        """Copy the run to a new folder, and return the run there. It keeps a run of `vs.fit`, whose
        own folder is temporary.

        Args:
            path: the new folder.

        Raises:
            ValueError: the folder exists, or the run is in training.
            Untrusted: the run names code that may not run.

        >>> import numpy as np, vaestro as vs
        >>> run = vs.fit(np.eye(40, dtype="uint8"), latent=2, steps=2, progress=False)
        >>> run.save("kept")
        Run('kept')
        """
        from vaestro.runs.saving import save

        permit(self.options, self.path / "config.yaml", trust=self.trust, run=self.path)
        save(self.path, Path(path))
        return Run(path, trust=self.trust)

    # -- the verbs ---------------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """Return a session on the run, which is kept until the weights change."""
        from vaestro.runs.session import Session

        file = self.path / "model.safetensors"
        stamp = file.stat().st_mtime_ns if file.exists() else 0
        if self._session is None or self._session[0] != stamp:
            self._session = stamp, Session(self)
        return self._session[1]

    def diagnose(self, *, seed: int = 0) -> Diagnosis:
        """Diagnose the run with its files as they are now; see `Session.diagnose`."""
        from vaestro.runs.session import Session

        return Session(self).diagnose(seed=seed)
