"""Arguments and options that several commands share, and how their values are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.text import parse_pair

if TYPE_CHECKING:
    from vaestro.densities import Decoding
    from vaestro.runs import Run
    from vaestro.runs.session import Session

RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="A run's folder; by default the newest under runs/."),
]
Output = Annotated[
    str, typer.Option("-o", "--output", help="Output file; its suffix determines the format.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Split = Annotated[
    str | None,
    typer.Option(help="train, valid, test or all; by default a file's every row, or else test."),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        help="For text data: sample from the most probable tokens with this total probability.  "
        "[default: 1]",
    ),
]
Heat = Annotated[
    float | None,
    typer.Option(
        "--token-temperature",
        help="For text data: divide the logits of each token by this.  [default: 1]",
    ),
]
Beam = Annotated[
    int | None,
    typer.Option("--beam", help="For text data: width of the beam search.  [default: 1]"),
]
Condition = Annotated[
    list[str] | None,
    typer.Option(
        "--condition",
        metavar="NAME=VALUE",
        help="A value of each condition the model was trained with.",
    ),
]
ConditionOfAll = Annotated[
    list[str] | None,
    typer.Option(
        "--condition",
        metavar="NAME=VALUE",
        help="A condition for all rows, instead of the values in SOURCE; may be repeated.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="own: means in the dtype of the data, rounded for integer dtypes. float: unrounded "
        "means. A .png always shows means.  [default: own; of binary arrays "
        "probabilities]",
    ),
]
Some = Annotated[
    int | None,
    typer.Option("-n", help="Number of rows, evenly spaced.  [default: all; 32 in a .png]"),
]


def pairs(conditions: list[str] | None) -> dict[str, str]:
    """Read NAME=VALUE pairs; a name may stand in double quotes."""
    values: dict[str, str] = {}
    for text in conditions or []:
        pair = parse_pair(text)
        if pair is None or pair[0] in values:
            raise ValueError(f"expected each condition once, as NAME=VALUE; got {text!r}")
        values[pair[0]] = pair[1]
    return values


def decoding_of(
    top_p: float | None, temperature: float | None, beam: int | None
) -> Decoding | None:
    """Return how texts are drawn or searched for, if anything was asked."""
    from vaestro.densities import Decoding

    asked = {"top_p": top_p, "temperature": temperature, "beam": beam}
    given = {name: value for name, value in asked.items() if value is not None}
    return Decoding(**given) if given else None  # type: ignore[arg-type]


def opened_run(run: str | None) -> Run:
    """Open a run, by default the newest under runs/."""
    from vaestro.runs import Run

    return Run.newest() if run is None else Run(run)


def opened_session(run: str | None, device: str = "cpu") -> Session:
    """Open a session on a run, by default the newest under runs/."""
    from vaestro.runs.session import Session

    return Session(opened_run(run), device)


def device_of(name: str) -> str:
    """Return the device that a name such as auto stands for."""
    from vaestro.loop import accelerator_for

    return str(accelerator_for(name).device)
