"""Likelihoods: sums and integrals of one, extremes, data spread over their grid, exact log p(x),
imputation, conditions."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaestro as vs
from tests.conftest import make_data, make_space, make_values
from tests.test_contracts import GIVEN, LIKELIHOODS, small_model
from tests.test_oracles import set_linear
from vaestro import densities, latents
from vaestro.densities import closed_form_kl, log_mean_exp
from vaestro.frames import Frame
from vaestro.likelihoods import Likelihood
from vaestro.parts import TABLE
from vaestro.spaces import (
    Batch,
    BinaryColumn,
    CategoryColumn,
    CountColumn,
    Kind,
    RealColumn,
    TableSpace,
)

# Both halves of the line, as distances exp(t) from a centre: the trapezoid rule converges
# spectrally there, kinks and heavy tails or not.
STEP = 0.1
AWAY = torch.exp(torch.arange(-80, 80, STEP, dtype=torch.float64))
LINE, WEIGHTS = torch.cat([-AWAY, AWAY]), torch.cat([AWAY, AWAY]) * STEP


class Constant(nn.Module):
    """Stand for a decoder that gives the same outputs at every z."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = nn.Parameter(outputs)

    def forward(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        return self.outputs.expand(len(z), *self.outputs.shape)


def below(estimates: Tensor | np.ndarray, exact: Tensor | np.ndarray, errors: float = 3.0) -> float:
    """Hold estimates to lie below what is exact on average, but for errors of the mean; return by
    how much."""
    gap = np.asarray(exact, np.float64) - np.asarray(estimates, np.float64)
    assert gap.mean() > -errors * gap.std() / math.sqrt(gap.size)
    return float(gap.mean())


# -- every density sums or integrates to one -------------------------------------------------------


def cell(value: float) -> Tensor:
    return torch.full((1,), value, dtype=torch.float64)


Made = Callable[[Tensor, Tensor], densities.Cells]
Torchs = Callable[[Tensor, Tensor], torch.distributions.Distribution]
REAL_DENSITIES: dict[str, tuple[Made, Torchs]] = {
    "normal": (
        lambda loc, s: densities.Normal(loc, 2 * s),
        lambda loc, s: torch.distributions.Normal(loc, s.exp()),
    ),
    "laplace": (densities.Laplace, lambda loc, s: torch.distributions.Laplace(loc, s.exp())),
    "logistic": (
        densities.Logistic,
        lambda loc, s: torch.distributions.TransformedDistribution(
            torch.distributions.Uniform(cell(0), cell(1)),
            [
                torch.distributions.SigmoidTransform().inv,
                torch.distributions.AffineTransform(loc, s.exp()),
            ],
        ),
    ),
} | {
    f"student-t {df:g}": (
        lambda loc, s, df=df: densities.StudentT(loc, s, cell(df)),
        lambda loc, s, df=df: torch.distributions.StudentT(df, loc, s.exp()),
    )
    for df in (1.1, 2.0, 4.0, 30.0, 1e5)
}


@pytest.mark.parametrize("name", REAL_DENSITIES)
def test_real_densities_integrate_to_one_and_are_what_is_sampled(name: str) -> None:
    ours, theirs = REAL_DENSITIES[name]
    for loc, log_scale in ((0.0, 0.0), (2.0, -9.0), (-3.0, 1.5), (5.0, 12.0)):
        density, scale = ours(cell(loc), cell(log_scale)), math.exp(log_scale)
        points = loc + scale * LINE
        mass = torch.exp(density.log_prob(points[:, None])) * WEIGHTS * scale
        assert float(mass.sum()) == pytest.approx(1, abs=1e-8)
        near = points[(LINE.abs() < 15) & (LINE.abs() > 1e-6)]
        expected = theirs(cell(loc), cell(log_scale)).log_prob(near[:, None])[:, 0]
        torch.testing.assert_close(density.log_prob(near[:, None]), expected, rtol=1e-6, atol=1e-6)
    wide = ours(torch.full((50_000,), 2.0, dtype=torch.float64), cell(0.7))
    drawn = (wide.sample(torch.Generator().manual_seed(0)) - 2).abs() / math.exp(0.7)
    for width in (0.2, 1.0, 3.0):
        # The integral over what lies within `width`: in t = log(distance) up to log(width), the
        # last point counted half.
        inside = width * torch.exp(-torch.arange(0, 80, 0.01, dtype=torch.float64))
        mass = (
            torch.exp(
                ours(cell(0), cell(0)).log_prob(torch.stack([inside, -inside])[..., None])
            ).sum(0)
            * inside
            * 0.01
        )
        p = float(mass.sum() - mass[0] / 2)
        assert float((drawn < width).double().mean()) == pytest.approx(
            p, abs=4.5 * math.sqrt(p * (1 - p) / 50_000) + 1e-4
        )
        assert float((drawn < width).double().mean()) > 0.05


CB_LOGITS = [
    s * size
    for size in (
        0.0,
        1e-9,
        1e-3,
        0.0499,
        0.04999999,
        0.05000001,
        0.0501,
        0.3,
        2.0,
        20.0,
        60.0,
        200.0,
    )
    for s in (1, -1)
]


@pytest.mark.usefixtures("float64")
def test_continuous_bernoulli_against_quadrature() -> None:
    points, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(300))
    points, weights = (points + 1) / 2, weights / 2
    logits = torch.tensor(CB_LOGITS)[:, None].requires_grad_()
    density = densities.ContinuousBernoulli(logits)
    p = torch.exp(density.log_prob(points[:, None, None])).detach()  # (points, logits)
    total, mean = (p * weights[:, None]).sum(0), (p * (weights * points)[:, None]).sum(0)
    variance = (p * weights[:, None] * (points[:, None] - mean).square()).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)
    torch.testing.assert_close(density.mean[:, 0], mean, rtol=1e-9, atol=1e-9)
    # of the exponential family: d mean / dl = variance
    (slope,) = torch.autograd.grad(density.mean.sum(), logits)
    torch.testing.assert_close(slope[:, 0], variance, rtol=1e-6, atol=1e-7)
    for x in (0.01, 0.6, 0.99):
        (gradient,) = torch.autograd.grad(density.log_prob(torch.tensor([x])).sum(), logits)
        torch.testing.assert_close(gradient[:, 0], x - mean, rtol=1e-9, atol=1e-9)
    apart = logits[(logits.abs() > 0.02) & (logits.abs() < 30)].detach()
    theirs = torch.distributions.ContinuousBernoulli(logits=apart)
    value = torch.tensor([[0.2], [0.7]])
    torch.testing.assert_close(
        densities.ContinuousBernoulli(apart).cells(value),
        theirs.log_prob(value.expand(2, len(apart))),
    )
    torch.testing.assert_close(densities.ContinuousBernoulli(apart).mean, theirs.mean)


def test_continuous_bernoulli_has_no_step_where_its_formulas_change() -> None:
    logits = torch.cat([torch.linspace(-0.1, 0.1, 401), torch.tensor(CB_LOGITS)]).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    for x in (0.1, 0.9):
        value = torch.tensor(x)
        ours, theirs = (
            densities.ContinuousBernoulli(logits).cells(value),
            densities.ContinuousBernoulli(exact).cells(value.double()),
        )
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=3e-6)
        gradients = (
            torch.autograd.grad(ours.sum(), logits)[0].double(),
            torch.autograd.grad(theirs.sum(), exact)[0],
        )
        torch.testing.assert_close(*gradients, rtol=0, atol=5e-6)
    means = (
        densities.ContinuousBernoulli(logits).mean.double(),
        densities.ContinuousBernoulli(exact).mean,
    )
    torch.testing.assert_close(*means, rtol=0, atol=5e-6)
    slopes = (
        torch.autograd.grad(means[0].sum(), logits)[0].double(),
        torch.autograd.grad(means[1].sum(), exact)[0],
    )
    torch.testing.assert_close(*slopes, rtol=0, atol=3e-4)


@pytest.mark.parametrize("logit", [0.0, 0.0499, -0.0499, 3.0, -40.0, 200.0])
def test_continuous_bernoulli_draws_have_its_moments(logit: float) -> None:
    density = densities.ContinuousBernoulli(torch.full((500_000,), logit))
    drawn = density.sample(torch.Generator().manual_seed(1)).double()
    assert float(drawn.min()) > 0 and float(drawn.max()) < 1
    exact = densities.ContinuousBernoulli(
        torch.tensor([logit], dtype=torch.float64, requires_grad=True)
    )
    (variance,) = torch.autograd.grad(exact.mean.sum(), exact.logits)
    error = math.sqrt(float(variance) / 500_000)
    # 0.0499 moves the mean by 10 errors
    assert float(drawn.mean()) == pytest.approx(float(exact.mean.detach()), abs=4.5 * error + 1e-7)
    assert float(drawn.var()) == pytest.approx(float(variance), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("levels", [2, 16, 256])
def test_discretized_logistic_sums_to_one(levels: int, dtype: torch.dtype) -> None:
    top = levels - 1
    locs = [-1e5, -40.0, -0.5, 0.0, 0.3 * top, 0.5 * top + 0.5, top, top + 3.0, top + 1e5]
    loc, log_scale = (
        t.flatten()
        for t in torch.meshgrid(torch.tensor(locs), torch.linspace(-10, 10, 21), indexing="ij")
    )
    density = densities.DiscretizedLogistic(loc.to(dtype), log_scale.to(dtype), levels)
    codes = torch.arange(levels)
    cells = density.cells(codes[:, None].expand(levels, len(loc)))
    assert torch.isfinite(cells).all()
    tolerance = 1e-12 if dtype is torch.float64 else 3e-5
    torch.testing.assert_close(
        torch.logsumexp(cells, 0), torch.zeros_like(density.loc), rtol=0, atol=tolerance
    )
    p = torch.exp(cells)
    # The mean is that of the logistic before it is rounded: within half a level.
    assert ((p * codes[:, None]).sum(0) - density.mean).abs().max() < 0.5 + (
        1e-6 if dtype is torch.float64 else 0.05
    )
    if dtype is torch.float64:
        inverse = torch.exp(-density.log_scale)
        ends = torch.cat(
            [torch.full((1,), -math.inf), codes[1:] - 0.5, torch.full((1,), math.inf)]
        ).to(dtype)
        direct = torch.sigmoid((ends[:, None] - density.loc) * inverse).diff(dim=0)
        torch.testing.assert_close(p, direct, rtol=0, atol=1e-12)


def mixture(
    places: tuple[int, ...], channels: int, conditioned: bool, levels: int = 4, components: int = 2
) -> densities.LogisticMixture:
    r = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn((1, 1, components, *shape, *places), generator=r, dtype=torch.float64)

    pairs = channels * (channels - 1) // 2
    coefficients = torch.tanh(2 * draw(pairs)) if conditioned else None
    loc = (levels - 1) / 2 + draw(channels)
    return densities.LogisticMixture(
        draw(),
        loc,
        0.5 * draw(channels) - 0.5,
        coefficients,
        levels,
        1 + len(places),
        channelled=True,
    )


def by_hand(
    density: densities.LogisticMixture, place: tuple[int, ...], value: tuple[int, ...]
) -> float:
    """Return the probability of one pixel's channels by the definition: components, and channels
    each after the ones before."""
    at = (0, 0, slice(None), *place)
    weights, total = torch.softmax(density.logits, 2)[at], 0.0
    for m, weight in enumerate(weights.tolist()):
        product, used = weight, 0
        for c, x in enumerate(value):
            loc, scale = (
                float(density.loc[0, 0, m, c][place]),
                math.exp(float(density.log_scale[0, 0, m, c][place])),
            )
            for before in value[:c] if density.coefficients is not None else ():
                loc += float(density.coefficients[0, 0, m, used][place]) * (
                    before - (density.levels - 1) / 2
                )
                used += 1
            upper = 1.0 if x == density.levels - 1 else 1 / (1 + math.exp(-(x + 0.5 - loc) / scale))
            product *= upper - (0.0 if x == 0 else 1 / (1 + math.exp(-(x - 0.5 - loc) / scale)))
        total += product
    return total


@pytest.mark.parametrize("conditioned", [True, False])
def test_logistic_mixture_over_all_outcomes_of_a_pixel(conditioned: bool) -> None:
    density = mixture((1, 1), 3, conditioned)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3).reshape(64, 3, 1, 1)
    p = torch.exp(density.log_prob(every)).flatten()
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    expected = [by_hand(density, (0, 0), tuple(x)) for x in every.flatten(1).tolist()]
    torch.testing.assert_close(
        p, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-14
    )
    n = 40_000
    many = mixture((1, 1), 3, conditioned)
    many.logits, many.loc, many.log_scale = (
        t.expand(1, n, *t.shape[2:]) for t in (many.logits, many.loc, many.log_scale)
    )
    many.coefficients = (
        None
        if many.coefficients is None
        else many.coefficients.expand(1, n, *many.coefficients.shape[2:])
    )
    drawn = many.sample(torch.Generator().manual_seed(0)).flatten(2)[0]
    assert drawn.shape == (n, 3)
    counts = torch.bincount(
        (drawn @ torch.tensor([16.0, 4.0, 1.0], dtype=torch.float64)).long(), minlength=64
    )
    # Pearson's statistic of 63 degrees of freedom: 63 +- 11.
    statistic = float(((counts - n * p).square() / (n * p)).sum())
    assert statistic < 63 + 5 * math.sqrt(2 * 63)
    table = p.reshape(4, 4, 4)
    # were channels drawn apart, the statistic would tell: they are far from independent
    if conditioned:
        apart = torch.einsum("i,j,k->ijk", table.sum((1, 2)), table.sum((0, 2)), table.sum((0, 1)))
        assert n * float(((table - apart).square() / table).sum()) > 1000


def test_logistic_mixture_sums_over_pixels_and_marginalises_channels() -> None:
    places = (2, 3)
    density = mixture(places, 3, conditioned=True)
    value = torch.randint(0, 4, (5, 3, *places), generator=torch.Generator().manual_seed(0))
    expected = [
        sum(
            math.log(by_hand(density, (i, j), tuple(v[:, i, j].tolist())))
            for i in range(2)
            for j in range(3)
        )
        for v in value
    ]
    torch.testing.assert_close(
        density.log_prob(value)[0], torch.tensor(expected, dtype=torch.float64)
    )
    independent = mixture((1, 1), 3, conditioned=False)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3).reshape(64, 3, 1, 1)
    table = torch.exp(independent.log_prob(every)).reshape(4, 4, 4)
    for mask in torch.cartesian_prod(*[torch.tensor([True, False])] * 3):
        unseen = [c for c in range(3) if not mask[c]]
        marginal = table.sum(unseen, keepdim=True).expand(4, 4, 4) if unseen else table
        got = torch.exp(independent.log_prob(every, mask.reshape(3, 1, 1).expand(64, 3, 1, 1)))
        torch.testing.assert_close(got.reshape(4, 4, 4), marginal)


def test_logistic_mixture_of_vectors_is_one_mixture_for_each_cell() -> None:
    r = torch.Generator().manual_seed(0)
    # K = 2, B = 1, M = 5, 7 cells
    logits, loc, log_scale = torch.randn(3, 2, 1, 5, 7, generator=r, dtype=torch.float64)
    loc = 8 + 4 * loc
    density = densities.LogisticMixture(
        logits, loc.unsqueeze(3), log_scale.unsqueeze(3), None, 16, 1, channelled=False
    )
    codes = torch.arange(16)[:, None].expand(16, 7)
    # (16, K, B, M, 7)
    parts = densities.DiscretizedLogistic(loc, log_scale, 16).cells(codes[:, None, None, None])
    cells = torch.logsumexp(parts + torch.log_softmax(logits, 2), 3)  # (16, K, B, 7)
    torch.testing.assert_close(cells.exp().sum(0), torch.ones_like(cells[0]))
    torch.testing.assert_close(density.log_prob(codes), cells.sum(-1)[..., 0].T)
    mask = torch.arange(7) % 2 == 0
    torch.testing.assert_close(
        density.log_prob(codes, mask.expand(16, 7)), cells[..., ::2].sum(-1)[..., 0].T
    )
    drawn = torch.stack([density.sample(r) for _ in range(3000)])
    found = torch.stack([(drawn == code).double().mean(0) for code in range(16)])
    torch.testing.assert_close(found, cells.exp(), rtol=0, atol=0.045)


@pytest.mark.usefixtures("float64")
def test_counts_sum_to_one_and_have_their_moments() -> None:
    counts = torch.arange(100_000.0)[:, None]
    for log_mean in (-7.0, 0.0, 3.7, 7.0):
        p = torch.exp(densities.Poisson(torch.tensor([log_mean])).log_prob(counts))
        assert float(p.sum()) == pytest.approx(1, abs=1e-10)
        torch.testing.assert_close(
            densities.Poisson(torch.tensor([log_mean])).log_prob(counts[:50]),
            torch.distributions.Poisson(math.exp(log_mean)).log_prob(counts[:50, 0]),
        )
    for log_mean in (-5.0, 0.0, 3.7):
        for log_inverse in (-3.0, 0.0, 2.5, 8.0):
            density = densities.NegativeBinomial(
                torch.tensor([log_mean]), torch.tensor([log_inverse])
            )
            p, x, mean = torch.exp(density.log_prob(counts)), counts[:, 0], math.exp(log_mean)
            assert float(p.sum()) == pytest.approx(1, abs=1e-10)
            assert float((p * x).sum()) == pytest.approx(mean, rel=1e-8) == float(density.mean)
            assert float((p * (x - mean).square()).sum()) == pytest.approx(
                mean + mean**2 / math.exp(log_inverse), rel=1e-7
            )


@pytest.mark.usefixtures("float64")
def test_negative_binomial_is_a_gamma_poisson_mixture_and_tends_to_the_poisson() -> None:
    x = torch.tensor([0.0, 1.0, 3.0, 17.0, 60.0])[:, None]
    t = torch.arange(-60, 12, 0.01)  # the rate is exp(t)
    for mean in (0.3, 4.0, 25.0):
        for inverse in (0.6, 1.0, 7.3, 150.0):
            gamma = torch.distributions.Gamma(inverse, inverse / mean).log_prob(t.exp()) + t
            mixed = torch.logsumexp(
                gamma + torch.distributions.Poisson(t.exp()).log_prob(x), 1
            ) + math.log(0.01)
            ours = densities.NegativeBinomial(
                torch.tensor([math.log(mean)]), torch.tensor([math.log(inverse)])
            ).log_prob(x)
            torch.testing.assert_close(ours, mixed, rtol=1e-8, atol=1e-8)
        log_mean = torch.tensor([math.log(mean)])
        for log_inverse in (12.0, 18.0):
            far = densities.NegativeBinomial(log_mean, torch.tensor([log_inverse])).log_prob(x)
            apart = (far - densities.Poisson(log_mean).log_prob(x)).abs().max()
            # ((x - mean)^2 - x) / (2 exp(log_inverse))
            assert 0 < float(apart) < 1e4 * math.exp(-log_inverse)


def test_counts_are_exact_in_float32() -> None:
    # The plain formula is off by .8 nat at a million: its terms are some 1e7, where float32 has
    # steps of 1.
    means, inverses = 10.0 ** torch.arange(-3, 7), torch.linspace(-8, 8, 9)
    counts = torch.cat(
        [torch.arange(0.0, 20), 10.0 ** torch.arange(2, 7), means * 1.1, means + 2 * means.sqrt()]
    ).round()
    log_mean, log_inverse, x = torch.meshgrid(means.log(), inverses, counts, indexing="ij")
    m, a, value = log_mean.double(), log_inverse.double(), x.double()
    r = a.exp()
    poisson = value * m - m.exp() - torch.lgamma(value + 1)
    binomial = torch.lgamma(value + r) - torch.lgamma(r) - torch.lgamma(value + 1)
    binomial += -r * torch.log1p((m - a).exp()) - value * torch.log1p((a - m).exp())
    for density, exact in (
        (densities.Poisson(log_mean), poisson),
        (densities.NegativeBinomial(log_mean, log_inverse), binomial),
    ):
        error = (density.cells(x).double() - exact).abs()
        likely = exact > -100  # what a fitted model gives
        assert float(error[likely].max()) < 2e-3
        assert bool((error < 3e-3 + 1e-5 * exact.abs()).all())
    # Gradients: x - mean for the Poisson, (x - mean) / (1 + mean / r) for the negative binomial.
    for make, slope in (
        (lambda m: densities.Poisson(m), 1.0),
        (lambda m: densities.NegativeBinomial(m, log_inverse), 1 + (m - a).exp()),
    ):
        leaf = log_mean.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(make(leaf).cells(x).sum(), leaf)
        exact = (value - m.exp()) / slope
        assert bool(
            ((gradient.double() - exact).abs() < 1e-5 * (1 + value + m.exp()) / slope).all()
        )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "options",
    ["", ":count=poisson,real=laplace", ":real=student-t,df=2.5,scale=cell", ":real=logistic"],
)
def test_a_small_table_integrates_to_one(options: str) -> None:
    columns = [
        CategoryColumn("colour", "str", ("a", "b", "c"), start=(0.2, 0.3, 0.5)),
        CountColumn("visits", "int64", start=(1.5,)),
        RealColumn("size", "float64", offset=10.0, scale=4.0),
        BinaryColumn("member", "bool", (False, True), start=(0.6, 0.4)),
    ]
    torch.manual_seed(0)
    model = vs.build(
        TableSpace.of(columns), latent=2, network="mlp:width=8", likelihood=f"table{options}"
    )
    z = torch.randn(1, 1, 2)
    loc = float(model.likelihood(z).mean[0, 0, 0].detach())
    real = loc + LINE[(LINE.abs() > 1e-12) & (LINE.abs() < 1e12)]
    rows = torch.cartesian_prod(real, torch.arange(80.0), torch.arange(2.0), torch.arange(3.0))
    log_px = model.log_terms(Batch(rows), z.expand(1, len(rows), 2))[0].reshape(len(real), -1)
    # In the user's units: rows stand 4 times as far apart there.
    mass = log_px.exp().sum(1) * WEIGHTS[(LINE.abs() > 1e-12) & (LINE.abs() < 1e12)] * 4.0
    assert float(mass.sum().detach()) == pytest.approx(1, abs=1e-8)


def test_a_decoder_of_counts_starts_at_the_mean_of_the_data() -> None:
    # The bias passes through soft_limit before it is a log-mean.
    mean = np.array([0.02, 3.0, 900.0, 40_000.0], np.float32)
    space = replace(make_space(Kind.COUNT, (4,)), marginal=mean)
    table = TableSpace.of(
        [CountColumn(f"c{i}", "int64", start=(float(m),)) for i, m in enumerate(mean)]
    )
    of_array = (
        "poisson",
        "poisson:limit=15",
        "negative-binomial",
        "negative-binomial:dispersion=cell",
    )
    of_table = ("table", "table:count=poisson", "table:scale=cell", "table:limit=15")
    for made, name in [(space, name) for name in of_array] + [(table, name) for name in of_table]:
        model = vs.build(made, latent=2, likelihood=name, network="mlp:width=8")
        with torch.no_grad():
            model.likelihood.decoder.last.weight.zero_()
        np.testing.assert_allclose(
            model.decode(torch.zeros(1, 2)).mean[0, 0].detach(), mean, rtol=1e-4, err_msg=name
        )


@pytest.mark.parametrize(("name", "kind"), LIKELIHOODS)
def test_a_standardised_residual_is_one_on_average_over_a_densitys_own_draws(
    name: str, kind: Kind
) -> None:
    model = small_model(kind, likelihood=name)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        px = model.decode(torch.randn(1, *model.units, generator=generator).expand(20_000, -1))
        drawn = px.sample(generator)[0]
        residual = px.standardised_residual(drawn)
    residual = residual.expand(1, *drawn.shape)[0]
    scaled = ("gaussian", "laplace", "logistic:", "logistic", "student-t")
    cells = (
        len(model.space.of_kind(Kind.REAL))
        if kind is Kind.TABLE
        else model.space.cells * (name.partition(":")[0] in scaled)
    )
    there, rest = residual.flatten(1)[:, :cells], residual.flatten(1)[:, cells:]
    assert rest.isnan().all() and bool((there >= 0).all())
    if not cells:
        return
    assert ((there.mean(0) - 1).abs() < 5 * there.std(0) / math.sqrt(20_000)).all()
    # as if the scale were a third
    away = torch.where(residual.isnan(), drawn, px.mean[0] + 3 * (drawn - px.mean[0]))
    assert (px.standardised_residual(away)[0].flatten(1)[:, :cells].mean(0) > 1.5).all()


# -- extremes --------------------------------------------------------------------------------------

MIXTURES = [
    ("logistic-mixture", Kind.LEVELS),
    ("logistic-mixture:channels=independent", Kind.LEVELS),
]
EXTREMES = [(name, kind, (6,)) for name, kind in LIKELIHOODS if name != "autoregressive"] + [
    (name, kind, (3, 2, 2)) for name, kind in MIXTURES
]
ENDS = {Kind.REAL: [-30.0, 0.0, 30.0], Kind.UNIT: [1e-6, 0.5, 1 - 1e-6], Kind.COUNT: [0, 7, 2**24]}


@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    EXTREMES,
    ids=lambda v: "x".join(map(str, v)) if isinstance(v, tuple) else str(v),
)
def test_extreme_outputs_give_finite_scores_and_gradients(
    name: str, kind: Kind, shape: tuple[int, ...]
) -> None:
    model = small_model(kind, likelihood=name, shape=shape)
    space = model.space
    outputs = model.likelihood.decoder.outputs
    r = torch.Generator().manual_seed(0)
    ends = ENDS.get(kind, [0, space.levels // 2, max(space.levels - 1, 0)])
    x = torch.from_numpy(make_values(space, 3))
    if kind is Kind.TABLE:
        x[0, 2], x[1, :2], x[2, :3] = 2**24, 30.0, 0.0
    else:
        x = (
            torch.tensor(ends)
            .reshape(-1, *[1] * len(space.shape))
            .expand(3, *space.shape)
            .to(x.dtype)
        )
    own = [p for n, p in model.likelihood.named_parameters() if not n.startswith("decoder")]
    signs = [
        torch.ones(outputs),
        -torch.ones(outputs),
        *[torch.randint(0, 2, outputs, generator=r) * 2.0 - 1 for _ in range(4)],
    ]
    for size in (1e4, 1e-4):
        for i, sign in enumerate(signs):
            decoder = Constant(size * sign)
            model.likelihood.decoder = decoder
            with torch.no_grad():
                for p in own:
                    p.fill_(size * (-1) ** i)
            px = model.likelihood(torch.zeros(1, 3, 3))
            score = px.log_prob(x)
            assert torch.isfinite(score).all()
            gradients = torch.autograd.grad(score.sum(), [decoder.outputs, *own])
            assert all(torch.isfinite(g).all() for g in gradients)
            assert all(bool((g != 0).all()) for g in gradients[1:]), (
                "a saturated limit must leave a way back"
            )
            assert torch.isfinite(px.mean).all()
            drawn = px.sample(r)
            assert torch.isfinite(drawn.float()).all()
            assert torch.isfinite(px.log_prob(drawn[0])).all()


# -- data spread over the cells of their grid ------------------------------------------------------

CUMULATIVE: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": torch.special.ndtr,
    "laplace": lambda y: 0.5 + 0.5 * y.sign() * -torch.expm1(-y.abs()),
    "logistic": torch.sigmoid,
}
SPREAD = [(how, family) for how in ("levels", "real", "table") for family in CUMULATIVE]


def log_cells(family: str, value: Tensor, loc: Tensor, scale: float, step: Tensor) -> Tensor:
    """Return the log of the mean density in a cell of each value's grid, in the user's units; of
    the density where there is no grid."""
    step = torch.where(step > 0, step, 1e-5)
    cdf = CUMULATIVE[family]
    return torch.log(
        (cdf((value + step / 2 - loc) / scale) - cdf((value - step / 2 - loc) / scale)) / step
    ).sum(-1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("how", "family"), SPREAD)
def test_noise_averages_to_the_exact_integral_over_the_grids_cells(how: str, family: str) -> None:
    scale, loc = 0.6, torch.tensor([0.3, -0.8, 0.5])
    # in the user's units
    option = (
        f"{family}:variance={scale**2!r}" if family == "gaussian" else f"{family}:scale={scale!r}"
    )
    if how == "levels":
        space, x = (
            make_space(Kind.LEVELS, (3,), 4),
            torch.tensor([[0, 1, 3], [2, 0, 1]], dtype=torch.uint8),
        )
        user, offset, unit, step = x, torch.zeros(3), torch.ones(3), torch.ones(3)
    else:
        offset, unit, step = (
            torch.tensor([1.0, 2.0, 3.0]),
            torch.tensor([2.0, 0.5, 1.5]),
            torch.tensor([0.5, 0.0, 1.0]),
        )
        user = torch.tensor([[1.5, 2.3, 3.0], [0.0, 1.2, 5.0]])
        x = (user - offset) / unit
        columns = [
            RealColumn(
                f"c{i}", "float64", offset=float(offset[i]), scale=0.6, resolution=float(step[i])
            )
            for i in range(3)
        ]
        if how == "real":
            space = replace(
                make_space(Kind.REAL, (3,)),
                offset=offset.numpy(),
                scale=unit.numpy(),
                resolution=step.numpy(),
            )
        else:
            space, option, unit = (
                TableSpace.of([*columns, BinaryColumn("member", "bool", (False, True))]),
                f"table:scale=column,real={family}",
                0.6,
            )
            x = torch.cat([(user - offset) / unit, torch.tensor([[1.0], [0.0]])], 1)
    model = vs.build(space, latent=2, network="mlp:width=8", likelihood=option)
    model.likelihood.decoder = Constant(
        torch.cat([loc, torch.tensor([1.3])]) if how == "table" else loc
    )
    if how == "table":
        scale = 0.48  # 0.8 of the columns'
        model.likelihood.put(torch.tensor(math.log(0.8)))
    draws, z = 150_000, torch.zeros(1, 1, 2)
    noise = model.noise(draws, 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        log_px = model.log_terms(Batch(x), z.expand(draws, 2, 2), model.parts(noise)[1])[0]
        where = offset + unit * model.likelihood(z).mean[0, :, :3]
    exact = log_cells(family, user.double(), where, scale, step)
    if how == "table":
        exact += torch.nn.functional.logsigmoid(torch.tensor([1.3, -1.3]))
    weights = torch.exp(log_px - exact)
    assert ((weights.mean(0) - 1).abs() < 4.5 * weights.std(0) / math.sqrt(draws)).all()
    assert (weights.std(0) > 0.05).all()
    assert (log_px.mean(0) < exact - 0.002).all()
    torch.testing.assert_close(log_mean_exp(log_px), exact, rtol=0, atol=0.02)


@pytest.mark.parametrize("step", [1.0, 0.01])
def test_no_small_variance_makes_a_density_of_spread_data_grow(step: float) -> None:
    bounds = {}
    for resolution in (step, 0.0):
        space = replace(
            make_space(Kind.REAL, (1,)),
            offset=np.full(1, 7 * step),
            scale=np.full(1, 3.0),
            resolution=np.full(1, resolution),
        )
        for variance in np.geomspace(1e-8, 1e4, 61) * step**2 / 12:
            variance = float(variance)
            model = vs.build(
                space, latent=1, network="mlp:width=8", likelihood=f"gaussian:variance={variance!r}"
            )
            # the mean lies exactly on the datum
            model.likelihood.decoder = Constant(torch.zeros(1))
            noise = model.noise(20_000, 1, torch.Generator().manual_seed(0))
            with torch.no_grad():
                log_px = model.log_terms(
                    Batch(torch.zeros(1, 1)), torch.zeros(20_000, 1, 1), model.parts(noise)[1]
                )[0]
            bounds[resolution, variance] = float(log_px.mean())
    spread = {v: b for (r, v), b in bounds.items() if r}
    assert max(spread.values()) < -math.log(step)
    # The best normal for a uniform of that width has its variance, step^2 / 12.
    assert max(spread.values()) == pytest.approx(
        -math.log(step) - 0.5 * math.log(2 * math.pi * math.e / 12), abs=0.01
    )
    assert max(spread, key=lambda v: spread[v]) == pytest.approx(step**2 / 12, rel=0.7)
    # what goes wrong without
    assert max(b for (r, _), b in bounds.items() if not r) > -math.log(step) + 5


@pytest.mark.parametrize(
    "likelihood",
    [
        "gaussian:variance=pixel",
        "laplace:scale=pixel",
        "logistic:scale=pixel",
        "student-t:scale=pixel",
        "table",
    ],
)
def test_no_small_scale_predicted_at_a_repeated_value_makes_its_bound_grow(likelihood: str) -> None:
    r = np.random.default_rng(0)
    rain = np.where(r.random(2000) < 0.3, 0.0, r.lognormal(0, 1, 2000))
    likelihoods = (
        [f"table:scale=cell,real={real}" for real in ("gaussian", "student-t")]
        if likelihood == "table"
        else [likelihood]
    )
    plain = {"marginals": "plain"} if likelihood == "table" else {"low": "none"}
    data = vs.load({"rain": rain} if likelihood == "table" else rain[:, None], **plain)
    space = data.space
    cell = space.columns[0].resolution if likelihood == "table" else float(np.max(space.resolution))
    assert cell == pytest.approx(1e-3 * rain.std(), rel=0.5), (
        "the data's own resolution, and no chance distance of two of them"
    )
    zero = space.inward(
        Frame({"rain": np.ma.zeros(1)}) if likelihood == "table" else np.zeros((1, 1))
    )
    for name in likelihoods:
        model = vs.build(space, latent=1, network="mlp:width=8", likelihood=name)
        noise = model.noise(5000, 1, torch.Generator().manual_seed(0))
        bounds, outputs = [], model.likelihood.decoder.outputs
        for log_scale in np.linspace(2, -400, 200):
            # The decoder knows the number exactly, and says so ever more loudly.
            model.likelihood.decoder = Constant(
                torch.tensor([float(zero.item()), log_scale]).view(outputs)
            )
            with torch.no_grad():
                bounds.append(
                    float(
                        model.log_terms(
                            Batch(torch.from_numpy(zero)),
                            torch.zeros(5000, 1, 1),
                            model.parts(noise)[1],
                        )[0].mean()
                    )
                )
        assert np.isfinite(bounds).all() and max(bounds) < -math.log(cell)
        assert bounds[-1] < max(bounds) - 0.5, "beyond the cell's own width nothing is to be gained"


@pytest.mark.parametrize(
    ("kind", "likelihood", "resolution", "jitter"),
    [
        (Kind.LEVELS, "laplace", None, (3, 2, 2)),
        (Kind.LEVELS, "categorical", None, None),
        (Kind.REAL, "gaussian", 0.5, (3, 2, 2)),
        (Kind.REAL, "gaussian", None, None),
        (Kind.TABLE, "table", None, (2,)),
    ],
)
def test_noise_has_a_part_for_the_latent_and_one_for_the_grid(
    kind: Kind, likelihood: str, resolution: float | None, jitter: tuple[int, ...] | None
) -> None:
    space = make_space(kind, (3, 2, 2))
    if resolution is not None:
        space = replace(space, resolution=np.full(space.shape, resolution))
    model = vs.build(space, latent=5, network="mlp:width=8", likelihood=likelihood)
    noise = model.noise(400, 4, torch.Generator().manual_seed(0))
    z_noise, spread = model.parts(noise)
    assert z_noise.shape == (400, 4, 5)
    assert model.likelihood.jitter == jitter
    assert float(z_noise.std()) == pytest.approx(1, abs=0.06)
    batch = Batch(torch.from_numpy(make_values(space, 4)))
    draws = model.draw(batch, 400, noise=noise)
    torch.testing.assert_close(draws.z, model.posterior(batch).from_noise(z_noise))
    if jitter is None:
        assert spread is None and noise.shape == (400, 4, 5)
        return
    assert spread is not None and spread.shape == (400, 4, *jitter)
    assert noise.shape == (400, 4, 5 + math.prod(jitter))
    assert -0.5 <= float(spread.min()) < -0.49 and 0.49 < float(spread.max()) <= 0.5
    assert float(spread.var()) == pytest.approx(1 / 12, abs=0.004)
    moved = (model.likelihood.spread(batch.x, spread) - batch.x).flatten(2)
    sizes = {
        Kind.LEVELS: [1.0] * 12,
        Kind.REAL: [0.5] * 12,
        Kind.TABLE: [0.0, 1 / 20, 0.0, 0.0, 0.0, 0.0],
    }[kind]
    torch.testing.assert_close(
        moved.amax((0, 1)) - moved.amin((0, 1)), torch.tensor(sizes), rtol=0.01, atol=1e-6
    )
    shown = torch.from_numpy(make_values(space, 4)) + moved.unflatten(2, space.shape)
    torch.testing.assert_close(draws.log_px, model.scoring(draws.px, shown))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("likelihood", ["gaussian:variance=pixel", "laplace"])
def test_bounds_over_latents_and_noise_lie_below_the_exact_probability_of_levels(
    likelihood: str,
) -> None:
    torch.manual_seed(0)
    space = make_space(Kind.LEVELS, (3,), 4)
    model = vs.build(space, latent=1, network="mlp:width=16,activation=tanh", likelihood=likelihood)
    with torch.no_grad():
        for p in model.likelihood.decoder.parameters():
            p.mul_(2)
        every = torch.cartesian_prod(*[torch.arange(4)] * 3).to(torch.uint8)
        grid = torch.linspace(-8, 8, 801)
        px = model.likelihood(grid[:, None, None])
        scale = px.std if isinstance(px, densities.Normal) else px.log_scale.exp()
        cdf = CUMULATIVE[likelihood.partition(":")[0]]
        ends = torch.tensor([-0.5, 0.5, 1.5, 2.5, 3.5])
        # (z, cell, level)
        cells = cdf((ends - px.mean.mT) / scale.expand_as(px.mean).mT).diff(dim=-1)
        log_p = torch.log(cells[:, torch.arange(3), every.long()]).sum(-1)  # (z, 64)
        log_z = -0.5 * (grid.square() + math.log(2 * math.pi)) + math.log(16 / 800)
        exact = torch.logsumexp(log_p + log_z[:, None], 0)
        within = float(
            (
                torch.prod(cdf((3.5 - px.mean) / scale) - cdf((-0.5 - px.mean) / scale), -1)[:, 0]
                * log_z.exp()
            ).sum()
        )
    assert within < 0.999  # the rest falls outside of the levels: what a continuous density costs
    result = vs.evaluate(model, vs.data.Rows(every.numpy(), space, "test"), k=4000)
    assert (result["elbo"].nats < exact.numpy()).all()
    error = np.sqrt((4000 / result["iwae"].ess - 1) / 4000)
    assert (np.abs(result["iwae"].nats - exact.numpy()) < 5 * error + 5 * error**2).all()
    assert float(np.exp(result["iwae"].nats).sum()) == pytest.approx(within, rel=0.02)
    # The mean of exp(IWAE_5) over repetitions is P(x), for each of the 64.
    with torch.no_grad():
        weights = model.draw(
            Batch(every), 5 * 3000, noise=model.noise(15_000, 64, torch.Generator().manual_seed(0))
        ).log_w
    estimates = log_mean_exp(weights.unflatten(0, (3000, 5)), 1).exp()
    assert (
        (estimates.mean(0) - exact.exp()).abs() < 4.5 * estimates.std(0) / math.sqrt(3000)
    ).all()
    assert (estimates.log().mean(0) < exact).all()


# -- exact log p(x), trained end to end ------------------------------------------------------------


def train(model: vs.VAE, data: vs.Data, **how: float) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # products this small only wait for a second thread
    for _ in vs.training(
        model,
        vs.Objective(),
        data,
        device="cpu",
        compile="off",
        **{"batch": 128, "lr": 1e-2, **how},
    ):
        pass
    torch.set_num_threads(threads)


def test_noisy_templates() -> None:
    r = np.random.default_rng(0)
    templates, flip, n = r.integers(0, 2, (4, 16)), 0.1, 6000
    x = (templates[r.integers(0, 4, n)] ^ (r.random((n, 16)) < flip)).astype(np.uint8)
    flips = (x[:, None] != templates).sum(-1)
    exact = np.log((flip**flips * (1 - flip) ** (16 - flips)).mean(1))[4000:]
    data = make_data(make_space(Kind.BINARY, (16,)), x[:4000], x[4000:])
    torch.manual_seed(0)
    model = vs.build(data.space, latent=3, network="mlp:width=64")
    train(model, data, steps=500)
    result = vs.evaluate(model, data.test, k=64)
    gap = below(result["elbo"].nats, exact)
    assert 0 < below(result["iwae"].nats, exact) < min(gap, 0.5)
    assert gap < 1


@pytest.mark.parametrize(
    "likelihood", ["logistic-mixture", "discretized-logistic", "categorical", "gaussian", "laplace"]
)
def test_uniform_bytes_cost_eight_bits(likelihood: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, (12_000, 3)).astype(np.uint8)
    data = make_data(make_space(Kind.LEVELS, (3,), 256), x[:10_000], x[10_000:])
    torch.manual_seed(0)
    model = vs.build(data.space, latent=3, network="mlp:width=64", likelihood=likelihood)
    train(model, data, steps=300, batch=256)
    result = vs.evaluate(model, data.test, k=50)
    for method in ("elbo", "iwae"):
        estimate = result[method]
        bits = estimate.bits_per_dim
        assert bits is not None
        assert bits == pytest.approx(-estimate.nats.mean() / (3 * math.log(2)))
        error = estimate.mean()[1] / (3 * math.log(2))
        assert 8 - 3 * error < bits < {"gaussian": 8.3, "laplace": 8.5}.get(likelihood, 8.2)


@pytest.mark.parametrize("likelihood", ["poisson", "negative-binomial"])
def test_counts_with_a_log_rate_along_one_line(likelihood: str) -> None:
    r = np.random.default_rng(0)
    bias, slope, n = np.array([0.5, 1.0, 2.0, 3.0, 0.0]), np.array([0.5, -0.4, 0.3, 0.2, 0.8]), 5000
    x = r.poisson(np.exp(bias + slope * r.normal(size=(n, 1)))).astype(np.int32)
    grid = torch.linspace(-8, 8, 401, dtype=torch.float64)
    rates = torch.from_numpy(bias) + torch.from_numpy(slope) * grid[:, None, None]
    log_px = torch.distributions.Poisson(rates.exp()).log_prob(torch.from_numpy(x[4000:])).sum(-1)
    exact = torch.logsumexp(
        log_px - 0.5 * (grid[:, None].square() + math.log(2 * math.pi)) + math.log(16 / 400), 0
    )
    space = replace(make_space(Kind.COUNT, (5,)), marginal=x[:4000].mean(0).astype(np.float32))
    data = make_data(space, x[:4000], x[4000:])
    torch.manual_seed(0)
    model = vs.build(
        data.space, latent=1, encoder="mlp:width=32", decoder="linear", likelihood=likelihood
    )
    train(model, data, steps=600)
    result = vs.evaluate(model, data.test, k=64)
    # the other has to find out that there is no dispersion
    near = 0.3 if likelihood == "poisson" else 0.6
    assert below(result["elbo"].nats, exact) < near
    assert below(result["iwae"].nats, exact) < near


def log_normal(x: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return the log-density of N(0, covariance) at each row, of the cells that are not NaN."""
    out = np.empty(len(x))
    for i, (row, seen) in enumerate(zip(x, ~np.isnan(x), strict=True)):
        part = covariance[np.ix_(seen, seen)]
        log_det = np.linalg.slogdet(part)[1] if seen.any() else 0.0
        out[i] = -0.5 * (
            seen.sum() * math.log(2 * math.pi)
            + log_det
            + row[seen] @ np.linalg.solve(part, row[seen])
        )
    return out


def with_mask(data: vs.Data, train: np.ndarray, held_out: np.ndarray) -> vs.Data:
    masks = {"train": train, "valid": held_out, "test": held_out}
    return replace(
        data,
        **{split: replace(getattr(data, split), observed=mask) for split, mask in masks.items()},
    )


def test_a_linear_gaussian_cloud_with_missing_cells() -> None:
    r = np.random.default_rng(0)
    weights, n = r.normal(size=(8, 2)), 6000
    x = r.normal(size=(n, 2)) @ weights.T + 0.5 * r.normal(size=(n, 8))
    observed = r.random((n, 8)) < 0.7
    scale = np.linspace(0.3, 3, 8)  # the user's units, in which densities are
    exact = log_normal(
        np.where(observed, x, np.nan)[5000:], weights @ weights.T + 0.25 * np.eye(8)
    ) - observed[5000:] @ np.log(scale)
    shown = np.where(observed, x, 99.0).astype(np.float32)  # what is not observed must not matter
    data = make_data(
        replace(make_space(Kind.REAL, (8,), missing=True), scale=scale), shown[:5000], shown[5000:]
    )
    data = with_mask(data, observed[:5000], observed[5000:])
    torch.manual_seed(0)
    model = vs.build(data.space, latent=2, encoder="mlp:width=64", decoder="linear")
    train(model, data, steps=1000)
    result = vs.evaluate(model, data.test, k=200)
    assert below(result["elbo"].nats, exact) < 0.3
    assert below(result["iwae"].nats, exact) < 0.15
    assert float(model.likelihood(torch.zeros(1, 1, 2)).std.detach().median()) == pytest.approx(
        0.5, rel=0.06
    )


# -- imputation ------------------------------------------------------------------------------------


def linear_gaussian() -> tuple[vs.VAE, np.ndarray, float]:
    """Make a linear model of six cells with q deliberately off: its mean is shifted and its
    variance too large."""
    weights, sigma2 = np.random.default_rng(0).normal(size=(6, 2)), 0.3
    space = make_space(Kind.REAL, (6,), missing=True)
    model = vs.build(space, latent=2, network="linear", likelihood=f"gaussian:variance={sigma2}")
    encoder = np.linalg.solve(weights.T @ weights + sigma2 * np.eye(2), weights.T)
    set_linear(
        model,
        weights,
        np.zeros(6),
        np.concatenate([encoder, np.zeros((2, 6))], 1),
        np.array([0.5, -0.4]),
        np.full(2, 0.6),
    )
    return model, weights, sigma2


def conditional(
    weights: np.ndarray, sigma2: float, x: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of p(missing | observed) of a linear-Gaussian model."""
    c = weights @ weights.T + sigma2 * np.eye(len(weights))
    gain = np.linalg.solve(c[np.ix_(seen, seen)], c[np.ix_(seen, ~seen)]).T
    return gain @ x[seen], c[np.ix_(~seen, ~seen)] - gain @ c[np.ix_(seen, ~seen)]


@pytest.mark.usefixtures("float64")
def test_imputed_means_converge_to_the_conditional_expectation() -> None:
    model, weights, sigma2 = linear_gaussian()
    r = np.random.default_rng(1)
    x = r.normal(size=(60, 2)) @ weights.T + math.sqrt(sigma2) * r.normal(size=(60, 6))
    observed = r.random((60, 6)) < 0.6
    observed[0], observed[1] = False, True
    rows = replace(make_data(model.space, np.where(observed, x, 0.0)).test, observed=observed)
    exact = x.copy()
    for row, value, seen in zip(exact, x, observed, strict=True):
        row[~seen] = conditional(weights, sigma2, value, seen)[0] if seen.any() else 0.0

    def error(filled: np.ndarray) -> float:
        np.testing.assert_allclose(filled[observed], x[observed], rtol=1e-6)
        return float(np.sqrt(np.square(filled - exact)[~observed].mean()))

    many, one = error(latents.impute(model, rows, k=2000)), error(latents.impute(model, rows, k=1))
    with torch.no_grad():
        batch = next(rows.chunks(60))
        q_alone = error(
            np.where(observed, x, model.decode(model.posterior(batch).mean).mean[0].numpy())
        )
    assert many < 0.05
    assert one > 10 * many and q_alone > 5 * many


@pytest.mark.usefixtures("float64")
def test_imputed_draws_have_the_conditional_distribution() -> None:
    model, weights, sigma2 = linear_gaussian()
    n, seen = 4000, np.array([True, True, False, True, False, False])
    x = np.array([1.0, -0.5, 0.0, 0.8, 0.0, 0.0])
    rows = replace(make_data(model.space, np.tile(x, (n, 1))).test, observed=np.tile(seen, (n, 1)))
    drawn = latents.impute(model, rows, k=200, sample=True)
    np.testing.assert_allclose(drawn[:, seen], np.tile(x[seen], (n, 1)))
    mean, covariance = conditional(weights, sigma2, x, seen)
    assert (np.abs(drawn[:, ~seen].mean(0) - mean) < 5 * np.sqrt(np.diag(covariance) / n)).all()
    np.testing.assert_allclose(
        np.cov(drawn[:, ~seen].T), covariance, atol=0.1 * np.diag(covariance).max()
    )
    # z is uncertain too: noise about one decoded point would not do
    assert np.diag(covariance).min() > 1.3 * sigma2


# -- conditions ------------------------------------------------------------------------------------


def perturbed_conditional_model(latent: int, size: float = 0.6) -> tuple[vs.VAE, Tensor]:
    """Make a conditional model whose prior is far from the standard normal, and conditions of four
    rows."""
    model = small_model(
        latent=latent, prior="conditional", shape=(4,), network="mlp:width=16,activation=tanh"
    ).double()
    r = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in [*model.prior.parameters(), *model.likelihood.parameters()]:
            p.add_(size * torch.randn(p.shape, generator=r, dtype=p.dtype))
    given = GIVEN.features(
        torch.tensor([[0.5, 0.0], [-1.0, 2.0], [0.0, 1.0], [1.5, 2.0]]), None, torch.float64
    )
    return model, given


@pytest.mark.usefixtures("float64")
def test_rate_to_a_conditional_prior_in_closed_form_and_by_monte_carlo() -> None:
    model, given = perturbed_conditional_model(3, 0.2)
    batch = Batch(torch.from_numpy(make_values(model.space, 4)), None, given)
    with torch.no_grad():
        draws = model.draw(
            batch, 40_000, noise=model.noise(40_000, 4, torch.Generator().manual_seed(0))
        )
        q, p = model.posterior(batch), model.prior(model.posterior, given)
        rate = closed_form_kl(q, p)
        theirs = torch.distributions.kl_divergence(
            torch.distributions.Normal(q.mean, q.std), torch.distributions.Normal(p.mean, p.std)
        )
        torch.testing.assert_close(rate[0], theirs)
        torch.testing.assert_close(draws.rate, rate)
        sampled = draws.sampled().rate.squeeze(-1)
        assert ((sampled.mean(0) - draws.total_rate).abs() < 4.5 * sampled.std(0) / 200).all()
        standard = closed_form_kl(q, densities.StandardNormal(model.units, torch.zeros(())))
        # it is not the standard normal that is meant
        assert ((standard - rate).sum(-1).abs() > 0.1).all()
        assert p.mean.std(0).min() > 0.05 and p.std.std(0).min() > 0.02  # and each row has its own
        z = torch.stack(
            [
                model.prior.draw(model.posterior, given, 4, torch.Generator().manual_seed(i))
                for i in range(4000)
            ]
        )
        assert ((z.mean(0) - p.mean).abs() < 4.5 * p.std / math.sqrt(4000)).all()
        torch.testing.assert_close(z.std(0), p.std, rtol=0.06, atol=0)


@pytest.mark.usefixtures("float64")
def test_conditional_probabilities_sum_to_one_for_each_condition() -> None:
    model, given = perturbed_conditional_model(1)
    every = torch.cartesian_prod(*[torch.tensor([0, 1])] * 4).to(torch.uint8)
    grid = torch.linspace(-8, 8, 801)[:, None, None]
    exact = []
    for row in given:
        batch = Batch(every, None, row.expand(16, -1))
        with torch.no_grad():
            prior = model.prior(model.posterior, batch.given)
            log_px, log_pz = model.log_terms(batch, prior.mean + prior.std * grid)
            exact.append(
                torch.logsumexp(log_px + log_pz + prior.logvar[:, 0] / 2, 0) + math.log(16 / 800)
            )
            drawn = model.prior.draw(
                model.posterior, row.expand(40_000, -1), 40_000, torch.Generator().manual_seed(0)
            )
            p = model.log_terms(batch, drawn[:, None].expand(-1, 16, 1))[0].exp()
            log_w = model.draw(
                batch, 1000, noise=model.noise(1000, 16, torch.Generator().manual_seed(0))
            ).log_w
        assert float(exact[-1].exp().sum()) == pytest.approx(1, abs=1e-9)
        assert ((p.mean(0) - exact[-1].exp()).abs() < 4.5 * p.std(0) / 200).all()
        assert (log_w.mean(0) < exact[-1]).all()
    apart = torch.stack(exact).exp()
    assert float((apart[0] - apart[1]).abs().sum()) > 0.1


def test_a_conditional_model_learns_the_conditional_density() -> None:
    r = np.random.default_rng(0)
    n, weights, centres = 5000, r.normal(size=(5, 1)), 2 * r.normal(size=(3, 5))
    kinds = r.integers(0, 3, n)
    x = (centres[kinds] + r.normal(size=(n, 1)) @ weights.T + 0.4 * r.normal(size=(n, 5))).astype(
        np.float32
    )
    covariance = weights @ weights.T + 0.16 * np.eye(5)
    each = np.stack([log_normal(x[4000:] - centre, covariance) for centre in centres])
    exact, marginal = each[kinds[4000:], np.arange(1000)], np.logaddexp.reduce(each) - math.log(3)
    given = TableSpace.of([CategoryColumn("kind", "str", ("a", "b", "c"))])
    data = make_data(make_space(Kind.REAL, (5,)), x[:4000], x[4000:])
    codes = {"train": kinds[:4000], "valid": kinds[4000:], "test": kinds[4000:]}
    splits = {
        s: replace(getattr(data, s), given=c[:, None].astype(np.float32), given_space=given)
        for s, c in codes.items()
    }
    data = replace(data, **splits, given=given)
    torch.manual_seed(0)
    model = vs.build(data.space, latent=1, network="mlp:width=64", prior="conditional", given=given)
    train(model, data, steps=900)
    result = vs.evaluate(model, data.test, k=64)
    assert below(result["elbo"].nats, exact) < 0.3
    assert below(result["iwae"].nats, exact) < 0.25
    assert result["iwae"].nats.mean() > marginal.mean() + 0.5


def test_observed_channels_say_which_component_a_missing_one_comes_from() -> None:
    loc = torch.tensor([1.0, 13.0]).view(1, 1, 2, 1, 1, 1).expand(1, 1, 2, 3, 1, 1)
    px = densities.LogisticMixture(
        torch.zeros(1, 1, 2, 1, 1), loc, torch.full_like(loc, -1.0), None, 16, 3, True
    )
    value = torch.tensor([13.0, 13.0, 0.0]).view(1, 3, 1, 1)
    observed = torch.tensor([True, True, False]).view(1, 3, 1, 1)
    assert abs(float(px.point()[0, 2]) - 7) < 0.1
    conditioned = px.conditioned(value, observed)
    assert abs(float(conditioned.point()[0, 2]) - 13) < 0.1
    drawn = torch.stack(
        [conditioned.sample(torch.Generator().manual_seed(i))[0, 0, 2] for i in range(20)]
    )
    assert bool((drawn > 8).all())


# -- a new likelihood ------------------------------------------------------------------------------


class GeometricCounts(densities.Cells):
    """p(x) = p (1 - p)^x with logit(p) from the decoder."""

    def __init__(self, logits: Tensor, dims: int) -> None:
        self.logits, self.dims = logits, dims

    @property
    def mean(self) -> Tensor:
        return torch.exp(-self.logits)

    def cells(self, value: Tensor) -> Tensor:
        return F.logsigmoid(self.logits) + value * F.logsigmoid(-self.logits)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        u = torch.rand(self.logits.shape, generator=generator)
        return torch.floor(torch.log1p(-u) / F.logsigmoid(-self.logits))


class Geometric(Likelihood):
    """Represent counts by a geometric distribution on each cell."""

    accepts = frozenset({Kind.COUNT})

    def forward(self, z: Tensor, given: Tensor | None = None) -> GeometricCounts:
        return GeometricCounts(self.decode(z, given), self.dims)


def test_a_new_likelihood_is_a_class_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE["likelihood"], "geometric", Geometric)
    x = np.random.default_rng(0).geometric(0.3, (400, 3)) - 1.0
    data = make_data(make_space(Kind.COUNT, (3,)), x.astype(np.float32))
    model = vs.build(data.space, likelihood="geometric", latent=1, network="linear")
    before = float(model.draw(next(iter(data.train.chunks(64)))).log_px.mean().detach())
    list(vs.training(model, vs.Objective(), data, batch=64, steps=100, device="cpu"))
    batch = next(iter(data.train.chunks(64)))
    after = model.eval().draw(batch).log_px.mean().detach()
    assert float(after) > before
    assert model.sample(5).sample().shape == (1, 5, 3)
    assert model.likelihood.spread(batch.x, None) is batch.x and not model.likelihood.fitted_to_data
