"""Read count matrices of 10x Genomics (.h5, and folders with matrix.mtx), and .loom files."""

from __future__ import annotations

import csv
import gzip
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vaestro.data.annotated import (
    Annotated,
    Compressed,
    Dense,
    as_text,
    counts_library,
    is_array,
    opened,
    raw_of,
)
from vaestro.data.raw import Options, Raw
from vaestro.data.source_options import as_source
from vaestro.text import InputError, alternatives, nearest, one_line, quoted, unquoted

GENES = "Gene Expression"  # the type of features that is read by default


def is_tenx_h5(path: Path) -> bool:
    """Return whether a file is an .h5 file of 10x Genomics.

    >>> is_tenx_h5(Path("x.npy"))
    False
    """
    if path.suffix.lower() not in (".h5", ".hdf5"):
        return False
    try:
        import h5py

        with h5py.File(path, "r") as file:
            return any("barcodes" in file[n] for n in file if isinstance(file[n], h5py.Group))
    except (ImportError, OSError):
        return False


def read_tenx_h5(path: Path, options: Options) -> Raw:
    """Read the counts of an .h5 file of 10x Genomics, with the barcodes as names of cells.

    Args:
        path: of the file.
        options: `features` is the type of features to read, by default Gene Expression;
            `array` names the genome of an old file; see also `annotated.raw_of`.

    Raises:
        ValueError: the file is damaged, or has no features of this type.
    """
    with opened(path, "a file of 10x Genomics") as file:
        genomes = [n for n in file if "barcodes" in file[n]]
        name = unquoted(str(options.get("array", genomes[0])))
        if name not in genomes or (len(genomes) > 1 and "array" not in options):
            raise ValueError(
                f"expected array= to name a genome of {path}: {alternatives(genomes)}; got "
                f"{name if 'array' in options else 'none'}"
            )
        group = file[name]
        features = group.get("features", group)
        old = {"id": "genes", "name": "gene_names"}
        keys = ("id", "name", "feature_type", "genome")
        var = {
            key: as_text(features[stored][:])
            for key in keys
            if (stored := key if "features" in group else old.get(key, "")) in features
        }
        genes, cells = (int(n) for n in group["shape"][:])
        # a csc matrix of genes x cells is a csr matrix of cells x genes
        data, indices, starts = (group[part][:] for part in ("data", "indices", "indptr"))
        counts = Compressed(data, indices, starts, (cells, genes), "csr")
        barcodes = as_text(group["barcodes"][:]).tolist()
    return _raw(
        str(path), counts, barcodes, var, {k: v for k, v in options.items() if k != "array"}
    )


def tenx_folder(path: Path) -> tuple[Path, ...] | None:
    """Return the files of a folder of 10x Genomics: matrix, features and barcodes, which may be
    compressed and have a common prefix; None for other folders.

    Raises:
        ValueError: features or barcodes are missing, or there are several matrices.

    >>> tenx_folder(Path(".")) is None
    True
    """
    matrices = sorted(f for f in path.glob("*matrix.mtx*") if f.suffix in (".mtx", ".gz"))
    if not matrices:
        return None
    if len(matrices) > 1:
        shown = ", ".join(f.name for f in matrices[:3])
        raise InputError(
            f"{path} has {len(matrices)} matrices ({shown}): move each, with its features and "
            f"barcodes, into a folder of its own"
        )
    prefix = matrices[0].name.partition("matrix.mtx")[0]
    files = [matrices[0]]
    for names in (("features.tsv", "genes.tsv"), ("barcodes.tsv",)):
        there = [path / f"{prefix}{n}{end}" for n in names for end in ("", ".gz")]
        file = next((f for f in there if f.exists()), None)
        if file is None:
            raise InputError(f"{path} has {matrices[0].name}, but no {prefix}{names[0]} or .gz")
        files.append(file)
    return tuple(files)


def read_tenx_folder(path: Path, options: Options) -> Raw:
    """Read the counts of a folder of 10x Genomics: matrix.mtx, features.tsv (or genes.tsv) and
    barcodes.tsv, each also compressed as .gz.

    Args:
        path: of the folder.
        options: see `read_tenx_h5`.

    Raises:
        ValueError: a file is missing or damaged, or there are no features of this type.
    """
    files = tenx_folder(path)
    assert files is not None
    io = counts_library(f"reading {files[0].name}", "scipy.io")
    try:
        matrix = io.mmread(files[0]).tocoo()
        features, cells = _lines(files[1]), _lines(files[2])
    except (OSError, ValueError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged or cut short ({one_line(error)})") from error
    if matrix.shape != (len(features), len(cells)):
        raise ValueError(
            f"expected {files[0]} to have {len(features):,} rows and {len(cells):,} columns, as "
            f"{files[1].name} and {files[2].name} have lines; got {matrix.shape}"
        )
    keys = ("id", "name", "feature_type")
    width = min(map(len, features), default=0)
    var = {key: np.array([f[i] for f in features]) for i, key in enumerate(keys) if i < width}
    counts = Compressed(matrix.data, matrix.row, matrix.col, matrix.shape[::-1], "coo")
    return _raw(str(path), counts, [line[0] for line in cells], var, options)


def _lines(file: Path) -> list[list[str]]:
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8", newline="") as lines:
        return [
            line for line in csv.reader(lines, delimiter="\t", quotechar=None, quoting=3) if line
        ]


def _raw(
    where: str,
    counts: Compressed,
    barcodes: Sequence[str],
    var: Mapping[str, np.ndarray],
    options: Options,
) -> Raw:
    """Return the counts of the features of one type."""
    columns = var.get("name", var.get("id", np.array([], str)))
    raw = raw_of(
        Annotated(where, {"X": counts}, {}, barcodes, {"": var}, {"": columns.tolist()}), options
    )
    types = var.get("feature_type", np.array([], str))
    present = list(dict.fromkeys(types.tolist()))
    wanted = unquoted(str(options.get("features", GENES if GENES in present else "")))
    if "features" in options and wanted not in present:
        raise ValueError(
            f"expected features= to be a type of features in {where}: "
            f"{nearest(wanted, present) if present else 'there is none'}; got {wanted!r}"
        )
    if not wanted or present == [wanted]:
        return raw
    whole = raw.splits["all"]
    kept = np.flatnonzero(types == wanted)
    others = [t for t in present if t != wanted]
    source = shlex.quote(as_source(where, {**options, "features": quoted(others[0])}))
    note = (
        f"{len(kept):,} of {len(types):,} features are read, those of type {wanted} (others: "
        f"{', '.join(others)}; {source} reads these)"
    )
    matrix = whole.named(tuple(whole.names[i] for i in kept))
    return Raw({"all": matrix}, raw.attributes, (*raw.notes, note), raw.missing)


# -- loom ------------------------------------------------------------------------------------------


def read_loom(path: Path, options: Options) -> Raw:
    """Read counts from a .loom file, whose rows are genes and whose columns are cells.

    Args:
        path: of the file.
        options: see `raw_of`. The names of genes are the row attribute Gene, otherwise Accession.

    Raises:
        ValueError: the file is damaged, has no such layer, or has values that are not counts.

    >>> import h5py
    >>> with h5py.File("x.loom", "w") as file:
    ...     file["matrix"] = np.ones((3, 2))
    >>> read_loom(Path("x.loom"), {}).splits["all"].shape
    (2, 3)
    """
    with opened(path, "a .loom file") as file:
        layers = file.get("layers", {})
        matrices = {"X": Dense(file["matrix"], transposed=True)}
        matrices |= {name: Dense(layers[name], transposed=True) for name in layers}
        obs, var = (
            {name: as_text(group[name][:]) for name in group if is_array(group[name], 1)}
            for group in (file.get("col_attrs", {}), file.get("row_attrs", {}))
        )
        rows = obs.pop(next((n for n in ("CellID", "obs_names") if n in obs), ""), ())
        columns = next((var[n] for n in ("Gene", "var_names", "Accession") if n in var), ())
        return raw_of(
            Annotated(str(path), matrices, obs, list(rows), {"": var}, {"": list(columns)}), options
        )
