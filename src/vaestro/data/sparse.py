"""Sparse matrices of counts: SciPy's .npz and AnnData's .h5ad, read without a dense copy."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, final

import numpy as np

from vaestro.data.raw import Options, Raw
from vaestro.data.writers import writing
from vaestro.spaces import LARGEST_COUNT
from vaestro.text import InputError

if TYPE_CHECKING:
    import h5py

PARTS = ("data", "indices", "indptr")


@final
class Sparse:
    """Store a matrix of counts by its nonzero cells (CSR); indexing returns rows as a dense array.

    Args:
        data: the nonzero counts, row after row.
        indices: the column of each count.
        starts: the start of each row in `data`, and the end of the last one, (N + 1,).
        columns: number of columns.
        names: of the columns, such as genes; empty if unknown.

    >>> matrix = Sparse(np.array([5, 2]), np.array([1, 0]), np.array([0, 1, 2]), columns=2)
    >>> matrix[np.array([0, 1])]
    array([[0, 5],
           [2, 0]])
    """

    ndim = 2

    def __init__(
        self,
        data: np.ndarray,
        indices: np.ndarray,
        starts: np.ndarray,
        columns: int,
        names: tuple[str, ...] = (),
    ) -> None:
        self.data, self.indices, self.starts, self.columns, self.names = (
            data,
            indices,
            starts,
            columns,
            names,
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""
        return len(self), self.columns

    @property
    def size(self) -> int:
        """Return the number of cells, including zeros."""
        return len(self) * self.columns

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the counts."""
        return self.data.dtype

    @property
    def nbytes(self) -> int:
        """Return the size of the stored arrays in bytes."""
        return self.data.nbytes + self.indices.nbytes + self.starts.nbytes

    def named(self, names: tuple[str, ...]) -> Sparse:
        """Return the columns with these names, in this order.

        Raises:
            ValueError: a column is missing.
        """
        place = {name: i for i, name in enumerate(self.names)}
        lacking = [name for name in names if name not in place]
        if lacking:
            shown = ", ".join(map(repr, lacking[:3])) + (
                f" and {len(lacking) - 3:,} more" if len(lacking) > 3 else ""
            )
            raise ValueError(
                f"expected the {len(names):,} columns that the run was trained on; got no {shown} "
                f"among {len(place):,} names"
            )
        to = np.full(self.columns, -1, np.int64)
        to[[place[name] for name in names]] = np.arange(len(names))
        columns = to[self.indices]
        kept = columns >= 0
        starts = np.concatenate([[0], np.cumsum(kept)])[self.starts]
        return Sparse(
            self.data[kept], columns[kept].astype(self.indices.dtype), starts, len(names), names
        )

    def pick(self, rows: np.ndarray) -> Sparse:
        """Return some rows, by number, (N,)."""
        first, sizes = self.starts[:-1][rows], np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        at = np.repeat(first - starts[:-1], sizes) + np.arange(int(starts[-1]))
        return Sparse(self.data[at], self.indices[at], starts, self.columns, self.names)

    @classmethod
    def joined(cls, parts: Sequence[Sparse]) -> Sparse:
        """Return the rows of several matrices one below the other."""
        ends = np.cumsum([0] + [int(part.starts[-1]) for part in parts])
        starts = [part.starts[:-1] + end for part, end in zip(parts, ends, strict=False)]
        return cls(
            np.concatenate([part.data for part in parts]),
            np.concatenate([part.indices for part in parts]),
            np.concatenate([*starts, ends[-1:]]),
            parts[0].columns,
            parts[0].names,
        )

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return rows (...,) as a dense array (..., columns)."""
        first, last = self.starts[:-1][rows], self.starts[1:][rows]
        sizes = (last - first).ravel()
        out = np.zeros((*first.shape, self.columns), self.dtype)
        flat = out.reshape(-1, self.columns)
        ends = np.cumsum(sizes)
        at = np.repeat(first.ravel() - (ends - sizes), sizes) + np.arange(
            int(ends[-1]) if len(ends) else 0
        )
        flat[np.repeat(np.arange(len(sizes)), sizes), self.indices[at]] = self.data[at]
        return out


def sparse_matrix(
    data: np.ndarray,
    indices: np.ndarray,
    starts: np.ndarray,
    shape: tuple[int, int],
    form: str,
    where: str,
) -> Sparse:
    """Return the sparse matrix of a file, in the smallest dtypes.

    Args:
        data: the stored counts.
        indices: their columns (csr, coo) or rows (csc).
        starts: start of each row (csr) or column (csc) in `data`, or row of each count (coo).
        shape: (rows, columns).
        form: csr, csc or coo.
        where: the source, for messages.

    Raises:
        ValueError: the arrays contradict each other, or the values are not counts.

    >>> sparse_matrix(*np.array([[3], [1], [0]]), (1, 2), "coo", "x.npz")[np.array([0])]
    array([[0, 3]], dtype=uint8)
    """
    rows, columns = (int(s) for s in shape)
    error = InputError(f"{where} is damaged: the arrays of the sparse matrix contradict each other")
    along, across = (columns, rows) if form == "csc" else (rows, columns)
    if len(data) != len(indices):
        raise error
    if form == "coo":
        if len(starts) != len(data) or (len(starts) and (starts.min() < 0 or starts.max() >= rows)):
            raise error
    else:
        starts = starts.astype(np.int64)
        if (
            len(starts) != along + 1
            or starts[0]
            or (np.diff(starts) < 0).any()
            or starts[-1] > len(data)
        ):
            raise error
        data, indices = data[: starts[-1]], indices[: starts[-1]]
    if len(indices) and (indices.min() < 0 or indices.max() >= across):
        raise error
    _check_counts(data, where)
    data = _smallest(data)
    if form != "csr":
        of_rows = starts if form == "coo" else indices
        if form == "csc":
            indices = np.repeat(np.arange(columns), np.diff(starts))
        order = np.argsort(of_rows, kind="stable")
        data, indices = data[order], indices[order]
        starts = np.concatenate([[0], np.cumsum(np.bincount(of_rows, minlength=rows))])
    data, indices, starts = _once_each(data, indices, starts, columns)
    return Sparse(
        data,
        indices.astype(np.uint16 if columns <= 65536 else np.int32),
        starts.astype(np.int64),
        columns,
    )


def _check_counts(data: np.ndarray, where: str) -> None:
    """Raise ValueError unless all values are counts."""
    bad = (
        ~np.isfinite(data) | (data < 0) | (data != np.rint(data)) | (data > LARGEST_COUNT)
        if data.dtype.kind == "f"
        else data < 0
    )
    if bad.any():
        got = f"{int(bad.sum()):,} other values of {len(data):,}, such as {data[bad][0]:g}"
        raise ValueError(
            f"expected counts in {where}, which are whole numbers of 0 or more without any "
            f"normalisation; got {got}"
        )


def _smallest(counts: np.ndarray) -> np.ndarray:
    """Return counts in the smallest dtype that can represent them."""
    most = counts.max(initial=0)
    return counts.astype(np.uint8 if most < 256 else np.uint16 if most < 65536 else np.int32)


def _once_each(
    data: np.ndarray, indices: np.ndarray, starts: np.ndarray, columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the data, columns and starts with one count per cell: repeated cells, which COO
    allows, are summed. Rows with rising columns are unchanged."""
    falls = np.flatnonzero(np.diff(indices.astype(np.int64)) <= 0) + 1
    if np.isin(falls, starts).all():
        return data, indices, starts
    cells = np.repeat(np.arange(len(starts) - 1), np.diff(starts)) * columns + indices
    kept, place = np.unique(cells, return_inverse=True)
    total = np.bincount(place.ravel(), data, len(kept))
    of_rows, indices = np.divmod(kept, columns)
    return (
        _smallest(total),
        indices,
        np.concatenate([[0], np.cumsum(np.bincount(of_rows, minlength=len(starts) - 1))]),
    )


def of_npz(archive: Mapping[str, np.ndarray], where: str) -> Raw[Sparse]:
    """Read a matrix that scipy.sparse.save_npz wrote.

    Args:
        archive: the arrays of the file.
        where: the source, for messages.

    Raises:
        ValueError: the format is not csr, csc or coo, the matrix is damaged, or the values are not
            counts.

    >>> arrays = {"format": np.array("coo"), "shape": np.array([1, 2]), "data": np.array([3]),
    ...           "row": np.array([0]), "col": np.array([1])}
    >>> of_npz(arrays, "x.npz").splits["all"].shape
    (1, 2)
    """
    form = archive["format"].item()
    form = form.decode() if isinstance(form, bytes) else str(form)
    if form not in ("csr", "csc", "coo"):
        raise ValueError(f"expected a sparse matrix as csr, csc or coo in {where}; got {form}")
    indices, starts = ("col", "row") if form == "coo" else ("indices", "indptr")
    if indices not in archive or starts not in archive:
        raise InputError(f"{where} is damaged: the sparse matrix has no {indices} or no {starts}")
    shape = tuple(archive["shape"].tolist())
    arrays = (archive["data"], archive[indices], archive[starts])
    return Raw({"all": sparse_matrix(*arrays, shape, form, where)})


# -- AnnData ---------------------------------------------------------------------------------------


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise InputError("reading .h5ad needs h5py: pip install 'vaestro[counts]'") from error
    return h5py


def read_h5ad(path: Path, options: Options) -> Raw[Sparse]:
    """Read counts from an .h5ad file (AnnData), with the columns of obs as attributes.

    Args:
        path: of the file.
        options: `array`, the name of a layer; by default X. Other options are ignored.

    Raises:
        ValueError: the file is damaged, has no such layer, or has values that are not counts.

    >>> import h5py
    >>> with h5py.File("x.h5ad", "w") as file:
    ...     file["X"] = np.eye(3)
    >>> read_h5ad(Path("x.h5ad"), {}).splits["all"].shape
    (3, 3)
    """
    h5py = _h5py()
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is damaged, or not an .h5ad file") from error
    with file:
        name = str(options.get("array", "X"))
        layers = list(file.get("layers", ()))
        if name != "X" and name not in layers:
            raise ValueError(
                f"expected array= to be X or a layer of {path}: "
                f"{', '.join(layers) or 'there is none'}; got {name!r}"
            )
        matrix = file.get("X" if name == "X" else f"layers/{name}")
        if matrix is None:
            raise ValueError(
                f"expected counts in X of {path}, or array=LAYER "
                f"({', '.join(layers) or 'there is none'}); got none"
            )
        where = f"{name} of {path}"
        if isinstance(matrix, h5py.Dataset):
            dense = matrix[:]
            rows, columns = np.nonzero(dense)
            counts = sparse_matrix(dense[rows, columns], columns, rows, dense.shape, "coo", where)
        else:
            form = str(matrix.attrs.get("encoding-type", "csr_matrix")).removesuffix("_matrix")
            if (
                form not in ("csr", "csc")
                or any(part not in matrix for part in PARTS)
                or "shape" not in matrix.attrs
            ):
                raise ValueError(f"expected a csr or csc matrix in {where}; got {form}")
            data, indices, starts = (matrix[part][:] for part in PARTS)
            shape = tuple(matrix.attrs["shape"])
            counts = sparse_matrix(data, indices, starts, shape, form, where)
        counts.names = _names(h5py, file.get("var"), counts.columns)
        attributes = {
            n: values
            for n in file.get("obs", ())
            if (values := _column(h5py, file["obs"][n])) is not None and len(values) == len(counts)
        }
    index = ("_index", "index", "__categories")
    return Raw({"all": counts}, {"all": {n: v for n, v in attributes.items() if n not in index}})


def _names(
    h5py: ModuleType, var: h5py.Group | h5py.Dataset | None, columns: int
) -> tuple[str, ...]:
    """Return the names of the columns from the index of var; none if they are absent or
    repeated."""
    if not isinstance(var, h5py.Group):
        return ()
    index = str(var.attrs.get("_index", "_index"))
    values = _column(h5py, var[index]) if index in var else None
    names = () if values is None else tuple(map(str, values.tolist()))
    return names if len(names) == len(set(names)) == columns else ()


def _column(h5py: ModuleType, column: h5py.Group | h5py.Dataset) -> np.ndarray | None:
    """Return a column of obs: numbers, truth values, text, or categories as text; None for other
    values."""
    if isinstance(column, h5py.Group):
        if "codes" not in column or "categories" not in column:
            return None
        names = _column(h5py, column["categories"])
        codes = column["codes"][:]
        return None if names is None or (codes < 0).any() else names.astype(str)[codes]
    values = column[:]
    if values.dtype.kind in "OS":
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values])
    return np.asarray(values) if values.dtype.kind in "biuf" else None


def write_latents(source: Path, target: Path, codes: Mapping[str, np.ndarray]) -> None:
    """Copy an .h5ad file and add codes to obsm: means as X_vaestro, log-variances as
    X_vaestro_logvar.

    Args:
        source: the file to copy.
        target: the new file.
        codes: {"mean": (N, *Z), "logvar": (N, *Z)}.

    >>> import h5py
    >>> with h5py.File("x.h5ad", "w") as file:
    ...     file["X"] = np.eye(3)
    >>> write_latents(Path("x.h5ad"), Path("z.h5ad"), {"mean": np.zeros((3, 2))})
    >>> with h5py.File("z.h5ad") as file:
    ...     list(file["obsm"])
    ['X_vaestro']
    """
    h5py = _h5py()
    with writing(target) as part:
        shutil.copyfile(source, part)
        _write_codes(h5py, part, codes)


def _write_codes(h5py: ModuleType, path: Path, codes: Mapping[str, np.ndarray]) -> None:
    with h5py.File(path, "r+") as file:
        group = file.require_group("obsm")
        if "encoding-type" not in group.attrs:
            group.attrs["encoding-type"], group.attrs["encoding-version"] = "dict", "0.1.0"
        for name, array in codes.items():
            key = "X_vaestro" + ("" if name == "mean" else f"_{name}")
            if key in group:
                del group[key]
            dataset = group.create_dataset(key, data=array.reshape(len(array), -1))
            dataset.attrs["encoding-type"], dataset.attrs["encoding-version"] = "array", "0.2.0"
