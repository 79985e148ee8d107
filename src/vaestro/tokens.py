"""Texts and their tokens, and arrays of rows of different lengths.

A text is a row of codes: the codes of its tokens, then 0 for the end, then zeros as padding. The
code 0 also marks the start. Cells after the first 0 do not exist and are not scored. p(x) sums to
one over texts of all lengths. A text of the full width has no end; its probability is that of all
texts that begin with it.

Tokens are bytes, characters, words, pieces by byte-pair encoding (Sennrich, Haddow and Birch 2016),
or the symbols of molecules as SMILES. Bytes and pieces are lossless. For pieces, p(x) of the tokens
is a lower bound on p of the text, because a text has several tokenisations; for bytes the two are
equal. Bounds in nats can therefore be compared between bytes and pieces. Characters, words and
symbols outside the vocabulary are replaced by the code 1, "unknown", before scoring.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, TypedDict, final

import numpy as np

from vaestro.text import InputError

if TYPE_CHECKING:
    import tokenizers

METHODS = ("bytes", "characters", "words", "bpe", "smiles")
UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # decoded from an unknown character
UNKNOWN_WORD = "<unk>"
VOCABULARY = {"characters": 5_000, "words": 20_000, "bpe": 4_000, "smiles": 5_000}
WORDS = re.compile(r"\w+(?:['’\-.]\w+)*|[^\w\s]")
# an atom in brackets, an atom of two letters, a ring closure of two digits, or a character
SYMBOLS = re.compile(r"\[[^\]]*\]|Br|Cl|%[0-9]{2}|.", re.DOTALL)
TOGETHER = 20_000  # largest number of texts per tokeniser call
# largest number of characters for learning pieces; larger texts are subsampled evenly
LEARNED_FROM = 20_000_000
Index = int | slice | np.ndarray | Sequence[int]
CLOSING, OPENING = frozenset(".,;:!?)]}%…”’"), frozenset("([{“‘")


@dataclass(frozen=True, eq=False)
class Texts:
    """Store a user's texts, one per row: an array (N,) of str.

    Args:
        lines: the texts.
        symbols: whether each character is a symbol, as in sequences of DNA.

    >>> len(Texts.of(["a cat", "a dog"]))
    2
    """

    lines: np.ndarray
    symbols: bool = False

    @classmethod
    def of(cls, lines: Iterable[str], *, symbols: bool = False) -> Texts:
        """Return texts from an iterable of str."""
        texts = list(lines)
        array = np.empty(len(texts), object)
        array[:] = texts
        return cls(array, symbols)

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, rows: Index) -> Texts:
        return Texts(self.lines[rows], self.symbols)

    @property
    def shape(self) -> tuple[int]:
        """Return (rows,)."""
        return (len(self),)


@final
class Ragged:
    """Store rows of codes that differ in length, concatenated; indexing returns rows padded with
    zeros.

    >>> Ragged.of([[3, 4], [5]], width=3, codes=6)[[0, 1]]
    array([[3, 4, 0],
           [5, 0, 0]], dtype=uint8)

    Args:
        codes: of all rows, (total,), without their ends.
        starts: the start of each row in `codes`, and the end of the last one, (N + 1,).
        width: largest number of cells of a row, including its end; longer rows are truncated.
    """

    def __init__(self, codes: np.ndarray, starts: np.ndarray, width: int) -> None:
        self.codes, self.starts, self.width = codes, starts, width

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], width: int, codes: int) -> Ragged:
        """Return rows of codes below `codes`."""
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        dtype = np.uint8 if codes <= 256 else np.uint16 if codes <= 65536 else np.int32
        flat = np.fromiter((code for row in rows for code in row), dtype, int(starts[-1]))
        return cls(flat, starts, width)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, width)."""
        return len(self), self.width

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the codes."""
        return self.codes.dtype

    @property
    def nbytes(self) -> int:
        """Return the size of the codes in bytes."""
        return self.codes.nbytes

    def sizes(self, rows: Index = slice(None)) -> np.ndarray:
        """Return the number of scored tokens of each row, including its end, at most `width`."""
        return np.asarray(
            np.minimum(self.starts[1:][rows] - self.starts[:-1][rows] + 1, self.width)
        )

    def pick(self, rows: np.ndarray) -> Ragged:
        """Return the rows of these indices, (N,)."""
        first, sizes = self.starts[:-1][rows], self.starts[1:][rows] - self.starts[:-1][rows]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        at = np.repeat(first - starts[:-1], sizes) + np.arange(int(starts[-1]))
        return Ragged(self.codes[at], starts, self.width)

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """Return the rows of all parts, concatenated."""
        ends = np.cumsum([0] + [len(p.codes) for p in parts])
        starts = [p.starts[:-1] + end for p, end in zip(parts, ends, strict=False)]
        return cls(
            np.concatenate([p.codes for p in parts]),
            np.concatenate([*starts, ends[-1:]]),
            parts[0].width,
        )

    def __getitem__(self, rows: Index) -> np.ndarray:
        """Return rows (...,) padded with zeros as (..., t), with t the largest of their sizes."""
        sizes, first = self.sizes(rows), self.starts[:-1][rows]
        place = np.arange(int(sizes.max(initial=1)))
        lengths = self.starts[1:][rows][..., None] - first[..., None]
        if not len(self.codes):
            return np.zeros((*sizes.shape, len(place)), self.dtype)
        codes = self.codes[np.minimum(first[..., None] + place, len(self.codes) - 1)]
        return np.where(place < lengths, codes, self.dtype.type(0))


@final
class StoredTokeniser(TypedDict):
    """The JSON form of a tokeniser in config.json."""

    method: str
    vocabulary: list[str]
    model: str


@final
@dataclass(frozen=True)
class Tokeniser:
    """Split texts into tokens, and join tokens into texts.

    >>> Tokeniser("bytes").encode(Texts.of(["ab"]))
    [[98, 99]]

    Args:
        method: bytes, characters, words, bpe or smiles.
        vocabulary: the tokens of the codes from 2 on, for characters, words and smiles.
        model: a trained model in the format of the tokenizers library, for bpe.
    """

    method: str
    vocabulary: tuple[str, ...] = ()
    model: str = ""

    @classmethod
    def trained(cls, method: str, texts: Texts, vocabulary: int | None = None) -> Tokeniser:
        """Return a tokeniser fitted to the training split: the most frequent characters or words,
        or pieces by byte-pair encoding.

        Args:
            method: bytes, characters, words, bpe or smiles.
            texts: of the training split.
            vocabulary: largest number of tokens; by default 5,000 characters, 20,000 words that
                occur twice, or 4,000 pieces.

        Raises:
            ValueError: there is no such method, the vocabulary is too small, or the library is
                missing.
        """
        if method not in METHODS:
            raise ValueError(
                f"expected tokens to be {', '.join(METHODS[:-1])} or {METHODS[-1]}; got {method!r}"
            )
        least = {"bytes": 0, "bpe": 257}.get(method, 2)
        if vocabulary is not None and (method == "bytes" or vocabulary < least):
            if method == "bytes":
                raise InputError(f"bytes have no vocabulary: leave out vocabulary={vocabulary}")
            raise ValueError(
                f"expected a vocabulary of {least} or more {method}; got vocabulary={vocabulary}"
            )
        size = vocabulary or VOCABULARY.get(method, 0)
        if method == "bytes":
            return cls(method)
        if method == "bpe":
            return cls(method, model=_trained_pieces(texts, size))
        counts: Counter[str] = Counter()
        for line in texts.lines:
            counts.update(_tokens(method, line))
        twice = method == "words" and vocabulary is None and len(counts) > 1000
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        kept = tuple(token for token, count in ranked[:size] if count > 1 or not twice)
        if len(kept) < 2:
            got = f"{kept[0]!r} and no other" if kept else "none"
            raise ValueError(f"expected texts of at least two different {method}; got {got}")
        return cls(method, kept)

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {token: code for code, token in enumerate(self.vocabulary, 2)}

    @cached_property
    def _pieces(self) -> tokenizers.Tokenizer:
        return _library().Tokenizer.from_str(self.model)

    @cached_property
    def size(self) -> int:
        """Return the number of codes, including the end."""
        if self.method == "bytes":
            return 257
        return (
            1 + self._pieces.get_vocab_size() if self.method == "bpe" else 2 + len(self.vocabulary)
        )

    @property
    def lossless(self) -> bool:
        """Return whether decoding inverts encoding for every text."""
        return self.method in ("bytes", "bpe")

    @property
    def unknown(self) -> int | None:
        """Return the code of tokens outside of the vocabulary; None if there are none."""
        return None if self.lossless else 1

    def __str__(self) -> str:
        return f"{self.size:,} {self.noun}"

    @property
    def noun(self) -> str:
        """Return what the tokens are called."""
        return {"bpe": "pieces", "smiles": "symbols"}.get(self.method, self.method)

    def cut(self, texts: Texts, width: int | None = None) -> Ragged:
        """Return texts as rows of codes, by default as wide as the longest with its end."""
        pieces = [
            Ragged.of(self.encode(texts[start : start + TOGETHER]), 1, self.size)
            for start in range(0, max(1, len(texts)), TOGETHER)
        ]
        whole = Ragged.joined(pieces)
        longest = 1 + int(np.diff(whole.starts).max(initial=0))
        return Ragged(whole.codes, whole.starts, width or longest)

    def encode(self, texts: Texts) -> list[list[int]]:
        """Return the codes of each text, without its end."""
        if self.method == "bytes":
            return [[byte + 1 for byte in line.encode()] for line in texts.lines]
        if self.method == "bpe":
            batch = self._pieces.encode_batch_fast(texts.lines.tolist(), add_special_tokens=False)
            return [[code + 1 for code in encoding.ids] for encoding in batch]
        codes = self._codes
        return [[codes.get(t, 1) for t in _tokens(self.method, line)] for line in texts.lines]

    def strangers(self, texts: Texts, rows: Ragged) -> Counter[str]:
        """Count the tokens of texts that are not in the vocabulary.

        Args:
            texts: the texts.
            rows: their codes.

        >>> ab = Tokeniser("characters", ("a", "b"))
        >>> texts = Texts.of(["abba", "cab"])
        >>> ab.strangers(texts, ab.cut(texts))
        Counter({'c': 1})
        """
        counts: Counter[str] = Counter()
        if self.unknown is None:
            return counts
        at = np.flatnonzero(rows.codes == self.unknown)
        for i in np.unique(np.searchsorted(rows.starts, at, side="right") - 1):
            tokens = _tokens(self.method, texts.lines[i])
            counts.update(token for token in tokens if token not in self._codes)
        return counts

    def decode(self, codes: np.ndarray) -> Texts:
        """Return the texts of codes (N, t); codes after an end are ignored."""
        rows = [
            row[: int(np.argmin(row != 0)) if (row == 0).any() else len(row)].tolist()
            for row in np.asarray(codes)
        ]
        if self.method == "bytes":
            return Texts.of(
                bytes(code - 1 for code in row).decode(errors="replace") for row in rows
            )
        if self.method == "bpe":
            return Texts.of(
                self._pieces.decode_batch(
                    [[code - 1 for code in row] for row in rows], skip_special_tokens=False
                )
            )
        if self.method in ("characters", "smiles"):
            tokens = ("", UNKNOWN, *self.vocabulary)
            return Texts.of("".join(tokens[code] for code in row) for row in rows)
        tokens = ("", UNKNOWN_WORD, *self.vocabulary)
        return Texts.of(_joined(tokens[code] for code in row) for row in rows)

    def scalars(self) -> StoredTokeniser:
        """Return the fields as values that JSON can store."""
        return {"method": self.method, "vocabulary": list(self.vocabulary), "model": self.model}

    @classmethod
    def restore(cls, stored: StoredTokeniser) -> Tokeniser:
        """Return a tokeniser from the result of `scalars()`."""
        return cls(stored["method"], tuple(stored["vocabulary"]), stored["model"])


def _tokens(method: str, line: str) -> Sequence[str]:
    """Return the characters, the words or the symbols of a text."""
    if method == "characters":
        return line
    found: list[str] = (WORDS if method == "words" else SYMBOLS).findall(line)
    return found


def _joined(words: Iterable[str]) -> str:
    """Join words by spaces, except before closing and after opening punctuation."""
    out = ""
    for word in words:
        tight = not out or word in CLOSING or out[-1] in OPENING
        out += word if tight else f" {word}"
    return out


def _library() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise InputError(
            "tokens=bpe needs the tokenizers library: pip install 'vaestro[text]', or use "
            "tokens=words, characters or bytes"
        ) from error
    return tokenizers


def _trained_pieces(texts: Texts, size: int) -> str:
    library = _library()
    pieces = library.Tokenizer(library.models.BPE())
    pieces.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = library.decoders.ByteLevel()
    alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    every = max(1, -(-sum(map(len, texts.lines)) // LEARNED_FROM))
    pieces.train_from_iterator(texts.lines[::every].tolist(), trainer)
    return str(pieces.to_str())
