"""Compilation of a whole step, optimiser included, by torch.compile.

Shapes and objects are the same in all steps of a run, so the graph is compiled once, without
guards. PyTorch caches compiled graphs on disk, so a later run with the same shapes starts sooner.

PyTorch 2.13 treats a CPU tensor of shape () and type float64 as a Python number, and a compiled
graph loses what is written into it. State of that type is written through `view(1)`.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from typing import final

import torch
import torch.nn as nn
from torch import Tensor

from vaestro.data import Data
from vaestro.loop.devices import Core, Processes
from vaestro.loop.settings import EPOCHS, Settings

GraphStep = Callable[..., Sequence[Tensor]]  # a step as a function of tensors
LIBRARIES = ("vaestro", "torch", "zuko", "builtins")  # their code has no side effects
# From these lengths of a run, auto compiles: steps on a CPU, floating-point operations elsewhere,
# and minutes. On a CPU a compiled step saves about 2 ms, and compilation takes 30 to 40 s of CPU
# time with an empty cache (docs/performance.md).
STEPS_CPU, WORK, MINUTES = 20_000, 4e15, 4.0

BACKEND = "inductor"  # of torch.compile

logger = logging.getLogger("vaestro")


@final
class Compilation:
    """Decide whether steps are compiled, and compile them; `auto` falls back to eager steps.

    Args:
        core: model and objective.
        settings: settings of the training, in which `compile` is auto, on or off.
        data: training data.
        processes: processes that train together.
        optimizers: classes of the optimisers.

    Raises:
        ValueError: compilation is on and impossible.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> vs.training(model, vs.Objective(), data, steps=3, device="cpu").compile  # a short run
    'off'
    """

    def __init__(
        self,
        core: Core,
        settings: Settings,
        data: Data,
        processes: Processes,
        optimizers: Sequence[type],
    ) -> None:
        self.automatic = settings.compile == "auto"
        obstacles = _obstacles(core, settings, data, processes)
        if settings.compile == "on" and obstacles:
            raise ValueError(
                "expected one process, precision 32, parts that can be compiled and, for a CPU, a "
                f"C++ compiler for --compile on; got {', '.join(obstacles)}"
            )
        self.on = settings.compile == "on" or (
            self.automatic
            and not obstacles
            and not _foreign(core, optimizers)
            and _pays(core, settings, data, processes)
        )

    def first(
        self, step: GraphStep, inputs: Sequence[Tensor], eager: Callable[[], object]
    ) -> tuple[GraphStep, Sequence[Tensor]] | None:
        """Compile a step and take it; return the compiled step and its result.

        Args:
            step: a function of tensors.
            inputs: tensors of the first step.
            eager: the eager step; if it fails too, its error is raised.

        Returns:
            None if `auto` fell back to eager steps.

        Raises:
            ValueError: compilation is on, and fails.
        """
        try:
            return _compile(step, inputs)
        except Exception as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            if self.automatic:
                self.stop(reason)
                return None
            self.on = False
            eager()
            raise ValueError(
                f"expected --compile off for a step that cannot be compiled; got on ({reason})"
            ) from error

    def stop(self, reason: str) -> None:
        """Run the following steps eagerly, and log one line with the reason."""
        self.on = False
        logger.warning("compilation failed, so steps run eagerly (%s)", reason)


def _compile(step: GraphStep, inputs: Sequence[Tensor]) -> tuple[GraphStep, Sequence[Tensor]]:
    # torch.compile caches graphs by code object. Without guards, a second run would get the graph
    # of the first.
    step.__code__ = step.__code__.replace()  # type: ignore[attr-defined]
    options: dict[str, str | int | bool | Callable[..., object]] = {
        "guard_filter_fn": torch.compiler.skip_all_guards_unsafe
    }
    compiled: GraphStep = torch.compile(
        step, fullgraph=True, dynamic=False, backend=BACKEND, options=options
    )
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        return compiled, compiled(*inputs)


def _obstacles(core: Core, settings: Settings, data: Data, processes: Processes) -> list[str]:
    """Return the reasons why the steps of a run cannot be compiled."""
    obstacles = [*core.objective.outside_graph, *core.model.capabilities.not_recordable]
    if data.train.sizes() is not None:
        obstacles.append("rows of several sizes")
    if processes.count > 1:
        obstacles.append(f"{processes.count} processes")
    if settings.precision != "32":
        obstacles.append(f"precision {settings.precision}")
    compilers = (os.environ.get("CXX", "g++"), "g++", "clang++")
    if processes.device.type == "cpu" and not any(map(shutil.which, compilers)):
        obstacles.append("no C++ compiler")
    return obstacles


def _foreign(core: Core, optimizers: Sequence[type]) -> bool:
    """Return whether a part is user code, which may have side effects that a graph does not
    capture."""
    parts = [*map(type, core.modules()), *core.objective.functions, *optimizers]
    return any(part.__module__.split(".")[0] not in LIBRARIES for part in parts)


def _pays(core: Core, settings: Settings, data: Data, processes: Processes) -> bool:
    """Return whether a run is long enough that compilation makes it faster.

    On a CPU, convolutional networks stay eager: to compile one takes minutes, and fails for tensors
    with the channels last.
    """
    convolves = any(isinstance(module, nn.Conv2d | nn.Conv3d) for module in core.modules())
    if convolves and processes.device.type == "cpu":
        return False
    if settings.minutes is not None:
        return settings.minutes >= MINUTES
    epochs = EPOCHS if settings.epochs is None else settings.epochs
    steps_per_epoch = len(data.train) / settings.batch
    steps = epochs * steps_per_epoch if settings.steps is None else settings.steps
    if processes.device.type == "cpu":
        return steps >= STEPS_CPU
    weights = sum(p.numel() for p in core.parameters() if p.requires_grad)
    return 6 * steps * settings.batch * core.objective.k * weights > WORK
