"""The estimators of scikit-learn."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from vaestro.sklearn import VAEDetector, VAETransformer

TINY = {"steps": 1, "network": "linear", "batch": 8}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 2)) @ RNG.normal(size=(2, 4)) + 0.1 * RNG.normal(size=(80, 4))


@parametrize_with_checks(
    [VAETransformer(latent=1, options=TINY, k=2), VAEDetector(latent=1, options=TINY, k=2)]
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_a_fitted_estimator_is_pickled_without_modules_and_without_data():
    vae = VAETransformer(options=TINY, random_state=0).fit(X)
    state = pickle.dumps(vae)
    assert b"ctorch" not in state  # the opcode that names an object of a module
    assert all(isinstance(value, bytes) for value in vae.__getstate__()["files_"].values())
    again = pickle.loads(state)
    np.testing.assert_array_equal(again.transform(X), vae.transform(X))
    np.testing.assert_array_equal(again.score_samples(X), vae.score_samples(X))
    assert pickle.loads(pickle.dumps(again)).run_.path.exists()
    assert not (again.run_.path / "data.npy").exists()


def test_pipeline_grid_search_and_workers():
    pipe = make_pipeline(StandardScaler(), VAETransformer(options=TINY, random_state=0, k=2))
    grid = GridSearchCV(pipe, {"vaetransformer__latent": [1, 2]}, cv=2, n_jobs=2).fit(X)
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()
    assert grid.transform(X).shape[0] == 80
    assert np.isfinite(cross_val_score(clone(pipe), X, cv=2)).all()


def test_pandas_in_and_out():
    frame = pd.DataFrame(X, columns=list("abcd"), index=range(10, 90))
    vae = VAETransformer(options=TINY, random_state=0).set_output(transform="pandas").fit(frame)
    codes = vae.transform(frame)
    assert list(codes.columns) == ["vaetransformer0", "vaetransformer1"]
    assert codes.index.equals(frame.index)
    with pytest.raises(ValueError, match="feature names"):
        vae.transform(frame[list("dcba")])


def test_the_seed_decides():
    a, b, c = (VAETransformer(options=TINY, random_state=s).fit(X).transform(X) for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


def test_the_detector_finds_planted_rows_at_its_rate():
    options = {"steps": 300, "network": "mlp:width=32", "batch": 64}
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(2, 6))
    new = lambda n: rng.normal(size=(n, 2)) @ mixing + 0.2 * rng.normal(size=(n, 6))  # noqa: E731
    detector = VAEDetector(options=options, held_out=0.4, random_state=0, k=10).fit(new(1000))
    assert detector.n_held_out_ == 400
    alarms = (detector.predict(new(2000)) == -1).mean()
    # 5 %, of 400 held-out and 2,000 new rows: standard error .0119
    assert abs(alarms - 0.05) < 4 * 0.0119
    planted = rng.permuted(new(400), axis=0)  # the same margins, without their dependence
    assert (detector.predict(planted) == -1).mean() > 0.5


def test_wrong_arguments_are_refused():
    for arguments in ({"contamination": 0.9}, {"false_alarm": 0}, {"held_out": 2.0}):
        with pytest.raises(ValueError, match=r"expected .*; got "):
            VAEDetector(options=TINY, **arguments).fit(X)
    vae = VAETransformer(options=TINY, random_state=0).fit(X)
    with pytest.raises(ValueError, match="expected latents of 2 units; got 3"):
        vae.inverse_transform(np.zeros((4, 3)))
