"""Use the latent space of a trained model.

- `codes`: encode data; the most probable values of discrete latents.
- `outputs`: decode, reconstruct and sample, in the user's layout and units.
- `paths`: interpolate between two codes; `geodesics`: paths that are short in the decoded data.
- `directions`: the direction of an attribute; edit data along it.
- `imputing`: fill missing cells.
- `features`: posteriors of many data, from which fresh latents are drawn.
- `expression`: denoised expression of counts, and its difference between two groups.
- `scores`: how unusual rows are, and where (`scoring`, `normality`, `views`, `thresholds`).
- `similarity`: PSNR and SSIM of reconstructions.
- `clusters`: Gaussian mixtures of codes.
- `traversing`: move one unit of a code at a time.
- `neighbours`: exact nearest neighbours of a code.
- `factors`: attributes as targets, numbers or classes.
- `disentanglement`: MIG, SAP, DCI, modularity, explicitness, FactorVAE and beta-VAE scores.
- `units`: what each unit means: correlations with attributes, and extremes.
- `probes`: predict attributes from codes, raw data and PCA.
"""

from vaestro.latent.clusters import Clusters, cluster
from vaestro.latent.codes import Codes, encode, settled
from vaestro.latent.directions import KNOWN, Direction, attributes, direction, edit
from vaestro.latent.disentanglement import Disentanglement, disentangle, over_runs
from vaestro.latent.expression import Contrast, contrast, expression
from vaestro.latent.factors import Factor, factors_of
from vaestro.latent.features import Posteriors, encoding
from vaestro.latent.imputing import imputations, impute
from vaestro.latent.neighbours import Neighbours, nearest
from vaestro.latent.outputs import (
    Conditions,
    UserData,
    check_conditions,
    conditions,
    decode,
    features_of,
    file_suffix,
    given_of,
    joined,
    reconstruct,
    sample,
    values,
    with_conditions,
)
from vaestro.latent.paths import between, decoded_length, interpolate, path_codes
from vaestro.latent.probes import Probe, Probes, probe, raw_features, representations
from vaestro.latent.scores import Scores, fitted_score, score, threshold_of
from vaestro.latent.scoring import SCORES, score_named
from vaestro.latent.similarity import fidelity
from vaestro.latent.thresholds import Threshold, threshold
from vaestro.latent.traversing import Traversal, by_rate, countable, traverse
from vaestro.latent.units import Association, UnitMeaning, UnitTable, associations, extremes

__all__ = [
    "KNOWN",
    "SCORES",
    "Association",
    "Clusters",
    "Codes",
    "Conditions",
    "Contrast",
    "Direction",
    "Disentanglement",
    "Factor",
    "Neighbours",
    "Posteriors",
    "Probe",
    "Probes",
    "Scores",
    "Threshold",
    "Traversal",
    "UnitMeaning",
    "UnitTable",
    "UserData",
    "associations",
    "attributes",
    "between",
    "by_rate",
    "check_conditions",
    "cluster",
    "conditions",
    "contrast",
    "countable",
    "decode",
    "decoded_length",
    "direction",
    "disentangle",
    "edit",
    "encode",
    "encoding",
    "expression",
    "extremes",
    "factors_of",
    "features_of",
    "fidelity",
    "file_suffix",
    "fitted_score",
    "given_of",
    "imputations",
    "impute",
    "interpolate",
    "joined",
    "nearest",
    "over_runs",
    "path_codes",
    "probe",
    "raw_features",
    "reconstruct",
    "representations",
    "sample",
    "score",
    "score_named",
    "settled",
    "threshold",
    "threshold_of",
    "traverse",
    "values",
    "with_conditions",
]
