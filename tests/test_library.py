"""A latent library size: its prior, its part of the bound, and its codes."""

from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

import vaestro as vs
from tests.test_counts import write_h5ad
from vaestro import densities
from vaestro.cli.main import main
from vaestro.spaces import Batch, CategoryColumn, CountSpace, TableSpace

GIVEN = TableSpace.of([CategoryColumn("lab", "str", ("a", "b", "c"))])
LIKELIHOODS = ("poisson", "negative-binomial", "zero-inflated")


def built(likelihood: str, **more: object) -> vs.VAE:
    """Return a model of three genes with random weights; its libraries depend on the lab."""
    torch.manual_seed(0)
    spec = f"{likelihood}:library=latent"
    options = {"latent": 1, "network": "mlp:width=8", "likelihood": spec, "given": GIVEN}
    model = vs.build(CountSpace((3,), (3,)), **options | more)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
        model.likelihood.library_base.copy_(torch.tensor([2.0, -1.0]))
        model.likelihood.library_by.copy_(torch.tensor([[-1.0, 0.0, 1.0], [0.0, 0.3, 0.6]]))
    return model.eval()


def batch() -> Batch:
    codes = GIVEN.features(torch.tensor([[0.0], [1.0], [2.0]]), None, torch.float32)
    return Batch(torch.tensor([[1, 0, 3], [4, 2, 0], [9, 6, 2]]), None, codes)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@torch.no_grad()
def test_the_bound_is_that_of_the_integral_over_the_library(likelihood: str) -> None:
    """log p(x | lab), integrated over z and over the log library l ~ N(m, s^2) of the lab, on a
    grid; IWAE with many draws is equal to it, and the ELBO is below."""
    model, data = built(likelihood), batch()
    z = np.linspace(-7, 7, 141)
    for row, (m, s) in enumerate([(1.0, -1.0), (2.0, -0.7), (3.0, -0.4)]):
        spread = np.exp(s)
        sizes = m + spread * np.linspace(-7, 7, 141)
        given = data.given[row : row + 1].expand(len(z), -1)
        zeros = torch.zeros(len(z), 1)
        px = model.decode(torch.cat([torch.from_numpy(z).float()[:, None], zeros], 1), given)
        base = px.base if isinstance(px, densities.ZeroInflated) else px
        shares = np.exp(base.mean[0].double().log().numpy() - m)  # at u = 0 the library is exp(m)
        np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
        mean = np.exp(sizes)[:, None, None] * shares
        x = data.x[row].numpy()
        if isinstance(base, densities.Poisson):
            cells = scipy.stats.poisson.logpmf(x, mean)
        else:
            r = np.exp(base.log_inverse.double().numpy())
            cells = scipy.stats.nbinom.logpmf(x, r, r / (r + mean))
        if isinstance(px, densities.ZeroInflated):
            missed = scipy.special.expit(px.logit[0].double().numpy())
            cells = np.log(missed * (x == 0) + (1 - missed) * np.exp(cells))
        prior = scipy.stats.norm.logpdf(z) + scipy.stats.norm.logpdf(sizes, m, spread)[:, None]
        area = (z[1] - z[0]) * (sizes[1] - sizes[0])
        exact = scipy.special.logsumexp(cells.sum(-1) + prior) + np.log(area)
        one = data[torch.tensor([row])]
        noise = model.noise(40_000, 1, torch.Generator().manual_seed(row))
        draws = model.draw(one, noise=noise)
        iwae = float(torch.logsumexp(draws.log_w[:, 0], 0)) - np.log(len(noise))
        assert iwae == pytest.approx(exact, abs=0.05)
        assert float(draws.mean_log_px - draws.total_rate) < exact


@torch.no_grad()
def test_the_rate_of_its_unit_is_the_divergence_of_the_log_library() -> None:
    model, data = built("poisson"), batch()
    q, rate = model.q(model.features(data)), model.draw(data, 1).rate[0, :, -1]
    m, s = model.likelihood.library_prior(data.given).double().unbind(-1)
    mean, std = m + s.exp() * q.mean[:, -1], s.exp() * q.variance[:, -1].sqrt()
    kl = s - std.log() + (std.square() + (mean - m).square()) / (2 * (2 * s).exp()) - 0.5
    torch.testing.assert_close(rate.double(), kl, rtol=1e-4, atol=1e-5)
    other = torch.randn(2, 3, 2)
    moved = torch.stack([other[..., 0], other[..., 1] + 1], -1)
    outputs = (model.likelihood.decode(z, data.given) for z in (other, moved))
    torch.testing.assert_close(*outputs)  # the decoder has no library as input


@pytest.mark.parametrize("likelihood", LIKELIHOODS[1:])
def test_the_prior_starts_at_the_moments_of_each_batch(tmp_path: Path, likelihood: str) -> None:
    r = np.random.default_rng(0)
    lab = np.arange(3000) % 3
    log_size = r.normal(np.array([4.0, 5.0, 6.0])[lab], np.array([0.2, 0.4, 0.6])[lab])
    x = r.poisson(np.exp(log_size)[:, None] * np.array([0.5, 0.3, 0.2]))
    path = write_h5ad(tmp_path / "x.h5ad", x, {"lab": np.array(list("abc"))[lab]})
    data = vs.load(path, condition=["lab"])
    spec = f"{likelihood}:library=latent"
    model = vs.build(data.space, latent=2, likelihood=spec, network="linear", given=data.given)
    vs.training(model, vs.Objective(), data, steps=1, device="cpu")
    one = data.given.features(torch.tensor([[0.0], [1.0], [2.0]]), None, torch.float32)
    mean, spread = model.likelihood.library_prior(one).detach().unbind(-1)
    totals = np.log(x.sum(1).clip(1))
    for i in range(3):
        assert float(mean[i]) == pytest.approx(totals[lab == i].mean(), abs=0.15)
        assert float(spread[i].exp()) == pytest.approx(totals[lab == i].std(), rel=0.3)


def test_codes_in_annotated_files_have_no_library(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    x = r.poisson(np.exp(r.normal(3, 0.5, (90, 1))) * np.array([0.5, 0.3, 0.2]))
    path = write_h5ad(tmp_path / "x.h5ad", x, {"lab": np.array(["a", "b", "b"] * 30)})
    run, out = str(tmp_path / "run"), tmp_path / "out.h5ad"
    options = ["--condition", "lab", "--likelihood", "negative-binomial:library=latent"]
    train = ["train", str(path), "--run", run, *options, "--latent", "2", "--steps", "20"]
    assert main([*train, "--network", "mlp:width=8", "--quiet"]) == 0
    assert main(["encode", run, str(path), "-o", str(out), "--quiet"]) == 0
    obsm = anndata.read_h5ad(out).obsm
    assert {k: v.shape[1] for k, v in obsm.items()} == {
        "X_vaestro": 2,
        "X_vaestro_logvar": 2,
        "X_vaestro_library": 1,
    }
    session = vs.open(run)
    assert session.model.units == (3,) and vs.Run(run).config["latent"] == 2
    codes = session.encode(str(path))["mean"]
    assert session.reconstruct(str(path)).shape == (90, 3) and codes.shape == (90, 3)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="expected a vector of real units"):
        built("poisson", posterior="bernoulli")
    with pytest.raises(ValueError, match="expected a model with a latent"):
        built("poisson", model="independent")
    with pytest.raises(ValueError, match="expected mean=softmax for library=latent"):
        vs.build(CountSpace((3,), (3,)), likelihood="poisson:library=latent,mean=softplus")
