"""Tables: columns by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np

from vaestro.data import kinds, tables
from vaestro.data.containers.base import Container, Inference, Laid
from vaestro.data.images import Progress
from vaestro.data.merging import merged_column
from vaestro.data.passes import Part, distinct
from vaestro.data.raw import Options
from vaestro.data.series.looks import hint
from vaestro.data.source_options import of_groups
from vaestro.data.writers import TABLES
from vaestro.frames import Frame
from vaestro.spaces import Space
from vaestro.storage import writing
from vaestro.text import InputError


@final
class Tables(Container[Frame]):
    """Handle tables."""

    type = Frame
    name = numbers = "a table"
    taken_over = "columns, categories, offsets and scales"
    fillable = True

    def check_options(
        self, options: Options, whole: Frame, name: str, folder: bool
    ) -> tuple[list[str], str]:
        if cut := [k for k in of_groups(options, "series") if k != "series"]:
            raise InputError(
                f"{cut[0]}= cuts series, and {name} is read as rows: add series=GROUP:ORDER, or "
                f"series=:TIME for one long series"
            )
        unfit = of_groups(options, "images", "texts", "arrays", "series")
        unfit += self.sharding(options, name)
        return unfit, self.name

    def select(self, whole: Frame, rows: np.ndarray) -> Frame:
        return whole[rows]

    def join(self, wholes: Sequence[Frame]) -> Frame:
        return Frame.concatenated(wholes)

    def columns(self, whole: Frame) -> Mapping[str, np.ma.MaskedArray]:
        return whole.columns

    def formats(self, whole: Frame) -> Mapping[str, str]:
        return whole.formats

    def without(self, whole: Frame, names: Sequence[str]) -> Frame:
        return whole.without(names)

    def infer(
        self, parts: dict[str, Part[Frame]], options: Options, name: str, progress: Progress | None
    ) -> Inference:
        frames = {s: self.rows(p) for s, p in parts.items()}
        columns = set(frames["train"].columns)
        for frame in frames.values():
            if set(frame.columns) != columns:
                differing = sorted(columns ^ set(frame.columns))
                raise ValueError(
                    f"expected splits with the same columns in {name}; got {differing[0]!r} in "
                    f"some only"
                )
        whole = Frame.concatenated([frame for frame in frames.values() if len(frame)])
        one = len(distinct(parts.values())) == 1

        def place(row: int) -> str:
            for s, part in parts.items():
                if row < len(frames[s]):
                    row = row if part.index is None else int(part.index[row])
                    # validation rows may be drawn from the training rows
                    source = next(k for k, p in parts.items() if p.whole is part.whole)
                    return f"row {row + 1:,}" if one else f"row {row + 1:,} of {source}"
                row -= len(frames[s])
            raise IndexError(row)

        space, notes = kinds.infer_space(whole, frames["train"], options, name, place)
        notes = [*notes, *hint(distinct(parts.values())[0])]
        return Inference(parts, space, options, notes)

    def accepts(self, space: Space) -> bool:
        return bool(space.columns)

    def fit(self, whole: Frame, space: Space, options: Options) -> Frame:
        return whole

    def advise(self, error: ValueError, run: str, space: Space, where: str) -> ValueError:
        return ValueError(
            f"{error} (as in {run}; leave such rows out, empty such cells, or train without --init)"
        )

    def lay_out(
        self, whole: Frame, space: Space, grey: bool, progress: Progress | None, checked: bool
    ) -> Laid:
        return Laid(space.inward(whole), space.seen(whole))

    def merged(self, data: Frame, imputed: Frame, absent: Sequence[str] = ()) -> Frame:
        fills = imputed.columns
        return data.changed(
            lambda name, cells: merged_column(cells, fills[name]) if name in fills else cells
        )

    def write(
        self, path: Path, data: Frame, places: np.ndarray | None, *, raw: bool = False
    ) -> int:
        if path.suffix.lower() in (".npy", ".txt"):
            raise ValueError(
                f"expected a file of a table ({', '.join(TABLES)} or .npz); got {path}"
            )
        with writing(path) as part:
            return tables.write_frame(part, data, path.suffix.lower(), raw=raw)
