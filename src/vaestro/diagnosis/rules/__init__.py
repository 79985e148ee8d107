"""The rules: from measures to findings and a verdict.

Thresholds are next to the rules that use them, in this package, code.py and curves.py.

Posterior collapse is judged by whether the encoder's output depends on its input, never by the KL
alone. An encoder that maps all rows to one shifted mean has a large KL and is collapsed. An encoder
of data with little structure has a small KL and is not.
"""

from vaestro.diagnosis.rules.case import Case
from vaestro.diagnosis.rules.verdict import diagnosed

__all__ = ["Case", "diagnosed"]
