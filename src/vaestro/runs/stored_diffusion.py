"""The diffusion model in a run's folder.

RUN/diffusion/diffusion.json         its options, the number of steps, and its bound
RUN/diffusion/diffusion.safetensors  averaged weights, which sample
RUN/diffusion/state.safetensors      the state from which training continues
RUN/diffusion/metrics.jsonl          one line for each logged record
RUN/diffusion/samples.*              samples from it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from torch import Tensor

from vaestro.data import tables
from vaestro.diffusion import Diffusion, DiffusionPrior, Process, default_sampler
from vaestro.files import Json
from vaestro.latent import Conditions, features_of
from vaestro.models import Model
from vaestro.parts import find
from vaestro.records import Damaged, read_record
from vaestro.spaces import Space, restored_space
from vaestro.tensor_files import read_tensors
from vaestro.text import InputError, nearest
from vaestro.trust import permit

if TYPE_CHECKING:
    from vaestro.runs.session import Session

FOLDER, RECORD, WEIGHTS, STATE = (
    "diffusion",
    "diffusion.json",
    "diffusion.safetensors",
    "state.safetensors",
)


def new_diffusion(units: tuple[int, ...], given: int, options: Mapping[str, Json]) -> Diffusion:
    """Return an untrained diffusion model.

    Args:
        units: the shape of one latent.
        given: number of values that describe the conditions of a row.
        options: `prediction` and `denoiser`.

    Raises:
        ValueError: a part does not exist, or does not fit the latents.

    >>> options = {"prediction": "v", "denoiser": "dense:width=16"}
    >>> new_diffusion((2,), 0, options).denoiser.units
    (2,)
    """
    process = Process(options["prediction"])
    return Diffusion(process, find("denoiser", options["denoiser"])(units, given))


@final
@dataclass(frozen=True, eq=False)
class StoredDiffusion:
    """Hold the diffusion model of a run.

    Args:
        diffusion: the model.
        space: of its own conditions, beside those of the run's model; None without.
        record: the content of diffusion.json.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="example", latent=2, steps=2)
    >>> _ = run.diffuse(steps=2, denoiser="dense:width=16")
    >>> stored_diffusion(run.session).record["steps"]
    2
    """

    diffusion: Diffusion
    space: Space | None
    record: Mapping[str, Json]

    def prior(
        self,
        model: Model,
        condition: Conditions | None = None,
        *,
        sampler: str | None = None,
        guidance: float = 1.0,
    ) -> DiffusionPrior:
        """Return the prior that samples latents of a model.

        Args:
            model: the model of the run.
            condition: {name: value} for each condition of the diffusion model's own.
            sampler: a part of the kind sampler; by default the one of the prediction.
            guidance: weight of the conditions.

        Raises:
            ValueError: a condition is missing or unknown, or the sampler does not exist.
        """
        further = self._further(condition or {})
        given = 0 if model.given is None else model.given.feature_shape[0]
        if guidance != 1 and self.diffusion.denoiser.given == 0:
            raise InputError(
                "guidance needs a diffusion model with conditions (vaestro diffuse RUN "
                "--condition NAME)"
            )
        name = sampler or default_sampler(self.diffusion.process.prediction)
        return DiffusionPrior(
            model.units, given, self.diffusion, find("sampler", name)(), further, guidance
        )

    def _further(self, condition: Conditions) -> Tensor | None:
        """Return the conditions of the diffusion model's own, (1, D); None without."""
        frame = tables.condition_frame(self.space, condition, 1)
        if self.space is None:
            return None
        absent = [name for name in self.space.names if name not in condition]
        if absent:
            raise ValueError(
                f"expected a value for each condition of the diffusion model, such as "
                f"{absent[0]}=VALUE; got none for {', '.join(absent)}"
            )
        return features_of(self.space, frame)


def stored_diffusion(session: Session) -> StoredDiffusion:
    """Return the diffusion model of a run.

    Raises:
        ValueError: the run has none, or it is damaged, or it was trained on codes of other weights.
        Untrusted: it names code that may not run.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="without", latent=2, steps=2)
    >>> stored_diffusion(run.session)
    Traceback (most recent call last):
    vaestro.text.InputError: without has no diffusion model (vaestro diffuse without trains one)
    """
    run, model = session.run, session.model
    folder = run.path / FOLDER
    record = read_record(folder / RECORD)
    again = f"vaestro diffuse {run.path} --force"
    if record is None or not (folder / WEIGHTS).exists():
        raise InputError(
            f"{run.path} has no diffusion model (vaestro diffuse {run.path} trains one)"
        )
    if record["weights_sha256"] != session.weights_sha256:
        raise InputError(
            f"the diffusion model of {run.path} was trained on codes of other weights ({again} "
            f"trains it again)"
        )
    options = record["options"]
    permit(options, folder / RECORD, trust=run.trust, run=run.path)
    space = None if record["given"] is None else restored_space(record["given"], {})
    diffusion = new_diffusion(model.units, count_given(model, space), options)
    tensors, _ = read_tensors(folder / WEIGHTS)
    try:
        diffusion.load_state_dict(tensors)
    except RuntimeError as error:
        raise Damaged(
            f"{folder / WEIGHTS} has the weights of another model than {RECORD} describes "
            f"({again} trains it again)"
        ) from error
    return StoredDiffusion(diffusion.to(session.device).eval(), space, record)


def count_given(model: Model, space: Space | None) -> int:
    """Return the number of values that describe the conditions of a diffusion model.

    Args:
        model: the model of the run, whose conditions come first.
        space: of the diffusion model's own conditions.

    >>> import numpy as np, vaestro as vs
    >>> space = vs.load(np.random.default_rng(0).normal(size=(100, 3))).space
    >>> count_given(vs.build(space, latent=2), None)
    0
    """
    return sum(s.feature_shape[0] for s in (model.given, space) if s is not None)


def separated(
    stored: StoredDiffusion, model: Model, condition: Conditions | None
) -> tuple[Conditions, Conditions]:
    """Return the conditions of a run's model, and those of its diffusion model.

    Raises:
        ValueError: neither has a condition of this name.

    >>> import numpy as np, vaestro as vs
    >>> model = vs.build(vs.load(np.eye(40, dtype="uint8")).space, latent=2)
    >>> separated(StoredDiffusion(None, None, {}), model, None)
    ({}, {})
    """
    own = () if stored.space is None else stored.space.names
    given = () if model.given is None else model.given.names
    values = dict(condition or {})
    unknown = next((name for name in values if name not in (*own, *given)), None)
    if unknown is not None:
        offer = nearest(unknown, (*given, *own)) if (*given, *own) else "there are none"
        raise ValueError(
            f"expected a condition of the run or of its diffusion model: {offer}; got {unknown!r}"
        )
    return (
        {name: value for name, value in values.items() if name in given},
        {name: value for name, value in values.items() if name in own},
    )
