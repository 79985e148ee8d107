"""Compare runs by the bounds that their evaluations wrote, and say what follows from them and what
does not.

Two numbers stand in one group only if they are of the same data (equal hash, which covers observed
masks and conditions; for densities, where the hash depends on the standardisation, equal
projections of every datum), the same measure, masks and conditions. In a group the difference of
two models is taken datum by datum, with the standard error of those
differences: much of the error of each mean is the data's, and is common to both.

- A lower bound L_m = log p(x) - g_m has a gap g_m >= 0, so L_A > L_B orders log p_A and log p_B
  only if g_B < L_A - L_B.
- A gap is measured on data drawn from the model itself, where annealing started at the latents that
  made them bounds log p(x) from above: g_m <= mean (upper - L_m) (bidirectional Monte Carlo; Wu,
  Burda, Salakhutdinov and Grosse, 2017). It is the gap on simulated data, and counts for real ones
  as far as the two are alike.
- An exact value beside a bound: a bound above it decides; a bound below it decides nothing.
- Each difference has a p-value (Student's t, paired), corrected for the number of pairs in the
  table (Holm 1979): a difference is called if it is below 5 %, so that among equal models any
  difference is called in at most one comparison of twenty.
- Fewer than ten paired data decide nothing, nor does an evaluation of earlier weights than the run
  has now.

Which bound is used. Of a run, the one that covers most data, and of those the highest. Of a pair, a
method that both have (like with like; an exact value is like any), of those the one that covers
most data, and of those the tightest, that is with the highest mean; methods are mixed only where
there is none in common. More data come before tightness, because an error over 100 data is ten
times that over 10,000, and because 100 data may be unlike the rest; where a tighter method covers
fewer data in both (annealing usually does), its difference is added in words. The choice does not
depend on the differences.
"""

from vaestro.comparison.evidence import Bound, Row
from vaestro.comparison.pairs import Pair
from vaestro.comparison.ranking import Comparison, compare

__all__ = ["Bound", "Comparison", "Pair", "Row", "compare"]
