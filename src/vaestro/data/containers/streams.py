"""Streams: rows of shards that are decoded when they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.data.arrays import infer_space
from vaestro.data.containers.base import Container, Inference, Laid
from vaestro.data.fitting import grey_levels
from vaestro.data.images import Progress
from vaestro.data.passes import Part
from vaestro.data.raw import Options
from vaestro.data.readers import is_images
from vaestro.data.shard_streams import decode_repeated
from vaestro.data.source_options import of_groups
from vaestro.data.streams import HELD_OUT, Stream
from vaestro.data.writers import write_arrays
from vaestro.spaces import Space
from vaestro.text import InputError

if TYPE_CHECKING:
    from vaestro.data.sets import Rows, Values


@final
class Streams(Container[Stream]):
    """Handle streams. Their held-out rows become arrays (`settle`)."""

    type = Stream
    name = "images"
    most_held_out = HELD_OUT

    def check_options(
        self, options: Options, whole: Stream, name: str, folder: bool
    ) -> tuple[list[str], str]:
        if "missing" in options:
            raise ValueError(
                f"expected values in every cell of streamed data; got "
                f"missing={options['missing']} for {name} "
                f"(streaming=false reads them once)"
            )
        if "groups" in options:
            raise InputError(
                f"groups={options['groups']} does not apply to streamed data ({name}): split them "
                f"into folders or files train, valid and test"
            )
        unfit = of_groups(options, "tables", "files", "texts")
        return [k for k in unfit if is_images(name) or k != "ignore"], self.name

    def select(self, whole: Stream, rows: np.ndarray) -> Stream:
        return whole.only(rows)

    def join(self, wholes: Sequence[Stream]) -> Stream:
        return Stream.joined(wholes)

    def divide(
        self, part: Part[Stream], sizes: Mapping[str, int], seed: int
    ) -> dict[str, Part[Stream]]:
        drawn = {s: part.chosen(rows) for s, rows in part.whole.held_out(sizes, seed).items()}
        return {
            s: Part(self.select(part.whole, p.index), p.index, p.attributes)
            for s, p in drawn.items()
            if p.index is not None
        }

    def settle(
        self, parts: dict[str, Part[Stream]], options: Options, name: str, progress: Progress | None
    ) -> tuple[dict[str, Part], Options, list[str]]:
        options = {"buffer": parts["train"].whole.buffer, **options}
        decoded, _, notes = decode_repeated(parts, options, name, progress)
        # the last note also describes the rows that the statistics are computed from
        return decoded, options, [*notes[:-1], notes[-1].partition(";")[0]]

    def infer(
        self, parts: dict[str, Part[Stream]], options: Options, name: str, progress: Progress | None
    ) -> Inference:
        options = {"buffer": parts["train"].whole.buffer, **options}
        decoded, sample, decoding_notes = decode_repeated(parts, options, name, progress)
        space, options, notes, _ = infer_space(sample, options, name)
        return Inference(decoded, space, options, [*decoding_notes, *notes], shared=[])

    def shared(
        self, parts: Mapping[str, Part[Stream]], rows: Mapping[str, Rows], trusted: bool
    ) -> list[str]:
        return []  # all shards would have to be read

    def lay_out(
        self, whole: Stream, space: Space, grey: bool, progress: Progress | None, checked: bool
    ) -> Laid:
        return Laid(whole.laid_out(partial(grey_levels, space=space) if grey else space.inward))

    def joined(self, rows: Sequence[Rows]) -> Values:
        streams = [r.values for r in rows if isinstance(r.values, Stream)]
        # static binarisation has converted them to arrays
        return Stream.joined(streams) if streams else super().joined(rows)

    def write(
        self, path: Path, data: Stream, places: np.ndarray | None, *, raw: bool = False
    ) -> int:
        return write_arrays(path, {"x": data[:]})
