"""Read data sets of the datasets library: from the Hugging Face hub, or from a folder that it
saved.

A column of images or of arrays, or one of text that is named, is the data, and columns of single
values beside it are attributes; where there is neither, the columns of single values are a table.
No code that comes with a data set is run, and nothing is unpickled.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vaestro.data import cache, choosing, images, shards, tables, texts
from vaestro.data.columns import LETTERS, filled, named, stacked
from vaestro.data.raw import Json, Options, Raw
from vaestro.data.shard_streams import read_shards
from vaestro.text import few, nearest, quoted, unquoted

OLDEST = 4  # of the library; older ones run what a data set's author wrote
KIND = f"{images.KIND}-hub-1"
IMAGES, ARRAYS, SINGLE, TEXT = "images", "arrays", "single values", "text"


def read_hub(name: str, options: Options, progress: images.Progress | None = None) -> Raw:
    """Read a data set of the Hugging Face hub, which the datasets library downloads once.

    Args:
        name: OWNER/NAME, or OWNER/NAME:COLUMN to choose the column that is the data.
        options: as for `read_saved`.
        progress: called now and then with what is done, how many are done, and of how many.

    Raises:
        ValueError: there is no such data set or column, or it cannot be data.
        OSError: the hub cannot be reached, or the disk is full.
    """
    place = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)(?::(.+))?", name)
    if not place:
        raise ValueError(f"expected hf:OWNER/NAME, or hf:OWNER/NAME:COLUMN; got 'hf:{name}'")
    library, source = _library(), f"hf:{place[1]}"
    if options.get("streaming", False):
        return _streamed(library, place[1], place[2], options, progress)
    if "buffer" in options:
        raise ValueError(
            f"expected streaming=true beside buffer=; got buffer={options['buffer']} for {source}"
        )
    with _quiet(library, bars=progress is not None and sys.stderr.isatty()):
        try:
            found = library.load_dataset(place[1])
        except MemoryError:
            raise
        except Exception as error:
            raise _refusal(library, error, place[1]) from error
    return _read(found, place[2], source, None, options, progress)


def _streamed(
    library: Any, name: str, column: str | None, options: Options, progress: images.Progress | None
) -> Raw:
    """Read the Parquet files or .tar files of a data set where they are, a block at a time.

    Raises:
        ValueError: there is no such data set, or it lies in other files.
        OSError: the hub cannot be reached.
    """
    with _quiet(library, bars=False):
        try:
            found = library.load_dataset_builder(name).config.data_files or {}
        except MemoryError:
            raise
        except Exception as error:
            raise _refusal(library, error, name) from error
    files = {str(split): [str(file) for file in held] for split, held in found.items()}
    others = [
        file
        for held in files.values()
        for file in held
        if not file.lower().endswith(shards.SUFFIXES)
    ]
    if not files or others:
        got = os.path.basename(others[0]) if others else "none"
        raise ValueError(
            f"expected Parquet or .tar files to stream in hf:{name}; got {got} (without "
            f"streaming=true it is downloaded)"
        )
    notes: list[str] = []
    splits = _splits(files, f"hf:{name}", notes)
    raw = read_shards(
        f"hf:{name}", {**options, **({} if column is None else {"array": column})}, progress, splits
    )
    return replace(raw, notes=(*notes, *raw.notes))


def read_saved(path: Path, options: Options, progress: images.Progress | None = None) -> Raw:
    """Read a folder that `save_to_disk` of the datasets library wrote; nothing but the folder is
    read.

    The splits are the data set's own; of a single one, "all". What was decoded once comes from the
    cache.

    Args:
        path: the folder.
        options: `array`, the column that is the data (by default the only one of images, else of
            arrays, else all); `ignore`, columns to leave out, joined by +; of images `size`,
            `crop`, `channels` and `strict`, as for `read_images`; of tables `split`, the column
            that says which rows are train, valid and test. Others are ignored.
        progress: called now and then with what is done, how many are done, and of how many.

    Raises:
        ValueError: the folder is damaged, or holds what cannot be data.
        OSError: the cache cannot be written.
    """
    library = _library()
    with _quiet(library, bars=False):
        try:
            found = library.load_from_disk(os.path.abspath(path))
        except MemoryError:
            raise
        except Exception as error:
            # the library saves such a split, and cannot load it
            got = f"{path}, which is damaged or has a split without rows"
            raise ValueError(
                f"expected a folder that save_to_disk wrote; got {got} ({_line(error)})"
            ) from error
    return _read(found, None, str(path), Path(path), options, progress)


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            "expected the extra vaestro[hub] to read Hugging Face datasets; got an installation "
            "without it"
        ) from error
    if int(datasets.__version__.partition(".")[0]) < OLDEST:
        wanted = f"datasets {OLDEST} or newer, which run no code of a data set's author"
        raise ValueError(
            f"expected {wanted}; got {datasets.__version__}: pip install --upgrade datasets"
        )
    return datasets


@contextmanager
def _quiet(library: Any, *, bars: bool) -> Iterator[None]:
    """Keep what the libraries have to say off the terminal: what fails is said once, by us."""
    from huggingface_hub import utils

    shown = (
        []
        if bars
        else [module for module in (library, utils) if not module.are_progress_bars_disabled()]
    )
    loggers = {
        logger: logger.level for logger in map(logging.getLogger, ("datasets", "huggingface_hub"))
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for module in shown:
                module.disable_progress_bars()
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for module in shown:
                module.enable_progress_bars()
            for logger, level in loggers.items():
                logger.setLevel(level)


def _refusal(library: Any, error: Exception, name: str) -> Exception:
    """Say in one line why the hub gave nothing."""
    cause = (
        error.__cause__
        if isinstance(error, library.exceptions.DatasetBuildError) and error.__cause__
        else error
    )
    if isinstance(error, library.exceptions.DatasetNotFoundError):
        where = "which is not there, or not open to you without hf auth login"
        return ValueError(f"expected a data set of the Hugging Face hub; got {name}, {where}")
    if isinstance(error, ConnectionError) or type(error).__module__.partition(".")[0] in (
        "httpx",
        "requests",
        "huggingface_hub",
    ):
        return ConnectionError(
            f"expected the Hugging Face hub, or {name} in its cache on this machine; got no "
            f"connection ({_line(error)})"
        )
    if isinstance(cause, OSError) and cause.errno in cache.FULL:
        return OSError(
            f"expected room on the disk for {name}; got none left: free some, or set HF_HOME to "
            f"a folder on another disk"
        )
    remedy = (
        "what it reads with further arguments can be written by save_to_disk, and that "
        "folder be read"
    )
    return ValueError(
        f"expected a data set that datasets.load_dataset({name!r}) reads; got {_line(cause)} "
        f"({remedy})"
    )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:158] + ".."


# -- which splits and columns ----------------------------------------------------------------------


def _read(
    found: Any,
    column: str | None,
    source: str,
    folder: Path | None,
    options: Options,
    progress: images.Progress | None,
) -> Raw:
    """Read a Dataset or a DatasetDict; `folder` is where it lies if it was saved."""
    notes: list[str] = []
    splits = _splits(found, source, notes)
    features = next(iter(splits.values())).features
    for name, dataset in splits.items():
        if dataset.features != features:
            raise ValueError(
                f"expected splits with the same columns in {source}; got others in {name}"
            )
    kinds = {name: _kind(feature) for name, feature in features.items()}
    if "ignore" in options:
        ignored = choosing.named(options, "ignore", kinds, source)
        kinds = {name: kind for name, kind in kinds.items() if name not in ignored}
        if not kinds:
            raise ValueError(
                f"expected ignore= to leave a column of {source}; got {', '.join(ignored)}"
            )
    for option in ("array", "text"):
        if column is None and option in options:
            column = unquoted(options[option])
    column = _chosen(column, kinds, features, source, "array=" if folder else "")
    singles = [name for name, kind in kinds.items() if kind in (SINGLE, TEXT)]
    columns = singles if column is None else [column]
    attributes = _attributes(splits, [name for name in singles if name not in columns], source)
    if left := [name for name in kinds if name not in (*columns, *next(iter(attributes.values())))]:
        notes.append(
            f"{column} is the data; left out {', '.join(left[:9])}"
            + (" .." if len(left) > 9 else "")
        )
    if column is not None and kinds[column] == TEXT:
        if "split" in options:
            raise ValueError(
                f"expected no split= for texts of {source}; got split={options['split']}"
            )
        frames = {s: tables.frame_of(_table(d, [column]), source) for s, d in splits.items()}
        return texts.of_column(Raw(frames, attributes, tuple(notes)), column, source)
    if column is None or kinds[column] == SINGLE:
        found = {s: tables.frame_of(_table(d, columns), source) for s, d in splits.items()}
        if "split" in options:
            if "all" not in found:
                raise ValueError(
                    f"expected no split= for {source}, which brings its own splits; got "
                    f"split={options['split']}"
                )
            found = tables.splits_of(found["all"], str(options["split"]), source)
            attributes = {s: {} for s in found}
        return Raw(found, attributes, tuple(notes))
    if kinds[column] == ARRAYS:
        found = {
            s: stacked(d.with_format("arrow")[:][column], column, source) for s, d in splits.items()
        }
        return Raw(found, attributes, tuple(notes))
    found, rows, said = _images(splits, column, source, folder, options, progress)
    return Raw(
        found,
        {s: {n: v[rows[s]] for n, v in attributes[s].items()} for s in found},
        (*notes, *said),
    )


def _splits(found: Any, source: str, notes: list[str]) -> Json:
    """Return data sets, or lists of their files, by split, or a single one as "all"."""
    if not isinstance(found, dict):
        found = {"all": found}
    there = {name: dataset for name, dataset in found.items() if len(dataset)}
    if not there:
        raise ValueError(f"expected rows of data in {source}; got none")
    if len(there) == 1:
        return {"all": next(iter(there.values()))}
    known = [name for name in there if name.lower() in tables.SPLITS]
    named = {tables.SPLITS[name.lower()]: there[name] for name in known}
    if "train" not in named or len(named) < len(known):
        raise ValueError(
            f"expected a split train, and one valid and one test at most, in {source}; got "
            f"{', '.join(there)}"
        )
    if others := [name for name in there if name not in known]:
        notes.append(f"splits {', '.join(others)} left out")
    return (
        {"all": named["train"]}
        if len(named) == 1
        else {s: named[s] for s in ("train", "valid", "test") if s in named}
    )


def _kind(feature: Any) -> str:
    """Say what a column holds, or nothing where that cannot be data."""
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


def _chosen(
    column: str | None, kinds: Mapping[str, str], features: Mapping[str, Any], source: str, how: str
) -> str | None:
    """Return the column that is the data, or None where the columns are a table."""
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
        found = [name for name, held in kinds.items() if held == kind]
        if len(found) > 1:
            raise ValueError(
                f"expected one column of {kind} in {source}; got {', '.join(found)}: try "
                f"{source}:{how}{found[0]}"
            )
        if found:
            return found[0]
    if wrong := [name for name, kind in kinds.items() if not kind]:
        got = f"{_short(features[wrong[0]])} in {wrong[0]!r}"
        raise ValueError(
            f"expected columns of images, arrays or single values; got {got}: try "
            f"{source}:ignore={'+'.join(map(quoted, wrong))}"
        )
    return None


def _short(feature: Any) -> str:
    text = repr(feature)
    return text if len(text) <= 60 else text[:58] + ".."


# -- columns ---------------------------------------------------------------------------------------


def _table(dataset: Any, columns: Sequence[str]) -> Any:
    """Return columns of single values as an Arrow table, with the names of classes for their
    codes."""
    table = dataset.with_format("arrow")[:].select(columns)
    for name in columns:
        if (names := getattr(dataset.features[name], "names", None)) is not None:
            table = named(table, name, names)
    return table


def _attributes(
    splits: Mapping[str, Any], names: Sequence[str], source: str
) -> dict[str, dict[str, np.ndarray]]:
    """Return columns (N,) by split, with NaN, NaT or empty text in empty cells, but none that say
    nothing, or too much."""
    import pyarrow.compute as compute

    made: dict[str, dict[str, np.ndarray]] = {s: {} for s in splits}
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
                made[s][name] = filled(c)
    return made


# -- images ----------------------------------------------------------------------------------------


class _Cells:
    """Stand in for a folder of images: SPLIT/ROW is what Pillow opens, the bytes in a cell or the
    file that it names."""

    def __init__(self, splits: Mapping[str, Any], column: str, source: str) -> None:
        self.columns = {s: d.with_format("arrow")[:][column] for s, d in splits.items()}
        self.source = source

    def __str__(self) -> str:
        return self.source

    def __truediv__(self, name: str) -> Any:
        split, _, row = name.rpartition("/")
        held = self.columns[split or "all"][int(row)].as_py() or {}
        return io.BytesIO(held["bytes"]) if held.get("bytes") else Path(held["path"])


def _images(
    splits: Mapping[str, Any],
    column: str,
    source: str,
    folder: Path | None,
    options: Options,
    progress: images.Progress | None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """Return the images of each split and which rows they are, with what was done in words."""
    target, place = images.target_of(options), folder or Path(os.sep)
    files = [file["filename"] for d in splits.values() for file in d.cache_files] if folder else []
    prints = {s: (d._fingerprint, len(d)) for s, d in splits.items()}
    settings = {
        **target._asdict(),
        "column": column,
        "splits": prints,
        "source": "" if folder else source,
    }

    def make(part: Path) -> Json:
        cells: Any = _Cells(splits, column, source)
        names = {
            s: [str(i) if s == "all" else f"{s}/{i}" for i in range(len(d))]
            for s, d in splits.items()
        }
        try:
            meta = images.make(part, cells, names, target, progress)
        except ValueError as error:
            raise ValueError(str(error).replace("/:size=", ":size=")) from error
        used = cache.open_array(part / "file.npy")
        np.save(
            part / "rows.npy", np.array([int(name.rpartition("/")[2]) for name in used.tolist()])
        )
        return meta

    at, meta = cache.entry(
        cache.key(KIND, files, settings, place), make, folder.resolve() if folder else source
    )
    if options.get("strict", False) and meta["skipped"]:
        bad = "; ".join(meta["skipped"]).replace(" skipped, which ", " that ")
        raise ValueError(f"expected images that can all be used, as strict=true asks; got {bad}")
    array, rows = cache.open_array(at / "images.npy"), cache.open_array(at / "rows.npy")
    cuts = meta["splits"].items()
    return (
        {s: array[a:b] for s, (a, b) in cuts},
        {s: np.asarray(rows[a:b]) for s, (a, b) in cuts},
        meta["notes"],
    )
