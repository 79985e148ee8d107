"""A model scores only values that its data can have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro.objectives import elbo
from vaestro.spaces import Batch

rng = np.random.default_rng(0)
ONE_HOT = np.eye(4, dtype=np.uint8)[rng.integers(0, 4, (60, 3))]
SOURCES = {
    "binary": rng.integers(0, 2, (60, 6), dtype=np.uint8),
    "levels": rng.integers(0, 8, (60, 6), dtype=np.uint8),
    "counts": rng.poisson(40, (60, 6)),
    "real": rng.normal(size=(60, 6)).astype(np.float32),
    "onehot": ONE_HOT,
    "table": {"a": rng.normal(size=60), "b": rng.poisson(30, 60), "c": rng.choice(list("xyz"), 60)},
    "texts": ["".join(rng.choice(list("ab"), 4)) for _ in range(60)],
}
WRONG = {
    "binary": (0.5, -1.0, 2.0),
    "levels": (8.0, -1.0, 2.5),
    "counts": (-1.0, 0.5),
    "real": (),
    "onehot": (9.0, 0.5),
    "table": (),
    "texts": (9999.0, -1.0),
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("more", [{}, {"model": "independent"}])
def test_values_outside_of_the_support_are_refused(kind, more):
    if kind == "texts" and more:
        more = {"model": "autoregressive"}
    data = vs.load(SOURCES[kind])
    model = vs.build(data.space, **({"latent": 2} | more))
    good = data.train.batch(range(8))
    assert torch.isfinite(elbo(model.draw(good))).all()
    free = Batch(good.x, good.observed, good.given)  # not known to be data: checked
    assert torch.isfinite(elbo(model.draw(free))).all()
    for value in (*WRONG[kind], float("nan"), float("inf")):
        x = good.x.float().clone()
        x[3].view(-1)[0 if kind != "table" else 1] = value
        with pytest.raises(ValueError, match=r"expected .* numbers.*; got "):
            model.draw(Batch(x))


def test_cells_that_are_not_observed_may_have_any_value():
    data = vs.load(SOURCES["binary"])
    x = data.train.batch(range(4)).x.float()
    x[0, 0] = float("nan")
    model, observed = vs.build(data.space, latent=2), torch.ones_like(x, dtype=torch.bool)
    observed[0, 0] = False
    with pytest.raises(ValueError, match="got nan"):
        model.draw(Batch(x))
    vs.spaces.check_batch(data.space, Batch(x, observed))


def test_a_table_names_the_range_of_the_cell():
    data = vs.load(SOURCES["table"])
    model = vs.build(data.space, latent=2)
    x = data.train.batch(range(4)).x.clone()
    x[0, 2] = 3.0  # a fourth category
    with pytest.raises(ValueError, match=r"expected whole numbers from 0 to 2 .*; got 3"):
        model.draw(Batch(x))


def test_grey_levels_of_mnist_are_binarised():
    data = vs.load("mnist")
    model = vs.build(data.space, latent=2, network="linear")
    batch = data.train.batch(range(8))
    assert set(batch.x.unique().tolist()) == {0, 1}
    assert (elbo(model.draw(batch)) < 0).all()
    grey = torch.from_numpy(data.train.read(np.arange(8)))
    with pytest.raises(ValueError, match="expected whole numbers from 0 to 1"):
        model.draw(Batch(grey))


@pytest.mark.parametrize("wrong", [None, np.zeros((4, 6)), torch.zeros(4, 6)])
def test_what_is_no_batch_is_refused(wrong):
    model = vs.build(vs.load(SOURCES["binary"]).space, latent=2)
    with pytest.raises(ValueError, match=r"expected a Batch, .*; got "):
        model.draw(wrong)
    with pytest.raises(ValueError, match="expected a batch of shape"):
        model.draw(Batch(torch.zeros(4, 5)))
