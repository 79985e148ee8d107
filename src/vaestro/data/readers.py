"""Read the user's files, in their own units.

Nothing is unpickled.
"""

from __future__ import annotations

import difflib
import gzip
import math
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vaestro.data import (
    annotated,
    count_files,
    image_crops,
    images,
    indexing,
    sequence_files,
    shards,
    sparse,
    tables,
    texts,
)
from vaestro.data.image_files import list_folder
from vaestro.data.named import NAMED
from vaestro.data.parsing import parse_cells
from vaestro.data.raw import DAMAGED_ARRAY, Options, Raw
from vaestro.data.sequence_files import of_characters
from vaestro.data.series import ragged
from vaestro.data.series.record import ends_of
from vaestro.data.series.sources import read_series_file
from vaestro.data.shard_formats import Parquet, kind_of
from vaestro.data.shard_streams import read_shards
from vaestro.data.source_options import of_groups, options_about, parse_source
from vaestro.data.table_formats import is_table, suffixes_in_words
from vaestro.frames import Frame
from vaestro.signatures import checked, options_of
from vaestro.spaces import Column, Space
from vaestro.storage import refuse_special
from vaestro.text import InputError, is_input_error, nearest, one_line, typed, unquoted

Progress = Callable[[str, int, int], None]
SAVE = "save its content in a file first"  # of a pipe


# -- files -> arrays -------------------------------------------------------------------------------


def is_images(name: str) -> bool:
    """Return whether a source is a folder of images or one image, rather than a folder of shards or
    one that the datasets library saved.

    >>> is_images("mnist")
    False
    """
    path = Path(name).expanduser()
    if path.is_file():
        return images.is_image(path)
    saved = any((path / n).exists() for n in shards.SAVED)
    return (
        path.is_dir()
        and not saved
        and not shards.is_shards(name)
        and count_files.tenx_folder(path) is None
    )


def is_array_folder(name: str) -> bool:
    """Return whether a source is a folder with an array (.npy) for each datum.

    >>> is_array_folder("mnist")
    False
    """
    path = Path(name).expanduser()
    return path.is_dir() and is_images(name) and list_folder(path, {"bands": "none"}).arrays


def read(
    name: str,
    options: Options,
    progress: Progress | None = None,
    columns: Sequence[Column] | None = None,
    *,
    every: bool = False,
    like: Space | None = None,
) -> Raw:
    """Read a named data set, a file, or a folder of images.

    Args:
        name: of the source, without its options.
        options: of the source.
        progress: called with (what, done, total) while something takes long.
        columns: the only columns that are needed of a table; by default all.
        every: whether to read the other columns of the table too.
        like: the space of a run that series are read for.

    Raises:
        ValueError: there is no such source, or it cannot be read.

    >>> read("shapes", {"n": 10, "size": 16}).splits["all"].shape
    (10, 16, 16, 3)
    """
    if name in NAMED:
        return _named(name, options)
    if name.startswith("hf:"):
        from vaestro.data import hub

        return hub.read_hub(name[3:], options, progress)
    if shards.is_shards(name):
        return _shards(name, options, progress)
    path = _existing(name)
    if is_images(name):
        if "crops" in options:
            return image_crops.read_crops(path, options, progress)
        return images.read_images(path, options, progress)
    if path.is_dir():
        if count_files.tenx_folder(path) is not None:
            return count_files.read_tenx_folder(path, options)
        from vaestro.data import hub

        return hub.read_saved(path, options, progress)
    if path.suffix.lower() == ".h5ad":
        return annotated.read_h5ad(path, options)
    if path.suffix.lower() == ".loom":
        return count_files.read_loom(path, options)
    if count_files.is_tenx_h5(path):
        return count_files.read_tenx_h5(path, options)
    if sequence_files.suffix_of(path):
        return sequence_files.read_sequences(path)
    if path.suffix.lower() == ".txt" or is_table(path):
        return _by_suffix(path, name, options, progress, columns, every=every, like=like)
    return _array_file(path, options)


def _existing(name: str) -> Path:
    """Return the path of a source.

    Raises:
        InputError: there is no such file or folder, or it is a pipe.
    """
    path = Path(name).expanduser()
    if path.is_file() or path.is_dir():
        return path
    refuse_special(path, SAVE)
    offer = difflib.get_close_matches(name, NAMED, 1)
    raise InputError(
        f"there is no file, folder or named data set {name!r} "
        + (f"(did you mean {offer[0]}?)" if offer else f"(names are {', '.join(NAMED)})")
    )


def _named(name: str, options: Options) -> Raw:
    """Read a named data set."""
    known = options_of(NAMED[name])
    reader = ("valid", "test", "seed", "kind", "binarise", "standardise", "levels")
    unfit = [k for k in options if k not in known and k not in reader]
    if unfit:
        raise ValueError(
            f"expected an option of {name}: {nearest(unfit[0], [*known, *reader])}; got "
            f"{unfit[0]!r}"
        )
    return NAMED[name](
        **{k: checked(f"{name}:{k}", v, known[k][0]) for k, v in options.items() if k in known}
    )


def _by_suffix(
    path: Path,
    name: str,
    options: Options,
    progress: Progress | None,
    columns: Sequence[Column] | None,
    *,
    every: bool,
    like: Space | None,
) -> Raw:
    """Read a file whose format follows from its suffix: a table or texts."""
    suffix = path.suffix.lower()
    if suffix == ".txt":
        if "text" in options:
            raise InputError(
                f"text= names a column of a table, and {path} is a file of texts: leave out "
                f"text={options['text']}"
            )
        return texts.read_lines(path)
    if "text" in options:
        column = unquoted(options["text"])
        others = {k: v for k, v in options.items() if k not in options_about("texts")}
        raw = tables.read_table(path, others, text=[column])
        raw = parse_cells(raw, {**others, "text": column}, path.name)
        return texts.of_column(raw, column, path.name)
    if options.get("series", False):
        one_list = suffix == ".parquet" and options["series"] is True and indexing.one_list(path)
        if one_list or (suffix == ".parquet" and "array" in options):
            return _series([str(path)], name, options)
        return read_series_file(path, options, name, like)
    if (
        suffix == ".parquet"
        and columns is None
        and not of_groups(options, "tables", "files")
        and indexing.streamable(path)
    ):
        return read_shards(name, options, progress)
    if columns is None:
        return tables.read_table(path, options)
    text = [c.name for c in columns if c.dtype == "str"]
    needed = None if every else [c.name for c in columns]
    return tables.read_table(path, options, columns=needed, text=text)


def _array_file(path: Path, options: Options) -> Raw:
    """Read a file whose format follows from its first bytes: .npy, .npz or IDX."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
        if head == b"\x93NUM":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.dtype.names:
                columns = {n: np.asarray(array[n]) for n in array.dtype.names}
                return Raw({"all": tables.frame_of(columns, str(path))})
            return _of_array(array, options, path)
        if head[:2] == b"PK":
            return _npz(path, options)
        if head[:2] == b"\x1f\x8b" or (
            head[:2] == b"\0\0" and len(head) == 4 and head[2] in _IDX_TYPES
        ):
            return Raw({"all": _idx(path)})
    except DAMAGED_ARRAY as error:
        if is_input_error(error):
            raise
        if "pickle" in str(error).lower() or "Python objects" in str(error):
            raise ValueError(
                f"expected numbers in {path}; got Python objects, which are never unpickled (for "
                f'arrays of different lengths: np.savez("x.npz", *arrays) and x.npz:series=true, '
                f"or a Parquet file with lists)"
            ) from error
        raise InputError(f"{path} is damaged or cut short ({one_line(error)})") from error
    formats = f".npy, .npz, IDX, {suffixes_in_words()}, .h5ad, .loom, .fasta, .smi or .txt"
    raise ValueError(f"expected a {formats} file, or a folder of images; got {path}")


def _shards(name: str, options: Options, progress: Progress | None) -> Raw:
    """Read shards: images or arrays as streams, and single values as one table or its texts."""
    if options.get("series", False) and not shards.remote(name):
        files = shards.list_shards(name)
        if kind_of(files[0]) is Parquet:
            return _series(files, name, options)
    splits = indexing.single_valued_splits(name)
    if splits is None:
        return read_shards(name, options, progress)
    if options.get("streaming", False):
        raise InputError(f"{name} is a table, which is read into memory: leave out streaming=true")
    if "buffer" in options:
        raise InputError(
            f"{name} is a table, which is read into memory: leave out buffer={options['buffer']}"
        )
    if "split" in options:
        raise InputError(
            f"the splits of {name} follow from the names of its files: leave out "
            f"split={options['split']}"
        )
    text = unquoted(options["text"]) if "text" in options else None
    others = {k: v for k, v in options.items() if k not in options_about("texts")}
    frames = {}
    for split, files in splits.items():
        parts = [
            tables.read_table(Path(file), others, text=[] if text is None else [text]).splits["all"]
            for file in files
        ]
        for file, part in zip(files, parts, strict=True):
            if set(part.columns) != set(parts[0].columns):
                raise ValueError(
                    f"expected shards with the same columns in {name}; got others in {file}"
                )
        frames[split] = Frame.concatenated(parts)
    raw = Raw(frames, notes=(f"{sum(map(len, splits.values())):,} shards read as one table",))
    if text is None:
        return raw
    return texts.of_column(parse_cells(raw, {**others, "text": text}, name), text, name)


def _series(files: Sequence[str], name: str, options: Options) -> Raw:
    """Read Parquet files with one series per row, by split if their names contain one."""
    splits = shards.by_split(files, name)
    read = {s: indexing.read_series(files_of, options, name) for s, files_of in splits.items()}
    values = {
        s: [row[:end] for row, end in zip(array, ends_of(~np.isnan(array)), strict=True)]
        for s, (array, _, _) in read.items()
    }
    raw = ragged.read_ragged(values, options, name, {s: a for s, (_, a, _) in read.items()})
    notes = tuple(note for _, _, notes_of in read.values() for note in notes_of)
    return replace(raw, notes=(*raw.notes, *notes))


# what an array contains, by the kind of its dtype, and what to do
_OTHER = {
    "c": "complex numbers (np.stack([x.real, x.imag], -1) has them as two channels)",
    "O": "Python objects (np.asarray(x.tolist(), float) converts numbers)",
    "U": "text (a list of str is read as texts)",
    "S": "text (a list of str is read as texts)",
    "M": 'dates (a table {"date": x} has dates; (x - x.min()) / np.timedelta64(1, "D") is numbers)',
    "m": 'durations (x / np.timedelta64(1, "s") is numbers)',
}


def check_array(array: np.ndarray, path: Path) -> np.ndarray:
    """Return an array (N, ...) of numbers unchanged.

    Args:
        array: to be checked.
        path: of its file, for messages.

    Raises:
        ValueError: the array is empty, has no rows, or does not contain real numbers.

    >>> check_array(np.arange(3), Path("x.npy"))
    array([0, 1, 2])
    """
    if array.dtype.kind not in "biuf":
        what = _OTHER.get(array.dtype.kind, str(array.dtype))
        raise ValueError(f"expected real numbers in {path}; got {what}")
    if array.ndim == 0:
        raise ValueError(f"expected an array with one row per datum in {path}; got a single number")
    if not array.size:
        raise ValueError(f"expected data in {path}; got an empty array of shape {array.shape}")
    return array


def _of_array(array: np.ndarray, options: Options, path: Path) -> Raw:
    """Return an array of numbers, windows of its series, or the texts of characters."""
    if (characters := of_characters(array)) is not None:
        return Raw({"all": characters})
    array = check_array(array, path)
    return ragged.windows_of_array(array, options, str(path)) or Raw({"all": array})


def _npz(path: Path, options: Options) -> Raw:
    """Read an .npz file, or one array of it by name; with series=true, several arrays are series,
    unless they are splits."""
    name = unquoted(options["array"]) if "array" in options else None
    with np.load(path, allow_pickle=False) as archive:
        names = list(archive.files)
        if name is None and {"data", "shape", "format"} <= set(names):
            return sparse.of_npz(archive, str(path))
        if name is not None:
            if name not in names:
                raise ValueError(
                    f"expected array= to name an array of {path}: {nearest(name, names)}; got "
                    f"{name!r}"
                )
            return _with_others(_of_array(archive[name], options, path), archive, name)
        splits = [s for s in ("train", "valid", "test") if s in names]
        if "train" in splits:
            arrays = {s: check_array(archive[s], path) for s in splits}
            return Raw(
                arrays, {s: _attributes(archive, f"{s}_", len(arrays[s]), path) for s in splits}
            )
        data = [n for n in names if n in ("x", "data", "X")] or (names if len(names) == 1 else [])
        if options.get("series", False) is True and not data and len(names) > 1:
            arrays = {n: archive[n] for n in names}
            plain = all(re.fullmatch(r"arr_\d+", n) for n in names)
            return ragged.read_named(
                ragged.checked(list(arrays.values()) if plain else arrays), options, str(path)
            )
        if len(data) != 1:
            choose = f" (choose one with {typed('array', names[0])}" if names else ""
            choose += "; series=true reads each as a series)" if names else ""
            raise ValueError(
                f"expected an array named train, x or data in {path}; got "
                f"{', '.join(names) or 'no arrays'}{choose}"
            )
        return _with_others(_of_array(archive[data[0]], options, path), archive, data[0])


def _with_others(raw: Raw, archive: Mapping[str, np.ndarray], name: str) -> Raw:
    """Return an array of an .npz file with the other arrays that have one value for each row, which
    are attributes."""
    rows = len(raw.splits["all"])
    attributes, left = dict(raw.attributes.get("all", {})), []
    for other in archive:
        if other == name:
            continue
        try:
            values = archive[other]
        except ValueError:  # an array of Python objects
            values = np.empty(())
        if values.shape == (rows,) and values.dtype.kind in "biufU":
            attributes[other] = values
        else:
            left.append(other)
    notes = [f"left out the arrays {', '.join(left)}"] if left else []
    return replace(raw, attributes={"all": attributes}, notes=(*raw.notes, *notes))


def _attributes(
    archive: Mapping[str, np.ndarray], prefix: str, rows: int, path: Path
) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin with a prefix, by the rest of the name."""
    attributes = {n[len(prefix) :]: archive[n] for n in archive if n.startswith(prefix)}
    for name, values in attributes.items():
        if values.ndim == 0 or len(values) != rows:
            got = len(values) if values.ndim else "a single value"
            raise ValueError(f"expected {prefix}{name} in {path} to have {rows} rows; got {got}")
    return attributes


_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def _idx(path: Path) -> np.ndarray:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise ValueError(f"expected an IDX file; got {path}, which has another header")
    kind, dims = np.dtype(_IDX_TYPES[content[2]]), content[3]
    shape = (
        tuple(np.frombuffer(content, ">u4", dims, 4).tolist())
        if len(content) >= 4 + 4 * dims
        else ()
    )
    start = 4 + 4 * dims
    if not shape or len(content) - start != math.prod(shape) * kind.itemsize:
        raise ValueError(
            f"expected {math.prod(shape) * kind.itemsize} bytes of data in {path}; got "
            f"{max(0, len(content) - start)}"
        )
    array = np.frombuffer(content, kind, offset=start).reshape(shape)
    return check_array(array.astype(kind.newbyteorder("=")), path)


def read_latents(path: str) -> np.ndarray:
    """Read latents, (N, *Z), from .npy, from .npz with an array z or mean, or from a table.

    Raises:
        ValueError: the file cannot be read, or has no latents.

    >>> np.save("z.npy", np.zeros((3, 2)))
    >>> read_latents("z.npy").shape
    (3, 2)
    """
    name, options = parse_source(path)
    refuse_special(Path(name), SAVE)
    if not Path(name).is_file():
        raise ValueError(
            f"expected a file of latents (.npy, .npz, or a table that encode wrote); there is no "
            f"file {name!r}"
        )
    if is_table(Path(name)):
        raw = tables.read_table(Path(name), options)
        columns = parse_cells(raw, options, name).splits["all"].columns
        names = next(
            (c for c in ([n for n in columns if n.startswith(p)] for p in ("z_", "mean_")) if c),
            [n for n in ("z", "mean") if n in columns][:1] or list(columns),
        )
        for n in names:
            if columns[n].dtype.kind not in "iuf" or np.ma.is_masked(columns[n]):
                got = "empty cells" if np.ma.is_masked(columns[n]) else "other values"
                raise ValueError(
                    f"expected latents, which are numbers, in every cell of {name}; got {got} in "
                    f"column {n!r}"
                )
        return np.stack([columns[n].data for n in names], 1).astype(np.float32)
    if "array" not in options and name.lower().endswith(".npz") and zipfile.is_zipfile(name):
        try:
            with np.load(name, allow_pickle=False) as archive:
                arrays = [n for n in ("z", "mean") if n in archive.files]
        except DAMAGED_ARRAY as error:
            raise InputError(f"{name} is damaged or cut short") from error
        options = {**options, "array": arrays[0] if arrays else "z"}
    array = read(name, options).splits.get("all")
    if not isinstance(array, np.ndarray):
        raise ValueError(f"expected one array of latents in {name}; got other data")
    return array
