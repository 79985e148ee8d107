"""Python as people write it: vs.fit, its methods, and what they return for what they are given."""

from __future__ import annotations

import gc
import inspect
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow
import pytest
import scipy.sparse

import vaestro as vs
from vaestro.data.source_options import ROWS
from vaestro.latent import direction

TINY = {"latent": 2, "steps": 2, "batch": 16}
MLP = TINY | {"network": "mlp:width=8"}
random = np.random.default_rng(0)
REAL = random.normal(size=(60, 3)).astype(np.float32)
TABLE = pd.DataFrame(
    {
        "size": REAL[:, 0].astype(np.float64),
        "colour": random.choice(["red", "blue"], 60),
        "count": random.poisson(3, 60),
    },
    index=[f"row{i}" for i in range(60)],
)
COUNTS = random.poisson(1, (60, 5)).astype(np.float32)
SERIES = [random.normal(size=(int(random.integers(4, 9)), 2)) for _ in range(60)]
TEXTS = ["".join(random.choice(list("abc"), 5)) for _ in range(60)]
KINDS = {
    "array": (REAL, MLP),
    "images": (random.integers(0, 256, (60, 8, 8), dtype=np.uint8), MLP),
    "pandas": (TABLE, MLP),
    "arrow": (pyarrow.table(TABLE.reset_index(drop=True)), MLP),
    "mapping": ({"a": REAL[:, 0].tolist(), "b": REAL[:, 1].tolist()}, MLP),
    "texts": (TEXTS, TINY),
    "series": (SERIES, TINY),
    "sparse": (scipy.sparse.csr_matrix(COUNTS), MLP),
    "anndata": (anndata.AnnData(COUNTS), MLP),
    "grid": (REAL, MLP | {"model": "independent", "latent": None, "network": None}),
}


@pytest.fixture(scope="module")
def fitted():
    """Return a function that fits a model to each kind of data once."""
    runs: dict[str, vs.Run] = {}

    def get(kind: str) -> vs.Run:
        if kind not in runs:
            data, options = KINDS[kind]
            runs[kind] = vs.fit(data, **{k: v for k, v in options.items() if v is not None})
        return runs[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_scores_and_samples(fitted, kind):
    data, m = KINDS[kind][0], fitted(kind)
    scores = m.score_samples(data, k=3)
    assert scores.shape == (60,) and np.isfinite(scores).all()
    assert len(m.sample(3)) == 3
    if kind == "grid":
        with pytest.raises(ValueError, match="no latent"):
            m.transform(data)
        return
    codes = m.transform(data)
    assert codes.shape == (60, 2) and np.isfinite(codes).all()
    np.testing.assert_array_equal(codes, m.encode(data)["mean"])


def test_score_samples_are_those_of_the_evaluation(fitted):
    m = fitted("array")
    rows = m.data().test
    expected = vs.evaluate(m.model(), rows, k=7, methods="iwae")["iwae"].nats
    np.testing.assert_array_equal(m.score_samples(rows, k=7), expected)
    more = m.score_samples(REAL, k=200).mean()
    assert more > m.score_samples(REAL, k=1).mean()  # 60 rows: a bound rises with k


@pytest.mark.parametrize(
    ("kind", "one"),
    [
        ("array", REAL[5]),
        ("images", KINDS["images"][0][5]),
        ("pandas", TABLE.iloc[5]),
        ("pandas", TABLE.iloc[5].to_dict()),
        ("pandas", TABLE.iloc[5:6]),
        ("texts", TEXTS[5]),
    ],
)
def test_one_datum_is_a_row(fitted, kind, one):
    m = fitted(kind)
    expected = m.transform(KINDS[kind][0])[5:6]
    np.testing.assert_allclose(m.transform(one), expected, rtol=1e-4, atol=1e-5)
    assert m.score_samples(one, k=2).shape == (1,)


def test_a_text_like_a_path_is_a_path(fitted):
    with pytest.raises(ValueError, match=r"nowhere\.txt"):
        fitted("texts").transform("nowhere.txt")


def test_pandas_comes_back_as_pandas(fitted):
    m = fitted("pandas")
    back = m.reconstruct(TABLE)
    assert list(back.columns) == list(TABLE.columns) and back.index.equals(TABLE.index)
    holes = TABLE.copy()
    holes.loc["row3", "size"] = np.nan
    m = vs.fit(holes, **MLP)
    filled = m.impute(holes, k=3)
    assert isinstance(filled, pd.DataFrame) and filled.index.equals(holes.index)
    assert filled["size"].notna().all()
    assert (filled.dtypes == TABLE.dtypes).all()
    pd.testing.assert_frame_equal(filled.drop("row3"), TABLE.drop("row3"))
    rows = m.data().train
    rows = replace(rows, attributes={"long": np.arange(len(rows)) % 2})
    edited = m.edit(holes, direction(m.model(), rows, "long", None))
    assert isinstance(edited, pd.DataFrame) and edited.index.equals(holes.index)


def test_a_temporary_run_is_removed_and_a_saved_one_stays(tmp_path):
    m = vs.fit(REAL, **MLP)
    folder = m.path
    codes = m.transform(REAL)
    saved = m.save(tmp_path / "mine")
    with pytest.raises(ValueError, match="expected a new run folder; got"):
        m.save(tmp_path / "mine")
    del m
    gc.collect()
    assert not folder.exists() and not folder.parent.exists()
    np.testing.assert_array_equal(saved.transform(REAL), codes)
    assert len(saved.data().train) == 54 and Path(saved.config["source"].split(":")[0]).exists()
    assert saved.evaluate(k=2)["iwae"].nats.shape == (3,)
    assert vs.resume(saved.path, steps=3).metrics()[-1]["step"] == 3


def test_a_run_with_a_folder_stays(tmp_path):
    path = vs.fit(REAL, run=tmp_path / "kept", **MLP).path
    gc.collect()
    assert vs.Run(path).finished


def test_progress_is_shown_only_if_asked(capsys):
    vs.fit(REAL, **MLP)
    assert capsys.readouterr().out == ""
    vs.fit(REAL, progress=True, **MLP)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("step 2 / 2") for line in lines)
    assert any(line.startswith("log p(x) >=") and "+-" in line.replace("±", "+-") for line in lines)
    assert any("latent units are active" in line for line in lines)
    assert lines[-1].startswith("Next:")


def test_the_signature_completes():
    for function in (vs.fit, vs.train):
        names = set(inspect.signature(function).parameters)
        assert {"latent", "epochs", "progress", *(row.name for row in ROWS)} <= names


@pytest.mark.parametrize("wrong", [3, object(), None])
def test_what_is_not_data_is_refused(wrong, fitted):
    with pytest.raises(ValueError, match=r"expected .*; got "):
        vs.fit(wrong, **MLP)
    with pytest.raises(ValueError, match=r"expected .*; got "):
        fitted("array").transform(wrong)


def test_samples_of_a_run_fitted_to_a_dataframe_are_one():
    random = np.random.default_rng(0)
    sex = pd.Categorical(random.choice(["f", "m"], 90))
    table = pd.DataFrame({"age": random.integers(18, 90, 90), "sex": sex})
    m = vs.fit(table, latent=2, steps=2, network="mlp:width=8")
    for data in (m.sample(90), m.decode(m.transform(table))):
        assert isinstance(data, pd.DataFrame) and list(data) == ["age", "sex"]
        assert data.dtypes.to_dict() == table.dtypes.to_dict()
        assert data.index.equals(pd.RangeIndex(90))
    assert not isinstance(vs.Run(m.path).sample(2), pd.DataFrame)
    m.report()
