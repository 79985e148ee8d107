"""Arguments and options that several commands share, and how their values are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli.console import console
from vaestro.options import resumable
from vaestro.text import parse_pair

if TYPE_CHECKING:
    from vaestro.densities import Decoding
    from vaestro.runs import Run
    from vaestro.runs.session import Session

# -- which run, which data -------------------------------------------------------------------------

RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="A run's folder; by default the newest under runs/."),
]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")]
RunFolders = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        help="Folders of runs; by default the newest under runs/. Several are compared.",
    ),
]
SourceArgument = Annotated[
    str, typer.Argument(metavar="SOURCE", help="Data of the kind that the run was trained on.")
]
Split = Annotated[
    str | None,
    typer.Option(
        help="train, valid, test or all.  [default: all rows of a source without splits, else test]"
    ),
]
Condition = Annotated[
    list[str] | None,
    typer.Option(
        "--condition",
        metavar="NAME=VALUE",
        help="A value for each condition of a conditional model; may be repeated.",
    ),
]
ConditionOfAll = Annotated[
    list[str] | None,
    typer.Option(
        "--condition",
        metavar="NAME=VALUE",
        help="A condition for all rows, instead of their own values; may be repeated.",
    ),
]
DecodeCondition = Annotated[
    list[str] | None,
    typer.Option(
        "--decode-condition",
        metavar="NAME=VALUE",
        help="A condition of the decoder alone: the encoder has the data's own. May be repeated.",
    ),
]
Some = Annotated[
    int | None,
    typer.Option("-n", help="Number of rows, evenly spaced.  [default: all; 32 in a .png]"),
]

# -- how values are computed -----------------------------------------------------------------------

Seed = Annotated[int, typer.Option(help="Random seed.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Draws = Annotated[int, typer.Option(help="Draws of z for each datum.")]
Methods = Annotated[
    str,
    typer.Option(
        help="Some of elbo, iwae, ais, gap, information, samples, with options: "
        "elbo,ais:chains=16,n=100 (vaestro parts method)."
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="own: means in the dtype of the data, rounded for integer dtypes. float: unrounded "
        "means. Means of images in a .png are never rounded.  [default: own; probabilities for "
        "binary arrays]",
    ),
]
Complete = Annotated[
    bool | None,
    typer.Option(
        "--complete/--gaps",
        help="Fill every cell, or draw which cells are empty; by default --gaps for tables.",
        show_default=False,
    ),
]
MeanOrDraws = Annotated[
    bool | None,
    typer.Option(
        "--mean/--draws",
        help="The mean of p(x|z), or a draw.  [default: mean for images, else a draw]",
    ),
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

# -- what is written -------------------------------------------------------------------------------

Output = Annotated[
    str, typer.Option("-o", "--output", help="Output file; its suffix determines the format.")
]
DataOutput = Annotated[
    str,
    typer.Option(
        "-o",
        "--output",
        help="Output file, whose suffix determines the format, or a folder for a file per datum "
        "(made/).",
    ),
]
SamplesOutput = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        help="Output file, or a folder for a file per sample (made/).  [default: RUN/samples.png, "
        ".txt, .csv or .npz]",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
Raw = Annotated[
    bool,
    typer.Option(
        "--raw",
        help="In .csv and .tsv files: no apostrophe before text that a spreadsheet would run.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run code (module:Class) that the files of a run, or of --config, name. Names on the "
        "command line and runs that you trained need no trust.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# -- training --------------------------------------------------------------------------------------

NewRun = Annotated[
    str | None, typer.Option(help="Folder to write.  [default: runs/SOURCE-DATE-TIME]")
]
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="PART",
        help="A named set of options, such as beta-tcvae:beta=6 (see vaestro parts recipe). "
        "Options that are given override it.",
    ),
]
ConfigFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A YAML file of options, such as a run's config.yaml. Options that are given "
        "override it.",
    ),
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Continue a stopped run. Only "
        f"{', '.join(f'--{name}' for name in resumable())} may be given with it.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved options and sizes; write nothing.")
]


def pairs(conditions: list[str] | None) -> dict[str, str]:
    """Return {name: value} from NAME=VALUE pairs; a name may be in double quotes.

    Raises:
        ValueError: a text is not such a pair, or a name is repeated.
    """
    values: dict[str, str] = {}
    for text in conditions or []:
        pair = parse_pair(text)
        if pair is None or pair[0] in values:
            raise ValueError(f"expected each condition once, as NAME=VALUE; got {text!r}")
        values[pair[0]] = pair[1]
    return values


def decoding_of(
    top_p: float | None = None, temperature: float | None = None, beam: int | None = None
) -> Decoding | None:
    """Return how texts are drawn or searched for; None if no option was given."""
    if top_p is None and temperature is None and beam is None:
        return None
    from vaestro.densities import Decoding

    return Decoding(
        top_p=1.0 if top_p is None else top_p,
        temperature=1.0 if temperature is None else temperature,
        beam=1 if beam is None else beam,
    )


def opened_run(run: str | None, *, trust: bool = False) -> Run:
    """Return a run, by default the newest under runs/; its code may run with `trust`."""
    from vaestro.runs import Run

    return Run.newest(trust=trust) if run is None else Run(run, trust=trust)


def opened_session(run: str | None, device: str = "cpu", *, trust: bool = False) -> Session:
    """Return a session on a run, by default the newest under runs/."""
    from vaestro.runs.session import Session

    session = Session(opened_run(run, trust=trust), device)
    console.warn_at_end(session.run.incomplete())
    return session


def device_of(name: str) -> str:
    """Return the device that a name such as auto resolves to."""
    from vaestro.loop import accelerator_for

    return str(accelerator_for(name).device)
