"""Progress: long work is named within two seconds, in each command that can take long."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest

import vaestro as vs
from vaestro.cli import main
from vaestro.cli.console import Console, console

OPTIONS = {"latent": 2, "network": "mlp:width=4", "device": "cpu", "compile": "off"}
TRAIN = ["train", "t.csv", "--run", "new", "--latent", "2", "--network", "linear", "--steps", "30"]
COMMANDS = {
    "train": [*TRAIN, "--device", "cpu"],
    "evaluate": ["evaluate", "r", "--k", "2"],
    "diagnose": ["diagnose", "r"],
    "gradients": ["gradients", "r", "--repeats", "20"],
    "report": ["report", "r"],
    "sample": ["sample", "r", "-n", "2", "-o", "s.csv"],
    "encode": ["encode", "r", "t.csv", "-o", "z.npz"],
    "decode": ["decode", "r", "code.npy", "-o", "d.csv"],
    "reconstruct": ["reconstruct", "r", "t.csv", "-o", "m.csv"],
    "impute": ["impute", "r", "t.csv", "-o", "i.csv"],
    "interpolate": ["interpolate", "r", "t.csv", "0", "1", "-o", "p.csv"],
    "edit": ["edit", "r", "t.csv:real=a", "--attribute", "a", "-o", "e.csv"],
    "fit-prior": ["fit-prior", "r", "--prior", "mixture:components=2", "--steps", "2", "--force"],
}
# functions that read data, or use a model on many rows
LONG = (
    "runs.job.load",
    "runs.job.expected_seconds",
    "runs.session.load_rows",
    "runs.run.Run.data",
    "runs.summary.evaluate",
    "latent.Codes.__call__",
    "latent.encode",
    "latent.decode",
    "latent.reconstruct",
    "latent.sample",
    "latent.interpolate",
    "latent.impute",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, its data and latents."""
    folder = tmp_path_factory.mktemp("progress")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("VAESTRO_CACHE", str(folder / "cache"))
        rows = np.random.default_rng(0).normal(size=(80, 3))
        np.savetxt("t.csv", rows, delimiter=",", header="a,b,c", comments="")
        np.save("code.npy", np.zeros((2, 2), np.float32))
        vs.train("t.csv", run="r", steps=3, **OPTIONS)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_long_work_is_named(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VAESTRO_CACHE", str(folder / "cache"))
    named: list[str] = []
    calls: list[tuple[str, bool]] = []

    @contextmanager
    def during(self: Console, what: str) -> Iterator[None]:
        named.append(what)
        try:
            yield
        finally:
            named.pop()

    def watched(name: str) -> Callable[..., object]:
        function = resolve_name(f"vaestro.{name}")

        def call(*args: object, **options: object) -> object:
            calls.append((name, bool(named)))
            return function(*args, **options)

        return call

    for name in LONG:
        monkeypatch.setattr(f"vaestro.{name}", watched(name))
    monkeypatch.setattr(Console, "during", during)
    assert main(COMMANDS[command]) == 0, capsys.readouterr().err
    assert calls and all(inside for _, inside in calls), calls


def test_work_is_named_if_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say, said = console.say, threading.Event()
    monkeypatch.setattr(console, "delay", 0.0)
    monkeypatch.setattr(console, "say", lambda line: (say(line), said.set()))
    with console.during("reading x.npy"):
        assert said.wait(60)
    assert capsys.readouterr().out == "reading x.npy ..\n"
    monkeypatch.setattr(console, "delay", 60.0)
    with console.during("reading x.npy"):
        pass
    assert capsys.readouterr().out == ""
    steps = console.progress(iter([(0.5, 1), (1.0, 2)]), "ELBO")
    assert [item for _, item in steps] == [1, 2]


def test_the_seconds_on_a_terminal_are_replaced_by_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, drawn = console._draw, threading.Event()
    monkeypatch.setattr(console, "delay", 0.0)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(console, "_draw", lambda *a: (draw(*a), drawn.set()))
    with console.during("reading x.npy"):
        assert drawn.wait(60)
        console.say("one line")
    shown = capsys.readouterr().out
    assert shown.startswith("\rreading x.npy: 0 s   ") and "one line\n" in shown
    assert not shown.split("one line\n")[0].rsplit("\r")[-1], "the line begins at the margin"
