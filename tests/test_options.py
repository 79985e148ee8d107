"""Strings and options: the one parser, and the rows that make every interface of training."""

import subprocess
import sys
from pathlib import Path

import pytest

import vaestro as vs
from vaestro import options
from vaestro.data import source_options
from vaestro.diagnosis import Remedies
from vaestro.text import Spec, parse, parse_path

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(
    ("text", "name", "read"),
    [
        ("normal", "normal", {}),
        ("normal:", "normal", {}),
        ("normal:limit=10", "normal", {"limit": 10}),
        ("iwae:k=5,miwae-k=1e-3", "iwae", {"k": 5, "miwae_k": 0.001}),
        ("my.module:Class", "my.module:Class", {}),
        ("my.module:Class:width=30,wide=true", "my.module:Class", {"width": 30, "wide": True}),
        ('gaussian:library="a, b"', "gaussian", {"library": "a, b"}),
        ("gaussian:library=a:b", "gaussian", {"library": "a:b"}),
        ("s3://b/date=2026/x.tar:size=64", "s3://b/date=2026/x.tar", {"size": 64}),
        ("hf:owner/name:kind=levels", "hf:owner/name", {"kind": "levels"}),
        ('it"s.npy:size=3', 'it"s.npy', {"size": 3}),
        ("student-t:df=none,scale=inf", "student-t", {"df": "none", "scale": float("inf")}),
    ],
)
def test_specs_are_read_and_written(text: str, name: str, read: dict[str, object]) -> None:
    assert parse(text) == (name, read)
    assert parse(str(parse(text))) == (name, read)


@pytest.mark.parametrize("text", ["a:b=1,b=2", 'a:b="x', "a:b=1,c", "a:b c=1", "a:=1"])
def test_specs_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected (each option once|closed quotes|options as)"):
        parse(text)


def test_a_file_may_have_the_name_of_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_path("x:size=3") == Spec("x", {"size": 3})
    Path("x:size=3").touch()
    assert parse_path("x:size=3") == Spec("x:size=3", {})


@pytest.mark.parametrize(
    ("posterior", "offered"),
    [("normal", "normal:min_rate=0.1"), ("normal:limit=10", "normal:limit=10,min_rate=0.1"),
     ("normal:min_rate=0.1", ""), ("full-normal", "")],
)  # fmt: skip
def test_a_limit_of_the_log_variance_is_no_minimum_rate(posterior: str, offered: str) -> None:
    cures = dict(Remedies("run", {"posterior": posterior}).cures)
    command = cures.get("a posterior with a minimum rate", "")
    assert (f"--posterior {offered} " in command) if offered else not command


def test_a_schedule_is_known_by_its_name() -> None:
    words = [w for w, _ in Remedies("run", {"beta": "warmup:share=0.2"}).cures]
    assert "a weight of the KL that rises from 0" not in words
    assert Remedies("run", {"beta": "warm.module:up"}).name("beta") == "warm.module:up"


def test_defaults_have_the_types_of_their_rows() -> None:
    given = {key: value for key, value in options.defaults().items() if value is not None}
    assert options.normalised(given) == given
    flags = [flag for row in options.OPTIONS for flag in row.flags]
    assert len(flags) == len(set(flags))


def test_the_reference_is_up_to_date() -> None:
    assert (DOCS / "options.md").read_text() == options.reference()
    assert (DOCS / "sources.md").read_text() == f"{source_options.reference()}\n"


ROW = """
import sys
from dataclasses import replace
import numpy as np
from vaestro import options
from vaestro.data import source_options
options.OPTIONS += (
    options.Option(
        "momentum_of_mine", float, "objective", "How heavy it is.", default=0.5, aliases=("mom",),
        resumable=True,
    ),
)
import vaestro as vs
from vaestro.cli import main
"""


def run_with_a_row(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ROW + code], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_row_is_an_option_everywhere(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("momentum-of-mine: 1e-1\nlatent: 2\n")
    (tmp_path / "bad.yaml").write_text("mom: heavy\n")
    out = run_with_a_row(
        """
assert "momentum_of_mine: float = 0.5" in str(vs.train.__signature__)
assert "momentum_of_mine: float = 0.5" in str(vs.resume.__signature__)
assert "    momentum_of_mine: How heavy it is. Default: 0.5." in vs.train.__doc__
assert "`--momentum-of-mine`, `--mom` *" in options.reference()
main(["train", "--help"])
np.save("x.npy", np.random.default_rng(0).normal(size=(60, 3)))
small = ["--steps", "2", "--network", "mlp:width=4"]
assert main(["train", "x.npy", "--config", "mine.yaml", "--run", "a", *small, "--quiet"]) == 0
assert main(["train", "x.npy", "--mom", "2", "--latent", "1", "--run", "b", *small]) == 0
assert main(["train", "x.npy", "--config", "bad.yaml", "--run", "c", *small]) == 2
assert main(["train", "--resume", "b", "--mom", "3"]) == 0
run = vs.train("x.npy", mom=4, run="d", steps=2, latent=1, network="mlp:width=4")
print([vs.Run(name).config["momentum_of_mine"] for name in "abd"])
""",
        tmp_path,
    )
    assert "--momentum-of-mine, --mom <float>" in out
    assert "How heavy it is.  [default: 0.5]" in " ".join(out.split()).replace(". [", ".  [")
    assert out.splitlines()[-1] == "[0.1, 3.0, 4.0]"


def test_train_has_a_signature_that_completes() -> None:
    import inspect

    parameters = inspect.signature(vs.train).parameters
    assert list(parameters)[:5] == ["source", "run", "force", "config", "recipe"]
    assert set(parameters) >= {row.name for row in options.OPTIONS}
    assert parameters["beta"].annotation == float | str
    own = ["run", "trust", "progress"]
    assert list(inspect.signature(vs.resume).parameters) == [*own, *options.resumable()]
