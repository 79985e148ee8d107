"""Traversals, neighbours and analogies: exact answers, and every kind of run."""

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro.cli import main
from vaestro.latent import nearest, traverse
from vaestro.latent.geodesics import geodesic, length

SMALL = {"steps": 3, "batch": 16, "latent": 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Train a run of each kind; returns {kind: (run, source)}."""
    place, random = tmp_path_factory.mktemp("moves"), np.random.default_rng(0)
    colour = random.choice(["red", "blue"], 120)
    table = {"size": random.normal(size=120), "count": random.poisson(3, 120), "colour": colour}
    texts = ["".join(random.choice(list("abc"), random.integers(2, 7))) for _ in range(120)]
    images = random.integers(0, 256, (80, 8, 8), dtype=np.uint8)
    sources = {
        "table": (table, {"network": "mlp:width=8"}),
        "conditional": (table, {"network": "mlp:width=8", "condition": ["colour"]}),
        "texts": (texts, {}),
        "images": (images, {"network": "mlp:width=8"}),
        "grid": (images, {"network": "conv:factor=4,width=8"}),
        "vectors": (random.normal(size=(120, 4)), {"network": "mlp:width=8"}),
        "bits": (table, {"network": "mlp:width=8", "posterior": "bernoulli"}),
        "categories": (table, {"network": "mlp:width=8", "posterior": "categorical:codes=3"}),
    }
    return {
        kind: (vs.train(source, run=place / kind, **{**SMALL, **options}), source)
        for kind, (source, options) in sources.items()
    }


@pytest.mark.parametrize("metric", ["euclidean", "posterior"])
def test_neighbours_are_those_of_all_distances(metric, monkeypatch):
    random = np.random.default_rng(0)
    mean, logvar = random.normal(size=(2, 500, 3))
    if metric == "posterior":
        q = torch.distributions.Normal(*map(torch.from_numpy, (mean, np.exp(logvar / 2))))
        one = torch.distributions.Normal(q.mean[7:8], q.stddev[7:8])
        kl = torch.distributions.kl_divergence
        distance = (kl(q, one) + kl(one, q)).sum(1).numpy()
    else:
        distance = np.linalg.norm(mean - mean[7], axis=1)
    monkeypatch.setattr("vaestro.latent.neighbours.BLOCK", 100)  # blocks do not change the result
    rows, found = nearest(mean, mean[7], 20, logvar=logvar, query_logvar=logvar[7], metric=metric)
    assert rows.tolist() == np.argsort(distance, kind="stable")[:20].tolist()
    np.testing.assert_allclose(found, np.sort(distance)[:20], atol=1e-12)


def test_a_traversal_covers_the_codes_of_the_data():
    model = vs.build(vs.load(np.random.default_rng(0).normal(size=(100, 3))).space, latent=2)
    codes = np.random.default_rng(0).normal([1.0, -2.0], [0.5, 3.0], (1000, 2))
    (one,) = traverse(model, np.array([9.0, 8.0]), codes, [1], reach=2, steps=5)
    assert (one.codes[:, 0] == 9).all()  # other units stay
    expected = codes[:, 1].mean() + np.linspace(-2, 2, 5) * codes[:, 1].std()
    np.testing.assert_allclose(one.codes[:, 1], expected, rtol=1e-6)


def test_discrete_units_take_each_of_their_values(runs):
    run = runs["categories"][0]
    model = run.model()
    assert model.units == (6,)  # two groups of three categories
    z = traverse(model, np.zeros(6), np.zeros((5, 6)), [1])[0].codes
    np.testing.assert_array_equal(z[:, 3:], np.eye(3))
    assert (z[:, :3] == 0).all()
    bits = traverse(runs["bits"][0].model(), np.ones(2), np.ones((5, 2)), [0])[0]
    assert bits.codes.tolist() == [[0, 1], [1, 1]]


def test_channels_of_a_grid_move_at_all_places(runs):
    model = runs["grid"][0].model()
    codes = np.random.default_rng(0).normal(size=(50, *model.units))
    start = codes[0]
    (one,) = traverse(model, start, codes, [1], reach=1, steps=3)
    moved = one.codes - start.astype(np.float32)
    assert np.allclose(moved[:, 0], 0) and np.allclose(moved[2, 1], codes[:, 1].std(), atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["table", "conditional", "texts", "images", "grid", "vectors", "bits", "categories"]
)
def test_every_kind_of_run(runs, tmp_path, kind):
    run, source = runs[kind]
    moved = run.traverse(steps=3)
    values = 2 if kind == "bits" else 3
    assert len(moved) == 2 and {len(data) for data in moved.values()} == {values}
    found = run.neighbours(source, 4, k=3)
    count = len(next(iter(source.values())) if isinstance(source, dict) else source)
    assert len(found.rows) == 3 and 4 not in found.rows and found.searched == count - 1
    same = run.neighbours(source, 4, k=1, among=source)
    assert same.distances[0] == pytest.approx(0, abs=1e-5)
    if kind in ("bits", "categories"):
        with pytest.raises(ValueError, match="real latents"):
            run.analogy(source, 0, 1, 2)
    else:
        # a - b + b = a, with the conditions of b
        one, other = run.analogy(source, 3, 5, 5), run.reconstruct(source)[3:4]
        if isinstance(one, np.ndarray):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        elif kind != "conditional":
            assert str(one) == str(other)
    suffix = {"images": ".png", "grid": ".png"}.get(kind, ".csv")
    out = tmp_path / f"t{suffix}"
    assert main(["traverse", str(run.path), "-o", str(out), "--units", "1,0"]) == 0
    assert out.stat().st_size
    if suffix == ".csv":
        first = out.read_text().replace('"', "").splitlines()[:2]
        assert first[0].startswith("unit,value,") and first[1].startswith("unit 1,")


def test_a_geodesic_is_the_shortest_decoded_path():
    def polar(z):  # the plane in polar coordinates: the shortest path is the chord
        return torch.stack([z[:, 0] * z[:, 1].cos(), z[:, 0] * z[:, 1].sin()], 1)

    ends = torch.tensor([[1.0, 0.0], [1.0, np.pi / 2]], dtype=torch.float64)
    line = torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, 17, dtype=torch.float64)[:, None])
    path = geodesic(polar, line)
    assert length(polar, line) == pytest.approx(np.pi / 2, rel=1e-3)
    assert length(polar, path) == pytest.approx(2**0.5, abs=1e-6)
    chord = torch.lerp(polar(ends[:1]), polar(ends[1:]), torch.linspace(0, 1, 17)[:, None].double())
    torch.testing.assert_close(polar(path), chord, atol=1e-4, rtol=0)


def test_a_geodesic_of_a_linear_decoder_is_the_straight_line(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    run = vs.train(x, run=tmp_path / "run", latent=2, steps=2, network="linear")
    paths = [run.interpolate(x, 0, 1, path=path) for path in ("linear", "geodesic")]
    np.testing.assert_allclose(*paths, atol=1e-3)
    np.save(tmp_path / "x.npy", x)
    command = ["interpolate", str(run.path), str(tmp_path / "x.npy"), "0", "1", "--path"]
    assert main([*command, "geodesic", "-o", str(tmp_path / "b.npy")]) == 0
    assert "of the straight line" in capsys.readouterr().out
    assert main([*command, "shortest", "-o", str(tmp_path / "c.npy")]) == 2


def test_commands(runs, tmp_path, capsys):
    run, images = runs["images"]
    np.save(tmp_path / "x.npy", images)
    source, name = str(tmp_path / "x.npy"), str(run.path)
    for command in (
        ["neighbours", name, source, "3", "-k", "2", "-o", str(tmp_path / "n.png")],
        ["neighbours", name, source, "3", "--metric", "posterior", "-o", str(tmp_path / "n.csv")],
        ["analogy", name, source, "3", "4", "5", "-o", str(tmp_path / "a.png")],
        ["traverse", name, "-o", str(tmp_path / "t.npz"), "--source", source, "--row", "7"],
    ):
        assert main(command) == 0
    assert (tmp_path / "n.csv").read_text().startswith('"row","distance"')
    with np.load(tmp_path / "t.npz") as arrays:
        assert arrays["unit_0"].shape == (9, 8, 8)
    capsys.readouterr()
    for command, words in (
        (["neighbours", name, source, "80"], "row numbers from 0 to 79"),
        (["neighbours", name, source, "3", "-k", "80"], "from 1 to 79"),
        (["neighbours", name, source, "3", "--metric", "cosine"], "euclidean"),
        (["analogy", name, source, "0", "1", "-1", "-o", str(tmp_path / "b.png")], ""),
        (["analogy", name, source, "0", "1", "99", "-o", str(tmp_path / "b.png")], "0 to 79"),
        (["traverse", name, "-o", str(tmp_path / "b.png"), "--units", "5"], "units from 0 to 1"),
        (["traverse", name, "-o", str(tmp_path / "b.png"), "--units", "x"], "0,3,7"),
        (["traverse", name, "-o", str(tmp_path / "b.png"), "--steps", "1"], "2 or more"),
        (["traverse", name, "-o", str(tmp_path / "b.txt")], ".npz"),
    ):
        assert main(command) == 2, command
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error
