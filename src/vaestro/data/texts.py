"""Read texts, one per line of a file or in a column of a table, and infer their space."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaestro.data import cache, duplicates
from vaestro.data.columns import filled
from vaestro.data.passes import Part, distinct
from vaestro.data.raw import Json, Options, Raw
from vaestro.data.sequence_files import of_characters, sequences_in
from vaestro.frames import Frame
from vaestro.spaces import Space, TokensSpace, restored_space
from vaestro.text import InputError, nearest
from vaestro.tokens import Ragged, Texts, Tokeniser

DEFAULT = "bpe"
LONGEST = 512  # largest number of tokens of a text, including its end, without length=
KEPT_FROM = 2_000_000  # smallest size in bytes of a file whose tokens are stored in the cache
LONGEST_WORD = 50_000  # largest number of characters of a word of which pieces are learned
SMOOTHING = 0.5  # added to the count of each token, so that all have a positive probability


def read_lines(path: Path) -> Raw[Texts]:
    """Read a file of texts, one per line. Empty lines are left out, and a note counts them.

    Raises:
        ValueError: the file is not UTF-8, or has no texts.

    >>> _ = Path("t.txt").write_text("a cat\\n\\na dog\\n")
    >>> read_lines(Path("t.txt")).notes
    ('1 empty lines of 3 left out',)
    """
    content = path.read_bytes()
    try:
        whole = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        got = f"the byte 0x{content[error.start]:02x} in line {line:,}"
        raise ValueError(
            f"expected UTF-8 text in {path}; got {got} (convert a Latin-1 file with iconv -f "
            f"latin1 -t utf-8 {shlex.quote(str(path))} > NEW.txt)"
        ) from error
    lines = [line.removesuffix("\r") for line in whole.split("\n")]
    kept = [line for line in lines if line.strip()]
    if not kept:
        raise InputError(f"{path} has no texts")
    empty = len(lines) - len(kept) - (not lines[-1])
    notes = (
        (f"{empty:,} empty lines of {len(lines) - (not lines[-1]):,} left out",) if empty else ()
    )
    return Raw({"all": Texts.of(kept)}, notes=notes)


def of_column(raw: Raw[Frame], name: str, where: str) -> Raw[Texts]:
    """Return one column of tables as texts, and the other columns as attributes.

    Rows whose text is empty are left out, and a note counts them.

    Args:
        raw: the tables.
        name: of the column.
        where: the source, for messages.

    Raises:
        ValueError: there is no such column, or it has no texts.

    >>> table = Frame({"say": np.ma.MaskedArray(["a cat", ""]), "n": np.ma.MaskedArray([1, 2])})
    >>> raw = of_column(Raw({"all": table}), "say", "t.csv")
    >>> raw.splits["all"].lines.tolist(), raw.attributes["all"]["n"].tolist(), raw.notes
    (['a cat'], [1], ('1 rows of 2 without a text left out',))
    """
    splits: dict[str, Texts] = {}
    attributes: dict[str, Mapping[str, np.ndarray]] = {}
    empty = rows = 0
    for split, frame in raw.splits.items():
        if name not in frame.columns:
            raise ValueError(
                f"expected text= to name a column of {where}: {nearest(name, frame.columns)}; got "
                f"{name!r}"
            )
        column = frame.columns[name]
        if column.dtype.kind not in "UO":
            raise ValueError(
                f"expected text in column {name!r} of {where}; got {column.dtype} (name another "
                f"column with text=)"
            )
        present = ~np.ma.getmaskarray(column) & np.array(
            [bool(str(value).strip()) for value in column.data], bool
        )
        empty, rows = empty + int((~present).sum()), rows + len(present)
        splits[split] = Texts.of(str(value) for value in column.data[present])
        columns = {n: c[present] for n, c in frame.columns.items() if n != name}
        others = {n: values[present] for n, values in raw.attributes.get(split, {}).items()}
        attributes[split] = {n: filled(c) for n, c in columns.items()} | others
    if not any(map(len, splits.values())):
        raise InputError(f"all cells in column {name!r} of {where} are empty")
    notes = (f"{empty:,} rows of {rows:,} without a text left out",) if empty else ()
    return Raw(splits, attributes, (*raw.notes, *notes), raw.missing)


def as_texts(source: object) -> Texts | None:
    """Return a list or array of str, or an array of characters (N, L), as texts; None for other
    data.

    >>> len(as_texts(["a cat", "a dog"]))
    2
    """
    if isinstance(source, Texts):
        return source
    if isinstance(source, np.ndarray):
        if (texts := of_characters(source)) is not None:
            return texts
        source = source.tolist() if source.ndim == 1 and source.dtype.kind == "O" else None
    if (
        isinstance(source, (list, tuple))
        and source
        and all(isinstance(line, str) for line in source)
    ):
        return Texts.of(source)
    return None


class InferredTexts(NamedTuple):
    """The result of `inferred`: the space and the tokens of texts."""

    space: Space
    options: Options  # of the source, resolved
    notes: list[str]
    shared: list[str]  # notes on held-out texts that equal training texts
    codes: list[Ragged]  # of each distinct `whole` of the splits, in order


def infer_texts(parts: Mapping[str, Part], options: Options, name: str) -> InferredTexts:
    """Train a tokeniser on the training split, and tokenise all texts.

    The result for a large file is stored in the cache.

    Args:
        parts: the splits.
        options, name: of the source.

    Raises:
        ValueError: a text is too long and `length` is not given, or there are fewer than two
            different tokens.

    >>> lines = Texts.of(["a cat", "a dog"])
    >>> infer_texts({"train": Part(lines)}, {"tokens": "words"}, "texts").notes
    ['5 words, 3.0 per text, including its end']
    """
    file = Path(name).expanduser()
    if not file.is_file() or file.stat().st_size < KEPT_FROM:
        return _infer(parts, options, name)
    results: list[InferredTexts] = []

    def make(folder: Path) -> Json:
        result = _infer(parts, options, name)
        results.append(result)
        for i, codes in enumerate(result.codes):
            np.save(folder / f"codes{i}.npy", codes.codes)
            np.save(folder / f"starts{i}.npy", codes.starts)
        np.save(folder / "marginal.npy", np.asarray(result.space.marginal))
        return {
            "space": result.space.scalars(),
            "wholes": len(result.codes),
            "options": result.options,
            "notes": result.notes,
            "shared": result.shared,
        }

    try:
        folder, meta = cache.entry(
            cache.key("texts-2", [file], dict(options), file), make, file.resolve()
        )
    except OSError:  # the cache cannot be written, so the next start takes as long as this one
        return results[0] if results else _infer(parts, options, name)
    if results:
        return results[0]
    try:
        space = restored_space(meta["space"], {"marginal": np.load(folder / "marginal.npy")})
        arrays = [
            [cache.open_array(folder / f"{what}{i}.npy") for what in ("codes", "starts")]
            for i in range(meta["wholes"])
        ]
        codes = [Ragged(values, np.asarray(starts), space.shape[0]) for values, starts in arrays]
        return InferredTexts(space, meta["options"], meta["notes"], meta["shared"], codes)
    except (OSError, EOFError, ValueError, KeyError, TypeError):  # the entry is damaged
        cache.remove(folder.name)
        return infer_texts(parts, options, name)


def _infer(parts: Mapping[str, Part], options: Options, name: str) -> InferredTexts:
    wholes, train = distinct(parts.values()), parts["train"]
    what = "sequences" if train.whole.symbols else sequences_in(train.whole.lines)
    method = options.get("tokens", "characters" if what else DEFAULT)
    if method == "bpe":
        _refuse_long_words(wholes)
    texts = train.whole if train.index is None else train.whole[train.index]
    tokeniser = Tokeniser.trained(method, texts, options.get("vocabulary"))
    cut = [tokeniser.cut(whole) for whole in wholes]
    place = {id(whole): i for i, whole in enumerate(wholes)}
    width = options.get("length", max(codes.width for codes in cut))
    if width < 2:
        raise ValueError(f"expected length to be 2 or more tokens; got length={width}")
    sizes = [np.diff(codes.starts) for codes in cut]
    if "length" not in options and width > LONGEST:
        i = next(i for i, codes in enumerate(cut) if codes.width == width)
        begins = wholes[i].lines[int(sizes[i].argmax())][:40]
        raise ValueError(
            f"expected texts of fewer than {LONGEST} tokens; got one of {width - 1:,}, which "
            f"begins with {begins!r}: truncate longer texts with length={LONGEST}"
        )
    ragged = [Ragged(codes.codes, codes.starts, width) for codes in cut]
    of_train, train_sizes = ragged[place[id(train.whole)]], sizes[place[id(train.whole)]]
    index = np.arange(len(of_train)) if train.index is None else train.index
    counts = np.zeros(tokeniser.size)
    for start in range(0, len(index), 4096):
        rows = of_train[index[start : start + 4096]]
        counts += np.bincount(rows[rows != 0], minlength=tokeniser.size)
    counts[0] = (train_sizes[index] < width).sum()
    marginal = ((counts + SMOOTHING) / (counts + SMOOTHING).sum()).astype(np.float32)
    space = TokensSpace(
        (width,), (), dtype="str", levels=tokeniser.size, marginal=marginal, tokeniser=tokeniser
    )
    notes = _tokens_note(what) if "tokens" not in options else []
    notes += [f"{tokeniser}, {of_train.sizes(index).mean():.1f} per text, including its end"]
    unknown = unknown_note(tokeniser, list(zip(wholes, cut, strict=True)))
    notes += [
        f"{note}: bounds are of texts in which an unknown token replaces them" for note in unknown
    ]
    longer = sum(int((s >= width).sum()) for s in sizes)
    if longer:
        notes.append(
            f"{longer:,} of {sum(map(len, sizes)):,} texts truncated to {width:,} tokens "
            f"(length={width})"
        )
    shared = duplicates.of_texts(
        {s: (ragged[place[id(p.whole)]], p.index) for s, p in parts.items() if len(p)}
    )
    return InferredTexts(space, {**options, "tokens": method}, notes, shared, ragged)


def _refuse_long_words(wholes: Sequence[Texts]) -> None:
    """Raise InputError if a word is so long that learning its pieces would take hours."""
    for whole in wholes:
        for number, line in enumerate(whole.lines, 1):
            if len(line) > LONGEST_WORD and len(max(line.split(), key=len)) > LONGEST_WORD:
                word = max(line.split(), key=len)
                raise InputError(
                    f"text {number:,} has a word of {len(word):,} characters, which begins with "
                    f"{word[:20]!r} (tokens=characters,length={LONGEST} reads its beginning)"
                )


def _tokens_note(what: str) -> list[str]:
    """Return a note on the tokens that are chosen for sequences."""
    if not what:
        return []
    other = "; tokens=smiles reads Cl, Br, [NH3+] and %10 as one token" if what == "SMILES" else ""
    seen = "sequences" if what == "sequences" else f"the texts look like {what}"
    return [f"{seen}: tokens=characters{other} (tokens=bpe learns longer pieces)"]


def unknown_note(tokeniser: Tokeniser, texts: Sequence[tuple[Texts, Ragged]]) -> list[str]:
    """Return a note that counts and names the tokens outside of the vocabulary; none if there are
    none.

    Args:
        tokeniser: of the texts.
        texts: texts and their codes.

    >>> ab, texts = Tokeniser("characters", ("a", "b")), Texts.of(["abba", "cab"])
    >>> unknown_note(ab, [(texts, ab.cut(texts))])
    ["1 of 7 characters is not in the vocabulary, in 1 of 2 texts: 'c'"]
    """
    counts: Counter[str] = Counter()
    rows = 0
    for whole, codes in texts:
        counts += tokeniser.strangers(whole, codes)
        at = np.flatnonzero(codes.codes == tokeniser.unknown)
        rows += len(np.unique(np.searchsorted(codes.starts, at, side="right")))
    if not counts:
        return []
    unknown, total = sum(counts.values()), sum(len(codes.codes) for _, codes in texts)
    shown = ", ".join(
        f"{token!r}" + (f" ({n:,} times)" if n > 1 else "") for token, n in counts.most_common(5)
    )
    more = f" and {len(counts) - 5:,} more" if len(counts) > 5 else ""
    return [
        f"{unknown:,} of {total:,} {tokeniser.noun} {'is' if unknown == 1 else 'are'} not in the "
        f"vocabulary, in {rows:,} of {sum(len(whole) for whole, _ in texts):,} texts: {shown}{more}"
    ]
