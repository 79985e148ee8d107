"""Sparse matrices of counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.data.arrays import infer_space
from vaestro.data.containers.base import Container, Inference, Laid
from vaestro.data.images import Progress
from vaestro.data.passes import Part
from vaestro.data.raw import Options
from vaestro.data.sparse import Sparse
from vaestro.data.writers import write_arrays
from vaestro.spaces import Space

if TYPE_CHECKING:
    from vaestro.data.sets import Rows, Values


@final
class Counts(Container[Sparse]):
    """Handle sparse counts, whose rows are dense when they are selected."""

    type = Sparse

    def select(self, whole: Sparse, rows: np.ndarray) -> Sparse:
        return whole.pick(rows)

    def join(self, wholes: Sequence[Sparse]) -> Sparse:
        return Sparse.joined(wholes)

    def cell_names(self, whole: Sparse) -> tuple[str, ...]:
        return whole.names

    def totals(self, whole: Sparse, names: tuple[str, ...]) -> np.ndarray:
        return whole.totals(names)

    def infer(
        self, parts: dict[str, Part[Sparse]], options: Options, name: str, progress: Progress | None
    ) -> Inference:
        if options.get("kind", "count") != "count":
            raise ValueError(
                f"expected kind=count for a sparse matrix; got kind={options['kind']} in {name}"
            )
        space, options, notes, shared = infer_space(parts, {**options, "kind": "count"}, name)
        # counts are stored in few bytes, but samples may be larger
        space = replace(space, dtype="int32", names=parts["train"].whole.names)
        return Inference(parts, space, options, notes, shared)

    def fit(self, whole: Sparse, space: Space, options: Options) -> Sparse:
        if whole.names and space.names:
            whole = whole.named(space.names)
        return super().fit(whole, space, options)

    def lay_out(
        self, whole: Sparse, space: Space, grey: bool, progress: Progress | None, checked: bool
    ) -> Laid:
        if not space.sparse:
            raise ValueError(
                f"expected {space}, as the run was trained on; got a sparse matrix of counts"
            )
        return Laid(whole)

    def joined(self, rows: Sequence[Rows]) -> Values:
        parts = [(r.values, r.index) for r in rows]
        return Sparse.joined(
            [v if i is None else v.pick(i) for v, i in parts if isinstance(v, Sparse)]
        )

    def write(
        self, path: Path, data: Sparse, places: np.ndarray | None, *, raw: bool = False
    ) -> int:
        return write_arrays(path, {"x": data[:]})
