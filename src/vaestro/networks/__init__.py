"""Networks for encoders and decoders: modules from one shape to another, without densities.

Each maps (N, *inputs), with conditions (N, given) if there are any, to (N, *outputs).
`start_at(values)` sets the last bias, so that the first outputs of a decoder are the mean of the
data.
"""

from vaestro.networks.convolutional import Convolutional, Convolutional3d
from vaestro.networks.dense import (
    ACTIVATIONS,
    MLP,
    Activation,
    Conditioned,
    Residual,
    check_given,
    dense,
    linear,
    with_conditions,
)
from vaestro.networks.former import FormerConvolutional, FormerConvolutional3d
from vaestro.networks.masked import MaskedNetwork

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Activation",
    "Conditioned",
    "Convolutional",
    "Convolutional3d",
    "FormerConvolutional",
    "FormerConvolutional3d",
    "MaskedNetwork",
    "Residual",
    "check_given",
    "dense",
    "linear",
    "with_conditions",
]
