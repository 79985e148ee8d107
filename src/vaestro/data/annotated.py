"""Read matrices whose rows and columns have annotations: AnnData, in memory or as .h5ad.

A source has several matrices (X, layers, raw, obsm), one table of its rows (obs), and a table of
columns (var) for each matrix. Every format is first described by `Annotated`, without reading a
matrix, and `raw_of` reads the one that is asked for. `count_files` has further formats.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike

from vaestro.data.columns import filled
from vaestro.data.raw import IDENTIFIERS, Options, Raw
from vaestro.data.refusals import first_names
from vaestro.data.source_options import as_source
from vaestro.data.sparse import Sparse, are_counts, sparse_matrix
from vaestro.data.tables import frame_of
from vaestro.text import InputError, nearest, one_line, quoted, unquoted

if TYPE_CHECKING:
    import anndata
    import h5py

LOOKED_AT = 100_000  # stored values of a matrix from which a message decides whether it has counts
BLOCK = 2**24  # cells of a dense matrix that are read at once


class Cells(Protocol):
    """Describe an array in memory or in a file, whose slices are NumPy arrays."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of values along each axis."""

    def __getitem__(self, part: slice | tuple[slice, ...], /) -> np.ndarray:
        """Return some values."""


@final
class Compressed(NamedTuple):
    """Describe a sparse matrix that is not read yet; the arrays may be in a file."""

    data: Cells  # the stored values
    indices: Cells
    starts: Cells
    shape: tuple[int, int]
    form: str  # csr, csc or coo


@final
class Dense(NamedTuple):
    """Describe a dense matrix that is not read yet, in an array or in a file."""

    values: Cells
    transposed: bool = False  # whether its rows are columns of the data

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns) of the data."""
        rows, columns = (int(n) for n in self.values.shape)
        return (columns, rows) if self.transposed else (rows, columns)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the rows of the data, some at a time."""
        rows, columns = self.shape
        size = max(1, BLOCK // max(1, columns))
        for start in range(0, max(1, rows), size):
            part = slice(start, start + size)
            yield np.asarray(self.values[:, part].T if self.transposed else self.values[part])


Stored: TypeAlias = Compressed | Dense
Columns: TypeAlias = Mapping[str, ArrayLike]  # of obs or var, by name


@final
@dataclass(frozen=True)
class Annotated:
    """Describe a source of annotated matrices.

    Args:
        where: the source, for messages.
        matrices: by the name that `array=` takes, in the order of messages.
        obs: the columns of the table of rows.
        rows: names of the rows; empty if there are none.
        var: the columns of the table of columns, by the name of a matrix; "" for all others.
        columns: default names of the columns of a matrix, by the same keys.
        notes: what was left out.
    """

    where: str
    matrices: Mapping[str, Stored]
    obs: Columns = field(default_factory=dict)
    rows: Sequence[str] = ()
    var: Mapping[str, Columns] = field(default_factory=dict)
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


# -- the matrix that is asked for ------------------------------------------------------------------


def raw_of(source: Annotated, options: Options) -> Raw:
    """Read one matrix of a source, with the columns of obs as attributes.

    Args:
        source: the source.
        options: `array` names the matrix, by default X; `var_names` the column of var with the
            names of the columns; `kind` other than count reads numbers that are not counts.

    Raises:
        ValueError: there is no such matrix or column, or the values are not counts.
    """
    name = unquoted(str(options.get("array", "X")))
    name = name if name in source.matrices else name.removeprefix("layers/")
    if name not in source.matrices:
        others = ", ".join(source.matrices) or "there is none"
        if "array" in options:
            raise ValueError(
                f"expected array= to be X or a layer of {source.where}: {others}; got {name!r}"
            )
        raise ValueError(
            f"expected counts in X of {source.where}, or array=LAYER ({others}); got none"
        )
    stored = source.matrices[name]
    attributes, notes = _attributes(source, stored.shape[0])
    if name.startswith("obsm/") or options.get("kind", "count") != "count":
        matrix: Sparse | np.ndarray = _numbers(stored)
    else:
        matrix = _counts(source, name, options)
        matrix.names, more = _names(source, name, options)
        notes += more
    return Raw({"all": matrix}, {"all": attributes}, (*source.notes, *notes))


def _counts(source: Annotated, name: str, options: Options) -> Sparse:
    stored, where = source.matrices[name], f"{name} of {source.where}"
    try:
        if isinstance(stored, Compressed):
            data, indices, starts = (np.asarray(part[:]) for part in stored[:3])
            return sparse_matrix(data, indices, starts, stored.shape, stored.form, where)
        parts = []
        for block in stored.blocks():
            rows, columns = np.nonzero(block)
            parts.append(
                sparse_matrix(block[rows, columns], columns, rows, block.shape, "coo", where)
            )
        return Sparse.joined(parts)
    except ValueError as error:
        if not str(error).startswith("expected counts"):
            raise
        raise ValueError(f"{error} {_advice(source, name, options)}") from error


def _advice(source: Annotated, name: str, options: Options) -> str:
    """Return, in brackets, what to type instead of a matrix that has no counts."""
    others = [
        other
        for other, stored in source.matrices.items()
        if other != name and not other.startswith("obsm/") and _looks_counted(stored)
    ]
    in_python = "" if Path(source.where).suffix or Path(source.where).exists() else "python"
    kept = {k: v for k, v in options.items() if k != "array"}

    def typed(more: Mapping[str, str]) -> str:
        if in_python:
            return ", ".join(f"{k}={v!r}" for k, v in more.items())
        return shlex.quote(as_source(source.where, {**kept, **more}))

    if others:
        shown = ", ".join(typed({"array": quoted(other)}) for other in others[:3])
        names = " and ".join(filter(None, [", ".join(others[:3][:-1]), others[:3][-1]]))
        return f"({names} ha{'s' if len(others) == 1 else 've'} counts: {shown})"
    at = {} if name == "X" else {"array": quoted(name)}
    return (
        f"(no other layer has counts; {typed({**at, 'kind': 'real'})} reads them as real numbers)"
    )


def _looks_counted(stored: Stored) -> bool:
    """Return whether the first values of a matrix are counts."""
    if isinstance(stored, Compressed):
        return are_counts(np.asarray(stored.data[:LOOKED_AT]))
    return are_counts(next(stored.blocks()).ravel()[:LOOKED_AT])


def _numbers(stored: Stored) -> np.ndarray:
    """Return a matrix as a dense array of float32 or its own dtype, (N, columns)."""
    if isinstance(stored, Dense):
        return np.concatenate(list(stored.blocks()))
    import scipy.sparse

    data, indices, starts = (np.asarray(part[:]) for part in stored[:3])
    kind = {"csr": scipy.sparse.csr_array, "csc": scipy.sparse.csc_array}.get(stored.form)
    if kind is None:
        return np.asarray(
            scipy.sparse.coo_array((data, (starts, indices)), shape=stored.shape).toarray()
        )
    return np.asarray(kind((data, indices, starts), shape=stored.shape).toarray())


def _names(source: Annotated, name: str, options: Options) -> tuple[tuple[str, ...], list[str]]:
    """Return distinct names of the columns of a matrix, and notes; none if they have no names."""
    var = source.var.get(name, source.var.get("", {}))
    names = [str(n) for n in source.columns.get(name, source.columns.get("", ()))]
    if "var_names" in options:
        column = unquoted(str(options["var_names"]))
        if column not in var:
            raise ValueError(
                f"expected var_names= to name a column of var in {source.where}: "
                f"{nearest(column, list(var)) if len(var) else 'there is none'}; got {column!r}"
            )
        names = [str(n) for n in np.asarray(var[column])]
    if len(names) != source.matrices[name].shape[1]:
        return (), []
    unique = distinct_names(names)
    changed = [new for old, new in zip(names, unique, strict=True) if old != new]
    notes = (
        [
            f"{len(changed):,} names of columns are repeated and were numbered: "
            f"{first_names(changed)} (var_names=COLUMN takes another column of var)"
        ]
        if changed
        else []
    )
    return unique, notes


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of which every repeated one has a number, as AnnData numbers them.

    >>> distinct_names(["a", "b", "a"])
    ('a', 'b', 'a-1')
    """
    taken, out, times = set(names), [], dict.fromkeys(names, 0)
    first = set()
    for name in names:
        new = name
        while name in first and new in taken:
            times[name] += 1
            new = f"{name}-{times[name]}"
        first.add(name)
        taken.add(new)
        out.append(new)
    return tuple(out)


def _attributes(source: Annotated, rows: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the columns of obs and the names of the rows, each (N,), and a note on columns that
    are left out. Empty cells are NaN or empty text."""
    attributes: dict[str, np.ndarray] = {}
    left_out: list[str] = []
    if len(source.rows) == rows:
        attributes[IDENTIFIERS[0]] = np.array([str(name) for name in source.rows])
    for name, values in source.obs.items():
        try:
            cells = frame_of({name: values}, "obs").columns[str(name)]
        except ValueError as error:
            reason = str(error).partition("; got ")[2] or str(error)
            left_out.append(f"{name} ({reason})")
            continue
        if len(cells) != rows:
            left_out.append(f"{name} ({len(cells):,} rows)")
        elif np.ma.getmaskarray(cells).all():
            left_out.append(f"{name} (empty)")
        else:
            attributes[str(name)] = filled(cells)
    what = "column" if len(left_out) == 1 else "columns"
    notes = [f"left out {what} of obs: {', '.join(left_out)}"] if left_out else []
    return attributes, notes


# -- AnnData ---------------------------------------------------------------------------------------


def counts_library(what: str, name: str = "anndata") -> ModuleType:
    """Return a library of the extra `counts`."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{what} needs {name}: pip install 'vaestro[counts]'") from error


@contextmanager
def opened(path: Path, what: str) -> Iterator[h5py.File]:
    """Open an HDF5 file; what h5py cannot read in it is reported as damage."""
    library = counts_library(f"reading {path.suffix}", "h5py")
    try:
        with library.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{path} is damaged, or not {what} ({one_line(error)})") from error


def read_h5ad(path: Path, options: Options) -> Raw:
    """Read counts from an .h5ad file (AnnData), with the columns of obs as attributes.

    Args:
        path: of the file.
        options: see `raw_of`.

    Raises:
        ValueError: the file is damaged, has no such layer, or has values that are not counts.

    >>> import h5py
    >>> with h5py.File("x.h5ad", "w") as file:
    ...     file["X"] = np.eye(3)
    >>> read_h5ad(Path("x.h5ad"), {}).splits["all"].shape
    (3, 3)
    """
    with opened(path, "an .h5ad file") as file:
        matrices = {"X": _stored(file["X"], path)} if "X" in file else {}
        layers = file.get("layers", {})
        matrices |= {name: _stored(layers[name], path) for name in layers}
        if "raw/X" in file and "raw" not in matrices:
            matrices["raw"] = _stored(file["raw/X"], path)
        obsm = file.get("obsm", {})
        matrices |= {
            f"obsm/{name}": Dense(obsm[name])
            for name in obsm
            if is_array(obsm[name], 2) and obsm[name].dtype.kind in "iuf"
        }
        obs, rows = _table(file.get("obs"), path)
        tables = {"": _table(file.get("var"), path)}
        if "raw/var" in file:
            tables["raw"] = _table(file["raw/var"], path)
        var = {name: columns for name, (columns, _) in tables.items()}
        names = {name: index for name, (_, index) in tables.items()}
        return raw_of(Annotated(str(path), matrices, obs, rows, var, names), options)


def is_array(item: h5py.Group | h5py.Dataset, axes: int) -> bool:
    """Return whether an item of an HDF5 file is an array with this number of axes."""
    import h5py

    return isinstance(item, h5py.Dataset) and item.ndim == axes


def _stored(matrix: h5py.Group | h5py.Dataset, path: Path) -> Stored:
    """Return a matrix of an .h5ad file, not read yet."""
    if is_array(matrix, 2):
        return Dense(matrix)
    form = str(matrix.attrs.get("encoding-type", "csr_matrix")).removesuffix("_matrix")
    parts = ("data", "indices", "indptr")
    if form not in ("csr", "csc") or any(p not in matrix for p in parts):
        raise ValueError(f"expected a csr or csc matrix in {matrix.name} of {path}; got {form}")
    shape = matrix.attrs.get("shape", matrix.attrs.get("h5sparse_shape"))
    if shape is None:
        raise ValueError(f"expected a shape of {matrix.name} of {path}; got none")
    rows, columns = (int(n) for n in shape)
    data, indices, starts = (matrix[part] for part in parts)
    return Compressed(data, indices, starts, (rows, columns), form)


def _table(group: h5py.Group | h5py.Dataset | None, path: Path) -> tuple[Columns, Sequence[str]]:
    """Return the columns of obs or var of an .h5ad file, and the names of its rows."""
    if group is None:
        return {}, ()
    io = counts_library("reading .h5ad", "anndata.io")
    try:
        table = io.read_elem(group)
    except Exception as error:  # anndata raises errors of many types for damaged elements
        raise InputError(f"{group.name} of {path} cannot be read ({one_line(error)})") from error
    if isinstance(table, np.ndarray):  # a structured array, as versions before 0.7 wrote
        names = list(table.dtype.names or ())
        index = names.pop(0) if names and names[0] in ("index", "_index") else None
        named = {n: as_text(table[n]) for n in (*names, *([index] if index else []))}
        return {n: named[n] for n in names}, [] if index is None else named[index].tolist()
    if isinstance(table, dict):  # a group without the attributes of a data frame
        index = str(group.attrs.get("_index", "_index"))
        names = table.pop(index, ())
        return {n: as_text(v) for n, v in table.items()}, [str(n) for n in as_text(names)]
    return {str(n): table[n] for n in table.columns}, [str(n) for n in table.index]


def as_text(values: object) -> np.ndarray:
    """Return values with bytes as text."""
    array = np.asarray(values)
    if array.dtype.kind not in "OS":
        return array
    return np.array([v.decode(errors="replace") if isinstance(v, bytes) else v for v in array])


def read_object(source: object, options: Options) -> tuple[str, Raw] | None:
    """Return an AnnData object or a sparse matrix of SciPy as data, after its name as a source;
    None for other data.

    >>> import scipy.sparse
    >>> read_object(scipy.sparse.csr_array(np.eye(3)), {})[1].splits["all"].shape
    (3, 3)
    >>> read_object(np.eye(3), {}) is None
    True
    """
    # imported by whoever made the object
    anndata, scipy_sparse = (sys.modules.get(name) for name in ("anndata", "scipy.sparse"))
    if anndata is not None and isinstance(source, anndata.AnnData):
        return "anndata", of_anndata(source, options)
    if scipy_sparse is not None and scipy_sparse.issparse(source):
        return "sparse", raw_of(Annotated("the sparse matrix", {"X": _in_memory(source)}), options)
    return None


def of_anndata(source: anndata.AnnData, options: Options) -> Raw:
    """Read an AnnData object, with the columns of obs as attributes.

    Args:
        source: in memory, or backed by a file.
        options: see `raw_of`.

    Raises:
        ValueError: it has no such layer, or values that are not counts.

    >>> import anndata
    >>> of_anndata(anndata.AnnData(np.eye(3)), {}).splits["all"].shape
    (3, 3)
    """
    source = source.to_memory() if source.isbacked else source
    matrices = {} if source.X is None else {"X": _in_memory(source.X)}
    matrices |= {name: _in_memory(source.layers[name]) for name in source.layers}
    var: dict[str, Columns] = {"": {n: source.var[n] for n in source.var.columns}}
    names: dict[str, Sequence[str]] = {"": source.var_names.tolist()}
    if source.raw is not None and "raw" not in matrices:
        matrices["raw"] = _in_memory(source.raw.X)
        var["raw"] = {n: source.raw.var[n] for n in source.raw.var.columns}
        names["raw"] = source.raw.var_names.tolist()
    obsm = {name: np.asarray(source.obsm[name]) for name in source.obsm}
    matrices |= {f"obsm/{name}": Dense(x) for name, x in obsm.items() if x.ndim == 2}
    obs = {str(n): source.obs[n] for n in source.obs.columns}
    return raw_of(
        Annotated("the AnnData object", matrices, obs, source.obs_names.tolist(), var, names),
        options,
    )


def _in_memory(values: object) -> Stored:
    """Return a matrix of an AnnData object."""
    import scipy.sparse

    if not isinstance(values, (scipy.sparse.sparray, scipy.sparse.spmatrix)):
        return Dense(np.asarray(values))
    form = "csc" if values.format == "csc" else "csr"
    matrix = values.asformat(form)
    return Compressed(matrix.data, matrix.indices, matrix.indptr, matrix.shape, form)
