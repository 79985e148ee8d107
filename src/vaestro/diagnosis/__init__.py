"""Find what is wrong with a run, with the evidence and a remedy.

`diagnosed` applies rules to a `Case`: the log, and what `measure` measured with the weights in use
on held-out data. `Watcher` applies the rules that need only the log, at each validation of a run.
`lint` checks options and data before the first step.
"""

from vaestro.diagnosis.curves import Curves
from vaestro.diagnosis.lint import lint
from vaestro.diagnosis.measure import measure
from vaestro.diagnosis.measures import Measures
from vaestro.diagnosis.records import SEVERITIES, VERDICTS, Diagnosis, Finding, Unit
from vaestro.diagnosis.remedies import Remedies
from vaestro.diagnosis.rules import Case, diagnosed
from vaestro.diagnosis.watcher import Watcher

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
