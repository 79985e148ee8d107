"""Texts, one a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.data import duplicates, tables, texts
from vaestro.data.containers.base import Container, Inference, Laid
from vaestro.data.images import Progress
from vaestro.data.passes import Part, distinct
from vaestro.data.raw import Options
from vaestro.data.sequence_files import suffix_of
from vaestro.data.source_options import options_about
from vaestro.data.writers import write_arrays
from vaestro.frames import Frame
from vaestro.spaces import Space
from vaestro.storage import writing
from vaestro.tokens import Ragged, Texts

if TYPE_CHECKING:
    from vaestro.data.sets import Rows, Values


@final
class TextRows(Container[Texts]):
    """Handle texts."""

    type = Texts
    name = numbers = "texts"
    taken_over = "tokens and length"

    def check_options(
        self, options: Options, whole: Texts, name: str, folder: bool
    ) -> tuple[list[str], str]:
        lines = Path(name).suffix.lower() == ".txt" or suffix_of(Path(name))
        of_table = () if lines else ("text", "ignore", "split")
        allowed = (*options_about("texts", "shards"), *of_table, "array", "valid", "test", "seed")
        return [k for k in options if k not in allowed] + self.sharding(options, name), self.name

    def select(self, whole: Texts, rows: np.ndarray) -> Texts:
        return whole[rows]

    def join(self, wholes: Sequence[Texts]) -> Texts:
        return Texts(np.concatenate([whole.lines for whole in wholes]), wholes[0].symbols)

    def infer(
        self, parts: dict[str, Part[Texts]], options: Options, name: str, progress: Progress | None
    ) -> Inference:
        found = texts.infer_texts(parts, options, name)
        wholes = map(id, distinct(parts.values()))
        codes = dict(zip(wholes, found.codes, strict=True))
        return Inference(parts, found.space, found.options, found.notes, found.shared, codes)

    def shared(
        self, parts: Mapping[str, Part[Texts]], rows: Mapping[str, Rows], trusted: bool
    ) -> list[str]:
        codes_of = {s: (codes, r.index) for s, r in rows.items() if (codes := r.ragged) and len(r)}
        return duplicates.of_texts(codes_of)

    def accepts(self, space: Space) -> bool:
        return space.tokeniser is not None

    def fit(self, whole: Texts, space: Space, options: Options) -> Texts:
        return whole

    def codes(
        self, parts: Mapping[str, Part[Texts]], space: Space, options: Options
    ) -> Mapping[int, Ragged]:
        if space.tokeniser is None or "length" not in options:  # else longer texts are refused
            return {}
        tokeniser, width = space.tokeniser, space.shape[0]
        return {id(whole): tokeniser.cut(whole, width) for whole in distinct(parts.values())}

    def read_notes(self, parts: Mapping[str, Part[Texts]], rows: Mapping[str, Rows]) -> list[str]:
        chosen: list[tuple[Texts, Ragged]] = []
        for split, part in parts.items():
            codes, index = rows[split].ragged, part.index
            if codes is not None and index is None:
                chosen.append((part.whole, codes))
            elif codes is not None and index is not None:
                chosen.append((part.whole[index], codes.pick(index)))
        space = next(iter(rows.values())).space
        if space.tokeniser is None or not chosen:
            return []
        width = space.shape[0]
        sizes = np.concatenate([np.diff(codes.starts) for _, codes in chosen])
        longer = int((sizes >= width).sum())
        note = f"{longer:,} of {len(sizes):,} texts truncated to {width:,} tokens (length={width})"
        return texts.unknown_note(space.tokeniser, chosen) + ([note] if longer else [])

    def advise(self, error: ValueError, run: str, space: Space, where: str) -> ValueError:
        return error

    def lay_out(
        self, whole: Texts, space: Space, grey: bool, progress: Progress | None, checked: bool
    ) -> Laid:
        return Laid(space.inward(whole))

    def joined(self, rows: Sequence[Rows]) -> Values:
        parts = [(r.ragged, r.index) for r in rows]
        return Ragged.joined([c if i is None else c.pick(i) for c, i in parts if c is not None])

    def write(
        self, path: Path, data: Texts, places: np.ndarray | None, *, raw: bool = False
    ) -> int:
        suffix = path.suffix.lower()
        if suffix == ".txt":
            with writing(path) as part:
                lines = (line.replace("\r", "\\r").replace("\n", "\\n") for line in data.lines)
                part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            return 0
        if suffix in (".npy", ".npz"):
            return write_arrays(path, {"x": data.lines.astype(str)})
        column = np.ma.MaskedArray(data.lines.astype(str))
        with writing(path) as part:
            return tables.write_frame(part, Frame({"text": column}), suffix, raw=raw)
