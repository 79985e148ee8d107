"""Compare runs by the bounds in their evaluations, and state which conclusions follow.

Two numbers are in one group only if they have the same data, measure, masks and conditions. Equal
data means an equal hash, which covers masks and conditions. The hash of a density depends on the
standardisation; there, equal projections of every datum suffice. The difference of two models is
computed datum by datum, with the standard error of these differences, because most of the error of
each mean comes from the data and is common to both.

- A lower bound L_m = log p_m(x) - g_m has a gap g_m >= 0. L_A > L_B therefore implies
  log p_A > log p_B only if g_B < L_A - L_B.
- A gap is measured on data drawn from the model itself. Annealing that starts at the latents of
  these data bounds log p(x) from above, so g_m <= mean(upper - L_m) (bidirectional Monte Carlo; Wu,
  Burda, Salakhutdinov and Grosse, 2017). This is the gap on simulated data. It applies to real data
  if the two are alike.
- A bound above an exact value implies a better model. A bound below it implies nothing.
- Each difference has a p-value (Student's t, paired), corrected for the number of pairs in the
  table (Holm 1979). A difference is called significant below 5 %. If all models are equal, any
  difference is called in at most one of twenty comparisons.
- There is no conclusion from fewer than ten paired data, or from an evaluation of earlier weights
  than the run has now.

Which bound is used. For a run: the bound with the most data, and among these the highest. For a
pair: a method that both have (an exact value matches any method), among these the one with the most
data, and among these the tightest, i.e. with the highest mean. Different methods are compared only
if the pair has none in common. More data take precedence over tightness for two reasons: the error
over 100 data is ten times that over 10,000, and 100 data may be unlike the rest. If a tighter
method covers fewer data in both (usually annealing), its difference is added in words. The choice
does not depend on the differences.
"""

from vaestro.comparison.evidence import Bound, Row
from vaestro.comparison.pairs import Pair
from vaestro.comparison.ranking import Comparison, compare

__all__ = ["Bound", "Comparison", "Pair", "Row", "compare"]
