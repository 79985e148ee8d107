"""Contracts over every row of the table of parts: a new row is tested without a test being
edited."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.conftest import make_data, make_space, make_values
from vaestro import densities, gradients
from vaestro.densities import closed_form_kl
from vaestro.parts import TABLE, find
from vaestro.signatures import entry_of, options_of
from vaestro.spaces import SPACES, Batch, CategoryColumn, Kind, RealColumn, Space, TableSpace

KINDS = tuple(SPACES)
LIKELIHOOD_OPTIONS = {
    "gaussian": [
        "",
        ":variance=0.5",
        ":variance=shared",
        ":variance=optimal-cell",
        ":variance=optimal-shared",
        ":variance=pixel",
        ":version=1",
    ],
    "laplace": ["", ":scale=0.5", ":scale=shared", ":scale=pixel"],
    "discretized-logistic": ["", ":scale=shared", ":means=squares"],
    "negative-binomial": ["", ":dispersion=cell"],
    "zero-inflated": ["", ":counts=poisson"],
    "table": [
        "",
        ":scale=cell",
        ":real=student-t,count=poisson",
        ":real=laplace,scale=cell,count=poisson",
    ],
}
LIKELIHOODS = [
    (f"{name}{options}", kind)
    for name, constructor in TABLE["likelihood"].items()
    for options in LIKELIHOOD_OPTIONS.get(name, [""])
    for kind in sorted(constructor.accepts)
]
# networks that are made for data of a kind
OF_KIND = {"gru": Kind.TOKENS, "transformer": Kind.TOKENS, "conv1d": Kind.REAL}
OTHERS = [(kind, name) for kind in ("posterior", "prior", "network") for name in TABLE[kind]]
SMALL = {
    "residual": "residual:width=8,blocks=1",
    "mlp": "mlp:width=8",
    "conv": "conv:width=8,blocks=1",
    "conv3d": "conv3d:width=8",
    "conv1d": "conv1d:width=4",
    "former-conv": "former-conv:width=8",
    "former-conv3d": "former-conv3d:width=8",
    "gru": "gru:width=8",
    "transformer": "transformer:width=8,layers=1,heads=2",
}
# what a network is made for, where it is not made for vectors
SHAPES = {"conv": (1, 8, 8), "conv3d": (1, 8, 8, 8), "conv1d": (20, 2)}
SHAPES |= {f"former-{name}": SHAPES[name] for name in ("conv", "conv3d")}
GIVEN = TableSpace.of(
    [CategoryColumn("kind", "str", ("a", "b", "c")), RealColumn("amount", "float64")]
)


def small_model(
    kind: Kind = Kind.BINARY,
    latent: int = 3,
    shape: tuple[int, ...] = (6,),
    missing: bool = False,
    given: Space | None = None,
    **parts: str,
) -> vs.VAE:
    torch.manual_seed(0)
    kind = OF_KIND.get(parts.get("network", ""), kind)
    parts = {
        "network": "gru"
        if parts.get("likelihood") == "autoregressive" or (kind is Kind.TOKENS and not parts)
        else "mlp"
    } | parts
    shape = SHAPES.get(parts["network"], shape)
    parts["network"] = SMALL.get(parts["network"], parts["network"])
    if parts.get("prior") == "conditional":
        given = GIVEN
    if "posterior" not in parts and TABLE["prior"][parts.get("prior", "normal")].discrete:  # type: ignore[attr-defined]
        parts["posterior"] = "bernoulli" if parts["prior"] == "bernoulli" else "categorical:codes=3"
    return vs.build(make_space(kind, shape, missing=missing), latent=latent, given=given, **parts)


def batch_for(model: vs.VAE, rows: int = 5) -> Batch:
    """Make a batch; where cells may be missing, some are, and where there are conditions, they are
    given."""
    r = np.random.default_rng(1)
    observed = (
        torch.from_numpy(r.random((rows, *model.space.shape)) < 0.7)
        if model.space.missing
        else None
    )
    given = (
        torch.from_numpy(r.normal(size=(rows, *model.given.feature_shape)).astype(np.float32))
        if model.given
        else None
    )
    return Batch(torch.from_numpy(make_values(model.space, rows)), observed, given)


def data_for(model: vs.VAE, rows: int) -> vs.Data:
    data = make_data(model.space, make_values(model.space, rows))
    r = np.random.default_rng(1)
    more: dict[str, Any] = {}
    if model.space.missing:
        more["observed"] = r.random((rows, *model.space.shape)) < 0.7
    if model.given:
        more |= {
            "given": np.stack([r.normal(size=rows), r.integers(0, 3, rows)], 1).astype(np.float32),
            "given_space": model.given,
        }
    splits = {s: replace(getattr(data, s), **more) for s in ("train", "valid", "test")}
    return replace(data, **splits, given=model.given)


MODELS: list[tuple[Kind, dict[str, Any]]] = (
    [(kind, {"likelihood": name}) for name, kind in LIKELIHOODS]
    + [(Kind.BINARY, {kind: name}) for kind, name in OTHERS]
    + [(Kind.BINARY, {"network": name, "given": GIVEN}) for name in TABLE["network"]]
    + [(kind, {"missing": True}) for kind in KINDS if kind is not Kind.TOKENS]
    + [
        (Kind.LEVELS, {"likelihood": f"logistic-mixture{o}", "shape": (3, 2, 2)})
        for o in ("", ":channels=independent")
    ]
    + [
        (
            Kind.LEVELS,
            {
                "likelihood": "logistic-mixture:channels=independent",
                "shape": (3, 2, 2),
                "missing": True,
            },
        )
    ]
    + [(Kind.TABLE, {"missing": True, "given": GIVEN, "prior": "conditional"})]
    + [(Kind.BINARY, {"prior": name, "given": GIVEN}) for name in TABLE["prior"]]
    + [
        (Kind.COUNT, {"likelihood": f"{name}:library=amount", "given": GIVEN})
        for name in ("poisson", "negative-binomial", "zero-inflated")
    ]
)


@pytest.fixture(
    params=MODELS,
    ids=lambda m: f"{m[0]}-{'-'.join(v if isinstance(v, str) else k for k, v in m[1].items())}",
)
def model(request: pytest.FixtureRequest) -> vs.VAE:
    kind, parts = request.param
    return small_model(kind, **parts)


@pytest.mark.parametrize(("k", "rows"), [(1, 1), (1, 5), (3, 1), (4, 5)])
def test_shapes(model: vs.VAE, k: int, rows: int) -> None:
    draws = model.draw(batch_for(model, rows), k)
    assert draws.z.shape == (k, rows, *model.units)
    for terms in (draws.log_px, draws.log_pz, draws.log_qz, draws.log_w):
        assert terms.shape == (k, rows)
        assert torch.isfinite(terms).all()
    assert draws.rate.shape[0] in (1, k)
    assert draws.rate.shape[1] == rows
    assert draws.total_rate.shape == draws.distortion.shape == (rows,)
    for bound in (vs.elbo(draws), vs.iwae(draws)):
        assert bound.shape == (rows,)
    torch.testing.assert_close(vs.elbo(draws), -(draws.total_rate + draws.distortion))


def test_a_batch_is_scored_row_by_row(model: vs.VAE) -> None:
    model.eval()
    batch = batch_for(model, 4)
    noise = model.noise(2, 4)
    together = model.draw(batch, 2, noise=noise).log_w
    alone = torch.cat(
        [model.draw(batch[i : i + 1], 2, noise=noise[:, i : i + 1]).log_w for i in range(4)], 1
    )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_the_same_noise_gives_the_same_latents_and_gradients(model: vs.VAE) -> None:
    batch, noise = batch_for(model), model.noise(2, 5)

    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        draws = model.draw(batch, 2, noise=noise)
        parameters = [p for p in model.parameters() if p.requires_grad]
        return draws.z.detach(), list(
            torch.autograd.grad(-vs.elbo(draws).mean(), parameters, materialize_grads=True)
        )

    state = torch.random.get_rng_state()
    first, second = run(), run()
    assert torch.equal(state, torch.random.get_rng_state()), (
        "draw() must not touch the global generator when noise is given"
    )
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


def objective_for(model: vs.VAE, **options: Any) -> vs.Objective:
    """Make an ELBO with the gradient estimator that the model's latents get by default."""
    return vs.Objective(gradient=gradients.GumbelSoftmax() if model.alphabet else None, **options)


def test_gradient_reaches_every_parameter(model: vs.VAE) -> None:
    # Mistake 12: a log-variance that no optimiser was given.
    data = data_for(model, 40)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    training = vs.training(model, objective_for(model), data, steps=3, batch=20, device="cpu")
    for step in training:
        if step.last:  # when the iterator ends, the model holds the kept weights
            raw = {
                name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad
            }
    assert [name for name, p in raw.items() if torch.equal(p, before[name])] == []


def steps(model: vs.VAE, objective: vs.Objective, how: str) -> list[torch.Tensor]:
    """Return losses and weights over three steps."""
    torch.manual_seed(0)
    found: list[torch.Tensor] = []
    training = vs.training(
        deepcopy(model),
        deepcopy(objective),
        data_for(model, 40),
        steps=3,
        batch=20,
        device="cpu",
        compile=how,
    )
    for step in training:
        found += (
            []
            if step.loss is None
            else [*step.loss.flat(), *(t.clone() for t in training.core.state_dict().values())]
        )
    assert training.compile == how
    return found


def assert_compiled(
    model: vs.VAE, objective: vs.Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One graph of a whole step computes what eager steps do; here without a C++ compiler."""
    monkeypatch.setattr("vaestro.loop.compiling.BACKEND", "aot_eager")
    monkeypatch.setattr("shutil.which", lambda name: name)
    parts = (model.posterior, model.prior, model.likelihood)
    if (
        objective.outside_graph
        or not all(p.in_graph for p in parts)
        or model.space.kind is Kind.TOKENS
    ):
        with pytest.raises(ValueError, match="parts that can be compiled"):
            steps(model, objective, "on")
        return
    for plain, compiled in zip(
        steps(model, objective, "off"), steps(model, objective, "on"), strict=True
    ):
        torch.testing.assert_close(plain, compiled, rtol=1e-3, atol=1e-4, equal_nan=True)


# A compilation takes some seconds: one model for each mechanism.
COMPILED: list[tuple[Kind, dict[str, Any]]] = [
    (Kind.REAL, {"likelihood": "gaussian:variance=optimal"}),
    (Kind.BINARY, {"missing": True}),
    (Kind.BINARY, {"given": GIVEN}),
    (Kind.BINARY, {"prior": "vamp"}),
    (Kind.BINARY, {"posterior": "categorical:codes=3"}),
    (Kind.BINARY, {"network": "conv"}),
    (Kind.TOKENS, {}),
]


@pytest.mark.parametrize(
    ("kind", "parts"), COMPILED, ids=lambda p: "-".join(p) if isinstance(p, dict) else p.name
)
def test_a_compiled_step_is_the_same(
    kind: Kind, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model(kind, **parts)
    assert_compiled(model, objective_for(model), monkeypatch)


OBJECTIVES: dict[str, Callable[[], vs.Objective]] = (
    {
        f"{name}-{bound}": lambda name=name, bound=bound: vs.Objective(
            bound, k=2, gradient=find("gradient", name)()
        )
        for name in TABLE["gradient"]
        for bound in ("elbo", "iwae")
        if (name, bound)
        not in [
            ("stl", "iwae"),
            ("dreg", "elbo"),
            ("gumbel-softmax", "iwae"),
            ("straight-through", "iwae"),
        ]
    }
    | {
        f"score-{baseline}": lambda baseline=baseline: vs.Objective(
            gradient=gradients.Score(baseline=baseline)
        )
        for baseline in ("none", "average", "learned")
    }
    | {
        name: lambda name=name: vs.Objective(penalties=[find("penalty", name)()])
        for name in TABLE["penalty"]
    }
    | {name: lambda name=name: find("objective", name)() for name in TABLE["objective"]}
    | {
        name: lambda name=name: vs.Objective(
            beta=find("schedule", name)(**{"geco": {"target": 3.0}}.get(name, {}))
        )
        for name in TABLE["schedule"]
    }
)


@pytest.mark.parametrize(
    "name", ["dreg-iwae", "stl-elbo", "score-average", "score-learned", "dip", "mmd", "geco"]
)
def test_an_objectives_compiled_step_is_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = OBJECTIVES[name]()
    assert_compiled(
        small_model(**{"posterior": "categorical:codes=3"} if objective.gradient.relaxed else {}),
        objective,
        monkeypatch,
    )


def test_saved_equals_loaded(model: vs.VAE, tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_file

    save_file(model.state_dict(), tmp_path / "m.safetensors")
    torch.manual_seed(1)
    other = type(model)(model.posterior, model.likelihood, model.prior, model.given)
    state = load_file(tmp_path / "m.safetensors")
    other.load_state_dict(state)
    batch, noise = batch_for(model), model.noise(2, 5)
    assert torch.equal(
        model.draw(batch, 2, noise=noise).log_w, other.draw(batch, 2, noise=noise).log_w
    )


def test_closed_form_rate_equals_monte_carlo(model: vs.VAE) -> None:
    draws = model.draw(batch_for(model), 5_000)
    if closed_form_kl(draws.q, draws.p) is None:
        pytest.skip("no closed form: the rate is the sampled one")
    sampled = draws.sampled().rate.squeeze(-1)
    error = sampled.std(0) / 5_000**0.5
    assert ((sampled.mean(0) - draws.total_rate).abs() < 4.5 * error + 1e-4).all()


def frequencies(density: Any, drawn: torch.Tensor, levels: int) -> None:
    """Hold probabilities of codes to how often they are drawn, (4000, 1, B, *X), and to a sum of
    one."""
    codes = (
        torch.arange(levels).reshape(-1, *[1] * (drawn.ndim - 1)).expand(levels, *drawn.shape[1:])
    )
    probabilities = torch.stack([torch.exp(density.cells(code)) for code in codes])
    torch.testing.assert_close(probabilities.sum(0), torch.ones_like(probabilities[0]))
    found = torch.nn.functional.one_hot(drawn.long(), levels).float().mean(0).movedim(-1, 0)
    torch.testing.assert_close(found, probabilities, atol=0.04, rtol=0)


def moments(density: Any, drawn: torch.Tensor) -> None:
    error = drawn.float().std(0) / 4000**0.5
    assert ((drawn.float().mean(0) - density.mean).abs() < 5 * error + 1e-6).all()


def test_sample_moments_match_the_mean_and_scores_prefer_own_samples(model: vs.VAE) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, *model.units, generator=generator)
    batch = batch_for(model, 1)
    model.eval()
    with torch.no_grad():
        px = model.decode(z, batch.given)
        many = model.decode(
            z.expand(4000, *model.units),
            None if batch.given is None else batch.given.expand(4000, -1),
        )
        drawn = many.sample(generator)[0].unsqueeze(1).unsqueeze(1)  # (4000, 1, 1, *X)
    scores = px.log_prob(drawn[:, 0, 0])
    assert torch.isfinite(scores).all()
    if isinstance(px, densities.Product):
        for (_, part), values in zip(
            px.parts, drawn.split([n for n, _ in px.parts], -1), strict=True
        ):
            if isinstance(part, densities.Categorical):
                frequencies(part, values, part.logits.shape[-2])
            else:
                moments(part, values)
    elif model.space.kind is Kind.TOKENS:
        sentences, counts = drawn[:, 0, 0].unique(dim=0, return_counts=True)
        p = px.log_prob(sentences[:, None, None]).exp().flatten()
        assert (
            (counts / 4000 - p).abs() < 5 * (p / 4000).sqrt() + 1e-3
        ).all() and p.sum() < 1 + 1e-5
    elif isinstance(px, (densities.Categorical, densities.DiscretizedLogistic)):
        frequencies(px, drawn, model.space.levels)
    elif isinstance(px, densities.LogisticMixture):
        # The mean is that of the logistics before they are rounded.
        assert ((drawn.mean(0) - px.mean).abs() < 0.5 + 5 * drawn.std(0) / 4000**0.5).all()
    else:
        moments(px, drawn)


def test_a_likelihood_used_alone_scores_as_the_model_records(model: vs.VAE) -> None:
    model.eval()
    batch = batch_for(model, 3)
    noise = model.noise(2, 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        draws = model.draw(batch, 2, noise=noise)
        x = model.likelihood.spread(batch.x, model.parts(noise)[1])
        px = model.likelihood(draws.z, batch.given)
        alone = px.log_prob(x, batch.observed)
        every = x.expand(2, 3, *x.shape[-batch.x.ndim + 1 :])  # one x for each draw, (K, B, *X)
        own = px.log_prob(
            every, None if batch.observed is None else batch.observed.expand_as(every)
        )
    log_dets = torch.zeros(()) if model.scoring.log_dets is None else model.scoring.log_dets
    kept = torch.ones(()) if batch.observed is None else batch.observed.float()
    constants = (log_dets * kept).expand_as(batch.x).flatten(1).sum(1)
    torch.testing.assert_close(alone + constants, draws.log_px)
    torch.testing.assert_close(own, alone)


def test_log_prob_sums_over_what_was_observed(model: vs.VAE) -> None:
    batch = batch_for(model, 3)
    px = model.likelihood(torch.randn(2, 3, *model.units), batch.given)
    mask = torch.rand(3, *model.space.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    if (
        isinstance(px, densities.LogisticMixture) and px.coefficients is not None
    ) or model.space.kind is Kind.TOKENS:
        with pytest.raises(ValueError, match="expected every cell observed"):
            px.log_prob(batch.x, mask)
        return
    seen, unseen, all_of_it = (
        px.log_prob(batch.x, m) for m in (mask, ~mask, torch.ones_like(mask))
    )
    torch.testing.assert_close(all_of_it, px.log_prob(batch.x), rtol=1e-4, atol=1e-4)
    # there, cells of a pixel depend on each other
    if not isinstance(px, densities.LogisticMixture):
        torch.testing.assert_close(seen + unseen, px.log_prob(batch.x), rtol=1e-4, atol=1e-4)
    changed = torch.where(
        mask, batch.x, 1 - batch.x if model.space.kind is Kind.BINARY else torch.zeros_like(batch.x)
    )
    torch.testing.assert_close(px.log_prob(changed, mask), seen)


def test_what_is_not_observed_does_not_matter(model: vs.VAE) -> None:
    if not model.space.missing:
        pytest.skip("made for complete data")
    batch, noise = batch_for(model), model.noise(2, 5)
    other = torch.from_numpy(make_values(model.space, 5, seed=9))
    changed = replace(batch, x=torch.where(batch.observed, batch.x, other))
    model.eval()
    torch.testing.assert_close(
        model.draw(batch, 2, noise=noise).log_w, model.draw(changed, 2, noise=noise).log_w
    )


def test_conditions_reach_both_sides() -> None:
    for name in TABLE["network"]:
        model = small_model(network=name, given=GIVEN)
        batch, noise = batch_for(model), model.noise(1, 5)
        other = replace(batch, given=batch.given + 1)
        assert not torch.allclose(model.posterior(batch).mean, model.posterior(other).mean)
        z = model.draw(batch, noise=noise).z
        assert not torch.allclose(model.log_terms(batch, z)[0], model.log_terms(other, z)[0])


def test_a_decoder_starts_at_the_mean_of_the_data() -> None:
    for source, name in (
        (np.array([[0, 1, 1, 0]] * 9 + [[1, 1, 1, 0]] * 11, np.uint8), "bernoulli"),
        (None, "gaussian"),
    ):
        values = np.random.default_rng(0).normal(3, 2, (40, 4)) if source is None else source
        data = vs.load(values)
        model = vs.build(data.space, latent=2, likelihood=name)
        with torch.no_grad():
            for p in model.likelihood.decoder.last.parameters():
                if p.ndim > 1:
                    p.zero_()
        mean = data.space.outward(
            model.decode(torch.zeros(1, 2)).mean[0].detach().numpy(), exact=False
        )[0]
        np.testing.assert_allclose(
            mean,
            np.clip(data.train.outward().mean(0), 1e-3 if source is not None else None, None),
            atol=2e-3,
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TABLE["likelihood"])
def test_likelihoods_refuse_what_they_are_not_true_for(name: str, kind: Kind) -> None:
    if kind in TABLE["likelihood"][name].accepts:  # type: ignore[attr-defined]
        small_model(kind, likelihood=name)
    else:
        with pytest.raises(ValueError, match=r"expected .* data .*; got"):
            small_model(kind, likelihood=name)


@pytest.mark.parametrize("name", TABLE["objective"])
def test_objectives_report_the_unweighted_bound(name: str) -> None:
    # Mistakes 1, 3 and 4: what is optimised is not what is reported.
    model, batch = small_model(), batch_for(small_model(), 6)
    make: Callable[..., vs.Objective] = TABLE["objective"][name]
    for k in (1, 4):
        noise = model.noise(make(k=k).k, 6)
        plain = make(k=k)(model, batch, torch.tensor(0.0), noise)
        weighted = make(k=k)
        weighted.beta = vs.objectives.Schedule(3.0)
        heavy = weighted(model, batch, torch.tensor(0.0), noise)
        for a, b in (
            (plain.bound, heavy.bound),
            (plain.rate, heavy.rate),
            (plain.distortion, heavy.distortion),
            (plain.bound, -plain.loss),
        ):
            assert float(a) == pytest.approx(float(b), abs=1e-4)
        assert float(heavy.loss) != pytest.approx(float(plain.loss))
        if name == "elbo":
            assert float(heavy.loss) == pytest.approx(
                float(plain.distortion + 3 * plain.rate), abs=1e-3
            )
            assert float(plain.bound) == pytest.approx(
                -float(plain.rate + plain.distortion), abs=1e-4
            )


def take_step(
    optimizer: Any, way: str, grads: list[torch.Tensor], lr: float, divisor: float, skip: float
) -> None:
    if way == "eager":
        optimizer.step(grads, lr, torch.tensor(divisor), torch.tensor(skip))
    else:
        optimizer.step_in_graph(
            grads, optimizer.constants(lr), torch.tensor(divisor), torch.tensor(skip)
        )


@pytest.mark.parametrize("way", ["eager", "graph"])
@pytest.mark.parametrize("name", TABLE["optimizer"])
def test_optimisers_reach_a_minimum_and_skip_when_told(name: str, way: str) -> None:
    target = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    p = torch.zeros(2, 2)
    optimizer = TABLE["optimizer"][name]([p], weight_decay=0.0)
    for i in range(600):
        take_step(optimizer, way, [2 * (p - target)], 0.05 * (1 - i / 600), 2.0, 0.0)
    torch.testing.assert_close(p, target, atol=0.02, rtol=0)
    before = [p.clone(), *(t.clone() for t in optimizer.state().values())]
    take_step(optimizer, way, [torch.full_like(p, float("nan"))], 0.05, float("nan"), 1.0)
    assert all(
        torch.equal(a, b) for a, b in zip(before, [p, *optimizer.state().values()], strict=True)
    )


@pytest.mark.parametrize("name", TABLE["optimizer"])
@pytest.mark.parametrize("way", ["eager", "graph"])
def test_a_gradient_counts_however_it_lies_in_memory(name: str, way: str) -> None:
    gradient = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    steps = []
    for lying in (
        gradient,
        gradient.contiguous(memory_format=torch.channels_last),
        gradient.mT.contiguous().mT,
    ):
        p = torch.zeros(4, 3, 2, 2)
        optimizer = find("optimizer", name)([p])
        for scale in (1.0, 3.0):
            take_step(optimizer, way, [scale * lying], 0.01, 1.0, 0.0)
        steps.append(p)
    assert (
        torch.equal(steps[0], steps[1])
        and torch.equal(steps[0], steps[2])
        and steps[0].abs().min() > 0
    )


@pytest.mark.parametrize("way", ["eager", "graph"])
def test_adamw_equals_torchs(way: str) -> None:
    start = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    mine, theirs = start.clone(), start.clone().requires_grad_()
    ours = vs.optimizers.AdamW([mine], weight_decay=0.1)
    torchs = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1)
    for i in range(20):
        gradient = torch.sin(torch.arange(12.0).reshape(3, 4) + i)
        take_step(ours, way, [3 * gradient], 0.01, 3.0, 0.0)
        theirs.grad = gradient.clone()
        torchs.step()
    torch.testing.assert_close(mine, theirs.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TABLE["schedule"])
def test_schedules_are_planned_and_end_at_their_value(name: str) -> None:
    schedule = find("schedule", name)(**{"geco": {"target": 1.0}}.get(name, {}))
    schedule.plan(1000, 100.0)
    assert float(schedule(torch.tensor(1000.0))) == 1.0
    assert 0 <= float(schedule(torch.tensor(0.0))) <= 1


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    # Mistake 16.
    for schedule in (vs.Ramp(0, 1, steps=1001), vs.Ramp(0, 1, epochs=11), vs.Ramp(0, 1, share=1.1)):
        with pytest.raises(ValueError, match="expected a warm-up within the run"):
            schedule.plan(1000, 100.0)
    ramp = vs.Ramp(0.5, 2, epochs=5)
    ramp.plan(1000, 100.0)
    assert [float(ramp(torch.tensor(float(s)))) for s in (0, 250, 500, 900)] == [
        0.5,
        1.25,
        2.0,
        2.0,
    ]


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, table in TABLE.items() for n in table])
def test_rows_are_documented_and_reached_by_name(kind: str, name: str) -> None:
    part = find(kind, name)
    assert part.constructor is TABLE[kind][name]
    summary = entry_of(name, TABLE[kind][name])["summary"]
    assert len(summary) > 20
    for option, (hint, default) in options_of(part.constructor).items():
        assert hint is not inspect.Parameter.empty
        if default is not None:
            assert find(kind, f"{name}:{option}={default}").options[option] == default


def test_a_users_own_class_by_module_and_name(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_parts.py").write_text(
        "import math\n"
        "from torch import nn\n"
        "class Wide(nn.Module):\n"
        "    def __init__(self, inputs, outputs, given=0, *, width: int = 20):\n"
        "        super().__init__()\n"
        "        self.outputs = outputs\n"
        "        layers = nn.Linear(math.prod(inputs), width), nn.Tanh(), nn.Linear(width, "
        "math.prod(outputs))\n"
        "        self.net = nn.Sequential(nn.Flatten(), *layers)\n"
        "    def forward(self, x):\n"
        "        return self.net(x).unflatten(-1, self.outputs)\n"
        "class Wrong(Wide):\n"
        "    def forward(self, x):\n"
        "        return self.net(x)[:, :1]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = small_model(network="my_parts:Wide:width=30")
    assert model.draw(batch_for(model), 2).log_w.shape == (2, 5)
    assert str(find("network", "my_parts:Wide:width=30")) == "my_parts:Wide:width=30"
    one_side = small_model(encoder="my_parts:Wide")
    assert (
        type(one_side.posterior.encoder).__name__ == "Wide"
        and type(one_side.likelihood.decoder).__name__ == "MLP"
    )
    for wrong in (
        {"encoder": "my_parts:Wrong"},
        {"decoder": "my_parts:Wrong"},
        {"encoder": "my_parts:Wide", "given": GIVEN},
    ):
        with pytest.raises(ValueError, match=r"expected my_parts:W.* to t"):
            small_model(**wrong)
