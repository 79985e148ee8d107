"""Sequences: FASTA, FASTQ and SMILES files, arrays of characters, and columns of tables."""

import gzip
from pathlib import Path

import numpy as np
import pytest

import vaestro as vs
from vaestro.cli import main
from vaestro.data.sequence_files import sequences_in
from vaestro.tokens import Texts, Tokeniser

MOLECULES = ["C", "CC", "c1ccccc1", "N", "C(=O)", "Cl", "Br", "[NH3+]", "S", "%10"]
TINY = ["--latent", "2", "--steps", "2", "--network", "gru:width=8"]


def molecules(n: int = 60) -> list[str]:
    r = np.random.default_rng(0)
    return ["CCO" + "".join(r.choice(MOLECULES, r.integers(3, 9))) for _ in range(n)]


def said(capsys: pytest.CaptureFixture[str], *command: object, code: int = 0) -> str:
    capsys.readouterr()
    assert main([*map(str, command)]) == code, capsys.readouterr().err
    out = capsys.readouterr()
    return out.err if code else out.out


def fasta(n: int = 40) -> tuple[list[str], str]:
    r = np.random.default_rng(0)
    dna = ["".join(r.choice(list("ACGT"), r.integers(8, 30))) for _ in range(n)]
    text = "".join(f">seq{i} from E. coli\n{s[:9]}\n{s[9:]}\n" for i, s in enumerate(dna))
    return dna, text


@pytest.mark.parametrize("name", ["x.fasta", "x.fa.gz", "x.fastq"])
def test_sequences_with_their_identifiers(tmp_path: Path, name: str) -> None:
    dna, text = fasta()
    if name == "x.fastq":
        text = "".join(f"@seq{i} from E. coli\n{s}\n+\n{'I' * len(s)}\n" for i, s in enumerate(dna))
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    data = vs.load(tmp_path / name)
    assert data.train.outward().lines.tolist() == [dna[i] for i in data.train.index]
    assert data.train.attributes["id"].tolist() == [f"seq{i}" for i in data.train.index]
    assert set(data.train.attributes["description"].tolist()) == {"from E. coli"}
    assert data.space.tokeniser.method == "characters"
    assert "sequences: tokens=characters (tokens=bpe learns longer pieces)" in data.notes


def test_smiles_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, path, run = molecules(), tmp_path / "m.smi", tmp_path / "r"
    path.write_text("SMILES ID\n" + "".join(f"{s} mol {i}\n" for i, s in enumerate(lines)))
    said(capsys, "train", path, "--run", run, *TINY)
    said(capsys, "encode", run, path, "-o", tmp_path / "z.csv")
    rows = (tmp_path / "z.csv").read_text().splitlines()
    assert rows[0] == '"row","id","mean_0","mean_1","logvar_0","logvar_1"'
    assert len(rows) == 61 and rows[1].startswith('0,"mol 0",')
    assert np.load(_encoded(capsys, run, path, tmp_path / "z.npz"))["id"][59] == "mol 59"
    path.write_text("".join(f"{s}\n" for s in lines))
    assert "id" not in vs.load(path).train.attributes


def _encoded(capsys: pytest.CaptureFixture[str], run: Path, source: object, to: Path) -> Path:
    said(capsys, "encode", run, source, "-o", to)
    return to


def test_files_that_are_no_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text, words in (
        ("a.fa", "ACGT\n", "expected a header that begins with > in line 1 of"),
        ("b.fastq", "@a\nACGT\nIIII\n", "expected records of four lines"),
        ("c.smi", "\n\n", "has no sequences"),
        ("d.fa.gz", "not compressed", "is damaged, or not a text file"),
    ):
        (tmp_path / name).write_text(text)
        error = said(capsys, "train", tmp_path / name, code=2)
        assert words in error and error.count("\n") == 1
    (tmp_path / "e.fa").write_text(">a\n>b\nAACC\n>c\nGGTT\n" * 20)
    data = vs.load(tmp_path / "e.fa")
    assert "20 of 60 records have no sequence: left out" in data.notes
    assert set(data.train.attributes["id"]) == {"b", "c"}


def test_a_column_of_sequences_is_recognised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, lines = tmp_path / "mols.csv", sorted(set(molecules(600)))
    rows = [f"m{i},{s},{i % 7 if i % 5 else ''}\n" for i, s in enumerate(lines)]
    path.write_text("id,smiles,activity\n" + "".join(rows))
    error = said(capsys, "train", path, code=2)
    hint = "smiles looks like SMILES: text=smiles models it as sequences"
    assert hint in error and error.count("\n") == 1
    data = vs.load(f"{path}:text=smiles")
    assert data.space.tokeniser.method == "characters"
    assert any("the texts look like SMILES: tokens=characters" in n for n in data.notes)
    np.testing.assert_array_equal(
        np.isnan(data.train.attributes["activity"]), data.train.index % 5 == 0
    )
    few = tmp_path / "few.csv"
    few.write_text("smiles,x\n" + "".join(f"{s},{i}.5\n" for i, s in enumerate(lines[:5] * 20)))
    assert hint.replace(str(path), str(few)) in vs.load(few).notes


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        (["ACGTNACGTA", "acgtacgt"], "DNA or RNA"),
        (["MKTAYIAKQRQISFVKSHFSRQ", "GSHMLEDPVDAFK"], "proteins"),
        (["C[C@H](N)C(=O)O", "[Na+].[Cl-]CCCC"], "SMILES"),
        (["3f2504e0-4f89-11d3", "9a0c0305-e82c-11d3"], ""),
        (["https://a.org/x", "https://b.org/y"], ""),
        (["ENSG00000139618", "ENSG00000141510"], ""),
        (["2024-01-05T10:00", "2024-02-05T11:00"], ""),
        (["CCO", "CCN"], ""),
        (["Thanks", "wonderful"], ""),
    ],
)
def test_what_looks_like_sequences(texts: list[str], what: str) -> None:
    assert sequences_in(np.array(texts)) == what


def test_arrays_of_characters(tmp_path: Path) -> None:
    letters = np.random.default_rng(0).choice(list("ACGT"), (50, 12))
    lines = ["".join(row) for row in letters.tolist()]
    np.save(tmp_path / "x.npy", letters)
    np.savez(tmp_path / "x.npz", x=letters.astype("S1"))
    sources = (letters, letters.astype("S1"), np.array(lines), np.array(lines, "S"))
    for source in (*sources, tmp_path / "x.npy", tmp_path / "x.npz"):
        data = vs.load(source)
        assert data.train.outward().lines.tolist() == [lines[i] for i in data.train.index]
        assert data.space.tokeniser.method == "characters"
    assert vs.load(letters, tokens="bytes").space.tokeniser.method == "bytes"


def test_unknown_symbols_and_long_texts_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = tmp_path / "m.smi", tmp_path / "r"
    path.write_text("\n".join(molecules()))
    said(capsys, "train", path, "--run", run, *TINY)
    width = vs.Run(run).model().space.shape[0]
    new = tmp_path / "new.smi"
    new.write_text(f"CCO\nC[Si](C)(C)C#N\nCC[Si]\n{'C' * 300}\n")
    error = said(capsys, "encode", run, new, "-o", tmp_path / "z.npz", code=2)
    assert f"(SOURCE:length={width} truncates longer ones); got one of 300 in row 4" in error
    note = "are not in the vocabulary, in 2 of 4 texts: 'i' (2 times), '#'"
    for command in (
        ["encode", run, f"{new}:length={width}", "-o", tmp_path / "z.npz"],
        ["reconstruct", run, f"{new}:length={width}", "-o", tmp_path / "x.txt"],
        ["evaluate", run, "--data", f"{new}:length={width}", "--k", 2],
    ):
        out = said(capsys, *command)
        assert note in out and f"1 of 4 texts truncated to {width} tokens" in out
    assert not [n for n in vs.open(run).rows(path).notes if "vocabulary" in n]


def test_tokens_of_smiles() -> None:
    texts = Texts.of(["C[NH3+]Cl", "BrC%10C%10"])
    tokeniser = Tokeniser.trained("smiles", texts)
    assert set(tokeniser.vocabulary) == {"C", "[NH3+]", "Cl", "Br", "%10"}
    codes = tokeniser.cut(texts)
    assert np.diff(codes.starts).tolist() == [3, 5]
    assert tokeniser.decode(codes[[0, 1]]).lines.tolist() == texts.lines.tolist()
