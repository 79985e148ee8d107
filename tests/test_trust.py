"""Code that files name runs only if the user trusts it; each payload here would leave a mark."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import vaestro as vs
from vaestro import trust
from vaestro.cli import main
from vaestro.parts import find
from vaestro.trust import Untrusted, named_code

TINY = ["--latent", "2", "--steps", "2", "--network", "linear", "--quiet"]
MARKING = """
import pathlib
import math
from torch import nn
pathlib.Path("MARK").write_text(__file__)
class Net(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.outputs = outputs
        self.layer = nn.Linear(math.prod(inputs), math.prod(outputs))
    def forward(self, x):
        return self.layer(x.flatten(1)).unflatten(-1, self.outputs)
def undeclared(inputs, outputs):
    pathlib.Path("CALLED").touch()
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a run without code of its own."""
    folder = tmp_path_factory.mktemp("trained")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(60, 3)))
    assert main(["train", str(folder / "x.npy"), "--run", str(folder / "run"), *TINY]) == 0
    return folder / "run"


@pytest.fixture
def received(tmp_path, monkeypatch, trained):
    """Work in a folder that was received: a run, and a module that would leave a mark."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shutil.copytree(trained, "run")
    (tmp_path / "marking.py").write_text(MARKING)
    np.save("z.npy", np.zeros((3, 2), np.float32))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("marking", None)


def name_code(options, model=None):
    """Write options into run/config.yaml, and options of the model into run/config.json."""
    with open("run/config.yaml", "a") as file:
        file.writelines(f"{key}: {json.dumps(value)}\n" for key, value in options.items())
    config = json.loads(Path("run/config.json").read_text())
    config["model"] |= options if model is None else model
    Path("run/config.json").write_text(json.dumps(config))


def commands(source):
    return [
        ["evaluate", "run", "--k", "2"],
        ["diagnose", "run"],
        ["gradients", "run"],
        ["report", "run"],
        ["sample", "run", "-o", "s.csv"],
        ["fit-prior", "run"],
        ["encode", "run", source, "-o", "c.npz"],
        ["decode", "run", "z.npy", "-o", "d.npy"],
        ["reconstruct", "run", source, "-o", "r.npy"],
        ["interpolate", "run", source, "0", "1", "-o", "i.npy"],
        ["impute", "run", source, "-o", "m.npy"],
        ["train", "--resume", "run"],
        ["train", source, "--init", "run", "--run", "new"],
        ["train", "--config", "run/config.yaml", "--run", "new"],
    ]


def test_every_command_refuses_code_of_a_run(received, trained, capsys):
    name_code({"encoder": "marking:Net"})
    for command in commands(str(trained.parent / "x.npy")):
        assert main(command) == 2, command
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and "marking:Net in run/config." in line
        assert f"vaestro {' '.join(command)} --trust" in line
        assert not os.path.exists("MARK"), command


@pytest.mark.parametrize("option", ["gradient", "objective", "optimizer", "beta", "penalty"])
def test_each_option_of_a_run_is_checked(received, capsys, option):
    code = ["marking:Net"] if option == "penalty" else "marking:Net:width=3"
    name_code({option: code}, model={})
    for command in (["diagnose", "run"], ["train", "--resume", "run", "--steps", "3"]):
        assert main(command) == 2
        assert "marking:Net in run/config.yaml" in capsys.readouterr().err
    assert not os.path.exists("MARK")


def test_commands_that_only_read_need_no_trust(received, capsys):
    name_code({"encoder": "marking:Net"})
    assert main(["info", "run"]) == 0
    assert "marking:Net (runs with --trust" in capsys.readouterr().out
    assert main(["compare", "run"]) == 2 and "trust" not in capsys.readouterr().err
    assert not os.path.exists("MARK")


def test_python_refuses_too_and_names_the_argument(received):
    name_code({"encoder": "marking:Net"})
    for use in (
        vs.Run("run").model,
        vs.open("run").sample,
        vs.Run("run").diagnose,
        lambda: vs.train(config="run/config.yaml", run="new"),
        lambda: vs.resume("run"),
        lambda: vs.write_report("run"),
        lambda: vs.evaluate("run"),
        lambda: vs.fit_prior("run"),
    ):
        with pytest.raises(Untrusted, match=r"marking:Net in run/config.*trust=True runs it"):
            use()
    assert not os.path.exists("MARK")
    with pytest.raises(ValueError, match="weights of the model"):
        vs.open("run", trust=True).sample(2)  # its weights are those of another encoder
    assert os.path.exists("MARK")


def train_here(*more):
    assert main(["train", "run/../x.npy", "--run", "mine", *TINY, *more]) == 0


@pytest.fixture
def own(received, trained, monkeypatch):
    """Train a run with a module of the current folder, then forget the import."""
    shutil.copy(trained.parent / "x.npy", "x.npy")
    sys.path[:] = [p for p in sys.path if p not in ("", os.getcwd())]  # as the installed program
    train_here("--encoder", "marking:Net")
    os.unlink("MARK")
    del sys.modules["marking"]
    sys.path.remove(os.getcwd())
    return received


def test_names_on_the_command_line_are_found_in_the_current_folder(own):
    assert "marking" not in sys.modules
    train_here("--encoder", "marking:Net", "--force")
    assert os.path.exists("MARK")


def test_a_run_of_this_user_runs_its_module_from_where_it_was(own, monkeypatch):
    other = own / "other"
    other.mkdir()
    shutil.move("mine", other / "moved")
    (other / "marking.py").write_text("import pathlib\npathlib.Path('EVIL').touch()\n")
    monkeypatch.chdir(other)
    monkeypatch.syspath_prepend(str(other))  # as `python -m vaestro`
    assert main(["sample", "moved", "-n", "2", "-o", "s.npy"]) == 0
    assert Path("MARK").read_text() == str(own / "marking.py") and not os.path.exists("EVIL")


@pytest.mark.parametrize("file", ["config.yaml", "config.json"])
def test_a_changed_file_loses_the_record(own, capsys, file):
    with open(f"mine/{file}", "a") as opened:
        opened.write("\n")
    assert main(["sample", "mine", "-o", "s.npy"]) == 2
    assert not os.path.exists("MARK")
    assert main(["sample", "mine", "-o", "s.npy", "--trust"]) == 0


def test_a_module_that_has_gone_is_not_taken_from_elsewhere(own, capsys, monkeypatch):
    other = own / "other"
    other.mkdir()
    shutil.move("marking.py", other / "marking.py")
    monkeypatch.chdir(other)
    assert main(["sample", "../mine", "-o", "s.npy"]) == 2
    assert f"which is no longer in {own}" in capsys.readouterr().err
    assert not os.path.exists("MARK")


def test_a_resumed_run_keeps_its_record(own):
    assert main(["train", "--resume", "mine", "--steps", "3", "--quiet"]) == 0
    del sys.modules["marking"]
    assert main(["train", "--config", "mine/config.yaml", "--run", "again", "--quiet"]) == 0
    assert len(list(trust.records().glob("*.json"))) == 2


def test_a_record_of_another_user_or_an_unwritable_one_does_not_count(own, capsys, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert main(["sample", "mine", "-o", "s.npy"]) == 2
    monkeypatch.undo()
    monkeypatch.chdir(own)
    monkeypatch.setenv("XDG_STATE_HOME", str(own / "marking.py"))
    capsys.readouterr()
    assert main(["train", "x.npy", "--encoder", "marking:Net", *TINY[:-1], "--run", "other"]) == 0
    assert "Its commands need --trust" in capsys.readouterr().out


def test_a_relative_state_folder_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trust.records() == tmp_path / ".local" / "state" / "vaestro" / "trust"


def test_a_file_of_options_names_no_code_and_no_folder(received, trained, capsys):
    source = str(trained.parent / "x.npy")
    for text, message in (
        ("encoder: marking:Net", "marking:Net in o.yaml"),
        ("encoder: marking:Net:width=3", "marking:Net in o.yaml"),
        ("penalty: [mmd, 'marking:Net']", "marking:Net in o.yaml"),
        ("init: run\ndecoder: marking:Net", "marking:Net in o.yaml"),
        ("force: true", "expected an option of training"),
        ("run: elsewhere", "expected an option of training"),
        ("trust: true", "expected an option of training"),
        ("encoder: !!python/object/apply:os.system ['touch MARK']", "cannot be read as YAML"),
    ):
        Path("o.yaml").write_text(text)
        assert main(["train", source, "--config", "o.yaml", "--run", "new", *TINY[:4]]) == 2
        assert message in capsys.readouterr().err
    assert not os.path.exists("MARK") and not os.path.exists("new")
    Path("o.yaml").write_text("encoder: marking:Net")
    command = ["train", source, "--config", "o.yaml", "--run", "new", *TINY]
    assert main([*command, "--encoder", "linear"]) == 0  # the typed name replaces the file's
    assert not os.path.exists("MARK")
    assert main([*command, "--force", "--trust"]) == 0 and os.path.exists("MARK")


def test_aliases_that_stand_for_many_values_and_odd_addresses_are_refused(received, capsys):
    nested = "prior: [&a [x, x, x], &b [*a, *a, *a], [*b, *b, *b]]"
    Path("o.yaml").write_text(nested)
    assert main(["train", "mnist", "--config", "o.yaml", "--run", "new"]) == 2
    assert "where prior contains list" in capsys.readouterr().err
    for source in ("reference://refs.json", "simplecache::memory://a.tar", "dask://a/x.tar"):
        assert main(["train", source, "--run", "new"]) == 2
        assert "expected an address of file, memory" in capsys.readouterr().err
    assert main(["train", "x-{0..99999999999}.tar", "--run", "new"]) == 2
    assert "at most 1,000,000 shards" in capsys.readouterr().err


def test_names_with_odd_characters_are_code_too():
    for name in ("ｏs:abort", "os：abort:x", "a.b:c", "vaestro.parts:find", "x:y:width=3", "A:B:"):
        assert named_code({"encoder": name, "prior": "normal"}), name
    assert not named_code({"prior": "normal:limit=3", "source": "x.npy:kind=real", "latent": 3})


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *[("model", n) for n in ("os:getcwd", "os:abort", "subprocess:Popen", "shutil:rmtree")],
        *[("likelihood", n) for n in ("os:getcwd", "pathlib:Path", "vaestro.priors:Normal")],
        ("likelihood", "vaestro.likelihoods:Likelihood"),
        ("network", "marking:undeclared"),
        ("gradient", "os:abort"),
        ("optimizer", "torch.optim:Adam"),
    ],
)
def test_an_object_of_another_type_is_refused_before_it_is_called(received, kind, name):
    with pytest.raises(ValueError, match=f"expected {name} to be an? {kind}: a class or function"):
        find(kind, name)
    assert not os.path.exists("CALLED")


def test_a_function_that_declares_what_it_makes_is_a_part(received):
    (received / "declaring.py").write_text(
        "from __future__ import annotations\nfrom torch import nn\n"
        "def net(inputs, outputs, *, width: int = 3) -> nn.Sequential:\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(inputs[0], 4), nn.Unflatten(1, outputs))"
    )
    assert find("network", "declaring:net:width=4").options == {"width": 4}
    sys.modules.pop("declaring")


def test_a_module_that_exits_is_one_line(received, capsys):
    (received / "leaving.py").write_text("raise SystemExit(0)")
    assert main(["train", "mnist", "--encoder", "leaving:Net", "--run", "new"]) == 2
    assert "got 'leaving' (SystemExit" in capsys.readouterr().err
