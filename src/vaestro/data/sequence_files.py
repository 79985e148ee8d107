"""Read sequences: FASTA, FASTQ, SMILES files and arrays of characters. Recognise sequences among
texts.

A sequence is a text of symbols without words, such as DNA, a protein or a molecule as SMILES.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vaestro.data.raw import Raw
from vaestro.frames import Frame
from vaestro.text import InputError, typed
from vaestro.tokens import Texts

FASTA = (".fasta", ".fa", ".fna", ".faa", ".ffn", ".fas")
FASTQ = (".fastq", ".fq")
SMILES = (".smi", ".smiles")
SUFFIXES = (*FASTA, *FASTQ, *SMILES)
LOOKED_AT = 2000  # number of texts from which sequences are recognised
SHORTEST = 8  # smallest median length of sequences, in characters
MOST = 0.98  # smallest share of texts that are sequences
_NUCLEIC = re.compile(r"[ACGTUNacgtun-]{4,}")
_PROTEIN = re.compile(r"[ACDEFGHIKLMNPQRSTVWYBXZUO*-]{4,}")
_MOLECULE = re.compile(
    r"(?:Br|Cl|[BCNOPSFIbcnops*]|\[[A-Za-z0-9@+*:.=#-]+\]|[()=#$/\\.:~-]|%\d\d|\d)+"
)
_ATOM = re.compile(r"Br|Cl|[BCNOPSFIbcnops]")


def suffix_of(path: Path) -> str:
    """Return the suffix of a file of sequences in lower case, without .gz; "" for other files.

    >>> suffix_of(Path("genome.fa.gz")), suffix_of(Path("t.csv"))
    ('.fa', '')
    """
    name = path.name.lower().removesuffix(".gz")
    suffix = Path(name).suffix
    return suffix if suffix in SUFFIXES else ""


def read_sequences(path: Path) -> Raw[Texts]:
    """Read a file of sequences, with their identifiers as the attribute `id`.

    The rest of a FASTA or FASTQ header is the attribute `description`. A line of a .smi file is a
    SMILES, white space and an identifier; a first line that begins with "SMILES" is a heading.
    Records without a sequence are left out, and a note counts them.

    Raises:
        ValueError: the file is damaged, is not of the format of its suffix, or has no sequences.

    >>> _ = Path("x.fa").write_text(">a first\\nACGT\\nAC\\n>b\\nGG\\n")
    >>> raw = read_sequences(Path("x.fa"))
    >>> raw.splits["all"].lines.tolist(), raw.attributes["all"]["id"].tolist()
    (['ACGTAC', 'GG'], ['a', 'b'])
    """
    suffix = suffix_of(path)
    reader = _fasta if suffix in FASTA else _fastq if suffix in FASTQ else _smiles
    try:
        opener = gzip.open if path.suffix.lower() == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig") as file:
            records = list(reader(map(str.rstrip, file), path))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path} is damaged, or not a text file") from error
    kept = [record for record in records if record[0]]
    if not kept:
        raise InputError(f"{path} has no sequences")
    sequences, names, descriptions = (list(column) for column in zip(*kept, strict=True))
    attributes = {
        name: np.array(values)
        for name, values in (("id", names), ("description", descriptions))
        if any(values)
    }
    empty = len(records) - len(kept)
    notes = (f"{empty:,} of {len(records):,} records have no sequence: left out",) if empty else ()
    return Raw({"all": Texts.of(sequences, symbols=True)}, {"all": attributes}, notes)


def _fasta(lines: Iterator[str], path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield sequence, identifier and description of each record."""
    header: str | None = None
    pieces: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.startswith(">"):
            if header is not None:
                yield _record("".join(pieces), header)
            header, pieces = line[1:], []
        elif line and not line.startswith(";"):
            if header is None:
                raise ValueError(
                    f"expected a header that begins with > in line {number} of {path}; got "
                    f"{line[:30]!r}"
                )
            pieces.append("".join(line.split()))
    if header is not None:
        yield _record("".join(pieces), header)


def _fastq(lines: Iterator[str], path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield sequence, identifier and description of each record of four lines; qualities are
    ignored."""
    for number, header in enumerate(lines):
        if not header:
            continue
        sequence, plus, quality = (next(lines, None) for _ in range(3))
        whole = sequence is not None and plus is not None and quality is not None
        if not header.startswith("@") or not whole or not str(plus).startswith("+"):
            raise ValueError(
                f"expected records of four lines (@, sequence, +, qualities) in {path}; got "
                f"another record {number + 1:,}, {header[:30]!r}"
            )
        yield _record(str(sequence), header[1:])


def _record(sequence: str, header: str) -> tuple[str, str, str]:
    name, _, description = header.strip().partition(" ")
    return sequence, name, description.strip()


def _smiles(lines: Iterator[str], path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield SMILES and identifier of each line."""
    for number, line in enumerate(lines):
        words = line.split(maxsplit=1)
        if number == 0 and words and words[0].lower().strip(",;") in ("smiles", "canonical_smiles"):
            continue
        if words:
            yield words[0], words[1] if len(words) > 1 else "", ""


def of_characters(array: np.ndarray) -> Texts | None:
    """Return an array of texts (N,), or of characters (N, L), as texts; None for other arrays.

    >>> of_characters(np.array([["A", "C"], ["G", "T"]])).lines.tolist()
    ['AC', 'GT']
    """
    if array.dtype.kind == "S":
        array = np.char.decode(array, "latin-1")
    if array.dtype.kind != "U" or array.ndim not in (1, 2) or not array.size:
        return None
    if array.ndim == 1:
        return Texts.of(array.tolist())
    if array.dtype.itemsize > 4:  # longer than one character
        return None
    return Texts.of(("".join(row) for row in array.tolist()), symbols=True)


def sequences_in(values: np.ndarray) -> str:
    """Return what sequences some texts are, in words: DNA or RNA, proteins or SMILES; "" if they
    are none.

    >>> sequences_in(np.array(["CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C)C(=O)N2C"]))
    'SMILES'
    >>> sequences_in(np.array(["a good film", "not for me at all"]))
    ''
    """
    if values.dtype.kind not in "UO":
        return ""
    some = values[np.linspace(0, len(values) - 1, min(LOOKED_AT, len(values))).astype(int)]
    texts = [str(value).strip() for value in some]
    texts = [text for text in texts if text]
    if not texts or np.median([len(text) for text in texts]) < SHORTEST:
        return ""
    for what, pattern in (("DNA or RNA", _NUCLEIC), ("proteins", _PROTEIN), ("SMILES", _MOLECULE)):
        fitting = [text for text in texts if pattern.fullmatch(text)]
        if what == "SMILES":
            fitting = [text for text in fitting if _balanced(text)]
        if len(fitting) >= MOST * len(texts):
            return what
    return ""


def sequence_notes(whole: Frame, names: Sequence[str]) -> list[str]:
    """Return a note on each text column of a table that contains sequences.

    Args:
        whole: the table.
        names: the columns to look at.

    >>> cells = np.ma.array(["ACGTACGTAC", "GGCATTACGA"])
    >>> sequence_notes(Frame({"dna": cells}), ["dna"])
    ['dna looks like DNA or RNA: text=dna models it as sequences']
    """
    notes = []
    for name in names:
        what = sequences_in(np.asarray(whole.columns[name].compressed()))
        if what:
            notes.append(f"{name} looks like {what}: {typed('text', name)} models it as sequences")
    return notes


def _balanced(text: str) -> bool:
    """Return whether a text has atoms, and as many closing as opening brackets."""
    atoms = _ATOM.search(text) is not None
    return atoms and text.count("(") == text.count(")") and text.count("[") == text.count("]")
