"""Readers: anything -> Data(train, valid, test, space), held as integers or floats and gathered by
index.

Names are loaded when first used, so that `import vaestro.data.tables` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaestro.data.loading import load, load_rows
    from vaestro.data.sets import Data, Rows

_HOMES = {"Data": "sets", "Rows": "sets", "load": "loading", "load_rows": "loading"}

__all__ = ["Data", "Rows", "load", "load_rows"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"vaestro.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'vaestro.data' has no attribute {name!r}")
