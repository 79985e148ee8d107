"""Load the model of a run from its configuration and weights."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from vaestro.files import current
from vaestro.models import Model
from vaestro.parts import build
from vaestro.transfer import spaces_of
from vaestro.trust import permit


def load_model(folder: str | Path, device: str = "cpu", *, trust: bool = False) -> Model:
    """Build the model that config.json and model.safetensors of a folder describe.

    Args:
        folder: of the run.
        device: the device to load it on.
        trust: whether code that the folder names may run.

    Raises:
        ValueError: a file is missing or damaged.
        Untrusted: config.json names code that may not run.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> load_model(vs.train(x, run="example", latent=2, steps=2).path).units
    (2,)
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
        options = current(config["model"], config.get("format", 1))
        permit(options, folder / "config.json", trust=trust, run=folder)
        model = build(space, given=given, **options)
        model.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("space.")})
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"expected the weights of the model that {folder}/config.json describes; got others"
        ) from error
    return model.to(device).eval()
