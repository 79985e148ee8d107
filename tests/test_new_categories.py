"""New categories of a condition, learned with all other weights unchanged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vaestro as vs
from tests.test_counts import write_h5ad
from vaestro.new_categories import NEW_CATEGORIES, feature_map, grown
from vaestro.spaces import Batch, BinarySpace, CategoryColumn, RealColumn, TableSpace

GENES = [f"gene{i}" for i in range(6)]
OPTIONS = {"latent": 2, "network": "mlp:width=8", "device": "cpu", "batch": 16}


def cells(path: Path, labs: str, seed: int, genes: list[str] = GENES) -> Path:
    """Write 120 cells of labs, whose counts depend on the name of the gene."""
    r = np.random.default_rng(seed)
    depth = np.exp(r.normal(5, 0.3, 120))
    mean = np.array([1.0 + GENES.index(g) if g in GENES else 1.0 for g in genes])
    x = r.poisson(depth[:, None] * mean / mean.sum())
    obs = {"lab": np.array(list(labs))[r.integers(len(labs), size=120)], "depth": depth}
    return write_h5ad(path, x, obs, genes=genes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with cells of labs a and b, a run on them, and one that learned lab c."""
    path = tmp_path_factory.mktemp("labs")
    vs.train(
        str(cells(path / "old.h5ad", "ab", 0)),
        run=path / "old",
        likelihood="negative-binomial:library=depth,dispersion=condition",
        condition=["lab"],
        steps=40,
        **OPTIONS,
    )
    cells(path / "new.h5ad", "ca", 1, GENES[::-1])
    learn(path, "new")
    return path


def learn(path: Path, name: str, source: str = "new.h5ad", **options: object) -> vs.Run:
    more = {"steps": 20, "batch": 16, "device": "cpu", "freeze": [NEW_CATEGORIES]} | options
    return vs.train(str(path / source), run=path / name, init=str(path / "old"), **more)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def check_known_weights(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> None:
    """Check that all weights but those of lab c are those of the old run, bit for bit."""
    assert old.keys() == new.keys()
    several = {n for n in old if old[n].shape != new[n].shape}
    networks = {"posterior.encoder.hidden.0.weight", "likelihood.decoder.hidden.0.weight"}
    assert several == networks | {"likelihood.by_category"}
    assert all(torch.equal(old[n], new[n]) for n in old.keys() - several)
    for name in several:
        *rest, lab = old[name].unbind(1)  # a and b are -1 and 1 times the weight of a binary column
        *kept, a, b, c = new[name].unbind(1)
        assert torch.equal(torch.stack(rest), torch.stack(kept))
        assert torch.equal(a, -lab) and torch.equal(b, lab)
        assert not torch.equal(c, torch.zeros_like(c))


def test_only_the_weights_of_the_new_category_are_trained(folder: Path) -> None:
    check_known_weights(weights(folder / "old"), weights(folder / "new"))


def test_known_categories_are_encoded_and_reconstructed_as_before(folder: Path) -> None:
    old, new = vs.open(folder / "old"), vs.open(folder / "new")
    source = str(folder / "old.h5ad")
    for before, after in zip(*(s.encode(source).values() for s in (old, new)), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new.reconstruct(source), old.reconstruct(source), rtol=1e-5)


def test_the_new_category_improves_its_own_bound_and_has_its_own_name(folder: Path) -> None:
    run = vs.Run(folder / "new")
    valid = [m["bound"] for m in run.metrics() if m["split"] == "valid"]
    assert max(valid[1:]) > valid[0]
    column = next(c for c in run.model().given.columns if c.name == "lab")
    assert column.values == ("a", "b", "c") and column.added == 1
    assert run.data().space.names == vs.Run(folder / "old").data().space.names == tuple(GENES)


def test_a_resumed_run_trains_the_same_weights(folder: Path) -> None:
    run = learn(folder, "stopped", steps=6)
    before = weights(run.path)
    assert vs.resume(run.path, steps=20).finished
    after = weights(run.path)
    check_known_weights(weights(folder / "old"), after)
    assert any(not torch.equal(before[n], after[n]) for n in before)


def test_further_steps_of_a_diagnosis_train_the_same_weights(folder: Path) -> None:
    run = vs.Run(folder / "new")
    before = weights(run.path)
    run.diagnose()
    assert all(torch.equal(before[n], w) for n, w in run.model().state_dict().items())


def test_refusals(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"got c .*--freeze all-but-new-categories learns"):
        learn(folder, "other", freeze=None)
    with pytest.raises(ValueError, match="expected a condition with categories that the run"):
        learn(folder, "other", "old.h5ad")
    cells(folder / "fewer.h5ad", "c", 2, GENES[:5])
    with pytest.raises(ValueError, match="gene5"):
        learn(folder, "other", "fewer.h5ad")
    with pytest.raises(ValueError, match="since the prior is frozen"):
        learn(folder, "other", prior="mixture:components=2")
    with pytest.raises(ValueError, match="or all-but-new-categories; got 'decoder'"):
        learn(folder, "other", "old.h5ad", freeze=["decoder"])


@pytest.mark.parametrize(
    ("network", "prior"),
    [
        ("mlp:width=8", "conditional"),
        ("mlp:depth=0", "mixture:components=3"),
        ("residual:width=8", "normal"),
        ("conv:width=4", "normal"),
    ],
)
def test_a_grown_model_is_the_same_for_known_categories(network: str, prior: str) -> None:
    """A number and two conditions, of which the first gets new categories; the features move."""
    pair = CategoryColumn("kind", "str", ("u", "v", "w"))
    number = RealColumn("age", "float64")
    known = TableSpace.of([CategoryColumn("lab", "str", ("a", "b", "c")), pair, number])
    lab = CategoryColumn("lab", "str", ("a", "b", "c", "d", "e"), added=2)
    given = TableSpace.of([lab, pair, number])
    shape = (1, 8, 8) if network.startswith("conv") else (5,)
    space, more = BinarySpace(shape, shape), {"latent": 2, "network": network, "prior": prior}
    torch.manual_seed(0)
    old, new = (vs.build(space, given=g, **more) for g in (known, given))
    with torch.no_grad():
        for p in old.parameters():
            p.add_(0.1 * torch.randn_like(p))
    new.load_state_dict(grown(old, given))
    rows = torch.tensor([[0.3, 0, 2], [-1.0, 2, 1], [0.5, 1, 0]])
    x = torch.randint(2, (3, *shape)).float()
    noise = old.noise(2, 3, torch.Generator().manual_seed(0))
    terms = [
        m.eval().draw(Batch(x, None, s.features(rows, None, torch.float32)), noise=noise).log_w
        for m, s in ((old, known), (new, given))
    ]
    torch.testing.assert_close(*terms)
    assert feature_map(known, given).shape == (7, 9)


def test_a_network_without_declared_weights_is_refused(tmp_path: Path) -> None:
    options = OPTIONS | {"steps": 3, "prior": "maf:layers=1,width=8"}
    old = {"x": np.arange(60.0) ** 1.5, "y": np.arange(60.0) ** 0.5, "lab": ["a", "b"] * 30}
    run = vs.train(old, run=tmp_path / "old", condition=["lab"], **options)
    with pytest.raises(ValueError, match="expected the prior normal, conditional or mixture"):
        vs.train(
            old | {"lab": ["c", "b"] * 30},
            run=tmp_path / "new",
            init=str(run.path),
            freeze=[NEW_CATEGORIES],
            steps=3,
        )
