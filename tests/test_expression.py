"""Libraries of counts, conditions of the decoder alone, denoised expression, and contrasts."""

from pathlib import Path

import numpy as np
import pytest
import scipy.special
import torch

import vaestro as vs
from tests.conftest import make_space
from vaestro import latent
from vaestro.cli import main
from vaestro.data import load_rows
from vaestro.latent.expression import beyond, expected_false_discoveries
from vaestro.likelihoods.counts import log_softplus
from vaestro.likelihoods.scales import unlimited
from vaestro.runs import Job
from vaestro.spaces import Kind

anndata = pytest.importorskip("anndata")
pandas = pytest.importorskip("pandas")
GENES = 6
SMALL = {"latent": 2, "steps": 3, "network": "linear", "device": "cpu"}


def cells(n: int = 60, genes: int = GENES, **obs: np.ndarray) -> anndata.AnnData:
    """Return cells with a sequencing depth, a batch and further columns of obs."""
    r = np.random.default_rng(0)
    batch = pandas.Categorical.from_codes(
        np.arange(n) % 2, pandas.Index(["l0", "l1"], dtype=object)
    )
    table = pandas.DataFrame(
        {"depth": 50.0 + np.arange(n), "batch": batch, **obs},
        index=pandas.Index([f"cell{i}" for i in range(n)], dtype=object),
    )
    var = pandas.DataFrame(index=pandas.Index([f"g{i}" for i in range(genes)], dtype=object))
    return anndata.AnnData(r.poisson(4.0, (n, genes)).astype(np.float32), obs=table, var=var)


def said(capsys: pytest.CaptureFixture[str], *command: object, code: int = 0) -> str:
    capsys.readouterr()
    assert main([*map(str, command)]) == code, capsys.readouterr().err
    out = capsys.readouterr()
    return out.err if code else out.out


# -- libraries -------------------------------------------------------------------------------------


def test_an_observed_library_is_the_sum_of_the_modelled_counts(tmp_path: Path) -> None:
    data = cells()
    data.write_h5ad(tmp_path / "c.h5ad")
    run = vs.train(
        tmp_path / "c.h5ad",
        run=tmp_path / "r",
        likelihood="negative-binomial:library=observed",
        **SMALL,
    )
    assert run.config["condition"] == ["library"]
    model, totals = run.model(), data.X.sum(1)
    rows = load_rows(tmp_path / "c.h5ad", model.space, given=model.given)
    found = model.given.outward(rows.given).columns["library"].data
    np.testing.assert_array_equal(found, totals)
    means = run.reconstruct(tmp_path / "c.h5ad", dtype="float")
    np.testing.assert_allclose(means.sum(1), totals, rtol=1e-4)
    # genes that the run does not have are not counted
    wide = anndata.concat([data, cells()[:, :2].copy()], axis=1, merge="first")
    wide.var_names = pandas.Index([f"g{i}" for i in range(GENES)] + ["x", "y"], dtype=object)
    np.testing.assert_array_equal(run.encode(wide)["mean"], run.encode(data)["mean"])
    again = Job.new(wide, init=str(run.path), steps=2, dry=True, device="cpu")
    assert again.data.given.names == ("library",)
    array = vs.load(data.X.astype(int), kind="count", condition=["library"])
    np.testing.assert_array_equal(
        array.given.outward(array.train.given).columns["library"].data, totals[array.train.index]
    )


def test_libraries_of_zero_and_below_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    depth = 50.0 + np.arange(60)
    depth[[3, 7, 9, 11]] = 0
    path, run = tmp_path / "c.h5ad", tmp_path / "r"
    cells(zero=depth, below=depth - 60.5).write_h5ad(path)

    def train(library: str, code: int = 0) -> str:
        likelihood = f"poisson:library={library}"
        return said(
            capsys,
            *("train", f"{path}:valid=2,test=2", "--likelihood", likelihood, "--run", run),
            *("--latent", 2, "--steps", 2, "--network", "linear"),
            code=code,
        )

    error = train("zero", 2)
    assert "expected libraries above 0; got zero=0 in " in error and "cell" in error
    assert error.count("\n") == 1 and not run.exists()
    assert "got below=-" in train("below", 2)
    train("depth")
    assert vs.Run(run).config["condition"] == ["depth"], "a library is a condition"
    new = cells()
    new.obs["depth"] = np.where(np.arange(60) == 4, 0.0, 9.0)
    new.write_h5ad(path)
    error = said(capsys, "encode", run, path, "-o", tmp_path / "z.npz", code=2)
    assert error == (
        "vaestro: expected libraries above 0; got depth=0 in 1 of 60 rows (cell4): leave them out\n"
    )
    error = said(capsys, "sample", run, "--condition", "depth=-3", "-o", tmp_path / "s", code=2)
    with pytest.raises(ValueError, match=r"expected libraries above 0; got depth=-3"):
        vs.open(run).sample(2, condition={"depth": "-3"})


def test_size_factors_multiply_a_softplus(tmp_path: Path) -> None:
    size = np.exp(np.random.default_rng(1).normal(0, 0.3, 60))
    cells(size=size / size.mean()).write_h5ad(tmp_path / "c.h5ad")
    options = {**SMALL, "likelihood": "negative-binomial:library=size"}
    job = Job.new(tmp_path / "c.h5ad", dry=True, **options)
    assert job.config["likelihood"] == "negative-binomial:library=size,mean=softplus"
    assert any("is read as size factors" in note for note in job.notes)
    kept = {**options, "likelihood": "negative-binomial:library=size,mean=softmax"}
    other = Job.new(tmp_path / "c.h5ad", dry=True, **kept)
    assert other.config["likelihood"] == kept["likelihood"]
    depth = Job.new(
        tmp_path / "c.h5ad", dry=True, **{**options, "likelihood": "poisson:library=depth"}
    )
    assert depth.config["likelihood"] == "poisson:library=depth"
    model = job.training.model
    rows = job.data.train
    given = latent.given_of(rows)
    z = torch.randn(1, len(rows), 2)
    out = model.likelihood.decode(z, given)
    factor = rows.given_space.outward(rows.given, exact=False).columns["size"].data
    torch.testing.assert_close(
        model.likelihood(z, given).mean[0],
        torch.nn.functional.softplus(out[0]) * torch.from_numpy(factor).float()[:, None],
        rtol=1e-4,
        atol=1e-4,
    )
    # the first outputs are the means of the genes
    first = model.likelihood.start(job.data.space, library="size", mean="softplus")
    np.testing.assert_allclose(log_softplus(first).exp(), job.data.space.marginal, rtol=1e-5)
    with pytest.raises(ValueError, match=r"expected library=NAME, the size factors"):
        vs.build(make_space(Kind.COUNT, (3,)), latent=2, likelihood="poisson:mean=softplus")


# -- conditions of the decoder ---------------------------------------------------------------------


def test_a_condition_of_the_decoder_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = tmp_path / "c.h5ad", tmp_path / "r"
    cells().write_h5ad(path)
    command = ("--condition", "batch", "--latent", 2, "--steps", 3, "--network", "linear")
    said(capsys, "train", path, "--run", run, *command)
    session = vs.open(run)
    codes = session.encode(path)["mean"]
    expected = session.decode(codes, condition={"batch": "l0"}, dtype="float")
    found = session.reconstruct(path, decode_condition={"batch": "l0"}, dtype="float")
    np.testing.assert_array_equal(found, expected)
    # the decoder is linear: its outputs differ by twice the weight of the condition
    own = session.reconstruct(path, dtype="float")
    np.testing.assert_array_equal(found[::2], own[::2])
    weight = session.model.likelihood.decoder.last.weight[:, -1].detach()
    outputs = [unlimited(torch.from_numpy(means).log(), 20.0) for means in (own, found)]
    difference = (outputs[0] - outputs[1])[1::2]
    torch.testing.assert_close(difference, (2 * weight).expand(30, -1), rtol=1e-3, atol=1e-4)
    other = session.encode(path, condition={"batch": "l0"})["mean"]
    assert not np.allclose(other[1::2], codes[1::2]), "the encoder sees the condition"
    out = said(
        capsys,
        *("reconstruct", run, path, "--decode-condition", "batch=l0", "-o", tmp_path / "x.h5ad"),
    )
    assert "wrote 60 reconstructions, decoded with batch=l0, to" in out
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "x.h5ad").X, expected)
    wrong = ("reconstruct", run, path, "--decode-condition", "batch=l7", "-o", tmp_path / "y.h5ad")
    assert "expected batch to be one of l0, l1; got l7" in said(capsys, *wrong, code=2)


# -- expression ------------------------------------------------------------------------------------


def test_expression_is_the_mean_over_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = tmp_path / "c.h5ad", tmp_path / "r"
    cells().write_h5ad(path)
    vs.train(path, run=run, likelihood="zero-inflated:library=depth", **SMALL)
    session = vs.open(run)
    rows = session.rows(path)
    shares = session.reconstruct(rows, draws=400, library=100.0)
    np.testing.assert_allclose(shares.sum(1), 100, rtol=1e-4)
    means = session.reconstruct(rows, draws=400)
    depth = 50.0 + np.arange(60)
    np.testing.assert_allclose(means.sum(1), depth, rtol=1e-3)
    # by hand: the base of the zero-inflated density at draws from q
    z = session.encode(rows, draws=400, seed=3)["z"]
    px = [
        session.model.decode(torch.from_numpy(one), latent.given_of(rows)).base.mean[0] for one in z
    ]
    expected = torch.stack(px).mean(0).detach().numpy()
    np.testing.assert_allclose(means.mean(0), expected.mean(0), rtol=0.02)
    np.testing.assert_array_equal(
        session.reconstruct(rows, draws=7, seed=1), session.reconstruct(rows, draws=7, seed=1)
    )
    said(capsys, "reconstruct", run, path, "--library", 100, "-o", tmp_path / "x.csv")
    first = (tmp_path / "x.csv").read_text().splitlines()[1].split(",")
    assert first[0] == '"cell0"' and abs(sum(map(float, first[1:])) - 100) < 0.01
    with pytest.raises(ValueError, match=r"expected a library above 0; got 0"):
        session.reconstruct(rows, library=0.0)
    other = vs.train(np.random.default_rng(0).normal(size=(60, 3)), run=tmp_path / "o", **SMALL)
    with pytest.raises(ValueError, match=r"only counts have an expression"):
        other.reconstruct(np.zeros((2, 3)), draws=3)


def test_the_expected_share_of_false_discoveries() -> None:
    probability = np.array([0.9, 1.0, 0.5, 0.9])
    np.testing.assert_allclose(
        expected_false_discoveries(probability), [0.2 / 3, 0, 0.7 / 4, 0.2 / 3]
    )


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_false_discoveries_are_at_the_stated_level(share: float) -> None:
    r, false, called, missed = np.random.default_rng(0), 0.0, 0.0, 0.0
    for _ in range(40):
        truth = np.where(r.random(400) < share, r.normal(0, 1.5, 400), 0.0)
        error = r.uniform(0.05, 0.3, 400)
        p = beyond(truth + error * r.normal(size=400), error, 0.25)
        named = expected_false_discoveries(p) <= 0.05
        false += (named & (np.abs(truth) <= 0.25)).sum() / max(1, named.sum()) / 40
        called += named.sum()
        missed += (~named & (np.abs(truth) > 0.75)).sum()
    assert false <= 0.05
    assert missed <= 0.1 * 40 * 400 * share * 0.62 and (called > 0) == (share > 0)


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Train on two groups of cells; return the folder, and the log2 fold change of each gene."""
    folder = tmp_path_factory.mktemp("groups")
    r, n, genes = np.random.default_rng(0), 600, 100
    change = np.zeros(genes)
    change[:20] = np.where(np.arange(20) % 2, 1.2, -1.2)
    logits = r.normal(0, 0.7, genes)
    group = np.arange(n) % 2
    logits = logits + np.log(2) * change * (group[:, None] - 0.5)
    shares = scipy.special.softmax(logits, 1)
    change = np.log2(shares[1] / shares[0])
    depth = np.rint(np.exp(r.normal(7.0, 0.3, n)))
    x = r.poisson(r.gamma(5.0, depth[:, None] * shares / 5.0))
    names = pandas.Index(["A", "B"], dtype=object)
    data = cells(n, genes, type=pandas.Categorical.from_codes(1 - group, names))
    data.X, data.obs["depth"] = x.astype(np.float32), depth
    data.write_h5ad(folder / "c.h5ad")
    vs.train(
        folder / "c.h5ad",
        run=folder / "r",
        likelihood="negative-binomial:library=depth",
        latent=4,
        network="mlp:width=64",
        epochs=40,
        batch=64,
        lr=3e-3,
        device="cpu",
    )
    return folder, change


def test_a_contrast_finds_the_genes_that_differ(
    groups: tuple[Path, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, change = groups
    run, path = folder / "r", folder / "c.h5ad"
    result = vs.open(run).contrast(path, "type", "A", "B", split="all")
    truth = np.abs(change) > 0.25
    called = result.different
    assert called[truth].mean() > 0.9, "the differences are found"
    assert (called & ~truth).sum() <= max(1, 2 * 0.05 * called.sum()), "few are false"
    z = (result.change - change) / result.error
    assert result.probability.max() <= 1 and result.expected.min() >= 0
    assert 0.75 < np.sqrt(np.mean(z**2)) < 1.25, "the errors are of the right size"
    out = said(
        capsys,
        *("contrast", run, path, "--attribute", "type", "--between", "A", "B"),
        *("--split", "all", "-o", folder / "g.csv"),
    )
    assert f"{called.sum()} of 100 genes differ by more than 0.25 in log2 between 300 A" in out
    lines = (folder / "g.csv").read_text().splitlines()
    assert lines[0].startswith('"name","mean_A","mean_B","log2_fold_change","error"')
    assert len(lines) == 101 and lines[1].endswith("true") and lines[-1].endswith("false")


def test_no_difference_between_halves_of_a_group(groups: tuple[Path, np.ndarray]) -> None:
    session = vs.open(groups[0] / "r")
    rows = session.rows(groups[0] / "c.h5ad", "all")
    of_a = np.flatnonzero(rows.attributes["type"] == "A")
    result = latent.contrast(session.model, rows, of_a[::2], of_a[1::2], draws=100)
    assert not result.different.any()
    assert np.abs(result.change / result.error).max() < 5


def test_contrasts_that_cannot_be_made(
    groups: tuple[Path, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = groups
    command = ("contrast", folder / "r", folder / "c.h5ad", "-o", folder / "n.csv", "--attribute")
    for words, message in (
        (("tpye", "--between", "A", "B"), "expected an attribute of the data: 'type' (one of"),
        (("type", "--between", "A", "C"), "no row has type=C: it is one of A, B"),
        (("type", "--between", "A", "A"), "expected two different groups; got 'A' twice"),
        (("type", "--between", "A", "B", "--level", 2), "a level between 0 and 1; got 0.25 and 2"),
    ):
        error = said(capsys, *command, *words, code=2)
        assert message in error and error.count("\n") == 1
