from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from vaestro.cli.console import console
from vaestro.data import Data, Rows
from vaestro.spaces import (
    SPACES,
    BinaryColumn,
    CategoryColumn,
    CountColumn,
    Kind,
    RealColumn,
    Space,
    TableSpace,
    TokensSpace,
    stored_layout,
)
from vaestro.tokens import Ragged, Tokeniser

console.delay = None  # what is printed must not depend on the time


@pytest.fixture
def float64() -> Iterator[None]:
    """Compute in double precision, so that exact answers can be held to exact tolerances."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


COLUMNS = [
    RealColumn("size", "float64", offset=10.0, scale=4.0),
    CategoryColumn("colour", "str", ("blue", "green", "red"), start=(0.2, 0.3, 0.5)),
    RealColumn("age", "int64", offset=40.0, scale=20.0, resolution=1.0),
    CountColumn("visits", "int64", offset=1.0, scale=0.7, start=(3.0,)),
    BinaryColumn("member", "bool", (False, True), start=(0.6, 0.4)),
    CategoryColumn("same", "int64", (7,), start=(1.0,)),
]


def make_space(
    kind: Kind, shape: tuple[int, ...] = (6,), levels: int = 0, missing: bool = False
) -> Space:
    if kind is Kind.TABLE:
        return replace(TableSpace.of(COLUMNS), missing=missing)
    if kind is Kind.TOKENS:
        return TokensSpace(
            shape[:1], (), dtype="str", levels=5, tokeniser=Tokeniser("characters", ("a", "b", "c"))
        )
    levels = levels or {Kind.BINARY: 2, Kind.LEVELS: 5, Kind.CATEGORY: 4}.get(kind, 0)
    fitted = (
        {"offset": np.zeros(shape), "scale": np.ones(shape)}
        if kind in (Kind.REAL, Kind.UNIT)
        else {}
    )
    outside = shape if len(shape) != 3 else (*shape[1:], shape[0])
    return SPACES[kind](
        shape, outside, levels=levels, missing=missing, layout=stored_layout(shape), **fitted
    )


def make_values(space: Space, n: int, seed: int = 0) -> np.ndarray:
    r = np.random.default_rng(seed)
    if space.kind is Kind.TABLE:
        makers = {
            Kind.REAL: r.normal,
            Kind.COUNT: lambda size: r.poisson(3, size),
            Kind.BINARY: lambda size: r.integers(0, 2, size),
        }
        columns = [
            makers[c.kind](size=n) if c.kind in makers else r.integers(0, len(c.values), n)
            for c in space.columns
        ]
        return np.stack(columns, 1).astype(np.float32)
    if space.kind is Kind.REAL:
        return r.normal(size=(n, *space.shape)).astype(np.float32)
    if space.kind is Kind.UNIT:
        return r.uniform(0.01, 0.99, size=(n, *space.shape)).astype(np.float32)
    if space.kind is Kind.COUNT:
        return r.poisson(3, size=(n, *space.shape)).astype(np.int32)
    codes = r.integers(0, space.levels, size=(n, *space.shape)).astype(np.uint8)
    return codes * (np.cumprod(codes != 0, 1) > 0) if space.kind is Kind.TOKENS else codes


def make_data(space: Space, values: np.ndarray, held_out: np.ndarray | None = None) -> Data:
    other = values if held_out is None else held_out
    if space.kind is Kind.TOKENS:
        values, other = (
            Ragged.of([row[row != 0].tolist() for row in v], space.shape[0], space.levels)
            for v in (values, other)
        )
    return Data(
        Rows(values, space, "train"),
        Rows(other, space, "valid"),
        Rows(other, space, "test"),
        space,
        "made by a test",
    )


@pytest.fixture
def binary_data() -> Data:
    """Give 400 data of 16 binary pixels that depend on each other."""
    r = np.random.default_rng(0)
    centres = r.random((4, 16))
    values = (r.random((480, 16)) < centres[r.integers(0, 4, 480)]).astype(np.uint8)
    return make_data(make_space(Kind.BINARY, (16,)), values[:400], values[400:])


@pytest.fixture(autouse=True, scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep records of trust out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
