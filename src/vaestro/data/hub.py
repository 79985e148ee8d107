"""Read data sets of the datasets library, from the Hugging Face Hub or a folder that it saved.

The data are a column of images or arrays, or a column of text that the user names; columns of
single values are then attributes. If there is no such column, the columns of single values are a
table. No code of a data set is run, and nothing is unpickled.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, TypeVar, final

import numpy as np

from vaestro.data import cache, choosing, images, shards, tables, texts
from vaestro.data.columns import LETTERS, filled, named, stacked
from vaestro.data.hub_library import datasets_library, hub_error, quiet
from vaestro.data.image_decoding import target_of
from vaestro.data.raw import Json, Options, Raw
from vaestro.data.shard_streams import read_shards
from vaestro.frames import Frame
from vaestro.text import InputError, few, nearest, one_line, typed, unquoted

if TYPE_CHECKING:
    import datasets
    import pyarrow

KIND = f"{images.KIND}-hub-1"
Rows = TypeVar("Rows", bound=Sized)  # of a split, or its files
IMAGES, ARRAYS, SINGLE, TEXT = "images", "arrays", "single values", "text"


def read_hub(name: str, options: Options, progress: images.Progress | None = None) -> Raw:
    """Read a data set of the Hugging Face Hub, which the datasets library downloads once.

    Args:
        name: OWNER/NAME, or OWNER/NAME:COLUMN to choose the column that is the data.
        options: as for `read_saved`; `streaming` and `buffer` as for `read_shards`.
        progress: called with (what, done, total).

    Raises:
        ValueError: there is no such data set or column, or it cannot be used.
        OSError: the Hub cannot be reached, or the disk is full.
    """
    place = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)(?::(.+))?", name)
    if not place:
        raise ValueError(f"expected hf:OWNER/NAME, or hf:OWNER/NAME:COLUMN; got 'hf:{name}'")
    library, source = datasets_library(), f"hf:{place[1]}"
    if options.get("streaming", False):
        return _streamed(library, place[1], place[2], options, progress)
    if "buffer" in options:
        raise InputError(
            f"buffer={options['buffer']} has an effect only with streaming: add streaming=true"
        )
    with quiet(library, bars=progress is not None and sys.stderr.isatty()):
        try:
            dataset = library.load_dataset(place[1])
        except MemoryError:
            raise
        except Exception as error:
            raise hub_error(library, error, place[1]) from error
    return _read(dataset, place[2], source, None, options, progress)


def _streamed(
    library: ModuleType,
    name: str,
    column: str | None,
    options: Options,
    progress: images.Progress | None,
) -> Raw:
    """Read the Parquet files or .tar files of a data set from the Hub, one block at a time.

    Raises:
        ValueError: there is no such data set, or it has files of other formats.
        OSError: the Hub cannot be reached.
    """
    with quiet(library, bars=False):
        try:
            data_files = library.load_dataset_builder(name).config.data_files or {}
        except MemoryError:
            raise
        except Exception as error:
            raise hub_error(library, error, name) from error
    files = {str(split): [str(file) for file in paths] for split, paths in data_files.items()}
    others = [
        file
        for paths in files.values()
        for file in paths
        if not file.lower().endswith(shards.SUFFIXES)
    ]
    if not files or others:
        got = os.path.basename(others[0]) if others else "none"
        raise ValueError(
            f"expected Parquet or .tar files to stream in hf:{name}; got {got} (leave out "
            f"streaming=true to download them)"
        )
    notes: list[str] = []
    splits = splits_of(files, f"hf:{name}", notes)
    raw = read_shards(
        f"hf:{name}", {**options, **({} if column is None else {"array": column})}, progress, splits
    )
    return replace(raw, notes=(*notes, *raw.notes))


def read_saved(path: Path, options: Options, progress: images.Progress | None = None) -> Raw:
    """Read a folder that `save_to_disk` of the datasets library wrote. No other file is read.

    The splits are those of the data set, or "all" if there is only one. Decoded images are stored
    in the cache.

    Args:
        path: the folder.
        options: `array`, the column that is the data (by default the only column of images,
            otherwise of arrays, otherwise all columns); `ignore`, columns to leave out, joined by
            +; for images `size`, `crop`, `channels` and `strict`, as for `read_images`; for tables
            `split`, the column whose cells are train, valid or test. Other options are ignored.
        progress: called with (what, done, total).

    Raises:
        ValueError: the folder is damaged, or its data cannot be used.
        OSError: the cache cannot be written.
    """
    library = datasets_library()
    with quiet(library, bars=False):
        try:
            dataset = library.load_from_disk(os.path.abspath(path))
        except MemoryError:
            raise
        except Exception as error:
            # the library saves a split without rows, but cannot load it
            got = f"{path}, which is damaged or has a split without rows"
            raise ValueError(
                f"expected a folder that save_to_disk wrote; got {got} ({one_line(error)})"
            ) from error
    return _read(dataset, None, str(path), Path(path), options, progress)


# -- splits and columns ----------------------------------------------------------------------------


def _read(
    dataset: datasets.Dataset | datasets.DatasetDict,
    column: str | None,
    source: str,
    folder: Path | None,
    options: Options,
    progress: images.Progress | None,
) -> Raw:
    """Read a data set.

    Args:
        dataset: as the library loads it.
        column: that is the data, or None.
        source: for messages.
        folder: from which the data set was loaded; None for the Hub.
        options: as for `read_saved`.
        progress: called with (what, done, total).
    """
    notes: list[str] = []
    splits = splits_of(dataset if isinstance(dataset, dict) else {"all": dataset}, source, notes)
    features = next(iter(splits.values())).features
    for name, split in splits.items():
        if split.features != features:
            raise ValueError(
                f"expected splits with the same columns in {source}; got others in {name}"
            )
    kinds = _kinds(features, options, source)
    for option in ("array", "text"):
        if column is None and option in options:
            column = unquoted(options[option])
    column = _data_column(column, kinds, features, source, "array=" if folder else "")
    singles = [name for name, kind in kinds.items() if kind in (SINGLE, TEXT)]
    columns = singles if column is None else [column]
    attributes = _attributes(splits, [name for name in singles if name not in columns], source)
    if left := [name for name in kinds if name not in (*columns, *next(iter(attributes.values())))]:
        notes.append(
            f"{column} is the data; left out {', '.join(left[:9])}"
            + (" .." if len(left) > 9 else "")
        )
    if column is not None and kinds[column] == IMAGES:
        arrays, rows, more = _images(splits, column, source, folder, options, progress)
        attributes = {s: {n: v[rows[s]] for n, v in attributes[s].items()} for s in arrays}
        return Raw(arrays, attributes, (*notes, *more))
    if column is not None and kinds[column] == ARRAYS:
        arrays = {
            s: stacked(d.with_format("arrow")[:][column], column, source) for s, d in splits.items()
        }
        return Raw(arrays, attributes, tuple(notes))
    frames = {s: tables.frame_of(_table(d, columns), source) for s, d in splits.items()}
    raw = Raw(frames, attributes, tuple(notes))
    if column is not None and kinds[column] == TEXT:
        if "split" in options:
            raise InputError(
                f"split={options['split']} applies to tables only: leave it out for texts of "
                f"{source}"
            )
        return texts.of_column(raw, column, source)
    return _divided(raw, options, source) if "split" in options else raw


def _kinds(features: datasets.Features, options: Options, source: str) -> dict[str, str]:
    """Return the kind of each column, without the columns that the options leave out."""
    kinds = {name: _kind(feature) for name, feature in features.items()}
    if "ignore" not in options:
        return kinds
    ignored = choosing.named(options, "ignore", kinds, source)
    if len(ignored) == len(kinds):
        raise InputError(f"ignore= leaves no column of {source}: name fewer columns")
    return {name: kind for name, kind in kinds.items() if name not in ignored}


def _divided(raw: Raw[Frame], options: Options, source: str) -> Raw[Frame]:
    """Return the rows of a table by split, which a column contains."""
    if "all" not in raw.splits:
        raise InputError(f"{source} has its own splits: leave out split={options['split']}")
    frames = tables.splits_of(raw.splits["all"], str(options["split"]), source)
    return Raw(frames, {s: {} for s in frames}, raw.notes)


def splits_of(parts: Mapping[str, Rows], source: str, notes: list[str]) -> dict[str, Rows]:
    """Return data sets, or lists of their files, by split, or a single one under "all".

    Args:
        parts: by the names of splits that the data set gives.
        source: for messages.
        notes: to which a note on other splits is appended.

    Raises:
        ValueError: there are no rows, no split for training, or two splits for the same use.

    >>> splits_of({"train": [1, 2], "validation": [3], "extra": [4]}, "hf:some/data", [])
    {'train': [1, 2], 'valid': [3]}
    """
    filled = {name: part for name, part in parts.items() if len(part)}
    if not filled:
        raise ValueError(f"expected rows of data in {source}; got none")
    if len(filled) == 1:
        return {"all": next(iter(filled.values()))}
    usual = [name for name in filled if name.lower() in tables.SPLITS]
    splits = {tables.SPLITS[name.lower()]: filled[name] for name in usual}
    if "train" not in splits or len(splits) < len(usual):
        raise ValueError(
            f"expected a split train, and at most one valid and one test, in {source}; got "
            f"{', '.join(filled)}"
        )
    if others := [name for name in filled if name not in usual]:
        notes.append(f"splits {', '.join(others)} left out")
    return (
        {"all": splits["train"]}
        if len(splits) == 1
        else {s: splits[s] for s in ("train", "valid", "test") if s in splits}
    )


def _kind(feature: datasets.features.features.FeatureType) -> str:
    """Return the kind of a column, or "" if it cannot be used."""
    import datasets

    if isinstance(feature, datasets.Image):
        return IMAGES
    if isinstance(feature, datasets.ClassLabel):
        return SINGLE
    if isinstance(feature, datasets.Value):
        return "" if "binary" in feature.dtype else TEXT if "string" in feature.dtype else SINGLE
    if isinstance(
        feature, (datasets.Array2D, datasets.Array3D, datasets.Array4D, datasets.Array5D)
    ):
        return ARRAYS if _number(feature.dtype) else ""
    while isinstance(feature, (datasets.List, datasets.LargeList)):
        feature = feature.feature
        if isinstance(feature, datasets.Value):
            return ARRAYS if _number(feature.dtype) else ""
    return ""


def _number(dtype: str) -> bool:
    return re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)|double|float", dtype) is not None


def _data_column(
    column: str | None,
    kinds: Mapping[str, str],
    features: datasets.Features,
    source: str,
    option: str,
) -> str | None:
    """Return the column that is the data; None if the columns of single values are a table.

    Args:
        column: that the user named, or None.
        kinds: of the columns.
        features: of the data set.
        source: for messages.
        option: what to type after the source to name a column.
    """
    if column is not None:
        if column not in kinds:
            raise ValueError(
                f"expected a column of {source}: {nearest(column, few(column, kinds))}; "
                f"got {column!r}"
            )
        if not kinds[column]:
            raise ValueError(
                f"expected images, arrays, numbers or text in column {column!r} of {source}; got "
                f"{_short(features[column])}"
            )
        return column
    for kind in (IMAGES, ARRAYS):
        columns = [name for name, kind_of_column in kinds.items() if kind_of_column == kind]
        if len(columns) > 1:
            raise ValueError(
                f"expected one column of {kind} in {source}; got {', '.join(columns)}: choose one "
                f"with {source}:{option}{columns[0]}"
            )
        if columns:
            return columns[0]
    if unusable := [name for name, kind in kinds.items() if not kind]:
        got = f"{_short(features[unusable[0]])} in {unusable[0]!r}"
        raise ValueError(
            f"expected columns of images, arrays or single values; got {got}: leave out such "
            f"columns with {typed('ignore', unusable)}"
        )
    return None


def _short(feature: datasets.features.features.FeatureType) -> str:
    text = repr(feature)
    return text if len(text) <= 60 else text[:58] + ".."


# -- columns ---------------------------------------------------------------------------------------


def _table(dataset: datasets.Dataset, columns: Sequence[str]) -> pyarrow.Table:
    """Return columns of single values as an Arrow table, with names of classes instead of codes."""
    import datasets

    table = dataset.with_format("arrow")[:].select(columns)
    for name in columns:
        if isinstance(feature := dataset.features[name], datasets.ClassLabel):
            table = named(table, name, feature.names)
    return table


def _attributes(
    splits: Mapping[str, datasets.Dataset], names: Sequence[str], source: str
) -> dict[str, dict[str, np.ndarray]]:
    """Return columns (N,) by split, with NaN, NaT or empty text in empty cells. Empty columns and
    long texts are left out."""
    import pyarrow.compute as compute

    attributes: dict[str, dict[str, np.ndarray]] = {s: {} for s in splits}
    for name in names:
        parts = {s: _table(d, [name]) for s, d in splits.items()}
        texts = [
            table[name].cast("large_string")
            for table in parts.values()
            if "string" in str(table[name].type)
        ]
        if any((compute.max(compute.utf8_length(text)).as_py() or 0) > LETTERS for text in texts):
            continue
        try:
            cells = {s: tables.frame_of(table, source).columns[name] for s, table in parts.items()}
        except ValueError:  # times of day, infinite numbers
            continue
        if any(len(c.compressed()) for c in cells.values()):
            for s, c in cells.items():
                attributes[s][name] = filled(c)
    return attributes


# -- images ----------------------------------------------------------------------------------------


@final
class _Cells:
    """Locate the images in a column by SPLIT/ROW."""

    def __init__(self, splits: Mapping[str, datasets.Dataset], column: str, source: str) -> None:
        self.columns = {s: d.with_format("arrow")[:][column] for s, d in splits.items()}
        self.source = source

    def __str__(self) -> str:
        return self.source

    def open(self, name: str) -> Path | IO[bytes]:
        """Return the content of a cell, or the path that it contains."""
        split, _, row = name.rpartition("/")
        cell = self.columns[split or "all"][int(row)].as_py() or {}
        return io.BytesIO(cell["bytes"]) if cell.get("bytes") else Path(cell["path"])


def _images(
    splits: Mapping[str, datasets.Dataset],
    column: str,
    source: str,
    folder: Path | None,
    options: Options,
    progress: images.Progress | None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """Return the images of each split, their row numbers, and notes."""
    target, place = target_of(options), folder or Path(os.sep)
    files = [file["filename"] for d in splits.values() for file in d.cache_files] if folder else []
    prints = {s: (d._fingerprint, len(d)) for s, d in splits.items()}
    settings = {
        **target._asdict(),
        "column": column,
        "splits": prints,
        "source": "" if folder else source,
    }

    def make(part: Path) -> Json:
        names = {
            s: [str(i) if s == "all" else f"{s}/{i}" for i in range(len(d))]
            for s, d in splits.items()
        }
        meta = images.make(part, _Cells(splits, column, source), names, target, progress)
        used = cache.open_array(part / "file.npy")
        np.save(
            part / "rows.npy", np.array([int(name.rpartition("/")[2]) for name in used.tolist()])
        )
        return meta

    at, meta = cache.entry(
        cache.key(KIND, files, settings, place), make, folder.resolve() if folder else source
    )
    if options.get("strict", False):
        images.check_none_skipped(meta)
    array, rows = cache.open_array(at / "images.npy"), cache.open_array(at / "rows.npy")
    ranges = meta["splits"].items()
    return (
        {s: array[a:b] for s, (a, b) in ranges},
        {s: np.asarray(rows[a:b]) for s, (a, b) in ranges},
        meta["notes"],
    )
