"""Files of text as streams of UTF-8: compressed, inside of a zip file, and in other encodings.

A file is read once to detect its encoding. It is not held in memory.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple, cast, final

from vaestro.data.raw import Options
from vaestro.storage import in_utf8
from vaestro.text import InputError

TAIL = 2**16  # bytes at the end that are kept
PIECE = 2**22  # bytes that are read at a time
BOMB_BYTES = 2**28  # a decompressed file that is longer, and that has this many times
BOMB_RATIO = 300  # its size when compressed, is refused
BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before that of UTF-16, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")
WORDS = {"cp1252": "Windows-1252 (Latin-1)", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16"}
UNPACKED: Mapping[str, Callable[[Path], AbstractContextManager[object]]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


@final
@dataclass(frozen=True)
class TextFile:
    """Describe a file of text.

    Args:
        path: of the file.
        member: the name of a file inside of a zip file; empty for other files.
        encoding: of the text.
        quotes: the number of double quotes.
        tail: the last bytes, as UTF-8.
        length: the number of bytes that are read, as UTF-8.
        content: the text itself, which is read instead of the file.
    """

    path: Path
    member: str = ""
    encoding: str = "utf-8"
    quotes: int = 0
    tail: bytes = b""
    length: int = 0
    content: bytes | None = None

    @property
    def name(self) -> str:
        """Return the name of the file, for messages."""
        return self.path.name

    @property
    def plain(self) -> bool:
        """Return whether the file's own bytes are UTF-8."""
        packed = self.path.suffix.lower() in COMPRESSIONS
        return not packed and self.encoding == "utf-8" and self.content is None

    @contextmanager
    def unpacked(self) -> Iterator[IO[bytes]]:
        """Open the decompressed bytes."""
        suffix = self.path.suffix.lower()
        if self.content is not None:
            yield io.BytesIO(self.content)
        elif suffix == ".zip":
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                yield file
        elif suffix == ".zst":
            import pyarrow

            with (
                in_utf8(self.path) as name,
                pyarrow.input_stream(str(name), compression="zstd") as file,
            ):
                yield cast(IO[bytes], file)
        else:
            with UNPACKED.get(suffix, io.FileIO)(self.path) as file:
                yield cast(IO[bytes], file)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the first `length` bytes as UTF-8, without a byte order mark."""
        with self.unpacked() as raw:
            stream: io.RawIOBase = _Decoded(raw, self.encoding)
            yield io.BufferedReader(_Cut(stream, self.length), PIECE)

    def text(self) -> str:
        """Return the whole text."""
        with self.open() as file:
            return file.read().decode()

    def without_end(self, count: int) -> TextFile:
        """Return the file without its last bytes, as UTF-8.

        >>> _ = Path("t.csv").write_text("a,b")
        >>> text_file(Path("t.csv"), {}, []).without_end(2).text()
        'a'
        """
        return replace(self, length=self.length - count, tail=self.tail[: len(self.tail) - count])


@final
class _Decoded(io.RawIOBase):
    """Read bytes of an encoding as UTF-8."""

    def __init__(self, raw: IO[bytes], encoding: str) -> None:
        self.raw, self.left = raw, b""
        name = "utf-8-sig" if encoding == "utf-8" else encoding
        self.decoder = codecs.getincrementaldecoder(name)()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer)).cast("B")
        while not self.left:
            piece = self.raw.read(PIECE)
            self.left = self.decoder.decode(piece, not piece).encode()
            if not piece:
                break
        count = min(len(view), len(self.left))
        view[:count] = self.left[:count]
        self.left = self.left[count:]
        return count


@final
class _Cut(io.RawIOBase):
    """Read the first bytes of a stream."""

    def __init__(self, raw: io.RawIOBase, length: int) -> None:
        self.raw, self.left = raw, length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer)).cast("B")
        count = self.raw.readinto(view[: min(len(view), self.left)]) or 0
        self.left -= count
        return count


def text_file(path: Path, options: Options, notes: list[str], member: str = "") -> TextFile:
    """Return a file of text with its encoding.

    It is that of a byte order mark, UTF-16 if every second byte is 0, UTF-8 if all bytes are, and
    otherwise Windows-1252, of which Latin-1 is a part.

    Args:
        path: of the file.
        options: `encoding` overrules what is detected.
        notes: to which a note on another encoding than UTF-8 is appended.
        member: the name of a file inside of a zip file.

    Raises:
        ValueError: the file is not text, or not in the encoding.

    >>> _ = Path("t.csv").write_bytes("name\\nJürgen\\n".encode("latin-1"))
    >>> notes = []
    >>> text_file(Path("t.csv"), {}, notes).text()
    'name\\nJürgen\\n'
    >>> notes
    ['read as Windows-1252 (Latin-1), since it is not UTF-8; encoding=NAME overrules this']
    """
    file = TextFile(path, member)
    if "encoding" in options:
        return _measured(replace(file, encoding=_known(str(options["encoding"]))))
    with file.unpacked() as raw:
        head = raw.read(2**12)
    encoding = _by_head(head)
    if encoding != "utf-8":
        notes.append(f"read as {WORDS.get(encoding, encoding.upper())}")
        return _measured(replace(file, encoding=encoding))
    result = _scanned(file, len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
    if isinstance(result, TextFile):
        return result
    if result.byte and not result.letters:
        try:
            found = _measured(replace(file, encoding="cp1252"))
        except ValueError:
            pass
        else:
            notes.append(
                f"read as {WORDS['cp1252']}, since it is not UTF-8; encoding=NAME overrules this"
            )
            return found
    refusal = (
        f"expected text in UTF-8 in {file.name}; got byte 0x{result.byte:02x} at {result.at:,}"
    )
    if not result.byte:
        raise ValueError(f"{refusal} (it is no text: save the table as .csv or .parquet)")
    raise ValueError(
        f"{refusal} (save it again as UTF-8, or name its encoding with encoding=cp1252)"
    )


def _by_head(head: bytes) -> str:
    """Return the encoding that the first bytes show."""
    for bom, encoding in BOMS.items():
        if head.startswith(bom):
            return encoding
    even, odd = head[::2], head[1::2]
    if len(head) >= 4 and 2 * odd.count(0) > len(odd) and not even.count(0):
        return "utf-16-le"
    if len(head) >= 4 and 2 * even.count(0) > len(even) and not odd.count(0):
        return "utf-16-be"
    return "utf-8"


class _Bad(NamedTuple):
    """Describe the first byte that is not UTF-8 or is 0: its position and value, and whether
    letters of several bytes precede it."""

    at: int
    byte: int
    letters: bool


def _scanned(file: TextFile, marked: int) -> TextFile | _Bad:
    """Return a file of UTF-8 with its length, quotes and tail, or what is not UTF-8 in it.

    Args:
        file: the file.
        marked: the number of bytes of its byte order mark.
    """
    decoder, length, quotes, tail, letters = (
        codecs.getincrementaldecoder("utf-8")(),
        0,
        0,
        b"",
        False,
    )
    with file.unpacked() as raw:
        while True:
            piece = raw.read(PIECE)
            whole = decoder.getstate()[0] + piece
            zero = piece.find(b"\0")
            if zero >= 0:
                return _Bad(length + zero, 0, letters)
            try:
                letters |= not decoder.decode(piece, not piece).isascii()
            except UnicodeDecodeError as error:
                letters |= not whole[: error.start].isascii()
                at = length + len(piece) - len(whole) + error.start
                return _Bad(at, whole[error.start], letters)
            if not piece:
                break
            length, quotes = length + len(piece), quotes + piece.count(b'"')
            _refuse_bomb(file, length)
            tail = (tail + piece)[-TAIL:]
    return replace(file, length=length - marked, quotes=quotes, tail=tail)


def _refuse_bomb(file: TextFile, length: int) -> None:
    """Raise InputError if a compressed file is much longer than its size: it may be made to fill
    the memory."""
    if length > max(BOMB_BYTES, BOMB_RATIO * file.path.stat().st_size):
        raise InputError(
            f"{file.name} has more than {BOMB_RATIO} times its size when it is decompressed: "
            f"decompress it yourself if you trust it"
        )


def _measured(file: TextFile) -> TextFile:
    """Return a file with its length, quotes and tail, which are those of its text as UTF-8."""
    length, quotes, tail = 0, 0, b""
    with file.unpacked() as raw:
        stream = _Decoded(raw, file.encoding)
        try:
            while piece := stream.read(PIECE):
                length, quotes = length + len(piece), quotes + piece.count(b'"')
                _refuse_bomb(file, length)
                tail = (tail + piece)[-TAIL:]
        except UnicodeError as error:
            raise ValueError(
                f"expected text in {file.encoding} in {file.name}; got other bytes (leave out "
                f"encoding={file.encoding}, or name another one)"
            ) from error
    return replace(file, length=length, quotes=quotes, tail=tail)


def _known(name: str) -> str:
    """Return the name of an encoding as Python writes it."""
    try:
        known = codecs.lookup(name).name
        " ".encode(known)
    except LookupError as error:
        raise InputError(
            f"encoding={name} is no known encoding: write utf-8, latin-1, cp1252, utf-16, shift_jis"
            f" or another name that Python knows"
        ) from error
    return known


def unpacked_suffix(path: Path) -> str:
    """Return the suffix of a file without that of a compression, in lower case.

    >>> unpacked_suffix(Path("t.CSV.gz")), unpacked_suffix(Path("a.csv"))
    ('.csv', '.csv')
    """
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSIONS else suffix


def zip_members(path: Path) -> list[str]:
    """Return the names of the files in a zip file, without folders and hidden files.

    Raises:
        ValueError: the file is damaged.

    >>> with zipfile.ZipFile("t.zip", "w") as archive:
    ...     archive.writestr("a/t.csv", "x")
    >>> zip_members(Path("t.zip"))
    ['a/t.csv']
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged or cut short") from error
    return [n for n in names if not n.startswith("__MACOSX") and Path(n).name[:1] != "."]
