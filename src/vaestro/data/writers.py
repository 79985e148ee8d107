"""Write arrays in the format that a file's suffix names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaestro.frames import Frame
from vaestro.tokens import Texts

if TYPE_CHECKING:
    from vaestro.spaces import Space

SUFFIXES = (".npy", ".npz", ".parquet", ".csv", ".json", ".jsonl", ".txt", ".png")


def check_output(
    path: str | Path, *, force: bool = False, suffixes: Sequence[str] = SUFFIXES
) -> Path:
    """Return the path if it may be written.

    Raises:
        ValueError: its suffix names no format, its folder is missing, or it exists and `force` is
            not given.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"expected a file ending in {', '.join(suffixes)}; got {path}")
    if not path.parent.is_dir():
        raise ValueError(
            f"expected a folder to write into; got {path.parent}, which does not exist"
        )
    if path.is_dir():
        raise ValueError(f"expected a file to write; got {path}, which is a folder")
    if path.exists() and not force:
        raise ValueError(f"expected a new file; got {path}, which exists (--force overwrites)")
    return path


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays with a row for each datum. A .npy file takes the first alone; tables take
    columns."""
    suffix = path.suffix.lower()
    with writing(path) as part:
        if suffix == ".npz":
            with part.open("wb") as file:
                # mypy takes the arrays for flags of savez_compressed
                save: Callable[..., None] = np.savez_compressed
                save(file, **arrays)
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
            _write_table(part, _columns(arrays), suffix)


def write_data(
    path: Path, data: np.ndarray | Frame | Texts, places: np.ndarray | None = None
) -> None:
    """Write data in the user's layout.

    An array has the name x, a table its own columns. Texts are written one a line in .txt, with a
    line break in a text as \\n, and in other formats as a column `text`.

    Args:
        path: the file, whose suffix names the format; it is overwritten.
        data: the rows.
        places: their row numbers, which an .npz of an array also holds.

    Raises:
        ValueError: the format cannot hold such data.
    """
    from vaestro.data.containers import container_of  # imports torch

    container_of(data).write(path, data, places)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to write to; it takes the place of `path` only once it is whole."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _columns(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    columns = {}
    for name, array in arrays.items():
        flat = np.asarray(array).reshape(len(array), -1)
        for i in range(flat.shape[1]):
            columns[f"{name}_{i}" if flat.shape[1] > 1 else name] = flat[:, i]
    return columns


def _write_table(path: Path, columns: Mapping[str, np.ndarray], suffix: str) -> None:
    try:
        import pyarrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"expected the extra vaestro[tables] to write {suffix}; got an installation without it"
        ) from error
    table = pyarrow.table(dict(columns))
    if suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)


def write_grid(
    path: Path,
    rows: Mapping[str, np.ndarray | Frame | Texts],
    space: Space,
    title: str,
    columns: int = 16,
) -> None:
    """Write images as a labelled grid. Several named sets are laid in alternating lines, each line
    with its name.

    Args:
        path: a .png file.
        rows: {label: images in the user's layout}, all of one number; binary data may be
            probabilities.
        space: what the images are.
        title: a line above the grid.
        columns: images in a line.

    Raises:
        ValueError: the data are not images.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not space.image:
        raise ValueError(
            f"expected images for a .png file; got {space} data (write .npy, .npz, .csv, "
            f".parquet or .txt)"
        )
    arrays = {label: np.asarray(images) for label, images in rows.items()}
    shown = {label: space.layout.pictures(x, space.outside) for label, x in arrays.items()}
    sets = {label: pixels(images, space) for label, images in shown.items()}
    if not space.levels:  # what is stretched over its range must be stretched alike
        every = pixels(np.concatenate(list(shown.values()), dtype=np.float64), space)
        sets = dict(zip(rows, np.split(every, len(rows)), strict=True))
    if space.layout.part_shown:
        title = f"{title} ({space.layout.part_shown})"
    count = len(next(iter(sets.values())))
    height, width = next(iter(sets.values())).shape[1:3]
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


def pixels(images: np.ndarray, space: Space) -> np.ndarray:
    """Return pictures (N, H, W, C), in the user's units, as bytes.

    Values without levels are stretched over their whole range. NaN is black.
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
