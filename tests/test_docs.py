"""Check that the documents agree with the code."""

import re
from pathlib import Path

import numpy as np
import pytest

from vaestro.cli import main

DOCS = Path(__file__).parent.parent / "docs"


def test_iwae_can_be_recomputed_from_what_encode_and_decode_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    r = np.random.default_rng(0)
    np.save(
        "x.npy",
        (r.random((900, 6, 6)) < r.random((3, 6, 6))[r.integers(0, 3, 900)]).astype(np.uint8),
    )
    assert (
        main(
            [
                "train",
                "x.npy",
                "--latent",
                "3",
                "--steps",
                "150",
                "--network",
                "mlp:width=32",
                "--run",
                "runs/demo",
                "--quiet",
            ]
        )
        == 0
    )
    text = (
        (DOCS / "evaluation.md")
        .read_text()
        .partition("## A check without Vaestro's code")[2]
        .partition("\n## ")[0]
        .replace("mnist", "x.npy")
    )
    scope: dict[str, object] = {}
    lines = 0
    for code, command in re.findall(
        r"```python\n(.*?)```|^    vaestro ([^\n]*)$", text, re.S | re.M
    ):
        if command:
            assert main([*command.split(), "--quiet"]) == 0
        else:
            lines += len(code.splitlines())
            exec(code, scope)
    assert lines <= 15
    mine, theirs = map(float, capsys.readouterr().out.split())
    arrays = np.load("runs/demo/evaluation.npz")
    variance = 1 / arrays["iwae_ess"][:20] - 1 / 500  # of the mean weight, relative
    assert mine == pytest.approx(theirs, abs=4.5 * np.sqrt(2 * variance.sum()) / 20)
    assert mine == pytest.approx(theirs, abs=0.1)
    assert abs(mine - float(arrays["elbo"][:20].mean())) > 0.02


def test_the_architecture_names_every_module() -> None:
    text = (DOCS / "architecture.md").read_text()
    source = DOCS.parent / "src" / "vaestro"
    modules = {path.name for path in source.rglob("*.py")} - {"__init__.py"}
    assert [name for name in sorted(modules) if name not in text] == []
    named = re.findall(r"[\w/]+\.py", text)
    assert [n for n in named if not (DOCS.parent / n).exists() and not any(source.rglob(n))] == []


def test_the_snippets_of_python_md_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    snippets = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.S)
    assert snippets
    for snippet in snippets:
        exec(snippet, scope)
