"""Fill the missing cells of a user's data by a run, once or several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro import latent
from vaestro.data import Rows
from vaestro.data.loading import complete_table, load_with_own
from vaestro.frames import Frame
from vaestro.latent import UserData
from vaestro.runs.sources import Conditions, Source

if TYPE_CHECKING:
    from vaestro.runs.session import Session

COLUMN = "imputation"  # its number, in a table of several


@final
@dataclass(frozen=True)
class How:
    """Hold how missing cells are filled in.

    Args:
        n: number of imputations by draws; None for one imputation.
        k, sample, dtype, seed: see `latent.impute`.

    Raises:
        ValueError: a dtype was given for draws.

    >>> How(k=10).n is None
    True
    """

    n: int | None = None
    k: int = 100
    sample: bool = False
    dtype: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n is not None and self.dtype is not None:
            raise ValueError(
                f"expected no dtype for imputations, which are draws; got {self.dtype}"
            )


def imputed(
    session: Session,
    source: Source,
    how: How,
    split: str | None = None,
    condition: Conditions = None,
) -> tuple[Rows, list[UserData]]:
    """Return the rows that were read, and their imputations.

    Args:
        session: a session on a run.
        source: the data.
        how: how their missing cells are filled in.
        split, condition: see `Session.rows`.

    Raises:
        ValueError: the data do not fit, or n or k is below 1.

    >>> import vaestro as vs
    >>> table = {"size": [0.5, None, 2.5, 1.1] * 25, "age": [3, 1, 4, 1] * 25}
    >>> session = vs.open(vs.train(table, run="example", latent=2, steps=2))
    >>> rows, data = imputed(session, table, How(n=3, k=5))
    >>> len(rows), len(data)
    (100, 3)
    """
    model, whole = session.model, session.source(source)
    rows, original = load_with_own(
        whole, model.space, split, given=model.given, conditions=condition or {}
    )
    if how.n is None:
        filled = [
            latent.impute(
                model,
                rows,
                k=how.k,
                sample=how.sample,
                seed=how.seed,
                dtype=how.dtype,
                original=original,
            )
        ]
    else:
        filled = latent.imputations(model, rows, how.n, k=how.k, seed=how.seed, original=original)
    return rows, [
        complete_table(whole, data, rows.name, model.space.columns)
        if isinstance(data, Frame)
        else data
        for data in filled
    ]


def stacked(imputations: Sequence[UserData]) -> UserData:
    """Return several imputations as one: arrays (n, N, ...), or a table of n * N rows, whose first
    column has the number of the imputation from 1.

    >>> table = Frame({"a": np.ma.MaskedArray([1, 2])})
    >>> stacked([table, table]).columns["imputation"].tolist()
    [1, 1, 2, 2]
    """
    frames = [data for data in imputations if isinstance(data, Frame)]
    if not frames:
        return np.stack([np.asarray(data) for data in imputations])
    whole = Frame.concatenated(frames)
    name = COLUMN
    while name in whole.columns:
        name = f"{name} of the run"
    numbers = np.ma.MaskedArray(np.repeat(np.arange(1, len(frames) + 1), len(frames[0])))
    return whole.with_first(name, numbers)
