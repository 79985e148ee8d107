"""What is wrong with a run, in words, with the evidence and the remedy.

`diagnosed` applies rules to a `Case`: what was logged, and what `measure` found of the weights in
use on data held out. `Watcher` applies those that need nothing but the log at each validation of a
run, and `lint` reads options and data before the first step.
"""

from vaestro.diagnosis.curves import Curves, Watcher
from vaestro.diagnosis.lint import lint
from vaestro.diagnosis.measure import Measures, measure
from vaestro.diagnosis.records import SEVERITIES, VERDICTS, Diagnosis, Finding, Unit
from vaestro.diagnosis.remedies import Remedies
from vaestro.diagnosis.rules import Case, diagnosed

__all__ = [
    "SEVERITIES",
    "VERDICTS",
    "Case",
    "Curves",
    "Diagnosis",
    "Finding",
    "Measures",
    "Remedies",
    "Unit",
    "Watcher",
    "diagnosed",
    "lint",
    "measure",
]
