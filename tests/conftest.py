from collections.abc import Iterator

import numpy as np
import pytest
import torch

from vaestro.data import Data, Rows
from vaestro.densities import Kind, Space


@pytest.fixture
def float64() -> Iterator[None]:
    """Compute in double precision, so that exact answers can be held to exact tolerances."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_space(kind: Kind, shape: tuple[int, ...] = (6,), levels: int = 0) -> Space:
    levels = levels or {Kind.BINARY: 2, Kind.LEVELS: 5, Kind.CATEGORY: 4}.get(kind, 0)
    fitted = {"offset": np.zeros(shape), "scale": np.ones(shape)} if kind is Kind.REAL else {}
    return Space(kind, shape, shape if len(shape) != 3 else (*shape[1:], shape[0]), levels=levels, **fitted)


def make_values(space: Space, n: int, seed: int = 0) -> np.ndarray:
    r = np.random.default_rng(seed)
    if space.kind is Kind.REAL:
        return r.normal(size=(n, *space.shape)).astype(np.float32)
    return r.integers(0, space.levels, size=(n, *space.shape)).astype(np.uint8)


def make_data(space: Space, values: np.ndarray, held_out: np.ndarray | None = None) -> Data:
    other = values if held_out is None else held_out
    return Data(Rows(values, space, "train"), Rows(other, space, "valid"), Rows(other, space, "test"), space, "made by a test")


@pytest.fixture
def binary_data() -> Data:
    """Give 400 data of 16 binary pixels that depend on each other."""
    r = np.random.default_rng(0)
    centres = r.random((4, 16))
    values = (r.random((480, 16)) < centres[r.integers(0, 4, 480)]).astype(np.uint8)
    return make_data(make_space(Kind.BINARY, (16,)), values[:400], values[400:])
