"""Sparse matrices of counts, and SciPy's .npz, read without a dense copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from vaestro.data.raw import Raw
from vaestro.spaces import LARGEST_COUNT
from vaestro.text import InputError


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

    def totals(self, names: tuple[str, ...] = ()) -> np.ndarray:
        """Return the sum of each row, (N,) int64.

        Args:
            names: the columns to add, if both they and those of the matrix have names; by default
                all.

        >>> Sparse(np.array([5, 2]), np.array([1, 0]), np.array([0, 1, 2]), columns=2).totals()
        array([5, 2])
        """
        if names and self.names:
            return self.named(names).totals()
        ends = np.concatenate([[0], np.cumsum(self.data, dtype=np.int64)])
        return np.asarray(np.diff(ends[self.starts]))

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


def _no_counts(data: np.ndarray) -> np.ndarray:
    """Return which values are not counts."""
    if data.dtype.kind != "f":
        return np.asarray(data < 0)
    return np.asarray(
        ~np.isfinite(data) | (data < 0) | (data != np.rint(data)) | (data > LARGEST_COUNT)
    )


def are_counts(data: np.ndarray) -> bool:
    """Return whether all values are counts.

    >>> are_counts(np.array([0.0, 3.0])), are_counts(np.array([0.5]))
    (True, False)
    """
    return data.dtype.kind in "biuf" and not _no_counts(data).any()


def _check_counts(data: np.ndarray, where: str) -> None:
    """Raise ValueError unless all values are counts."""
    bad = _no_counts(data)
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
