"""The map of the latent space: codes of held-out data on a plane, coloured by attributes.

The planes are PCA, and t-SNE and UMAP if they are installed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np

from vaestro.data import Rows
from vaestro.frames import Frame
from vaestro.latent import UserData
from vaestro.report.distributions import COLUMNS, TEXT, numbers_of

CLASSES = 11  # largest number of classes of an attribute with a separate colour
TSNE_STEPS = 500


class Attribute(TypedDict):
    """Describe an attribute: a number, a date, or a category with the names of its classes."""

    kind: str
    classes: NotRequired[list[str]]
    others: NotRequired[bool]
    distinct: NotRequired[int]


class Projection(NamedTuple):
    """Hold codes on a plane.

    Args:
        key: names its array in showcase.npz.
        name: of the method.
        note: what can be read from it.
        coordinates: (N, 2).
    """

    key: str
    name: str
    note: str
    coordinates: np.ndarray


class LatentMap(NamedTuple):
    """Hold a map: values for JSON (None if there is no map), arrays by name, and a line for each
    part that could not be computed."""

    facts: dict[str, object] | None
    arrays: dict[str, np.ndarray]
    notes: list[str]


def latent_map(
    code: np.ndarray, rows: Rows, bounds: np.ndarray | None, values: UserData
) -> LatentMap:
    """Project codes on planes, with the attributes of each datum.

    Args:
        code: the codes, (N, units).
        rows: the data.
        bounds: on log p(x) of each datum, (N,), if they are known.
        values: the data in the user's layout.
    """
    if len(code) < 3:
        return LatentMap(
            None, {}, [f"no map of the latent space: {len(code)} held-out data are too few"]
        )
    if not np.isfinite(code).all():
        return LatentMap(None, {}, ["no map of the latent space: codes are not finite"])
    notes: list[str] = []
    projections = projected(code, notes)
    arrays = {f"map_{p.key}": p.coordinates.astype(np.float32) for p in projections}
    attributes = []
    for i, (name, column) in enumerate(_columns(rows, bounds, values).items()):
        if name == "file" or names_rows(np.ma.asarray(column)):
            continue
        facts, codes = attribute(np.ma.asarray(column))
        if facts is not None:
            arrays[f"attribute_{i}"] = codes
            attributes.append({"key": f"attribute_{i}", "name": str(name), **facts})
    planes = [{"key": p.key, "name": p.name, "note": p.note} for p in projections]
    return LatentMap(
        {"n": len(code), "projections": planes, "attributes": attributes}, arrays, notes
    )


def _columns(rows: Rows, bounds: np.ndarray | None, values: UserData) -> dict[str, np.ndarray]:
    """Return the conditions, attributes, table columns and bounds of rows, each (N,)."""
    columns: dict[str, np.ndarray] = {}
    if rows.given is not None and rows.given_space is not None:
        columns |= rows.given_space.outward(rows.given).columns
    columns |= rows.attributes
    if isinstance(values, Frame):
        columns |= dict(list(values.columns.items())[:COLUMNS])
    if bounds is not None:
        columns["bound on log p(x), nats"] = bounds
    return columns


def names_rows(column: np.ma.MaskedArray) -> bool:
    """Return whether a column names rows, such as their files, and is therefore no colour of a
    map."""
    texts = column.compressed()
    return texts.dtype.kind in "UO" and len(np.unique(texts.astype(str))) > len(texts) / 2


def projected(code: np.ndarray, notes: list[str]) -> list[Projection]:
    """Return codes (N, units) projected by PCA, and by t-SNE and UMAP if they are installed.

    A line is added to `notes` if scikit-learn is missing.
    """
    centred = code.astype(np.float64) - code.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    axes = min(2, u.shape[1])
    plane = np.zeros((len(code), 2))
    plane[:, :axes] = u[:, :axes] * s[:axes]
    share = float((s[:2] ** 2).sum() / ((s**2).sum() or 1.0))
    note = (
        f"a linear projection, which holds {share:.0%} of the variance of the codes; distances can "
        f"be read"
    )
    projections = [Projection("pca", "PCA", note, plane)]
    # t-SNE and UMAP use the 50 leading directions of the codes; others add noise and time.
    leading = (u * s)[:, : min(50, u.shape[1])]
    if code.shape[1] > 2 and len(code) >= 30:
        try:
            projections.append(_tsne(leading))
        except ImportError:
            notes.append(
                "no t-SNE on the map: scikit-learn is not installed (the extra vaestro[sklearn])"
            )
        with suppress(ImportError):
            projections.append(_umap(leading))
    return projections


def _tsne(code: np.ndarray) -> Projection:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # Its threads synchronise at every step: on a busy machine, several are many times slower
    # than one.
    with threadpool_limits(1):
        plane = TSNE(
            perplexity=min(30, len(code) // 4), init="pca", max_iter=TSNE_STEPS, random_state=0
        ).fit_transform(code)
    note = "neighbours stay neighbours; distances between clusters, and their sizes, mean nothing"
    return Projection("tsne", "t-SNE", note, plane)


def _umap(code: np.ndarray) -> Projection:
    from umap import UMAP

    plane = UMAP(n_neighbors=min(15, len(code) - 1), random_state=0).fit_transform(code)
    note = "neighbours stay neighbours; distances between clusters, and their sizes, mean little"
    return Projection("umap", "UMAP", note, plane)


def attribute(column: np.ma.MaskedArray) -> tuple[Attribute | None, np.ndarray]:
    """Return a description of an attribute and its codes (N,).

    The codes are numbers, NaN where missing, or class indices, -1 where missing. If there are many
    classes, the most frequent keep their names, and the others form one class.
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
    others = len(classes) > CLASSES + 1
    if others:
        kept = np.sort(np.argsort(-counts, kind="stable")[:CLASSES])
        table = np.full(len(classes), CLASSES, np.int32)
        table[kept] = np.arange(CLASSES)
        codes[~absent] = table[inverse.ravel()]
        names = [*classes[kept].tolist(), f"{len(classes) - CLASSES:,} others"]
    else:
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
        "others": others,
        "distinct": len(classes),
    }, codes
