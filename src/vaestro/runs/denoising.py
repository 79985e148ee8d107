"""The training of a diffusion model on latents, a step at a time, and its files.

Every step draws fresh latents from q(z | x). Rows and noise are functions of the seed and the
number of the step, so a continued training equals an uninterrupted one.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

import vaestro
from vaestro.diffusion import DROPPED, Diffusion
from vaestro.files import Json
from vaestro.latent import Posteriors
from vaestro.loop import Diverged
from vaestro.optimizers import AdamW
from vaestro.parts import find
from vaestro.randomness import Order, torch_generator
from vaestro.records import Damaged, write_record
from vaestro.runs.manifest import register
from vaestro.runs.stored_diffusion import FOLDER, RECORD, STATE, WEIGHTS, count_given, new_diffusion
from vaestro.spaces import Space
from vaestro.storage import append, make_folder, remove, truncate
from vaestro.tensor_files import read_tensors, save_tensors
from vaestro.text import InputError, nearest

if TYPE_CHECKING:
    from vaestro.runs.session import Session

WARMUP, CLIP = 200, 1.0
DENSE = 1024  # largest number of units for which the dense denoiser is the default
VALIDATED = 2000  # largest number of rows of a validation


@final
@dataclass(frozen=True)
class Options:
    """Hold the options of a diffusion model and its training.

    Args:
        prediction: v, epsilon or flow.
        denoiser: a part of the kind denoiser; by default unet for grids of more than 1,024 units,
            else dense.
        condition: attributes or columns that the diffusion model is conditioned on.
        batch: rows of a step.
        lr: learning rate; by default 2e-4 for unet, else 1e-3.
        ema: decay of the average of the weights.
        seed: of order and noise.

    Raises:
        ValueError: an option is out of range.

    >>> Options().filled((2,)).denoiser
    'dense'
    """

    prediction: str = "v"
    denoiser: str | None = None
    condition: tuple[str, ...] = ()
    batch: int = 256
    lr: float | None = None
    ema: float = 0.9995
    seed: int = 0

    def __post_init__(self) -> None:
        if self.prediction not in ("v", "epsilon", "flow"):
            raise ValueError(
                f"expected a prediction: {nearest(self.prediction, ('v', 'epsilon', 'flow'))}; got "
                f"{self.prediction!r}"
            )
        if self.batch < 1 or not 0 <= self.ema < 1 or self.seed < 0:
            raise ValueError(
                f"expected a batch of 1 or more, ema in [0, 1) and a seed of 0 or more; got "
                f"{self.batch}, {self.ema}, {self.seed}"
            )
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"expected a learning rate above 0; got {self.lr}")

    def filled(self, units: tuple[int, ...]) -> Options:
        """Return the options with the defaults for latents of a shape."""
        large = len(units) == 3 and math.prod(units) > DENSE
        denoiser = self.denoiser or ("unet" if large else "dense")
        slow = find("denoiser", denoiser).name == "unet"
        return replace(self, denoiser=denoiser, lr=self.lr or (2e-4 if slow else 1e-3))

    def record(self) -> dict[str, Json]:
        """Return the options by name."""
        return {
            "prediction": self.prediction,
            "denoiser": self.denoiser,
            "condition": list(self.condition),
            "batch": self.batch,
            "lr": self.lr,
            "ema": self.ema,
            "seed": self.seed,
        }


@final
class Denoising:
    """Train a diffusion model on latents, a step at a time, and write its files.

    Args:
        session: the opened run.
        options: with all defaults filled in.
        train, valid: posteriors of the rows, with all conditions of the diffusion model.
        space: of the conditions of the diffusion model's own; None without.

    >>> import numpy as np, vaestro as vs
    >>> from vaestro.latent import encoding
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> session = vs.open(vs.train(x, run="example", latent=2, steps=2))
    >>> *_, (_, posteriors) = encoding(session.model, session.data.train)
    >>> options = Options(denoiser="dense:width=16").filled((2,))
    >>> training = Denoising(session, options, posteriors, posteriors, None)
    >>> training.step()
    >>> training.index
    1
    """

    def __init__(
        self,
        session: Session,
        options: Options,
        train: Posteriors,
        valid: Posteriors,
        space: Space | None,
    ) -> None:
        self.session, self.options, self.space = session, options, space
        self.train, self.valid = train, valid
        self.folder = session.run.path / FOLDER
        model = session.model
        self.device = next(model.parameters()).device
        generator_state = torch.random.get_rng_state()
        torch.manual_seed(options.seed)
        self.diffusion = new_diffusion(model.units, count_given(model, space), options.record()).to(
            self.device
        )
        torch.random.set_rng_state(generator_state)
        self.average = copy.deepcopy(self.diffusion).requires_grad_(False)
        self.parameters = list(self.diffusion.parameters())
        self.optimizer = AdamW(self.parameters)
        self.order = Order(len(train), min(options.batch, len(train)), options.seed)
        self.index, self.losses = 0, torch.zeros(2, dtype=torch.float64)
        self.seconds, self._logged = 0.0, 0

    def standardise(self) -> None:
        """Set mean and scale of the latents from all training data."""
        for each in (self.diffusion, self.average):
            each.standardise(*self.train.moments(self.options.seed))

    def step(self) -> None:
        """Take one step.

        Raises:
            Diverged: the loss is not finite.
        """
        begun = time.perf_counter()
        rows = torch.from_numpy(self.order(self.index))
        generator = torch_generator(self.device, self.options.seed, "diffusion", self.index)
        loss = self._loss(self.diffusion, self.train, rows, generator, DROPPED).mean()
        grads = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        pairs = zip(grads, self.parameters, strict=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in pairs]
        norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in filled]))
        lr = (self.options.lr or 0.0) * min(1.0, (self.index + 1) / WARMUP)
        self.optimizer.step(filled, lr, (norm / CLIP).clamp(min=1.0), (~norm.isfinite()).float())
        self.index += 1
        decay = min(self.options.ema, self.index / (self.index + 10))
        get_ema_multi_avg_fn(decay)(list(self.average.parameters()), self.parameters, None)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(f"the loss of the diffusion model is not finite at step {self.index:,}")
        self.losses += torch.tensor([value, 1.0], dtype=torch.float64)
        self.seconds += time.perf_counter() - begun

    def _loss(
        self,
        diffusion: Diffusion,
        posteriors: Posteriors,
        rows: Tensor,
        generator: torch.Generator,
        dropped: float,
    ) -> Tensor:
        """Return the loss of rows, (B,), at fresh draws of z, times and noise."""
        latent, size = posteriors.draw(rows, generator), len(rows)
        device = latent.device
        # times are spread evenly over [1, T], which lowers the variance (Kingma et al. 2021)
        offset = torch.rand(1, generator=generator, device=device, dtype=torch.float64)
        spread = (offset + torch.arange(size, device=device) / size) % 1
        t = 1 + (diffusion.process.steps - 1) * spread
        noise = torch.randn(latent.shape, generator=generator, device=device)
        given = present = None
        if posteriors.given is not None:
            given = posteriors.given[rows].to(device)
            present = torch.rand(size, generator=generator, device=device) >= dropped
        return diffusion.loss(latent, t, noise, given, present)

    @torch.no_grad()
    def validate(self) -> float:
        """Return the mean loss of the averaged weights on validation data, with the same noise at
        every call."""
        total, count = 0.0, min(len(self.valid), VALIDATED)
        for i in range(0, count, self.options.batch):
            rows = torch.arange(i, min(i + self.options.batch, count))
            generator = torch_generator(self.device, self.options.seed, "validate", i)
            total += float(self._loss(self.average, self.valid, rows, generator, 0.0).sum())
        return total / max(1, count)

    def log(self) -> list[dict[str, Json]]:
        """Write and return one record of training and one of validation."""
        loss, steps = self.losses.tolist()
        shared = {"step": self.index, "seconds": self.seconds, "lr": self.options.lr}
        epoch = self.index * self.order.batch / len(self.train)
        speed = None if not self.seconds else self.index * self.order.batch / self.seconds
        records: list[dict[str, Json]] = [
            {
                "split": "train",
                "epoch": epoch,
                "loss": loss / max(1, steps),
                "examples_per_second": speed,
                **shared,
            }
        ]
        if len(self.valid):
            records.append({"split": "valid", "epoch": epoch, "loss": self.validate(), **shared})
        self.losses.zero_()
        text = "".join(json.dumps(record) + "\n" for record in records)
        append(self.folder / "metrics.jsonl", text)
        self._logged = (self.folder / "metrics.jsonl").stat().st_size
        return records

    # -- files -------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Create the folder, without the files of an earlier diffusion model."""
        register(self.session.run.path, FOLDER)
        make_folder(self.folder)
        for name in (RECORD, WEIGHTS, STATE, "metrics.jsonl"):
            remove(self.folder / name)

    def save(self, bound: Mapping[str, Json] | None = None) -> None:
        """Write the weights, the state and the record."""
        tensors = {f"model.{k}": v for k, v in self.diffusion.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.optimizer.state().items()}
        numbers = {
            "index": self.index,
            "seconds": self.seconds,
            "losses": self.losses.tolist(),
            "logged": self._logged,
        }
        metadata = {
            "numbers": json.dumps(numbers),
            "options": json.dumps(_identity(self.session, self.options)),
        }
        state = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
        save_tensors(self.folder / STATE, state, metadata)
        weights = {k.removeprefix("average."): v for k, v in state.items() if k.startswith("aver")}
        save_tensors(self.folder / WEIGHTS, weights, {"format": "pt"})
        record = {
            "vaestro": vaestro.__version__,
            "options": self.options.record(),
            "steps": self.index,
            "parameters": sum(p.numel() for p in self.parameters),
            "given": None if self.space is None else self.space.scalars(),
            "weights_sha256": self.session.weights_sha256,
            "bound": bound,
        }
        write_record(self.folder / RECORD, record)

    def resume(self, saved: Saved) -> None:
        """Continue from a saved state."""

        def part(prefix: str) -> dict[str, Tensor]:
            named = {k: v for k, v in saved.tensors.items() if k.startswith(prefix)}
            return {k.removeprefix(prefix): v.to(self.device) for k, v in named.items()}

        self.diffusion.load_state_dict(part("model."))
        self.average.load_state_dict(part("average."))
        self.optimizer.load(part("optimizer."))
        numbers = saved.numbers
        self.index, self.seconds = numbers["index"], numbers["seconds"]
        self.losses = torch.tensor(numbers["losses"], dtype=torch.float64)
        self._logged = numbers["logged"]
        truncate(self.folder / "metrics.jsonl", self._logged)


@final
@dataclass(frozen=True, eq=False)
class Saved:
    """Hold the state from which the training of a diffusion model continues.

    Args:
        tensors, numbers: the state.

    >>> Saved({}, {"index": 3}).numbers["index"]
    3
    """

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Json]


def saved_state(session: Session, options: Options) -> Saved | None:
    """Return the state of an earlier training with these options; None if there is none.

    Raises:
        InputError: the state is of other options or of other weights of the run.
        Damaged: the state is damaged.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> saved_state(vs.open(vs.train(x, run="second", latent=2, steps=2)), Options()) is None
    True
    """
    folder = session.run.path / FOLDER
    if not (folder / STATE).exists():
        return None
    tensors, metadata = read_tensors(folder / STATE)
    try:
        before, numbers = json.loads(metadata["options"]), json.loads(metadata["numbers"])
    except (KeyError, ValueError) as error:
        raise Damaged(f"{folder / STATE} is damaged: it has no numbers") from error
    now = _identity(session, options)
    differing = next((name for name in now if before.get(name) != now[name]), None)
    if differing is not None:
        what = "weights of the run" if differing == "weights_sha256" else f"--{differing}"
        raise InputError(
            f"{folder} has a diffusion model of other {what} (--force trains a new one)"
        )
    return Saved(tensors, numbers)


def _identity(session: Session, options: Options) -> dict[str, Json]:
    """Return what a training must share with the one that it continues."""
    return {**options.record(), "weights_sha256": session.weights_sha256}
