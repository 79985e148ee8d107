"""Move codes of a run: traversals, neighbours and analogies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from vaestro import latent
from vaestro.data import Rows
from vaestro.densities import Decoding
from vaestro.latent import Neighbours, Traversal, UserData
from vaestro.models import with_latent
from vaestro.randomness import torch_generator
from vaestro.runs.sources import Conditions, Source
from vaestro.tokens import Texts

if TYPE_CHECKING:
    from vaestro.runs.session import Session

UNITS = 8  # traversed by default
ROWS = 2000  # largest number of rows from which the spread and the rate of units are computed


@final
@dataclass(frozen=True, eq=False)
class Start:
    """Name the datum whose code is moved.

    Args:
        source: the data; by default the held-out data of the run.
        row: its number, from 0.
        split, condition: see `Session.rows`.

    >>> Start().row
    0
    """

    source: Source | None = None
    row: int = 0
    split: str | None = None
    condition: Conditions = None


def traverse(
    session: Session,
    units: Sequence[int] | None,
    start: Start,
    *,
    reach: float = 3.0,
    steps: int = 9,
    decoding: Decoding | None = None,
    dtype: str | None = None,
) -> tuple[list[Traversal], dict[int, UserData]]:
    """Return the codes of a traversal, and what they decode to, by unit: see the verb `traverse`.

    >>> import numpy as np, vaestro as vs
    >>> run = vs.train(np.eye(40, dtype="uint8"), run="example", latent=2, steps=2)
    >>> moved, data = traverse(vs.open(run), [1], Start(), steps=5)
    >>> moved[0].unit, data[1].shape
    (1, (5, 40))
    """
    model = with_latent(session.model)
    some = session.data.held_out.spread(ROWS).fixed()
    rows = (
        some if start.source is None else session.rows(start.source, start.split, start.condition)
    )
    one = _row(rows, start.row)
    codes = session.codes(some)["mean"]
    if units is None:
        units = latent.by_rate(_rates(session, some, codes), model)[:UNITS]
    first = latent.settled(model, session.codes(one)["mean"])[0]
    moved = latent.traverse(model, first, codes, units, reach=reach, steps=steps)
    every = session.decode(
        np.concatenate([m.codes for m in moved]), like=one, decoding=decoding, dtype=dtype
    )
    data: dict[int, UserData] = {}
    at = 0
    for each in moved:
        data[each.unit] = every[at : at + len(each.values)]
        at += len(each.values)
    return moved, data


@torch.inference_mode()
def _rates(session: Session, rows: Rows, codes: np.ndarray) -> np.ndarray:
    """Return the rate of each unit in nats, (*Z); the variance of its codes if q and prior do not
    factorise over units."""
    model = session.model
    device = next(model.parameters()).device
    sums, count = None, 0
    for i, batch in enumerate(rows.chunks(model.space.chunk, device)):
        noise = model.noise(1, len(batch), torch_generator(device, 0, "rates", i))
        rate = model.draw(batch, noise=noise).rate
        if rate.shape[2:] != model.units:
            return np.asarray(codes.var(0))
        total = rate.mean(0).sum(0)
        sums, count = total if sums is None else sums + total, count + len(batch)
    assert sums is not None, "there are rows"
    return np.asarray((sums / count).cpu())


def neighbours(
    session: Session,
    source: Source,
    i: int,
    *,
    k: int,
    among: Source | None,
    metric: str,
    split: str | None,
    condition: Conditions,
) -> Neighbours:
    """Find the nearest codes to that of a row: see the verb `neighbours`.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> session = vs.open(vs.train(x, run="second", latent=2, steps=2))
    >>> found = neighbours(
    ...     session, x, 4, k=2, among=None, metric="euclidean", split=None, condition=None
    ... )
    >>> len(found.rows), 4 in found.rows, found.searched
    (2, False, 59)
    """
    with_latent(session.model)
    rows = session.rows(source, split, condition).fixed()
    one = session.codes(_row(rows, i))
    searched = rows if among is None else session.rows(among, None, condition).fixed()
    codes = session.codes(searched)
    places = np.arange(len(searched))
    if among is None:
        places = np.delete(places, i)
    logvar = codes.get("logvar")
    found, distances = latent.nearest(
        codes["mean"][places],
        one["mean"][0],
        k,
        logvar=None if logvar is None else logvar[places],
        query_logvar=one["logvar"][0] if "logvar" in one else None,
        metric=metric,
    )
    at = places[found]
    near = searched.pick(at)
    shown = latent.attributes(near)
    if isinstance(texts := near.outward(), Texts):
        shown["text"] = texts.lines.astype(str)
    return Neighbours(at, distances, metric, len(places), shown)


def analogy(
    session: Session,
    rows: Rows,
    places: tuple[int, int, int],
    *,
    decoding: Decoding | None = None,
    dtype: str | None = None,
) -> tuple[UserData, np.ndarray]:
    """Return the decoded code of row a - row b + row c, one datum, and the code, (1, *Z).

    Raises:
        ValueError: there is no such row, or the latents are discrete.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> session = vs.open(vs.train(x, run="third", latent=2, steps=2))
    >>> data, code = analogy(session, session.rows(x), (0, 1, 1))
    >>> np.allclose(code, session.encode(x[:1])["mean"])
    True
    """
    model = with_latent(session.model)
    if model.alphabet:
        raise ValueError(
            "expected real latents for an analogy; got discrete ones, to which nothing can be added"
        )
    three = [_row(rows.fixed(), place) for place in places]
    a, b, c = (session.codes(row)["mean"] for row in three)
    code = a - b + c
    return session.decode(code, like=three[2], decoding=decoding, dtype=dtype), code


def _row(rows: Rows, i: int) -> Rows:
    """Return one row.

    Raises:
        ValueError: there is no such row.
    """
    if not 0 <= i < len(rows):
        raise ValueError(f"expected row numbers from 0 to {len(rows) - 1:,}; got {i}")
    return rows.pick(np.array([i]))
