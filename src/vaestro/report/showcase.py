"""Choose what a report shows of a model at work, and write RUN/showcase.json and showcase.npz.

Images are stored as bytes (N, H, W, C); other data as rows of text, with histograms of columns, or
of the number of tokens of texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch

import vaestro
from vaestro.data import Rows
from vaestro.data.writers import pixels, write_arrays
from vaestro.files import Json
from vaestro.latent import UserData
from vaestro.models import LatentModel, Model, with_latent
from vaestro.randomness import torch_generator
from vaestro.records import Damaged, read_arrays, read_object, write_record
from vaestro.report.distributions import LINE, shortened, shown_rows
from vaestro.report.mapping import latent_map
from vaestro.report.reading import SHOWCASE_FORMAT, diffusion_stamp
from vaestro.runs import Run
from vaestro.runs.manifest import results
from vaestro.spaces import Space
from vaestro.tokens import Texts

if TYPE_CHECKING:
    from vaestro.runs.session import Session

MAPPED = 1000  # number of codes on the map
PAIRS = 24  # number of data that are shown with their reconstructions
HARDEST = 12
SAMPLES = 48
UNITS = 8  # traversed
TRIFLE = 0.02  # share of the most active unit's rate below which a unit is not traversed
STEPS = 9
RANGE = 3.0
SIDE = 96  # the longest side of images that are shown
THUMBNAIL = 28
COUNTED = 2000  # rows of data, and of samples, in histograms
WRITTEN = 200  # number of sampled texts
BETWEEN, WAY = 3, 5  # pairs of texts to interpolate between, and the number of codes


class Moves(TypedDict):
    """Describe a traversal: which units (or one-hot groups) take which values.

    `spread` is the number by which the units are ranked, and `by` names it.
    """

    units: list[int]
    what: str
    spread: list[float]
    by: str
    offsets: list[float]


@dataclass
class Showcase:
    """Collect what is shown: values for JSON, arrays, and a line for each part that could not be
    computed."""

    facts: dict[str, Json] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def save(self, run: Run) -> None:
        """Write the two files."""
        stamp = {
            "format": SHOWCASE_FORMAT,
            "vaestro": vaestro.__version__,
            "weights_sha256": run.weights_sha256(),
        }
        with results(run.path, "showcase.json", "showcase.npz"):
            write_arrays(run.path / "showcase.npz", self.arrays or {"none": np.zeros(0)})
            write_record(run.path / "showcase.json", {**stamp, **self.facts, "notes": self.notes})


def make(session: Session, seed: int = 0) -> Showcase:
    """Choose and compute what is shown of a run.

    Args:
        session: on the run, whose evaluation and diagnosis are used if there are any.
        seed: of the samples.
    """
    model, data = session.model, session.data
    rows = data.held_out.fixed()
    shown = rows.spread(PAIRS)
    showcase = Showcase()
    showcase.facts |= {
        "kind": "images" if model.space.image else "rows",
        "space": str(model.space),
        "part_shown": model.space.part_shown,
        "split": rows.name,
        "n": len(rows),
        "given": [] if model.given is None else list(model.given.names),
        "latent": not model.capabilities.exact,
    }
    sets: dict[str, UserData] = {"data": shown.outward(), "samples": _samples(session, rows, seed)}
    if (stamp := diffusion_stamp(session.run)) is not None:
        record = read_object(session.run.path / "diffusion" / "diffusion.json") or {}
        showcase.facts |= {"diffusion": stamp, "diffusion_bound": record.get("bound")}
        _show_diffusion(session, rows, showcase, sets, seed)
    if not model.capabilities.exact:
        _show_latent(session, rows, shown, showcase, sets, seed)
    if model.space.image:
        showcase.arrays |= _pictures(sets, model.space)
        if "reconstructions" in sets and model.space.has_mean:
            pictured, showcase.facts["error_scale"] = errors(sets, model.space)
            showcase.arrays["errors"] = pictured
    else:
        showcase.facts |= shown_rows(sets, model.space, rows.spread(COUNTED))
    return showcase


def _samples(session: Session, rows: Rows, seed: int) -> UserData:
    """Return samples, with the conditions of held-out rows."""
    space = session.model.space
    n = SAMPLES if space.image else min(WRITTEN if space.tokeniser else COUNTED, len(rows))
    like = rows.spread(n) if session.model.given is not None else None
    n = n if like is None else len(like)
    return session.sample(n, like=like, seed=seed, mean=space.image)


def _show_diffusion(
    session: Session, rows: Rows, showcase: Showcase, sets: dict[str, UserData], seed: int
) -> None:
    """Add samples from the diffusion model of an image run, or a note on why there are none."""
    if not session.model.space.image:
        return
    given = session.model.given is not None
    like = rows.spread(SAMPLES) if given else None
    n = SAMPLES if like is None else len(like)
    try:
        sets["diffusion"] = session.sample(n, like=like, seed=seed, mean=True, diffusion=True)
    except ValueError as error:
        showcase.notes.append(f"no samples from the diffusion model: {error}")


def _show_latent(
    session: Session,
    rows: Rows,
    shown: Rows,
    showcase: Showcase,
    sets: dict[str, UserData],
    seed: int,
) -> None:
    """Add what is shown of the latent space: reconstructions, traversals, a map of the codes."""
    run, model, mapped = session.run, with_latent(session.model), rows.spread(MAPPED)
    code = session.encode(mapped)["mean"].reshape(len(mapped), -1)
    bounds = _bounds(run, rows)
    moves = _moves(run, model, code, seed)
    sets |= _decoded(session, rows, shown, bounds, moves) | {"mapped": mapped.outward()}
    showcase.facts["traversed"] = moves
    if isinstance(sets["samples"], Texts) and not model.alphabet and len(shown) > 1:
        showcase.facts["between"] = _between(session, shown)
    places = rows.places(len(mapped))
    chart = latent_map(code, mapped, None if bounds is None else bounds[places], sets["mapped"])
    showcase.arrays |= chart.arrays
    showcase.notes += chart.notes
    if chart.facts is not None:
        showcase.facts["map"] = chart.facts


def _decoded(
    session: Session, rows: Rows, shown: Rows, bounds: np.ndarray | None, moves: Moves
) -> dict[str, UserData]:
    """Return reconstructions and traversals in the user's layout.

    The data with the lowest bounds are shown too, if there are enough.
    """
    sets: dict[str, UserData] = {"reconstructions": session.reconstruct(shown)}
    if bounds is not None and len(rows) >= 3 * HARDEST:
        hardest = rows.pick(np.argsort(bounds)[:HARDEST])
        sets["hardest"] = hardest.outward()
        sets["hardest_reconstructions"] = session.reconstruct(hardest)
    first = shown.take(1)
    z = _moved(session.model, session.latents(first).reshape(-1), moves)
    sets["traversals"] = session.decode(z, like=first)
    return sets


def _between(session: Session, rows: Rows) -> list[list[str]]:
    """Decode codes between two texts, for some pairs."""
    half = len(rows) // 2  # neighbours in sorted data are similar
    lines = []
    for i in range(min(BETWEEN, half)):
        texts = session.interpolate(rows, i, i + half, steps=WAY)
        assert isinstance(texts, Texts)
        lines.append([shortened(t, LINE) for t in texts.lines])
    return lines


def _bounds(run: Run, rows: Rows) -> np.ndarray | None:
    """Return the tightest bound of each datum, (N,), if the evaluation is of all these data."""
    evaluation = read_object(run.path / "evaluation.json") or {}
    if evaluation.get("n") != len(rows) or evaluation.get("split") != rows.name:
        return None
    try:
        stored = read_arrays(run.path / "evaluation.npz", evaluation)
    except Damaged:
        return None
    arrays = [stored[m] for m in ("iwae", "elbo") if m in stored]
    return next((b for b in arrays if b.shape == (len(rows),) and np.isfinite(b).all()), None)


# -- traversals ------------------------------------------------------------------------------------


def _rates(run: Run, units: int) -> dict[int, float]:
    """Return the rate of each unit from diagnosis.json, in nats; none without a diagnosis."""
    lines = (read_object(run.path / "diagnosis.json") or {}).get("units") or []
    return {
        u["unit"]: float(u["rate"])
        for u in lines
        if isinstance(u.get("rate"), (int, float)) and 0 <= u.get("unit", -1) < units
    }


def _moves(run: Run, model: LatentModel, code: np.ndarray, seed: int) -> Moves:
    """Return the traversal of the most active units, or of one-hot groups."""
    if model.alphabet > 1:
        varied = _groups(model, code.var(0)).sum(1)
        ranked = np.argsort(-varied.reshape(-1), kind="stable")[:UNITS]
        return {
            "units": ranked.tolist(),
            "what": "group",
            "spread": varied.reshape(-1)[ranked].tolist(),
            "by": "activity",
            "offsets": np.arange(min(model.alphabet, STEPS), dtype=float).tolist(),
        }
    rates = _rates(run, code.shape[1])
    size = rates or dict(enumerate(code.var(0).tolist()))
    best = sorted(size, key=lambda u: -size[u])[:UNITS]
    best = [u for u in best if size[u] > TRIFLE * size[best[0]]] or best[:1]
    offsets = np.array([0.0, 1.0]) if model.alphabet else _span(model, best, seed)
    return {
        "units": best,
        "what": "unit",
        "spread": [size[u] for u in best],
        "by": "rate" if rates else "activity",
        "offsets": offsets.tolist(),
    }


def _span(model: LatentModel, units: list[int], seed: int) -> np.ndarray:
    """Return the values of real units in a traversal: three standard deviations on each side, or
    the range of draws from another prior."""
    if model.given is not None or model.capabilities.standard_prior:
        return np.linspace(-RANGE, RANGE, STEPS)
    with torch.no_grad():
        generator = torch_generator(next(model.parameters()).device, seed, "span")
        draws = model.draw_prior(1000, None, generator).flatten(1)[:, units]
    low, high = np.quantile(draws.cpu().numpy(), [0.002, 0.998]).tolist()
    return np.linspace(low, high, STEPS)


def _groups(model: Model, x: np.ndarray) -> np.ndarray:
    """Return numbers of one-hot units as (G, codes, rest)."""
    return x.reshape(model.units[0] // model.alphabet, model.alphabet, -1)


def _moved(model: Model, code: np.ndarray, moves: Moves) -> np.ndarray:
    """Return one copy of a code for each unit (or one-hot group) and value of a traversal."""
    n = len(moves["offsets"])
    z = np.repeat(code[None], len(moves["units"]) * n, 0)
    for i, unit in enumerate(moves["units"]):
        for j, offset in enumerate(moves["offsets"]):
            if moves["what"] == "group":
                groups = _groups(model, z[i * n + j])
                group, place = divmod(unit, groups.shape[2])
                groups[group, :, place] = np.arange(model.alphabet) == offset
            else:
                z[i * n + j, unit] = offset
    return z


# -- images ----------------------------------------------------------------------------------------


def _pictures(sets: Mapping[str, UserData], space: Space) -> dict[str, np.ndarray]:
    """Return all sets as bytes on one scale, with sides of at most SIDE or THUMBNAIL."""
    arrays = {name: space.pictures(np.asarray(x)) for name, x in sets.items()}
    if space.levels:
        parts = {name: pixels(images, space) for name, images in arrays.items()}
    else:  # values without levels are scaled by the range of all sets
        every = pixels(np.concatenate([a.astype(np.float32) for a in arrays.values()]), space)
        cuts = np.cumsum([len(a) for a in arrays.values()])[:-1]
        parts = dict(zip(arrays, np.split(every, cuts), strict=True))
    return {
        "thumbnails" if name == "mapped" else name: shrunk(
            images, THUMBNAIL if name == "mapped" else SIDE
        )
        for name, images in parts.items()
    }


def errors(sets: Mapping[str, UserData], space: Space) -> tuple[np.ndarray, float]:
    """Return |data - reconstruction| as grey pictures, the mean over channels, and the error that
    is white, as a share of the range of the data. Larger errors, one in a thousand, are white
    too."""
    layout, outside = space.layout, space.outside
    data, back = (
        layout.pictures(np.asarray(sets[name]), outside, alpha=space.alpha).astype(np.float64)
        for name in ("data", "reconstructions")
    )
    span = space.step * (space.levels - 1) if space.levels else float(np.ptp(data))
    if space.probabilities and back.max() <= 1:
        back = space.low + space.step * back
    apart = np.abs(data - back).mean(-1, keepdims=True)
    white = float(np.quantile(apart, 0.999)) or 1.0
    grey = np.rint(255 * np.clip(apart / white, 0, 1)).astype(np.uint8)
    return shrunk(grey, SIDE), white / (span or 1.0)


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """Return images (N, H, W, C) with a longest side of `side`; smaller ones are returned as they
    are."""
    from PIL import Image

    height, width = images.shape[1:3]
    if max(height, width) <= side:
        return images
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = [
        np.asarray(
            Image.fromarray(x.squeeze(-1) if x.shape[-1] == 1 else x).resize(
                size, Image.Resampling.LANCZOS
            )
        )
        for x in images
    ]
    return np.stack(small).reshape(len(images), size[1], size[0], images.shape[-1])
