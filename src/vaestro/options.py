"""The options of training, one row for each.

The rows make the arguments of `vaestro train` and of `vs.train`, the check of a `--config` file,
the resolved config.yaml, and docs/options.md, which `python -m vaestro.options > docs/options.md`
writes. To add an option, add a row to `OPTIONS` and use its value. This module does not import
torch.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

import vaestro
from vaestro.files import FORMAT, read_config
from vaestro.option import Group, Option
from vaestro.text import alternatives, nearest

Config = dict[str, Any]  # options by name; each value has the type of its row
Function = TypeVar("Function", bound=Callable[..., object])
TITLES: dict[Group, str] = {
    "data": "Data",
    "model": "Model",
    "objective": "Objective",
    "training": "Training",
}


OPTIONS: tuple[Option, ...] = (
    Option(
        "source",
        str,
        "data",
        "mnist, shapes, digits, a folder of images or of shards (.tar, .parquet), a path to .npy, "
        ".npz, IDX, .csv, .xlsx, .parquet, .json or .txt, or hf:OWNER/NAME; options after a colon.",
        default="mnist",
    ),
    Option(
        "model",
        str,
        "model",
        "Kind of model: vae; without a latent: autoregressive (text), independent (cells).",
        otherwise="vae; autoregressive for the likelihood autoregressive:latent=false",
        metavar="PART",
    ),
    Option(
        "latent",
        int,
        "model",
        "Number of latent units.",
        otherwise="32, or as many as cells; up to 128 for large images, volumes and series",
        aliases=("latent_dim",),
    ),
    Option(
        "likelihood",
        str,
        "model",
        "Likelihood p(x|z).",
        otherwise="by the kind of data",
        metavar="PART",
    ),
    Option("posterior", str, "model", "Posterior q(z|x).", default="normal", metavar="PART"),
    Option(
        "prior",
        str,
        "model",
        "Prior p(z).",
        otherwise="normal; uniform for discrete latents",
        metavar="PART",
    ),
    Option(
        "network",
        str,
        "model",
        "Encoder and decoder.",
        otherwise="conv for larger images, conv3d for volumes, conv1d for series, gru for text, "
        "else residual",
        metavar="PART",
    ),
    Option("encoder", str, "model", "The encoder alone: my_module:MyEncoder.", metavar="PART"),
    Option("decoder", str, "model", "The decoder alone.", metavar="PART"),
    Option(
        "condition",
        str,
        "data",
        "Attribute or column to condition on.",
        metavar="COLUMN",
        repeatable=True,
    ),
    Option(
        "objective",
        str,
        "objective",
        "Bound to maximise: elbo, iwae:k=5, miwae or ciwae.",
        default="elbo",
        metavar="PART",
    ),
    Option(
        "gradient",
        str,
        "objective",
        "Gradient estimator.",
        otherwise="pathwise; gumbel-softmax for discrete latents",
        metavar="PART",
    ),
    Option(
        "beta",
        float | str,
        "objective",
        "Weight of the KL: a number, or a schedule such as warmup:share=0.1.",
        default=1.0,
        metavar="NUMBER",
    ),
    Option(
        "free_bits",
        float | str,
        "objective",
        "Nats of each unit's rate that are not penalised, or 5:group=all,smooth=0.5 for the total "
        "over all units.",
        metavar="NATS",
    ),
    Option(
        "capacity",
        str,
        "objective",
        "Pull the rate towards a capacity that grows, such as to=25,share=0.5,gamma=100.",
        metavar="OPTIONS",
    ),
    Option(
        "penalty",
        str,
        "objective",
        "Penalty on the aggregate posterior, such as total-correlation:weight=5.",
        metavar="PART",
        repeatable=True,
    ),
    Option(
        "aggressive",
        bool,
        "objective",
        "Before each joint step, train the encoder alone until its bound stops improving, as long "
        "as the information in the code increases.",
        default=False,
    ),
    Option(
        "freeze",
        str,
        "training",
        "Part that is not trained, such as posterior; it keeps the weights of --init RUN. "
        "all-but-new-categories trains nothing but the weights of categories of a condition that "
        "RUN does not have, such as a new batch.",
        metavar="PART",
        repeatable=True,
    ),
    Option("optimizer", str, "training", "Optimiser.", default="adamw", metavar="PART"),
    Option(
        "epochs",
        float,
        "training",
        "Passes over the training data.",
        otherwise="20, or 4,000 steps if that is more; 20 for text",
        resumable=True,
    ),
    Option("steps", int, "training", "Number of steps, instead of epochs.", resumable=True),
    Option(
        "minutes",
        float,
        "training",
        "Training time, instead of epochs. It is converted to a number of steps before training.",
    ),
    Option(
        "batch",
        int,
        "training",
        "Rows in a step.",
        otherwise="128, 32 for text, or fewer for few data, most of all for few large images",
        aliases=("batch_size",),
    ),
    Option("lr", float, "training", "Peak learning rate.", otherwise="0.002"),
    Option("seed", int, "training", "Seed of every random draw.", default=0),
    Option(
        "ema",
        float,
        "training",
        "Decay of the average of the weights.",
        otherwise="by the length of the run",
    ),
    Option("clip", float, "training", "Largest norm of the gradient.", otherwise="10 sqrt(cells)"),
    Option(
        "patience",
        int,
        "training",
        "Stop after this many validations without a lower validation loss.",
        otherwise="never",
    ),
    Option(
        "keep",
        str,
        "training",
        "Weights to keep: best by validation loss after all schedules, or last.",
        default="best",
        values=("best", "last"),
    ),
    Option(
        "device",
        str,
        "training",
        "Device to train on.",
        default="auto",
        values=("auto", "cpu", "cuda", "mps"),
        resumable=True,
    ),
    Option(
        "precision",
        str,
        "training",
        "Floating-point precision of the networks.",
        default="32",
        values=("32", "bf16"),
    ),
    Option(
        "compile",
        str,
        "training",
        "Whether the whole step is compiled: on, off, or auto (on for long runs).",
        default="auto",
        values=("auto", "on", "off"),
        former=(("trace", "off"),),
    ),
    Option(
        "init",
        str,
        "data",
        "Start from another run's weights. The data are read into that run's space (offsets, "
        "scales, columns, categories and conditions, matched by name). Model options that are not "
        "given come from that run. Only the prior may differ.",
        metavar="RUN",
    ),
    Option(
        "workers",
        int,
        "training",
        "Threads that decode streamed data.",
        otherwise="one per processor",
        resumable=True,
    ),
)  # in the order of config.yaml


def names(*groups: Group) -> tuple[str, ...]:
    """Return the names of the options of some groups.

    Example:
        >>> names("model")[:3]
        ('model', 'latent', 'likelihood')
    """
    return tuple(row.name for row in OPTIONS if row.group in groups)


def resumable() -> tuple[str, ...]:
    """Return the names of the options that `--resume` may change.

    Example:
        >>> resumable()
        ('epochs', 'steps', 'device', 'workers')
    """
    return tuple(row.name for row in OPTIONS if row.resumable)


def defaults() -> Config:
    """Return every option with its default, in the order of config.yaml.

    Example:
        >>> defaults()["seed"]
        0
    """
    return {row.name: row.default for row in OPTIONS}


def normalised(options: Mapping[str, object]) -> Config:
    """Return options by their own names and of their own types.

    Args:
        options: as written in YAML, in Python or on the command line; aliases are accepted.

    Raises:
        ValueError: an option is unknown, or its value has another type.

    Example:
        >>> normalised({"batch_size": 64, "lr": "1e-3"})
        {'batch': 64, 'lr': 0.001}
    """
    rows = {name: row for row in OPTIONS for name in (row.name, *row.aliases)}
    config: Config = {}
    for key, value in options.items():
        if key not in rows:
            known = [row.name for row in OPTIONS]
            raise ValueError(f"expected an option of training: {nearest(key, known)}; got {key!r}")
        config[rows[key].name] = rows[key].checked(value)
    return config


def read_options(path: Path) -> Config:
    """Return the options in the config.yaml of a run.

    Raises:
        ValueError: it cannot be read, lacks an option that each run has, or has one that is unknown
            or of another type.

    Example:
        >>> _ = Path("config.yaml").write_text("source: mnist\\nsteps: 5\\nbatch: 8\\n")
        >>> read_options(Path("config.yaml"))["steps"]
        5
    """
    config = read_config(path)
    try:
        normalised(config)
    except ValueError as error:
        raise ValueError(f"{error}, in {path}") from error
    if missing := [name for name in ("source", "steps", "batch") if config.get(name) is None]:
        raise ValueError(f"expected the options of a run in {path}; got none for {missing[0]}")
    return config


def dump_config(config: Mapping[str, object]) -> str:
    """Return options as the YAML of config.yaml; options without a value are left out.

    Example:
        >>> dump_config({"latent": 8, "prior": None}).splitlines()[0]
        'latent: 8'
    """
    shown = {key: value for key, value in config.items() if value is not None}
    shown |= {"vaestro": vaestro.__version__, "format": FORMAT}
    return yaml.safe_dump(shown, sort_keys=False, default_flow_style=False)


# -- Python ----------------------------------------------------------------------------------------


def documented(chosen: Callable[[Option], bool]) -> Callable[[Function], Function]:
    """Return a decorator that gives a function with `**options` the options in its signature and
    in its docstring, in the line `{options}`.

    Args:
        chosen: which options the function accepts.

    Example:
        >>> @documented(lambda row: row.name == "seed")
        ... def train(**options): '''{options}'''
        >>> print(inspect.signature(train), train.__doc__)
        (*, seed: int = 0) seed: Seed of every random draw. Default: 0.
    """

    def decorate(function: Function) -> Function:
        rows = [row for row in OPTIONS if chosen(row)]
        signature = inspect.signature(function, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        added = [
            inspect.Parameter(
                row.name, inspect.Parameter.KEYWORD_ONLY, default=row.default, annotation=row.hint
            )
            for row in rows
        ]
        lines = (function.__doc__ or "").splitlines()
        text: list[str] = []
        for line in lines:
            before = line.removesuffix("{options}")
            text += [line] if before == line else [_argument(row, before) for row in rows]
        function.__doc__ = "\n".join(text)
        function.__dict__["__signature__"] = signature.replace(parameters=[*own, *added])
        return function

    return decorate


def _argument(row: Option, indent: str) -> str:
    """Return the lines of a docstring on an option."""
    default = f" Default: {row.in_default}." if row.in_default else ""
    return textwrap.fill(
        f"{row.name}: {row.sentences}{default}",
        100,
        initial_indent=indent,
        subsequent_indent=indent + "    ",
    )


# -- docs/options.md -------------------------------------------------------------------------------

_PAGE = """# Options of training

`vaestro train SOURCE --latent 40 --epochs 20` on the command line is
`vs.train("SOURCE", latent=40, epochs=20)` in Python, and a file with the lines `latent: 40` and
`epochs: 20` for `--config`. The hyphens of the command line are underscores in Python and YAML. A
run's config.yaml contains every option with the value that was used.

PART is a name with options, such as `residual:width=256`; `vaestro parts` lists all parts. An
option that is marked with * may be changed with `--resume`.

This page is written by `python -m vaestro.options > docs/options.md`.
"""


def reference() -> str:
    """Return the page docs/options.md.

    Example:
        >>> reference().splitlines()[0]
        '# Options of training'
    """
    page = _PAGE
    for group, title in TITLES.items():
        page += f"\n## {title}\n\n| option | default | meaning |\n|---|---|---|\n"
        for row in OPTIONS:
            if row.group == group:
                page += "| " + " | ".join(map(_escaped, _cells(row))) + " |\n"
    return page


def _cells(row: Option) -> tuple[str, str, str]:
    flags = "SOURCE" if row.name == "source" else "`, `".join(row.flags)
    value = alternatives(row.values) if row.values else ""
    meaning = f"{row.sentences} One of {value}." if value else row.sentences
    return f"`{flags}`{' *' if row.resumable else ''}", row.in_default, meaning


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
