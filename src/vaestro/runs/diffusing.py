"""Train a diffusion model on the latents of a run (Rombach et al. 2022), and bound log p(x) with it
as the prior."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

from vaestro.data import Rows
from vaestro.data.kinds import infer_space
from vaestro.data.tables import frame_of
from vaestro.evaluation import plus_minus
from vaestro.evaluation.records import mean_and_error
from vaestro.files import Json
from vaestro.frames import Frame
from vaestro.latent import Posteriors, attributes, encoding, features_of
from vaestro.locks import Lock
from vaestro.models import LatentModel, with_latent
from vaestro.randomness import torch_generator
from vaestro.runs.denoising import VALIDATED, Denoising, Options, saved_state
from vaestro.runs.manifest import DIFFUSION_LOCK
from vaestro.spaces import Space
from vaestro.text import InputError, nearest

if TYPE_CHECKING:
    from vaestro.runs.session import Session

SAVE_SECONDS = 30.0
STEPS = 10_000
BOUNDED, BOUNDED_GRIDS = 2000, 200  # largest number of rows of the bound: of vectors, of grids
BOUND_DRAWS = 4  # draws of z for each datum


@final
@dataclass(frozen=True)
class DiffusionResult:
    """Hold the bounds of a diffusion prior, and of the prior of the run, on held-out data.

    Args:
        steps: of training.
        split, n: of the held-out data.
        before: ELBO with the prior of the run, (mean, standard error), in nats.
        after: the lower bound with the diffusion prior.
        gain: `after` minus `before`, paired over data and draws.
        path: the folder of the diffusion model.
        condition: names of the conditions of the diffusion model's own. With them, `after` bounds
            log p(x | conditions), which is no improvement over `before`.

    >>> result = DiffusionResult(9, "test", 50, (-5.0, 0.1), (-4.0, 0.1), (1.0, 0.05), Path("d"))
    >>> result.lines()[-1]
    'the diffusion prior raises the bound by 1.00 +- 0.05 nats'
    """

    steps: int
    split: str
    n: int
    before: tuple[float, float]
    after: tuple[float, float]
    gain: tuple[float, float]
    path: Path
    condition: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the bounds in words."""
        change, error = self.gain
        verb = "raises" if change >= 0 else "lowers"
        within = ", which is within the error" if abs(change) < 2 * error else ""
        if self.condition:
            names = ", ".join(self.condition)
            return [
                f"diffusion prior:  log p(x | {names}) >= {plus_minus(self.after)} nats (ELBO with "
                f"the diffusion bound on log p(z | {names}), {self.n:,} {self.split} data); the "
                f"bound on log p(x) with the prior of the run, {plus_minus(self.before)} nats, is "
                f"that of another quantity"
            ]
        return [
            f"prior of the run: log p(x) >= {plus_minus(self.before)} nats (ELBO, {self.n:,} "
            f"{self.split} data)",
            f"diffusion prior:  log p(x) >= {plus_minus(self.after)} nats (ELBO with the diffusion "
            f"bound on log p(z))",
            f"the diffusion prior {verb} the bound by {plus_minus((abs(change), error))} nats"
            f"{within}",
        ]

    def record(self) -> dict[str, Json]:
        """Return the bounds by name, as diffusion.json has them."""
        pairs = {"before": self.before, "after": self.after, "gain": self.gain}
        return {
            "split": self.split,
            "n": self.n,
            "side": "lower",
            "condition": list(self.condition),
            **{
                name: {"mean": mean, "stderr": None if math.isnan(error) else error}
                for name, (mean, error) in pairs.items()
            },
        }


@final
@dataclass(frozen=True)
class Progress:
    """Describe how far the training of a diffusion model is.

    Args:
        share: what is done, in [0, 1].
        what: what is done now: encoding, training or bound.
        records: records that were logged since the last one.
        result: at the end.

    >>> Progress(0.5, "training").result is None
    True
    """

    share: float
    what: str
    records: tuple[Mapping[str, Json], ...] = ()
    result: DiffusionResult | None = None


def diffusing(
    session: Session,
    options: Options,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    force: bool = False,
) -> Iterator[Progress]:
    """Train a diffusion model on the latents of a run, and write RUN/diffusion/.

    An interrupted training continues, if the options are the same; one that is complete continues
    with a larger number of steps.

    Args:
        session: an opened run with a real latent.
        options: of the diffusion model.
        steps: number of steps; by default 10,000.
        minutes: length of training, instead of `steps`.
        force: replace a diffusion model of other options.

    Raises:
        ValueError: the latents are discrete, a condition does not exist, an option is out of
            range, or there is a diffusion model of other options.
        Diverged: the loss is not finite.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="second", latent=2, steps=2)
    >>> *_, last = diffusing(run.session, Options(denoiser="dense:width=16"), steps=3)
    >>> last.result.steps
    3
    """
    if steps is not None and minutes is not None:
        raise InputError("both --steps and --minutes are given: leave one out")
    steps = STEPS if steps is None else steps
    model = _checked(session, steps, minutes)
    options = options.filled(model.units)
    saved = None if force else saved_state(session, options)
    if saved is not None and minutes is None and saved.numbers["index"] >= steps:
        done = saved.numbers["index"]
        raise InputError(
            f"{session.run.path} has a diffusion model of {done:,} steps (--steps {2 * done} "
            f"continues its training, --force trains a new one)"
        )
    data = session.data
    space, given = _conditions(session, options.condition)
    sets: dict[str, Posteriors] = {}
    for name, rows in (("train", data.train), ("valid", data.valid.spread(VALIDATED))):
        if not len(rows):
            sets[name] = Posteriors(model, torch.zeros(0), None)
            continue
        for share, posteriors in encoding(model, rows):
            if posteriors is not None:
                sets[name] = _with_given(posteriors, given(rows))
            elif name == "train":
                yield Progress(share, "encoding")
    path = session.run.path
    with Lock(path, DIFFUSION_LOCK):
        training = Denoising(session, options, sets["train"], sets["valid"], space)
        if saved is None:
            training.begin()
            training.standardise()
        else:
            training.resume(saved)
        yield from _trained(training, steps, minutes)
        result = _bounded(training, given)
        training.save(result.record())
    yield Progress(1.0, "bound", result=result)


def _checked(session: Session, steps: int, minutes: float | None) -> LatentModel:
    """Return the model of a run.

    Raises:
        ValueError: it has no real latent, or the length is out of range.
    """
    model = with_latent(session.model)
    if model.alphabet:
        raise ValueError(
            "expected real latents for a diffusion model; got discrete ones (vaestro fit-prior "
            "--prior autoregressive fits a prior to them)"
        )
    if steps < 1 or (minutes is not None and not 0 < minutes < math.inf):
        raise ValueError(f"expected a length above 0; got {steps if minutes is None else minutes}")
    return model


def _trained(training: Denoising, steps: int, minutes: float | None) -> Iterator[Progress]:
    """Take all steps, and write what is due; Ctrl-C saves the state first."""
    until = math.inf if minutes is None else training.seconds + 60 * minutes
    every = max(100, steps // 20)
    saved = time.monotonic()
    total = steps if minutes is None else 10**12
    try:
        while training.index < total and training.seconds < until:
            training.step()
            last = training.index >= total or training.seconds >= until
            records = training.log() if training.index % every == 0 or last else []
            if time.monotonic() - saved > SAVE_SECONDS:
                training.save()
                saved = time.monotonic()
            share = training.index / steps
            if minutes is not None:
                share = 1 - (until - training.seconds) / (60 * minutes)
            yield Progress(min(1.0, share), "training", tuple(records))
    except (KeyboardInterrupt, GeneratorExit):
        training.save()
        raise
    training.save()


def _conditions(session: Session, names: tuple[str, ...]) -> tuple[Space | None, Given]:
    """Return the space of the conditions of a diffusion model's own, and what computes them.

    Raises:
        ValueError: there is no such attribute, the run's model is conditioned on it, or it has
            empty cells.
    """
    if not names:
        return None, Given((), None)
    given = session.model.given
    twice = next((n for n in names if given is not None and n in given.names), None)
    if twice is not None:
        raise InputError(f"the run is conditioned on {twice}, and so is its diffusion model")
    if len(set(names)) < len(names):
        raise ValueError(f"expected each condition once; got {', '.join(names)}")
    frames = [
        Given(names, None).frame(rows)
        for rows in (session.data.train, session.data.valid, session.data.test)
        if len(rows)
    ]
    space, _ = infer_space(Frame.concatenated(frames), frames[0], {}, "the training data")
    return space, Given(names, space)


@final
@dataclass(frozen=True)
class Given:
    """Compute the conditions of rows.

    Args:
        names: of the attributes.
        space: of these attributes.

    >>> Given((), None)(None) is None
    True
    """

    names: tuple[str, ...]
    space: Space | None

    def frame(self, rows: Rows) -> Frame:
        """Return the attributes of rows.

        Raises:
            ValueError: there is no such attribute, or it has empty cells.
        """
        known = attributes(rows)
        for name in self.names:
            if name not in known:
                offer = nearest(name, known) if known else "there are none"
                raise ValueError(
                    f"expected an attribute of the training data to condition on: {offer}; got "
                    f"{name!r}"
                )
            values = known[name]
            empty = values == "" if values.dtype.kind == "U" else values != values
            if np.any(empty):
                raise ValueError(
                    f"expected a value of the condition {name!r} in every row of the {rows.name} "
                    f"data; got {int(np.sum(empty)):,} empty cells"
                )
        return frame_of({name: known[name] for name in self.names})

    def __call__(self, rows: Rows) -> Tensor | None:
        """Return the conditions of rows as a network's input, (N, D); None without."""
        return None if self.space is None else features_of(self.space, self.frame(rows))


def _with_given(posteriors: Posteriors, further: Tensor | None) -> Posteriors:
    """Return posteriors with further conditions after those of the model."""
    parts = [c for c in (posteriors.given, further) if c is not None]
    return replace(posteriors, given=torch.cat(parts, 1) if parts else None)


@torch.no_grad()
def _bounded(training: Denoising, further: Given) -> DiffusionResult:
    """Return the bounds on held-out data with the prior of the run and with the diffusion prior,
    at the same draws of z."""
    session, diffusion = training.session, training.average
    model = with_latent(session.model)
    grid = len(model.units) == 3
    rows = session.data.held_out.spread(BOUNDED_GRIDS if grid else BOUNDED).fixed()
    extra, before, after, done = further(rows), [], [], 0
    for i, batch in enumerate(rows.chunks(min(session.model.space.chunk, 256), training.device)):
        generator = torch_generator(training.device, training.options.seed, "bound", i)
        draws = model.draw(batch, noise=model.noise(BOUND_DRAWS, len(batch), generator))
        parts = [batch.given, None if extra is None else extra[done : done + len(batch)]]
        given = [c.to(draws.z) for c in parts if c is not None]
        repeated = torch.cat(given, 1).repeat(BOUND_DRAWS, 1) if given else None
        bound = diffusion.bound(draws.z.flatten(0, 1), repeated, generator)
        bound = bound.view(draws.log_px.shape)
        after.append((draws.log_px + bound - draws.log_qz).mean(0).cpu())
        before.append(draws.log_w.mean(0).cpu())
        done += len(batch)
    new = torch.cat(after).double().numpy()
    old = torch.cat(before).double().numpy()
    return DiffusionResult(
        training.index,
        rows.name,
        len(rows),
        mean_and_error(old),
        mean_and_error(new),
        mean_and_error(new - old),
        training.folder,
        training.options.condition,
    )
