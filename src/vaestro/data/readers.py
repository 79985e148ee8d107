"""Read the user's files, infer what they are, and say it.

A source is a name (`mnist`) or a path, with options after a colon: `mnist:binarise=static`, `x.npy:kind=real`.
Nothing is ever unpickled.
"""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from vaestro.data.sets import Data, Rows
from vaestro.densities import Kind, Space
from vaestro.parts import nearest, parse_options
from vaestro.randomness import numpy_generator

NAMED = ("mnist",)
OPTIONS = {
    "kind": "binary, levels, real or category",
    "binarise": "dynamic, static or none",
    "standardise": "feature, global or none",
    "levels": "a number",
    "array": "an array's name",
    "valid": "a number of rows",
    "test": "a number of rows",
    "seed": "a number",
}
READABLE = {Kind.BINARY, Kind.LEVELS, Kind.REAL, Kind.CATEGORY}


@dataclass(frozen=True)
class Raw:
    """Hold arrays as the file has them: by split, or all of them under "all"."""

    splits: Mapping[str, np.ndarray]
    attributes: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)


def parse_source(source: str) -> tuple[str, dict[str, Any]]:
    """Split a source into its name or path and its options.

    Raises:
        ValueError: an option is unknown.
    """
    if not isinstance(source, (str, Path)):
        raise ValueError(f"expected a source as text, such as mnist or x.npy; got {type(source).__name__}")
    source = str(source)
    name, colon, rest = source.rpartition(":")
    if not colon or "=" not in rest or Path(source).exists():
        name, rest = source, ""
    options = parse_options(rest)
    for key, value in options.items():
        if key not in OPTIONS:
            raise ValueError(f"expected an option of a source: {nearest(key, OPTIONS)}; got {key!r}")
        words = [word.strip() for word in OPTIONS[key].replace(" or ", ", ").split(",")]
        if key in ("kind", "binarise", "standardise") and value not in words:
            raise ValueError(f"expected {key} to be {OPTIONS[key]}; got {value!r}")
        if key in ("levels", "valid", "test", "seed") and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ValueError(f"expected {key} to be a whole number of 0 or more; got {value!r}")
    return name, options


# -- files -> arrays --------------------------------------------------------------------------------------------------


def read(name: str, options: Mapping[str, Any]) -> Raw:
    """Read a named data set or a file.

    Raises:
        ValueError: there is no such thing, or it cannot be read as data.
    """
    if name == "mnist":
        return _mnist(options.get("valid", 5000))
    path = Path(name).expanduser()
    if not path.exists():
        raise ValueError(f"expected a file or one of {', '.join(NAMED)}; got {name!r}, which does not exist")
    if path.is_dir():
        raise ValueError(f"expected a .npy, .npz or IDX file; got the folder {name!r}")
    try:
        with path.open("rb") as file:
            head = file.read(4)
        if head == b"\x93NUM":
            return Raw({"all": _plain(np.load(path, allow_pickle=False), path)})
        if head[:2] == b"PK":
            return _npz(path, options.get("array"))
        if head[:2] == b"\x1f\x8b" or (head[:2] == b"\0\0" and len(head) == 4 and head[2] in _IDX_TYPES):
            return Raw({"all": _idx(path)})
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, ValueError) and str(error).startswith("expected"):
            raise
        if "pickle" in str(error).lower():
            raise ValueError(f"expected plain numbers in {path}; got Python objects, which are never unpickled") from error
        raise ValueError(f"expected readable data; got {path}, which is damaged or cut short ({_one_line(error)})") from error
    raise ValueError(f"expected a .npy, .npz or IDX file; got {path}, which is none of them")


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).split("\n")[0][:120]


def _plain(array: np.ndarray, path: Path) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        what = {"c": "complex numbers", "O": "Python objects", "U": "text", "S": "text"}.get(array.dtype.kind, str(array.dtype))
        raise ValueError(f"expected real numbers in {path}; got {what}")
    if array.ndim == 0:
        raise ValueError(f"expected an array with a row for each datum in {path}; got a single number")
    if not array.size:
        raise ValueError(f"expected data in {path}; got an empty array of shape {array.shape}")
    return array


def _npz(path: Path, wanted: str | None) -> Raw:
    with np.load(path, allow_pickle=False) as archive:
        names = list(archive.files)
        if wanted is not None:
            if wanted not in names:
                raise ValueError(f"expected array= to be {nearest(wanted, names)}; got {wanted!r}")
            return Raw({"all": _plain(archive[wanted], path)})
        splits = [s for s in ("train", "valid", "test") if s in names]
        if "train" in splits:
            arrays = {s: _plain(archive[s], path) for s in splits}
            return Raw(arrays, {s: _attributes(archive, f"{s}_", len(arrays[s]), path) for s in splits})
        data = [n for n in names if n in ("x", "data", "X")] or (names if len(names) == 1 else [])
        if len(data) != 1:
            raise ValueError(f"expected an array train, x or data in {path}, or array=NAME; got {', '.join(names) or 'no arrays'}")
        return Raw({"all": _plain(archive[data[0]], path)})


def _attributes(archive: Any, prefix: str, rows: int, path: Path) -> dict[str, np.ndarray]:
    found = {n[len(prefix) :]: archive[n] for n in archive.files if n.startswith(prefix)}
    for name, values in found.items():
        if values.ndim == 0 or len(values) != rows:
            got = len(values) if values.ndim else "a single value"
            raise ValueError(f"expected {prefix}{name} in {path} to have {rows} rows; got {got}")
    return found


_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def _idx(path: Path) -> np.ndarray:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise ValueError(f"expected an IDX file; got {path}, which does not start like one")
    kind, dims = np.dtype(_IDX_TYPES[content[2]]), content[3]
    shape = tuple(np.frombuffer(content, ">u4", dims, 4).tolist()) if len(content) >= 4 + 4 * dims else ()
    start = 4 + 4 * dims
    if not shape or len(content) - start != math.prod(shape) * kind.itemsize:
        raise ValueError(f"expected {math.prod(shape) * kind.itemsize} bytes of data in {path}; got {max(0, len(content) - start)}")
    array = np.frombuffer(content, kind, offset=start).reshape(shape)
    return _plain(array.astype(kind.newbyteorder("=")), path)


def _mnist(valid: int) -> Raw:
    with resources.files("vaestro.data").joinpath("mnist.npz").open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if valid >= 60000:
        raise ValueError(f"expected valid below 60000; got {valid}")
    cut = 60000 - valid
    x, digit = arrays["train"], arrays["train_digit"]
    return Raw(
        {"train": x[:cut], "valid": x[cut:], "test": arrays["test"]},
        {"train": {"digit": digit[:cut]}, "valid": {"digit": digit[cut:]}, "test": {"digit": arrays["test_digit"]}},
    )


# -- arrays -> data ---------------------------------------------------------------------------------------------------


def load(source: str | np.ndarray = "mnist") -> Data:
    """Read a source into training, validation and test data.

    A file without splits of its own is split 90 / 5 / 5 by seed. Arrays are taken as they are.

    Args:
        source: `mnist`, or a path to .npy, .npz or IDX, with options after a colon; or an array (N, ...).

    Raises:
        ValueError: the source cannot be read, or is too small to split.
    """
    name, options, raw = _opened(source)
    if name == "mnist":
        options = {"binarise": "dynamic", **options}
    splits, attributes, notes = _split(raw, options, name)
    for array in splits.values():
        _refuse_not_finite(array, name)
    train = splits["train"]
    binarise = options.get("binarise", "none")
    every = [a for a in splits.values() if len(a)]
    space = _infer(every, options, name)
    if binarise != "none":
        if space.kind is not Kind.LEVELS or space.levels != 256 or space.low != 0:
            raise ValueError(f"expected 8-bit levels 0 .. 255 to binarise; got {space} in {name}")
        space = replace(space, kind=Kind.BINARY, levels=2, step=255.0)
        notes.append(f"{binarise} binarisation with P(1) = level / 255" + (", anew at every access" if binarise == "dynamic" else ""))
    fitted, constant = _fit(space, train, options.get("standardise"), binarise != "none")
    if space.kind is Kind.REAL and train.dtype.kind in "iu":
        notes.append("whole numbers read as real values: bounds are densities, and draws are rounded and may leave the range")
    if constant:
        notes.append(f"{constant} of {space.cells} columns are constant in the training split")
    rows = {}
    for split, array in splits.items():
        values = _grey(array, fitted) if binarise != "none" else fitted.inward(array)
        made = Rows(values, fitted, split, dynamic=binarise != "none", attributes=dict(attributes.get(split, {})))
        rows[split] = made if binarise == "dynamic" and split == "train" else made.fixed()
    notes.insert(0, f"{fitted}, {len(rows['train']):,} / {len(rows['valid']):,} / {len(rows['test']):,} for training, validation and test")
    where = name if name in (*NAMED, "array") else str(Path(name).expanduser().resolve())
    full = where + (":" + ",".join(f"{k}={v}" for k, v in options.items()) if options else "")
    return Data(rows["train"], rows["valid"], rows["test"], fitted, full, tuple(notes))


def load_rows(source: str | np.ndarray, space: Space, split: str | None = None) -> Rows:
    """Read a source as data of a known space: what `encode` and its kin do.

    Args:
        source: as for `load`.
        space: what the data must be.
        split: train, valid, test, or all; by default all rows of a file without splits of its own, and else test.

    Raises:
        ValueError: the data are of another shape or kind.
    """
    name, options, raw = _opened(source)
    binarise = options.get("binarise", "dynamic" if name == "mnist" and space.kind is Kind.BINARY else "none")
    if split not in (None, "all", "train", "valid", "test"):
        raise ValueError(f"expected train, valid, test or all; got {split!r}")
    if "all" in raw.splits:
        if split not in (None, "all"):
            raw = Raw(_split(raw, options, name)[0])
        else:
            split = "all"
    split = split or "test"
    chosen = [s for s in raw.splits if split in (s, "all") and len(raw.splits[s])]
    if not chosen:
        raise ValueError(f"expected a {split} split in {name}; got {', '.join(raw.splits)}")
    parts = []
    for s in chosen:
        array = raw.splits[s]
        _refuse_not_finite(array, name)
        if array.shape[1:] != space.outside:
            raise ValueError(
                f"expected data of shape (N, {', '.join(map(str, space.outside))}), as the run was trained on; got {array.shape}"
            )
        values = _grey(array, space) if binarise != "none" else space.inward(array)
        parts.append(Rows(values, space, s, dynamic=binarise != "none").fixed().values)
    attributes = {k: np.concatenate([raw.attributes[s][k] for s in chosen]) for k in raw.attributes.get(chosen[0], {})}
    return Rows(np.concatenate(parts), space, split, attributes=attributes)


def _opened(source: str | np.ndarray) -> tuple[str, dict[str, Any], Raw]:
    """Return a source's name, options and arrays."""
    if isinstance(source, np.ndarray):
        return "array", {}, Raw({"all": _plain(source, Path("the array"))})
    name, options = parse_source(source)
    return name, options, read(name, options)


def _refuse_not_finite(array: np.ndarray, name: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        raise ValueError(f"expected finite values in {name}; got {nan} NaN and {infinite} infinite")


def _split(raw: Raw, options: Mapping[str, Any], name: str) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]], list[str]]:
    """Return splits and attributes, with what was done in words."""
    splits = dict(raw.splits)
    attributes = {s: dict(raw.attributes.get(s, {})) for s in splits}
    missing = ["train", "valid", "test"] if "all" in splits else [s for s in ("valid", "test") if s not in splits]
    fixed = [k for k in ("valid", "test", "seed") if k in options and ((k == "seed" and not missing) or k in splits) and name != "mnist"]
    if name == "mnist":
        fixed = [k for k in ("test", "seed") if k in options]
    if fixed:
        raise ValueError(f"expected no {fixed[0]}= for {name}, which brings its own splits; got {fixed[0]}={options[fixed[0]]}")
    if not missing:
        return splits, attributes, []
    base = "all" if "all" in splits else "train"
    whole, whole_attributes = splits.pop(base), attributes.pop(base)
    n = len(whole)
    sizes: dict[str, int] = {s: options.get(s, max(1, round(0.05 * n))) for s in ("valid", "test") if s in missing}
    if n >= 10 and n - sum(sizes.values()) < 1:
        held = " and ".join(map(str, sizes.values()))
        raise ValueError(f"expected valid and test to leave data for training; got {held} of {n} in {name}")
    if n < 10:
        raise ValueError(f"expected at least 10 data to split into training, validation and test; got {n} in {name}")
    order = numpy_generator(options.get("seed", 0), "split").permutation(n)
    start = n
    pieces: dict[str, np.ndarray] = {}
    for s, size in reversed(sizes.items()):
        pieces[s] = order[start - size : start]
        start -= size
    pieces["train"] = order[:start]
    for s, index in pieces.items():
        index = np.sort(index)
        splits[s] = whole[index]
        attributes[s] = {k: v[index] for k, v in whole_attributes.items()}
    return splits, attributes, [f"split by seed {options.get('seed', 0)}"]


def _infer(arrays: list[np.ndarray], options: Mapping[str, Any], name: str) -> Space:
    """Say what the values are: binary, levels, or real."""
    shape = arrays[0].shape[1:]
    for array in arrays:
        if array.shape[1:] != shape:
            raise ValueError(f"expected splits of one shape; got {shape} and {array.shape[1:]} in {name}")
    outside = shape
    if len(shape) == 0:
        inside: tuple[int, ...] = (1,)
    elif len(shape) == 2:
        inside = (1, *shape)
    elif len(shape) == 3:
        inside = (shape[2], *shape[:2])
    else:
        inside = shape
    dtype = arrays[0].dtype
    low, high = min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)
    if low == high:
        raise ValueError(f"expected data that vary; got {low:g} in every cell of {name}")
    asked = options.get("kind")
    integral = all(_integral(a) for a in arrays)
    two = all(_only(a, low, high) for a in arrays)
    base = Space(Kind.REAL, inside, outside, dtype.name)
    if asked is None:
        asked = "binary" if two else "levels" if integral and low >= 0 and high <= 255 else "real"
        if asked == "real" and dtype.kind in "iu":
            raise ValueError(f"expected kind= for integers from {low:g} to {high:g}; got none: try {name}:kind=real")
    if asked == "real":
        return base
    if asked == "binary":
        if not two:
            raise ValueError(f"expected two values in binary data; got more, from {low:g} to {high:g}, in {name}")
        return replace(base, kind=Kind.BINARY, low=low, step=high - low, levels=2)
    if not integral:
        raise ValueError(f"expected whole numbers in {asked} data; got fractions in {name}")
    if asked == "levels":
        if low < 0:
            raise ValueError(f"expected levels of 0 or more; got {low:g} in {name}")
        levels = options.get("levels", 256 if high > 127 and high <= 255 else int(high) + 1)
        low = 0.0
    else:
        levels = options.get("levels", int(high - low) + 1)
    if levels < 2 or levels > 65536 or high - low > levels - 1:
        raise ValueError(f"expected levels between {max(2, int(high - low) + 1)} and 65536; got {levels} in {name}")
    return replace(base, kind=Kind(asked), low=low, levels=levels)


def _integral(array: np.ndarray) -> bool:
    if array.dtype.kind in "biu":
        return True
    return bool((array[:100] == np.rint(array[:100])).all() and (array == np.rint(array)).all())


def _only(array: np.ndarray, low: float, high: float) -> bool:
    return bool(((array[:100] == low) | (array[:100] == high)).all() and ((array == low) | (array == high)).all())


def _grey(array: np.ndarray, space: Space) -> np.ndarray:
    """Return 8-bit grey levels inside, to be binarised."""
    return replace(space, kind=Kind.LEVELS, levels=256, low=0.0, step=1.0).inward(array)


def _fit(space: Space, train: np.ndarray, standardise: str | None, grey: bool) -> tuple[Space, int]:
    """Fit what is derived from data on the training split; returns the number of constant columns too."""
    constant = 0
    if space.kind is Kind.REAL:
        values = replace(space, offset=np.zeros(()), scale=np.ones(()))
        inside = np.asarray(train, np.float64)
        inside = np.moveaxis(inside, -1, 1) if len(space.outside) == 3 else inside
        inside = inside.reshape(len(train), *space.shape)
        how = standardise or ("feature" if len(space.shape) == 1 else "global")
        if how == "none":
            return values, 0
        with np.errstate(all="ignore"):
            offset, spread = inside.mean(0), inside.std(0)
        if not (np.isfinite(offset).all() and np.isfinite(spread).all() and float(np.abs(inside).max()) < 1e30):
            raise ValueError(f"expected values below 1e30 in size; got some up to {np.abs(inside).max():g}")
        constant = int((spread == 0).sum())
        scale = np.where(spread > 0, spread, 1.0) if how == "feature" else np.asarray(np.sqrt((spread**2).mean()) or 1.0)
        return replace(space, offset=offset, scale=scale), constant
    if grey:
        return replace(space, marginal=np.asarray(_grey(train, space).mean(0) / 255, np.float32)), 0
    codes = space.inward(train)
    if space.kind is Kind.BINARY:
        return replace(space, marginal=np.asarray(codes.mean(0), np.float32)), 0
    if space.levels * space.cells <= 1_000_000:
        # One count over (cell, code) pairs, not a pass over the data for each code.
        counts = np.zeros(space.cells * space.levels, np.int64)
        for start in range(0, len(codes), 8192):
            pairs = codes[start : start + 8192].reshape(-1, space.cells) + space.levels * np.arange(space.cells)
            counts += np.bincount(pairs.ravel(), minlength=len(counts))
        counts = np.moveaxis(counts.reshape(*space.shape, space.levels), -1, 0)
        # A level unseen at a cell is not impossible there: each cell sees the pooled frequencies `levels` times as well.
        pooled = (counts.reshape(space.levels, -1).sum(1) + 1) / (counts.sum() + space.levels)
        frequencies = (counts + space.levels * pooled.reshape(-1, *[1] * len(space.shape))) / (len(codes) + space.levels)
    else:
        pooled = (np.bincount(codes.ravel(), minlength=space.levels) + 1) / (codes.size + space.levels)
        frequencies = pooled.reshape(-1, *[1] * len(space.shape))
    return replace(space, marginal=np.ascontiguousarray(frequencies, np.float32)), 0


def read_latents(path: str) -> np.ndarray:
    """Read latents from .npy, or from .npz with an array z or mean.

    Raises:
        ValueError: they cannot be read.
    """
    name, options = parse_source(path)
    if "array" not in options and Path(name).suffix.lower() == ".npz" and Path(name).exists():
        try:
            with np.load(name, allow_pickle=False) as archive:
                found = [n for n in ("z", "mean") if n in archive.files]
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"expected readable latents; got {name}, which is damaged or cut short") from error
        options = {**options, "array": found[0] if found else "z"}
    array = read(name, options).splits.get("all")
    if array is None:
        raise ValueError(f"expected one array of latents in {name}; got several")
    return array
