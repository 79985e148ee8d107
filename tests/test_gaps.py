"""The gap taken apart: exact answers of a linear model, noise that is never both optimised and
reported, any model and family."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vaestro as vs
from tests.conftest import make_space, make_values
from tests.test_contracts import GIVEN, data_for, small_model
from tests.test_oracles import exact_pca_model, pca_data, pca_solution, rotation
from vaestro import densities, posteriors
from vaestro.data import Rows
from vaestro.evaluation import Estimate, Evaluation, gaps
from vaestro.evaluation.work import Job
from vaestro.spaces import Batch, Kind

APPROXIMATION = 0.459836535775
SHIFT = np.array([0.3, -0.2, 0.1, 0.0, 0.5])


def pca_rows(model: vs.VAE) -> Rows:
    return Rows(pca_data(), model.space, "test")


def exact() -> np.ndarray:
    """Return log p(x) of each datum of `pca_data` under probabilistic PCA."""
    x = pca_data()
    mean, weights, sigma2 = pca_solution(x)
    covariance = weights @ weights.T + sigma2 * np.eye(20)
    quadratic = np.einsum("ni,ni->n", x - mean, np.linalg.solve(covariance, (x - mean).T).T)
    return -0.5 * (20 * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1] + quadratic)


def precision(turn: np.ndarray | None = None) -> np.ndarray:
    _, weights, sigma2 = pca_solution(pca_data())
    weights = weights if turn is None else weights @ turn
    return (weights.T @ weights + sigma2 * np.eye(5)) / sigma2


def within(value: tuple[float, float], expected: float, slack: float = 0.0) -> bool:
    """Tell whether a mean is its expectation but for Monte Carlo error (4.5 standard errors), or
    short of it by the slack."""
    mean, error = value
    return -4.5 * error - slack < mean - expected < 4.5 * error


@pytest.mark.usefixtures("float64")
def test_the_search_finds_the_best_factorised_posterior() -> None:
    # Without Monte Carlo error: KL(q || posterior) in closed form, .4598 for the best q, whatever
    # x.
    model, batch = exact_pca_model(rotation(), shift=SHIFT, widen=1.7)
    batch = batch[:128]
    with torch.no_grad():
        start = model.features(batch)
    _, _, found = gaps.optimised(model.eval(), batch, start, 400, 4, 0.03, (0, "test", 0), 128)
    q = model.posterior.density(found)
    inner, ideal = precision(rotation()), exact_pca_model(rotation())[0]
    with torch.no_grad():
        off = (q.mean - ideal.posterior(batch).mean).numpy()
    variance = np.exp(q.logvar.numpy())
    quadratic = np.einsum("ni,ij,nj->n", off, inner, off)
    kl = 0.5 * (
        variance @ np.diag(inner)
        + quadratic
        - 5
        - np.linalg.slogdet(inner)[1]
        - np.log(variance).sum(1)
    )
    assert kl.min() > APPROXIMATION - 1e-9
    assert kl.mean() < APPROXIMATION + 0.005
    assert kl.max() < APPROXIMATION + 0.02


@pytest.mark.usefixtures("float64")
def test_approximation_gap_of_a_factorised_posterior() -> None:
    model, _ = exact_pca_model(rotation(), shift=SHIFT, widen=1.7)
    result = vs.evaluate(model, pca_rows(model), methods="iwae,gap:n=200,k=1000", k=1000, limit=300)
    gap = result.gap
    assert gap is not None
    assert gap.elbo.shape == gap.optimised.shape == (200,)
    # The search may fall short of the best q by the .005 nats of the test above.
    missing = exact()[:200] - gap.optimised
    assert within((-missing.mean(), missing.std() / math.sqrt(200)), -APPROXIMATION, 0.005)
    offset = 0.5 * SHIFT @ precision(rotation()) @ SHIFT + 2.5 * (1.7 - 1 - math.log(1.7))
    assert within(gap.amortization(), offset, 0.005)
    # IWAE from the q found is tighter than IWAE from the encoder's, which is off by 17 nats.
    assert gap.reference_how == "IWAE with 1,000 draws from the optimised q"
    assert gap.reference.mean() > result["iwae"].nats[:200].mean()
    approximation = gap.approximation()
    assert approximation is not None
    assert within(approximation, APPROXIMATION, 0.02)
    assert result.warnings == () or "effective draws" in result.warnings[0]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("off", ["shift", "widen"])
def test_amortization_gap_of_a_shift_and_a_scale(off: str) -> None:
    model, _ = exact_pca_model(**{off: SHIFT if off == "shift" else 1.7})
    gap = vs.evaluate(model, pca_rows(model), methods="gap:n=256").gap
    assert gap is not None
    expected = (
        0.5 * SHIFT @ precision() @ SHIFT if off == "shift" else 2.5 * (1.7 - 1 - math.log(1.7))
    )
    assert within(gap.amortization(), expected, 1e-3)
    assert gap.amortization()[1] < 0.02


@pytest.mark.usefixtures("float64")
def test_the_gap_is_zero_at_the_exact_posterior() -> None:
    model, _ = exact_pca_model()
    result = vs.evaluate(model, pca_rows(model), methods=["gap:n=128,steps=100"])
    gap = result.gap
    assert gap is not None
    assert np.abs(gap.optimised - gap.elbo).max() < 1e-3
    approximation = gap.approximation()
    assert approximation is not None
    assert within(approximation, 0.0, 0.0)
    assert result.warnings == result.estimates == ()


@pytest.mark.usefixtures("float64")
def test_what_is_optimised_is_never_what_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    # With the plain pathwise gradient, which follows whatever draws it is given.
    model = plain(exact_pca_model()[0])
    rows, log_px = pca_rows(model), exact()[:256]
    methods = "gap:n=256,draws=1,steps=200,k=1"

    def excess() -> tuple[float, float]:
        gap = vs.evaluate(model, rows, methods=methods).gap
        assert gap is not None
        over = gap.optimised - log_px
        return over.mean(), over.std() / math.sqrt(256)

    mean, error = excess()
    assert -0.5 < mean < 4.5 * error
    # The mistake: were the same draw reported on which q was optimised, the "bound" would lie above
    # log p(x).
    fixed = model.noise(1, 2000, torch.Generator().manual_seed(0))
    monkeypatch.setattr(
        model, "noise", lambda k, rows, generator=None: fixed[:, :rows].expand(k, -1, -1)
    )
    mean, error = excess()
    assert mean > 1 + 4.5 * error


@pytest.mark.usefixtures("float64")
def test_the_draws_that_choose_between_two_posteriors_are_not_those_that_report_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Two q's that are equally far off, on either side: choosing by the draw that is reported would
    # take the luckier one.
    model, _ = exact_pca_model(shift=SHIFT)
    away = torch.zeros(2, 5)
    away[0] = -2 * torch.from_numpy(SHIFT)

    def mirrored(
        model: vs.VAE, batch: Batch, start: Tensor, *_: object
    ) -> tuple[Tensor, Tensor, Tensor]:
        return start + away, start + away, start + away

    monkeypatch.setattr(gaps, "optimised", mirrored)
    monkeypatch.setattr(gaps, "JUDGING", 1)
    gap = vs.evaluate(model, pca_rows(model), methods="gap:n=1000,k=1").gap
    assert gap is not None
    assert 300 < gap.details["kept"] < 700
    mean, error = gap.amortization()
    assert abs(mean) < 4.5 * error


def test_the_model_stays_as_it_was() -> None:
    model = small_model().train()
    next(model.parameters()).requires_grad_(False)
    for p in list(model.parameters())[1:]:
        p.grad = torch.ones_like(p)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    vs.evaluate(model, data_for(model, 9).test, methods="gap:steps=5,k=10")
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [False, *[True] * (len(before) - 1)]
    assert all(bool((p.grad == 1).all()) for p in list(model.parameters())[1:])
    assert next(model.parameters()).grad is None
    assert all(module.training for module in model.modules())


@pytest.mark.usefixtures("float64")
def test_neither_a_limit_nor_a_repetition_changes_a_datums_digits() -> None:
    model = small_model(Kind.REAL)
    rows = data_for(model, 40).test
    # 1024 rows of two draws would be one piece; with 60 draws there are three.
    for methods in ("gap:steps=20,draws=2,k=30", "gap:steps=20,draws=60,k=30"):
        whole, again = (vs.evaluate(model, rows, methods=methods).gap for _ in range(2))
        limited = vs.evaluate(model, rows, methods=methods, limit=23).gap
        fewer = vs.evaluate(model, rows, methods=methods + ",n=23").gap
        other = vs.evaluate(model, rows, methods=methods, seed=1).gap
        assert (
            whole is not None
            and again is not None
            and limited is not None
            and fewer is not None
            and other is not None
        )
        assert (whole.optimised == again.optimised).all() and (whole.elbo == again.elbo).all()
        np.testing.assert_allclose(limited.optimised, whole.optimised[:23], atol=1e-9)
        assert (limited.optimised == fewer.optimised).all()
        assert (other.optimised != whole.optimised).any()


@pytest.mark.parametrize("method", ["gap:steps=20,draws=128,k=30", "information:draws=16"])
def test_an_interrupted_evaluation_goes_on_to_the_same_digits(method: str, tmp_path: Path) -> None:
    model = small_model()
    rows = data_for(model, 40).test
    whole = vs.evaluate(model, rows, methods=method)
    steps = vs.evaluation.evaluating(model, rows, methods=method, folder=tmp_path / "kept")
    for _, (share, _) in zip(range(3), steps, strict=False):
        assert share < 1
    steps.close()
    assert list((tmp_path / "kept").iterdir())
    resumed = list(vs.evaluation.evaluating(model, rows, methods=method, folder=tmp_path / "kept"))
    assert len(resumed) < 40 // 8
    again = resumed[-1][1]
    assert again is not None
    if whole.gap is not None and again.gap is not None:
        assert (whole.gap.optimised == again.gap.optimised).all()
    else:
        assert again.information is not None and whole.information is not None
        assert again.information.line() == whole.information.line()


PARTS = [
    (Kind.BINARY, {"network": "conv"}),
    (Kind.BINARY, {"network": "conv:width=8,factor=2", "shape": (1, 4, 4)}),
    (Kind.BINARY, {"given": GIVEN}),
    (Kind.BINARY, {"prior": "conditional"}),
    (Kind.REAL, {"missing": True}),
    (Kind.LEVELS, {"likelihood": "gaussian"}),
    (Kind.TABLE, {"missing": True, "given": GIVEN, "prior": "conditional"}),
]


@pytest.mark.parametrize(
    ("kind", "parts"), PARTS, ids=lambda p: p if isinstance(p, str) else "-".join(p)
)
def test_any_model_has_its_gap_taken_apart(kind: Kind, parts: dict) -> None:
    model = small_model(kind, **parts)
    gap = vs.evaluate(
        model, data_for(model, 7).test, methods="gap:steps=60,draws=2,k=200,lr=0.05"
    ).gap
    assert gap is not None and gap.reference is not None
    assert gap.elbo.shape == gap.optimised.shape == gap.reference.shape == (7,)
    # An untrained encoder is far from the best q.
    mean, error = gap.amortization()
    assert mean > 0.01
    json.dumps(gap.line(), allow_nan=False)
    assert f"amortization gap at least {mean:.2f} +- {error:.2f}" in gap.sentence("7 test data")


class Plain(densities.PosteriorDensity):
    """A density with nothing but what every family has."""

    scored_anywhere = False

    def __init__(self, q: densities.Normal) -> None:
        self._q = q

    @property
    def mean(self) -> Tensor:
        return self._q.mean

    def log_prob(self, value: Tensor) -> Tensor:
        return self._q.log_prob(value)

    def from_noise(self, noise: Tensor) -> Tensor:
        return self._q.from_noise(noise)

    def detach(self) -> "Plain":
        raise NotImplementedError("parameters that cannot be held")


class PlainPosterior(posteriors.Posterior):
    """A family of which nothing is known: no cells, no closed form, nothing that can be held."""

    @classmethod
    def outputs(cls, units: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *units)

    def density(self, features: Tensor) -> Plain:
        mean, logvar = features.unbind(1)
        return Plain(densities.Normal(mean, densities.soft_limit(logvar, 20.0), len(self.units)))


def plain(model: vs.VAE) -> vs.VAE:
    """Return the same model with a family of which nothing is known."""
    posterior = PlainPosterior(model.space, model.posterior.encoder, model.units)
    return vs.VAE(posterior, model.likelihood, model.prior, model.given).eval()


def test_any_family_will_do() -> None:
    model = small_model()
    rows = data_for(model, 30).test
    known, unknown = (
        vs.evaluate(m, rows, methods="gap:steps=300,draws=8,lr=0.05").gap
        for m in (model, plain(model))
    )
    assert known is not None and unknown is not None
    # The same best q, found with a noisier gradient, and without the closed form of the rate.
    np.testing.assert_allclose(known.optimised.mean(), unknown.optimised.mean(), atol=0.05)
    assert unknown.amortization()[0] > 0.1


def test_a_search_that_has_not_come_to_rest_is_told() -> None:
    torch.manual_seed(0)
    space = make_space(Kind.BINARY)
    model = vs.build(space, latent=2, network="mlp:width=8")
    with torch.no_grad():
        model.posterior.encoder.last.bias[:2].fill_(3.0)
    rows = Rows(make_values(space, 200), space, "test")
    slow = vs.evaluate(model, rows, methods="gap:steps=40,lr=0.005,k=50")
    assert slow.gap is not None and slow.gap.details["rise"] > gaps.VISIBLE
    assert any("q has not converged" in warning for warning in slow.warnings)
    long = vs.evaluate(model, rows, methods="gap:steps=800,lr=0.03,k=50")
    assert long.gap is not None and abs(long.gap.details["rise"]) < gaps.VISIBLE
    assert long.warnings == ()
    assert long.gap.amortization()[0] > slow.gap.amortization()[0] + 0.1


def test_few_data_do_not_show_that_a_search_has_come_to_rest() -> None:
    torch.manual_seed(0)
    space = make_space(Kind.BINARY)
    model = vs.build(space, latent=2, network="mlp:width=8")
    rows = Rows(make_values(space, 200), space, "test")
    one = vs.evaluate(model, rows.take(1), methods="gap:steps=40,lr=0.01,k=50")
    assert any(
        "one datum is too few to tell whether the optimisation" in warning
        for warning in one.warnings
    )
    # Two data whose rises differ: no significant rise, and no small one either.
    job = Job(model, rows.take(2), 1, 0, torch.device("cpu"))
    for rises, words in (
        ([0.5, -0.4], "too few to tell"),
        ([0.5, 0.52], "has not converged"),
        ([0.001, -0.001], ""),
    ):
        table = np.array([[-5.0, -5.2], [-4.9, -5.1], [-4.8, -5.0], rises, [0.0, 0.0]])
        warnings = (
            gaps.Gaps(job, 2, 40, 4, 0.01, 50).finish(table, Evaluation((), 0.0, 0.0)).warnings
        )
        assert len(warnings) == bool(words), rises
        assert all(words in warning for warning in warnings), rises


def test_a_search_that_fails_keeps_the_encoders_posterior() -> None:
    model = small_model()
    result = vs.evaluate(model, data_for(model, 12).test, methods="gap:steps=4,lr=1e30,k=20")
    gap = result.gap
    assert gap is not None and gap.details["kept"] == 12
    assert (gap.optimised == gap.elbo).all()
    assert "for 12 data the encoder's q was the best" in gap.notes()[1]
    assert "diverged for 12 data" in result.warnings[0]
    json.dumps(gap.line(), allow_nan=False)


def test_the_reference_is_the_tightest_bound_on_the_data_that_all_cover() -> None:
    model = small_model()
    rows = data_for(model, 6).test
    (work,) = gaps.searching(Job(model, rows, 50, 0, torch.device("cpu")), k=20)
    table = np.stack(
        [np.full(6, -10.0), np.full(6, -9.0), np.full(6, -8.0), np.zeros(6), np.zeros(6)]
    )

    def estimate(
        method: str, nats: list[float], k: int = 50, side: str = "lower", on: str = "data"
    ) -> Estimate:
        return Estimate(
            method, np.array(nats), side, "counting", k, f"{method.upper()} at {k}", 6, on=on
        )

    def finished(*estimates: Estimate) -> vs.evaluation.Gap:
        gap = work.finish(table, Evaluation(estimates, 0.0, 0.0)).gap
        assert gap is not None
        return gap

    assert finished().reference_how == "IWAE with 20 draws from the optimised q"
    # An ELBO, IWAE with one draw, an upper bound and bounds on other data are no references.
    others = [
        estimate("elbo", [-1.0] * 6),
        estimate("iwae", [-1.0] * 6, k=1),
        estimate("ais", [-1.0] * 6, side="upper"),
    ]
    assert (
        finished(*others, estimate("ais", [-1.0] * 6, on="simulated data")).reference_how
        == "IWAE with 20 draws from the optimised q"
    )
    gap = finished(estimate("iwae", [-7.0] * 6), estimate("ais", [-6.5, -6.7], k=16))
    assert gap.reference_how == "AIS at 16"
    assert gap.approximation() == (pytest.approx(2.4), pytest.approx(0.1))
    assert gap.amortization() == (1.0, 0.0)
    assert "relative to AIS at 16 on 2 of them" in gap.notes()[0]
    assert gap.line()["reference_n"] == 2
    # Tighter on all six, but not on the two that both cover.
    assert (
        finished(
            estimate("iwae", [-7.0, -7.0, *[-2.0] * 4]), estimate("ais", [-6.5, -6.7])
        ).reference_how
        == "AIS at 50"
    )


def test_one_reported_draw_leaves_no_reference() -> None:
    model = small_model()
    gap = vs.evaluate(model, data_for(model, 6).test, methods="gap:steps=5,k=1").gap
    assert gap is not None and gap.reference is None and gap.approximation() is None
    assert "no tighter bound" in gap.notes()[0]
    assert "approximation" not in gap.sentence("6 test data")
    assert gap.line()["approximation"] is None


@pytest.mark.parametrize(
    "options", ["n=0", "steps=0", "draws=0", "k=0", "lr=0", "lr=inf", "lr=nan"]
)
def test_options_out_of_range_are_refused(options: str) -> None:
    model = small_model()
    with pytest.raises(ValueError, match="expected n, steps, draws and k of 1 or more"):
        vs.evaluate(model, data_for(model, 6).test, methods=f"gap:{options}")
