"""The verb diffuse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vaestro.runs.verbs.base import Verbs

if TYPE_CHECKING:
    from vaestro.runs.diffusing import DiffusionResult, Progress


class DiffuseVerbs(Verbs):
    """Train a diffusion model on the latents of a run."""

    def diffuse(
        self,
        *,
        prediction: str = "v",
        denoiser: str | None = None,
        condition: str | Sequence[str] = (),
        steps: int | None = None,
        minutes: float | None = None,
        batch: int = 256,
        lr: float | None = None,
        ema: float = 0.9995,
        seed: int = 0,
        force: bool = False,
    ) -> DiffusionResult:
        """Train a diffusion model on the latents of the run, write RUN/diffusion/, and return its
        bound on held-out data; see `runs.diffusing.diffusing`.

        `sample(diffusion=True)` then draws from it. An interrupted training continues.

        Args:
            prediction: v, epsilon or flow.
            denoiser: dense or unet, with options; by default unet for grids of more than 1,024
                units.
            condition: attributes or columns that the diffusion model is conditioned on.
            steps: number of steps; by default 10,000.
            minutes: length of training, instead of `steps`.
            batch: rows of a step.
            lr: learning rate; by default 2e-4 for unet, else 1e-3.
            ema: decay of the average of the weights.
            seed: of order and noise.
            force: replace a diffusion model of other options.

        Raises:
            ValueError: the latents are discrete, or an option does not apply.
        """
        last = None
        for last in self.diffusing(
            prediction=prediction,
            denoiser=denoiser,
            condition=condition,
            steps=steps,
            minutes=minutes,
            batch=batch,
            lr=lr,
            ema=ema,
            seed=seed,
            force=force,
        ):
            pass
        assert last is not None and last.result is not None
        return last.result

    def diffusing(
        self,
        *,
        prediction: str = "v",
        denoiser: str | None = None,
        condition: str | Sequence[str] = (),
        steps: int | None = None,
        minutes: float | None = None,
        batch: int = 256,
        lr: float | None = None,
        ema: float = 0.9995,
        seed: int = 0,
        force: bool = False,
    ) -> Iterator[Progress]:
        """Do the same as `diffuse`, and yield the progress."""
        from vaestro.runs import diffusing
        from vaestro.runs.denoising import Options

        names = (condition,) if isinstance(condition, str) else tuple(condition)
        options = Options(prediction, denoiser, names, batch, lr, ema, seed)
        return diffusing.diffusing(self.session, options, steps=steps, minutes=minutes, force=force)
