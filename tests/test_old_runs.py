"""Run folders that an older vaestro wrote still work: see tests/old_runs/make.py."""

import json
from pathlib import Path

import numpy as np
import pytest

import vaestro as vs
from tests.old_runs.make import (
    NAMES,
    STEPS,
    Arrays,
    arrays,
    call,
    copied,
    metrics,
    results,
    resumed,
)
from vaestro.cli import main

STORED = Path(__file__).parent / "old_runs"
VERBS = [
    *("evaluate", "diagnose", "encode", "decode", "sample", "means", "reconstruct", "interpolate"),
    "impute",
]
# Biases in front of a normalisation that subtracts them: their gradient is rounding error alone,
# which Adam scales up, so that they differ between processors.
UNUSED = ("decoder.layers.0.third.bias", "decoder.layers.1.bias")

pytest.importorskip("zuko")
pytest.importorskip("pyarrow")


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def expected(name: str) -> Arrays:
    return arrays(STORED / name / "expected.npz")


@pytest.fixture
def place(name: str, tmp_path: Path) -> Path:
    return copied(STORED / name, tmp_path / name)


@pytest.fixture(scope="module")
def used(name: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Arrays]:
    """Copy a folder and call every command once; returns the copy and what the commands wrote."""
    copy = copied(STORED / name, tmp_path_factory.mktemp("used") / name)
    return copy, results(copy)


def check(found: Arrays, expected: Arrays, rtol: float, atol: float = 1e-5) -> None:
    """Compare arrays by name: text and whole numbers exactly, others within a tolerance."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].shape == value.shape, key
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found[key], value, rtol, atol, err_msg=key)
        else:
            np.testing.assert_array_equal(found[key], value, err_msg=key)


def part(found: Arrays, prefix: str) -> Arrays:
    return {k: v for k, v in found.items() if k.startswith(f"{prefix}/")}


def test_opens(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = vs.Run(place / "run")
    data, stopped = run.data(), name == "table"
    assert run.finished is not stopped
    assert run.config["source"] == data.source == str(next(place.glob("data.*")))
    assert len(run.metrics()) == (7 if stopped else 9)
    assert run.kept is not None
    assert run.kept["step"] == (41 if stopped else 30)
    assert tuple(run.model().units) == ((3,) if stopped else (2,))
    assert [len(rows) for rows in (data.train, data.valid, data.test)] == (
        [198, 11, 11] if stopped else [144, 8, 8]
    )
    assert run.changed(data, "test") == [], "the data are read, split and scaled as before"
    assert (run.evaluation is None) is (run.diagnosis is None) is stopped
    capsys.readouterr()
    assert main(["info", str(run.path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["state"] == ("stopped" if stopped else "finished")
    assert ("iwae" in facts) is ("diagnosis" in facts) is not stopped


@pytest.mark.parametrize("verb", VERBS)
def test_commands_give_what_they_gave(
    verb: str, used: tuple[Path, Arrays], expected: Arrays
) -> None:
    found, before = part(used[1], verb), part(expected, verb)
    if not before:
        assert verb == "impute" and not found
        return
    for key in [k for k in before if k.endswith("_ess")]:  # far more sensitive to rounding
        np.testing.assert_allclose(found.pop(key), before.pop(key), 1e-3)
    if verb == "encode":  # later versions write row numbers and attributes beside the codes
        found = {key: values for key, values in found.items() if key in before}
    check(found, before, rtol=1e-5)


@pytest.mark.parametrize("name", ["images"], indirect=True)  # the run stored with its results
def test_results_have_the_fields_they_had(name: str, used: tuple[Path, Arrays]) -> None:
    for file in ("evaluation.json", "diagnosis.json"):
        now, before = (json.loads((p / "run" / file).read_text()) for p in (used[0], STORED / name))
        assert now.keys() >= before.keys()
        for key in ("data_sha256", "weights_sha256", "split", "n", "space", "unit", "warnings"):
            assert now.get(key) == before.get(key), key
        for one, other in zip(now.get("estimates", []), before.get("estimates", []), strict=True):
            assert one.keys() >= other.keys()
            assert one["mean"] == pytest.approx(other["mean"], rel=1e-5)
        for one, other in zip(now.get("units", []), before.get("units", []), strict=True):
            assert one.keys() >= other.keys()
            for key, value in other.items():
                if isinstance(value, float):
                    value = pytest.approx(value, rel=1e-3, abs=1e-5)
                assert one[key] == value, key


def test_resumes_to_its_end(name: str, place: Path, expected: Arrays, tmp_path: Path) -> None:
    twin = copied(STORED / name, tmp_path / "twin")
    found = resumed(place, STEPS[name])
    check(part(found, "metrics"), part(expected, "metrics"), rtol=1e-5)
    weights, before = part(found, "weights"), part(expected, "weights")
    assert {k: (v.shape, v.dtype) for k, v in weights.items()} == {
        k: (v.shape, v.dtype) for k, v in before.items()
    }
    used = [k for k in before if not k.endswith(UNUSED)]
    check({k: weights[k] for k in used}, {k: before[k] for k in used}, rtol=1e-3, atol=1e-5)
    assert vs.Run(place / "run").finished
    if name == "table":  # without options it goes to the same end
        call("train", "--resume", twin / "run")
    else:
        resumed(twin, STEPS[name])
    for file in ("model.safetensors", "kept.json"):
        assert (twin / "run" / file).read_bytes() == (place / "run" / file).read_bytes()


def test_its_config_repeats_it(name: str, place: Path, expected: Arrays) -> None:
    call("train", "--config", place / "run" / "config.yaml", "--run", place / "again")
    before = part(expected, "metrics") if name == "table" else metrics(place / "run")
    check(metrics(place / "again"), before, rtol=1e-5)


def test_a_report_uses_what_the_folder_has(name: str, place: Path) -> None:
    pytest.importorskip("plotly")
    pytest.importorskip("jinja2")
    run = place / "run"
    results = ("evaluation.json", "evaluation.npz", "diagnosis.json", "diagnosis.npz")
    before = {file: (run / file).read_bytes() for file in results if (run / file).exists()}
    assert len(before) == (0 if name == "table" else 4)
    call("report", run)
    assert all((run / file).exists() for file in (*results, "showcase.json", "showcase.npz"))
    assert all((run / file).read_bytes() == content for file, content in before.items())
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert json.loads((run / "diagnosis.json").read_text())["summary"] in page
