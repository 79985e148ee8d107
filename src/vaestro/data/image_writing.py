"""Write data into a folder, a file for each datum, in the format and depth of the user's data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from vaestro.data.image_files import ARRAYS, list_folder
from vaestro.data.images import is_image
from vaestro.data.source_options import parse_source
from vaestro.frames import Frame
from vaestro.spaces import Space
from vaestro.storage import writing
from vaestro.text import InputError
from vaestro.tokens import Texts


def write_folder(
    folder: Path,
    data: np.ndarray | Frame | Texts,
    space: Space,
    *,
    names: Sequence[str] | None = None,
    source: str = "",
) -> str:
    """Write a file for each datum: .png for images of 8 bits and for grey images of 16 bits, .tif
    for other images that were read from images, .txt for texts, and otherwise .npy.

    Args:
        folder: is created if it does not exist. Files of the same names are overwritten.
        data: the rows, in the user's layout and units. Binary data may be probabilities.
        space: of the data.
        names: of the files that the rows were read from; by default 0001, 0002 and so on.
        source: of the run's data, which decides between .tif and .npy.

    Returns:
        what was written, in words.

    Raises:
        ValueError: the data are a table, or a library is missing.

    >>> from vaestro.data import load
    >>> space = load("shapes:n=20,size=16").space
    >>> write_folder(Path("made"), np.zeros((2, 16, 16, 3), np.uint8), space)
    '0001.png to 0002.png (8 bits)'
    """
    if isinstance(data, Frame):
        raise InputError(
            f"a table is one file: write {str(folder).rstrip('/')}.csv instead of the folder"
        )
    if isinstance(data, Texts):
        suffix, what, lines = ".txt", "", data.lines.tolist()
    else:
        data = _own_values(data, space)
        if space.layout.name == "image" and _read_from(source) != "arrays":
            data = _channels_last(data, space)
        suffix, what = _format(data, space, source)
    stems = _stems(names, len(data))
    for i, stem in enumerate(stems):
        path = folder / f"{stem}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path, flush=False) as part:
            if isinstance(data, Texts):
                part.write_text(lines[i], encoding="utf-8")
            else:
                _write(part, data[i], suffix)
    ends = f"{stems[0]}{suffix}" + (f" to {stems[-1]}{suffix}" if len(stems) > 1 else "")
    return f"{ends} ({what})" if what else ends


def _own_values(data: np.ndarray, space: Space) -> np.ndarray:
    """Return probabilities of binary data as values between the user's two values."""
    dtype = np.dtype(space.dtype)
    if not (space.probabilities and dtype.kind in "iu" and data.dtype.kind == "f"):
        return data
    return np.asarray(np.rint(space.low + space.step * data), dtype)


def _channels_last(data: np.ndarray, space: Space) -> np.ndarray:
    """Return images as (N, H, W), or (N, H, W, C) if they have an axis of channels."""
    last = np.moveaxis(space.layout.inward(data, space.shape, space.outside), 1, -1)
    return last if len(space.outside) == 3 else last[..., 0]


def _format(data: np.ndarray, space: Space, source: str) -> tuple[str, str]:
    """Return the suffix of the files, and what they contain, in words."""
    shape, whole = data.shape[1:], data.dtype == np.uint8
    picture = space.layout.name == "image" and _read_from(source) != "arrays"
    if picture and whole and (len(shape) == 2 or shape[2] in (3, 4)):
        return ".png", "8 bits"
    if picture and data.dtype == np.uint16 and len(shape) == 2:
        return ".png", "16 bits"
    kind = f"{data.dtype}" + (f", {shape[2]} bands" if picture and len(shape) == 3 else "")
    return (".tif", kind) if picture and _read_from(source) == "images" else (".npy", kind)


def _read_from(source: str) -> str:
    """Return what a source is: a folder of "images", a folder of "arrays", or "" for others."""
    name = parse_source(source)[0] if source else ""
    path = Path(name).expanduser()
    if name and path.is_dir():
        return "arrays" if list_folder(path, {"bands": "none"}).arrays else "images"
    return "images" if name and is_image(path) else ""


def _stems(names: Sequence[str] | None, count: int) -> list[str]:
    """Return the names of the files to write, without suffix, each once."""
    if names is None:
        width = max(4, len(str(count)))
        return [f"{i:0{width}d}" for i in range(1, count + 1)]
    stems: list[str] = []
    taken: set[str] = set()
    for name in names:
        parts = [p for p in PurePosixPath(name).parts if p not in ("/", "..")]
        path = PurePosixPath(*parts)
        known = is_image(name) or path.suffix.lower() in ARRAYS
        stem = plain = str(path.with_suffix("")) if known else str(path)
        number = 2
        while stem in taken:
            stem, number = f"{plain}_{number}", number + 1
        taken.add(stem)
        stems.append(stem)
    return stems


def _write(path: Path, values: np.ndarray, suffix: str) -> None:
    """Write an image, or an array."""
    if suffix == ".png":
        from PIL import Image

        Image.fromarray(np.ascontiguousarray(values)).save(path, format="PNG")
    elif suffix == ".tif":
        try:
            from tifffile import imwrite
        except ImportError as error:
            raise InputError(
                "writing images of several bands, floats or 16 bits per colour needs tifffile: "
                "pip install 'vaestro[images]'"
            ) from error
        colour = values.ndim == 3 and values.shape[2] in (3, 4) and values.dtype.kind == "u"
        imwrite(
            path,
            values,
            photometric="rgb" if colour else "minisblack",
            planarconfig="contig" if values.ndim == 3 else None,
            extrasamples=["unassalpha"] if colour and values.shape[2] == 4 else None,
        )
    else:
        with path.open("wb") as file:
            np.save(file, values, allow_pickle=False)
