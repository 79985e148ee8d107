"""Write a trained model in formats that other programs run without Vaestro.

graphs.py   encoder and decoder from and to the user's values, as exported programs
files.py    ONNX and torch.export files, with the largest difference from the model
"""

from vaestro.export.files import FORMATS, Exported, export
from vaestro.export.graphs import DecoderGraph, EncoderGraph

__all__ = ["FORMATS", "DecoderGraph", "EncoderGraph", "Exported", "export"]
