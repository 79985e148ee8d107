"""Networks for sequences: encoders of tokens or of numbers over time, and decoders from the latent.

An encoder takes codes (N, t) and reads each row up to its end, or numbers (N, T, C). A decoder that
is called with latents alone returns all positions at once. For an autoregressive likelihood,
`states` returns the state of each position from the tokens before it, and the `last` layer maps
states to logits; `begin` and `advance` process one token at a time, for sampling.
"""

from vaestro.sequences.attention import TransformerDecoder, TransformerEncoder, transformer
from vaestro.sequences.base import SequenceDecoder, SequenceEncoder
from vaestro.sequences.convolutional import Convolutional1d
from vaestro.sequences.recurrent import GRUDecoder, GRUEncoder, gru

__all__ = [
    "Convolutional1d",
    "GRUDecoder",
    "GRUEncoder",
    "SequenceDecoder",
    "SequenceEncoder",
    "TransformerDecoder",
    "TransformerEncoder",
    "gru",
    "transformer",
]
