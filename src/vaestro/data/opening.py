"""Open a source: read its data, and check that its options apply to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

import numpy as np

from vaestro.data import in_memory, shards, tables, texts
from vaestro.data.annotated import read_object
from vaestro.data.array_input import as_array
from vaestro.data.containers import Container, container_of
from vaestro.data.images import Progress, is_image
from vaestro.data.named import NAMED
from vaestro.data.parsing import parse_cells
from vaestro.data.passes import Part
from vaestro.data.raw import Options, Raw
from vaestro.data.readers import check_array, is_array_folder, read
from vaestro.data.series import ragged
from vaestro.data.series.known import matched, options_like
from vaestro.data.series.sources import read_series_of
from vaestro.data.source_options import as_source, checked_options, parse_source
from vaestro.data.source_values import missing_values
from vaestro.frames import Frame
from vaestro.spaces import Column, Space
from vaestro.text import InputError
from vaestro.tokens import Texts

InMemory: TypeAlias = "np.ndarray | Texts | Sequence[str] | Frame | tables.Columns"
IN_PYTHON = ("array", "table", "texts", "series", "anndata", "sparse")  # names of data in Python
Input: TypeAlias = "str | Path | InMemory"  # a source: its name or path, or data in Python


@final
@dataclass(frozen=True, eq=False)
class Opened:
    """Hold a source that was read.

    Args:
        name: of the source, without its options; one of IN_PYTHON for data in Python.
        options: of the source.
        raw: the data.
        container: of the data.
    """

    name: str
    options: Options
    raw: Raw
    container: Container

    @property
    def parts(self) -> dict[str, Part]:
        """Return the splits of the source, or all rows under "all"."""
        attributes = self.raw.attributes
        return {s: Part(a, None, dict(attributes.get(s, {}))) for s, a in self.raw.splits.items()}

    def binarise(self, space: Space) -> str:
        """Return how the data are binarised, in a given space: dynamic, static or none."""
        usual = "dynamic" if self.name == "mnist" and space.probabilities else "none"
        return str(self.options.get("binarise", usual))


def open_source(
    source: Input,
    progress: Progress | None = None,
    columns: Sequence[Column] | None = None,
    *,
    every: bool = False,
    options: Options | None = None,
    like: Space | None = None,
) -> Opened:
    """Read a source.

    Args:
        source: as for `load`.
        progress: called with (what, done, total) while something takes long.
        columns: the only columns that are needed of a table.
        every: whether to read the other columns of the table too.
        options: further options of the source, which override those in its name.
        like: the space of a run that the data are read for. Series are read as those of the run,
            unless options of the source say otherwise.

    Raises:
        ValueError: the source cannot be read, or an option does not apply to it.

    >>> sorted(open_source("shapes:n=10,size=16").raw.attributes["all"])
    ['colour', 'rotation', 'scale', 'shape', 'x', 'y']
    """
    options = checked_options(options or {})
    if isinstance(source, (str, Path)):
        name, parsed = parse_source(source)
        options = options_like({**parsed, **options}, like)
        raw = read(name, options, progress, columns, every=every, like=like)
    else:
        options = options_like(options, like)
        name, raw = read_in_python(source, options, like)
    if raw.series is not None:
        options = raw.series.resolved(options, raw.missing)
        if like is not None:
            raw = matched(raw, like, name)
    first = next(iter(raw.splits.values()))
    if isinstance(first, Frame):
        raw = parse_cells(raw, options, name, columns)
        first = next(iter(raw.splits.values()))
    if raw.missing:
        words = dict.fromkeys(["nan", *missing_values(options.get("missing"))])
        options = {**options, "missing": "+".join(words)}
    container = container_of(first)
    checked = options if raw.series is None else raw.series.left(options)
    unfit, what = container.check_options(checked, first, name, has_images(name))
    if unfit:
        raise InputError(f"{unfit[0]}= does not apply to {what} ({name}): leave it out")
    return Opened(name, options, raw, container)


def read_in_python(
    source: InMemory, options: Options, like: Space | None = None
) -> tuple[str, Raw]:
    """Return data in Python with a name for messages.

    Args:
        source: an array, a table, texts, series or AnnData.
        options: of the source.
        like: the space of a run that series are read for.

    Raises:
        ValueError: the data are none of these, or cannot be used.

    >>> read_in_python([[1, 2], [3, 4]], {})[0]
    'array'
    """
    if (annotated := read_object(source, options)) is not None:
        return annotated
    if (lines := texts.as_texts(source)) is not None:
        return "texts", Raw({"all": lines})
    if source is None:
        raise ValueError(
            "expected a source: a name such as mnist, a path, an array, a table or a list of "
            "texts; got None"
        )
    if (series := ragged.as_series(source, options)) is not None:
        return "series", ragged.read_named(series, options, "the series")
    array, gaps = (source, False) if in_memory.is_table(source) else as_array(source)
    if isinstance(array, (list, tuple)) and not in_memory.is_records(array):
        array = in_memory.of_lists(array)
    if isinstance(array, np.ndarray) and not array.dtype.names:
        array = check_array(array, Path("the array"))
        windows = ragged.windows_of_array(array, options, "array")
        return "array", windows or Raw({"all": array}, missing=gaps)
    if isinstance(array, np.ndarray):
        array = {name: array[name] for name in array.dtype.names or ()}
    if options.get("series", False):
        return "table", read_series_of(array, options, "table", like)
    notes: list[str] = []
    frame = array if isinstance(array, Frame) else tables.frame_of(array, notes=notes)
    return "table", Raw({"all": frame}, notes=tuple(notes))


def with_layout(source: Input, space: Space) -> Input:
    """Return a source of images with the size, channels and depth of a space as options, unless it
    has such options. Other sources are returned unchanged.

    >>> import vaestro as vs
    >>> with_layout("mnist", vs.load("shapes:n=20,size=16").space)
    'mnist'
    """
    if not isinstance(source, (str, Path)):
        return source
    name, options = parse_source(str(source))
    if "size" in options or not (has_images(name) and space.has_mean):
        return str(source)
    return as_source(name, {**space.layout.folder_options(space.shape, space.dtype), **options})


def has_images(name: str) -> bool:
    """Return whether a source may contain images that are resized.

    >>> has_images("hf:some/pictures"), has_images("mnist")
    (True, False)
    """
    path = Path(name).expanduser()
    pictures = is_image(name) or (path.is_dir() and not is_array_folder(name))
    return name.startswith("hf:") or pictures or shards.is_shards(name)


def absolute_name(name: str) -> str:
    """Return the name of a source with an absolute path.

    >>> absolute_name("mnist")
    'mnist'
    """
    named = name in (*NAMED, *IN_PYTHON) or name.startswith("hf:") or shards.remote(name)
    return name if named else str(Path(name).expanduser().resolve())
