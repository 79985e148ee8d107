"""Estimators of scikit-learn: `VAETransformer` and `VAEDetector`.

They fit a model by `vs.fit` and follow the conventions of scikit-learn: constructor arguments are
stored unchanged, results do not depend on the order or the number of rows, and a fitted estimator
can be pickled. Its state is the files of the run as bytes, without the data; modules of PyTorch are
never pickled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    OutlierMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from vaestro.files import Json
from vaestro.runs import Run, fit
from vaestro.runs.saving import remove_with, temporary_folder

if TYPE_CHECKING:
    from numpy.random import RandomState
    from numpy.typing import ArrayLike

CHUNK = 128  # rows at once; all batches are padded to it, so that rounding depends on no other row
LEAST = 10  # the fewest rows that are fitted
# the files of a run that a fitted estimator needs
FILES = ("config.yaml", "config.json", "metrics.jsonl", "model.safetensors", "kept.json")


class _VAE(BaseEstimator):
    """Fit a model, and score rows by it."""

    latent: int
    options: Mapping[str, Json] | None
    k: int
    random_state: int | RandomState | None
    run_: Run

    def _fit(self, X: np.ndarray, seed: int) -> Run:
        """Fit a model to rows, (N, D)."""
        given = {"kind": "real", "low": "none", "high": "none", **(self.options or {})}
        given = {name: value for name, value in given.items() if value is not None}
        if given.get("kind") != "real":
            given = {n: v for n, v in given.items() if n not in ("low", "high")}
        return fit(X, latent=self.latent, progress=False, **{"seed": seed, **given})

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _checked(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, reset=False, dtype="numeric"), np.float64)

    def _bounds(self, X: np.ndarray) -> np.ndarray:
        """Return the IWAE bound of each row, (N,), in nats. All rows have the same noise, so the
        score of a row does not depend on the others."""
        import torch

        from vaestro.objectives import iwae
        from vaestro.randomness import torch_generator

        model = self.run_.session.model
        rows = self.run_.session.rows(_padded(X)).fixed()
        noise = model.noise(self.k, 1, torch_generator(torch.device("cpu"), 0, "sklearn"))
        noise = noise.expand(-1, CHUNK, *noise.shape[2:])
        with torch.inference_mode():
            bounds = [iwae(model.draw(batch, noise=noise)) for batch in rows.chunks(CHUNK)]
        return torch.cat(bounds).double().numpy()[: len(X)]

    def __sklearn_is_fitted__(self) -> bool:
        return "run_" in self.__dict__

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        run = state.pop("run_", None)
        if run is not None:
            files = [run.path / name for name in FILES]
            state["files_"] = {file.name: file.read_bytes() for file in files if file.exists()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        files = state.pop("files_", None)
        super().__setstate__(state)
        if files is None:
            return
        folder = temporary_folder()
        for name in FILES:
            if name in files:
                Path(folder, name).write_bytes(files[name])
        self.run_ = Run(folder)
        remove_with(self.run_, folder)


def _padded(X: np.ndarray) -> np.ndarray:
    """Return rows with copies of the last one, so that their number is a multiple of CHUNK."""
    return np.concatenate([X, np.repeat(X[-1:], -len(X) % CHUNK, 0)])


@final
class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _VAE):
    """Transform rows to the means of their latents, and back.

    Args:
        latent: number of latent units, the number of features out.
        options: further options of `vs.fit`, {name: value}, such as {"epochs": 20}. Columns are
            real unless `kind` says something else; {"kind": None} infers it.
        k: number of draws for each row in `score_samples`.
        random_state: seed of the training; None for a new one at each fit.

    Attributes:
        run_: the run, with all methods of `vs.Run`; its folder is temporary.
        n_features_in_, feature_names_in_: as in scikit-learn.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(60, 3))
    >>> vae = VAETransformer(latent=2, options={"steps": 2}, random_state=0).fit(X)
    >>> vae.transform(X).shape, vae.inverse_transform(vae.transform(X)).shape
    ((60, 2), (60, 3))
    >>> vae.get_feature_names_out().tolist()
    ['vaetransformer0', 'vaetransformer1']
    """

    def __init__(
        self,
        latent: int = 2,
        *,
        options: Mapping[str, Json] | None = None,
        k: int = 50,
        random_state: int | RandomState | None = None,
    ) -> None:
        self.latent, self.options, self.k = latent, options, k
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit the model to rows, (N, D); y is ignored.

        Raises:
            ValueError: the rows or an option are invalid.
        """
        rows = validate_data(self, X, dtype="numeric", ensure_min_samples=LEAST)
        self.run_ = self._fit(np.asarray(rows, np.float64), self._seed())
        return self

    @property
    def _n_features_out(self) -> int:
        return math.prod(self.run_.session.model.units)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Return the mean of q(z | x) of each row, (N, latent).

        Raises:
            ValueError: the rows have other columns than those of `fit`.
        """
        rows = self._checked(X)
        codes = [self.run_.transform(part) for part in _parts(rows)]
        return np.concatenate(codes)[: len(rows)].astype(np.float64)

    def inverse_transform(self, X: ArrayLike) -> np.ndarray:
        """Return the mean of p(x | z) at latents (N, latent), (N, D).

        Raises:
            ValueError: the latents have another number of units.
        """
        check_is_fitted(self)
        codes = np.asarray(check_array(X), np.float32)
        if codes.shape[1] != self._n_features_out:
            raise ValueError(
                f"expected latents of {self._n_features_out} units; got {codes.shape[1]}"
            )
        shape = self.run_.session.model.units
        return np.asarray(self.run_.decode(codes.reshape(-1, *shape)), np.float64)

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Return a lower bound of log p(x) of each row, (N,), in nats: IWAE with k draws (Burda,
        Grosse and Salakhutdinov 2016)."""
        return self._bounds(self._checked(X))

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Return the mean of `score_samples`, by which GridSearchCV compares; y is ignored."""
        return float(self.score_samples(X).mean())


@final
class VAEDetector(OutlierMixin, _VAE):
    """Detect rows that are improbable under a model of the others.

    The score of a row is its bound on log p(x). The threshold is a quantile of the scores of rows
    that were held out from the fit, because a model scores its own training rows too high.

    Args:
        latent, options, k, random_state: see `VAETransformer`.
        contamination: "auto", or the share of outliers among the rows of `fit`; the threshold is
            then the quantile of their scores, as in other detectors of scikit-learn.
        false_alarm: with contamination="auto", the share of held-out rows below the threshold.
        held_out: with contamination="auto", the share of rows that are held out.

    Attributes:
        run_: the run; its folder is temporary.
        offset_: the threshold, in nats: rows with a lower score are outliers.
        n_held_out_: number of held-out rows from which the threshold was estimated; 0 if it is that
            of the rows of `fit`: with `contamination`, or if only 10 rows were given.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(60, 3))
    >>> detector = VAEDetector(latent=2, options={"steps": 2}, random_state=0).fit(X)
    >>> detector.predict(X + 100.0)[:3].tolist()
    [-1, -1, -1]
    """

    def __init__(
        self,
        latent: int = 2,
        *,
        options: Mapping[str, Json] | None = None,
        k: int = 50,
        contamination: float | str = "auto",
        false_alarm: float = 0.05,
        held_out: float = 0.2,
        random_state: int | RandomState | None = None,
    ) -> None:
        self.latent, self.options, self.k = latent, options, k
        self.contamination, self.false_alarm = contamination, false_alarm
        self.held_out, self.random_state = held_out, random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit the model to rows, (N, D), and set the threshold; y is ignored.

        Raises:
            ValueError: the rows or an option are invalid.
        """
        rows = validate_data(self, X, dtype="numeric", ensure_min_samples=LEAST)
        rows = np.asarray(rows, np.float64)
        auto = isinstance(self.contamination, str) and self.contamination == "auto"
        share = self.false_alarm if auto else self.contamination
        name = "false_alarm" if auto else "contamination"
        if not isinstance(share, (int, float)) or not 0 < share <= 0.5:
            more = "" if auto else '"auto" or '
            raise ValueError(f"expected {name} as {more}a share in (0, 0.5]; got {share!r}")
        if auto and not 0 < self.held_out < 1:
            raise ValueError(f"expected held_out as a share in (0, 1); got {self.held_out!r}")
        seed = self._seed()
        judged = rows
        if auto:
            order = np.random.default_rng(seed).permutation(len(rows))
            number = min(max(1, round(self.held_out * len(rows))), len(rows) - LEAST)
            judged, rows = rows[order[:number]], rows[order[number:]]
        self.run_ = self._fit(rows, seed)
        self.n_held_out_ = len(judged) if auto else 0
        judged = judged if len(judged) else rows
        self.offset_ = float(np.quantile(self._bounds(judged), share))
        return self

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Return the bound on log p(x) of each row, (N,), in nats; lower for outliers."""
        return self._bounds(self._checked(X))

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return `score_samples` minus the threshold, (N,), in nats; negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return -1 for outliers and 1 for other rows, (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def _parts(X: np.ndarray) -> list[np.ndarray]:
    """Return rows in parts of CHUNK rows, the last one padded."""
    return np.split(_padded(X), -(-len(X) // CHUNK))
