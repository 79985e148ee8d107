"""The options of a source, such as `size` in `photos/:size=64`: one row for each.

The rows decide which options exist, which values they take, and to which data they apply.
`python -m vaestro.data.source_options` prints them as docs/sources.md. A new option is one row of
`ROWS` and the code that uses it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from vaestro.data.raw import Options
from vaestro.data.source_values import (
    Absent,
    Choice,
    Limit,
    Name,
    Number,
    Series,
    Truth,
    TruthOrAxis,
    Values,
    Words,
)
from vaestro.spaces import COLUMN_ORDER
from vaestro.text import Spec, Value, few, nearest, parse_path, typed, unquoted

# what an option is about; the keys of `HEADINGS`
Group = Literal["rows", "cells", "arrays", "series", "images", "tables", "files", "texts", "shards"]


# -- rows ------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class SourceOption:
    """Describe an option of a source.

    Args:
        name: the option.
        group: the data it is about.
        values: which it takes.
        meaning: what it does, for docs/sources.md.
    """

    name: str
    group: Group
    values: Values
    meaning: str


HEADINGS: dict[Group, str] = {
    "rows": "Which rows",
    "cells": "Arrays and tables",
    "arrays": "Arrays",
    "series": "Series",
    "images": "Images",
    "tables": "Tables",
    "files": "Files of tables",
    "texts": "Texts",
    "shards": "Shards",
}
COLUMNS = Name("columns joined by +")
MEANING_OF_LAYOUTS = {"volume": "Read (N, D, H, W) or (N, D, H, W, C) as volumes."}
MEANING_OF_TRANSFORMS = {
    "identity": "Model real columns without a transform.",
    "log": "Model the logarithms of real columns.",
    "logit": "Model the logits of real columns in 0 .. 1.",
    "quantiles": "Model the normal scores of real columns.",
}
ROWS = (
    SourceOption("n", "rows", Number("a number of rows"), "How many rows a named source renders."),
    SourceOption("valid", "rows", Number("a number of rows"), "The size of the validation split."),
    SourceOption("test", "rows", Number("a number of rows"), "The size of the test split."),
    SourceOption("seed", "rows", Number(), "The seed of the random split."),
    SourceOption(
        "groups",
        "rows",
        Name("a column or an attribute"),
        "Rows with the same value, such as those of a patient, are in one split. A column of a "
        "table that names groups is not modelled.",
    ),
    SourceOption(
        "kind",
        "arrays",
        Choice("binary", "levels", "real", "unit", "count", "category"),
        "What the cells are.",
    ),
    SourceOption(
        "binarise",
        "arrays",
        Choice("dynamic", "static", "none"),
        "Draw grey levels as zeros and ones: anew at every access, or once.",
    ),
    SourceOption(
        "standardise",
        "arrays",
        Choice("feature", "channel", "global", "none"),
        "Which cells share an offset and a scale.",
    ),
    *(
        SourceOption(
            side,
            "arrays",
            Limit(),
            f"The {which} value that real values can have; samples are within it, and values at it "
            f"have a probability of their own. By default it is that of the data if many cells "
            f"have it.",
        )
        for side, which in (("low", "lowest"), ("high", "highest"))
    ),
    SourceOption("levels", "arrays", Number(), "The number of levels or categories of a cell."),
    SourceOption(
        "missing", "cells", Absent(), "The values that mean a missing cell, such as nan+-9999."
    ),
    SourceOption(
        "array",
        "arrays",
        Name("an array's name"),
        "The array of an .npz file; of AnnData X, raw, a layer, or obsm/NAME.",
    ),
    SourceOption(
        "var_names", "arrays", Name("a column"), "The column of var with the names of genes."
    ),
    SourceOption(
        "features",
        "arrays",
        Name("a type"),
        "The type of features of a 10x Genomics matrix, by default Gene Expression.",
    ),
    SourceOption(
        "axes",
        "arrays",
        Words("a letter for each axis: NHWC, NCHW, NDHWC, NTC, NCT, NPC, ..."),
        "What the axes are: N rows, C channels, H W D height, width and depth, T time, P points, "
        "F features.",
    ),
    SourceOption(
        "onehot",
        "arrays",
        TruthOrAxis(),
        "Read vectors of zeros and a single 1 along an axis as categories; axes= then has no "
        "letter for this axis.",
    ),
    *(SourceOption(n, "arrays", Truth(), m) for n, m in MEANING_OF_LAYOUTS.items()),
    SourceOption(
        "series",
        "series",
        Series(),
        "Read (N, T) or (N, T, C), lists in cells or the rows of a long table as series.",
    ),
    SourceOption(
        "window", "series", Number("a number of steps"), "Cut series into windows of this length."
    ),
    SourceOption(
        "stride",
        "series",
        Number("a number of steps"),
        "Steps from one window to the next; by default windows do not overlap.",
    ),
    SourceOption(
        "size", "images", Words("64, or 48x64 (height x width)"), "Resize images to this size."
    ),
    SourceOption(
        "crop", "images", Choice("center", "none"), "Cut images to the aspect ratio of `size`."
    ),
    SourceOption(
        "crops",
        "images",
        Number("a number of pieces"),
        "Cut random pieces of `size` out of one or several large images. Held-out pieces do not "
        "overlap training pieces.",
    ),
    SourceOption("channels", "images", Choice("grey", "colour", "rgba"), "Convert images."),
    SourceOption(
        "depth", "images", Number("8 or 16 bits"), "Scale images of 8 and 16 bits to one depth."
    ),
    SourceOption(
        "pages",
        "images",
        Choice("first", "all", "channels"),
        "Which pages of a TIFF or frames of an animation to read: the first, each as an image, or "
        "all as the channels of one image.",
    ),
    SourceOption(
        "bands",
        "images",
        Words("names joined by +, or none"),
        "The files of an image's bands, such as `B02+B03+B04` for `tile1/B02.tif`, "
        "`tile1_B03.tif`.",
    ),
    SourceOption(
        "attributes",
        "images",
        Words("a table's path, or none"),
        "A table with a row for each image, whose column `file` or first column names the file.",
    ),
    SourceOption("strict", "images", Truth(), "Refuse a source with unreadable images."),
    SourceOption("ignore", "tables", COLUMNS, "Leave columns out."),
    SourceOption(
        "split", "tables", Name("a column"), "The column with the words train, valid and test."
    ),
    *(
        SourceOption(str(kind), "tables", COLUMNS, f"Read columns as {kind}.")
        for kind in COLUMN_ORDER
    ),
    SourceOption(
        "dates",
        "tables",
        Name("%d/%m/%Y, or born=%d/%m/%Y; several joined by +"),
        "The patterns of dates, in all columns that fit or in one.",
    ),
    SourceOption("decimal", "tables", Choice("point", "comma"), "The decimal separator."),
    SourceOption(
        "empty", "tables", Name("words joined by +"), "The words that mean an empty cell."
    ),
    SourceOption("categories", "tables", Number(), "The most categories that a column may have."),
    SourceOption(
        "marginals",
        "tables",
        Choice("fitted", "plain"),
        "Whether real columns have transforms and atoms that are fitted to their values.",
    ),
    *(
        SourceOption(name, "tables", COLUMNS, meaning)
        for name, meaning in MEANING_OF_TRANSFORMS.items()
    ),
    SourceOption("header", "files", Truth(), "`false`: the first line of a file is a row."),
    SourceOption("skip", "files", Number("a number of lines"), "Lines above the column names."),
    SourceOption("footer", "files", Number("a number of lines"), "Lines below the last row."),
    SourceOption("encoding", "files", Name("an encoding"), "The encoding of a file of text."),
    SourceOption("sheet", "files", Name("a sheet's name"), "The sheet of an .xlsx file."),
    SourceOption("table", "files", Name("a table's name"), "The table or view of a database."),
    SourceOption("member", "files", Name("a file's name"), "The table in a .zip file."),
    SourceOption("text", "texts", Name("a column"), "The column with the texts."),
    SourceOption(
        "tokens",
        "texts",
        Choice("bytes", "characters", "words", "bpe", "smiles"),
        "What a token is.",
    ),
    SourceOption("vocabulary", "texts", Number("a number of tokens"), "The most tokens to know."),
    SourceOption("length", "texts", Number("a number of tokens"), "The most tokens of a text."),
    SourceOption(
        "streaming", "shards", Truth(), "Read rows while training instead of into memory."
    ),
    SourceOption("buffer", "shards", Number("a number of rows"), "Rows that are shuffled at once."),
)
OPTIONS = {row.name: row for row in ROWS}
NAMES = tuple(row.name for row in ROWS if row.values.named)


def options_about(*groups: Group) -> tuple[str, ...]:
    """Return the names of the options about some data.

    >>> options_about("shards")
    ('streaming', 'buffer')
    """
    return tuple(row.name for row in ROWS if row.group in groups)


def of_groups(options: Collection[str], *groups: Group) -> list[str]:
    """Return those of some options that are about some data.

    >>> of_groups({"size": 64, "seed": 1}, "images", "tables")
    ['size']
    """
    return [name for name in options if OPTIONS[name].group in groups]


# -- reading ---------------------------------------------------------------------------------------


def parse_source(source: str | Path) -> tuple[str, dict[str, Value]]:
    """Split a source into its name or path, and its options. Names of columns keep their quotes.

    Raises:
        ValueError: an option is unknown or has a wrong value, or a quote is not closed.

    >>> parse_source("x.npy:kind=real,valid=100")
    ('x.npy', {'kind': 'real', 'valid': 100})
    """
    if not isinstance(source, (str, Path)):
        raise ValueError(
            f"expected a source as text, such as mnist or x.npy; got {type(source).__name__}"
        )
    name, options = parse_path(str(source), NAMES)
    return name, checked_options(options)


def checked_options(options: Options) -> dict[str, Value]:
    """Return options of a source with their usual spelling.

    Raises:
        ValueError: an option is unknown, or its value has another type.

    >>> checked_options({"channels": "gray"})
    {'channels': 'grey'}
    """
    for key in options:
        if key in ("by", "group", "order", "time"):
            column = unquoted(str(options[key]))
            raise ValueError(
                f"expected the columns of series as series=GROUP:ORDER; got {key}={options[key]}: "
                f"type {typed('series', column)} instead"
            )
        if key not in OPTIONS:
            raise ValueError(
                f"expected an option of a source: {nearest(key, few(key, OPTIONS))}; got {key!r}"
            )
    return {key: OPTIONS[key].values.checked(key, value) for key, value in options.items()}


def as_source(name: str, options: Options) -> str:
    """Return a name and its options as one source, the inverse of `parse_source`.

    >>> as_source("x.npy", {"kind": "real", "valid": 100})
    'x.npy:kind=real,valid=100'
    """
    return str(Spec(name, dict(options)))


# -- documentation ---------------------------------------------------------------------------------


def reference() -> str:
    """Return docs/sources.md.

    >>> reference().splitlines()[0]
    '# Options of a source'
    """
    lines = [
        "# Options of a source",
        "",
        "They follow the source after a colon, as in `photos/:size=64,crop=center`, or are",
        'keyword arguments in Python, as in `vs.load("photos/", size=64)`. This page is written by',
        "`python -m vaestro.data.source_options > docs/sources.md`.",
    ]
    for group, heading in HEADINGS.items():
        lines += ["", f"## {heading}", "", "| option | values | meaning |", "|---|---|---|"]
        lines += [
            f"| `{row.name}` | {row.values} | {row.meaning} |" for row in ROWS if row.group == group
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(reference())
