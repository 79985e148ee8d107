"""Write .h5ad files (AnnData): cells, with the names of genes and cells and the columns of obs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from vaestro.data.annotated import counts_library
from vaestro.data.raw import IDENTIFIERS
from vaestro.data.sparse import Sparse
from vaestro.storage import writing

if TYPE_CHECKING:
    from pandas import Categorical


def write_annotated(
    path: Path,
    x: np.ndarray | Sparse,
    names: tuple[str, ...] = (),
    obs: Mapping[str, np.ndarray] | None = None,
    codes: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write rows of counts or of their means to an .h5ad file. Whole numbers are stored as csr.

    Args:
        path: the file, which is overwritten.
        x: (N, columns).
        names: of the columns; by default their numbers.
        obs: columns of obs, each (N,). `obs_names` or `id` are the names of the rows.
        codes: {"mean": (N, *Z), "logvar": (N, *Z)}, which are written to obsm as by
            `write_latents`.

    >>> import anndata
    >>> write_annotated(Path("x.h5ad"), np.eye(2, dtype=int), ("a", "b"), {"age": np.array([3, 4])})
    >>> anndata.read_h5ad("x.h5ad").obs["age"].tolist()
    [3, 4]
    """
    library = counts_library("writing .h5ad")
    pandas = counts_library("writing .h5ad", "pandas")
    scipy_sparse = counts_library("writing .h5ad", "scipy.sparse")
    if isinstance(x, Sparse):
        matrix = scipy_sparse.csr_matrix(
            (x.data.astype(np.int32), x.indices.astype(np.int32), x.starts), shape=x.shape
        )
    else:
        matrix = scipy_sparse.csr_matrix(x) if x.dtype.kind in "biu" else x
    columns = dict(obs or {})
    rows = next((columns.pop(n) for n in IDENTIFIERS if n in columns), np.arange(x.shape[0]))
    genes = [str(name) for name in names or range(x.shape[1])]
    # texts as objects: AnnData 0.12 cannot write those of pandas 3
    annotated = library.AnnData(
        matrix,
        obs=pandas.DataFrame(
            {name: _cells(pandas, values) for name, values in columns.items()},
            index=pandas.Index(rows.astype(str), dtype=object),
        ),
        var=pandas.DataFrame(index=pandas.Index(genes, dtype=object)),
        obsm={_key(name): c.reshape(len(c), -1) for name, c in (codes or {}).items()},
    )
    with writing(path) as part:
        annotated.write_h5ad(part)


def _cells(pandas: ModuleType, values: np.ndarray) -> np.ndarray | Categorical:
    """Return a column of obs; text as categories, without one for empty text."""
    if values.dtype.kind not in "US":
        return values
    names, codes = np.unique(values, return_inverse=True)
    empty = int(len(names) and names[0] == "")
    categories = pandas.Index(names[empty:].astype(object), dtype=object)
    return pandas.Categorical.from_codes(codes - empty, categories)


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
    library = counts_library("writing .h5ad", "h5py")
    with writing(target) as part:
        shutil.copyfile(source, part)
        with library.File(part, "r+") as file:
            group = file.require_group("obsm")
            if "encoding-type" not in group.attrs:
                group.attrs["encoding-type"], group.attrs["encoding-version"] = "dict", "0.1.0"
            for name, array in codes.items():
                key = _key(name)
                if key in group:
                    del group[key]
                dataset = group.create_dataset(key, data=array.reshape(len(array), -1))
                dataset.attrs["encoding-type"] = "array"
                dataset.attrs["encoding-version"] = "0.2.0"


def _key(name: str) -> str:
    """Return the key in obsm of the means or another parameter of codes."""
    return "X_vaestro" + ("" if name == "mean" else f"_{name}")
