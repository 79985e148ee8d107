import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from PIL import Image
from safetensors.numpy import load_file

import vaestro as vs
from tests.conftest import make_space
from vaestro.cli import main
from vaestro.cli.app import app
from vaestro.spaces import Kind

COMMANDS = sorted(typer.main.get_command(app).commands)
TINY = ["--network", "mlp:width=8", "--latent", "2", "--device", "cpu"]
OPTIONS = [*TINY, "--batch", "20", "--epochs", "2", "--seed", "4"]
RECORD = {
    "split",
    "step",
    "epoch",
    "bound",
    "rate",
    "distortion",
    "loss",
    "beta",
    "lr",
    "grad_norm",
    "examples_per_second",
    "seconds",
}


def images(n=200):
    """Draw binary images of a bar that stands or lies."""
    rng = np.random.default_rng(0)
    x = np.zeros((n, 8, 8), np.uint8)
    for image in x:
        at = rng.integers(8)
        image[at, :] = 1
        if rng.random() < 0.5:
            image[:] = image.T.copy()
    return x


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Train one tiny run on black-and-white images, 180 / 10 / 10."""
    folder = tmp_path_factory.mktemp("cli")
    np.save(folder / "x.npy", images())
    assert (
        main(["train", str(folder / "x.npy"), "--run", str(folder / "run"), *OPTIONS, "--quiet"])
        == 0
    )
    return folder


@pytest.fixture
def run(place):
    return str(place / "run")


@pytest.fixture
def x(place):
    return str(place / "x.npy")


def say(capsys, *arguments):
    """Run a command that must succeed and return what it prints."""
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    # runs of a few steps have an empty code
    warned = [line for line in err.splitlines() if not line.startswith("warning: the code of ")]
    assert (code, warned) == (0, [])
    return out


def timeless(lines):
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "examples_per_second", "sha256")}
        for line in lines
    ]


def metrics(run):
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


# -- train -----------------------------------------------------------------------------------------


def test_train_writes_a_run(run):
    assert {p.name for p in Path(run).iterdir()} == {
        "config.yaml",
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "kept.json",
        "checkpoints",
        "data.json",
        "environment.json",
        "manifest.txt",
    }
    assert not list(Path(run).rglob("*.part"))
    config = json.loads((Path(run) / "config.json").read_text())
    assert config["vaestro"] == vs.__version__
    assert config["model"] == {
        "model": "vae",
        "latent": 2,
        "likelihood": "bernoulli",
        "posterior": "normal",
        "prior": "normal",
        "network": "mlp:width=8",
    }
    assert (config["space"]["kind"], config["space"]["outside"], config["space"]["dtype"]) == (
        "binary",
        [8, 8],
        "uint8",
    )


def test_config_yaml_has_every_option_resolved(run, x):
    config = yaml.safe_load((Path(run) / "config.yaml").read_text())
    given = {
        "source": x,
        "latent": 2,
        "likelihood": "bernoulli",
        "network": "mlp:width=8",
        "steps": 18,
        "batch": 20,
        "seed": 4,
        "device": "cpu",
    }
    assert given.items() <= config.items()
    assert {
        "lr",
        "clip",
        "ema",
        "beta",
        "objective",
        "optimizer",
        "precision",
        "compile",
        "vaestro",
    } <= config.keys()


def test_metrics(run):
    lines = metrics(run)
    assert [(m["split"], m["step"], m["epoch"]) for m in lines] == [
        ("valid", 0, 0), ("train", 9, 1), ("valid", 9, 1), ("train", 18, 2), ("valid", 18, 2),
    ]  # fmt: skip
    for m in lines:
        assert m.keys() >= RECORD
        assert m["bound"] == pytest.approx(-(m["rate"] + m["distortion"]), rel=1e-5)
        assert m["loss"] == pytest.approx(-m["bound"], rel=1e-5) and m["beta"] == 1
        assert m["rate"] >= 0 and m["distortion"] > 0 and m["seconds"] >= 0 and m["lr"] > 0
        assert (m["grad_norm"] is None) == (m["split"] == "valid")
    assert lines[-1]["bound"] > lines[0]["bound"], "it learns"
    assert [m["seconds"] for m in lines] == sorted(m["seconds"] for m in lines)


def test_the_bound_is_unweighted_and_the_loss_is_not(tmp_path, x):
    assert (
        main(
            [
                "train",
                x,
                "--run",
                str(tmp_path / "run"),
                *TINY,
                "--batch",
                "25",
                "--steps",
                "20",
                "--beta",
                "0.3",
                "--quiet",
            ]
        )
        == 0
    )
    lines = metrics(tmp_path / "run")
    assert [m["step"] for m in lines if m["split"] == "train"] == [8, 15, 20], (
        "at the first step of each epoch that ends, and at the end"
    )
    for m in lines:
        assert m["beta"] == 0.3
        assert m["bound"] == pytest.approx(-(m["rate"] + m["distortion"]), rel=1e-5)
        assert m["loss"] == pytest.approx(m["distortion"] + 0.3 * m["rate"], rel=1e-5)


def test_an_epoch_ends_where_it_ends(tmp_path):
    """7 epochs of 18 data are 9 steps of 14, although 9 / (18 / 14) is a little less than 7."""
    np.savez(tmp_path / "x.npz", train=images(18), valid=images(3), test=images(3))
    assert (
        main(
            [
                "train",
                str(tmp_path / "x.npz"),
                "--run",
                str(tmp_path / "run"),
                *TINY,
                "--batch",
                "14",
                "--steps",
                "11",
                "--quiet",
            ]
        )
        == 0
    )
    assert [m["step"] for m in metrics(tmp_path / "run") if m["split"] == "train"] == [
        2,
        3,
        4,
        6,
        7,
        8,
        9,
        11,
    ]


def test_a_warm_up_is_in_the_metrics(tmp_path, x):
    assert (
        main(
            [
                "train",
                x,
                "--run",
                str(tmp_path / "run"),
                *OPTIONS,
                "--beta",
                "warmup:to=0.5,epochs=2",
                "--quiet",
            ]
        )
        == 0
    )
    betas = [m["beta"] for m in metrics(tmp_path / "run")]
    assert betas == pytest.approx([0, 0.5 * 8 / 18, 0.5 * 8 / 18, 0.5 * 17 / 18, 0.5 * 17 / 18])


@pytest.mark.parametrize(
    ("beta", "value"), [("0.5", 0.5), ("5e-1", 0.5), ("constant", 1), ("constant:value=0.5", 0.5)]
)
def test_a_constant_beta(tmp_path, x, beta, value):
    assert (
        main(
            [
                "train",
                x,
                "--run",
                str(tmp_path / "run"),
                *TINY,
                "--steps",
                "2",
                "--beta",
                beta,
                "--quiet",
            ]
        )
        == 0
    )
    assert [m["beta"] for m in metrics(tmp_path / "run")] == [value] * 3


def test_train_says_what_it_did(capsys, tmp_path, x):
    out = say(capsys, "train", x, "--run", tmp_path / "run", *OPTIONS)
    for words in (
        "binary (8, 8), 180 / 10 / 10",
        "split by seed 0",
        "parameters (",
        "18 steps of 20 on cpu",
        "step 18 / 18",
        "valid",
    ):
        assert words in out
    assert f"wrote {tmp_path / 'run'}/ after " in out
    bound, independent, fidelity = out.splitlines()[-3:]
    assert "log p(x) >= " in bound and "IWAE with 100 draws, 10 test images" in bound
    assert "independent cells: log p(x) = " in independent and "PSNR" in fidelity


@pytest.mark.parametrize("beside", [[], ["--latent-dim", "2", "--batch-size", "20"]])
def test_a_config_repeats_the_run(tmp_path, run, beside):
    assert (
        main(
            [
                "train",
                "--config",
                f"{run}/config.yaml",
                "--run",
                str(tmp_path / "again"),
                "--quiet",
                *beside,
            ]
        )
        == 0
    )
    assert timeless(metrics(tmp_path / "again")) == timeless(metrics(run))
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        Path(run) / "model.safetensors"
    ).read_bytes()
    assert (tmp_path / "again" / "config.yaml").read_text() == (
        Path(run) / "config.yaml"
    ).read_text()


def test_options_win_over_the_config(tmp_path, run):
    options = ["--config", f"{run}/config.yaml", "--run", str(tmp_path / "other"), "--quiet"]
    assert main(["train", *options, "--epochs", "1", "--seed", "5"]) == 0
    assert vs.Run(tmp_path / "other").config["steps"] == 9
    first, other = metrics(run)[0], metrics(tmp_path / "other")[0]
    assert other["bound"] != first["bound"], "another seed"


def test_dry_run_writes_nothing_and_prints_a_config(capsys, tmp_path, monkeypatch, x, run):
    monkeypatch.chdir(tmp_path)
    out = say(capsys, "train", x, *OPTIONS, "--dry-run")
    assert list(tmp_path.iterdir()) == []
    assert yaml.safe_load(out) == yaml.safe_load((Path(run) / "config.yaml").read_text())
    comments = [line for line in out.splitlines() if line.startswith("# ")]
    assert "binary (8, 8)" in comments[0] and "parameters" in comments[-1]
    Path("c.yaml").write_text(out)
    assert say(capsys, "train", "--config", "c.yaml", "--run", "new", "--quiet") == ""
    assert timeless(metrics("new")) == timeless(metrics(run))


def test_a_dry_run_of_an_existing_run_leaves_it(capsys, x, run):
    before = {p: p.read_bytes() for p in Path(run).rglob("*") if p.is_file()}
    say(capsys, "train", x, "--run", run, *OPTIONS, "--dry-run")
    assert {p: p.read_bytes() for p in Path(run).rglob("*") if p.is_file()} == before


def test_an_empty_folder_is_a_place_for_a_run(tmp_path, x):
    (tmp_path / "run").mkdir()
    assert main(["train", x, "--run", str(tmp_path / "run"), *OPTIONS, "--quiet"]) == 0
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_the_newest_run_is_the_default(capsys, tmp_path, monkeypatch, x):
    monkeypatch.chdir(tmp_path)
    for steps in ("3", "4"):
        say(capsys, "train", x, *TINY, "--steps", steps)
    first, second = sorted(Path("runs").iterdir(), key=lambda p: vs.Run(p).config["steps"])
    assert first.name.startswith("x-20") and first != second
    os.utime(first / "config.yaml", (1, 1))
    say(capsys, "evaluate", "--k", "3")
    say(capsys, "sample", "-n", "3")
    assert (second / "evaluation.json").exists() and (second / "samples.png").exists()
    assert not (first / "evaluation.json").exists()
    os.utime(second / "config.yaml", (0, 0))
    say(capsys, "evaluate", "--k", "3")
    assert (first / "evaluation.json").exists()


def test_init_starts_from_another_runs_weights(tmp_path, run, x):
    assert (
        main(["train", x, "--run", str(tmp_path / "new"), *OPTIONS, "--init", run, "--quiet"]) == 0
    )
    assert metrics(tmp_path / "new")[0]["bound"] == pytest.approx(
        max(m["bound"] for m in metrics(run) if m["split"] == "valid"), rel=1e-6
    )


def test_resume_goes_on_to_more_steps(capsys, tmp_path, x):
    assert main(["train", x, "--run", str(tmp_path / "run"), *OPTIONS, "--quiet"]) == 0
    out = say(capsys, "train", "--resume", tmp_path / "run", "--epochs", "3")
    assert "continuing from step 18 of 27" in out
    assert [m["step"] for m in metrics(tmp_path / "run")] == [0, 9, 9, 18, 18, 27, 27]


# -- evaluate --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluated(place):
    run = str(place / "run")
    assert main(["evaluate", run, "--k", "20", "--quiet"]) == 0
    return json.loads((place / "run" / "evaluation.json").read_text()), dict(
        np.load(place / "run" / "evaluation.npz")
    )


def test_evaluation_json(evaluated, x):
    result, _ = evaluated
    test = vs.load(x).test
    assert (result["split"], result["n"], result["unit"], result["space"]) == (
        "test",
        10,
        "nats",
        "binary (8, 8)",
    )
    assert result["data_sha256"] == test.sha256()
    elbo, iwae = result["estimates"]
    for estimate, method in ((elbo, "elbo"), (iwae, "iwae")):
        assert (estimate["method"], estimate["side"], estimate["measure"], estimate["k"]) == (
            method,
            "lower",
            "counting",
            20,
        )
        assert estimate["bits_per_dim"] == pytest.approx(-estimate["mean"] / (64 * np.log(2)))
        assert estimate["seconds"] >= 0 and estimate["mean"] < 0
    assert elbo["mean"] == pytest.approx(-(result["rate"] + result["distortion"]), rel=1e-5)
    assert 1 <= iwae["ess_median"] <= 20


def test_evaluation_npz_has_each_datum(evaluated):
    result, arrays = evaluated
    assert arrays.keys() == {"elbo", "iwae", "iwae_ess", "index"}
    assert np.array_equal(arrays["index"], np.arange(10))
    for estimate in result["estimates"]:
        each = arrays[estimate["method"]]
        assert each.shape == (10,) and each.dtype == np.float64
        assert estimate["mean"] == pytest.approx(each.mean(), rel=1e-12)
        assert estimate["stderr"] == pytest.approx(each.std(ddof=1) / np.sqrt(10), rel=1e-12)
    assert ((arrays["iwae_ess"] >= 1 - 1e-6) & (arrays["iwae_ess"] <= 20 + 1e-6)).all()
    assert (arrays["iwae"] >= arrays["elbo"] - 0.05).all() and arrays["iwae"].mean() > arrays[
        "elbo"
    ].mean()


def test_the_same_command_gives_the_same_digits(place, evaluated):
    result, arrays = evaluated
    assert main(["evaluate", str(place / "run"), "--k", "20", "--quiet"]) == 0
    again = json.loads((place / "run" / "evaluation.json").read_text())
    assert timeless([result | {"estimates": timeless(result["estimates"])}]) == timeless(
        [again | {"estimates": timeless(again["estimates"])}]
    )
    assert all(
        np.array_equal(arrays[k], v) for k, v in np.load(place / "run" / "evaluation.npz").items()
    )


def test_another_seed_gives_other_digits(run):
    model, test = vs.Run(run).model(), vs.Run(run).data().test
    values = [vs.evaluate(model, test, k=5, seed=seed)["iwae"].nats for seed in (0, 0, 1)]
    assert np.array_equal(values[0], values[1]) and not np.array_equal(values[0], values[2])


def test_evaluate_in_python_is_what_the_command_does(run, evaluated):
    _, arrays = evaluated
    opened = vs.Run(run)
    done = vs.evaluate(opened.model(), opened.data().test, k=20)
    assert np.array_equal(done["elbo"].nats, arrays["elbo"]) and np.array_equal(
        done["iwae"].nats, arrays["iwae"]
    )
    assert done["iwae"].mean()[0] == pytest.approx(arrays["iwae"].mean())
    with pytest.raises(KeyError):
        done["ais"]


@pytest.fixture
def copy(tmp_path, x):
    """Train a run of this test's own, on data in its folder."""
    assert main(["train", x, "--run", str(tmp_path / "run"), *TINY, "--steps", "4", "--quiet"]) == 0
    return str(tmp_path / "run")


def test_options_of_evaluate(capsys, tmp_path, copy):
    out = say(
        capsys,
        "evaluate",
        copy,
        "--methods",
        "iwae",
        "--k",
        "3",
        "--split",
        "train",
        "--limit",
        "7",
    )
    result = vs.Run(copy).evaluation
    assert (result["split"], result["n"], [e["method"] for e in result["estimates"]]) == (
        "train",
        7,
        ["iwae"],
    )
    assert (
        "log p(x) >= " in out
        and "IWAE with 3 draws, 7 of 180 train images, drawn at random" in out
        and "bits/dim" in out
    )
    np.save(tmp_path / "other.npy", images(12))
    say(capsys, "evaluate", copy, "--k", "3", "--data", tmp_path / "other.npy", "--split", "all")
    result = vs.Run(copy).evaluation
    assert (result["n"], result["source"]) == (12, str(tmp_path / "other.npy"))


def test_one_datum_has_no_standard_error(capsys, copy):
    out = say(capsys, "evaluate", copy, "--k", "3", "--limit", "1")
    assert vs.Run(copy).evaluation["estimates"][0]["stderr"] is None
    assert "nan" not in out


def test_evaluate_by_annealing_says_both_sides_and_writes_each_datum(capsys, copy):
    out = say(
        capsys,
        "evaluate",
        copy,
        "--k",
        "5",
        "--limit",
        "9",
        "--methods",
        "elbo,iwae,ais:temperatures=4,chains=3,n=6",
    )
    assert "log p(x) >= " in out and "log p(x) <= " in out
    assert (
        "AIS with 4 temperatures, 3 chains from the posterior, HMC accepting" in out
        and "6 of 10 test images, drawn at random" in out
    )
    assert "AIS in reverse" in out and "6 data drawn from the model" in out
    assert "lies above the lower bounds by at most: ELBO by " in out
    result = vs.Run(copy).evaluation
    sides = [(e["method"], e["side"], e["on"], e["n"]) for e in result["estimates"]]
    simulated = [
        (m, s, "simulated data", 6)
        for m, s in (("elbo", "lower"), ("iwae", "lower"), ("ais", "lower"), ("ais", "upper"))
    ]
    assert sides == [
        ("elbo", "lower", "data", 9),
        ("iwae", "lower", "data", 9),
        ("ais", "lower", "data", 6),
        *simulated,
    ]
    arrays = dict(np.load(Path(copy) / "evaluation.npz"))
    assert np.isfinite(arrays["ais"]).sum() == 6 and len(arrays["ais"]) == len(arrays["index"]) == 9
    assert len(arrays["simulated_ais_upper"]) == len(arrays["simulated_iwae"]) == 6
    info = say(capsys, "info", copy)
    assert "<=" not in info and "3 chains, 6 test data" in info


def test_evaluate_takes_the_gap_and_the_rate_apart(capsys, copy):
    out = say(
        capsys,
        "evaluate",
        copy,
        "--k",
        "5",
        "--methods",
        "elbo,iwae,gap:steps=5,n=8,k=20,information:n=9",
    )
    assert "amortization gap at least" in out and "(8 of 10 test images, drawn at random)" in out
    assert "the approximation gap is relative to" in out
    assert "= mutual information " in out and "at most ln 9 = 2.20" in out
    result = vs.Run(copy).evaluation
    arrays = dict(np.load(Path(copy) / "evaluation.npz"))
    assert result["gap"]["n"] == 8 and result["information"]["n"] == 9
    assert result["gap"]["amortization"]["mean"] == pytest.approx(
        np.nanmean(arrays["gap_optimised"] - arrays["gap_elbo"])
    )
    assert np.isfinite(arrays["gap_elbo"]).sum() == 8 and len(arrays["gap_reference"]) == 10
    # An evaluation without a bound is one too, and the next one keeps it.
    out = say(capsys, "evaluate", copy, "--methods", "information")
    assert "log p(x)" not in out and vs.Run(copy).evaluation["estimates"] == []
    say(capsys, "evaluate", copy, "--k", "2")
    assert (Path(copy) / "evaluation-test-k0.json").exists() and (
        Path(copy) / "evaluation-test-k5.npz"
    ).exists()


def test_conditions_of_data_that_do_not_say_theirs(capsys, tmp_path):
    r = np.random.default_rng(0)
    y = r.integers(0, 2, 200)
    np.savez(
        tmp_path / "x.npz",
        train=images(),
        train_y=y,
        valid=images(20),
        valid_y=y[:20],
        test=images(10),
        test_y=y[:10],
    )
    run = tmp_path / "run"
    assert (
        main(
            [
                "train",
                str(tmp_path / "x.npz"),
                "--condition",
                "y",
                "--run",
                str(run),
                *TINY,
                "--steps",
                "30",
                "--quiet",
            ]
        )
        == 0
    )
    np.save(tmp_path / "plain.npy", images(10))
    means = []
    for value in (0, 1):
        out = say(
            capsys,
            "evaluate",
            run,
            "--k",
            "3",
            "--data",
            tmp_path / "plain.npy",
            "--split",
            "all",
            "--condition",
            f"y={value}",
        )
        assert "log p(x | y) >= " in out
        means.append(vs.Run(run).evaluation["estimates"][0]["mean"])
        assert vs.Run(run).evaluation["given"] == ["y"]
    assert means[0] != means[1]
    assert main(["evaluate", str(run), "--k", "3", "--condition", "y=1"]) == 2
    assert "--condition only with --data" in capsys.readouterr().err


def test_an_evaluation_of_another_kind_is_kept(copy):
    for k in (3, 4, 4, 3, 4):
        assert main(["evaluate", copy, "--k", str(k), "--quiet"]) == 0
    there = sorted(p.name for p in Path(copy).glob("evaluation*.json"))
    assert there == [
        "evaluation-test-k3-2.json",
        "evaluation-test-k3.json",
        "evaluation-test-k4.json",
        "evaluation.json",
    ]
    assert all(Path(copy, name.replace("json", "npz")).exists() for name in there)


def test_data_that_changed_since_training_are_said_to_have(capsys, tmp_path):
    x, run = tmp_path / "x.npy", str(tmp_path / "run")
    np.save(x, images())
    assert main(["train", str(x), "--run", run, *TINY, "--steps", "4", "--quiet"]) == 0
    assert "not those" not in say(capsys, "evaluate", run, "--k", "2")
    then = vs.Run(run).evaluation["data_sha256"][:12]
    np.save(x, images()[::-1])
    out = say(capsys, "evaluate", run, "--k", "2")
    now = vs.Run(run).evaluation["data_sha256"][:12]
    assert (
        f"the test data are not those of the training: 10 with hash {then} then, 10 with hash "
        f"{now} now" in out
    )
    assert "the train data are not those of the training: 180 with hash" in out
    assert any(now in warning for warning in vs.Run(run).evaluation["warnings"])


def test_data_in_other_units_are_other_data(capsys, tmp_path):
    # The values inside are the same: what is hashed must hold their units.
    x = np.random.default_rng(0).normal(size=(300, 4))
    table = {f"c{i}": x[:, i] for i in range(4)}
    for name, factor in (("one", 1.0), ("thousand", 1000.0)):
        vs.train(
            factor * x, run=tmp_path / name, latent=2, network="mlp:width=8", steps=4, device="cpu"
        )
        vs.train(
            {k: factor * v for k, v in table.items()},
            run=tmp_path / f"t{name}",
            latent=2,
            network="mlp:width=8",
            steps=4,
            device="cpu",
        )
        for run in (name, f"t{name}"):
            say(capsys, "evaluate", tmp_path / run, "--k", "3")
    for a, b in (("one", "thousand"), ("tone", "tthousand")):
        comparison = vs.compare([tmp_path / a, tmp_path / b])
        assert len(comparison.groups) == 2
        assert "different data" in comparison.refusals[0]
    np.save(tmp_path / "one" / "data.npy", 1000 * x)
    assert "the train data are not those of the training: 270 with hash" in say(
        capsys, "evaluate", tmp_path / "one", "--k", "3"
    )


def test_an_evaluation_goes_beside_a_damaged_one(capsys, copy):
    file = Path(copy) / "evaluation.json"
    file.write_text('{"split": "te')
    assert main(["info", copy]) == 2
    assert "damaged" in capsys.readouterr().err
    say(capsys, "evaluate", copy, "--k", "3")
    assert vs.Run(copy).evaluation["n"] == 10
    assert (Path(copy) / "evaluation-damaged.json").exists()


def test_what_was_computed_is_kept_where_it_cannot_be_written(capsys, copy, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("vaestro.runs.results.write_arrays", full)
        assert main(["evaluate", copy, "--k", "3"]) == 1
    assert list((Path(copy) / "evaluating").iterdir())
    say(capsys, "evaluate", copy, "--k", "3")
    assert not (Path(copy) / "evaluating").exists()


def test_two_processes_evaluate_as_one_does(copy):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "--",
        "vaestro",
        "evaluate",
        copy,
    ]
    options = [
        "--k",
        "300",
        "--methods",
        "elbo,iwae,ais:temperatures=3,chains=200,n=8",
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("log p(x) >= ") == 4
    both = dict(np.load(Path(copy) / "evaluation.npz"))
    assert main(["evaluate", copy, *options, "--quiet"]) == 0
    one = dict(np.load(Path(copy) / "evaluation.npz"))
    assert both.keys() == one.keys()
    for name in one:
        np.testing.assert_allclose(both[name], one[name], rtol=1e-4, atol=1e-3)
    assert not (Path(copy) / "evaluating").exists()


# -- sample, encode, decode, reconstruct -----------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".txt", ".parquet", ".png"])
def test_sample_writes_what_the_suffix_says(capsys, tmp_path, run, suffix):
    path = tmp_path / f"s{suffix}"
    how = "--mean" if suffix == ".png" else "--draws"
    assert f"to {path}" in say(capsys, "sample", run, "-n", "9", "-o", path, how)
    assert list(tmp_path.iterdir()) == [path]
    if suffix == ".png":
        with Image.open(path) as image:
            assert image.format == "PNG" and image.width > 9 * 8 and image.height > 8
        return
    if suffix == ".npy":
        samples = np.load(path)
    elif suffix == ".npz":
        samples = np.load(path)["x"]
    elif suffix == ".txt":
        samples = np.loadtxt(path, dtype=np.uint8).reshape(9, 8, 8)
    elif suffix == ".csv":
        assert path.read_text().splitlines()[0].replace('"', "").split(",")[:2] == ["x_0", "x_1"]
        samples = np.loadtxt(path, dtype=np.uint8, delimiter=",", skiprows=1).reshape(9, 8, 8)
    else:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        samples = np.stack([table[f"x_{i}"].to_numpy() for i in range(64)], 1).reshape(9, 8, 8)
    assert (
        samples.shape == (9, 8, 8)
        and samples.dtype == np.uint8
        and set(np.unique(samples)) == {0, 1}
    )
    assert np.array_equal(samples, np.load(save_samples(tmp_path / "again.npy", run)))


def save_samples(path, run, *options):
    options = options if "--mean" in options else (*options, "--draws")
    assert main(["sample", run, "-n", "9", "-o", str(path), "--quiet", *options]) == 0
    return path


def test_options_of_sample(tmp_path, run):
    first, again, seed = (
        np.load(save_samples(tmp_path / f"{i}.npy", run, *o))
        for i, o in enumerate([[], ["--seed", "0"], ["--seed", "1"]])
    )
    assert np.array_equal(first, again) and not np.array_equal(first, seed)
    means = np.load(save_samples(tmp_path / "mean.npy", run, "--mean"))
    assert means.dtype == np.float32 and ((means > 0) & (means < 1)).all()
    cold = np.load(save_samples(tmp_path / "cold.npy", run, "--mean", "--temperature", "0"))
    assert np.allclose(cold, cold[0]) and not np.allclose(means, means[0])


DTYPES = {
    "bool (N, 5)": lambda r: r.random((60, 5)) < 0.3,
    "0 and 255 (N, 6, 4)": lambda r: (255 * (r.random((60, 6, 4)) < 0.3)).astype(np.uint8),
    "0 and 1 (N, 6, 4, 3)": lambda r: (r.random((60, 6, 4, 3)) < 0.3).astype(np.float32),
    "levels (N, 4, 4, 3)": lambda r: r.integers(0, 9, (60, 4, 4, 3)).astype(np.int16),
    "real (N, 4)": lambda r: 100 + r.normal(size=(60, 4)),
    "real (N,)": lambda r: (100 + r.normal(size=60)).astype(np.float32),
    "real (N, 4, 4)": lambda r: 100 + r.normal(size=(60, 4, 4)),
    "real (N, 4, 6, 3)": lambda r: 100 + r.normal(size=(60, 4, 6, 3)),
}


@pytest.mark.parametrize("name", DTYPES)
def test_samples_have_the_users_dtype_layout_and_units(tmp_path, name):
    array = DTYPES[name](np.random.default_rng(0))
    np.save(tmp_path / "a.npy", array)
    run = str(tmp_path / "run")
    assert (
        main(["train", str(tmp_path / "a.npy"), "--run", run, *TINY, "--steps", "4", "--quiet"])
        == 0
    )
    samples = np.load(save_samples(tmp_path / "s.npy", run))
    assert samples.dtype == array.dtype and samples.shape == (9, *array.shape[1:])
    if name.startswith("real"):
        assert abs(samples.mean() - 100) < 3 and samples.std() > 0
    else:
        assert set(np.unique(samples)) <= set(np.unique(array)) and len(np.unique(samples)) > 1
    if len(array.shape) < 3:
        assert main(["sample", run, "--quiet"]) == 0, "the default is no picture"
        assert np.load(tmp_path / "run" / "samples.npz")["x"].shape == (64, *array.shape[1:])
    assert (
        main(
            ["reconstruct", run, str(tmp_path / "a.npy"), "-o", str(tmp_path / "r.npz"), "--quiet"]
        )
        == 0
    )
    assert np.load(tmp_path / "r.npz")["x"].shape == array.shape
    save_samples(tmp_path / "s.txt", run)
    assert np.allclose(np.loadtxt(tmp_path / "s.txt").reshape(samples.shape), samples)


def test_encode(capsys, tmp_path, run, x):
    say(capsys, "encode", run, x, "-o", tmp_path / "codes.npz")
    codes = np.load(tmp_path / "codes.npz")
    assert set(codes.files) == {"row", "mean", "logvar"}
    assert codes["mean"].shape == codes["logvar"].shape == (200, 2)
    assert codes["row"].tolist() == list(range(200))
    assert (np.abs(codes["logvar"]) < 20).all() and np.isfinite(codes["mean"]).all()
    assert "wrote mean of 200 data" in say(capsys, "encode", run, x, "-o", tmp_path / "codes.npy")
    assert np.array_equal(np.load(tmp_path / "codes.npy"), codes["mean"])
    say(capsys, "encode", run, x, "-o", tmp_path / "codes.csv")
    assert (tmp_path / "codes.csv").read_text().splitlines()[0].replace(
        '"', ""
    ) == "row,mean_0,mean_1,logvar_0,logvar_1"


def test_encode_draws(tmp_path, run, x):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert (
            main(
                [
                    "encode",
                    run,
                    x,
                    "-o",
                    str(tmp_path / f"{name}.npz"),
                    "--sample",
                    "400",
                    "--seed",
                    seed,
                    "--quiet",
                ]
            )
            == 0
        )
    a, b, c = (np.load(tmp_path / f"{name}.npz") for name in "abc")
    assert a["z"].shape == (400, 200, 2)
    assert np.array_equal(a["z"], b["z"]) and not np.array_equal(a["z"], c["z"])
    standard = (a["z"] - a["mean"]) / np.exp(a["logvar"] / 2)
    assert abs(standard.mean()) < 4 / np.sqrt(standard.size) and abs(
        standard.var() - 1
    ) < 4 * np.sqrt(2 / standard.size)


def test_encode_takes_the_split_that_is_asked_for(tmp_path, run, x):
    for split in ("all", "test"):
        assert (
            main(
                [
                    "encode",
                    run,
                    x,
                    "-o",
                    str(tmp_path / f"{split}.npy"),
                    "--split",
                    split,
                    "--quiet",
                ]
            )
            == 0
        )
    assert np.load(tmp_path / "all.npy").shape == (200, 2) and np.load(
        tmp_path / "test.npy"
    ).shape == (10, 2)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_decoding_what_was_encoded_reconstructs(tmp_path, run, x, suffix):
    codes, a, b = (str(tmp_path / name) for name in (f"codes{suffix}", "a.npy", "b.npy"))
    assert main(["encode", run, x, "-o", codes, "--quiet"]) == 0
    assert main(["decode", run, codes, "-o", a, "--quiet"]) == 0
    assert main(["reconstruct", run, x, "-o", b, "--quiet"]) == 0
    means = np.load(a)
    assert (
        means.shape == (200, 8, 8)
        and means.dtype == np.float32
        and ((means > 0) & (means < 1)).all()
    )
    assert np.array_equal(means, np.load(b))


def test_decode_draws(tmp_path, run):
    np.save(tmp_path / "z.npy", np.zeros((2000, 2), np.float32))
    for name, options in (("mean", []), ("draw", ["--sample"])):
        assert (
            main(
                [
                    "decode",
                    run,
                    str(tmp_path / "z.npy"),
                    "-o",
                    str(tmp_path / f"{name}.npy"),
                    "--quiet",
                    *options,
                ]
            )
            == 0
        )
    mean, draw = np.load(tmp_path / "mean.npy"), np.load(tmp_path / "draw.npy")
    assert draw.dtype == np.uint8 and set(np.unique(draw)) == {0, 1}
    p = mean[0]
    assert (np.abs(draw.mean(0) - p) <= 4 * np.sqrt(p * (1 - p) / 2000)).all()


def test_reconstruct_a_picture(capsys, tmp_path, run, x):
    assert "wrote 32 reconstructions" in say(
        capsys, "reconstruct", run, x, "-o", tmp_path / "pairs.png"
    )
    with Image.open(tmp_path / "pairs.png") as image:
        assert image.format == "PNG" and image.height > 4 * 8
    say(capsys, "reconstruct", run, x, "-o", tmp_path / "three.npy", "-n", "3")
    assert np.load(tmp_path / "three.npy").shape == (3, 8, 8)


# -- the rest --------------------------------------------------------------------------------------


def test_info(capsys, run):
    facts = json.loads(say(capsys, "info", "--json"))
    assert (
        facts["vaestro"] == vs.__version__
        and {"python", "torch", "device", "cuda", "libraries", "extras"} <= facts.keys()
    )
    out = say(capsys, "info")
    assert f"vaestro    {vs.__version__}".split() == out.splitlines()[0].split() and "numpy" in out


def test_info_of_a_run(capsys, run, x, evaluated):
    facts = json.loads(say(capsys, "info", run, "--json"))
    assert (facts["run"], facts["state"], facts["steps"], facts["source"]) == (
        run,
        "finished",
        "18 of 18",
        x,
    )
    assert facts["options"]["latent"] == 2
    out = say(capsys, "info", run)
    assert (
        "finished" in out
        and "validation bound" in out
        and "kept the weights of step" in out
        and "log p(x) >= " in out
    )


def test_info_says_that_an_evaluation_is_of_earlier_weights(capsys, tmp_path, x):
    assert (
        main(
            [
                "train",
                x,
                "--run",
                str(tmp_path / "run"),
                *TINY,
                "--batch",
                "20",
                "--steps",
                "4",
                "--quiet",
            ]
        )
        == 0
    )
    assert main(["evaluate", str(tmp_path / "run"), "--k", "2", "--quiet"]) == 0
    assert main(["train", "--resume", str(tmp_path / "run"), "--quiet"]) == 0
    assert "earlier weights" not in say(capsys, "info", tmp_path / "run"), "nothing was left to do"
    assert main(["train", "--resume", str(tmp_path / "run"), "--steps", "40", "--quiet"]) == 0
    assert (
        say(capsys, "info", tmp_path / "run").count(
            "with 2 draws, 10 test data, of earlier weights"
        )
        == 2
    )
    assert main(["evaluate", str(tmp_path / "run"), "--k", "2", "--quiet"]) == 0
    assert "earlier weights" not in say(capsys, "info", tmp_path / "run")


def test_parts(capsys):
    table = json.loads(say(capsys, "parts", "--json"))
    assert table.keys() >= {
        "likelihood",
        "posterior",
        "prior",
        "network",
        "objective",
        "gradient",
        "schedule",
        "optimizer",
    }
    for kind, rows in table.items():
        for row in rows:
            assert row.keys() == {"name", "options", "needed", "summary"} and row[
                "summary"
            ].endswith((".", ")", ":")), (kind, row)
    mlp = next(row for row in table["network"] if row["name"] == "mlp")
    assert mlp["options"] == {"width": 400, "depth": 1, "activation": "relu"}
    out = say(capsys, "parts")
    assert all(row["name"] in out for rows in table.values() for row in rows)
    assert json.loads(say(capsys, "parts", "network", "--json")) == {"network": table["network"]}
    assert "bernoulli" not in say(capsys, "parts", "network")


def test_every_part_with_its_defaults_can_be_built(capsys, x):
    spaces = {
        "gru": vs.load(["some text", "and more of it"] * 10).space,
        "conv1d": make_space(Kind.REAL, (20, 2)),
        "conv3d": make_space(Kind.BINARY, (1, 8, 8, 8)),
    }
    spaces["transformer"] = spaces["gru"]
    for row in json.loads(say(capsys, "parts", "network", "--json"))["network"]:
        written = ",".join(f"{k}={v}" for k, v in row["options"].items())
        assert vs.build(
            spaces.get(row["name"], vs.load(x).space),
            latent=2,
            network=row["name"] + (f":{written}" if written else ""),
        ).units == (2,)


def test_version(capsys):
    assert say(capsys, "--version") == f"vaestro {vs.__version__}\n"


def test_help_lists_the_commands(capsys):
    out = say(capsys, "--help")
    assert {
        "train",
        "evaluate",
        "sample",
        "encode",
        "decode",
        "reconstruct",
        "parts",
        "info",
    } <= set(COMMANDS)
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert say(capsys) == out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(capsys, command):
    out = " ".join(say(capsys, command, "--help").split())
    assert "Example:" in out
    assert out.split("Example: ")[1].startswith(f"vaestro {command}")


def test_quiet_prints_nothing(capsys, tmp_path, run, x):
    for i, command in enumerate(
        [
            ["train", x, "--run", tmp_path / "new", *OPTIONS],
            ["evaluate", tmp_path / "new", "--k", "2"],
            ["sample", run, "-o", tmp_path / "s.npy"],
            ["encode", run, x, "-o", tmp_path / "c.npz"],
            ["decode", run, tmp_path / "c.npz", "-o", tmp_path / "d.npy"],
            ["reconstruct", run, x, "-o", tmp_path / "r.npy"],
        ]
    ):
        assert say(capsys, *(["--quiet", *command] if i % 2 else [*command, "--quiet"])) == ""
    assert say(capsys, "sample", run, "-o", tmp_path / "again.npy") != "", "quiet is not for good"


# -- Python ----------------------------------------------------------------------------------------


def test_train_in_python_is_what_the_command_does(tmp_path, x, run):
    made = vs.train(
        x,
        run=tmp_path / "new",
        network="mlp:width=8",
        latent=2,
        device="cpu",
        batch=20,
        epochs=2,
        seed=4,
    )
    assert isinstance(made, vs.Run) and made.path == tmp_path / "new" and made.finished
    assert timeless(made.metrics()) == timeless(metrics(run))
    a, b = load_file(made.path / "model.safetensors"), load_file(Path(run) / "model.safetensors")
    assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_train_on_an_array(tmp_path, x, run):
    made = vs.train(
        images(),
        run=tmp_path / "new",
        network="mlp:width=8",
        latent=2,
        device="cpu",
        batch=20,
        epochs=2,
        seed=4,
    )
    assert np.array_equal(np.load(made.path / "data.npy"), images())
    assert timeless(made.metrics()) == timeless(metrics(run))
    assert made.data().test.sha256() == vs.load(x).test.sha256()
    assert main(["evaluate", str(made.path), "--k", "2", "--quiet"]) == 0


def test_the_steps_of_training(x):
    data = vs.load(x)
    vae = vs.build(data.space, latent=2, network="mlp:width=8")
    steps = list(
        vs.training(
            vae, vs.Objective(beta=vs.Ramp(0, 1, epochs=1)), data, epochs=2, batch=20, device="cpu"
        )
    )
    assert [s.index for s in steps] == list(range(19)) and [s.last for s in steps] == [
        False
    ] * 18 + [True]
    assert steps[0].loss is None and all(np.isfinite(float(s.loss.loss)) for s in steps[1:])
    assert not vae.training


@pytest.mark.parametrize(
    "code",
    [
        "import vaestro",
        "import vaestro; from vaestro.cli import main; assert main(['--help']) == 0",
        "import vaestro; from vaestro.cli import main; assert main(['train', '--help']) == 0",
        "from vaestro.cli import main; assert main(['--version']) == 0",
    ],
)
def test_torch_is_not_imported_before_it_is_needed(code):
    environment = os.environ | {"PYTHONPATH": str(Path(vs.__file__).parents[1])}
    check = (
        f"{code}\nimport sys\nassert 'vaestro' in sys.modules\nassert not "
        f"{{'torch', 'numpy', 'accelerate'}} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_python_m_vaestro_is_the_same_program(capsys):
    environment = os.environ | {"PYTHONPATH": str(Path(vs.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "vaestro", "parts", "--json"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout == say(
        capsys, "parts", "--json"
    )


def test_every_public_name_is_there():
    assert all(getattr(vs, name) is not None for name in vs.__all__) and set(vs.__all__) <= set(
        dir(vs)
    )
    with pytest.raises(AttributeError):
        vs.nosuch  # noqa: B018
