r"""Optimisers: one step from a list of gradients, including clipping and skipped steps.

With gradient g (divided by `divisor` to clip its norm), learning rate lr and step number t,

    AdamW   m <- beta1 m + (1 - beta1) g           v <- beta2 v + (1 - beta2) g^2
            p <- (1 - lr weight_decay) p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    SGD     v <- momentum v + g                    p <- (1 - lr weight_decay) p - lr v

Divisor and skip are tensors, so that nothing is read back from an accelerator. Weight decay acts on
matrices only: on biases, gains and variances it would be an unintended prior.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor


class Optimizer(ABC):
    """Describe an optimiser of a fixed list of parameters.

    Args:
        parameters: tensors that the optimiser changes in place.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)

    @abstractmethod
    def step(
        self,
        grads: Sequence[Tensor],
        lr: float | Tensor,
        divisor: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> None:
        """Take one step.

        Args:
            grads: gradient of each parameter.
            lr: learning rate.
            divisor: number by which gradients are divided, ().
            skip: 1 to leave parameters and state unchanged, 0 to take the step, ().
        """

    def constants(self, lr: float) -> tuple[Tensor, ...]:
        """Return the numbers that `step_in_graph` uses, as tensors, so that one compiled graph is
        valid for all steps."""
        return (torch.tensor(lr, device=self.parameters[0].device),)

    def step_in_graph(
        self, grads: Sequence[Tensor], constants: tuple[Tensor, ...], divisor: Tensor, skip: Tensor
    ) -> None:
        """Take the same step as `step`, in operations that can be compiled."""
        self.step(grads, constants[0], divisor, skip)

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the tensors from which `load` continues."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved state."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


@final
class AdamW(Optimizer):
    """Take Adam steps with decoupled weight decay (Kingma and Ba 2015; Loshchilov and Hutter 2019),
    with the fused kernel.

    Args:
        parameters: tensors that the optimiser changes in place.
        weight_decay: decay of matrices in a step, in units of the learning rate.
        beta1, beta2: decay of the first and second moment.
        eps: number that is added to the root of the second moment.

    Raises:
        ValueError: a number is out of its range.

    >>> weight = torch.ones(2, 2)
    >>> AdamW([weight], weight_decay=0.0).step([torch.ones(2, 2)], lr=0.1)
    >>> weight
    tensor([[0.9000, 0.9000],
            [0.9000, 0.9000]])
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        *,
        weight_decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters)
        if not (weight_decay >= 0 and 0 <= beta1 < 1 and 0 <= beta2 < 1 and eps > 0):
            raise ValueError(
                f"expected weight_decay >= 0, betas in [0, 1), eps > 0; got {weight_decay}, "
                f"{beta1}, {beta2}, {eps}"
            )
        self.weight_decay, self.beta1, self.beta2, self.eps = weight_decay, beta1, beta2, eps
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.taken = torch.zeros((), device=self.parameters[0].device)
        matrices = [i for i, p in enumerate(self.parameters) if p.ndim > 1]
        others = [i for i, p in enumerate(self.parameters) if p.ndim <= 1]
        self.groups = [(g, decay) for g, decay in ((matrices, weight_decay), (others, 0.0)) if g]
        lists = (self.parameters, self.first, self.second)
        self._constants = torch.empty(3)
        on_cpu = self.taken.device.type == "cpu"
        # the same memory, without calls into torch
        self._numbers = (self.taken.numpy(), self._constants.numpy()) if on_cpu else None
        self._fused = [
            (g, [[tensors[i] for i in g] for tensors in lists], [self.taken] * len(g), decay)
            for g, decay in self.groups
        ]

    @torch.no_grad()
    def step(
        self,
        grads: Sequence[Tensor],
        lr: float | Tensor,
        divisor: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> None:
        self.taken.add_(1 if skip is None else 1 - skip)
        for group, (parameters, first, second), taken, decay in self._fused:
            # The kernel itself: torch.optim.AdamW.step spends as long on its bookkeeping as the
            # kernel on a small model.
            torch._fused_adamw_(
                parameters,
                [_as_it_lies(grads[i], p) for i, p in zip(group, parameters, strict=True)],
                first,
                second,
                [],
                taken,
                lr=lr,  # type: ignore[arg-type]
                beta1=self.beta1,
                beta2=self.beta2,
                weight_decay=decay,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
                grad_scale=divisor,
                found_inf=skip,
            )

    @torch.no_grad()
    def constants(self, lr: float) -> tuple[Tensor, ...]:
        # Powers are computed here: in the graph the compiler would compute them for every weight.
        if self._numbers is not None:
            taken_so_far, constants = self._numbers
            t = float(taken_so_far) + 1
            constants[:] = (
                lr / (1 - self.beta1**t),
                (1 - self.beta2**t) ** -0.5,
                1 - lr * self.weight_decay,
            )
            return (self._constants,)
        taken = self.taken + 1
        shrink = torch.full_like(taken, 1 - lr * self.weight_decay)
        return (
            torch.stack([lr / (1 - self.beta1**taken), (1 - self.beta2**taken).rsqrt(), shrink]),
        )

    @torch.no_grad()
    def step_in_graph(
        self, grads: Sequence[Tensor], constants: tuple[Tensor, ...], divisor: Tensor, skip: Tensor
    ) -> None:
        """Take the same step by its formula: the fused kernel cannot be traced, and the compiler
        fuses these operations."""
        step_size, root, shrink = constants[0].unbind()
        bad, scale = skip > 0, divisor.reciprocal()
        for group, decay in self.groups:
            for i in group:
                p, m, v = self.parameters[i], self.first[i], self.second[i]
                g = grads[i] * scale
                new_m = m + (g - m) * (1 - self.beta1)
                new_v = v * self.beta2 + g * g * (1 - self.beta2)
                new_p = (p * shrink if decay else p) - step_size * new_m / (
                    new_v.sqrt() * root + self.eps
                )
                for old, new in ((m, new_m), (v, new_v), (p, new_p)):
                    old.copy_(torch.where(bad, old, new))
        self.taken.copy_(self.taken + 1 - skip)

    def state(self) -> dict[str, Tensor]:
        lists = {"first": self.first, "second": self.second}
        return {
            "taken": self.taken,
            **{f"{name}.{i}": t for name, tensors in lists.items() for i, t in enumerate(tensors)},
        }


@final
class SGD(Optimizer):
    """Take gradient steps with momentum (Polyak 1964).

    Args:
        parameters: tensors that the optimiser changes in place.
        momentum: factor on the previous step.
        weight_decay: decay of matrices in a step, in units of the learning rate.

    Raises:
        ValueError: a number is out of its range.

    >>> weight = torch.ones(2)
    >>> SGD([weight], momentum=0.9).step([torch.ones(2)], lr=0.1)
    >>> weight
    tensor([0.9000, 0.9000])
    """

    def __init__(
        self, parameters: Sequence[Tensor], *, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters)
        if not (0 <= momentum < 1 and weight_decay >= 0):
            raise ValueError(
                f"expected 0 <= momentum < 1 and weight_decay >= 0; got {momentum} and "
                f"{weight_decay}"
            )
        self.momentum, self.weight_decay = momentum, weight_decay
        self.velocity = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(
        self,
        grads: Sequence[Tensor],
        lr: float | Tensor,
        divisor: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> None:
        for p, v, g in zip(self.parameters, self.velocity, grads, strict=True):
            new_v = self.momentum * v + (g if divisor is None else g / divisor)
            new_p = p * (1 - lr * (self.weight_decay if p.ndim > 1 else 0.0)) - lr * new_v
            for old, new in ((v, new_v), (p, new_p)):
                old.copy_(new if skip is None else torch.where(skip > 0, old, new))

    def state(self) -> dict[str, Tensor]:
        return {f"velocity.{i}": v for i, v in enumerate(self.velocity)}


def _as_it_lies(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Return a gradient in the memory layout of its parameter, which the fused kernel requires."""
    return (
        gradient
        if gradient.stride() == parameter.stride()
        else torch.empty_like(parameter).copy_(gradient)
    )


def one_cycle(step: int, steps: int, warmup: float = 0.1) -> float:
    """Return the factor of the peak learning rate: linear warm-up, then half a cosine to zero
    (Smith 2018).

    Args:
        step: number of the step, from 0.
        steps: number of steps of the run.
        warmup: share of the run with a rising learning rate.

    >>> [round(one_cycle(step, 100), 2) for step in (0, 10, 55, 100)]
    [0.09, 1.0, 0.5, 0.0]
    """
    rise = max(1.0, warmup * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1.0, steps - rise))))
