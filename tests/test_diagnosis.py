"""The doctor: runs made ill on purpose, exact answers on linear models, curves, and bad input."""

import json
import math
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.conftest import make_space, make_values
from tests.ill_runs import CASES, NET, Ill, binary, linear
from tests.test_oracles import LOG_LIKELIHOOD, exact_pca_model, pca_data, pca_solution
from vaestro.cli import main
from vaestro.data import Rows
from vaestro.diagnosis import (
    SEVERITIES,
    VERDICTS,
    Case,
    Curves,
    Diagnosis,
    Finding,
    Measures,
    Remedies,
    Watcher,
    diagnosed,
    measure,
)
from vaestro.diagnosis.curve_rules import (
    divergence,
    falling_bound,
    not_converged,
    rising_schedule,
    silent_code,
    skipped_steps,
    stagnation,
    weight_of_kl,
)
from vaestro.diagnosis.exchange import derangement
from vaestro.evaluation import Information
from vaestro.loop import ACTIVE, validate
from vaestro.spaces import Kind


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ill")


@pytest.fixture(scope="module")
def made(folder: Path) -> Callable[[str], tuple[Any, Diagnosis]]:
    """Make a run of the gallery and its diagnosis, each once."""
    kept: dict[str, tuple[Any, Diagnosis]] = {}

    def make(name: str) -> tuple[Any, Diagnosis]:
        if name not in kept:
            run = next(c for c in CASES if c.name == name).train(folder)
            kept[name] = run, run.diagnose()
        return kept[name]

    return make


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_runs_made_ill_are_diagnosed_rightly(case: Ill, made: Any) -> None:
    run, found = made(case.name)
    assert found.verdict == case.verdict, found.findings
    severities = {f.name: f.severity for f in found.findings}
    assert case.findings.items() <= severities.items()
    assert not set(case.never) & set(severities)
    assert not case.says or any(case.says in found[name].evidence for name in case.findings)
    assert [f.severity for f in found.findings] == sorted(
        (f.severity for f in found.findings), key=SEVERITIES.index
    )
    if case.verdict == "healthy":
        assert set(severities.values()) <= {"note"}
    else:
        assert found.findings[0].name in case.findings
    assert run.diagnosis == json.loads(json.dumps(found.line()))


def test_every_verdict_is_in_the_gallery() -> None:
    assert {c.verdict for c in CASES} == set(VERDICTS)


@pytest.mark.slow
def test_the_remedy_of_collapse_cures_it(made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, found = made("huge-beta")
    assert found["posterior collapse"].remedy
    assert main(["diagnose", str(run.path), "--fix", "--device", "cpu"]) == 0
    command = capsys.readouterr().out.strip()
    assert command == found["posterior collapse"].remedy
    assert main([*shlex.split(command)[1:], "--quiet"]) == 0
    cured = vs.Run(shlex.split(command)[-1]).diagnose()
    # the short run is not what is cured
    assert cured.verdict in ("healthy", "not converged") and cured.active_units >= 3


def test_diagnosis_json_has_what_the_interface_promises(made: Any) -> None:
    run, _ = made("beta-4")
    held = json.loads((run.path / "diagnosis.json").read_text())
    assert held["verdict"] in VERDICTS and held["active_units"] == 3
    low, high = held["mutual_information"]
    assert 0 < low <= high == pytest.approx(held["rate"], rel=0.1)
    assert held["mutual_information_ceiling"] == pytest.approx(
        math.log(held["mutual_information_n"]), rel=1e-5
    )
    assert [u["unit"] for u in held["units"]] == list(range(6))
    for unit in held["units"]:
        assert {"rate", "activity", "active"} <= unit.keys()
        assert unit["active"] == (unit["activity"] > held["thresholds"]["active"])
    for finding in held["findings"]:
        assert {"name", "severity", "evidence", "remedy"} <= finding.keys()
        assert finding["severity"] in ("error", "warning", "note")
    arrays = np.load(run.path / "diagnosis.npz")
    n, units = held["n"], len(held["units"])
    for name in ("rate", "mean", "logvar"):
        assert arrays[name].shape == (n, units)
    assert arrays["rate"].mean(0) == pytest.approx([u["rate"] for u in held["units"]], abs=1e-4)
    widths = np.diff(arrays["edges"])
    for name in ("histogram", "prior_histogram"):
        assert (arrays[name] * widths).sum(1) == pytest.approx(np.ones(units), abs=1e-4)


def test_the_same_run_gives_the_same_diagnosis(made: Any) -> None:
    run, found = made("beta-4")
    assert json.dumps(run.diagnose().line()) == json.dumps(found.line())


# -- exact answers ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_units_of_a_linear_model_tell_what_its_eigenvalues_say() -> None:
    model, _ = exact_pca_model()
    x = pca_data()
    _, weights, sigma2 = pca_solution(x)
    found = measured(model, x)
    # Axes of the latent are the principal ones, with l_i = |w_i|^2 + sigma2: the mean's variance is
    # 1 - sigma2 / l_i, and it tells ln(l_i / sigma2) / 2.
    eigenvalues = (weights**2).sum(0) + sigma2
    assert found.activity == pytest.approx(1 - sigma2 / eigenvalues, abs=1e-9)
    assert found.signal == pytest.approx(0.5 * np.log(eigenvalues / sigma2).sum(), rel=1e-9)
    assert found.rates is not None
    assert found.rates.mean(0) == pytest.approx(0.5 * np.log(eigenvalues / sigma2), rel=1e-6)
    # The posterior is exact, so the ELBO is log p(x), but for the noise of one draw for each of
    # 1,000 data.
    assert found.train is not None
    assert (found.valid[0], found.train[0]) == pytest.approx(
        (LOG_LIKELIHOOD, LOG_LIKELIHOOD), abs=0.2
    )
    # Another z from the prior in unit i: E |w_i (z' - z_i)|^2 / (2 sigma2), where the residual
    # stands at right angles to w_i on average.
    expected = (weights**2).sum(0) / (2 * sigma2) * 2 - (weights**2).sum(0) / eigenvalues
    effects = np.array([found.effects[i] for i in range(5)])
    assert np.abs(effects[:, 0] - expected).max() < 4 * effects[:, 1].max()
    assert (np.abs(effects[:, 0] - expected) < 4 * effects[:, 1]).all()


def measured(model: vs.VAE, x: np.ndarray, **options: Any) -> Measures:
    rows = Rows(x.astype(np.float64), model.space, "valid")
    return measure(model, replace(rows, name="train"), rows, vs.Objective(), **options)


def test_the_residual_of_gridded_data_is_that_of_the_spread_data() -> None:
    # Bits under a Gaussian that stands in the middle of its cell: what is left of a constant is the
    # spread's variance, 1 / 12.
    space = make_space(Kind.LEVELS, (8,), levels=3)
    model = vs.build(space, latent=1, network="linear", likelihood="gaussian:variance=1.0")
    x = np.ones((400, 8), np.uint8)
    with torch.no_grad():
        model.likelihood.decoder.last.weight.zero_()
        model.likelihood.decoder.last.bias.copy_(
            (1 - model.likelihood.centre) / model.likelihood.stretch
        )
    rows = Rows(x, space, "valid")
    assert measure(model, rows, rows, vs.Objective()).residual == pytest.approx(1 / 12, rel=0.1)


def test_active_units_are_the_eigenvalues_above_the_variance(made: Any) -> None:
    _, found = made("switched-off")
    informative = [u for u in found.units if u.role == "informative" and (u.rate or 0) > 0.05]
    assert len(informative) == 3  # eigenvalues 9, 4, 2 above the variance of .5, seven of .25 below
    expected = sorted(0.5 * math.log(v / 0.5) for v in (9, 4, 2))
    assert sorted(u.rate or 0 for u in informative) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("n", [2, 3, 10, 501])
def test_another_datum_is_never_the_same(n: int) -> None:
    away = derangement(n, 0)
    assert sorted(away) == list(range(n)) and (away != np.arange(n)).all()


@pytest.mark.usefixtures("float64")
def test_collapse_is_judged_by_the_mean_of_q_and_not_by_the_size_of_the_kl() -> None:
    # Mistake of judging by the KL alone, in both directions, by an encoder whose outputs are set by
    # hand.
    x = 2 * make_values(make_space(Kind.REAL, (4,)), 400).astype(np.float64)

    def verdict(weight: float, bias: float) -> tuple[str, float]:
        model = vs.build(
            make_space(Kind.REAL, (4,)),
            latent=1,
            network="linear",
            likelihood="gaussian:variance=1.0",
        )
        with torch.no_grad():
            last = model.posterior.encoder.last
            last.weight.zero_()
            last.bias.zero_()
            last.weight[0, 0] = weight
            last.bias[0] = bias
            # a variance of about a half, as of the posterior under this decoder
            last.bias[1] = -0.75 * (weight > 0)
            model.likelihood.decoder.last.weight.zero_()
            model.likelihood.decoder.last.weight[0, 0] = 1.0
        found = measured(model, x)
        return diagnosed(
            Case(Remedies("run", {}), healthy_curves(), found, model.units)
        ).verdict, found.rate

    assert verdict(0.0, math.sqrt(10.0)) == ("collapsed", pytest.approx(5.0))
    kind, rate = verdict(0.5, 0.0)
    assert kind == "small rate but informative" and rate < 1.0


def test_structure_tells_data_from_noise() -> None:
    r = np.random.default_rng(0)

    def structure(x: np.ndarray) -> float:
        space = make_space(Kind.BINARY, x.shape[1:])
        torch.manual_seed(0)
        model = vs.build(space, latent=2, network="mlp:width=8")
        found = measure(
            model, Rows(x, space, "train"), Rows(x, space, "valid"), vs.Objective()
        ).structure
        assert found is not None
        return found

    assert 0.9 < structure(r.integers(0, 2, (2000, 30)).astype(np.uint8)) < 1.1
    assert structure(binary(2000, 30)) > 3


def test_the_aggregate_posterior_of_a_weightless_kl_misses_the_prior(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", binary(3000))
    run = vs.train(
        tmp_path / "x.npy",
        run=tmp_path / "run",
        **NET,
        latent=4,
        epochs=12,
        beta=0.01,
        device="cpu",
    )
    found = run.diagnose()
    finding = found["aggregate posterior misses the prior"]
    assert finding.severity == "warning" and "--beta 1" in finding.remedy
    worst = max(found.units, key=lambda u: u.kl_to_prior or 0)
    assert f"largest in unit {worst.unit}:" in finding.evidence
    assert found["weight of the KL"].severity == "note"


def test_a_variance_that_does_not_fit_is_found_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", linear(3000))
    wrong = ["--likelihood", "gaussian:variance=40"]
    options = [
        "--network",
        "linear",
        "--latent",
        "3",
        "--epochs",
        "8",
        "--lr",
        "0.01",
        "--device",
        "cpu",
    ]
    assert (
        main(
            [
                "train",
                f"{tmp_path}/x.npy:standardise=none",
                "--run",
                str(tmp_path / "run"),
                *options,
                *wrong,
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert (
        "warning: variance that does not fit: the fixed variance is 40" in out
        and "gaussian:variance=optimal" in out
    )
    found = vs.Run(tmp_path / "run").diagnose()
    finding = found["variance that does not fit"]
    assert finding.numbers["residual"] == pytest.approx(linear().var() / 40, rel=0.1)
    assert "gaussian:variance=optimal" in finding.remedy
    assert (
        found.verdict == "collapsed"
        and "gaussian:variance=optimal" in found["posterior collapse"].remedy
    )


def test_overfitting_of_densities_is_judged_in_standardised_units() -> None:
    # The log-density of metres is that of millimetres plus cells times ln 1000: the verdict must
    # not depend on it.
    def found(log_det: float) -> str:
        m = simple(valid=(-5.0 + log_det, 0.1, 500), train=(-4.9 + log_det, 0.1, 500))
        case = Case(
            Remedies("run", {}),
            healthy_curves(),
            m,
            (1,),
            log_det=log_det,
            cells=4.0,
            discrete=False,
        )
        far = replace(case, measures=simple(valid=m.valid, train=(-3.5 + log_det, 0.1, 500)))
        assert diagnosed(far).verdict == "overfitted"
        return diagnosed(case).verdict

    assert [found(log_det) for log_det in (0.0, 5.0, -1000.0, 4.9)] == ["healthy"] * 4


def simple(**changes: Any) -> Measures:
    """Return measures of one healthy unit."""
    r = np.random.default_rng(0)
    given: dict[str, Any] = {
        "split": "valid",
        "n": 500,
        "rate": 1.5,
        "distortion": 3.5,
        "mean": r.normal(size=(500, 1)),
        "variance": np.full((500, 1), 0.05),
        "rates": np.full((500, 1), 1.5),
        "z_mean": np.zeros(1),
        "z_std": np.ones(1),
        "histogram": np.ones((1, 2)),
        "prior_histogram": np.ones((1, 2)),
        "edges": np.arange(3.0),
        "own": 3.5,
        "other": 9.0,
        "gain": (5.5, 0.2),
        "valid": (-5.0, 0.1, 500),
        "effects": {0: (5.0, 0.2)},
    }
    return Measures(**{**given, **changes})


def test_rules_one_by_one() -> None:
    def names(**changes: Any) -> set[str]:
        return {
            f.name
            for f in diagnosed(
                Case(
                    Remedies("run", {"likelihood": "gaussian"}),
                    healthy_curves(),
                    simple(**changes),
                    (1,),
                )
            ).findings
        }

    assert names() == set()
    assert names(saturated=0.2) == {"log-variance at its limit"}
    assert names(saturated=0.001) == set()
    assert names(residual=3.0) == {"variance that does not fit"}
    assert names(residual=0.7) == set()
    assert names(effects={0: (0.1, 0.05)}) == {"units that carry noise"}
    assert names(effects={0: (0.1, 0.5)}) == set()  # not known well enough
    assert names(gain=(0.005, 0.2)) == {"latent unused"}
    assert names(train=(-4.9, 0.1, 500)) == set()
    assert names(train=(-3.0, 2.0, 500)) == set()  # within its error
    assert names(train=(-4.0, 0.1, 500)) == {"overfitting"}
    assert names(gradient_noise=0.99) == set()
    two = {
        "mean": np.stack([simple().mean[:, 0], np.zeros(500)], 1),
        "variance": np.stack([np.full(500, 0.05), np.ones(500)], 1),
    }
    two |= {
        "rates": np.stack([np.full(500, 1.5), np.zeros(500)], 1),
        "z_mean": np.zeros(2),
        "z_std": np.ones(2),
    }
    for beta, autoregressive, name in (
        (1.0, False, "units switched off"),
        (2.0, False, "partial collapse"),
        (1.0, True, "partial collapse"),
    ):
        case = Case(
            Remedies("run", {}),
            healthy_curves(),
            simple(**two),
            (2,),
            beta=beta,
            autoregressive=autoregressive,
        )
        assert {f.name for f in diagnosed(case).findings} == {name}
        assert [u.role for u in diagnosed(case).units] == ["informative", "off"]


def test_a_decoder_that_was_made_to_do_without_the_latent_is_no_fault() -> None:
    silent: dict[str, Any] = {
        "mean": np.zeros((500, 1)),
        "variance": np.ones((500, 1)),
        "rates": np.zeros((500, 1)),
        "rate": 0.0,
    }
    for changes, verdict in (
        ({**silent, "gain": (0.0, 0.0)}, "collapsed"),
        ({"gain": (0.0, 0.0)}, "latent unused by the decoder"),
    ):
        for reads_latent, severity in ((True, "error"), (False, "note")):
            case = Case(
                Remedies("run", {}),
                healthy_curves(),
                simple(**changes),
                (1,),
                reads_latent=reads_latent,
            )
            found = diagnosed(case)
            (deciding,) = [
                f for f in found.findings if f.name in ("posterior collapse", "latent unused")
            ]
            assert found.verdict == verdict and deciding.severity == severity
            assert (
                bool(deciding.remedy) == reads_latent
                and ("as configured" in found.summary) != reads_latent
            )


def test_the_information_lies_between_zero_and_the_rate() -> None:
    for estimate, expected in ((-0.01, [0.0, 1.5]), (1.7, [1.5, 1.5]), (1.2, [1.2, 1.5])):
        information = Information(500, 1.5, (estimate, 0.1), (1.5 - estimate, 0.1), None, None)
        case = Case(Remedies("run", {}), healthy_curves(), simple(information=information), (1,))
        assert diagnosed(case).line()["mutual_information"] == expected


@pytest.mark.parametrize(
    ("config", "beta", "wanted"),
    [
        ({}, 4.0, "--beta 1"),
        ({"likelihood": "gaussian:variance=3"}, 4.0, "--beta 1"),
        ({"likelihood": "gaussian:variance=3"}, 1.0, "--likelihood gaussian:variance=optimal"),
        ({"likelihood": "gaussian:variance=pixel"}, 1.0, "--beta warmup:share=0.5"),
        (
            {"likelihood": "gaussian:limit=9,variance=3", "objective": "iwae:k=5"},
            1.0,
            "--likelihood gaussian:variance=auto,limit=9",
        ),
        ({"encoder": "mine:Own"}, 1.0, "--encoder residual"),
        ({"encoder": "mlp:width=3"}, 1.0, "--beta warmup:share=0.5"),
        ({"beta": "warmup:share=0.3"}, 1.0, "--lr 0.0005"),
    ],
)
def test_the_remedy_of_collapse_is_its_likely_cause(
    config: dict[str, Any], beta: float, wanted: str
) -> None:
    m = simple(mean=np.zeros((500, 1)))
    case = Case(Remedies("run", {"lr": 1e-3, **config}), healthy_curves(), m, (1,), beta=beta)
    assert f" {wanted} --run" in diagnosed(case)["posterior collapse"].remedy


def test_the_verdict_is_the_first_that_holds() -> None:
    everything = simple(train=(-1.0, 0.1, 500), gain=(0.0, 0.1), rate=0.5)
    case = Case(Remedies("run", {"lr": 0.1}), healthy_curves(), everything, (1,))
    short = replace(case, curves=Curves(lines([-10.0, -5.0])[:3], 100))
    assert diagnosed(replace(short, failure="it burst")).verdict == "diverged"
    assert [f.name for f in diagnosed(replace(short, failure="it burst")).findings] == [
        "divergence"
    ]
    assert diagnosed(short).verdict == "not converged"
    assert (
        diagnosed(
            replace(case, measures=replace_measures(everything, mean=np.zeros((500, 1))))
        ).verdict
        == "collapsed"
    )
    assert diagnosed(case).verdict == "latent unused by the decoder"
    assert (
        diagnosed(replace(case, measures=replace_measures(everything, gain=(5.0, 0.1)))).verdict
        == "overfitted"
    )


def replace_measures(m: Measures, **changes: Any) -> Measures:
    return replace(m, **changes)


# -- curves ----------------------------------------------------------------------------------------


def lines(
    bounds: list[float | None],
    rates: list[float] | None = None,
    beta: float | list[float] = 1.0,
    **more: Any,
) -> list[dict[str, Any]]:
    """Return metrics.jsonl of a run that validates every 10 steps: the first number is of step
    0."""
    out: list[dict[str, Any]] = []
    for i, bound in enumerate(bounds):
        rate = rates[i] if rates else 2.0
        weight = beta[i] if isinstance(beta, list) else beta
        common = {
            "step": 10 * i,
            "epoch": float(i),
            "bound": bound,
            "rate": rate,
            "beta": weight,
            "lr": 1e-3,
            "skipped": 0,
        }
        common |= {
            "distortion": None if bound is None else -bound - rate,
            "loss": None if bound is None else -bound,
        }
        if i:
            out.append({"split": "train", **common})
        out.append(
            {
                "split": "valid",
                **common,
                "stderr": 0.2,
                "active_units": 3,
                "signal": 2.0,
                **{k: v[i] for k, v in more.items()},
            }
        )
    return out


RISING = [-200.0, -120.0, -100.0, -95.0, -92.0, -91.0, -90.5, -90.2, -90.1, -90.05, -90.0]


def healthy_curves() -> Curves:
    return Curves(lines(RISING), 100)


def test_a_healthy_run_has_no_finding_in_its_curves() -> None:
    # Its KL rises from near zero, as a healthy KL often does.
    rates = [0.01, 0.05, 2.0, 8.0, 12.0, 14.0, 15.0, 15.5, 15.8, 15.9, 16.0]
    curves = Curves(lines(RISING, rates), 100)
    for rule in (
        divergence,
        skipped_steps,
        not_converged,
        rising_schedule,
        stagnation,
        falling_bound,
        silent_code,
        weight_of_kl,
    ):
        assert rule(curves, Remedies("run", {"lr": 1e-3})) is None
    watcher = Watcher(100, Remedies("run", {"lr": 1e-3}))
    for line in lines(RISING, rates, signal=[0.001, 0.01, 0.3, *[2.0] * 8]):
        assert watcher.see([line]) == []


def found(rule: Any, made: list[dict[str, Any]], steps: int = 100, **config: Any) -> Finding:
    finding = rule(Curves(made, steps), Remedies("run", {"lr": 1e-3, **config}))
    assert finding is not None
    return finding


def test_not_converged_by_the_rise_over_the_last_tenth_against_its_error() -> None:
    still = [*RISING[:-1], -89.0]
    finding = found(not_converged, lines(still))
    assert finding.numbers["rise"] == pytest.approx(1.05) and finding.numbers["error"] == 0.2
    assert "--steps 200" in finding.remedy
    assert not_converged(Curves(lines(still, stderr=[2.0] * 11), 100), Remedies("run", {})) is None
    old = [{k: v for k, v in line.items() if k != "stderr"} for line in lines(still)]
    assert not_converged(Curves(old, 100, stderr=2.0), Remedies("run", {})) is None
    assert not_converged(Curves(old, 100, stderr=0.2), Remedies("run", {})) is not None


@pytest.mark.parametrize(("n", "short"), [(1, True), (2, True), (3, True), (4, False)])
def test_fewer_than_three_validations_say_nothing(n: int, short: bool) -> None:
    curves = Curves(lines([-10.0] * n), 10 * n)
    # the one before the first step does not count
    assert (not_converged(curves, Remedies("run", {})) is not None) == short


def test_a_run_that_stopped_is_to_be_resumed() -> None:
    finding = not_converged(
        Curves(lines(RISING), 400, finished=False), Remedies("runs/a b", {"steps": 400})
    )
    assert finding is not None and "step 100 of 400" in finding.evidence
    assert finding.remedy == "vaestro train --resume 'runs/a b'"


def test_divergence() -> None:
    assert found(divergence, lines([-200.0, None])).severity == "error"
    worse = found(divergence, lines([-200.0, -300.0, -400.0, -500.0]))
    assert worse.numbers == {"start": 200.0, "end": 500.0}
    assert "--lr 0.000333333" in worse.remedy
    # A weight of the KL that rises makes the loss rise too, and a run that starts from another's
    # weights may start better.
    rising = lines([-200.0, -150.0, -140.0], [100.0, 30.0, 70.0], beta=[0.0, 0.5, 4.0])
    # at its own weight of 0, which the last loss of 350 must not be compared with
    rising[0]["loss"] = 100.0
    assert rising[-2]["distortion"] + 4 * rising[-2]["rate"] > rising[0]["loss"]
    assert divergence(Curves(rising, 20), Remedies("run", {})) is None
    assert (
        divergence(Curves(lines([-100.0, -101.0]), 10), Remedies("run", {"init": "other"})) is None
    )


def test_a_schedule_that_is_still_rising_at_the_end() -> None:
    betas = [0.1 * i for i in range(11)]
    finding = found(rising_schedule, lines(RISING, beta=betas))
    assert "still changing" in finding.evidence and "warmup:share=0.1" in finding.remedy
    late = [*[0.0] * 9, 0.5, 1.0]
    assert found(rising_schedule, lines(RISING, beta=late))
    assert (
        rising_schedule(
            Curves(lines(RISING, beta=[0.0, 0.5, *[1.0] * 9]), 100), Remedies("run", {})
        )
        is None
    )


def test_reconstruction_that_stagnates_while_the_kl_falls() -> None:
    rates = [3.0, 20.0, 18.0, 16.0, 14.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0]
    stuck = [-(80.0 + r) for r in rates]
    finding = found(stagnation, lines(stuck, rates))
    assert "the KL fell from" in finding.evidence
    better = [-(80.0 + r - 2 * i) for i, r in enumerate(rates)]
    assert stagnation(Curves(lines(better, rates), 100), Remedies("run", {})) is None
    # While its weight rises a falling KL is what was asked for.
    assert (
        stagnation(
            Curves(lines(stuck, rates, beta=[0.1 * i for i in range(11)]), 100), Remedies("run", {})
        )
        is None
    )


def test_a_validation_bound_that_falls() -> None:
    falls = [*RISING[:5], -93.0, -94.0, -95.0, -96.0, -97.0, -98.0]
    finding = found(falling_bound, lines(falls))
    assert finding.numbers == {"best_step": 40, "fell": pytest.approx(6.0)}
    assert "--patience 5" in finding.remedy
    assert falling_bound(Curves(lines(falls, beta=4.0), 100), Remedies("run", {})) is None


def test_skipped_steps() -> None:
    made = lines(RISING)
    made[-1]["skipped"] = 7
    assert "7 of 100 steps" in found(skipped_steps, made).evidence


def test_collapse_is_said_live_once_after_the_start_and_not_by_the_kl_alone() -> None:
    silent = lines([-200.0] * 11, [0.001] * 11, signal=[0.001] * 11, active_units=[0] * 11)
    remedy = Remedies("run", {"lr": 1e-3})
    watcher = Watcher(100, remedy)
    said = [(line["step"], f.name) for line in silent for f in watcher.see([line])]
    assert said == [(20, "posterior collapse")]
    assert [
        f for line in silent for f in Watcher(100, remedy, reads_latent=False).see([line])
    ] == []
    early = lines([-200.0] * 3, [0.001] * 3, signal=[0.001] * 3, active_units=[0] * 3)
    long = Watcher(1000, remedy)
    # a healthy code may be silent so early
    assert [f for line in early for f in long.see([line])] == []
    faint = lines([-200.0] * 11, [0.09] * 11, signal=[0.09] * 11, active_units=[2] * 11)
    assert all(Watcher(100, remedy).see(faint[:n]) == [] for n in range(1, len(faint)))
    shifted = lines([-200.0] * 11, [5.0] * 11, signal=[0.0] * 11, active_units=[0] * 11)
    finding = silent_code(Curves(shifted, 100), remedy)
    assert (
        finding is not None
        and "the KL is 5.00 nats, but q(z | x) is nearly the same for every x" in finding.evidence
    )
    # The log does not show whether there is anything to encode: the message names no cause, and no
    # remedy for one.
    assert (
        finding.severity == "warning"
        and finding.remedy == "vaestro diagnose run"
        and "no structure to encode" in finding.evidence
    )


def test_curves_stand_lines_that_say_less() -> None:
    for made in (
        [],
        [{}],
        [{"split": "valid", "step": 0}],
        lines([None, None]),
        [{"split": "valid", "step": "x", "bound": []}],
    ):
        curves = Curves(made, 10)
        for rule in (
            skipped_steps,
            not_converged,
            rising_schedule,
            stagnation,
            falling_bound,
            silent_code,
            weight_of_kl,
            divergence,
        ):
            rule(curves, Remedies("run", {}))


def test_the_signal_of_a_validation_does_not_know_where_codes_lie() -> None:
    space = make_space(Kind.BINARY, (6,))
    rows = Rows(make_values(space, 900), space, "valid")
    torch.manual_seed(0)
    model = vs.build(space, latent=2, network="linear").eval()
    before = validate(model, vs.Objective(), rows, 0, "cpu")
    with torch.no_grad():
        model.posterior.encoder.last.bias[:2] += 3.0
    after = validate(model, vs.Objective(), rows, 0, "cpu")
    assert (
        before.signal == pytest.approx(after.signal, rel=1e-4)
        and before.active_units == after.active_units
    )
    mean = model.q(model.features(rows.batch(slice(None)))).mean.detach().double().numpy()
    assert after.active_units == (mean.var(0) > ACTIVE).sum()


def test_validation_logs_what_the_code_tells(made: Any) -> None:
    for name, silent in (("huge-beta", True), ("healthy", False)):
        run, found = made(name)
        last = [line for line in run.metrics() if line["split"] == "valid"][-1]
        assert (last["signal"] < 0.05) == silent
        # the last weights are not always those in use
        assert last["active_units"] == pytest.approx(found.active_units, abs=1)
        assert 0 < last["stderr"] < 1
        assert last["signal"] == pytest.approx(found.numbers["signal"], rel=0.1, abs=1e-3)
        train = next(line for line in run.metrics() if line["split"] == "train")
        assert train["stderr"] is None and train["active_units"] is None


# -- kinds of models and data ----------------------------------------------------------------------


def table(path: Path) -> str:
    r = np.random.default_rng(0)
    rows = ["size,colour,visits,member,group"]
    for _ in range(600):
        z = r.normal()
        cells = [
            f"{2 * z + 0.3 * r.normal():.3f}",
            "red" if z > 0.3 else "blue",
            str(r.poisson(math.exp(0.5 + 0.5 * z))),
            str(z > 0).lower(),
        ]
        rows.append(
            ",".join("" if r.random() < 0.1 else c for c in cells) + f",{'ab'[int(z > 0.5)]}"
        )
    (path / "t.csv").write_text("\n".join(rows))
    return str(path / "t.csv")


def array(
    x: Callable[[np.random.Generator], np.ndarray], options: str = ""
) -> Callable[[Path], str]:
    def write(path: Path) -> str:
        np.save(path / "x.npy", x(np.random.default_rng(0)))
        return f"{path}/x.npy{options}"

    return write


KINDS: dict[str, tuple[Callable[[Path], str], dict[str, Any]]] = {
    "table with missing cells": (table, {}),
    "conditional, prior too": (table, {"condition": "group", "prior": "conditional"}),
    "colour levels, spatial latent": (
        array(lambda r: r.integers(0, 256, (120, 28, 28, 3)).astype(np.uint8)),
        {"network": "conv:factor=8,width=4", "batch": 16},
    ),
    "dequantized levels": (
        array(lambda r: r.integers(0, 16, (300, 6, 6)).astype(np.uint8)),
        {"likelihood": "gaussian:variance=optimal"},
    ),
    "counts": (array(lambda r: r.poisson(3, (300, 5)), ":kind=count"), {}),
    "categories": (array(lambda r: r.integers(0, 5, (300, 5)), ":kind=category"), {}),
    "missing cells": (
        array(
            lambda r: np.where(r.random((300, 5)) < 0.2, np.nan, r.normal(size=(300, 5))),
            ":missing=nan",
        ),
        {},
    ),
    "iwae": (
        array(lambda r: r.integers(0, 2, (300, 9)).astype(np.uint8)),
        {"objective": "iwae:k=3"},
    ),
    "one unit": (array(lambda r: r.normal(size=(300, 5))), {"latent": 1}),
}


def test_a_code_that_only_repeats_its_condition_is_collapsed(tmp_path: Path) -> None:
    # With q(z | x, c) = p(z | c) the mean moves with c, and tells nothing of x.
    source = table(tmp_path)
    options = {
        "condition": "group",
        "prior": "conditional",
        "network": "mlp:width=8",
        "latent": 2,
        "steps": 4,
        "device": "cpu",
    }
    run = vs.train(source, run=tmp_path / "run", **options)
    model, data = run.model(), run.data()
    with torch.no_grad():
        model.posterior.encoder.last.weight.zero_()  # type: ignore[union-attr]
        model.posterior.encoder.last.bias.zero_()  # type: ignore[union-attr]
        model.prior.network[-1].bias.zero_()  # type: ignore[union-attr,index]
        model.prior.network[-1].weight.zero_()  # type: ignore[union-attr,index]
    silent = measure(model, data.train, data.valid, vs.Objective())
    assert silent.signal == 0
    with torch.no_grad():
        model.prior.network[-1].weight[:2] = 3.0  # type: ignore[union-attr,index]
    moved = measure(model, data.train, data.valid, vs.Objective())
    # the prior moves and q does not: that is told beyond the condition
    assert moved.signal is not None and moved.signal > 0.05


def test_one_datum_tells_of_no_dependence() -> None:
    case = Case(
        Remedies("run", {}),
        healthy_curves(),
        simple(n=1, mean=np.zeros((1, 1)), gain=(5.0, math.nan)),
        (1,),
    )
    assert diagnosed(case).verdict != "collapsed"


def test_codes_on_a_small_scale_are_not_off() -> None:
    small = {"mean": simple().mean * 0.05, "variance": np.full((500, 1), 1e-5)}
    case = Case(Remedies("run", {}), healthy_curves(), simple(**small), (1,), beta=0.01)
    assert diagnosed(case).units[0].role == "informative" and not diagnosed(case).units[0].active
    assert {f.name for f in diagnosed(case).findings} == set()


def test_a_run_without_validation_is_said_to_be_one() -> None:
    curves = Curves([line for line in lines(RISING) if line["split"] == "train"], 100)
    found = diagnosed(Case(Remedies("run", {}), curves, simple(), (1,)))
    assert (
        found.verdict == "healthy"
        and found["no validation"].severity == "warning"
        and "rises" not in found.summary
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_and_model_is_diagnosed(kind: str, tmp_path: Path) -> None:
    source, options = KINDS[kind]
    options = {
        "network": "mlp:width=16",
        "latent": 3,
        "steps": 20,
        "batch": 32,
        "device": "cpu",
        "compile": "off",
        **options,
    }
    run = vs.train(source(tmp_path), run=tmp_path / "run", **options)
    found = run.diagnose()
    held = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    assert held["verdict"] in VERDICTS
    assert (
        len(held["units"]) == math.prod(run.model().units)
        and len(found.units) == found.arrays["mean"].shape[1]
    )
    assert all(u["activity"] >= 0 and u["aggregate_std"] > 0 for u in held["units"])
    assert (held["mutual_information"] is None) == (kind == "conditional, prior too")
    assert all(u["effect"] is not None for u in held["units"][:3] if len(held["units"]) <= 64)
    assert (
        held["scores"]["train"]["n"] > held["scores"]["valid"]["n"]
        or held["scores"]["valid"]["n"] == held["n"]
    )


def test_a_model_without_held_out_data_is_judged_on_its_training_data() -> None:
    space = make_space(Kind.BINARY, (64,))
    rows = Rows(binary(300), space, "train")
    torch.manual_seed(0)
    found = measure(
        vs.build(space, latent=2, network="mlp:width=8"), rows, rows.take(0), vs.Objective()
    )
    assert (found.split, found.n, found.train) == ("train", 300, None)
    scores = diagnosed(Case(Remedies("run", {}), healthy_curves(), found, (2,))).line()["scores"]
    assert list(scores) == ["train"]


def test_duplicates_and_changed_data_are_findings(tmp_path: Path) -> None:
    x = binary(400)
    np.savez(
        tmp_path / "x.npz", train=x[:300], valid=np.concatenate([x[:40], x[300:340]]), test=x[340:]
    )
    run = vs.train(
        tmp_path / "x.npz", run=tmp_path / "run", **NET, latent=2, steps=10, device="cpu"
    )
    found = run.diagnose()["duplicates between splits"].evidence.partition(" of 80 valid rows")[0]
    # rows of so few factors coincide by chance too, so that not each copy is sure to be one
    assert 30 <= int(found) <= 40
    np.savez(tmp_path / "x.npz", train=x[:299], valid=x[300:340], test=x[340:])
    assert "the train data are not those of the training" in run.diagnose()["data changed"].evidence


# -- the command -----------------------------------------------------------------------------------


def say(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 0
    out, err = capsys.readouterr()
    assert not err
    return out


def test_the_command_says_it_in_words(made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, found = made("beta-4")
    out = say(capsys, "diagnose", run.path)
    assert out.splitlines()[0] == f"{run.path}: partly collapsed"
    assert "6 units: 3 informative, 3 off" in out
    assert f"warning: partial collapse: {found['partial collapse'].evidence}" in out
    assert f"    try: {found['partial collapse'].remedy}" in out
    assert say(capsys, "diagnose", run.path, "--fix").strip() == found["partial collapse"].remedy
    assert json.loads(say(capsys, "diagnose", run.path, "--json"))["verdict"] == "partly collapsed"
    assert "partly collapsed" in say(capsys, "info", run.path)
    healthy, _ = made("healthy")
    assert say(capsys, "diagnose", healthy.path, "--fix").strip() == "# nothing to fix: healthy"


def test_training_says_it_live_and_lints_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", binary(1500))
    out = say(
        capsys,
        "train",
        tmp_path / "x.npy",
        "--run",
        tmp_path / "run",
        "--beta",
        "60",
        "--network",
        "mlp:width=32",
        "--epochs",
        "12",
    )
    assert "note: weight of the KL: beta 60" in out.partition("step ")[0]
    live = [line for line in out.splitlines() if line.startswith("warning: posterior collapse")]
    assert len(live) == 1 and out.index(live[0]) < out.index("wrote ")
    assert (
        f"vaestro train --config {tmp_path}/run/config.yaml --beta 1 --run {tmp_path}/run-beta1"
        in out
    )


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--beta", "0"], "weight of the KL"),
        (["--beta", "warmup:share=0.99"], "schedule too long"),
        (["--steps", "2"], "short run"),
        (["--epochs", "2"], "short run"),
        (["--network", "residual:width=512"], "few data"),
        (["--latent", "65"], "many units"),
        (["--lr", "0.1"], "high learning rate"),
        ([], None),
    ],
)
def test_the_linter_names_what_is_visible_from_options(
    options: list[str], name: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", binary(1500))
    standard = {"--network": "mlp:width=32", "--epochs": "10"}
    given = dict(zip(options[::2], options[1::2], strict=True))
    standard = {
        k: v for k, v in standard.items() if not (k == "--epochs" and "--steps" in given)
    } | given
    out = say(
        capsys,
        "train",
        tmp_path / "x.npy",
        "--dry-run",
        *[word for pair in standard.items() for word in pair],
    )
    said = [
        line for line in out.splitlines() if line.startswith(("# warning", "# note", "# error"))
    ]
    assert [line.split(": ")[1] for line in said] == ([] if name is None else [name])
    if name == "few data":  # nothing was seen to go wrong yet
        assert (
            "watch for overfitting" in said[0]
            and "best weights by validation are kept" in said[0]
            and "try:" not in out
        )


def test_a_run_without_validation_data_is_linted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = say(capsys, "train", "mnist:valid=0", "--dry-run", "--latent", "4")
    assert "# warning: little validation: 0 validation data: early stopping" in out


def failure(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.startswith("vaestro: ")
    return err


def test_bad_input(made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in failure(capsys, "diagnose", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "no config.yaml" in failure(capsys, "diagnose", tmp_path / "empty")
    run, _ = made("coins")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.yaml").write_text((run.path / "config.yaml").read_text())
    assert "expected trained weights" in failure(capsys, "diagnose", tmp_path / "new")
    held = (run.path / "diagnosis.json").read_text()
    (run.path / "diagnosis.json").write_text(held[:50])
    assert "damaged" in failure(capsys, "info", run.path)
    say(capsys, "diagnose", run.path)
    assert json.loads((run.path / "diagnosis.json").read_text()) == json.loads(held)


def test_damaged_metrics_are_stood(made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = made("coins")
    whole = (run.path / "metrics.jsonl").read_text()
    try:
        (run.path / "metrics.jsonl").write_text(whole + '{"split": "val')
        assert run.diagnose().verdict == "collapsed"
        (run.path / "metrics.jsonl").unlink()
        say(capsys, "diagnose", run.path)
    finally:
        (run.path / "metrics.jsonl").write_text(whole)


def test_why_a_run_diverged_is_kept_until_it_goes_on(made: Any, folder: Path) -> None:
    run, found = made("diverged")
    assert "were not finite" in (run.failure or "")
    assert found["divergence"].evidence in (run.failure or "")
    again = vs.resume(
        run.path, steps=0 + max(1, json.loads((run.path / "failure.json").read_text())["step"] - 25)
    )
    assert again.failure is None


def test_weights_that_are_not_finite_are_not_measured(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    np.save(tmp_path / "x.npy", binary(300))
    run = vs.train(
        tmp_path / "x.npy", run=tmp_path / "run", **NET, latent=2, steps=10, device="cpu"
    )
    weights = load_file(run.path / "model.safetensors")
    save_file(
        {
            k: torch.full_like(v, math.nan) if v.is_floating_point() else v
            for k, v in weights.items()
        },
        run.path / "model.safetensors",
    )
    found = run.diagnose()
    assert found.verdict == "diverged" and found.units == ()


def test_active_means_what_burda_et_al_meant() -> None:
    assert ACTIVE == 0.01
