"""Draw data, reconstruct data under other conditions, and compare the expression of two groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vaestro import latent
from vaestro.data import Rows
from vaestro.data.tables import condition_frame
from vaestro.densities import Decoding
from vaestro.frames import Frame
from vaestro.latent import Contrast, UserData
from vaestro.runs.sources import Conditions, Source
from vaestro.text import InputError, nearest, quoted

if TYPE_CHECKING:
    from vaestro.runs.session import Session


def sample(
    session: Session,
    n: int,
    *,
    condition: Conditions = None,
    like: Rows | None = None,
    temperature: float = 1.0,
    mean: bool | None = None,
    complete: bool | None = None,
    decoding: Decoding | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> UserData:
    """Draw data from the model: see `Session.sample`.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> sample(vs.open(vs.train(x, run="example", latent=2, steps=2)), 4).shape
    (4, 3)
    """
    model = session.model
    images = model.space.layout.name == "image"
    data = latent.sample(
        model,
        n,
        given=session.given(condition, like, n),
        temperature=temperature,
        seed=seed,
        mean=images if mean is None else mean,
        complete=complete,
        decoding=decoding,
        dtype=("own" if images else None) if mean is None and dtype is None else dtype,
    )
    if not isinstance(data, Frame):
        return data
    if like is None or like.given is None or like.given_space is None:
        conditions = condition_frame(model.given, condition or {}, n)
    else:
        given = np.broadcast_to(like.given, (n, like.given.shape[1]))
        conditions = like.given_space.outward(given)
    return data.with_columns(conditions)


def reconstruct(
    session: Session,
    source: Source,
    *,
    split: str | None = None,
    condition: Conditions = None,
    decode_condition: Conditions = None,
    draws: int | None = None,
    library: float | None = None,
    decoding: Decoding | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> UserData:
    """Return reconstructions: see `Session.reconstruct`.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = vs.train(x, run="second", latent=2, steps=2)
    >>> reconstruct(vs.open(run), x[:7]).shape
    (7, 3)
    """
    model, rows = session.model, session.rows(source, split, condition)
    if draws is None and library is None:
        return latent.reconstruct(
            model,
            rows,
            decoding=decoding,
            dtype=dtype,
            codes=session.codes,
            changed=decode_condition,
        )
    if decoding is not None:
        raise ValueError("expected no search for texts with draws or a library; got one")
    decoded = latent.with_conditions(model, rows, decode_condition or {})
    means = latent.expression(
        model,
        rows,
        draws=25 if draws is None else draws,
        library=library,
        decoded=decoded,
        seed=seed,
    )
    return means.reshape(len(rows), *model.space.outside)


def contrast(
    session: Session,
    source: Source,
    attribute: str,
    first: str,
    second: str,
    *,
    delta: float = 0.25,
    level: float = 0.05,
    draws: int = 200,
    split: str | None = None,
    condition: Conditions = None,
    decode_condition: Conditions = None,
    seed: int = 0,
) -> Contrast:
    """Compare the expression of two groups: see `Session.contrast`.

    >>> import numpy as np, vaestro as vs
    >>> counts = np.random.default_rng(0).poisson(3.0, (100, 4))
    >>> np.savez("cells.npz", train=counts, train_type=np.repeat(["A", "B"], 50))
    >>> run = vs.train("cells.npz", kind="count", run="groups", latent=2, steps=2)
    >>> contrast(vs.open(run), "cells.npz", "type", "A", "B", split="train", draws=20).change.shape
    (4,)
    """
    model, rows = session.model, session.rows(source, split, condition).fixed()
    values = latent.attributes(rows)
    if rows.given is not None and rows.given_space is not None:
        given = rows.given_space.outward(rows.given).columns
        values |= {name: np.asarray(column.data) for name, column in given.items()}
    if attribute not in values:
        raise ValueError(
            f"expected an attribute of the data: "
            f"{nearest(attribute, values) if values else 'there are none'}; got {attribute!r}"
        )
    texts = values[attribute].astype(str)
    if first == second:
        raise ValueError(f"expected two different groups; got {first!r} twice")
    groups = [np.flatnonzero(texts == value) for value in (first, second)]
    for value, group in zip((first, second), groups, strict=True):
        if not len(group):
            names = np.unique(texts[texts != ""])[:12].tolist()
            raise InputError(
                f"no row has {quoted(attribute)}={quoted(value)}: it is {nearest(value, names)}"
            )
    return latent.contrast(
        model,
        rows,
        *groups,
        delta=delta,
        level=level,
        draws=draws,
        decoded=latent.with_conditions(model, rows, decode_condition or {}),
        seed=seed,
    )
