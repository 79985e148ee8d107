"""Clusters of codes: exact answers on normal data, and every kind of run."""

import numpy as np
import pytest

import vaestro as vs
from vaestro.cli import main
from vaestro.latent import cluster
from vaestro.latent.factors import Factor

TRUTH = np.repeat([0, 1, 2], (90, 60, 30))


def blobs(random):
    """Return three separate clusters, (180, 2), in the order of TRUTH."""
    return np.array([[0, 0], [12, 0], [0, 12]])[TRUTH] + random.normal(size=(180, 2))


def test_separate_blobs_are_found():
    random = np.random.default_rng(0)
    shuffled = random.permutation(180)
    codes = np.concatenate([blobs(random), np.zeros((180, 1))], 1)  # one unit is off
    kinds = Factor("kind", TRUTH[shuffled].astype(float), ("a", "b", "c"))
    size = Factor("size", (TRUTH[shuffled] == 1) * 5 + random.normal(size=180))
    noise = Factor("noise", random.normal(size=180))
    found = cluster(codes[shuffled], factors=[kinds, size, noise])
    assert found.labels.tolist() == TRUTH[shuffled].tolist()
    assert min(found.bic, key=found.bic.get) == ("diag", 3)
    assert found.sizes.tolist() == [90, 60, 30] and found.stability > 0.99
    assert found.agreement[0][:2] == ("kind", 1.0)
    for i, words in enumerate(found.meanings):
        assert f"100% kind={'abc'[i]} (others 0%)" in words
        assert any(w.startswith("size") for w in words) == (i != 2) or i == 2
        assert not any(w.startswith("noise") for w in words)
    assert "lowest BIC" in found.lines()[0] and "stable: " in found.lines()[4]


def test_clusters_of_one_blob_are_one_or_not_stable():
    random = np.random.default_rng(0)
    full = random.normal(size=(300, 2)) @ np.array([[1.0, 0.9], [0.0, 0.3]])
    found = cluster(full)
    assert found.sizes.tolist() == [300] and found.shape == "full"
    asked = cluster(random.normal(size=(300, 2)), 4)
    assert asked.stability < 0.8 and "not stable" in " ".join(asked.lines())
    few = cluster(random.normal(size=(20, 2)), 2)
    assert "not enough data to tell" in " ".join(few.lines())


def test_a_number_out_of_range_is_refused():
    with pytest.raises(ValueError, match="from 1 to 5"):
        cluster(np.random.default_rng(0).normal(size=(10, 2)), 6)
    with pytest.raises(ValueError, match="codes that vary"):
        cluster(np.zeros((10, 2)))


def test_the_command(tmp_path, capsys):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (80, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", train=images, train_kind=np.repeat(["a", "b"], 40))
    source, folder = str(tmp_path / "x.npz"), str(tmp_path / "run")
    small = {"steps": 3, "batch": 16, "latent": 2, "network": "mlp:width=8"}
    run = vs.train(source, run=folder, **small)
    assert main(["cluster", folder, "--clusters", "2", "-o", str(tmp_path / "c.png")]) == 0
    assert "cluster 0: " in capsys.readouterr().out
    out = ["-o", str(tmp_path / "c.csv"), "--split", "train"]
    assert main(["cluster", folder, source, *out, "--clusters", "3"]) == 0
    assert (tmp_path / "c.csv").read_text().startswith('"row","cluster","probability","kind"')
    assert "adjusted Rand index with kind" in capsys.readouterr().out
    for more, words in (
        (["--clusters", "many"], "auto"),
        (["--clusters", "900"], "from 1 to"),
        (["--split", "test"], "SOURCE"),
    ):
        assert main(["cluster", folder, *more]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    bits = vs.train(images, run=tmp_path / "bits", posterior="bernoulli", **small)
    with pytest.raises(ValueError, match="real latents"):
        bits.cluster()
    texts = ["ab", "abc", "c", "acb"] * 30
    words = vs.train(texts, run=tmp_path / "texts", latent=2, steps=2)
    assert words.cluster(texts, clusters=2).sizes.sum() == 120
    table = {"size": random.normal(size=90), "sex": random.choice(["f", "m"], 90)}
    tabular = vs.train(table, run=tmp_path / "table", condition=["sex"], **small)
    assert tabular.cluster(table).sizes.sum() == 90
    assert run.cluster().sizes.sum() == len(run.data().train)
