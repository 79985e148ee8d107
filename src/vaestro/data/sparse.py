"""Sparse matrices of counts: SciPy's .npz and AnnData's .h5ad, read without becoming dense."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from vaestro.data.raw import Options, Raw
from vaestro.data.writers import writing
from vaestro.spaces import LARGEST_COUNT

PARTS = ("data", "indices", "indptr")


@final
class Sparse:
    """Hold a matrix of counts by its rows' cells that are not zero (CSR), and give any rows as a
    dense array.

    Args:
        data, indices: counts and their columns, row after row.
        starts: where each row begins, and where the last one ends, (N + 1,).
        columns: how many there are.
        names: of the columns, such as genes; empty if they are not known.
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
        """Return how many cells there are, zeros among them."""
        return len(self) * self.columns

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the counts."""
        return self.data.dtype

    @property
    def nbytes(self) -> int:
        """Return the bytes that are held."""
        return self.data.nbytes + self.indices.nbytes + self.starts.nbytes

    def named(self, names: tuple[str, ...]) -> Sparse:
        """Return the columns of these names, in this order.

        Raises:
            ValueError: there is no such column.
        """
        place = {name: i for i, name in enumerate(self.names)}
        lacking = [name for name in names if name not in place]
        if lacking:
            shown = ", ".join(map(repr, lacking[:3])) + (
                f" and {len(lacking) - 3:,} more" if len(lacking) > 3 else ""
            )
            raise ValueError(
                f"expected the {len(names):,} columns that the run was trained on; got no "
                f"{shown} among {len(place):,} names"
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
        """Return some of the rows, (N,)."""
        first, sizes = self.starts[:-1][rows], np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        at = np.repeat(first - starts[:-1], sizes) + np.arange(int(starts[-1]))
        return Sparse(self.data[at], self.indices[at], starts, self.columns, self.names)

    @classmethod
    def joined(cls, parts: Sequence[Sparse]) -> Sparse:
        """Return the rows of several matrices one below the other."""
        ends = np.cumsum([0] + [int(part.starts[-1]) for part in parts])
        starts = [part.starts[:-1] + end for part, end in zip(parts, ends, strict=False)]
        data, indices = (
            np.concatenate(held) for held in ([p.data for p in parts], [p.indices for p in parts])
        )
        return cls(
            data, indices, np.concatenate([*starts, ends[-1:]]), parts[0].columns, parts[0].names
        )

    def __getitem__(self, rows: Any) -> np.ndarray:
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


def made(
    data: np.ndarray,
    indices: np.ndarray,
    starts: np.ndarray,
    shape: tuple[int, int],
    form: str,
    where: str,
) -> Sparse:
    """Make a matrix of what a file holds, in the smallest types that hold it; of columns (CSC) or
    single cells (COO) sorted by rows.

    Raises:
        ValueError: the parts do not belong together, or the numbers are no counts.
    """
    rows, columns = (int(s) for s in shape)
    wrong = f"expected a whole sparse matrix in {where}; got parts that do not belong together"
    along, across = (columns, rows) if form == "csc" else (rows, columns)
    if len(data) != len(indices):
        raise ValueError(wrong)
    if form == "coo":
        if len(starts) != len(data) or (len(starts) and (starts.min() < 0 or starts.max() >= rows)):
            raise ValueError(wrong)
    else:
        starts = starts.astype(np.int64)
        if (
            len(starts) != along + 1
            or starts[0]
            or (np.diff(starts) < 0).any()
            or starts[-1] > len(data)
        ):
            raise ValueError(wrong)
        data, indices = data[: starts[-1]], indices[: starts[-1]]
    if len(indices) and (indices.min() < 0 or indices.max() >= across):
        raise ValueError(wrong)
    bad = (
        ~np.isfinite(data) | (data < 0) | (data != np.rint(data)) | (data > LARGEST_COUNT)
        if data.dtype.kind == "f"
        else data < 0
    )
    if bad.any():
        got = f"{int(bad.sum()):,} others of {len(data):,}, such as {data[bad][0]:g}"
        raise ValueError(
            f"expected counts in {where}, whole numbers of 0 or more that were not normalised; "
            f"got {got}"
        )
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


def _smallest(counts: np.ndarray) -> np.ndarray:
    """Return counts in the smallest type that holds the largest of them."""
    most = counts.max(initial=0)
    return counts.astype(np.uint8 if most < 256 else np.uint16 if most < 65536 else np.int32)


def _once_each(
    data: np.ndarray, indices: np.ndarray, starts: np.ndarray, columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum what stands for one cell several times, as COO allows; rows whose columns rise stay as
    they are."""
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


def of_npz(archive: Mapping[str, np.ndarray], where: str) -> Raw:
    """Read what scipy.sparse.save_npz wrote.

    Raises:
        ValueError: the format is none of csr, csc and coo, or the matrix is damaged or holds no
            counts.
    """
    form = archive["format"].item()
    form = form.decode() if isinstance(form, bytes) else str(form)
    if form not in ("csr", "csc", "coo"):
        raise ValueError(f"expected a sparse matrix as csr, csc or coo in {where}; got {form}")
    indices, starts = ("col", "row") if form == "coo" else ("indices", "indptr")
    if indices not in archive or starts not in archive:
        raise ValueError(
            f"expected a whole sparse matrix in {where}; got one without {indices} or {starts}"
        )
    shape = tuple(archive["shape"].tolist())
    return Raw(
        {"all": made(archive["data"], archive[indices], archive[starts], shape, form, where)}
    )


# -- AnnData ---------------------------------------------------------------------------------------


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            "expected the extra vaestro[counts] to read .h5ad; got an installation without it"
        ) from error
    return h5py


def read_h5ad(path: Path, options: Options) -> Raw:
    """Read counts of an .h5ad file (AnnData): X, or the layer that `array=` names, with the columns
    of obs as attributes.

    Raises:
        ValueError: it is no such file, has no such layer, or holds no counts.
    """
    h5py = _h5py()
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"expected an .h5ad file; got {path}, which is damaged or another thing"
        ) from error
    with file:
        name = str(options.get("array", "X"))
        layers = list(file.get("layers", ()))
        if name != "X" and name not in layers:
            raise ValueError(
                f"expected array= to be X or a layer of {path}: "
                f"{', '.join(layers) or 'there is none'}; got {name!r}"
            )
        held = file.get("X" if name == "X" else f"layers/{name}")
        if held is None:
            raise ValueError(
                f"expected counts in X of {path}, or array=LAYER "
                f"({', '.join(layers) or 'there is none'}); got none"
            )
        where = f"{name} of {path}"
        if isinstance(held, h5py.Dataset):
            dense = held[:]
            rows, columns = np.nonzero(dense)
            counts = made(dense[rows, columns], columns, rows, dense.shape, "coo", where)
        else:
            form = str(held.attrs.get("encoding-type", "csr_matrix")).removesuffix("_matrix")
            if (
                form not in ("csr", "csc")
                or any(part not in held for part in PARTS)
                or "shape" not in held.attrs
            ):
                raise ValueError(f"expected a csr or csc matrix in {where}; got {form}")
            counts = made(
                held["data"][:],
                held["indices"][:],
                held["indptr"][:],
                tuple(held.attrs["shape"]),
                form,
                where,
            )
        counts.names = _names(h5py, file.get("var"), counts.columns)
        found = {
            n: values
            for n in file.get("obs", ())
            if (values := _column(h5py, file["obs"][n])) is not None and len(values) == len(counts)
        }
    index = ("_index", "index", "__categories")
    return Raw({"all": counts}, {"all": {n: v for n, v in found.items() if n not in index}})


def _names(h5py: Any, held: Any, columns: int) -> tuple[str, ...]:
    """Return the names of the columns, the index of var; none where they are absent or not
    different."""
    if not isinstance(held, h5py.Group):
        return ()
    index = str(held.attrs.get("_index", "_index"))
    values = _column(h5py, held[index]) if index in held else None
    names = () if values is None else tuple(map(str, values.tolist()))
    return names if len(names) == len(set(names)) == columns else ()


def _column(h5py: Any, held: Any) -> np.ndarray | None:
    """Return a column of obs: numbers, truth values, text, or categories as text; None for
    others."""
    if isinstance(held, h5py.Group):
        if "codes" not in held or "categories" not in held:
            return None
        names = _column(h5py, held["categories"])
        codes = held["codes"][:]
        return None if names is None or (codes < 0).any() else names.astype(str)[codes]
    values = held[:]
    if values.dtype.kind in "OS":
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values])
    return np.asarray(values) if values.dtype.kind in "biuf" else None


def write_latents(source: Path, target: Path, codes: Mapping[str, np.ndarray]) -> None:
    """Copy an .h5ad file with codes in obsm: X_vaestro the means, X_vaestro_logvar beside them."""
    h5py = _h5py()
    with writing(target) as part:
        shutil.copyfile(source, part)
        _write_codes(h5py, part, codes)


def _write_codes(h5py: Any, path: Path, codes: Mapping[str, np.ndarray]) -> None:
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
