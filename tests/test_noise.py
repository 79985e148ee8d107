"""`vaestro gradients`: the noise of each estimator on a model and its data, held to what can be
computed by other means."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.conftest import make_data, make_space, make_values
from vaestro.cli.main import main
from vaestro.diagnosis.noise import Noise, Noises, applicable, gradient_noise
from vaestro.gradients import Gradient
from vaestro.parts import TABLE, find
from vaestro.randomness import numpy_generator
from vaestro.spaces import Kind

SPACE = make_space(Kind.BINARY, (6,))
DATA = make_data(SPACE, make_values(SPACE, 200))


def built(posterior: str = "normal") -> vs.VAE:
    torch.manual_seed(0)
    model = vs.build(SPACE, latent=2, posterior=posterior, network="mlp:width=6")
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2.0)
    return model


def noises(model: vs.VAE, **options: Any) -> Noises:
    found = None
    for _, found in gradient_noise(model, DATA.train, batch=16, **options):
        pass
    assert found is not None
    return found


def one(found: Noises, estimator: str, k: int, group: str = "posterior") -> Noise:
    return next(r for r in found.of(group, k) if r.estimator == estimator)


@pytest.mark.parametrize(
    ("bound", "k", "name"),
    [("elbo", 1, "pathwise"), ("elbo", 1, "stl"), ("elbo", 4, "score"), ("iwae", 4, "dreg")],
)
def test_variance_and_signal_are_those_of_the_gradients(bound: str, k: int, name: str) -> None:
    model = built()
    found = one(noises(model, bound=bound, k=(k,), repeats=600, estimators=[name]), name, k)
    # The same batch, and gradients of other draws, one after the other.
    order = numpy_generator(0, "gradient noise").permutation(len(DATA.train))
    batch = DATA.train.pick(np.sort(order[:16])).batch(slice(0, 16), "cpu")
    estimator: Gradient = find("gradient", name)()
    estimator.check(bound, k)
    parameters = list(model.posterior.parameters())
    gradients = []
    for i in range(1000):
        draws = model.draw(
            batch, k, gradient=estimator, noise=model.noise(k, 16, torch.Generator().manual_seed(i))
        )
        value = estimator.surrogate(draws, vs.objectives.BOUNDS[bound]).mean()
        gradients.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)]).numpy()
        )
    every = np.stack(gradients).astype(np.float64)
    variance = every.var(0, ddof=1).sum()
    signal = math.sqrt(max(0.0, (every.mean(0) ** 2).sum() - variance / len(every)))
    assert found.variance == pytest.approx(variance, abs=5 * found.variance_stderr)
    assert found.variance_stderr < 0.15 * found.variance
    assert found.signal == pytest.approx(signal, rel=0.2)
    assert found.snr == pytest.approx(signal / math.sqrt(variance), rel=0.2)
    assert found.parameters == every.shape[1]


def test_the_estimators_stand_in_the_order_that_theory_says() -> None:
    found = noises(built(), k=(1, 8), repeats=160)
    for k in (1, 8):
        path, average, none = (
            one(found, name, k).variance
            for name in ("pathwise", "score:baseline=average", "score:baseline=none")
        )
        assert path < average < none
    assert one(found, "score", 8).variance < one(found, "score:baseline=average", 8).variance
    # k draws average the noise of the ELBO away.
    assert one(found, "pathwise", 1).variance / one(found, "pathwise", 8).variance == pytest.approx(
        8, rel=0.25
    )
    # The decoder's gradient does not depend on the estimator, and no estimator here is biased.
    assert len({r.variance for r in found.of("likelihood", 8)}) == 1
    for row in found.rows:
        assert row.bias is None or row.bias < 5 * row.bias_stderr + 1e-9


def test_a_biased_estimator_is_found_out() -> None:
    found = noises(
        built("bernoulli"),
        k=(4,),
        repeats=500,
        estimators=["score", "gumbel-softmax:temperature=5", "score:baseline=average"],
    )
    relaxed, unbiased = (
        one(found, "gumbel-softmax:temperature=5", 4),
        one(found, "score:baseline=average", 4),
    )
    assert relaxed.bias is not None
    assert relaxed.bias_stderr is not None
    assert relaxed.bias > 5 * relaxed.bias_stderr
    assert unbiased.bias is not None
    assert unbiased.bias_stderr is not None
    assert unbiased.bias < 4 * unbiased.bias_stderr + 1e-9


def test_the_model_is_left_as_it_was_and_the_same_seed_gives_the_same_numbers() -> None:
    model = built().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first, second = (noises(model, k=(2,), repeats=20) for _ in range(2))
    assert first == second
    assert model.training
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("posterior", list(TABLE["posterior"]))
def test_what_applies_to_each_posterior(posterior: str) -> None:
    model = built(
        {"spline": "spline:layers=1,bins=4", "iaf": "iaf:layers=1"}.get(posterior, posterior)
    )
    for bound, k in (("elbo", 1), ("elbo", 3), ("iwae", 3)):
        names = [name for name, _ in applicable(model, bound, k)]
        assert names and ("pathwise" in names) != bool(model.alphabet)
        assert ("score" in names) == (k > 1 and model.posterior.scored_held)
    found = noises(model, k=(2,), repeats=20)
    assert all(math.isfinite(r.variance) for r in found.rows)


def test_the_command_writes_its_files_and_refuses_what_has_no_meaning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", make_values(SPACE, 120))
    run = str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                str(tmp_path / "x.npy"),
                "--run",
                run,
                "--steps",
                "5",
                "--network",
                "mlp:width=8",
                "--latent",
                "2",
                "--quiet",
            ]
        )
        == 0
    )
    capsys.readouterr()
    assert main(["gradients", run, "--k", "1,2", "--repeats", "20"]) == 0
    said = capsys.readouterr().out
    assert (
        "encoder: " in said and "stl" in said and "score:baseline=none" in said and "wrote " in said
    )
    found = json.loads((tmp_path / "run" / "gradients.json").read_text())
    assert {r["k"] for r in found["rows"]} == {1, 2}
    assert found["weights_sha256"] == vs.Run(run).weights_sha256()
    from PIL import Image

    with Image.open(tmp_path / "run" / "gradients.png") as image:
        assert image.size[0] == 1200
    assert main(["gradients", run, "--json", "--repeats", "20", "--k", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["repeats"] == 20
    for arguments, message in (
        (["--k", "0"], "expected .*draws"),
        (["--k", "two"], "expected numbers of draws, such as --k 1,8,64; got 'two'"),
        (["--repeats", "3"], "expected 20 or more repetitions"),
        (["--bound", "free"], "expected a bound among"),
        (["--estimator", "dreg", "--bound", "elbo"], "expected gradient stl for elbo"),
        (["--estimator", "gumbel-softmax"], "expected gradient pathwise for real latents"),
        (["--estimator", "patwise"], "expected a gradient: 'pathwise'"),
    ):
        assert main(["gradients", run, *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.search(message, error), error
