"""Every mistake ends in exit code 2 with one line that says what was expected, and leaves nothing
half-written."""

import gzip
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file, save_file

import vaestro as vs
from vaestro.cli import main
from vaestro.runs import job

TINY = [
    "--network",
    "mlp:width=8",
    "--latent",
    "2",
    "--steps",
    "4",
    "--batch",
    "16",
    "--device",
    "cpu",
    "--quiet",
]


class Bomb:
    """Create a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def binary(n=60, shape=(4, 4)):
    return (np.random.default_rng(0).random((n, *shape)) < 0.3).astype(np.uint8)


def grey(n=60, shape=(4, 4)):
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


def real(n=60, shape=(4, 4)):
    return np.random.default_rng(0).normal(size=(n, *shape))


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train one tiny run, on data that stay where they are."""
    folder = tmp_path_factory.mktemp("trained")
    np.save(folder / "x.npy", binary())
    assert main(["train", str(folder / "x.npy"), "--run", str(folder / "run"), *TINY]) == 0
    return folder / "run"


@pytest.fixture
def here(tmp_path, monkeypatch, trained):
    """Work in a folder with a run and small files of several kinds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copytree(trained, "run")
    np.save("binary.npy", binary())
    np.save("grey.npy", grey())
    np.save("real.npy", real())
    np.save("z.npy", np.zeros((3, 2), np.float32))
    return tmp_path


def tree(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
        if "__pycache__" not in p.parts
    }


@pytest.fixture
def refused(capsys, here):
    """Run a command that must be refused, and return what it says."""

    def run(*arguments):
        before = tree(here)
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        err = capsys.readouterr().err
        assert code == 2, err
        assert len(err.splitlines()) == 1 and err.endswith("\n")
        assert err.startswith("vaestro: ") and "(--debug shows where)" not in err
        after = tree(here)
        assert after.keys() == before.keys(), "nothing is half-written"
        assert after == before, "what was there is intact"
        return err

    return run


# -- data ------------------------------------------------------------------------------------------


def write_nothing():
    return "nosuch.npy"


def write(name, array):
    def make():
        np.save(name, array)
        return name

    return make


def write_bytes(name, content):
    def make():
        Path(name).write_bytes(content)
        return name

    return make


def write_cut(name, keep, save):
    def make():
        with Path(name).open("wb") as file:
            save(file)
        content = Path(name).read_bytes()
        Path(name).write_bytes(content[: int(len(content) * keep)])
        return name

    return make


def with_one(value, dtype="float64"):
    array = real().astype(dtype)
    array[7, 1, 2] = value
    return array


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


BAD_DATA = {
    "no such file": (write_nothing, "there is no file"),
    "a folder": (lambda: "run", "images in run; got none"),
    "an empty name": (lambda: "", "got"),
    "an empty array": (write("x.npy", np.zeros((0, 4, 4))), "empty array of shape (0, 4, 4)"),
    "no columns": (write("x.npy", np.zeros((20, 0))), "empty array"),
    "an empty file": (write_bytes("x.npy", b""), "or a folder of images; got"),
    "a single number": (write("x.npy", np.array(3.0)), "a single number"),
    "a single datum": (write("x.npy", binary(1)), "got 1 in"),
    "nine data": (write("x.npy", binary(9)), "got 9 in"),
    "NaN": (write("x.npy", with_one(np.nan)), "got 1 NaN and 0 infinite"),
    "NaN in float32": (write("x.npy", with_one(np.nan, "float32")), "1 NaN"),
    "infinity": (write("x.npy", with_one(np.inf)), "got 0 NaN and 1 infinite"),
    "minus infinity": (write("x.npy", with_one(-np.inf, "float16")), "1 infinite"),
    "numbers whose variance overflows": (write("x.npy", real() * 1e200), "got"),
    "complex numbers": (write("x.npy", real().astype(complex)), "complex"),
    "text": (write("x.npy", np.full((20, 3), "one")), "text"),
    "dates": (write("x.npy", np.zeros((20, 3), "datetime64[s]")), "got dates (a table"),
    "records of arrays": (write("x.npy", np.zeros(20, [("a", "f4", 3), ("b", "f4")])), "got"),
    "one value everywhere": (write("x.npy", np.full((20, 4), 3)), "got 3 in every cell"),
    "text named .png": (
        write_bytes("x.png", b"these are words\n"),
        "damaged or unreadable (x.png)",
    ),
    "text named .npy": (write_bytes("x.npy", b"1 2 3\n"), "or a folder of images; got"),
    "a cut .npy": (write_cut("x.npy", 0.7, lambda f: np.save(f, binary())), "damaged or cut short"),
    "a .npy cut in its header": (
        write_cut("x.npy", 0.02, lambda f: np.save(f, binary())),
        "damaged or cut short",
    ),
    "a cut .npz": (
        write_cut("x.npz", 0.7, lambda f: np.savez(f, x=binary())),
        "damaged or cut short",
    ),
    "a cut IDX": (write_bytes("x-idx3", idx(binary())[:-5]), "expected 960 bytes of data"),
    "an IDX cut in its header": (write_bytes("x-idx3", idx(binary())[:9]), "got 0"),
    "a cut gz": (write_bytes("x.gz", gzip.compress(idx(grey()))[:-200]), "damaged or cut short"),
    "a gz of a cut IDX": (
        write_bytes("x.gz", gzip.compress(idx(grey())[:-9])),
        "expected 960 bytes of data",
    ),
    "a gz of text": (
        write_bytes("x.gz", gzip.compress(b"these are words")),
        "which has another header",
    ),
    "a damaged gz": (
        write_bytes("x.gz", flipped(gzip.compress(idx(grey())), 300)),
        "damaged or cut short",
    ),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(refused, name):
    make, says = BAD_DATA[name]
    assert says in refused("train", make(), "--run", "new", *TINY)


@pytest.mark.parametrize("name", ["no such file", "NaN", "a cut .npz", "a single datum"])
def test_a_run_survives_an_overwriting_that_is_refused(refused, name):
    refused("train", BAD_DATA[name][0](), "--run", "run", "--force", *TINY)


@pytest.mark.parametrize("seed", range(8))
def test_an_npz_with_one_wrong_byte_is_refused(here, refused, seed):
    np.savez("x.npz", x=grey())
    content = Path("x.npz").read_bytes()
    Path("x.npz").write_bytes(
        flipped(content, int(np.random.default_rng(seed).integers(200, 1000)))
    )
    assert "x.npz" in refused("train", "x.npz", "--run", "new", *TINY)


def objects(bomb):
    array = np.empty(20, object)
    array[:] = [bomb] * 20
    return array


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("x.npy", lambda file, bomb: np.save(file, objects(bomb), allow_pickle=True)),
        ("x.npz", lambda file, bomb: np.savez(file, x=objects(bomb))),
        (
            "x.npz",
            lambda file, bomb: np.savez(file, train=binary(), train_y=np.resize(objects(bomb), 60)),
        ),
        ("x.npy", lambda file, bomb: pickle.dump(bomb, file)),
        ("x.npz", lambda file, bomb: pickle.dump(bomb, file)),
        ("x.gz", lambda file, bomb: file.write(gzip.compress(pickle.dumps(bomb)))),
    ],
)
def test_nothing_is_unpickled(here, refused, name, save):
    bomb = here / "unpickled"
    with (here / name).open("wb") as file:
        save(file, Bomb(bomb))
    refused("train", name, "--run", "new", *TINY)
    refused("encode", "run", name, "-o", "codes.npz")
    refused("decode", "run", name, "-o", "means.npy")
    assert not bomb.exists()
    with (here / name).open("rb") as file:
        if name.endswith("npy") and file.read(1) == b"\x80":
            pickle.loads((here / name).read_bytes())
            assert bomb.exists(), "the pickle would have done it"


SOURCES = [
    ("real.npy:kind=binary", "two values"),
    ("grey.npy:kind=binary", "two values in binary data; got more, from 0 to 255"),
    ("real.npy:kind=levels", "whole numbers"),
    ("real.npy:kind=category", "whole numbers"),
    ("binary.npy:kind=levels,levels=1", "got 1"),
    ("grey.npy:kind=levels,levels=99", "got 99"),
    ("grey.npy:kind=levels,levels=70000", "got 70000"),
    ("binary.npy:binarise=dynamic", "8-bit levels"),
    ("real.npy:binarise=static", "8-bit levels"),
    (
        "grey.npy:kind=colour",
        "expected kind to be binary, levels, real, unit, count or category; got 'colour'",
    ),
    ("grey.npy:binarise=maybe", "expected binarise to be dynamic, static or none; got 'maybe'"),
    ("real.npy:standardise=all", "expected standardise to be"),
    ("grey.npy:knd=real", "'kind' (one of"),
    ("grey.npy:seed=-1", "expected seed to be"),
    ("grey.npy:valid=2.5", "expected valid to be"),
    ("grey.npy:kind=real,kind=levels", "once"),
    ("grey.npy:kind", "there is no file"),
    ("mnist:valid=60000", "got 60000"),
    ("mnst", "mnist"),
]


@pytest.mark.parametrize(("source", "says"), SOURCES)
def test_bad_options_of_a_source(refused, source, says):
    assert says in refused("train", source, "--run", "new", *TINY)


def test_more_held_out_rows_than_there_are(refused):
    line = refused("train", "grey.npy:valid=60", "--run", "new", *TINY)
    assert "at least 10 rows" not in line, "60 are at least 10: it is valid= that is too large"
    assert "valid" in line and "60" in line


def test_levels_below_zero(here, refused):
    np.save("x.npy", np.arange(-3, 57).reshape(20, 3))
    assert "got -3" in refused("train", "x.npy:kind=levels", "--run", "new", *TINY)


def test_bad_npz(here, refused):
    np.savez("x.npz", a=binary(), b=binary())
    assert "got a, b" in refused("train", "x.npz", "--run", "new", *TINY)
    assert "got 'c'" in refused("train", "x.npz:array=c", "--run", "new", *TINY)
    np.savez("x.npz")
    assert "no arrays" in refused("train", "x.npz", "--run", "new", *TINY)
    np.savez("x.npz", train=binary(), valid=binary(9, (5, 5)), test=binary(9))
    assert "splits of one shape" in refused("train", "x.npz", "--run", "new", *TINY)
    np.savez("x.npz", train=binary(), train_y=np.zeros(59))
    assert "60 rows; got 59" in refused("train", "x.npz", "--run", "new", *TINY)
    np.savez("x.npz", train=binary(), train_y=np.array(3))
    refused("train", "x.npz", "--run", "new", *TINY)


# -- options of training ---------------------------------------------------------------------------

OPTIONS = [
    (["--latent", "0"], "1 or more latent units; got 0"),
    (["--latent", "-3"], "1 or more latent units; got -3"),
    (["--latent", "2.5"], "--latent"),
    (["--latent", "two"], "--latent"),
    (["--batch", "0"], "a batch of 1 or more; got 0"),
    (["--batch", "-8"], "got -8"),
    (["--lr", "0"], "a learning rate above 0; got 0"),
    (["--lr", "-0.1"], "got -0.1"),
    (["--lr", "nan"], "got nan"),
    (["--lr", "inf"], "got inf"),
    (["--lr", "fast"], "--lr"),
    (
        ["--beta", "nan"],
        "beta as a number of 0 or more or a schedule such as warmup:share=0.1; got nan",
    ),
    (["--beta", "-1"], "got -1"),
    (["--beta", "inf"], "got inf"),
    (["--beta", "foo"], "expected a schedule: one of constant, warmup"),
    (["--beta", "wramup"], "expected a schedule: 'warmup'"),
    (["--beta", "warmup:steps=1000000"], "a warm-up within the run of 4 steps; got one of 1000000"),
    (["--beta", "warmup:epochs=1000000"], "a warm-up within the run"),
    (["--beta", "warmup:share=1.5"], "a warm-up within the run"),
    (["--beta", "warmup:share=0"], "one length above 0"),
    (["--beta", "warmup:share=nan"], "one length above 0"),
    (["--beta", "warmup:share=0.1,steps=2"], "one length above 0"),
    (["--beta", "warmup:to=-1"], "got -1"),
    (["--steps", "0"], "1 or more steps; got 0"),
    (["--ema", "1"], "an ema in [0, 1); got 1"),
    (["--ema", "-0.1"], "got -0.1"),
    (["--clip", "0"], "a clip above 0; got 0"),
    (["--clip", "nan"], "got nan"),
    (["--patience", "0"], "a patience of 1 or more; got 0"),
    (["--seed", "-1"], "a seed of 0 or more; got -1"),
    (["--precision", "16"], "precision 32 or bf16; got 16"),
    (["--compile", "maybe"], "compile auto, on or off; got maybe"),
    (["--compile", "on", "--precision", "bf16"], "--compile on"),
    (["--device", "quantum"], "auto, cpu, cuda or mps; got quantum"),
    (["--epochs", "3"], "one of epochs, steps and minutes; got several"),
    (["--minutes", "3"], "one of epochs, steps and minutes; got several"),
    (["--likelihood", "gausian"], "expected a likelihood: 'gaussian' (one of "),
    (["--posterior", "noraml"], "expected a posterior: 'normal' "),
    (["--prior", "zzz"], "expected a prior: one of normal"),
    (["--network", "resdual"], "expected a network: 'residual' "),
    (["--objective", "iwa"], "objective: 'iwae' "),
    (["--gradient", "pathwse"], "expected a gradient: 'pathwise' "),
    (["--optimizer", "adam"], "optimizer: 'adamw' "),
    (["--network", ""], "expected the name of a network; got ''"),
    (["--network", "residual:widht=8"], "expected an option of residual: 'width' (one of "),
    (["--network", "linear:width=8"], "expected an option of linear: none; got 'width'"),
    (
        ["--network", "residual:width=abc"],
        "expected residual:width to be a whole number; got 'abc'",
    ),
    (["--network", "residual:width=2.5"], "a whole number; got 2.5"),
    (["--network", "residual:width=true"], "a whole number; got True"),
    (["--network", "residual:width="], "a whole number; got ''"),
    (["--network", "residual:width=nan"], "expected residual:width to be a whole number"),
    (["--network", "residual:width=inf"], "expected residual:width to be a whole number"),
    (["--network", "residual:width=[1"], "a whole number; got '[1'"),
    (["--network", "residual:width=0"], "width >= 1"),
    (["--network", "residual:dropout=1"], "dropout < 1"),
    (["--network", "residual:width"], "key=value"),
    (["--network", "mlp:activation=sine"], "'relu' or 'tanh' or 'silu' or 'gelu'; got 'sine'"),
    (["--network", "mlp:width=8,width=9"], "once"),
    (["--objective", "iwae:k=0"], "k of 1 or more draws; got 0"),
    (["--optimizer", "sgd:momentum=1"], "momentum"),
    (["--posterior", "normal:limit=0"], "a limit of the log-variance"),
    (["--likelihood", "gaussian"], "or unit data for the likelihood Gaussian; got binary (4, 4)"),
    (["--likelihood", "nosuch.module:Class"], "a module that can be imported; got 'nosuch.module'"),
    (["--likelihood", "vaestro:Nosuch"], "expected vaestro to have Nosuch"),
    (["--network", "os:sep"], "a class or function"),
    (["--network", ":Class"], "got"),
    (["--network", ".relative:Class"], "got"),
    (["--init", "nosuch"], "a run's folder; got nosuch, which does not exist"),
    (["--init", "run", "--latent", "5"], "a model of the same parts in run"),
    (["--config", "nosuch.yaml"], "nosuch.yaml, which does not exist"),
    (["--latnt", "2"], "perhaps --latent; got --latnt"),
    (["--latent", "abc"], "expected a whole number for --latent; got 'abc'"),
    (["--lr", "fast"], "expected a number for --lr; got 'fast'"),
    (["extra"], "invalid arguments for `vaestro train`: unexpected extra argument(s) (extra)"),
    (["--run"], "--run"),
]


@pytest.mark.parametrize(
    ("options", "says"), OPTIONS, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_bad_options_of_training(refused, options, says):
    assert says in refused("train", "binary.npy", "--run", "new", *TINY, *options)


@pytest.mark.parametrize("epochs", ["0", "-1", "nan", "inf"])
def test_bad_epochs(refused, epochs):
    assert f"epochs above 0; got {epochs}" in refused(
        "train", "binary.npy", "--run", "new", "--latent", "2", "--epochs", epochs
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize(
    "command", [["train", "binary.npy", "--run", "new", *TINY], ["evaluate", "run"]]
)
def test_no_cuda(refused, command):
    assert "expected a device of this machine; got cuda, which it does not have" in refused(
        *command, "--device", "cuda"
    )


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("broken_missing", "import nosuch_module"),
        ("broken_syntax", "def broken(:"),
        ("broken_raising", "raise RuntimeError('two\\nlines')"),
        ("broken_from", "from os import nosuch"),
    ],
)
def test_a_module_that_cannot_be_imported(here, refused, name, code):
    (here / f"{name}.py").write_text(code + "\n")
    assert name in refused(
        "train", "binary.npy", "--run", "new", *TINY, "--network", f"{name}:Class"
    )


def test_a_bernoulli_of_grey_images_says_how_to_binarise(refused):
    line = refused("train", "grey.npy", "--run", "new", *TINY, "--likelihood", "bernoulli")
    assert (
        "expected binary data for the likelihood Bernoulli; got levels of 256 (4, 4)" in line
        and "binarise=dynamic" in line
    )
    refused(
        "train",
        "mnist:binarise=none,valid=59980",
        "--run",
        "new",
        *TINY,
        "--likelihood",
        "bernoulli",
    )


@pytest.mark.parametrize(
    ("source", "likelihood"),
    [("grey.npy", "poisson"), ("real.npy", "categorical"), ("real.npy", "bernoulli")],
)
def test_a_likelihood_of_another_kind(refused, source, likelihood):
    refused("train", source, "--run", "new", *TINY, "--likelihood", likelihood)


# -- folders and config files ----------------------------------------------------------------------


def test_an_existing_run_needs_force(refused):
    assert "got run, which exists (--force overwrites" in refused(
        "train", "binary.npy", "--run", "run", *TINY
    )


@pytest.mark.parametrize(
    "options",
    [
        ["--beta", "warmup:steps=1000000"],
        ["--device", "quantum"],
        ["--init", "nosuch"],
        ["--lr", "0"],
    ],
)
def test_a_late_mistake_leaves_the_run_that_was_to_be_overwritten(refused, options):
    refused("train", "binary.npy", "--run", "run", "--force", *TINY, *options)


def test_force_overwrites_runs_alone(here, refused):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.tex").write_text("years of work")
    for force in ([], ["--force"]):
        assert "files that are not a run's" in refused(
            "train", "binary.npy", "--run", "mine", *force, *TINY
        )
    assert "a new run folder" in refused("train", "binary.npy", "--run", "mine", *TINY)
    for options in ([], ["--force"]):
        assert "binary.npy, which is a file" in refused(
            "train", "binary.npy", "--run", "binary.npy", *options, *TINY
        )


def test_force_overwrites_a_run_and_nothing_beside_it(here):
    (here / "run" / "notes.txt").write_text("mine")
    old = load_file("run/model.safetensors")
    assert main(["train", "binary.npy", "--run", "run", "--force", "--seed", "5", *TINY]) == 0
    assert (here / "run" / "notes.txt").read_text() == "mine"
    assert any((old[k] != v).any() for k, v in load_file("run/model.safetensors").items())


def test_a_run_inside_a_file(refused):
    refused("train", "binary.npy", "--run", "real.npy/new", *TINY)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 1\n- 2\n", "contains list"),
        ("", "got"),
        ("just words\n", "contains str"),
        ("a: [1\n", "cannot be read as YAML"),
        ("a: \x00\n", "cannot be read as YAML"),
        ("!!python/object/apply:os.mkdir [made]\n", "cannot be read as YAML"),
        ("latnt: 3\n", "'latent' (one of"),
        ("latent: two\n", "two"),
        ("latent: [3]\n", "latent"),
        ("latent: true\n", "True"),
        ("network: 5\n", "network"),
        ("source: 5\n", "no file, folder or named data set '5'"),
        ("lr: fast\n", "fast"),
        ("batch: many\n", "many"),
        ("batch: 2.5\n", "2.5"),
        ("steps: 2.5\n", "2.5"),
        ("steps: [4]\n", "4"),
        ("clip: tight\n", "tight"),
        ("ema: slow\n", "slow"),
        ("patience: long\n", "long"),
        ("beta: [1]\n", "beta"),
        ("beta: true\n", "beta"),
        ("seed: one\n", "one"),
        ("init: 5\n", "5"),
        ("device: 5\n", "device"),
        ("optimizer: 5\n", "5"),
    ],
)
def test_bad_config_files(here, refused, text, says):
    Path("c.yaml").write_text(text)
    given = yaml.safe_load(text) if text.startswith(("steps", "batch", "latent", "network")) else {}
    beside = [["--network", "mlp:width=8"], ["--latent", "2"], ["--steps", "4"], ["--batch", "16"]]
    options = [word for option in beside if option[0][2:] not in given for word in option]
    source = [] if text.startswith("source") else ["binary.npy"]
    assert says in refused(
        "train", *source, "--run", "new", "--config", "c.yaml", "--quiet", *options
    )


@pytest.mark.parametrize("binary_file", ["binary.npy", "run"])
def test_a_config_that_is_no_text(refused, binary_file):
    assert "a YAML file of options" in refused(
        "train", "binary.npy", "--run", "new", "--config", binary_file, *TINY
    )


@pytest.mark.parametrize(
    "text", ["lr: 1e-3", "precision: 32", "compile: off", "beta: 1e-1", "seed: 3"]
)
def test_config_files_take_what_people_write(here, capsys, text):
    """YAML 1.1 reads 1e-3 as text, 32 as a number and off as false; none of them is a mistake of
    the user's."""
    Path("c.yaml").write_text(text + "\n")
    code = main(
        [
            "train",
            "binary.npy",
            "--config",
            "c.yaml",
            "--steps",
            "4",
            "--network",
            "mlp:width=8",
            "--dry-run",
        ]
    )
    out, err = capsys.readouterr()
    assert code == 0, err
    assert yaml.safe_load(out).get("lr" if "lr" in text else "steps") == (
        0.001 if "lr" in text else 4
    )


# -- runs ------------------------------------------------------------------------------------------

COMMANDS = [
    ["evaluate", "RUN"],
    ["sample", "RUN", "-o", "new.npy"],
    ["encode", "RUN", "binary.npy", "-o", "new.npz"],
    ["reconstruct", "RUN", "binary.npy", "-o", "new.npy"],
    ["decode", "RUN", "z.npy", "-o", "new.npy"],
    ["info", "RUN"],
    ["train", "--resume", "RUN"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_a_run_that_is_not_one(here, refused, command):
    (here / "empty").mkdir()
    for path, says in [
        ("nosuch", "does not exist"),
        ("empty", "no config.yaml"),
        ("binary.npy", "a run's folder"),
    ]:
        assert says in refused(*[path if a == "RUN" else a for a in command])


@pytest.mark.parametrize("command", ["evaluate", "sample"])
def test_no_runs_at_all(refused, command):
    assert "expected a run; got none under runs/" in refused(command)


@pytest.mark.parametrize("command", COMMANDS[:5], ids=lambda c: c[0])
@pytest.mark.parametrize(
    "damage",
    [
        "cut",
        "empty",
        "words",
        "missing",
        "others",
        "shapes",
        "no config.json",
        "config.json list",
        "config.json {}",
    ],
)
def test_damaged_weights(here, refused, command, damage):
    weights, config = here / "run" / "model.safetensors", here / "run" / "config.json"
    content = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        weights.write_bytes(b"")
    elif damage == "words":
        weights.write_bytes(b"these are not the weights you are looking for")
    elif damage == "missing":
        weights.unlink()
    elif damage == "others":
        save_file({"another": np.zeros(3)}, weights)
    elif damage == "shapes":
        save_file(
            {
                k: v[..., :-1] if v.ndim > 1 and not k.startswith("space.") else v
                for k, v in load_file(weights).items()
            },
            weights,
        )
    elif damage == "no config.json":
        config.unlink()
    else:
        config.write_text("[]" if damage.endswith("list") else "{}")
    refused(*["run" if a == "RUN" else a for a in command])


@pytest.mark.parametrize("text", ["", "[1, 2]\n", "source: [\n"])
def test_a_damaged_config(here, refused, text):
    (here / "run" / "config.yaml").write_text(text)
    for command in (["evaluate", "run"], ["info", "run"], ["train", "--resume", "run"]):
        refused(*command)


def test_data_that_went_away(here, refused):
    config = yaml.safe_load((here / "run" / "config.yaml").read_text())
    (here / "run" / "config.yaml").write_text(yaml.safe_dump(config | {"source": "gone.npy"}))
    for command in (["evaluate", "run"], ["train", "--resume", "run"]):
        assert "gone.npy" in refused(*command)


@pytest.mark.parametrize(
    "options",
    [
        ["--lr", "0.1"],
        ["--latent", "3"],
        ["--batch", "8"],
        ["--seed", "1"],
        ["--run", "new"],
        ["--force"],
        ["--dry-run"],
        ["--config", "c.yaml"],
    ],
)
def test_resume_takes_no_other_options(refused, options):
    refused("train", "--resume", "run", *options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--k", "0"], "k of 1 or more draws; got 0"),
        (["--k", "-1"], "got -1"),
        (["--k", "many"], "--k"),
        (["--limit", "4"], "a limit between 1 and the 3 data of the test split; got 4"),
        (["--limit", "0"], "got 0"),
        (["--limit", "-2"], "got -2"),
        (["--methods", "elbo,aisle"], "a method: 'ais' (one of exact, elbo, iwae, ais"),
        (["--methods", ""], "each method once, among exact, elbo, iwae"),
        (["--split", "tset"], "train, valid or test; got 'tset'"),
        (["--data", "grey.npy"], "binary values 0 and 1"),
        (["--data", "nosuch.npy"], "there is no file"),
        (["--data", "binary.npy", "--split", "tset"], "got 'tset'"),
        (["--device", "quantum"], "auto, cpu, cuda or mps"),
        (["--seed", "one"], "--seed"),
    ],
)
def test_bad_options_of_evaluate(refused, options, says):
    assert says in refused("evaluate", "run", *options)


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_data_that_the_run_cannot_take(here, refused, command):
    for name, array in [
        ("other.npy", binary(20, (4, 5))),
        ("flat.npy", binary(20, (16,))),
        ("colour.npy", binary(20, (4, 4, 3))),
    ]:
        np.save(name, array)
        assert "expected data of shape (N, 4, 4), as the run was trained on; got" in refused(
            command, "run", name, "-o", "new.npz"
        )
    assert "expected binary values 0 and 1; got 2, 3, 4 .." in refused(
        command, "run", "grey.npy", "-o", "new.npz"
    )
    assert "expected binary values 0 and 1" in refused(command, "run", "real.npy", "-o", "new.npz")
    np.save("nan.npy", with_one(np.nan))
    assert "1 NaN" in refused(command, "run", "nan.npy", "-o", "new.npz")
    assert "train, valid, test or all; got 'tset'" in refused(
        command, "run", "binary.npy", "-o", "new.npz", "--split", "tset"
    )


@pytest.mark.parametrize(
    "command",
    [
        ["encode", "run", "binary.npy"],
        ["reconstruct", "run", "binary.npy"],
        ["decode", "run", "z.npy"],
        ["sample", "run"],
    ],
)
def test_bad_outputs(here, refused, command):
    assert "a file name that ends in" in refused(*command, "-o", "new.jpeg")
    assert "a file name that ends in" in refused(*command, "-o", "new")
    assert "the folder nosuch does not exist" in refused(*command, "-o", "nosuch/new.npz")
    (here / "old.npz").write_bytes(b"precious")
    assert "old.npz exists (--force overwrites it)" in refused(*command, "-o", "old.npz")
    (here / "folder.npz").mkdir()
    if command[0] == "encode":
        refused(*command, "-o", "folder.npz", "--force")
    assert main([*command, "-o", "old.npz", "--force", "--quiet"]) == 0
    assert len(np.load("old.npz").files) >= 1


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 5), np.float32), "latents of shape (N, 2); got float32 (3, 5)"),
        (np.zeros(2, np.float32), "latents of shape (N, 2)"),
        (np.zeros((3, 2, 2), np.float32), "latents of shape (N, 2)"),
        (np.full((3, 2), np.nan, np.float32), "finite latents"),
        (np.full((3, 2), True), "got bool"),
        (np.zeros((0, 2)), "empty array"),
    ],
)
def test_bad_latents(here, refused, array, says):
    np.save("bad.npy", array)
    assert says in refused("decode", "run", "bad.npy", "-o", "new.npy")


def test_latents_that_cannot_be_read(here, refused):
    np.savez("two.npz", train=np.zeros((3, 2)))
    refused("decode", "run", "two.npz", "-o", "new.npy")
    np.savez("cut.npz", z=np.zeros((3, 2)))
    Path("cut.npz").write_bytes(Path("cut.npz").read_bytes()[:90])
    assert "cut.npz" in refused("decode", "run", "cut.npz", "-o", "new.npy")
    refused("decode", "run", "nosuch.npz", "-o", "new.npy")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["sample", "run", "-n", "0", "-o", "new.npy"], "1 or more samples; got 0"),
        (["sample", "run", "-n", "-1", "-o", "new.png"], "got -1"),
        (
            ["sample", "run", "--temperature", "-1", "-o", "new.npy"],
            "a temperature of 0 or more; got -1",
        ),
        (["sample", "run", "--temperature", "nan", "-o", "new.npy"], "got nan"),
        (
            ["encode", "run", "binary.npy", "-o", "new.npz", "--sample", "-1"],
            "0 or more draws; got -1",
        ),
        (
            ["encode", "run", "binary.npy", "-o", "new.npy", "--sample", "2"],
            "a .npz file for draws",
        ),
        (
            ["reconstruct", "run", "binary.npy", "-o", "new.npy", "-n", "0"],
            "-n between 1 and 60; got 0",
        ),
        (["reconstruct", "run", "binary.npy", "-o", "new.npy", "-n", "61"], "got 61"),
        (["encode", "run", "binary.npy"], "-o/--output"),
        (["encode", "run"], "got none"),
        (["encode"], "got none"),
        (["decode", "run", "-o", "x.npy"], "got none"),
        (["trian"], "perhaps train (one of train, "),
        (["frobnicate"], "expected a command (one of train, "),
        (["evaluate", "run", "--mehtods", "elbo"], "perhaps --methods; got --mehtods"),
        (["evaluate", "run", "--zzz"], "(see vaestro evaluate --help); got --zzz"),
        (["--vresion"], "--vresion"),
        (["parts", "nosuch"], "(one of model, likelihood, posterior, "),
        (["parts", "likelyhood"], "expected a kind of part: 'likelihood'"),
    ],
)
def test_other_commands(refused, command, says):
    assert says in refused(*command)


def test_a_picture_of_what_is_no_picture(here, refused, capsys):
    np.save("flat.npy", real(40, (3,)))
    assert main(["train", "flat.npy", "--run", "flat", *TINY]) == 0
    assert "expected images for a .png file; got real (3,) data" in refused(
        "sample", "flat", "-o", "new.png"
    )
    assert "expected images" in refused("reconstruct", "flat", "flat.npy", "-o", "new.png")


def test_python_raises_value_errors_and_writes_nothing(here):
    before = tree(here)
    for source, options in [
        (binary(3), {}),
        (real() * np.nan, {}),
        (binary(), {"latnt": 3}),
        (binary(), {"latent": 0}),
        ([1, 2], {}),
    ]:
        with pytest.raises(ValueError, match=r"expected .*; got "):
            vs.train(source, run="new", steps=2, **options)
    assert tree(here) == before


def test_debug_shows_where(here, capsys):
    for arguments in (["--debug", "parts", "nosuch"], ["parts", "nosuch", "--debug"]):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert "Traceback" in err and err.splitlines()[-1].startswith("vaestro: ")


def test_the_program_exits_with_the_code(here):
    environment = os.environ | {"PYTHONPATH": str(Path(vs.__file__).parents[1])}
    command = [sys.executable, "-m", "vaestro", "train", "nosuch.npy", "--run", "new"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("vaestro: ") and len(done.stderr.splitlines()) == 1
    assert not Path("new").exists()


# -- what fails on the way -------------------------------------------------------------------------


@pytest.fixture
def stopped(here, monkeypatch, capsys):
    """Train a run with a checkpoint at each step, of which the last two are kept."""
    monkeypatch.setattr(job, "CHECKPOINT_SECONDS", 0.0)
    assert main(["train", "binary.npy", "--run", "stopped", *TINY]) == 0
    checkpoints = sorted(Path("stopped/checkpoints").iterdir())
    assert len(checkpoints) == 2
    capsys.readouterr()
    return checkpoints


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def lines(run):
    return [
        {k: v for k, v in m.items() if k not in ("seconds", "examples_per_second")}
        for m in vs.Run(run).metrics()
    ]


def test_resume_uses_the_checkpoint_before_a_damaged_one(stopped, capsys):
    expected, weights = lines("stopped"), Path("stopped/model.safetensors").read_bytes()
    cut(stopped[-1])
    Path("stopped/model.safetensors").unlink()
    assert main(["train", "--resume", "stopped"]) == 0
    out, err = capsys.readouterr()
    assert (
        err == ""
        and f"{stopped[-1].name} is damaged" in out
        and "continuing from the one before it" in out
    )
    assert "continuing from step 3 of 4" in out
    assert (
        lines("stopped") == expected and Path("stopped/model.safetensors").read_bytes() == weights
    )


def test_resume_starts_again_where_all_checkpoints_are_damaged(stopped, capsys):
    expected, weights = lines("stopped"), Path("stopped/model.safetensors").read_bytes()
    cut(stopped[0])
    stopped[1].write_bytes(b"")
    assert main(["train", "--resume", "stopped"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.count("is damaged") == 2 and "starting from the beginning" in out
    assert (
        lines("stopped") == expected and Path("stopped/model.safetensors").read_bytes() == weights
    )


def test_resume_before_the_first_checkpoint(stopped, capsys):
    expected, weights = lines("stopped"), Path("stopped/model.safetensors").read_bytes()
    shutil.rmtree("stopped/checkpoints")
    Path("stopped/model.safetensors").unlink()
    Path("stopped/metrics.jsonl").unlink()
    assert main(["train", "--resume", "stopped"]) == 0
    assert "no checkpoint yet: starting from the beginning" in capsys.readouterr().out
    assert (
        lines("stopped") == expected and Path("stopped/model.safetensors").read_bytes() == weights
    )


def test_resume_of_a_finished_run_changes_nothing(stopped):
    expected, weights = lines("stopped"), Path("stopped/model.safetensors").read_bytes()
    assert main(["train", "--resume", "stopped", "--quiet"]) == 0
    assert (
        lines("stopped") == expected and Path("stopped/model.safetensors").read_bytes() == weights
    )


def test_a_half_written_line_of_metrics_is_left_out(stopped):
    expected = lines("stopped")
    with Path("stopped/metrics.jsonl").open("a") as file:
        file.write('{"split": "tra')
    assert lines("stopped") == expected
    assert main(["train", "--resume", "stopped", "--quiet"]) == 0
    assert [
        json.loads(line)["step"] for line in Path("stopped/metrics.jsonl").read_text().splitlines()
    ] == [m["step"] for m in expected]


FRAGILE = """
import torch

class Fragile(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.map = torch.nn.Linear(torch.Size(inputs).numel(), torch.Size(outputs).numel())
        self.outputs, self.calls = outputs, 0

    def forward(self, x):
        self.calls += self.training
        out = self.map(x.flatten(1)).unflatten(1, self.outputs)
        return out * float("nan") if self.calls > 9 else out
"""


@pytest.mark.parametrize(
    "how", ["a network that returns NaN", "a learning rate that is far too high"]
)
def test_a_training_that_diverges_keeps_the_weights_from_before(here, capsys, how):
    (here / "fragile_network.py").write_text(FRAGILE)
    options = {
        "a network that returns NaN": ["--network", "fragile_network:Fragile"],
        "a learning rate that is far too high": [
            "--network",
            "mlp:width=8",
            "--optimizer",
            "sgd",
            "--lr",
            "1e30",
            "--clip",
            "1e30",
        ],
    }[how]
    code = main(
        [
            "train",
            "binary.npy",
            "--run",
            "new",
            "--latent",
            "2",
            "--steps",
            "90",
            "--batch",
            "16",
            "--device",
            "cpu",
            *options,
        ]
    )
    err = capsys.readouterr().err
    assert code == 1
    assert (
        len(err.splitlines()) == 1
        and err.startswith("vaestro: loss or gradient were not finite")
        and "kept" in err
    )
    assert all(np.isfinite(v).all() for v in load_file("new/model.safetensors").values())
    run = vs.Run("new")
    assert run.metrics()[0]["step"] == 0 and not run.finished
    assert np.isfinite(vs.evaluate(run.model(), run.data().test, k=2)["elbo"].nats).all()


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [("zero", "1 / 0", "ZeroDivisionError"), ("value", "int('x')", "invalid literal")],
)
def test_a_part_that_fails_gives_one_line(here, capsys, name, code, says):
    (here / f"failing_{name}.py").write_text(
        FRAGILE.replace('out * float("nan")', code).replace("> 9", "> -1")
    )
    assert (
        main(["train", "binary.npy", "--run", "new", *TINY, "--network", f"failing_{name}:Fragile"])
        == 2
    )
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and err.startswith("vaestro: ") and says in err
