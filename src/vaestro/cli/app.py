"""The program `vaestro`: every command, in the order in which --help lists them."""

from __future__ import annotations

import typer

from vaestro.cli.coding import decode, encode, reconstruct, sample
from vaestro.cli.contrasting import contrast
from vaestro.cli.diffusing import diffuse
from vaestro.cli.exploring import explore
from vaestro.cli.exporting import export
from vaestro.cli.filling import impute
from vaestro.cli.fitting import fit_prior
from vaestro.cli.grouping import cluster
from vaestro.cli.judging import compare, diagnose, evaluate, gradients, report
from vaestro.cli.moving import edit, interpolate
from vaestro.cli.scoring import score
from vaestro.cli.showing import info, parts
from vaestro.cli.train import train
from vaestro.cli.traversing import analogy, neighbours, traverse
from vaestro.cli.understanding import disentangle, probe, units

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train variational autoencoders, measure how good they are, and use their latent "
    "space.\n\n"
    "Options of all commands: --quiet prints only errors, --debug prints the traceback of an "
    "error, --version. The default of an optional RUN is the newest run under runs/.",
)
for command in (
    *(train, evaluate, diagnose, gradients, compare, report),
    *(sample, fit_prior, diffuse),
    *(encode, decode, reconstruct),
    *(interpolate, edit, traverse, neighbours, analogy),
    *(impute, contrast, score),
    *(probe, units, disentangle, cluster),
    export,
    explore,
    *(parts, info),
):
    app.command(command.__name__.replace("_", "-"))(command)
