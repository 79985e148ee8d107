"""What is asked of a run: its data, codes, units, attributes and map, and what it decodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import torch

from vaestro import latent
from vaestro.data import Rows
from vaestro.data.writers import pixels
from vaestro.evaluation import evaluate
from vaestro.explorer.values import as_json, numbers
from vaestro.latent import UserData
from vaestro.models import with_latent
from vaestro.randomness import torch_generator
from vaestro.records import read_object
from vaestro.report.mapping import attribute, names_rows
from vaestro.runs.session import Session

SHOWN = 10_000  # largest number of data to pick from
MAPPED = 1000  # number of codes on the map
RATED = 512  # number of data from which the rate of each unit is estimated
VALUES = 12  # largest number of values of a category with a direction each
MOST_UNITS = 4096  # largest number of units in a list
LARGEST = 1e6  # bound of the absolute value of a latent
MOST_CELLS = 2**24  # largest number of cells of a decoded batch


@dataclass(frozen=True)
class Direction:
    """Describe the direction of an attribute, to move a code along it.

    Args:
        name: NAME or NAME=VALUE.
        unit: what an amount of 1 is.
        warning: if the codes hardly depend on the attribute.
        step: is added to a code for an amount of 1, (units,).
        low, high: the range of useful amounts.
    """

    name: str
    unit: str
    warning: str
    step: list[float]
    low: float
    high: float


@final
class Engine:
    """Answer what the service asks of a session. All methods are called in one thread.

    Args:
        session: on a run whose model has a latent.

    Raises:
        ValueError: the model has no latent.

    >>> import vaestro as vs
    >>> run = vs.train(np.eye(40, dtype="uint8"), run="engine", latent=2, steps=2)
    >>> engine = Engine(vs.open(run))
    >>> engine.count, engine.units()[0]["unit"] in (0, 1)
    (2, True)
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.model = with_latent(session.model)
        self.count = math.prod(self.model.units)

    # -- what the run is ---------------------------------------------------------------------------

    @cached_property
    def rows(self) -> Rows:
        """Return the data to pick from: held-out data if there are any."""
        return self.session.data.held_out.spread(SHOWN).fixed()

    @cached_property
    def codes(self) -> np.ndarray:
        """Return the codes of the data on the map, (N, units)."""
        some = self.rows.spread(MAPPED)
        return self.session.latents(some).reshape(len(some), -1).astype(np.float32)

    @property
    def kind(self) -> str:
        """Return how the page shows a datum: image, table, text, series or vector."""
        space = self.model.space
        if space.tabular or space.ragged:
            return "table" if space.tabular else "text"
        if space.image:
            return "image"
        return "series" if space.layout.name == "series" else "vector"

    def info(self) -> dict[str, Any]:
        """Return what the run is."""
        space = self.model.space
        shape = None
        if self.kind == "image":
            shape = list(self.pictures(self.rows.take(1).outward()).shape[1:])
        return {
            "run": self.session.run.path.name,
            "space": str(space),
            "kind": self.kind,
            "shape": list(space.outside),
            "picture": shape,
            "units": self.count,
            "latent_shape": list(self.model.units),
            "alphabet": self.model.alphabet,
            "split": self.rows.name,
            "rows": len(self.rows),
            "attributes": sorted(self.rows.attributes),
            "conditions": self.condition_values(),
            "weights": self.session.weights_sha256[:12],
        }

    def condition_values(self) -> dict[str, list[Any]]:
        """Return some values of each condition of a conditional model, by name."""
        rows = self.rows
        if rows.given is None or rows.given_space is None:
            return {}
        columns = as_json(rows.given_space.outward(rows.given))
        cells = zip(*columns["rows"], strict=True)
        return {
            name: sorted({value for value in values if value is not None}, key=_order)[:100]
            for name, values in zip(columns["columns"], cells, strict=True)
        }

    @torch.inference_mode()
    def units(self) -> list[dict[str, Any]]:
        """Return each unit with its rate in nats (None if q has none per unit), the range of its
        codes, and its name, the most informative first."""
        some = self.rows.spread(RATED)
        device = next(self.model.parameters()).device
        batch = some.batch(slice(None), device)
        noise = self.model.noise(1, len(batch), torch_generator(device, 0, "explorer"))
        rate = self.model.draw(batch, 1, noise=noise).rate.mean((0, 1)).flatten().cpu().numpy()
        single = len(rate) == self.count
        activity = self.codes.var(0)
        size = rate if single else activity
        order = np.argsort(-size, kind="stable")[:MOST_UNITS]
        top = float(size[order[0]]) if len(order) else 0.0
        names = self.session.run.unit_names
        discrete = bool(self.model.alphabet)
        low, high = self.codes.min(0), self.codes.max(0)
        described = (read_object(self.session.run.path / "units.json") or {}).get("units") or []
        meanings = {unit["unit"]: unit.get("attributes") or [] for unit in described}
        return [
            {
                "unit": int(u),
                "name": names.get(int(u), ""),
                "rate": float(rate[u]) if single else None,
                "activity": float(activity[u]),
                "informative": bool(size[u] > max(0.02 * top, 1e-3)),
                "low": 0.0 if discrete else float(min(-3.0, low[u])),
                "high": 1.0 if discrete else float(max(3.0, high[u])),
                "attributes": [str(a["name"]) for a in meanings.get(int(u), []) if "name" in a][:3],
            }
            for u in order
        ]

    def attributes(self) -> list[Direction]:
        """Return the directions of the attributes; none if the run has none or discrete latents."""
        if self.model.alphabet:
            return []
        values = latent.attributes(self.rows.spread(MAPPED))
        conditions = () if self.model.given is None else self.model.given.names
        found = []
        for name, column in values.items():
            present = column[column == column]
            texts = np.unique(present.astype(str))
            many = column.dtype.kind not in "biuf" and len(texts) > VALUES
            if name in conditions or name == "file" or many or len(texts) < 2:
                continue
            if column.dtype.kind in "fM" or len(texts) in (2, *range(VALUES + 1, len(column) + 1)):
                found += self._direction(name, column)
                continue
            for value in texts:
                found += self._direction(f"{name}={value}", None)
        return found

    def _direction(self, name: str, column: np.ndarray | None) -> list[Direction]:
        """Return the direction of an attribute as the page uses it; [] if there is none."""
        try:
            along = self.session.direction(self.rows, name)
        except ValueError:
            return []
        low, high = -1.0, 1.0
        if column is not None and not along.valued and column.dtype.kind in "iuf":
            spread = 2 * float(np.nanstd(column.astype(np.float64)))
            low, high = -spread, spread
        step = along.step.astype(np.float64).ravel().tolist()
        return [Direction(along.name, along.unit, along.warning, step, low, high)]

    def map(self) -> dict[str, Any]:
        """Return codes on the plane of their two main axes (PCA), with the attributes to colour by.

        A code z is at `(z - mean) @ axes`.
        """
        mean = self.codes.mean(0)
        axes = np.zeros((self.count, 2), np.float32)
        if len(self.codes) > 2:
            found = np.linalg.svd(self.codes - mean, full_matrices=False)[2][:2].T
            axes[:, : found.shape[1]] = found
        some = self.rows.spread(MAPPED)
        colours = []
        for name, column in some.attributes.items():
            cells = np.ma.asarray(column)
            if name != "file" and not names_rows(cells):
                facts, codes = attribute(cells)
                if facts is not None:
                    colours.append({"name": name, **facts, "values": numbers(codes)})
        return {
            "points": numbers(((self.codes - mean) @ axes).astype(np.float32)),
            "rows": self.rows.places(min(MAPPED, len(self.rows))).tolist(),
            "mean": numbers(mean.astype(np.float32)),
            "axes": numbers(axes),
            "attributes": colours,
        }

    # -- data --------------------------------------------------------------------------------------

    def picked(self, numbers_: Sequence[int]) -> Rows:
        """Return some of the data.

        Raises:
            ValueError: there is no such row.
        """
        index = np.asarray(numbers_, np.int64)
        if len(index) and (index.min() < 0 or index.max() >= len(self.rows)):
            raise ValueError(f"expected row numbers from 0 to {len(self.rows) - 1:,}; got others")
        return self.rows.pick(index)

    def given(self, rows: Rows) -> list[dict[str, Any]]:
        """Return the conditions of rows, one {name: value} each; [] without conditions."""
        if rows.given is None or rows.given_space is None:
            return []
        table = as_json(rows.given_space.outward(rows.given))
        return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]

    def labels(self, rows: Rows) -> list[dict[str, Any]]:
        """Return the attributes of each row, as text."""
        return [
            {name: str(values[i]) for name, values in rows.attributes.items()}
            for i in range(len(rows))
        ]

    def encode(self, rows: Rows) -> dict[str, np.ndarray]:
        """Return `mean`, `logvar` (for families that have one) and `z`, the latents that are
        decoded, each (N, units)."""
        codes = latent.encode(self.model, rows)
        codes["z"] = latent.settled(self.model, codes["mean"])
        return {name: values.reshape(len(rows), -1) for name, values in codes.items()}

    def check(self, z: np.ndarray) -> np.ndarray:
        """Return latents as float32 (N, units).

        Raises:
            ValueError: they have another shape or are not finite, or their data are too large.
        """
        if z.dtype.kind not in "iuf" or z.ndim < 2 or math.prod(z.shape[1:]) != self.count:
            raise ValueError(f"expected latents of shape (N, {self.count}); got {z.shape}")
        if not len(z) or not (np.abs(z) < LARGEST).all():
            raise ValueError(
                f"expected one or more latents between -{LARGEST:g} and {LARGEST:g}; got others"
            )
        if len(z) * max(1, self.model.space.cells) > MOST_CELLS:
            raise ValueError(
                f"expected at most {MOST_CELLS // max(1, self.model.space.cells):,} latents in a "
                f"request; got {len(z):,}"
            )
        return z.reshape(len(z), -1).astype(np.float32)

    def decode(
        self,
        z: np.ndarray,
        condition: Mapping[str, Any],
        *,
        sample: bool = False,
        seed: int = 0,
        pictures: bool = False,
    ) -> Any:
        """Return what latents (N, units) decode to, or with `pictures` images (N, H, W, C) of
        bytes."""
        data = self.session.decode(z, condition=condition, sample=sample, seed=seed)
        return self.pictures(data) if pictures else data

    def pictures(self, data: UserData) -> np.ndarray:
        """Return images as bytes (N, H, W, C), on the scale of the data.

        Raises:
            ValueError: the data are not images.
        """
        if self.kind != "image":
            raise ValueError(f"expected a run on images for pictures; got one on {self.kind} data")
        space = self.model.space
        images = np.asarray(space.pictures(np.asarray(data)), np.float64)
        if not space.levels:
            low, high = self._extent
            images = np.clip((images - low) / ((high - low) or 1.0), 0, 1)
            return np.asarray(np.rint(255 * np.nan_to_num(images)), np.uint8)
        return pixels(images, space)

    @cached_property
    def _extent(self) -> tuple[float, float]:
        """Return the lowest and the highest value of some images without levels."""
        some = np.asarray(self.rows.spread(RATED).outward())
        return float(np.nanmin(some)), float(np.nanmax(some))

    @torch.inference_mode()
    def sample(
        self, n: int, temperature: float, seed: int, condition: Mapping[str, Any]
    ) -> np.ndarray:
        """Return n latents drawn from the prior, (n, units).

        Raises:
            ValueError: the temperature is out of range, or a condition is missing.
        """
        if not 0 <= temperature < math.inf:
            raise ValueError(f"expected a temperature of 0 or more; got {temperature}")
        device = next(self.model.parameters()).device
        given = latent.conditions(self.model, condition, n)
        z = self.model.draw_prior(
            n,
            None if given is None else given.to(device),
            torch_generator(device, seed, "explorer sample"),
            temperature=temperature,
        )
        return z.reshape(n, -1).cpu().numpy()

    def path(self, a: np.ndarray, b: np.ndarray, steps: int, *, spherical: bool) -> np.ndarray:
        """Return latents on a path from a to b, each (units,), as (steps, units).

        Raises:
            ValueError: latents are discrete, or there is no unique great circle.
        """
        if self.model.alphabet:
            raise ValueError("expected real latents to interpolate between; got discrete ones")
        z = latent.between(a.astype(np.float64), b.astype(np.float64), steps, spherical=spherical)
        return z.astype(np.float32)

    def step(self, name: str) -> np.ndarray:
        """Return what is added to a code for an amount of 1 of an attribute, (units,).

        Raises:
            ValueError: there is no such attribute.
        """
        return self.session.direction(self.rows, name).step.reshape(-1)

    def score(self, rows: Rows, k: int, seed: int) -> np.ndarray:
        """Return the ELBO of each datum in nats, (N,), from k draws."""
        estimates = evaluate(self.model, rows, k=k, methods="elbo", seed=seed).estimates
        return estimates[0].nats


def _order(value: Any) -> tuple[bool, float, str]:
    """Return a key that orders numbers by value and before texts."""
    number = isinstance(value, (int, float))
    return not number, float(value) if number else 0.0, str(value)
