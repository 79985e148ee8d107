"""Common mistakes of VAE code, each put in on purpose. docs/reliability.md lists the tests of the
others."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import vaestro as vs
from tests.conftest import make_space
from vaestro.densities import Normal, StandardNormal
from vaestro.models import Draws
from vaestro.objectives import iwae
from vaestro.randomness import Order
from vaestro.spaces import Batch, Kind

ROOT = Path(__file__).parents[1]


@pytest.mark.usefixtures("float64")
def test_1_pixels_are_summed_as_the_rate_is() -> None:
    model = vs.build(make_space(Kind.BINARY, (20,)), latent=2, network="linear")
    x = torch.bernoulli(torch.full((6, 20), 0.5))
    draws = model.draw(Batch(x), 3)
    logits = model.likelihood.decoder.last(draws.z)
    cells = -functional.binary_cross_entropy_with_logits(
        logits, x.expand(3, 6, 20), reduction="none"
    )
    torch.testing.assert_close(draws.log_px, cells.sum(-1))
    assert not torch.allclose(draws.log_px, cells.mean(-1))


def test_5_weights_are_averaged_over_the_draws_of_a_datum() -> None:
    log_px = torch.tensor([[-1.0, -50.0], [-3.0, -40.0], [-2.0, -45.0]])
    q, p = Normal(torch.zeros(2, 1), torch.zeros(2, 1)), StandardNormal((1,), torch.zeros(()))
    draws = Draws(torch.zeros(3, 2, 1), log_px, torch.zeros(3, 2, 1), q, p, px=q)

    def by_hand(axis: int) -> Tensor:
        return log_px.exp().mean(axis).log()

    torch.testing.assert_close(iwae(draws), by_hand(0))
    assert by_hand(1).shape != iwae(draws).shape


def test_14_each_epoch_has_an_order_of_its_own() -> None:
    order = Order(32, 8, 3)
    first, second = ([int(i) for s in range(4) for i in order(4 * epoch + s)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(32))
    assert first != second


def test_the_listed_tests_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text().partition("## Common mistakes")[2]
    named = set(re.findall(r"`(test_\w+)`", text.partition("\n## ")[0]))
    written = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert named
    assert not [name for name in sorted(named) if f"def {name}(" not in written]
