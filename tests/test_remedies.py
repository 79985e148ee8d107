"""Remedies: what is offered is accepted by `train --dry-run`, does what it says, and where there is
none the reason is given."""

import ast
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vaestro
import vaestro as vs
from vaestro.cli import main
from vaestro.diagnosis import Finding, Remedies
from vaestro.diagnosis.records import NO_COMMAND
from vaestro.runs import Job


def names_of_findings() -> set[str]:
    """Return the names of all findings that the package makes."""
    found = set()
    for file in (Path(vaestro.__file__).parent / "diagnosis").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "Finding"
            ):
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    found.add(first.value)
    return found


def test_every_finding_has_a_command_or_says_why_not() -> None:
    names = names_of_findings()
    assert len(names) > 20 and not names - NO_COMMAND.keys()
    without, held = (
        Finding("few data", "note", "x"),
        Finding("few data", "note", "x", "vaestro train"),
    )
    assert list(without.lines())[1] == f"    no command: {NO_COMMAND['few data']}"
    assert held.no_remedy == "" and list(held.lines())[1] == "    try: vaestro train"


R = np.random.default_rng(0)


def _csv() -> str:
    lines = ["size,colour,visits"] + [
        f"{R.normal():.3f},{'red' if R.random() < 0.5 else 'blue'},{R.poisson(3)}"
        for _ in range(300)
    ]
    Path("t.csv").write_text("\n".join(lines))
    return "t.csv"


def _npy(x: np.ndarray, options: str = "") -> str:
    np.save("x.npy", x)
    return f"x.npy{options}"


def _texts() -> str:
    words = ["dog", "cat", "ship", "river", "king", "moon"]
    Path("t.txt").write_text("\n".join(" ".join(R.choice(words, 5)) for _ in range(300)))
    return "t.txt:tokens=words"


KINDS: dict[str, tuple[Callable[[], str], dict[str, Any]]] = {
    "binary": (lambda: _npy(R.integers(0, 2, (300, 20)).astype(np.uint8)), {}),
    "images": (lambda: _npy(R.integers(0, 256, (120, 28, 28, 3)).astype(np.uint8)), {}),
    "texts": (_texts, {}),
    "texts, transformer": (_texts, {"network": "transformer:width=32"}),
    "tables": (_csv, {}),
    "counts": (lambda: _npy(R.poisson(3, (300, 6)), ":kind=count"), {}),
    "series": (lambda: _npy(R.normal(size=(200, 64, 2)), ":series=true"), {}),
    "real": (lambda: _npy(R.normal(size=(300, 6))), {"likelihood": "gaussian:variance=3,limit=10"}),
    "iwae": (
        lambda: _npy(R.normal(size=(300, 6))),
        {"likelihood": "gaussian:variance=3", "objective": "iwae:k=3"},
    ),
    "discrete": (
        lambda: _npy(R.integers(0, 2, (300, 20)).astype(np.uint8)),
        {"posterior": "bernoulli"},
    ),
    "flow posterior": (lambda: _npy(R.normal(size=(300, 6))), {"posterior": "iaf"}),
    "full covariance, compiled": (
        lambda: _npy(R.normal(size=(300, 6))),
        {"posterior": "full-normal", "compile": "on"},
    ),
    "limited posterior": (lambda: _npy(R.normal(size=(300, 6))), {"posterior": "normal:limit=10"}),
    "linear": (lambda: _npy(R.normal(size=(300, 6))), {"network": "linear"}),
}


def offered(remedy: Remedies) -> dict[str, str]:
    """Return every command that remedies can give."""
    made = {
        "slower": remedy.slower(2),
        "longer": remedy.again("longer", steps=20),
        "patient": remedy.patient(),
        "beta": remedy.with_beta(1.0),
        "warm": remedy.warm_up(),
        "schedule": remedy.shorter_schedule(1.0),
        "collapse": remedy.for_collapse(1.0),
        "collapse, beta": remedy.for_collapse(4.0),
        "decoder": remedy.for_decoder(1.0),
        "variance": remedy.learned_variance(),
        "draws": remedy.more_draws(),
        "smaller": remedy.smaller(),
        "fewer units": remedy.fewer_units(2),
        "prior": remedy.fitted_prior(),
    }
    return made | {f"cure: {words}": command for words, command in remedy.cures}


def weights(capsys: pytest.CaptureFixture[str]) -> int:
    found = re.search(r"([\d,]+) parameters", capsys.readouterr().out)
    assert found is not None
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize("kind", KINDS)
def test_every_remedy_that_is_offered_is_accepted(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vaestro.loop.compiling.BACKEND", "eager")
    source, options = KINDS[kind]
    job = Job.new(
        source(),
        run="run",
        **{"steps": 2, "batch": 8, "latent": 4, "device": "cpu", "compile": "off", **options},
    )
    with job:
        for _ in job:
            pass
    remedy = job._remedies()
    made = offered(remedy)
    assert {"slower", "longer", "beta", "warm", "collapse", "smaller", "fewer units"} <= {
        name for name, command in made.items() if command
    }
    own = sum(p.numel() for p in job.training.model.parameters())
    for name, command in made.items():
        if not command:
            continue
        words = shlex.split(command)
        capsys.readouterr()
        if words[1] == "train":
            assert main([*words[1:], "--dry-run"]) == 0, (name, command, capsys.readouterr().err)
            if name == "smaller" and "--network" in words:
                assert weights(capsys) <= own / 2
        else:
            from vaestro.prior_fitting import prepare

            assert prepare(vs.Run("run"), "mixture", path=tmp_path / "new") is not None
    assert ("--network" in made["smaller"]) == (kind != "linear")
    posterior = made.get("cure: a posterior with a minimum rate", "")
    assert ("normal:limit=10,min_rate=0.1" in posterior) == (kind == "limited posterior")


def test_a_remedy_that_would_be_refused_is_not_offered() -> None:
    def trial(config: Any) -> int:
        if config.get("free_bits") or "min_rate" in str(config.get("posterior")):
            raise ValueError("expected something else")
        return 10

    remedy = Remedies(
        "run", {"posterior": "normal", "lr": 1e-3, "network": "mlp:width=64"}, trial, 100
    )
    assert [words for words, _ in remedy.cures] == [
        "a weight of the KL that rises from 0",
        "aggressive updates of the encoder",
    ]
    assert "mlp:width=32" in remedy.smaller()
    assert "--network" not in Remedies("run", {"network": "mlp:width=64"}, trial, 15).smaller()


def test_a_remedy_names_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    remedy = Remedies(str(tmp_path / "run"), {"lr": 1e-3})
    (tmp_path / "run-beta1").mkdir()
    assert shlex.split(remedy.with_beta(1.0))[-1] == str(tmp_path / "run-beta1-2")


@pytest.mark.parametrize(
    ("likelihood", "variance"),
    [
        ("gaussian", None),
        ("gaussian:variance=3", 3),
        ("gaussian:limit=9,variance=0.5", 0.5),
        ("gaussian:variance=pixel", None),
        ("laplace", None),
    ],
)
def test_the_fixed_variance_is_read_from_parsed_options(
    likelihood: str, variance: float | None
) -> None:
    found = Remedies("run", {"likelihood": likelihood}).fixed_variance
    assert (None if found is None else float(found)) == variance


def test_a_prior_that_lowers_the_bound_is_not_written_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    vs.train(
        _npy(R.normal(size=(300, 6))),
        run="run",
        latent=2,
        steps=200,
        network="linear",
        device="cpu",
        compile="off",
    )
    bad = [
        "fit-prior",
        "run",
        "--prior",
        "mixture:components=1",
        "--steps",
        "3",
        "--lr",
        "3",
        "--run",
        "new",
    ]
    capsys.readouterr()
    assert main(bad) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "lowers the bound by" in err and "--force" in err
    assert not Path("new").exists()
    with pytest.raises(RuntimeError, match="lowers the bound"):
        vs.fit_prior("run", "mixture:components=1", "new", steps=3, lr=3.0)
    assert main([*bad, "--force"]) == 0
    assert (
        "lowers the bound by" in capsys.readouterr().out and Path("new/model.safetensors").exists()
    )
