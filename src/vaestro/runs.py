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

import copy
import hashlib
import json
import math
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import vaestro
from vaestro.data import Data, Rows, load, tables
from vaestro.data.matching import Origin
from vaestro.data.readers import Progress, parse_source
from vaestro.data.sets import Streamed
from vaestro.data.texts import as_texts
from vaestro.data.writers import write_arrays, writing
from vaestro.diagnosis import (
    Case,
    Curves,
    Diagnosis,
    Finding,
    Remedies,
    Watcher,
    diagnosed,
    lint,
    measure,
)
from vaestro.diagnosis.continuation import Continuation, continued, worsened
from vaestro.diagnosis.lint import Plan
from vaestro.diagnosis.noise import Noises, gradient_noise
from vaestro.diagnosis.noise_picture import draw as draw_noise
from vaestro.diagnosis.remedies import Trial
from vaestro.diagnosis.statistics import Paired
from vaestro.evaluation import SIMULATED, Estimate, Evaluation, evaluate, in_space, within_seconds
from vaestro.files import FORMAT, current, read_config, read_lines, read_object
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
from vaestro.text import Spec, alternatives, as_number, parse
from vaestro.transfer import spaces_of, stored_origin, take_over

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


class Run:
    """Open a run's folder.

    Args:
        path: the folder.

    Raises:
        ValueError: it is not a run's folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise ValueError(f"expected a run's folder; got {self.path}, which does not exist")
        if not (self.path / "config.yaml").exists():
            raise ValueError(f"expected a run's folder; got {self.path}, which has no config.yaml")

    @classmethod
    def newest(cls, folder: str | Path = "runs") -> Run:
        """Open the newest run under a folder.

        Raises:
            ValueError: there is none.
        """
        configs = sorted(Path(folder).glob("*/config.yaml"), key=lambda p: p.stat().st_mtime)
        if not configs:
            raise ValueError(f"expected a run; got none under {folder}/ (vaestro train makes one)")
        return cls(configs[-1].parent)

    @classmethod
    def several(cls, runs: str | Path | Run | Iterable[str | Path | Run]) -> list[Run]:
        """Open one run or more.

        Raises:
            ValueError: there is none, a folder is no run's, or one stands twice.
        """
        named = [runs] if isinstance(runs, (str, Path, Run)) else list(runs)
        opened = [r if isinstance(r, Run) else cls(r) for r in named]
        if not opened:
            raise ValueError("expected one run or more; got none")
        folders = [r.path.resolve() for r in opened]
        twice = next((r.path for i, r in enumerate(opened) if folders[i] in folders[:i]), None)
        if twice is not None:
            raise ValueError(f"expected each run once; got {twice} twice")
        return opened

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def config(self) -> dict[str, Any]:
        """Return every option of the run, as config.yaml has them."""
        return read_config(self.path / "config.yaml")

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; a last line that was cut short is left out."""
        return read_lines(self.path / "metrics.jsonl")

    @property
    def finished(self) -> bool:
        """Tell whether the run went to its end."""
        last = self.metrics()[-1:]
        numbers = _newest_numbers(self.path)
        return bool(
            last
            and numbers
            and (numbers["index"] >= self.config["steps"] or numbers["stopped_early"])
        )

    def model(self, device: str = "cpu") -> LatentModel:
        """Build the model with the weights in use.

        Raises:
            ValueError: the run has no weights yet, or they are damaged.
        """
        return load_model(self.path, device)

    @property
    def kept(self) -> dict[str, Any] | None:
        """Return the step of the weights in use and why they were kept, {"step": .., "why": ..};
        None in runs of older versions."""
        return read_object(self.path / "kept.json")

    def weights_sha256(self) -> str:
        """Hash the file of the weights in use."""
        with (self.path / "model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def data(self) -> Data:
        """Read the data that the run was trained on."""
        config = self.config
        return load(
            config["source"],
            condition=config.get("condition") or (),
            origin=stored_origin(self.path, config.get("init")),
        )

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """Return evaluation.json, or None.

        Raises:
            ValueError: it is damaged.
        """
        return self._result("evaluation.json", "evaluate")

    @property
    def diagnosis(self) -> dict[str, Any] | None:
        """Return diagnosis.json, or None.

        Raises:
            ValueError: it is damaged.
        """
        return self._result("diagnosis.json", "diagnose")

    def _result(self, name: str, command: str) -> dict[str, Any] | None:
        file = self.path / name
        if not file.exists():
            return None
        try:
            result: dict[str, Any] = json.loads(file.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(
                f"expected a readable {file} (vaestro {command} {self.path} writes it anew); got "
                f"a damaged one"
            ) from error
        return result

    @property
    def failure(self) -> str | None:
        """Return why training ended where it did not end by itself, or None."""
        reason = (read_object(self.path / "failure.json") or {}).get("reason")
        return None if reason is None else str(reason)

    def diagnose(
        self, *, seed: int = 0, device: str = "cpu", data: Data | None = None
    ) -> Diagnosis:
        """Say what is wrong with the run, and write diagnosis.json and diagnosis.npz.

        Args:
            seed: of the draws.
            device: where.
            data: the run's own, where they are read already.

        Raises:
            ValueError: the run has no weights yet.
        """
        model, config = self.model(device), self.config
        data = self.data() if data is None else data
        remedy = Remedies(
            str(self.path), config, _trial(data), sum(p.numel() for p in model.parameters())
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
        metrics = self.metrics()
        logged, measures = Curves(metrics, steps, self.finished), None
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
        curves = Curves(metrics, steps, self.finished, measures.valid[1] if measures else 0.0)
        further = (
            measures is not None
            and self.finished
            and self.failure is None
            and curves.valid
            and len(held_out)
        )
        case = Case(
            continued=self._continued(model, data, held_out, objective, seed) if further else None,
            worsened=self._worsened(model, data, objective, curves, remedy)
            if measures is not None
            else None,
            remedy=remedy,
            curves=curves,
            measures=measures,
            units=model.units,
            beta=objective.beta.value,
            extra=objective.terms,
            autoregressive=model.capabilities.autoregressive,
            reads_latent=_reads_latent(model),
            failure=self.failure,
            notes=(
                *(("duplicates between splits", sentence) for sentence in data.shared),
                *(
                    ("data changed", sentence)
                    for sentence in self.changed(
                        data, (held_out if len(held_out) else data.train).name
                    )
                ),
            ),
            log_det=0.0 if log_dets is None else float(log_dets.sum()),
            cells=float(model.space.cells),
            discrete=model.space.discrete,
            known={"weights_sha256": self.weights_sha256(), "vaestro": vaestro.__version__},
        )
        found = diagnosed(case)
        write_arrays(self.path / "diagnosis.npz", found.arrays)
        _write_text(self.path / "diagnosis.json", json.dumps(found.line(), indent=1) + "\n")
        return found

    def _continued(
        self, model: LatentModel, data: Data, held_out: Rows, objective: Objective, seed: int
    ) -> Continuation | None:
        """Train a copy of the kept weights a little further."""
        config = defaults() | normalised(self.config)
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
        self, model: LatentModel, data: Data, objective: Objective, curves: Curves, remedy: Remedies
    ) -> Paired | None:
        """Compare training data before the first step and at the end, where the validation loss
        ended above its start."""
        ends = curves.ends(remedy)
        newest = next(
            iter(sorted((self.path / "checkpoints").glob("*.safetensors"), reverse=True)), None
        )
        if ends is None or ends[1] <= ends[0] or newest is None:
            return None
        try:
            tensors, _ = read_checkpoint(newest)
            last, first = (
                copy.deepcopy(model),
                untrained(model, data, defaults() | normalised(self.config)),
            )
            last.load_state_dict(
                {
                    k.removeprefix("average."): v
                    for k, v in tensors.items()
                    if k.startswith("average.")
                }
            )
        except (ValueError, RuntimeError):
            return None  # the log alone decides
        return worsened(first, last, data.train, objective)

    def gradients(
        self,
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
            k: numbers of draws; by default the run's own, and 8.
            estimators: names with options; by default every one that has a meaning.
            bound: "elbo" or "iwae"; by default the run's own.
            repeats: independent draws of the noise.
            seed: of batch and noise.
            device: where.

        Raises:
            ValueError: the run has no weights yet, or what was asked for has no meaning.
        """
        config = defaults() | normalised(self.config)
        objective = make_objective(config)
        bound = (
            ("elbo" if parse(config["objective"]).name == "elbo" else "iwae")
            if bound is None
            else bound
        )
        draws = tuple(dict.fromkeys((objective.k, 8))) if k is None else tuple(k)
        data, model = self.data(), self.model(device)
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
                known = {"weights_sha256": self.weights_sha256(), "vaestro": vaestro.__version__}
                _write_text(
                    self.path / "gradients.json", json.dumps(found.line() | known, indent=1) + "\n"
                )
                draw_noise(found, self.path / "gradients.png")
            yield share, found

    def changed(self, data: Data, split: str) -> list[str]:
        """Say whether the training data, or those of a split, are others than when the run was
        made, with both hashes."""
        try:
            then = json.loads((self.path / "data.json").read_text())
        except (OSError, ValueError):
            return []
        found: list[str] = []
        for name in dict.fromkeys(("train", split)):
            now = getattr(data, name).fingerprint()
            if name in then and then[name] != now:
                before, after = (
                    f"{f['n']:,} with hash {f['sha256'][:12]}" for f in (then[name], now)
                )
                # Values are hashed with their standardisation, which the training data give.
                or_units = (
                    ", or stand in other units"
                    if found and data.space.measure != "counting"
                    else ""
                )
                found.append(
                    f"the {name} data are not those of the training{or_units}: {before} then, "
                    f"{after} now"
                )
        return found

    def save_evaluation(
        self, evaluation: Evaluation, rows: Rows, source: str, weights: str | None = None
    ) -> None:
        """Write evaluation.json and evaluation.npz; another evaluation's files are kept under a
        name with its split and k.

        Args:
            evaluation: what was found.
            rows: the data that `evaluate` was given; `evaluation.index` says which of them were
                evaluated.
            source: where they came from.
            weights: the hash of the weights that were evaluated; by default of those there are now.
        """
        total = len(rows)
        places = np.arange(total) if evaluation.index is None else evaluation.index
        rows = rows if len(places) == total else rows.pick(places)
        given = () if rows.given_space is None else rows.given_space.names
        result = {
            "split": rows.name,
            "n": len(rows),
            "total": total,
            "seed": evaluation.seed,
            "data_sha256": rows.sha256(),
            "source": source,
            "unit": "nats",
            "space": str(rows.space),
            "given": list(given),
            "masked": rows.observed is not None,
            "estimates": [_estimate_line(e) for e in evaluation.estimates],
            "rate": evaluation.rate,
            "distortion": evaluation.distortion,
            "gap": None if evaluation.gap is None else evaluation.gap.line(),
            "information": None
            if evaluation.information is None
            else evaluation.information.line(),
            "warnings": list(evaluation.warnings),
            "weights_sha256": self.weights_sha256() if weights is None else weights,
            "vaestro": vaestro.__version__,
        }
        arrays: dict[str, np.ndarray] = {"index": places}
        for e in evaluation.estimates:
            simulated = e.on == SIMULATED
            name = (
                ("simulated_" if simulated else "")
                + e.method
                + ("_upper" if e.side == "upper" else "")
            )
            among = None if simulated else places
            arrays[name] = _placed(e.nats, e.index, among)
            if e.ess is not None:
                arrays[f"{name}_ess"] = _placed(e.ess, e.index, among)
        if evaluation.gap is not None:
            parts = {
                "elbo": evaluation.gap.elbo,
                "optimised": evaluation.gap.optimised,
                "reference": evaluation.gap.reference,
            }
            arrays |= {
                f"gap_{name}": _placed(x, evaluation.gap.index, places)
                for name, x in parts.items()
                if x is not None
            }
        if rows.space.measure != "counting":
            arrays["datum"] = rows.projection()
        self._keep_evaluation(result)
        write_arrays(self.path / "evaluation.npz", arrays)
        _write_text(self.path / "evaluation.json", json.dumps(result, indent=1) + "\n")

    def _keep_evaluation(self, new: dict[str, Any]) -> None:
        """Move the evaluation that is there to a name of its own, unless the new one only repeats
        it."""
        try:
            old = self.evaluation
        except ValueError:
            os.replace(self.path / "evaluation.json", self.path / "evaluation-damaged.json")
            return
        if old is None or _timeless(old) == _timeless(new):
            return
        k = old["estimates"][0]["k"] if old["estimates"] else 0
        name = stem = f"evaluation-{old['split']}-k{k}"
        number = 2
        while (self.path / f"{name}.json").exists():
            name, number = f"{stem}-{number}", number + 1
        for suffix in (".npz", ".json"):
            if (self.path / f"evaluation{suffix}").exists():
                os.replace(self.path / f"evaluation{suffix}", self.path / f"{name}{suffix}")


def _timeless(result: dict[str, Any]) -> dict[str, Any]:
    estimates = [{k: v for k, v in e.items() if k != "seconds"} for e in result["estimates"]]
    return json.loads(json.dumps({**result, "estimates": estimates}))  # type: ignore[no-any-return]


def _placed(x: np.ndarray, index: np.ndarray | None, among: np.ndarray | None) -> np.ndarray:
    """Return a number for each evaluated row, (N,), NaN where an estimate has none.

    Args:
        x: numbers of M rows, (M,).
        index: places of those rows, the first M of which count; None for the first M of `among`.
        among: places of all evaluated rows, (N,), rising; None returns x as it is.
    """
    if among is None:
        return x
    out = np.full(len(among), np.nan)
    out[slice(len(x)) if index is None else np.searchsorted(among, index[: len(x)])] = x
    return out


def _estimate_line(estimate: Estimate) -> dict[str, Any]:
    mean, error = estimate.mean()
    line = {
        "method": estimate.method,
        "side": estimate.side,
        "measure": estimate.measure,
        "k": estimate.k,
        "n": len(estimate.nats),
        "on": estimate.on,
        "mean": mean,
        "stderr": None if math.isnan(error) else error,
        "bits_per_dim": estimate.bits_per_dim,
        "seconds": round(estimate.seconds, 3),
    }
    ess = (
        {}
        if estimate.ess is None
        else {"ess_median": float(np.median(estimate.ess)), "ess_min": float(estimate.ess.min())}
    )
    return {**line, **ess, **estimate.details}


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
            _write_text(path / "config.yaml", dump_config(resolved))
            _write_text(
                path / "config.json",
                json.dumps(_model_json(training.model, resolved), indent=1) + "\n",
            )
            prints = {
                name: getattr(data, name).fingerprint() for name in ("train", "valid", "test")
            }
            _write_text(path / "data.json", json.dumps(prints, indent=1) + "\n")
            _write_text(
                path / "environment.json", json.dumps(_environment(training), indent=1) + "\n"
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
            _write_text(opened.path / "config.yaml", dump_config(resolved))
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
            self.training.steps, self._remedies(), reads_latent=_reads_latent(self.training.model)
        )

    def _remedies(self) -> Remedies:
        return Remedies(
            str(self.path),
            self.config,
            _trial(self.data),
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
                _write_text(
                    self.path / "failure.json",
                    json.dumps({"step": self.training.index, "reason": str(error)}) + "\n",
                )
            raise
        if self.writes:
            # the first step turned out not to compile here
            if self.training.compile != self.config["compile"]:
                self.config["compile"] = self.training.compile
                _write_text(self.path / "config.yaml", dump_config(self.config))
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
        _save_tensors(name, tensors, {"numbers": json.dumps(numbers)})
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
            _save_tensors(self.path / "model.safetensors", tensors, {"format": "pt"})
            kept = {"step": self.training.kept_step, "why": self.training.kept_sentence()}
            _write_text(self.path / "kept.json", json.dumps(kept) + "\n")


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


def _trial(data: Data) -> Trial | None:
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


def load_model(folder: str | Path, device: str = "cpu") -> LatentModel:
    """Build the model that config.json and model.safetensors of a folder describe.

    Raises:
        ValueError: a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors")
    except FileNotFoundError as error:
        raise ValueError(
            f"expected trained weights in {folder}; got none yet "
            f"({Path(str(error.filename)).name} is missing)"
        ) from error
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise ValueError(
            f"expected readable weights in {folder}; got damaged ones "
            f"({str(error).splitlines()[0]})"
        ) from error
    try:
        space, given = spaces_of(
            config, {k: v.numpy() for k, v in tensors.items() if k.startswith("space.")}
        )
        model = build(space, given=given, **current(config["model"], config.get("format", 1)))
        model.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("space.")})
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"expected the weights of the model that {folder}/config.json describes; got others"
        ) from error
    return model.to(device).eval()


def _reads_latent(model: LatentModel) -> bool:
    """Tell whether the decoder sees the latent at all."""
    return model.capabilities.reads_latent


def _write_text(path: Path, text: str) -> None:
    with writing(path) as part:
        part.write_text(text)


def _save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with writing(path) as part:
        save_file(tensors, part, metadata)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a complete state.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads(file.metadata()["numbers"])
            return {k: file.get_tensor(k) for k in file.keys()}, numbers  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            str(error).splitlines()[0] if str(error) else type(error).__name__
        ) from error


def _newest_numbers(path: Path) -> dict[str, Any] | None:
    for checkpoint in sorted((path / "checkpoints").glob("*.safetensors"), reverse=True):
        try:
            with safe_open(checkpoint, framework="pt") as file:
                numbers: dict[str, Any] = json.loads(file.metadata()["numbers"])
                return numbers
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue
    return None


def result(model: LatentModel, rows: Rows, *, k: int = 100) -> str:
    """Say in a sentence how good a model is, from an evaluation of seconds: up to 1,000 data at
    random, k draws or for large data fewer."""
    k, limit = within_seconds(model, rows, k)
    evaluation = evaluate(model, rows, k=k, methods=("iwae",), limit=limit)
    return evaluation["iwae"].sentence(describe(rows, limit))


def describe(rows: Rows, n: int) -> str:
    """Name data in words: "10,000 test images", "1,000 of 10,000 test images, drawn at random"."""
    what = rows.space.layout.noun
    return (
        f"{n:,} {rows.name} {what}"
        if n == len(rows)
        else f"{n:,} of {len(rows):,} {rows.name} {what}, drawn at random"
    )


def _environment(training: Training) -> dict[str, Any]:
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
