"""Write arrays in the format that follows from the suffix of a file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaestro.data.raw import IDENTIFIERS
from vaestro.frames import Frame
from vaestro.storage import refuse_special, writing
from vaestro.text import InputError
from vaestro.tokens import Texts

if TYPE_CHECKING:
    from vaestro.spaces import Space

TABLES = (".csv", ".tsv", ".parquet", ".feather", ".json", ".jsonl")
SUFFIXES = (".npy", ".npz", *TABLES, ".txt", ".png", ".h5ad")


def check_output(
    path: str | Path,
    *,
    force: bool = False,
    suffixes: Sequence[str] = SUFFIXES,
    folders: bool = False,
) -> Path:
    """Return the path of an output file if it may be written.

    Args:
        path: of the file.
        force: whether to overwrite a file.
        suffixes: of the formats that can be written.
        folders: whether the output may be a folder that receives a file for each datum: one that
            exists, or a path that ends in a slash. It is created when the first file is
            written.

    Raises:
        ValueError: the suffix is another one, the folder does not exist, or the file exists and
            `force` is not set.

    >>> check_output("codes.npy").name
    'codes.npy'
    >>> is_folder(check_output("made/", folders=True))
    True
    """
    folder = str(path).endswith(("/", os.sep)) or Path(path).is_dir()
    path = Path(path)
    if folders and folder:
        if path.is_dir() and not force and any(path.iterdir()):
            raise InputError(
                f"the folder {path} is not empty (--force writes into it, and overwrites files of "
                f"the same names)"
            )
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file, not a folder: leave out the slash at its end")
        if not path.parent.is_dir():
            raise InputError(f"the folder {path.parent} does not exist: create it first")
        if not is_folder(path):
            raise InputError(
                f"a new folder whose name ends in {path.suffix} would look like a file: name "
                f"another one than {path}"
            )
        return path
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"expected a file name that ends in {', '.join(suffixes)}; got {path}")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist: create it first")
    if path.is_dir():
        raise ValueError(f"expected a file to write; got the folder {path}")
    refuse_special(path, "name a file to write")
    if path.exists() and not force:
        raise InputError(f"{path} exists (--force overwrites it)")
    return path


def is_folder(path: Path) -> bool:
    """Return whether an output that was checked is a folder, which may not exist yet: the name of a
    file ends in the suffix of a format.

    >>> is_folder(Path("made")), is_folder(Path("codes.npy"))
    (True, False)
    """
    return path.is_dir() or path.suffix.lower() not in SUFFIXES


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, raw: bool = False) -> int:
    """Write named arrays with one row per datum.

    An .npz file contains all arrays, a .npy file the first one, and a table one column for each
    cell of a row.

    Args:
        path: the file, which is overwritten.
        arrays: by name.
        raw: whether to write text that a spreadsheet would run without an apostrophe.

    Returns:
        the number of cells with such an apostrophe.

    >>> write_arrays(Path("z.csv"), {"z": np.zeros((1, 2), int)})
    0
    >>> Path("z.csv").read_text().split()
    ['"z_0","z_1"', '0,0']
    """
    suffix = path.suffix.lower()
    with writing(path) as part:
        if suffix == ".npz":
            # not by savez_compressed, which cannot write an array named `file`
            with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        elif suffix == ".npy":
            with part.open("wb") as file:
                np.save(file, next(iter(arrays.values())), allow_pickle=False)
        elif suffix == ".txt":
            table = np.stack(list(_columns(arrays).values()), 1)
            np.savetxt(
                part,
                table.astype(str) if table.dtype.kind == "f" else table,
                fmt="%s" if table.dtype.kind == "f" else "%d",
            )
        else:
            from vaestro.data.tables import write_frame

            columns = {name: np.ma.MaskedArray(cells) for name, cells in _columns(arrays).items()}
            return write_frame(part, Frame(columns), suffix, raw=raw)
    return 0


def write_data(
    path: Path,
    data: np.ndarray | Frame | Texts,
    places: np.ndarray | None = None,
    *,
    raw: bool = False,
) -> int:
    """Write data in the user's layout.

    An array has the name x, a table its own columns. Texts are written one per line in .txt, with
    \\n for a line break, and in other formats as a column `text`.

    Args:
        path: the file, whose suffix determines the format. It is overwritten.
        data: the rows.
        places: their row numbers, which are added to an .npz file of an array.
        raw: whether to write text that a spreadsheet would run without an apostrophe.

    Returns:
        the number of cells with such an apostrophe.

    Raises:
        ValueError: the format cannot store such data.

    >>> write_data(Path("t.txt"), Texts.of(["a cat", "a dog"]))
    0
    >>> Path("t.txt").read_text().splitlines()
    ['a cat', 'a dog']
    """
    from vaestro.data.containers import container_of  # imports torch

    return container_of(data).write(path, data, places, raw=raw)


def write_named(
    path: Path,
    data: np.ndarray | Frame | Texts,
    space: Space,
    attributes: Mapping[str, np.ndarray],
    *,
    raw: bool = False,
) -> int:
    """Write vectors with the names of their columns, such as genes, and of their rows.

    Args:
        path: an .h5ad file also contains all attributes; a table and an .npz file contain the names
            of the rows; other files contain the values alone.
        data: vectors, (N, columns).
        space: of the data.
        attributes: other values of each row, each (N,).
        raw: whether to write text that a spreadsheet would run without an apostrophe.

    Returns:
        the number of cells with such an apostrophe.

    Raises:
        ValueError: the file is an .h5ad file, and the data are not vectors.

    >>> from vaestro.spaces import CountSpace
    >>> space = CountSpace((2,), (2,), "int64", names=("g1", "g2"))
    >>> write_named(Path("x.csv"), np.eye(2, dtype=int), space, {"id": np.array(["a", "b"])})
    0
    >>> Path("x.csv").read_text().split()
    ['"id","g1","g2"', '"a",1,0', '"b",0,1']
    """
    suffix = path.suffix.lower()
    if not isinstance(data, np.ndarray) or data.ndim != 2:
        raise ValueError(f"expected vectors for {path}; got {space} (write .npz, .parquet or .csv)")
    if suffix == ".h5ad":
        from vaestro.data.annotated_output import write_annotated

        write_annotated(path, data, space.names, attributes)
        return 0
    rows = identifiers(attributes)
    if suffix in TABLES:
        from vaestro.data.tables import write_frame

        columns = rows | {name: data[:, i] for i, name in enumerate(space.names)}
        with writing(path) as part:
            frame = Frame({n: np.ma.MaskedArray(values) for n, values in columns.items()})
            return write_frame(part, frame, suffix, raw=raw)
    names = {"var_names": np.array(space.names), **rows} if suffix == ".npz" else {}
    return write_arrays(path, {"x": data, **names}, raw=raw)


def identifiers(attributes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the attribute that names rows, by its name; none if there is none.

    >>> identifiers({"age": np.array([3]), "id": np.array(["mol1"])})
    {'id': array(['mol1'], dtype='<U4')}
    """
    name = next((n for n in IDENTIFIERS if n in attributes), None)
    return {} if name is None else {name: attributes[name]}


def _columns(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    columns = {}
    for name, array in arrays.items():
        flat = np.asarray(array).reshape(len(array), -1)
        for i in range(flat.shape[1]):
            columns[f"{name}_{i}" if flat.shape[1] > 1 else name] = flat[:, i]
    return columns


def write_grid(
    path: Path,
    rows: Mapping[str, np.ndarray | Frame | Texts],
    space: Space,
    title: str,
    columns: int = 16,
) -> None:
    """Write images as a labelled grid. The lines of several sets alternate, each with its label.

    Args:
        path: a .png file.
        rows: {label: images in the user's layout}, the same number for each label. Binary data may
            be probabilities.
        space: of the images.
        title: above the grid.
        columns: number of images in a line.

    Raises:
        ValueError: the data are not images.

    >>> from vaestro.data import load
    >>> data = load("shapes:n=20,size=16")
    >>> write_grid(Path("a.png"), {"data": data.test.outward()}, data.space, "shapes")
    """
    from PIL import Image, ImageDraw, ImageFont

    if not space.image:
        formats = "write .npy, .npz, .csv, .parquet or .txt"
        raise ValueError(f"expected images for a .png file; got {space} data ({formats})")
    sets = _pixels_of_sets(rows, space)
    if shown := space.part_shown:
        title = f"{title} ({shown})"
    count, height, width = next(iter(sets.values())).shape[:3]
    zoom = max(1, round(56 / max(height, width)))
    h, w, gap = height * zoom, width * zoom, 4
    columns = min(columns, count)
    font = ImageFont.load_default(size=14)
    labelled = len(sets) > 1
    left = max(int(font.getlength(label)) for label in sets) + 14 if labelled else gap
    lines = -(-count // columns) * len(sets)
    canvas = Image.new(
        "RGB",
        (
            max(left + columns * (w + gap) + gap, int(font.getlength(title)) + 16),
            30 + lines * (h + gap) + gap,
        ),
        "white",
    )
    draw = ImageDraw.Draw(canvas)
    draw.text((8, 7), title, fill="black", font=font)
    for s, (label, images) in enumerate(sets.items()):
        for i, image in enumerate(images):
            line = (i // columns) * len(sets) + s
            x, y = left + (i % columns) * (w + gap), 30 + line * (h + gap)
            picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
            canvas.paste(picture.resize((w, h), Image.Resampling.NEAREST), (x, y))
            if labelled and i % columns == 0:
                draw.text((8, y + h // 2 - 8), label, fill="black", font=font)
    with writing(path) as part:
        canvas.save(part, format="PNG")


def _pixels_of_sets(
    rows: Mapping[str, np.ndarray | Frame | Texts], space: Space
) -> dict[str, np.ndarray]:
    """Return the pixels of several sets of images, (N, H, W, C). Sets without levels are scaled to
    the same range."""
    arrays = {label: np.asarray(images) for label, images in rows.items()}
    pictures = {label: space.pictures(x) for label, x in arrays.items()}
    if space.levels:
        return {label: pixels(images, space) for label, images in pictures.items()}
    every = pixels(np.concatenate(list(pictures.values()), dtype=np.float64), space)
    return dict(zip(rows, np.split(every, len(rows)), strict=True))


def pixels(images: np.ndarray, space: Space) -> np.ndarray:
    """Return pictures (N, H, W, C), in the user's units, as uint8.

    Values without levels are scaled to the whole range. NaN is black.

    >>> import vaestro as vs
    >>> data = vs.load("shapes:n=20,size=16")
    >>> pixels(data.test.outward(), data.space).shape
    (1, 16, 16, 3)
    """
    images = np.asarray(images, np.float64)
    if not space.levels:
        low, high = np.nanmin(images), np.nanmax(images)
    elif space.probabilities and np.nanmax(images) <= 1:
        low, high = 0.0, 1.0
    else:
        low, high = space.low, space.low + space.step * (space.levels - 1)
    grey = (images - low) / ((high - low) or 1.0)
    return np.asarray(np.rint(255 * np.nan_to_num(np.clip(grey, 0, 1))), np.uint8)
