"""Optimisers: one step from a list of gradients, with clipping and the skipping of bad steps
inside.

Each takes the gradients' divisor (for clipping by norm) and whether the step is to be skipped as
tensors, so that nothing has to be read back from the device. Weight decay acts on matrices only:
pulling a bias, a gain or a learned variance to zero would be a prior that nobody asked for.
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
        parameters: what is optimised.
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
        """Take one step with gradients / divisor, or none where `skip` is 1."""

    def constants(self, lr: float) -> tuple[Tensor, ...]:
        """Return what `step_in_graph` needs of numbers, as tensors, so that one compiled graph
        serves every step."""
        return (torch.tensor(lr, device=self.parameters[0].device),)

    def step_in_graph(
        self, grads: Sequence[Tensor], constants: tuple[Tensor, ...], divisor: Tensor, skip: Tensor
    ) -> None:
        """Take the same step as `step` in a form that can be compiled."""
        self.step(grads, constants[0], divisor, skip)

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return every tensor that a resumed run needs."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Copy a saved state in."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


@final
class AdamW(Optimizer):
    """Take Adam steps with decoupled weight decay (Kingma and Ba 2015; Loshchilov and Hutter 2019),
    by the fused kernel.

    Args:
        parameters: what is optimised.
        weight_decay: pull of matrices towards zero, in units of the learning rate.
        beta1, beta2: decay of the first and second moment.
        eps: added to the root of the second moment.
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
        # Powers are taken here: within the graph the compiler would take them again for every
        # weight.
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
        """Take the same step by formula: the fused kernel cannot be traced, and the compiler fuses
        this one as well."""
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
        parameters: what is optimised.
        momentum: share of the last step that is kept.
        weight_decay: pull of matrices towards zero, in units of the learning rate.
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
    """Return a gradient laid out in memory as its parameter is: the fused kernel goes through both
    in the order of their bytes."""
    return (
        gradient
        if gradient.stride() == parameter.stride()
        else torch.empty_like(parameter).copy_(gradient)
    )


def one_cycle(step: int, steps: int, warmup: float = 0.1) -> float:
    """Return the factor on the peak learning rate: a linear rise over the first tenth, then half a
    cosine to zero."""
    rise = max(1.0, warmup * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1.0, steps - rise))))
