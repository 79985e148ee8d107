"""Bad input, drawn by Hypothesis: files of data, options of sources and training, and arguments.

A case is files and the arguments of a command. `fault` runs a case in a folder of its own, and says
what is wrong with how it ended.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from PIL import Image

import vaestro as vs
from tests.faults.campaign import TRAIN, content, make_data
from vaestro.cli import main
from vaestro.data.source_options import OPTIONS
from vaestro.text import is_input_error

FEW = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
NUMBERS = ("", "0", "-1", "1", "2", "3", "1.5", "nan", "inf", "-inf", "x", "1e-300", "é", "true")
LARGE = (*NUMBERS, "59", "60", "2147483648", "99999999999999999999")  # numbers that cost no time
WORDS = (*LARGE, "none", "a", "a+b", "a+a", '"', '"a"', "a=b", "+", "NHWC", "N", "utf-16", "binary")
PARTS = (*WORDS, "normal", "elbo", "iwae:k=0", "warmup:share=2", "mlp:width=0", "conv", "gru", ":")
ROWS = (0, 1, 2, 5, 30)
CELLS = (
    *("", "0", "1", "-2.5", "nan", "inf", "1e400", "1,5", "1.000,5", "2020-02-30", "01/02/2020"),
    *("N/A", '"', "'", "=1+1", "\x00", "é", "١٢", "0x10", "true", "9" * 25, "\u202e", "[1, 2]"),
)
TYPES = [
    "f2",
    "f4",
    "f8",
    ">f8",
    "i1",
    "i8",
    "u1",
    "u8",
    "?",
    "c8",
    "U3",
    "S3",
    "M8[D]",
    "m8[s]",
    "V4",
    "O",
]
PATHS = (
    *("o.csv", "o.npy", "o.npz", "o.png", "o.json", "o.jsonl", "o.parquet", "o.xyz", "o", "", "."),
    *("no/o.csv", "o/", "x.npy", "run", "run/model.safetensors", "x.npy/o.csv", "~/../..", "-"),
)
SOURCES = ("x.npy", "x.npy:valid=1", "no.npy", "", "run", "mnist", "digits", "x.npy:kind=binary")
# the arguments and options of the commands on a run: what they may be besides a right value
COMMANDS: dict[str, tuple[tuple[tuple[str, ...], ...], dict[str, tuple[str, ...]]]] = {
    "encode": ((SOURCES,), {"--sample": NUMBERS}),
    "sample": ((), {"-n": NUMBERS, "--temperature": LARGE, "--top-p": LARGE, "--sampler": PARTS}),
    "decode": ((("x.npy", "z.npy", "no.npz", "z.csv"),), {"--beam": NUMBERS, "--top-p": LARGE}),
    "score": ((SOURCES,), {"--k": NUMBERS, "--score": WORDS, "--normal": SOURCES, "-n": NUMBERS}),
    "impute": ((SOURCES,), {"--k": NUMBERS, "-n": NUMBERS}),
    "traverse": ((), {"--units": WORDS, "--range": LARGE, "--steps": NUMBERS, "--row": LARGE}),
    "neighbours": ((SOURCES, LARGE), {"-k": LARGE, "--metric": WORDS, "--among": SOURCES}),
    "analogy": ((SOURCES, LARGE, LARGE, LARGE), {"--beam": NUMBERS}),
    "diffuse": (
        (),
        {"--prediction": WORDS, "--denoiser": PARTS, "--lr": LARGE, "--batch": NUMBERS},
    ),
    "export": ((), {"--to": ("torch", "x", "", "ONNX")}),
}
COMMON = {
    "--split": ("train", "valid", "all", "x", ""),
    "--seed": LARGE,
    "--dtype": ("own", "float32", "x", "", "int8", "U3"),
    "--condition": ("a=1", "a", "=", ""),
}
TRAINING: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("--latent", "--batch", "--lr", "--ema", "--clip", "--patience"), NUMBERS),
    **dict.fromkeys(("--likelihood", "--posterior", "--prior", "--network", "--objective"), PARTS),
    **dict.fromkeys(("--gradient", "--beta", "--free-bits", "--capacity", "--penalty"), PARTS),
    **dict.fromkeys(
        ("--optimizer", "--freeze", "--init", "--condition", "--keep", "--model"), PARTS
    ),
    **dict.fromkeys(("--device", "--precision", "--workers", "--seed", "--model"), WORDS),
}


@final
@dataclass(frozen=True)
class Case:
    """Files by name, and the arguments of a command that reads them."""

    files: dict[str, bytes]
    arguments: tuple[str, ...]


@st.composite
def damaged(draw: DrawFn, whole: bytes) -> bytes:
    """Draw some bytes as they are, cut, with flipped bits, or with a piece of zeros."""
    how = draw(st.sampled_from(("", "", "cut", "flip", "zeros")))
    if not whole or not how:
        return whole
    place = draw(st.integers(0, len(whole) - 1))
    if how == "cut":
        return whole[:place]
    if how == "zeros":
        return whole[:place] + bytes(8) + whole[place + 8 :]
    flipped = bytes([whole[place] ^ (1 << draw(st.integers(0, 7)))])
    return whole[:place] + flipped + whole[place + 1 :]


CELL = st.one_of(
    st.sampled_from(CELLS),
    st.integers(-9, 9).map(str),
    st.floats(width=32).map(str),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)


@st.composite
def tables(draw: DrawFn) -> tuple[str, bytes]:
    """Draw a table of text whose rows may have different lengths."""
    separator, width = draw(st.sampled_from(",;\t| ")), draw(st.integers(1, 4))
    few = draw(st.lists(st.lists(CELL, min_size=1, max_size=width), min_size=1, max_size=4))
    rows = [list("abcd"[:width])] * draw(st.integers(0, 1))
    rows += [(row * width)[:width] if draw(st.booleans()) else row for row in few]
    rows += few * (draw(st.sampled_from(ROWS)) // len(few))
    text = draw(st.sampled_from(("\n", "\r\n", "\r"))).join(separator.join(r) for r in rows)
    encoding = draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "latin-1", "cp037")))
    return draw(st.sampled_from(("t.csv", "t.tsv"))), text.encode(encoding, "replace")


@st.composite
def jsons(draw: DrawFn) -> tuple[str, bytes]:
    """Draw JSON, or lines of JSON."""
    leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), CELL)
    value = st.recursive(
        leaf, lambda v: st.lists(v, max_size=3) | st.dictionaries(CELL, v, max_size=3), max_leaves=8
    )
    row = st.one_of(st.dictionaries(st.sampled_from(("a", "b", "")), value, max_size=3), value)
    rows = draw(st.lists(row, max_size=4)) * draw(st.sampled_from(ROWS))
    if draw(st.booleans()):
        return "t.jsonl", "\n".join(map(json.dumps, rows)).encode()
    return "t.json", json.dumps(rows if draw(st.booleans()) else draw(value)).encode()


@st.composite
def arrays(draw: DrawFn) -> tuple[str, bytes]:
    """Draw an .npy or .npz file of any type and shape, with odd values."""
    shape = (draw(st.sampled_from(ROWS)), *draw(st.lists(st.integers(0, 5), max_size=3)))
    shape = shape if draw(st.integers(0, 9)) else ()
    kinds = (0.0, 1.0, -1.0, 2.5, 255.0, 1e30, np.nan, np.inf)
    values = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6))
    name = draw(st.sampled_from(TYPES))
    with np.errstate(all="ignore"):
        flat = np.resize(np.array(values), shape)
        x = np.zeros(shape, name) if name[0] in "MmV" else flat.astype(name)
    out = io.BytesIO()
    if draw(st.booleans()):
        np.save(out, x)
        return "y.npy", out.getvalue()
    np.savez(out, **dict.fromkeys(draw(st.lists(st.sampled_from(("x", "y", "z")), max_size=2)), x))
    return "y.npz", out.getvalue()


@st.composite
def images(draw: DrawFn) -> tuple[str, bytes]:
    """Draw an image."""
    mode, size = draw(st.sampled_from(["L", "RGB", "RGBA", "1", "P"])), draw(st.integers(1, 9))
    form = draw(st.sampled_from(("png", "bmp", "gif", "tiff", "webp")))
    out = io.BytesIO()
    Image.new(mode, (size, draw(st.integers(1, 9)))).save(out, form)
    return f"i.{form}", out.getvalue()


@st.composite
def texts(draw: DrawFn) -> tuple[str, bytes]:
    """Draw texts, or sequences in FASTA."""
    lines = draw(st.lists(CELL, max_size=5)) * draw(st.sampled_from(ROWS))
    if draw(st.booleans()):
        return "t.txt", "\n".join(lines).encode(errors="replace")
    heads = draw(st.sampled_from((">a", ">", "", ";")))
    return "t.fasta", "\n".join(f"{heads}{i}\nACGT{s}" for i, s in enumerate(lines)).encode()


@st.composite
def parquets(draw: DrawFn) -> tuple[str, bytes]:
    """Draw an Arrow table with columns of any type."""
    import pyarrow
    from pyarrow.parquet import write_table

    rows, out = draw(st.sampled_from(ROWS)), io.BytesIO()
    kinds: tuple[list[object], ...] = ([1, None], [0.5, float("nan")], ["a", "é"], [b"\xff"])
    kinds += ([[1, 2], []], [{"k": 1}], [None], [True], [2**63 - 1])
    columns = draw(st.lists(st.sampled_from(kinds), max_size=3))
    write_table(pyarrow.table({f"c{i}": (c * rows)[:rows] for i, c in enumerate(columns)}), out)
    return "t.parquet", out.getvalue()


@st.composite
def files(draw: DrawFn) -> tuple[dict[str, bytes], str]:
    """Draw a file of data, or a folder of images, and a source that names it."""
    name, whole = draw(st.one_of(tables(), jsons(), arrays(), images(), texts(), parquets()))
    made = {name: draw(damaged(whole))}
    if name.startswith("i."):
        made = {f"photos/{i}-{name}": whole for i in range(draw(st.sampled_from(ROWS)))}
        made[f"photos/odd-{name}"] = draw(damaged(whole))
        name = draw(st.sampled_from(("photos", "photos/")))
    options = draw(st.dictionaries(st.sampled_from(list(OPTIONS)), st.sampled_from(WORDS)))
    odd = dict(list(options.items())[:2]) if draw(st.integers(0, 2)) == 0 else {}
    written = ",".join(f"{key}={value}" for key, value in odd.items())
    return made, f"{name}:{written}" if written else name


def chosen(options: dict[str, tuple[str, ...]], most: int) -> SearchStrategy[list[str]]:
    """Draw options with values, as arguments."""
    pair = st.sampled_from(sorted(options)).flatmap(
        lambda name: st.sampled_from(options[name]).map(lambda value: [name, value])
    )
    return st.lists(pair, max_size=most).map(lambda pairs: [w for p in pairs for w in p])


@st.composite
def trainings(draw: DrawFn) -> Case:
    """Draw a training on odd data, or with odd options on good data."""
    made, source = draw(files()) if draw(st.booleans()) else ({}, "x.npy")
    options = draw(chosen(TRAINING, 3 if source == "x.npy" else 0))
    train = ("train", source, "--run", "new", *TRAIN[4:], *options)
    return Case(made, train)


@st.composite
def uses(draw: DrawFn, without: tuple[str, ...] = ()) -> Case:
    """Draw a command on a run, but some, with odd data or odd arguments."""
    name = draw(st.sampled_from([n for n in sorted(COMMANDS) if n not in without]))
    positions, options = COMMANDS[name]
    made: dict[str, bytes] = {}
    words = [draw(st.sampled_from(values)) for values in positions]
    if words and name != "decode" and draw(st.booleans()):
        made, words[0] = draw(files())
    if name == "decode" and draw(st.booleans()):
        words[0], whole = draw(arrays())
        made = {words[0]: draw(damaged(whole))}
    words += ["-o", draw(st.sampled_from(PATHS))] if name != "diffuse" else ["--steps", "2"]
    words += draw(chosen(options | (COMMON if draw(st.booleans()) else {}), 2))
    return Case(made, (name, "run", *words))


def prepare(place: Path) -> None:
    """Make the folder that cases are run in: data, latents and a small run."""
    place.mkdir()
    make_data(place)
    np.save(place / "z.npy", np.zeros((3, 2), np.float32))
    with contextlib.chdir(place):
        assert main(list(TRAIN)) == 0


def fault(case: Case, kept: Path, place: Path) -> str:
    """Run a case in a copy of a folder, and return what is wrong with its end; "" if nothing."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(kept, place)
    for name, data in case.files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
    before, out, err = content(place), io.StringIO(), io.StringIO()
    folders = {f for f in place.rglob("*") if f.is_dir()}
    with contextlib.chdir(place):
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main([*case.arguments])
        except BaseException as error:
            return f"raised {type(error).__name__}: {error}"
    line = err.getvalue()
    if code not in (0, 1, 2):
        return f"exit code {code}: {line}"
    bare = re.search(r"--debug shows where|[a-z]Error:|Traceback", line)
    if code and (not line.startswith("vaestro: ") or line.count("\n") != 1 or bare):
        return f"exit code {code} with {line!r}"
    if code == 2 and before != content(place):
        return f"refused, but wrote {set(content(place)) ^ set(before)}: {line}"
    if code == 2 and folders != {f for f in place.rglob("*") if f.is_dir()}:
        return f"refused, but made a folder: {line}"
    return ""


def fault_of_reading(made: dict[str, bytes], source: str, place: Path) -> str:
    """Read a source in Python, and return what is wrong with how it ended; "" if nothing."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, data in made.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
    with contextlib.chdir(place):
        try:
            vs.load(source)
        except Exception as error:
            if not is_input_error(error) or "\n" in str(error):
                return f"raised {type(error).__name__}: {error}"
    return ""
