"""The verbs of a run, one class for each subject; `Run` and `Session` have all of them.

    coding.py        encode, latents, decode, reconstruct, sample
    moving.py        interpolate, edit, traverse, neighbours, analogy
    exploring.py     explore
    filling.py       impute, imputations
    contrasting.py   contrast
    diffusing.py     diffuse
    exporting.py     export
    grouping.py      cluster
    judging.py       evaluate, diagnose, gradients, report
    scoring.py       score
    understanding.py probe, units, disentangle

A verb imports what it needs when it is called, so that a run's files are read without torch.
"""

from vaestro.runs.verbs.base import Verbs
from vaestro.runs.verbs.coding import CodeVerbs
from vaestro.runs.verbs.contrasting import ContrastVerbs
from vaestro.runs.verbs.diffusing import DiffuseVerbs
from vaestro.runs.verbs.exploring import ExploreVerbs
from vaestro.runs.verbs.exporting import ExportVerbs
from vaestro.runs.verbs.filling import FillVerbs
from vaestro.runs.verbs.grouping import GroupVerbs
from vaestro.runs.verbs.judging import JudgeVerbs
from vaestro.runs.verbs.moving import MoveVerbs
from vaestro.runs.verbs.scoring import ScoreVerbs
from vaestro.runs.verbs.understanding import UnderstandVerbs

__all__ = ["AllVerbs", "Verbs"]


class AllVerbs(
    CodeVerbs,
    MoveVerbs,
    FillVerbs,
    ContrastVerbs,
    JudgeVerbs,
    ScoreVerbs,
    UnderstandVerbs,
    DiffuseVerbs,
    ExportVerbs,
    ExploreVerbs,
    GroupVerbs,
):
    """Have every verb.

    >>> from vaestro.runs import Run
    >>> issubclass(Run, AllVerbs)
    True
    """
