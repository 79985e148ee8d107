"""Models without a latent: their log-likelihood is exact, and is reported as exact."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.conftest import make_space
from vaestro.cli import main
from vaestro.evaluation import evaluate
from vaestro.files import current
from vaestro.objectives import elbo, iwae
from vaestro.randomness import torch_generator
from vaestro.runs import Job
from vaestro.spaces import Batch, Kind

NETWORKS = ("gru:width=8", "transformer:width=8,layers=1,heads=2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    r = np.random.default_rng(0)
    words = (["the cat", "a dog", "my horse"], ["sat", "ran", "slept"], ["here", "there"])
    lines = [
        " ".join(w[i % len(w)] for w, i in zip(words, r.integers(0, 6, 3), strict=True))
        for _ in range(300)
    ]
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> vs.Run:
    return vs.train(
        str(corpus),
        run=tmp_path_factory.mktemp("runs") / "language-model",
        model="autoregressive",
        network="gru:width=16",
        steps=60,
        batch=16,
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_the_probabilities_of_all_texts_sum_to_one(network: str) -> None:
    torch.manual_seed(0)
    space = make_space(Kind.TOKENS, (4,))
    model = vs.build(space, model="autoregressive", network=network).eval()
    texts = {
        (*text, *(0,) * (4 - len(text)))
        for length in range(5)
        for text in itertools.product(range(1, space.levels), repeat=length)
    }
    batch = Batch(torch.tensor(sorted(texts)))
    log_px = elbo(model.draw(batch)).double()
    assert torch.logsumexp(log_px, 0).item() == pytest.approx(0.0, abs=1e-5)


def test_every_bound_is_the_log_likelihood() -> None:
    torch.manual_seed(0)
    model = vs.build(make_space(Kind.TOKENS, (4,)), model="autoregressive", network="gru:width=8")
    draws = model.eval().draw(Batch(torch.tensor([[2, 3, 0, 0], [4, 4, 4, 4]])), k=5)
    assert torch.equal(elbo(draws), iwae(draws))
    assert torch.equal(elbo(draws), draws.log_px[0])
    assert draws.total_rate.tolist() == [0.0, 0.0]


def test_samples_have_the_frequencies_of_the_model() -> None:
    torch.manual_seed(1)
    space = make_space(Kind.TOKENS, (2,))
    model = vs.build(space, model="autoregressive", network="gru:width=8").eval()
    texts = [(a, b) for a in range(space.levels) for b in range(space.levels) if a or not b]
    with torch.no_grad():
        p = elbo(model.draw(Batch(torch.tensor(texts)))).exp().numpy()
        drawn = model.sample(20_000).sample(torch_generator("cpu", 0, "test"))[0]
    counts = np.array([(drawn == torch.tensor(t)).all(1).sum().item() for t in texts])
    chi_squared = ((counts - 20_000 * p) ** 2 / (20_000 * p)).sum()
    assert chi_squared < len(texts) + 5 * math.sqrt(2 * len(texts))


def test_likelihood_without_latent_names_this_model() -> None:
    space = make_space(Kind.TOKENS, (4,))
    model = vs.build(space, likelihood="autoregressive:latent=false", network="gru:width=8")
    assert model.capabilities.exact and model.units == (0,)
    old = vs.build(
        space, model="vae", likelihood="autoregressive:latent=false", network="gru:width=8"
    )
    assert not old.capabilities.exact and not old.capabilities.reads_latent


def test_models_of_earlier_formats_are_vaes() -> None:
    written = {"likelihood": "autoregressive:latent=false"}
    assert current(written, 2)["model"] == "vae"
    assert "model" not in current(written, 3)


def test_its_likelihood_is_reported_as_exact(run: vs.Run, capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", str(run.path)]) == 0
    assert "log p(x) = " in capsys.readouterr().out
    result = json.loads((run.path / "evaluation.json").read_text())
    (line,) = result["estimates"]
    assert (line["method"], line["side"], line["measure"]) == ("exact", "exact", "counting")
    assert result["rate"] == 0 and result["distortion"] == pytest.approx(-line["mean"])
    arrays = np.load(run.path / "evaluation.npz")
    assert arrays["exact"].mean() == pytest.approx(line["mean"])
    assert main(["compare", str(run.path), str(run.path)]) in (0, 2)


def test_it_says_what_it_has_no_latent_for(run: vs.Run, corpus: Path) -> None:
    for methods in ("ais", "gap", "information", "exact,ais"):
        with pytest.raises(ValueError, match="exact"):
            evaluate(run.model(), run.data().test, methods=methods)
    session = vs.open(run)
    for verb in ("encode", "reconstruct"):
        with pytest.raises(ValueError, match="has no latent"):
            getattr(session, verb)(str(corpus))
    with pytest.raises(ValueError, match="has no latent"):
        session.decode(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="temperature"):
        session.sample(3, temperature=0.5)
    vae = vs.build(make_space(Kind.TOKENS, (4,)), latent=2, network="gru:width=8")
    rows = vs.load(["a b", "b c", "c a"] * 40).test
    with pytest.raises(ValueError, match="only bounds"):
        evaluate(vs.build(rows.space, latent=2, network="gru:width=8"), rows, methods="exact")
    assert not vae.capabilities.exact


@pytest.mark.parametrize(
    "option", [{"latent": 8}, {"prior": "mixture"}, {"posterior": "laplace"}, {"free_bits": 0.5}]
)
def test_options_of_a_latent_are_refused(corpus: Path, tmp_path: Path, option: dict) -> None:
    with pytest.raises(ValueError, match="has no latent"):
        vs.train(str(corpus), run=tmp_path / "r", model="autoregressive", steps=2, **option)
    assert not (tmp_path / "r").exists()


def test_it_needs_an_autoregressive_likelihood() -> None:
    with pytest.raises(ValueError, match="expected the likelihood autoregressive"):
        vs.build(make_space(Kind.BINARY), model="autoregressive")


def test_commands_work_on_it(run: vs.Run, corpus: Path, capsys: pytest.CaptureFixture) -> None:
    path = str(run.path)
    assert main(["sample", path, "-n", "5", "-o", f"{path}/texts.txt", "--force"]) == 0
    assert len((run.path / "texts.txt").read_text().splitlines()) == 5
    assert main(["diagnose", path]) == 0
    diagnosis = json.loads((run.path / "diagnosis.json").read_text())
    assert diagnosis["active_units"] == 0 and diagnosis["units"] == []
    assert "collapsed" not in diagnosis["verdict"]
    assert main(["report", path]) == 0
    page = (run.path / "report.html").read_text()
    assert "This model has no latent" in page and "Samples" in page
    assert main(["info", path]) == 0
    assert "log p(x) = " in capsys.readouterr().out
    assert main(["encode", path, str(corpus), "-o", f"{path}/z.npz"]) == 2
    assert "has no latent" in capsys.readouterr().err


def test_it_resumes_to_the_bit_and_repeats(run: vs.Run, corpus: Path, tmp_path: Path) -> None:
    job = Job.new(
        str(corpus),
        run=tmp_path / "stopped",
        model="autoregressive",
        network="gru:width=16",
        steps=60,
        batch=16,
    )
    with job:
        for _ in range(23):
            next(job)
        job.checkpoint()
    resumed = vs.resume(tmp_path / "stopped")
    repeat = ["train", "--config", f"{run.path}/config.yaml", "--run", str(tmp_path / "again")]
    assert main(repeat) == 0
    for other in (resumed, vs.Run(tmp_path / "again")):
        for name, value in run.model().state_dict().items():
            assert torch.equal(value, other.model().state_dict()[name]), name
