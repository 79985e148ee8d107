"""Diffusion models of latents: the process and its bound against exact densities, samplers against
a known distribution, training that continues to the bit, and samples of every kind of data."""

import json

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro.cli import main
from vaestro.diffusion import (
    Ddim,
    Ddpm,
    DenseDenoiser,
    Diffusion,
    DpmSolver,
    Euler,
    GridDenoiser,
    Process,
)
from vaestro.latent import encoding

MEAN, STD = torch.tensor([3.0, -1.0]), torch.tensor([0.5, 2.0])
SMALL = {"denoiser": "dense:width=16,blocks=1", "batch": 16}


def best(process, mean=MEAN, std=STD):
    """Return the best prediction for latents of N(mean, std^2): E[z | z_t] is known."""

    def denoise(z_t, t):
        a, s = process.scales(t, z_t)
        z = mean + std**2 * a * (z_t - a * mean) / (std**2 * a**2 + s**2)
        noise = (z_t - a * z) / s
        return {"v": a * noise - s * z, "epsilon": noise, "flow": noise - z}[process.prediction]

    return denoise


@pytest.mark.parametrize("prediction", ["v", "epsilon", "flow"])
def test_the_bound_of_the_best_denoiser_is_the_density(prediction):
    process = Process(prediction)
    generator = torch.Generator().manual_seed(0)
    z = MEAN + STD * torch.randn(2000, 2, generator=generator)
    z = z.double()
    exact = torch.distributions.Normal(MEAN, STD).log_prob(z).sum(1)
    off = process.bound(best(process), z, generator, draws=200) - exact
    assert abs(float(off.mean())) < 4 * float(off.std()) / len(z) ** 0.5 + 0.01
    # a worse denoiser has a lower bound
    worse = process.bound(best(process, mean=MEAN + 0.3), z, generator, draws=200)
    assert float((worse - exact).mean()) < -0.1


@pytest.mark.parametrize("prediction", ["v", "epsilon", "flow"])
def test_a_target_implies_the_latent(prediction):
    process, generator = Process(prediction), torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    t = torch.linspace(1, 900.5, 50)
    z_t = process.noised(z, t, noise)
    torch.testing.assert_close(process.clean(process.target(z, t, noise), z_t, t), z)


def test_the_cosine_process_is_that_of_diffusers():
    from diffusers import DDPMScheduler

    process = Process("v")
    a, _ = process.scales(torch.arange(1.0, 1001.0), torch.zeros(1000, 1, dtype=torch.float64))
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double()
    torch.testing.assert_close(a.flatten() ** 2, theirs, atol=1e-6, rtol=0)
    times = torch.arange(1, 1001, dtype=torch.float64)
    torch.testing.assert_close(process.time(process.logsnr), times)


@pytest.mark.parametrize(
    ("prediction", "sampler"),
    [
        ("v", Ddpm(steps=250)),
        ("v", Ddim(steps=100)),
        ("v", Ddim(steps=250, eta=1.0)),
        ("v", DpmSolver(steps=50)),
        ("epsilon", DpmSolver(steps=50)),
        ("v", Euler(steps=100)),
        ("flow", Euler(steps=100)),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_samplers_reach_the_distribution(prediction, sampler):
    process, generator = Process(prediction), torch.Generator().manual_seed(0)
    noise, denoise = torch.randn(4000, 2, generator=generator), best(process)

    def predict(z_t, at):
        return denoise(z_t, torch.full((len(z_t),), at))

    z = sampler(process, predict, noise, generator)
    torch.testing.assert_close(z.mean(0), MEAN, atol=0.1, rtol=0)
    torch.testing.assert_close(z.std(0), STD, atol=0.02, rtol=0.03)


def test_guidance_of_one_is_the_conditional_model_and_of_zero_the_unconditional():
    torch.manual_seed(0)
    diffusion = Diffusion(Process("v"), DenseDenoiser((2,), 3, width=16, blocks=1))
    for parameter in diffusion.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    noise, given = torch.randn(5, 2), torch.randn(5, 3)
    draw = lambda g, w: diffusion.draw(noise, Ddim(steps=5), g, guidance=w)  # noqa: E731
    torch.testing.assert_close(draw(given, 0.0), draw(None, 1.0))
    assert not torch.allclose(draw(given, 1.0), draw(None, 1.0), atol=1e-3)
    half = diffusion.predict(noise, torch.full((5,), 500.0), given, torch.zeros(5, dtype=bool))
    torch.testing.assert_close(half, diffusion.predict(noise, torch.full((5,), 500.0)))


@pytest.mark.parametrize("units", [(4, 7, 7), (2, 8, 8)])
def test_the_unet_depends_on_time_and_conditions(units):
    torch.manual_seed(0)
    denoiser = GridDenoiser(units, 2, width=32, blocks=1)
    z, time = torch.randn(2, *units), torch.tensor([0.3, 0.3])
    plain = denoiser(z, time)
    assert plain.shape == z.shape
    assert not torch.allclose(plain, denoiser(z, 2 * time), atol=1e-4)
    assert not torch.allclose(plain, denoiser(z, time, torch.ones(2, 2)), atol=1e-4)


# -- posteriors of the training data ---------------------------------------------------------------


@pytest.mark.parametrize("posterior", ["normal", "full-normal", "planar"])
def test_moments_are_those_of_draws(posterior):
    rows = vs.load(np.random.default_rng(0).normal(size=(400, 3))).train
    model = vs.build(rows.space, latent=2, posterior=posterior, network="linear")
    *_, (_, posteriors) = encoding(model, rows)
    drawn = torch.cat(
        [
            posteriors.draw(torch.arange(len(rows)), torch.Generator().manual_seed(i))
            for i in range(60)
        ]
    )
    mean, std = posteriors.moments()
    torch.testing.assert_close(mean, drawn.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(
        std, drawn.std(0), atol=0, rtol=0.03 if posterior != "planar" else 0.1
    )
    # the latents of a datum are not the same in every epoch
    one, other = (
        posteriors.draw(torch.arange(5), torch.Generator().manual_seed(i)) for i in (0, 1)
    )
    assert not torch.equal(one, other)


# -- runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Train a run of each kind; returns {kind: run}."""
    place, random = tmp_path_factory.mktemp("diffusion"), np.random.default_rng(0)
    colour = random.choice(["red", "blue"], 120)
    table = {"size": random.normal(size=120) + (colour == "red"), "colour": colour}
    texts = ["".join(random.choice(list("abc"), random.integers(2, 7))) for _ in range(120)]
    small = {"steps": 3, "batch": 16}
    dense = {"latent": 2, "network": "mlp:width=8"}
    images = random.integers(0, 256, (80, 8, 8), dtype=np.uint8)
    made = {
        "table": vs.train(table, run=place / "table", **small, **dense),
        "conditional": vs.train(table, run=place / "c", condition=["colour"], **small, **dense),
        "texts": vs.train(texts, run=place / "texts", latent=2, **small),
        "grid": vs.train(
            images, run=place / "grid", network="conv:factor=4,width=8", latent=2, **small
        ),
        "discrete": vs.train(
            table, run=place / "d", posterior="bernoulli", latent=3, network="mlp:width=8", **small
        ),
    }
    for kind, run in made.items():
        if kind != "discrete":
            run.diffuse(steps=3, **SMALL)
    return made


@pytest.mark.parametrize("kind", ["table", "conditional", "texts", "grid"])
def test_samples_of_every_kind(runs, kind):
    run = runs[kind]
    given = {"condition": {"colour": "red"}} if kind == "conditional" else {}
    ours = run.sample(6, diffusion=True, **given)
    assert len(ours) == 6 and type(ours) is type(run.sample(6, **given))
    again = run.sample(6, diffusion=True, **given)
    assert str(ours) == str(again)
    record = json.loads((run.path / "diffusion" / "diffusion.json").read_text())
    assert record["steps"] == 3 and record["bound"]["side"] == "lower"


def test_the_run_itself_is_unchanged_by_its_diffusion_model(runs):
    run = runs["table"]
    before = run.sample(5).columns["size"].tolist()
    run.sample(5, diffusion=True)
    assert run.sample(5).columns["size"].tolist() == before


def test_a_continued_training_equals_an_uninterrupted_one(tmp_path):
    x = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
    whole, parts = (
        vs.train(x, run=tmp_path / name, latent=2, steps=2, network="linear") for name in "ab"
    )
    whole.diffuse(steps=7, **SMALL)
    steps = parts.diffusing(steps=7, **SMALL)
    for progress in steps:
        if progress.what == "training" and progress.share > 0.4:
            break
    steps.close()  # as Ctrl-C does, it saves the state
    assert json.loads((parts.path / "diffusion/diffusion.json").read_text())["steps"] == 3
    parts.diffuse(steps=7, **SMALL)
    one, other = (
        (run.path / "diffusion" / "diffusion.safetensors").read_bytes() for run in (whole, parts)
    )
    assert one == other
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if "second" not in k}
            for line in (run.path / "diffusion" / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (whole, parts)
    ]
    assert logs[0] == logs[1]


def test_the_bound_of_a_model_whose_prior_is_right_is_not_raised(tmp_path):
    """With v, the untrained dense denoiser is the standard normal, after standardisation."""
    x = np.random.default_rng(0).normal(size=(600, 3)).astype(np.float32)
    run = vs.train(x, run=tmp_path / "run", latent=2, steps=2, network="linear")
    result = run.diffuse(steps=1, lr=1e-9, **SMALL)
    # the codes of an untrained model are not standard normal, so the run's prior is worse
    assert result.n == 30 and result.after[0] <= -2.0
    assert result.gain[0] == pytest.approx(result.after[0] - result.before[0])


def test_a_condition_of_the_diffusion_model(tmp_path, capsys):
    random = np.random.default_rng(0)
    kind = random.integers(0, 2, 400)
    x = (random.normal(size=(400, 2)) * 0.1 + 4 * kind[:, None]).astype(np.float32)
    np.savez(tmp_path / "x.npz", train=x, train_kind=kind)
    run = vs.train(
        str(tmp_path / "x.npz"), run=tmp_path / "run", latent=2, steps=400, network="mlp:width=32"
    )
    result = run.diffuse(steps=300, condition="kind", denoiser="dense:width=32", batch=128)
    assert result.condition == ("kind",)
    assert "log p(x | kind)" in result.lines()[0] and len(result.lines()) == 1
    means = [float(np.mean(run.sample(200, diffusion=True, condition={"kind": k}))) for k in (0, 1)]
    assert means[1] - means[0] > 2
    # a diffusion model that is trained anew replaces the one in use
    before = run.sample(3, diffusion=True, condition={"kind": 0})
    run.diffuse(steps=2, condition="kind", force=True, **SMALL)
    assert not np.array_equal(before, run.sample(3, diffusion=True, condition={"kind": 0}))
    name = str(run.path)
    for command, words in (
        (["sample", name, "--diffusion"], "a value for each condition of the diffusion model"),
        (["sample", name, "--diffusion", "--condition", "kind=5"], "kind"),
        (["sample", name, "--diffusion", "--condition", "knd=1"], "kind"),
        (["diffuse", name, "--condition", "nothing", "--force"], "kind"),
    ):
        assert main([*command, *(["-o", str(tmp_path / "o.npy")] * (command[0] == "sample"))]) == 2
        assert words in capsys.readouterr().err


def test_refusals(runs, tmp_path, capsys):
    table, discrete = str(runs["table"].path), str(runs["discrete"].path)
    out = ["-o", str(tmp_path / "s.csv")]
    for command, words in (
        (["diffuse", discrete], "discrete"),
        (["sample", discrete, "--diffusion", *out], "vaestro diffuse"),
        (["sample", table, "--sampler", "ddim", *out], "--diffusion"),
        (["sample", table, "--diffusion", "--sampler", "ddim:steps=5000", *out], "1000"),
        (["sample", table, "--diffusion", "--guidance", "2", *out], "--condition"),
        (["diffuse", table, "--steps", "3", "--batch", "16", "--denoiser", SMALL["denoiser"]], "3"),
        (["diffuse", table, "--lr", "0.1"], "--force"),
        (["diffuse", table, "--prediction", "x0"], "epsilon"),
        (["diffuse", table, "--denoiser", "unet", "--force"], "grid"),
        (["diffuse", table, "--steps", "0"], "above 0"),
    ):
        assert main(command) == 2, command
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error
    assert runs["table"].sample(2, diffusion=True)  # nothing was lost


def test_a_diffusion_model_of_other_weights_is_not_used(tmp_path):
    x = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
    run = vs.train(x, run=tmp_path / "run", latent=2, steps=2, network="linear")
    run.diffuse(steps=2, **SMALL)
    vs.resume(run.path, steps=4)
    with pytest.raises(ValueError, match="other weights"):
        run.sample(2, diffusion=True)
    with pytest.raises(ValueError, match="other weights of the run"):
        run.diffuse(steps=4, **SMALL)
    run.diffuse(steps=2, force=True, **SMALL)
    assert len(run.sample(2, diffusion=True)) == 2


def test_a_damaged_file_is_seen(tmp_path):
    x = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
    run = vs.train(x, run=tmp_path / "run", latent=2, steps=2, network="linear")
    run.diffuse(steps=2, **SMALL)
    file = run.path / "diffusion" / "diffusion.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged"):
        run.sample(2, diffusion=True)
