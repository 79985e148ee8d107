"""Load the model of a run from its configuration and weights."""

from __future__ import annotations

from pathlib import Path

from vaestro.files import current
from vaestro.models import Model
from vaestro.parts import build
from vaestro.records import Damaged, read_record
from vaestro.runs.checkpoints import newest_state
from vaestro.tensor_files import read_tensors
from vaestro.text import is_input_error
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
    config, file = read_record(folder / "config.json"), folder / "model.safetensors"
    for name, exists in (("config.json", config is not None), (file.name, file.exists())):
        if not exists:
            raise ValueError(
                f"expected trained weights in {folder}; got none yet ({name} is missing)"
            )
    assert config is not None
    try:
        tensors, _ = read_tensors(file)
    except Damaged as error:
        raise Damaged(f"{error} ({_remedy(folder)})") from error
    try:
        space, given = spaces_of(
            config, {k: v.numpy() for k, v in tensors.items() if k.startswith("space.")}
        )
        options = current(config["model"], config.get("format", 1))
        permit(options, folder / "config.json", trust=trust, run=folder)
        model = build(space, given=given, **options)
        model.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("space.")})
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError) as error:
        if is_input_error(error):
            raise
        raise ValueError(
            f"expected the weights of the model that {folder}/config.json describes; got others"
        ) from error
    return model.to(device).eval()


def _remedy(folder: Path) -> str:
    """Return how damaged weights can be written again."""
    state, _ = newest_state(folder)
    if state is None:
        return "it has no readable checkpoint: train again"
    where = state[0].relative_to(folder)
    return f"vaestro train --resume {folder} writes them again from {where}"
