"""Numbers over time: arrays (N, T, C), of which some end early."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

import vaestro as vs
from tests.conftest import make_space, make_values
from vaestro.cli import main
from vaestro.spaces import Batch, Kind

NETWORKS = [
    "conv1d:width=8",
    "gru:width=16",
    "transformer:width=16,layers=1,heads=2",
    "residual:width=16",
]
TIMES = 24


def waves(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw series of two channels, waves of a random phase and size with noise, in units of their
    own: (N, T, 2), and exact log p."""
    r = np.random.default_rng(seed)
    t = np.arange(TIMES)
    # (2, T, 2)
    basis = np.stack(
        [
            np.stack([np.sin(0.4 * t), np.cos(0.4 * t)]),
            np.stack([np.cos(0.4 * t), -np.sin(0.4 * t)]),
        ],
        -1,
    )
    noise, scale, offset = 0.3, np.array([1.0, 50.0]), np.array([3.0, -200.0])
    x = (
        np.einsum("nk,ktc->ntc", r.normal(size=(n, 2)), basis)
        + noise * r.normal(size=(n, TIMES, 2))
    ) * scale + offset
    flat = (basis * scale).reshape(2, -1)
    covariance = flat.T @ flat + np.diag((noise * np.tile(scale, TIMES)) ** 2)
    exact = scipy.stats.multivariate_normal(np.tile(offset, TIMES), covariance).logpdf(
        x.reshape(n, -1)
    )
    return x, exact


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "likelihood", ["gaussian", "gaussian:variance=pixel", "student-t:scale=pixel"]
)
def test_every_network_makes_and_reads_series(network: str, likelihood: str) -> None:
    torch.manual_seed(0)
    space = make_space(Kind.REAL, (11, 2), missing=True)
    model = vs.build(space, latent=3, network=network, likelihood=likelihood)
    batch = Batch(torch.from_numpy(make_values(space, 4)), torch.rand(4, 11, 2) < 0.7)
    draws = model.draw(batch, 3)
    assert draws.log_px.shape == (3, 4) and torch.isfinite(draws.log_w).all()
    grads = torch.autograd.grad(
        -vs.elbo(draws).mean(),
        [p for p in model.parameters() if p.requires_grad],
        materialize_grads=True,
    )
    named = dict(
        zip([n for n, p in model.named_parameters() if p.requires_grad], grads, strict=True)
    )
    assert [n for n, g in named.items() if not g.any()] == []
    assert model.decode(torch.zeros(2, 3)).mean.shape == (1, 2, 11, 2)
    later = Batch(batch.x.roll(1, 1), batch.observed)
    assert not torch.allclose(model.posterior(batch).mean, model.posterior(later).mean), (
        "the order of times is read"
    )


@pytest.mark.parametrize("channels", [0, 2])
def test_parquet_with_one_series_a_row(tmp_path: Path, channels: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    r = np.random.default_rng(0)
    lengths = r.integers(3, 13, 200)
    made = [r.normal(5, 2, (n, channels) if channels else n).astype(np.float32) for n in lengths]
    made[7] = made[7][:0]
    kind = pa.list_(pa.list_(pa.float32())) if channels else pa.list_(pa.float32())
    table = pa.table(
        {"x": pa.array([row.tolist() for row in made], kind), "label": [i % 4 for i in range(200)]}
    )
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=64)
    data = vs.load(f"{tmp_path / 'x.parquet'}:series=true", condition=["label"])
    assert (
        data.space.shape == (12, channels or 1) and "1 rows without a series left out" in data.notes
    )
    held = [i for i in range(200) if i != 7]
    for place in (0, 50):
        i = held[data.train.index[place]]
        row = data.train.outward()[place]
        assert (
            np.allclose(row[: len(made[i])], made[i], atol=1e-4)
            and np.isnan(row[len(made[i]) :]).all()
        )
        assert data.train.attributes["label"][place] == i % 4
    assert vs.load(data.source, condition=["label"]).train.sha256() == data.train.sha256(), (
        "what is kept of the source can be read again"
    )
    shorter = table.slice(8, 30)
    pq.write_table(
        shorter.set_column(0, "x", pa.array([row[:4] for row in shorter["x"].to_pylist()], kind)),
        tmp_path / "y.parquet",
    )
    run = vs.train(data.source, run=tmp_path / "run", steps=5, latent=2)
    out = tmp_path / "z.npz"
    assert (
        main(["encode", str(run.path), f"{tmp_path / 'y.parquet'}:series=true", "-o", str(out)])
        == 0
    )
    assert np.load(out)["mean"].shape == (30, 2)
    (tmp_path / "parts").mkdir()
    for s in range(2):
        pq.write_table(table.slice(100 * s, 100), tmp_path / "parts" / f"{s}.parquet")
    assert len(vs.load(f"{tmp_path / 'parts'}:series=true").train) == len(data.train)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"cut\.parquet"):
        vs.load(f"{tmp_path / 'cut.parquet'}:series=true")


def test_channels_are_standardised_each_over_time(tmp_path: Path) -> None:
    x, _ = waves(200)
    np.save(tmp_path / "x.npy", x)
    data = vs.load(f"{tmp_path / 'x.npy'}:series=true")
    assert (
        data.space.shape == (TIMES, 2)
        and not data.space.image
        and str(data.space) == f"real series ({TIMES}, 2)"
    )
    own = x[data.train.index].reshape(-1, 2)
    np.testing.assert_allclose(
        data.space.offset, np.broadcast_to(own.mean(0), (TIMES, 2)), rtol=1e-6
    )
    np.testing.assert_allclose(data.space.scale, np.broadcast_to(own.std(0), (TIMES, 2)), rtol=1e-6)
    np.testing.assert_allclose(data.train.outward(), x[data.train.index], rtol=1e-4)
    np.save(tmp_path / "y.npy", x[..., 0])
    flat = vs.load(f"{tmp_path / 'y.npy'}:series=true")
    assert flat.space.shape == (TIMES, 1) and flat.space.outside == (TIMES,)
    np.testing.assert_allclose(flat.test.outward(), x[..., 0][flat.test.index], rtol=1e-4)


@pytest.mark.parametrize("network", ["conv1d:width=12", "gru:width=32"])
def test_the_bound_lies_below_the_truth_and_near_it(tmp_path: Path, network: str) -> None:
    x, exact = waves(1500)
    np.save(tmp_path / "x.npy", x)
    run = vs.train(
        f"{tmp_path / 'x.npy'}:series=true,valid=100,test=300",
        run=tmp_path / "run",
        latent=2,
        network=network,
        steps=400,
        batch=64,
        lr=1e-2,
    )
    rows = run.data().test
    short = exact[rows.index] - vs.evaluate(run.model(), rows, k=100)["iwae"].nats
    assert short.mean() > -3 * short.std() / math.sqrt(len(short))
    assert short.mean() < 4.0


def test_the_whole_way_with_series_that_end_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, _ = waves(200)
    for i, end in enumerate(np.random.default_rng(0).integers(10, TIMES + 1, 200)):
        x[i, end:] = np.nan
    np.save(tmp_path / "x.npy", x)
    source, run = f"{tmp_path / 'x.npy'}:series=true,missing=nan", str(tmp_path / "run")

    def say(*words: str) -> str:
        assert main([*words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    said = say("train", source, "--run", run, "--latent", "2", "--steps", "40")
    assert "test series" in said
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert "conv1d" in json.dumps(config)
    say("evaluate", run, "--k", "10")
    say("sample", run, "-n", "5", "-o", str(tmp_path / "samples.npy"))
    samples = np.load(tmp_path / "samples.npy")
    assert samples.shape == (5, TIMES, 2) and abs(np.nanmean(samples[..., 1]) + 200) < 60
    say("impute", run, source, "-o", str(tmp_path / "whole.npy"))
    whole = np.load(tmp_path / "whole.npy")
    # only the cells before the end of a series exist
    assert (np.isnan(whole) == np.isnan(x)).all()
    np.testing.assert_allclose(whole[~np.isnan(x)], x[~np.isnan(x)], rtol=1e-4)
    say("interpolate", run, source, "0", "1", "-o", str(tmp_path / "way.npy"))
    assert np.load(tmp_path / "way.npy").shape == (9, TIMES, 2)
    say("diagnose", run)
    say("report", run)
    assert "10 test series" in (tmp_path / "run" / "report.html").read_text()


def test_what_is_no_series_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 2, 3, 4)))
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(30, 6)))
    for words, said in (
        (
            ["x.npy:series=true"],
            "expected series as an array (N, T) or (N, T, C); got (N, 2, 3, 4)",
        ),
        (["x.npy:series=perhaps"], "expected series to be true or false"),
        (["v.npy:standardise=channel"], "expected standardise=channel for data with channels"),
        (
            ["v.npy", "--network", "conv1d"],
            "expected texts or series on one side of a network for sequences",
        ),
    ):
        assert (
            main(["train", f"{tmp_path}/{words[0]}", *words[1:], "--run", str(tmp_path / "run")])
            == 2
        )
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and said in error
