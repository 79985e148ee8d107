"""Which files of a folder are images, and what their names say: splits, classes and bands."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np

from vaestro.data.raw import Options
from vaestro.text import InputError, few

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".avif", ".heic", ".heif", ".jp2", ".tga"),
)
ARRAYS = (".npy",)
JUNK = ("thumbs.db", "desktop.ini", "__macosx")  # that systems put into folders
TABLES = ("labels.csv", "metadata.csv", "attributes.csv")  # of attributes, beside the images
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
# names of bands of satellites and microscopes, by which files are taken for bands
BAND = re.compile(
    r"B\d{1,2}A?|([Bb]and|[Cc]h(annel)?)[-_]?\d{1,2}|(?i:red|green|blue|nir\d?|swir\d?|rededge\d?|"
    r"dapi|gfp|rfp|cy5|vv|vh|hh|hv)"
)
COLOURS = {"red", "green", "blue"}  # which may also be those of objects


@final
@dataclass(frozen=True)
class Listing:
    """Hold what a folder contains.

    Args:
        names: paths of the images, or of the arrays, in order; of images whose bands are files,
            their common path.
        bands: the paths of the bands by name; empty if each file is an image.
        arrays: whether the files are arrays.
        others: number of other files.
        tables: paths of tables that seem to have attributes.
        notes: a line each.
    """

    names: list[str]
    bands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    arrays: bool = False
    others: int = 0
    tables: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def files(self, names: Sequence[str]) -> list[str]:
        """Return the paths of the files of some images."""
        return [file for name in names for file in self.bands.get(name, (name,))]


def list_folder(folder: Path, options: Options) -> Listing:
    """List the images of a folder, at any depth; without images, its arrays (.npy).

    Args:
        folder: that contains them.
        options: `bands` names the bands joined by +, or is none.

    Raises:
        ValueError: an image lacks a band.
        OSError: the folder cannot be read.

    >>> Path("a").mkdir(); Path("a/x.png").touch(); Path("a/.y.png").touch()
    >>> list_folder(Path("a"), {}).names
    ['x.png']
    """
    images, arrays, tables, others = _visited(folder)
    if not images and arrays:
        return Listing(sorted(arrays), arrays=True, others=others, tables=tables)
    listing = Listing(sorted(images), {}, False, others + len(arrays), tables)
    bands = _bands(listing.names, options, folder)
    if not bands:
        return listing
    order = ", ".join(bands)
    groups = _grouped(listing.names, list(bands))
    lacking = [name for name, files in groups.items() if len(files) < len(bands)]
    if lacking:
        absent = next(band for band in bands if band not in groups[lacking[0]])
        raise InputError(
            f"{len(lacking):,} of {len(groups):,} images in {folder} lack a band, such as "
            f"{absent} of {lacking[0]!r}: add it, or leave it out of bands="
        )
    files = {name: tuple(found[band] for band in bands) for name, found in sorted(groups.items())}
    left = len(listing.names) - sum(map(len, files.values()))
    notes = [
        f"{len(files):,} images with the bands {order}, a file each"
        + ("" if "bands" in options else " (bands=none reads each file as an image)")
    ]
    if left:
        notes.append(f"{left:,} files of other bands left out")
    return Listing(list(files), files, False, listing.others, tables, tuple(notes))


def _visited(folder: Path) -> tuple[list[str], list[str], tuple[str, ...], int]:
    """Return the paths of images, of arrays and of tables of attributes in a folder, and the number
    of other files."""
    images: list[str] = []
    arrays: list[str] = []
    tables: list[str] = []
    others = 0

    def visit(path: str, prefix: str, above: tuple[str, ...]) -> None:
        nonlocal others
        with os.scandir(path) as entries:
            for entry in entries:
                lower = entry.name.lower()
                if entry.name.startswith(".") or lower in JUNK:
                    continue
                suffix = os.path.splitext(lower)[1]
                if entry.is_dir():
                    real = os.path.realpath(entry.path)
                    if real not in above:  # skip a link to a parent folder
                        visit(entry.path, f"{prefix}{entry.name}/", (*above, real))
                elif suffix in SUFFIXES and entry.is_file():
                    images.append(prefix + entry.name)
                elif suffix in ARRAYS and entry.is_file():
                    arrays.append(prefix + entry.name)
                elif lower in TABLES and not prefix:
                    tables.append(prefix + entry.name)
                else:
                    others += 1

    visit(str(folder), "", (os.path.realpath(folder),))
    return images, arrays, tuple(sorted(tables)), others


# -- bands -----------------------------------------------------------------------------------------


def _bands(names: Sequence[str], options: Options, folder: Path) -> list[str]:
    """Return the names of the bands, in order; none if each file is an image."""
    asked = options.get("bands")
    if asked is not None:
        bands = [] if asked == "none" else str(asked).split("+")
        if asked != "none" and (len(bands) < 2 or len(set(bands)) < len(bands) or "" in bands):
            raise ValueError(
                f"expected bands as two or more names joined by +, such as B02+B03+B04, or none; "
                f"got {asked!r}"
            )
        groups = _grouped(names, bands)
        for band in bands:
            if not any(band in files for files in groups.values()):
                ends = ", ".join(few(band, sorted({_stem(name) for name in names})))
                raise InputError(f"no file in {folder} has the band {band!r}; names end in {ends}")
        return bands
    return _recognised(names)


def _recognised(names: Sequence[str]) -> list[str]:
    """Return the bands if all file names are names of bands, and all images have the same ones."""
    found: dict[str, set[str]] = defaultdict(set)
    for name in names:
        folder, _, _ = name.rpartition("/")
        stem = _stem(name)
        before, _, band = stem.rpartition("_") if not BAND.fullmatch(stem) else ("", "", stem)
        if not BAND.fullmatch(band) or not (folder or before):
            return []
        found[f"{folder}/{before}"].add(band)
    sets = Counter(frozenset(bands) for bands in found.values())
    bands = sorted(next(iter(sets))) if len(sets) == 1 else []
    sure = len(bands) > 1 and len(found) > 1 and not {b.lower() for b in bands} <= COLOURS
    return bands if sure else []


def _stem(name: str) -> str:
    return os.path.splitext(name.rpartition("/")[2])[0]


def _grouped(names: Sequence[str], bands: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the file of each band by the name of the image: of its folder, or of the file without
    the band."""
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        folder, _, _ = name.rpartition("/")
        stem = _stem(name)
        for band in bands:
            before = stem[: -len(band)]
            if stem == band and folder:
                groups[folder][band] = name
            elif stem.endswith(band) and before[:-1] and before[-1] in "_-.":
                groups[f"{folder}/{before[:-1]}".lstrip("/")][band] = name
    return groups


# -- splits and classes ----------------------------------------------------------------------------


def splits_of(files: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """Return the files by split, or all of them as "all".

    Raises:
        ValueError: a split has two folders.

    >>> splits_of(["train/a.png", "test/b.png"], Path("photos"))
    {'train': ['train/a.png'], 'test': ['test/b.png']}
    """
    tops = sorted(
        {
            top
            for top, slash, _ in (f.partition("/") for f in files)
            if slash and top.lower() in SPLITS
        }
    )
    named = {top: SPLITS[top.lower()] for top in tops}
    if "train" not in named.values() or len(set(named.values())) < 2:
        return {"all": list(files)}
    if len(set(named.values())) < len(named):
        raise ValueError(f"expected one folder for each split in {folder}; got {', '.join(tops)}")
    present = [s for s in ("train", "valid", "test") if s in named.values()]
    return {s: [f for f in files if named.get(f.partition("/")[0]) == s] for s in present}


def classes_of(files: Sequence[str], depth: int) -> dict[str, np.ndarray]:
    """Return the names of the folders of each file, from a depth on, as attributes: `class`,
    `class 2` and so on, each (N,). A level of folders that not every file has, or that has one
    folder, is no attribute.

    >>> classes = classes_of(["cat/tabby/1.png", "dog/pug/2.png"], 0)
    >>> {name: values.tolist() for name, values in classes.items()}
    {'class': ['cat', 'dog'], 'class 2': ['tabby', 'pug']}
    """
    paths = [f.split("/")[depth:-1] for f in files]
    classes: dict[str, np.ndarray] = {}
    for level in range(min(map(len, paths), default=0)):
        if len({path[level] for path in paths}) > 1:
            name = f"class {len(classes) + 1}" if classes else "class"
            classes[name] = np.array([path[level] for path in paths])
    return classes
