"""Samplers of a diffusion model: how noise becomes latents. The steps are those of diffusers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from vaestro.diffusion.process import Process
from vaestro.text import InputError

# z_t (N, *Z) and a time in [1, T] -> the prediction (N, *Z)
Predict: TypeAlias = Callable[[Tensor, float], Tensor]
PREDICTIONS = {"v": "v_prediction", "epsilon": "epsilon", "flow": "flow_prediction"}


class Sampler(ABC):
    """Turn standard noise into latents by a scheduler of diffusers.

    Args:
        steps: number of evaluations of the denoiser.

    Raises:
        ValueError: `steps` is below 1.
    """

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"expected 1 or more steps of sampling; got {steps}")
        self.steps = steps

    @abstractmethod
    def scheduler(self, process: Process) -> Any:
        """Return the scheduler for a process.

        Raises:
            ValueError: the sampler does not apply to the process.
        """

    def arguments(self) -> dict[str, object]:
        """Return further arguments of each step of the scheduler."""
        return {}

    def __call__(
        self,
        process: Process,
        predict: Predict,
        noise: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return latents, (N, *Z), from standard noise of the same shape.

        Args:
            process: of the diffusion model.
            predict: the denoiser.
            noise: at time T.
            generator: of the noise that a stochastic sampler adds.

        Raises:
            ValueError: more steps than the process has, or the sampler does not apply to it.
        """
        if self.steps > process.steps:
            raise ValueError(
                f"expected at most {process.steps} steps of sampling; got {self.steps}"
            )
        scheduler = self.scheduler(process)
        scheduler.set_timesteps(self.steps)
        flow = process.prediction == "flow"
        z = noise if flow else noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            scaled = z if flow else scheduler.scale_model_input(z, t)
            out = predict(scaled, float(t) if flow else float(t) + 1)
            z = scheduler.step(
                out, t, z, generator=generator, return_dict=False, **self.arguments()
            )[0]
        return z


@final
class Ddpm(Sampler):
    """Draw each step of the reverse process (Ho et al. 2020).

    >>> Ddpm(steps=10).scheduler(Process("v")).config.prediction_type
    'v_prediction'
    """

    def __init__(self, *, steps: int = 1000) -> None:
        super().__init__(steps)

    def scheduler(self, process: Process) -> Any:
        return _scheduler("DDPMScheduler", process, timestep_spacing="trailing", clip_sample=False)


@final
class Ddim(Sampler):
    """Follow the deterministic path of the reverse process (Song et al. 2021).

    Args:
        steps: see `Sampler`.
        eta: share of the noise of `ddpm` that each step adds.

    Raises:
        ValueError: eta is not in [0, 1].

    >>> Ddim(steps=10).arguments()
    {'eta': 0.0}
    """

    def __init__(self, *, steps: int = 50, eta: float = 0.0) -> None:
        super().__init__(steps)
        if not 0 <= eta <= 1:
            raise ValueError(f"expected eta in [0, 1]; got {eta}")
        self.eta = eta

    def scheduler(self, process: Process) -> Any:
        return _scheduler(
            "DDIMScheduler",
            process,
            timestep_spacing="trailing",
            clip_sample=False,
            set_alpha_to_one=True,
        )

    def arguments(self) -> dict[str, object]:
        return {"eta": self.eta}


@final
class DpmSolver(Sampler):
    """Follow the deterministic path by a multistep solver (Lu et al. 2022).

    >>> DpmSolver(steps=10).steps
    10
    """

    def __init__(self, *, steps: int = 25) -> None:
        super().__init__(steps)

    def scheduler(self, process: Process) -> Any:
        return _scheduler(
            "DPMSolverMultistepScheduler",
            process,
            timestep_spacing="trailing",
            algorithm_type="dpmsolver++",
            solver_order=2,
        )


@final
class Euler(Sampler):
    """Follow the deterministic path by Euler's method (Karras et al. 2022; Lipman et al. 2023).

    >>> Euler(steps=10).steps
    10
    """

    def __init__(self, *, steps: int = 50) -> None:
        super().__init__(steps)

    def scheduler(self, process: Process) -> Any:
        if process.prediction == "flow":
            return _class("FlowMatchEulerDiscreteScheduler")(num_train_timesteps=process.steps)
        return _scheduler("EulerDiscreteScheduler", process, timestep_spacing="trailing")


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "ddim": Ddim,
    "ddpm": Ddpm,
    "dpm-solver": DpmSolver,
    "euler": Euler,
}


def default_sampler(prediction: str) -> str:
    """Return the name of the sampler for a prediction.

    >>> default_sampler("v"), default_sampler("flow")
    ('dpm-solver', 'euler')
    """
    return "euler" if prediction == "flow" else "dpm-solver"


def _scheduler(name: str, process: Process, **options: object) -> Any:
    """Return a scheduler of diffusers for the cosine process.

    Raises:
        ValueError: the process is another one.
    """
    if process.prediction == "flow":
        raise ValueError("expected the sampler euler for a flow; got another one")
    return _class(name)(
        num_train_timesteps=process.steps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=PREDICTIONS[process.prediction],
        **options,
    )


def _class(name: str) -> Any:
    """Return a class of diffusers.

    Raises:
        InputError: diffusers is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise InputError(
            "sampling from a diffusion model needs diffusers: pip install 'vaestro[diffusion]'"
        ) from error
    return getattr(diffusers, name)
