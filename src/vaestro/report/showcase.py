"""Choose what a report shows of a model at work, and write it down: RUN/showcase.json and
showcase.npz.

Images become bytes (N, H, W, C), everything else rows of text and histograms by column; of texts,
how many tokens they have. Codes of held-out data are laid out on a plane by PCA, and by t-SNE and
UMAP where these are installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vaestro
from vaestro import latent
from vaestro.data import Data, Rows
from vaestro.data.writers import pixels, write_arrays, writing
from vaestro.frames import Frame
from vaestro.models import LatentModel
from vaestro.randomness import torch_generator
from vaestro.report.reading import SHOWCASE_FORMAT
from vaestro.runs import Run
from vaestro.spaces import Space
from vaestro.tokens import Texts, Tokeniser

MAPPED = 1000  # codes on the map
PAIRS = 24  # data shown beside their reconstructions
HARDEST = 12
SAMPLES = 48
UNITS = 8  # traversed
TRIFLE = 0.02  # of the most active unit's rate: less is not worth a line
STEPS = 9
RANGE = 3.0
SIDE = 96  # the longest side that images are shown with
THUMBNAIL = 28
COLUMNS = 12
COUNTED = 2000  # rows of data, and of samples, that histograms are made of
BINS = 32
CLASSES = 11  # of an attribute that are told apart
TSNE_STEPS = 500
TEXT = 60  # characters of a cell
LINE = 240  # characters of a text
WRITTEN = 200  # texts that are drawn
BETWEEN, WAY = 3, 5  # pairs of texts between which codes are decoded, and how many codes


@dataclass
class Showcase:
    """Collect what is shown: values for JSON, arrays, and a line for each thing that could not be
    had."""

    facts: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def save(self, run: Run) -> None:
        """Write the two files."""
        stamp = {
            "format": SHOWCASE_FORMAT,
            "vaestro": vaestro.__version__,
            "weights_sha256": run.weights_sha256(),
        }
        write_arrays(run.path / "showcase.npz", self.arrays or {"none": np.zeros(0)})
        with writing(run.path / "showcase.json") as part:
            part.write_text(json.dumps({**stamp, **self.facts, "notes": self.notes}) + "\n")


def make(run: Run, model: LatentModel, data: Data, seed: int = 0) -> Showcase:
    """Choose, compute and return what is shown of a run.

    Args:
        run: where its evaluation and diagnosis lie, if there are any.
        model: with the weights in use.
        data: the run's own.
        seed: of the samples.
    """
    made = Showcase()
    name = next((s for s in ("test", "valid") if len(getattr(data, s))), "train")
    rows = data.split(name).fixed()
    mapped = rows.spread(MAPPED)
    place = rows.places(len(mapped))
    code = latent.encode(model, mapped)["mean"].reshape(len(mapped), -1)
    bounds = _bounds(run, rows)
    shown = rows.spread(PAIRS)
    hardest = (
        None
        if bounds is None or len(rows) < 3 * HARDEST
        else rows.pick(np.argsort(bounds)[:HARDEST])
    )
    n = (
        SAMPLES
        if model.space.image
        else min(WRITTEN if model.space.tokeniser else COUNTED, len(rows))
    )
    given = latent.given_of(rows.spread(n))
    samples = latent.sample(
        model, n if given is None else len(given), given=given, seed=seed, mean=model.space.image
    )
    moved = _moves(run, model, code, seed)
    made.facts |= {
        "kind": "images" if model.space.image else "rows",
        "space": str(model.space),
        "part_shown": model.space.layout.part_shown,
        "split": name,
        "n": len(rows),
        "given": [] if model.given is None else list(model.given.names),
        "traversed": moved,
    }
    z = _moved(
        model, latent.settled(model, latent.encode(model, shown.take(1))["mean"]).reshape(-1), moved
    )
    fixed = _repeated(latent.given_of(shown.take(1)), len(z))
    traversed = latent.decode(model, z, given=fixed)
    sets: dict[str, Any] = {
        "data": shown.outward(),
        "reconstructions": latent.reconstruct(model, shown),
    }
    if hardest is not None:
        sets |= {
            "hardest": hardest.outward(),
            "hardest_reconstructions": latent.reconstruct(model, hardest),
        }
    sets |= {"samples": samples, "traversals": traversed, "mapped": mapped.outward()}
    if isinstance(samples, Texts) and not model.alphabet and len(shown) > 1:
        made.facts["between"] = _between(model, shown)
    if model.space.image:
        _pictures(made, sets, model.space)
    else:
        _rows(made, sets, model.space, rows.spread(COUNTED))
    _map(made, code, mapped, None if bounds is None else bounds[place], sets["mapped"])
    return made


def _between(model: LatentModel, rows: Rows) -> list[list[str]]:
    """Decode codes on the way from one text to another, for some pairs."""
    half = len(rows) // 2  # neighbours in sorted data are alike
    pairs = [(i, i + half) for i in range(min(BETWEEN, half))]
    lines = []
    for i, j in pairs:
        texts = latent.interpolate(model, rows, i, j, steps=WAY)
        assert isinstance(texts, Texts)
        lines.append([_shortened(t, LINE) for t in texts.lines])
    return lines


def _repeated(given: Tensor | None, n: int) -> Tensor | None:
    return None if given is None else given[:1].repeat(n, 1)


def _bounds(run: Run, rows: Rows) -> np.ndarray | None:
    """Return the tightest bound of each datum, (N,), if the evaluation is of these data and all of
    them have one."""
    evaluation = run.evaluation or {}
    if evaluation.get("n") != len(rows) or evaluation.get("split") != rows.name:
        return None
    try:
        with np.load(run.path / "evaluation.npz", allow_pickle=False) as archive:
            found = [archive[m] for m in ("iwae", "elbo") if m in archive.files]
    except (OSError, ValueError):
        return None
    return next((b for b in found if b.shape == (len(rows),) and np.isfinite(b).all()), None)


def _diagnosed(run: Run, units: int) -> list[dict[str, Any]]:
    from vaestro.files import read_object

    lines = (read_object(run.path / "diagnosis.json") or {}).get("units") or []
    return [
        u
        for u in lines
        if isinstance(u.get("rate"), (int, float)) and 0 <= u.get("unit", -1) < units
    ]


def _moves(run: Run, model: LatentModel, code: np.ndarray, seed: int) -> dict[str, Any]:
    """Say which units move, the most active first, what they were ranked by, and through which
    values: for one-hot latents, which
    groups through which codes."""
    if model.alphabet > 1:
        varied = _groups(model, code.var(0)).sum(1)
        offsets = np.arange(min(model.alphabet, STEPS), dtype=float)
        ranked = np.argsort(-varied.reshape(-1), kind="stable")[:UNITS]
        return {
            "units": ranked.tolist(),
            "what": "group",
            "spread": varied.reshape(-1)[ranked].tolist(),
            "by": "activity",
            "offsets": offsets.tolist(),
        }
    known = _diagnosed(run, code.shape[1])
    size = {u["unit"]: float(u["rate"]) for u in known} or dict(enumerate(code.var(0).tolist()))
    best = sorted(size, key=lambda u: -size[u])[:UNITS]
    best = [u for u in best if size[u] > TRIFLE * size[best[0]]] or best[:1]
    offsets = np.array([0.0, 1.0]) if model.alphabet else _span(model, best, seed)
    return {
        "units": best,
        "what": "unit",
        "spread": [size[u] for u in best],
        "by": "rate" if known else "activity",
        "offsets": offsets.tolist(),
    }


def _span(model: LatentModel, units: list[int], seed: int) -> np.ndarray:
    """Return the values that real units move through: three standard deviations each way, or what
    another prior draws."""
    if model.given is not None or model.capabilities.standard_prior:
        return np.linspace(-RANGE, RANGE, STEPS)
    with torch.no_grad():
        drawn = model.draw_prior(
            1000, None, torch_generator(next(model.parameters()).device, seed, "span")
        ).flatten(1)[:, units]
    low, high = np.quantile(drawn.cpu().numpy(), [0.002, 0.998]).tolist()
    return np.linspace(low, high, STEPS)


def _groups(model: LatentModel, x: np.ndarray) -> np.ndarray:
    """Return numbers of one-hot units as (G, codes, rest)."""
    return x.reshape(model.units[0] // model.alphabet, model.alphabet, -1)


def _moved(model: LatentModel, code: np.ndarray, moved: dict[str, Any]) -> np.ndarray:
    """Return the code as often as units move, each time with one unit (or one-hot group) at another
    value."""
    n = len(moved["offsets"])
    z = np.repeat(code[None], len(moved["units"]) * n, 0)
    for i, unit in enumerate(moved["units"]):
        for j, offset in enumerate(moved["offsets"]):
            if moved["what"] == "group":
                groups = _groups(model, z[i * n + j])
                group, place = divmod(unit, groups.shape[2])
                groups[group, :, place] = np.arange(model.alphabet) == offset
            else:
                z[i * n + j, unit] = offset
    return z


# -- images ----------------------------------------------------------------------------------------


def _pictures(made: Showcase, sets: Mapping[str, np.ndarray], space: Space) -> None:
    """Turn all sets into bytes on one scale, no larger than is shown."""
    sets = {name: space.layout.pictures(data, space.outside) for name, data in sets.items()}
    if space.levels:
        parts = {name: pixels(images, space) for name, images in sets.items()}
    else:  # what is stretched over its range must be stretched alike
        every = pixels(np.concatenate([np.asarray(s, np.float32) for s in sets.values()]), space)
        parts = dict(
            zip(sets, np.split(every, np.cumsum([len(s) for s in sets.values()])[:-1]), strict=True)
        )
    for name, images in parts.items():
        made.arrays["thumbnails" if name == "mapped" else name] = shrunk(
            images, THUMBNAIL if name == "mapped" else SIDE
        )


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """Shrink images (N, H, W, C) to a longest side; smaller ones stay as they are."""
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


# -- tables and vectors ----------------------------------------------------------------------------


def columns_of(
    values: Any, space: Space, keep: Sequence[int] | None = None
) -> dict[str, np.ma.MaskedArray]:
    """Return data as columns by name; of arrays the cells `keep` alone."""
    if isinstance(values, Texts):
        return {"text": np.ma.MaskedArray(values.lines.astype(str))}
    if isinstance(values, Frame):
        return dict(values.columns)
    values = np.asarray(values)
    flat = values.reshape(len(values), -1)
    shape = space.outside
    chosen = range(flat.shape[1]) if keep is None else keep
    names = {
        i: ", ".join(str(j) for j in np.unravel_index(i, shape)) if shape else "0" for i in chosen
    }
    absent = np.isnan(flat) if flat.dtype.kind == "f" else np.zeros(flat.shape, bool)
    return {f"[{names[i]}]": np.ma.MaskedArray(flat[:, i], absent[:, i]) for i in chosen}


def _rows(made: Showcase, sets: dict[str, Any], space: Space, counted: Rows) -> None:
    """Write rows as text, and how each column of the data and of the samples is spread."""
    data = counted.outward()
    keep: list[int] | None = None
    total = 1 if space.tokeniser else len(space.columns) or space.cells
    if not isinstance(data, (Frame, Texts)):
        flat = np.asarray(data, np.float64).reshape(len(data), -1)
        keep = sorted(
            np.argsort(-np.nan_to_num(np.nanvar(flat, 0)), kind="stable")[:COLUMNS].tolist()
        )
    names = list(columns_of(data, space, keep))[:COLUMNS]
    made.facts["columns"] = {"names": names, "of": total, "by": "varying most" if keep else "first"}
    tables, most = {}, LINE if space.tokeniser else TEXT
    for name, values in sets.items():
        columns = columns_of(values, space, keep)
        tables[name] = [
            [cell(columns[c], i, most) for c in names]
            for i in range(len(values) if name != "samples" else min(12, len(values)))
        ]
    made.facts["rows"] = tables
    if space.tokeniser is not None and isinstance(data, Texts):
        sizes = [_sizes(space.tokeniser, texts) for texts in (data, sets["samples"])]
        made.facts["histograms"] = [histogram("tokens in a text", *sizes)]
        made.facts["moved"] = {}
        return
    ours, theirs = columns_of(data, space, keep), columns_of(sets["samples"], space, keep)
    made.facts["histograms"] = [histogram(c, ours[c], theirs[c]) for c in names]
    moved = columns_of(sets["traversals"], space, keep)
    made.facts["moved"] = {c: _places(moved[c], ours[c]) for c in names}


def _sizes(tokeniser: Tokeniser, texts: Texts) -> np.ma.MaskedArray:
    return np.ma.MaskedArray(np.array([len(row) for row in tokeniser.encode(texts)]))


def cell(column: np.ma.MaskedArray, row: int, most: int = TEXT) -> str:
    """Write one cell as text of at most so many characters; an empty one is empty."""
    if np.ma.getmaskarray(column)[row]:
        return ""
    value = np.asarray(column.data)[row]
    if np.asarray(value).dtype.kind == "f":
        return f"{value:.4g}"
    return _shortened(str(value), most)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def numbers_of(column: np.ma.MaskedArray) -> np.ndarray | None:
    """Return the observed values as numbers, dates as days since 1970; None where they are
    categories."""
    data = np.asarray(column.data)[~np.ma.getmaskarray(column)]
    if data.dtype.kind == "M":
        return (data - np.datetime64(0, "D")) / np.timedelta64(1, "D")
    return data.astype(np.float64) if data.dtype.kind in "iuf" else None


def histogram(name: str, data: np.ma.MaskedArray, samples: np.ma.MaskedArray) -> dict[str, Any]:
    """Return how a column of the data and of the samples is spread, on one scale: shares in bins,
    or of the most frequent values."""
    ours, theirs = numbers_of(data), numbers_of(samples)
    found: dict[str, Any] = {"name": name, "missing": float(np.ma.getmaskarray(data).mean())}
    several = 2 if np.asarray(data.data).dtype.kind in "fM" else COLUMNS
    if ours is not None and theirs is not None and len(np.unique(ours)) > several:
        low, high = np.quantile(ours, [0.005, 0.995])
        bins = min(BINS, max(8, round(2 * len(ours) ** (1 / 3))))
        whole = np.asarray(data.data).dtype.kind in "iu" and high - low < bins
        edges = (
            np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
            if whole
            else np.linspace(low, high, bins + 1)
        )
        counts = [np.histogram(v, edges)[0] / max(1, len(v)) for v in (ours, theirs)]
        outside = [
            1 - float(c.sum()) if len(v) else 0.0
            for c, v in zip(counts, (ours, theirs), strict=True)
        ]
        kind = "date" if np.asarray(data.data).dtype.kind == "M" else "number"
        return {
            **found,
            "kind": kind,
            "edges": edges.tolist(),
            "shares": [c.tolist() for c in counts],
            "outside": outside,
        }
    texts = [np.asarray(c.data)[~np.ma.getmaskarray(c)].astype(str) for c in (data, samples)]
    values, counts_of = np.unique(np.concatenate(texts), return_counts=True)
    if len(values) > COLUMNS:
        values = values[np.sort(np.argsort(-counts_of, kind="stable")[:COLUMNS])]
    shares = [[float((t == v).mean()) if len(t) else 0.0 for v in values] for t in texts]
    others = [max(0.0, 1 - sum(s)) if len(t) else 0.0 for s, t in zip(shares, texts, strict=True)]
    return {
        **found,
        "kind": "category",
        "values": [v[:TEXT] for v in values.tolist()],
        "shares": shares,
        "outside": others,
    }


def _places(moved: np.ma.MaskedArray, data: np.ma.MaskedArray) -> list[float | None] | None:
    """Return where decoded numbers lie among the data's, in standard deviations from the mean; None
    for categories."""
    numbers, own = numbers_of(moved), numbers_of(data)
    if (
        numbers is None
        or own is None
        or len(own) < 2
        or not own.std()
        or len(numbers) != len(moved)
    ):
        return None
    return [
        round(float(v), 3) if np.isfinite(v) else None for v in (numbers - own.mean()) / own.std()
    ]


# -- the map ---------------------------------------------------------------------------------------


def _map(
    made: Showcase, code: np.ndarray, rows: Rows, bounds: np.ndarray | None, values: Any
) -> None:
    """Lay codes out on a plane in the ways there are, with what is known of each datum."""
    if len(code) < 3:
        made.notes.append(f"no map of the latent space: {len(code)} held-out data are too few")
        return
    if not np.isfinite(code).all():
        made.notes.append("no map of the latent space: codes are not finite")
        return
    projections: list[dict[str, str]] = []
    for key, name, note, coordinates in projected(code, made.notes):
        made.arrays[f"map_{key}"] = coordinates.astype(np.float32)
        projections.append({"key": key, "name": name, "note": note})
    known: dict[str, Any] = (
        {}
        if rows.given is None or rows.given_space is None
        else dict(rows.given_space.outward(rows.given).columns)
    )
    known |= rows.attributes
    if isinstance(values, Frame):
        known |= dict(list(values.columns.items())[:COLUMNS])
    if bounds is not None:
        known["bound on log p(x), nats"] = bounds
    attributes = []
    for i, (name, column) in enumerate(known.items()):
        if _names_rows(np.ma.asarray(column)):
            continue
        facts, codes = attribute(np.ma.asarray(column))
        if facts is not None:
            made.arrays[f"attribute_{i}"] = codes
            attributes.append({"key": f"attribute_{i}", "name": str(name), **facts})
    made.facts["map"] = {"n": len(code), "projections": projections, "attributes": attributes}


def _names_rows(column: np.ma.MaskedArray) -> bool:
    """Tell whether a column names rows, such as their files, and so is no colour of a map."""
    texts = column.compressed()
    return texts.dtype.kind in "UO" and len(np.unique(texts.astype(str))) > len(texts) / 2


def projected(code: np.ndarray, notes: list[str]) -> list[tuple[str, str, str, np.ndarray]]:
    """Return (key, name, what to know, coordinates (N, 2)) for PCA, t-SNE and UMAP, as far as they
    are installed."""
    centred = code.astype(np.float64) - code.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    axes = min(2, u.shape[1])
    plane = np.zeros((len(code), 2))
    plane[:, :axes] = u[:, :axes] * s[:axes]
    share = float((s[:2] ** 2).sum() / ((s**2).sum() or 1.0))
    found = [
        (
            "pca",
            "PCA",
            f"a linear projection, which holds {share:.0%} of the variance of the codes; "
            f"distances can be read",
            plane,
        )
    ]
    # What t-SNE sees is the codes' leading directions: beyond fifty lies noise, and time.
    leading = (u * s)[:, : min(50, u.shape[1])]
    if code.shape[1] > 2 and len(code) >= 30:
        try:
            from sklearn.manifold import TSNE
            from threadpoolctl import threadpool_limits

            # Its threads wait for each other at every step: on a busy machine several take many
            # times as long as one.
            with threadpool_limits(1):
                made = TSNE(
                    perplexity=min(30, len(code) // 4),
                    init="pca",
                    max_iter=TSNE_STEPS,
                    random_state=0,
                ).fit_transform(leading)
            found.append(
                (
                    "tsne",
                    "t-SNE",
                    "neighbours stay neighbours; distances between clusters, and their sizes, "
                    "mean nothing",
                    made,
                )
            )
        except ImportError:
            notes.append(
                "no t-SNE on the map: scikit-learn is not installed (the extra vaestro[sklearn])"
            )
        try:
            from umap import UMAP

            made = UMAP(n_neighbors=min(15, len(code) - 1), random_state=0).fit_transform(leading)
            found.append(
                (
                    "umap",
                    "UMAP",
                    "neighbours stay neighbours; distances between clusters, and their sizes, "
                    "mean little",
                    made,
                )
            )
        except ImportError:
            pass
    return found


def attribute(column: np.ma.MaskedArray) -> tuple[dict[str, Any] | None, np.ndarray]:
    """Return what an attribute is and its codes (N,): numbers with NaN where missing, or classes,
    -1 where missing.

    Of many classes the most frequent keep their names, and the rest is one class.
    """
    absent = np.ma.getmaskarray(column)
    data = np.asarray(column.data)
    if data.ndim != 1 or absent.all():
        return None, np.zeros(0)
    distinct = len(np.unique(data[~absent].astype(str)))
    numbers = numbers_of(np.ma.MaskedArray(data))
    if numbers is not None and (data.dtype.kind in "fM" or distinct > CLASSES + 1):
        values = np.where(absent, np.nan, numbers).astype(np.float64)
        return {"kind": "date" if data.dtype.kind == "M" else "number"}, values
    texts = data.astype(str)
    classes, inverse, counts = np.unique(texts[~absent], return_inverse=True, return_counts=True)
    codes = np.full(len(texts), -1, np.int32)
    if len(classes) > CLASSES + 1:
        kept = np.sort(np.argsort(-counts, kind="stable")[:CLASSES])
        table = np.full(len(classes), CLASSES, np.int32)
        table[kept] = np.arange(CLASSES)
        codes[~absent] = table[inverse.ravel()]
        names = [*classes[kept].tolist(), f"{len(classes) - CLASSES:,} others"]
        return {
            "kind": "category",
            "classes": [n[:TEXT] for n in names],
            "others": True,
            "distinct": len(classes),
        }, codes
    codes[~absent] = inverse.ravel()
    names = classes.tolist()
    if data.dtype.kind in "iu":
        order = np.argsort([int(n) for n in names])
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order))
        codes[~absent] = rank[codes[~absent]]
        names = [names[i] for i in order]
    return {
        "kind": "category",
        "classes": [n[:TEXT] for n in names],
        "others": False,
        "distinct": len(classes),
    }, codes
