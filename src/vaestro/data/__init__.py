"""Readers: anything -> Data(train, valid, test, space), held as integers or floats and gathered by
index."""

from vaestro.data.loading import load, load_rows
from vaestro.data.sets import Data, Rows

__all__ = ["Data", "Rows", "load", "load_rows"]
