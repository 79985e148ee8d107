"""Read texts: one a line of a file, or a column of a table; and what is inferred from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vaestro.data.passes import Part, distinct
from vaestro.data.sets import Raw
from vaestro.spaces import Frame, Kind, Space
from vaestro.tokens import Ragged, Texts, Tokeniser

DEFAULT = "bpe"
LONGEST = 512  # tokens of a text, its end among them, that are taken without being asked
SMOOTHING = 0.5  # added to the count of each token, so that none is impossible at the start


def read_lines(path: Path) -> Raw:
    """Read a file of texts, one a line; empty lines are left out, and counted.

    Raises:
        ValueError: it is not UTF-8, or holds nothing.
    """
    content = path.read_bytes()
    try:
        whole = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        got = f"the byte 0x{content[error.start]:02x} in line {line:,}"
        raise ValueError(f"expected UTF-8 text in {path}; got {got} (iconv -f latin1 -t utf-8 rewrites a Latin one)") from error
    lines = [line.removesuffix("\r") for line in whole.split("\n")]
    kept = [line for line in lines if line.strip()]
    if not kept:
        raise ValueError(f"expected a text in every line of {path}; got an empty file")
    empty = len(lines) - len(kept) - (not lines[-1])
    notes = (f"{empty:,} empty lines of {len(lines) - (not lines[-1]):,} left out",) if empty else ()
    return Raw({"all": Texts.of(kept)}, notes=notes)


def of_column(raw: Raw, name: str, where: str) -> Raw:
    """Take one column of tables as texts, and the others as attributes; rows whose text is empty are left out, and counted.

    Raises:
        ValueError: there is no such column, or it holds no text.
    """
    splits: dict[str, Any] = {}
    attributes: dict[str, Mapping[str, np.ndarray]] = {}
    empty = rows = 0
    for split, frame in raw.splits.items():
        if not isinstance(frame, Frame) or name not in frame.columns:
            there = ", ".join(list(frame.columns)[:12]) if isinstance(frame, Frame) else "no columns"
            raise ValueError(f"expected text= to name a column of {where}; got {name!r} (there: {there})")
        column = frame.columns[name]
        if column.dtype.kind not in "UO":
            raise ValueError(f"expected text in column {name!r} of {where}; got {column.dtype} (text=COLUMN names another)")
        there = ~np.ma.getmaskarray(column) & np.array([bool(str(value).strip()) for value in column.data], bool)
        empty, rows = empty + int((~there).sum()), rows + len(there)
        splits[split] = Texts.of(str(value) for value in column.data[there])
        known = {n: c[there] for n, c in frame.columns.items() if n != name}
        beside = {n: values[there] for n, values in raw.attributes.get(split, {}).items()}
        attributes[split] = {n: np.asarray(c.data) for n, c in known.items() if not np.ma.is_masked(c)} | beside
    if not any(map(len, splits.values())):
        raise ValueError(f"expected texts in column {name!r} of {where}; got empty cells alone")
    notes = (f"{empty:,} rows of {rows:,} without a text left out",) if empty else ()
    return replace(raw, splits=splits, attributes=attributes, notes=(*raw.notes, *notes))


def as_texts(source: Any) -> Texts | None:
    """Return a list or array of str in Python as texts; None where it is another thing."""
    if isinstance(source, Texts):
        return source
    if isinstance(source, np.ndarray) and source.ndim == 1 and source.dtype.kind in "UO":
        source = source.tolist()
    if isinstance(source, (list, tuple)) and source and all(isinstance(line, str) for line in source):
        return Texts.of(source)
    return None


def infer(parts: Mapping[str, Part], options: Mapping[str, Any], name: str) -> tuple[Space, dict[str, Any], list[str], dict[int, Ragged]]:
    """Train a tokeniser on the training split, and cut all texts.

    Returns:
        the space, the options resolved, what was inferred in words, and the codes of each whole by its id.

    Raises:
        ValueError: a text is too long and `length` was not given, or there is nothing to tell apart.
    """
    method = options.get("tokens", DEFAULT)
    train = parts["train"]
    texts = train.whole if train.index is None else train.whole[train.index]
    tokeniser = Tokeniser.trained(method, texts, options.get("vocabulary"))
    cut = {id(whole): tokeniser.encode(whole) for whole in distinct(parts.values())}
    sizes = {key: np.fromiter(map(len, rows), np.int64, len(rows)) for key, rows in cut.items()}
    longest = max(int(s.max()) for s in sizes.values())
    width = options.get("length", longest + 1)
    if width < 2:
        raise ValueError(f"expected length to be 2 or more tokens; got {width}")
    if "length" not in options and width > LONGEST:
        key = max(sizes, key=lambda k: int(sizes[k].max()))
        begins = next(w for w in distinct(parts.values()) if id(w) == key).lines[int(sizes[key].argmax())][:40]
        got = f"one of {longest:,}, which begins {begins!r}"
        raise ValueError(f"expected texts of fewer than {LONGEST} tokens, or {name}:length=N, which cuts longer ones; got {got}")
    made = {key: Ragged.of([row[:width] for row in rows], width, tokeniser.size) for key, rows in cut.items()}
    mine = sizes[id(train.whole)] if train.index is None else sizes[id(train.whole)][train.index]
    codes = made[id(train.whole)]
    counts = np.zeros(tokeniser.size)
    index = np.arange(len(codes)) if train.index is None else train.index
    for start in range(0, len(index), 4096):
        rows = codes[index[start : start + 4096]]
        counts += np.bincount(rows[rows != 0], minlength=tokeniser.size)
    counts[0] = (mine < width).sum()
    marginal = (counts + SMOOTHING) / (counts + SMOOTHING).sum()
    space = Space(Kind.TOKENS, (width,), (), dtype="str", levels=tokeniser.size, marginal=marginal.astype(np.float32), tokeniser=tokeniser)
    notes = [f"{tokeniser}, {np.minimum(mine + 1, width).mean():.1f} for a text, its end among them"]
    if tokeniser.unknown is not None:
        unknown, total = sum(_unknown(rows) for rows in cut.values()), sum(int(s.sum()) for s in sizes.values())
        if unknown:
            notes.append(f"{unknown:,} of {total:,} {method} are unknown ({unknown / total:.1%}): what is scored is the text with them so")
    longer = sum(int((s >= width).sum()) for s in sizes.values())
    if longer:
        notes.append(f"{longer:,} of {sum(map(len, sizes.values())):,} texts cut to {width:,} tokens (length={width})")
    resolved = {**options, "tokens": method}
    return space, resolved, notes, made


def _unknown(rows: Iterable[list[int]]) -> int:
    return sum(row.count(1) for row in rows)


def cut(texts: Texts, space: Space) -> Ragged:
    """Cut texts into a space's tokens, and longer ones down to its length."""
    assert space.tokeniser is not None
    width = space.shape[0]
    return Ragged.of([row[:width] for row in space.tokeniser.encode(texts)], width, space.levels)
