"""Notes on what was done to images while they were read, and on those that were skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from vaestro.data.deep_images import Form, Header, Target


def notes(headers: Sequence[Header], target: Target, form: Form) -> list[str]:
    """Return notes on what was done to images.

    Args:
        headers: of the images that are used.
        target: what the user asked for.
        form: to which the images were converted.

    >>> notes([Header((8, 8), 1, "uint8")], Target(size=(4, 4)), Form("uint8", 0, (4, 4)))
    ['1 images scaled to 4x4']
    """
    return [
        *_sizes(np.array([h.sides for h in headers]), target),
        *_colours(headers, target, form),
        *_depths(headers, form),
        *_pages(headers, target),
    ]


def _sizes(sides: np.ndarray, target: Target) -> list[str]:
    """Return notes on images (N, 2) that were scaled or cropped."""
    if not target.size:
        return []
    height, width = target.size
    lines = []
    shaped = int((sides[:, 0] * width != sides[:, 1] * height).sum())
    done = "cropped at the centre and scaled" if target.crop else "stretched"
    if shaped:
        lines.append(
            f"{shaped:,} images {done} to {height}x{width}"
            + (" (crop=none stretches them)" if target.crop else "")
        )
    scaled = int((sides != target.size).any(1).sum()) - shaped
    if scaled:
        lines.append(f"{scaled:,} images scaled to {height}x{width}")
    enlarged = int((sides < target.size).any(1).sum())
    if enlarged:
        lines.append(f"{enlarged:,} images are smaller than {height}x{width} and were enlarged")
    return lines


def _colours(headers: Sequence[Header], target: Target, form: Form) -> list[str]:
    """Return notes on images that were read in another colour than they are stored in."""
    if form.bands not in (0, 3) and target.channels != "rgba":
        return []
    colour = form.bands > 0
    other = sum(h.bands == 1 for h in headers) if colour else sum(h.bands > 1 for h in headers)
    if not other:
        return []
    read = "grey and are read as colour" if colour else "not stored as grey and are read as grey"
    return [f"{other:,} of {len(headers):,} images are {read}"]


def _depths(headers: Sequence[Header], form: Form) -> list[str]:
    """Return a note on images of 8 bits that were read as 16 bits."""
    small = sum(h.dtype == "uint8" for h in headers) if form.dtype == "uint16" else 0
    return (
        [
            f"{small:,} of {len(headers):,} images have 8 bits and are read as 16 bits (255 "
            f"becomes 65535; depth=8 reads all as 8 bits)"
        ]
        if small
        else []
    )


def _pages(headers: Sequence[Header], target: Target) -> list[str]:
    """Return notes on files with several pages."""
    counts = Counter((h.stack, h.pages) for h in headers if h.pages > 1)
    lines = []
    for stack in dict.fromkeys(stack for stack, _ in counts):
        files = sum(k for (s, _), k in counts.items() if s == stack)
        sizes = sorted({pages for s, pages in counts if s == stack})
        pages = f"{sizes[0]:,}" + (f" to {sizes[-1]:,}" if len(sizes) > 1 else "") + " pages"
        several = f"{files:,} files have {pages}"
        if stack == "":
            asked = "" if target.pages else " (pages=all reads each page, pages=channels as bands)"
            lines.append(f"{several}, of which the first is read{asked}")
        elif stack == "rows":
            lines.append(
                f"{several}, each of which is an image; pages of one file may be in different "
                f"splits"
            )
        elif stack == "slices":
            lines.append(f"{several}, which are the slices of a volume")
        else:
            asked = "" if target.pages else " (pages=all reads each page as an image)"
            lines.append(f"{several}, which are read as the bands of an image{asked}")
    return lines


def reasons(unusable: Mapping[int, str], names: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of unusable images by reason.

    Args:
        unusable: {number of an image: the reason}.
        names: of all images.

    >>> reasons({1: "are damaged"}, ["a.png", "b.png"])
    {'are damaged': ['b.png']}
    """
    files: dict[str, list[str]] = {}
    for i, reason in sorted(unusable.items()):
        files.setdefault(reason, []).append(names[i])
    return files


def skipped(unusable: Mapping[int, str], names: Sequence[str]) -> list[str]:
    """Return a note for each reason why images are skipped; arguments as for `reasons`.

    >>> skipped({1: "are damaged"}, ["a.png", "b.png"])
    ['1 of 2 files skipped, which are damaged: b.png']
    """
    return [
        f"{len(files):,} of {len(names):,} files skipped, which {reason}: {few(files)}"
        for reason, files in reasons(unusable, names).items()
    ]


def few(names: Sequence[str]) -> str:
    """Return the first three names.

    >>> few(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return shown.encode("utf-8", "replace").decode()
