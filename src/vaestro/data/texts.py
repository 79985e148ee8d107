"""Read texts: one a line of a file, or a column of a table; and what is inferred from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaestro.data import cache, duplicates
from vaestro.data.passes import Part, distinct
from vaestro.data.raw import Json, Options, Raw
from vaestro.frames import Frame
from vaestro.spaces import Space, TokensSpace, restored_space
from vaestro.tokens import Ragged, Texts, Tokeniser

DEFAULT = "bpe"
LONGEST = 512  # tokens of a text, its end among them, that are taken without being asked
KEPT_FROM = 2_000_000  # bytes of a file from which on what was found is kept in the cache
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
        raise ValueError(
            f"expected UTF-8 text in {path}; got {got} (iconv -f latin1 -t utf-8 rewrites a "
            f"Latin one)"
        ) from error
    lines = [line.removesuffix("\r") for line in whole.split("\n")]
    kept = [line for line in lines if line.strip()]
    if not kept:
        raise ValueError(f"expected a text in every line of {path}; got an empty file")
    empty = len(lines) - len(kept) - (not lines[-1])
    notes = (
        (f"{empty:,} empty lines of {len(lines) - (not lines[-1]):,} left out",) if empty else ()
    )
    return Raw({"all": Texts.of(kept)}, notes=notes)


def of_column(raw: Raw, name: str, where: str) -> Raw:
    """Take one column of tables as texts, and the others as attributes; rows whose text is empty
    are left out, and counted.

    Raises:
        ValueError: there is no such column, or it holds no text.
    """
    splits: dict[str, Any] = {}
    attributes: dict[str, Mapping[str, np.ndarray]] = {}
    empty = rows = 0
    for split, frame in raw.splits.items():
        if not isinstance(frame, Frame) or name not in frame.columns:
            there = (
                ", ".join(list(frame.columns)[:12]) if isinstance(frame, Frame) else "no columns"
            )
            raise ValueError(
                f"expected text= to name a column of {where}; got {name!r} (there: {there})"
            )
        column = frame.columns[name]
        if column.dtype.kind not in "UO":
            raise ValueError(
                f"expected text in column {name!r} of {where}; got {column.dtype} (text=COLUMN "
                f"names another)"
            )
        there = ~np.ma.getmaskarray(column) & np.array(
            [bool(str(value).strip()) for value in column.data], bool
        )
        empty, rows = empty + int((~there).sum()), rows + len(there)
        splits[split] = Texts.of(str(value) for value in column.data[there])
        known = {n: c[there] for n, c in frame.columns.items() if n != name}
        beside = {n: values[there] for n, values in raw.attributes.get(split, {}).items()}
        attributes[split] = {
            n: np.asarray(c.data) for n, c in known.items() if not np.ma.is_masked(c)
        } | beside
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
    if (
        isinstance(source, (list, tuple))
        and source
        and all(isinstance(line, str) for line in source)
    ):
        return Texts.of(source)
    return None


class Found(NamedTuple):
    """Hold what was inferred from texts: the space, the options resolved, notes, which texts stand
    in two splits, and the codes of each
    whole, in their order."""

    space: Space
    options: Options
    notes: list[str]
    shared: list[str]
    codes: list[Ragged]


def inferred(parts: Mapping[str, Part], options: Options, name: str) -> Found:
    """Train a tokeniser on the training split, and cut all texts; of large files what was found
    before.

    Raises:
        ValueError: a text is too long and `length` was not given, or there is nothing to tell
            apart.
    """
    file = Path(name).expanduser()
    if not file.is_file() or file.stat().st_size < KEPT_FROM:
        return _infer(parts, options, name)
    made: list[Found] = []

    def make(folder: Path) -> Json:
        found = _infer(parts, options, name)
        made.append(found)
        for i, codes in enumerate(found.codes):
            np.save(folder / f"codes{i}.npy", codes.codes)
            np.save(folder / f"starts{i}.npy", codes.starts)
        np.save(folder / "marginal.npy", np.asarray(found.space.marginal))
        said = {"options": found.options, "notes": found.notes, "shared": found.shared}
        return {"space": found.space.scalars(), "wholes": len(found.codes), **said}

    try:
        folder, meta = cache.entry(
            cache.key("texts-1", [file], dict(options), file), make, file.resolve()
        )
    except OSError:  # nothing can be written: the next start takes as long as this one
        return made[0] if made else _infer(parts, options, name)
    if made:
        return made[0]
    try:
        space = restored_space(meta["space"], {"marginal": np.load(folder / "marginal.npy")})
        arrays = [
            [cache.open_array(folder / f"{what}{i}.npy") for what in ("codes", "starts")]
            for i in range(meta["wholes"])
        ]
        codes = [Ragged(held, np.asarray(starts), space.shape[0]) for held, starts in arrays]
        return Found(space, meta["options"], meta["notes"], meta["shared"], codes)
    except (OSError, EOFError, ValueError, KeyError, TypeError):  # an entry that was damaged
        cache.remove(folder.name)
        return inferred(parts, options, name)


def _infer(parts: Mapping[str, Part], options: Options, name: str) -> Found:
    method, wholes, train = options.get("tokens", DEFAULT), distinct(parts.values()), parts["train"]
    texts = train.whole if train.index is None else train.whole[train.index]
    tokeniser = Tokeniser.trained(method, texts, options.get("vocabulary"))
    cut = [tokeniser.cut(whole) for whole in wholes]
    place = {id(whole): i for i, whole in enumerate(wholes)}
    width = options.get("length", max(codes.width for codes in cut))
    if width < 2:
        raise ValueError(f"expected length to be 2 or more tokens; got {width}")
    sizes = [np.diff(codes.starts) for codes in cut]
    if "length" not in options and width > LONGEST:
        i = next(i for i, codes in enumerate(cut) if codes.width == width)
        begins = wholes[i].lines[int(sizes[i].argmax())][:40]
        got = f"one of {width - 1:,}, which begins {begins!r}"
        raise ValueError(
            f"expected texts of fewer than {LONGEST} tokens, or {name}:length=N, which cuts "
            f"longer ones; got {got}"
        )
    made = [Ragged(codes.codes, codes.starts, width) for codes in cut]
    mine, held = made[place[id(train.whole)]], sizes[place[id(train.whole)]]
    index = np.arange(len(mine)) if train.index is None else train.index
    counts = np.zeros(tokeniser.size)
    for start in range(0, len(index), 4096):
        rows = mine[index[start : start + 4096]]
        counts += np.bincount(rows[rows != 0], minlength=tokeniser.size)
    counts[0] = (held[index] < width).sum()
    marginal = ((counts + SMOOTHING) / (counts + SMOOTHING).sum()).astype(np.float32)
    space = TokensSpace(
        (width,), (), dtype="str", levels=tokeniser.size, marginal=marginal, tokeniser=tokeniser
    )
    notes = [f"{tokeniser}, {mine.sizes(index).mean():.1f} for a text, its end among them"]
    if tokeniser.unknown is not None:
        unknown, total = (
            sum(int(n) for n in found)
            for found in ([(c.codes == 1).sum() for c in cut], [len(c.codes) for c in cut])
        )
        if unknown:
            notes.append(
                f"{unknown:,} of {total:,} {method} are unknown ({unknown / total:.1%}): what is "
                f"scored is the text with them so"
            )
    longer = sum(int((s >= width).sum()) for s in sizes)
    if longer:
        notes.append(
            f"{longer:,} of {sum(map(len, sizes)):,} texts cut to {width:,} tokens (length={width})"
        )
    shared = duplicates.of_texts(
        {s: (made[place[id(p.whole)]], p.index) for s, p in parts.items() if len(p)}
    )
    return Found(space, {**options, "tokens": method}, notes, shared, made)
