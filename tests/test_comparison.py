"""Comparison: what may stand in one ranking, what two bounds say about two models and what they do
not."""

import csv
import json
import math
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image

import vaestro as vs
from vaestro.cli import main
from vaestro.comparison.evidence import Bound, Row, interval
from vaestro.comparison.pairs import decided
from vaestro.comparison.significance import holm, p_value
from vaestro.comparison.words import extent, number, report, shortened, tick_labels, ticks

N = 400
BASE = np.random.default_rng(0).normal(-90, 25, N)
SHA, OTHER = "a" * 64, "b" * 64


def near(shift, noise=0.5, seed=1, n=N):
    """Give numbers whose mean lies exactly `shift` from that of the common data, with noise of
    their own."""
    own = np.random.default_rng(seed).normal(0, noise, n)
    return BASE[:n] + shift + own - own.mean()


def first(values, n):
    """Blank all but the first n data, as annealing leaves them."""
    return np.where(np.arange(len(values)) < n, values, np.nan)


def write(
    path,
    bounds,
    *,
    sha=SHA,
    measure="counting",
    k=500,
    gaps=None,
    side="lower",
    options=None,
    datum=None,
    **keys,
):
    """Write what an evaluation writes; `gaps` are {method: (mean, standard error)} of the gap on 64
    simulated data."""
    path = Path(path)
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("source: mnist\nsteps: 1\nbatch: 8\n")
    n = len(next(iter(bounds.values())))
    estimates = []
    for method, nats in bounds.items():
        there = nats[~np.isnan(nats)]
        bits = -there.mean() / (784 * math.log(2)) if measure == "counting" else None
        line = {
            "method": method,
            "side": side,
            "measure": measure,
            "k": k,
            "mean": there.mean(),
            "stderr": None,
            "bits_per_dim": bits,
        }
        estimates.append(line | {"seconds": 1.0} | (options or {}))
    arrays = dict(bounds) | {"index": np.arange(n)} | ({} if datum is None else {"datum": datum})
    for method, (mean, error) in (gaps or {}).items():
        upper = np.linspace(-120, -60, 64)
        wiggle = np.tile([1.0, -1.0], 32) * error * math.sqrt(63)
        arrays |= {"simulated_ais_upper": upper, f"simulated_{method}": upper - mean - wiggle}
        on = {"measure": measure, "k": 1, "stderr": 1.0, "on": "simulated data"}
        estimates += [
            {"method": method, "side": "lower", "mean": -91.0} | on,
            {"method": "ais", "side": "upper", "mean": -90.0} | on,
        ]
    result = {
        "split": "test",
        "n": n,
        "data_sha256": sha,
        "source": "mnist",
        "unit": "nats",
        "space": "binary (28, 28)",
    }
    (path / "evaluation.json").write_text(
        json.dumps(result | {"estimates": estimates, "rate": 1.0, "distortion": 2.0} | keys)
    )
    np.savez(path / "evaluation.npz", **arrays)
    return path


def pair(*args, **keys):
    """Compare and return the only pair."""
    group = vs.compare(*args, **keys).groups[0]
    assert len(group.pairs) == 1
    return group.pairs[0]


def alone(*paths, **keys):
    """Compare two rows that must be refused, and return why."""
    comparison = vs.compare(list(paths), **keys)
    assert [g.ranking for g in comparison.groups] == [None, None]
    assert [g.pairs for g in comparison.groups] == [(), ()]
    assert len(comparison.refusals) == 1
    return comparison.refusals[0]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused, and return its one line."""

    def run(*arguments):
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert code == 2, err
        assert err.startswith("vaestro: ") and err.count("\n") == 1
        assert ("expected " in err and "; got" in err) or "is damaged: " in err
        assert out == ""
        return err

    return run


# -- what may be compared --------------------------------------------------------------------------


def test_different_data_are_not_ranked(here):
    said = alone(write("a", {"iwae": near(0)}), write("b", {"iwae": near(5)}, sha=OTHER))
    assert said == "b is not ranked with a: different data or binarisation (bbbbbbbb and aaaaaaaa)"


def test_different_splits_are_named(here):
    said = alone(
        write("a", {"iwae": near(0)}), write("b", {"iwae": near(5)}, sha=OTHER, split="valid")
    )
    assert said.endswith("different data or binarisation (valid bbbbbbbb and test aaaaaaaa)")


def test_different_numbers_of_data_are_not_ranked(here):
    said = alone(write("a", {"iwae": near(0)}), write("b", {"iwae": near(5, n=100)}, sha=OTHER))
    assert (
        said
        == "b is not ranked with a: measured on 100 and on 400 data: evaluate both with --limit 100"
    )
    assert "different data (valid and test)" in alone(
        "a", write("c", {"iwae": near(5, n=100)}, sha=OTHER, split="valid")
    )


def test_a_limit_does_not_help_where_the_first_data_differ(here):
    r = np.random.default_rng(4)
    write("a", {"iwae": near(0)}, datum=r.normal(size=N))
    assert "different data" in alone(
        "a", write("b", {"iwae": near(0, n=100)}, sha=OTHER, datum=r.normal(size=100))
    )
    datum = np.load("a/evaluation.npz")["datum"][:100]
    assert "--limit 100" in alone("a", write("c", {"iwae": near(0, n=100)}, sha=OTHER, datum=datum))


def test_a_density_is_not_ranked_with_a_probability(here):
    write("a", {"iwae": near(0)})
    for measure in ("lebesgue", "mixed"):
        said = alone("a", write(measure, {"iwae": near(5)}, measure=measure))
        assert (
            said.startswith(f"{measure} is not ranked with a: a density and a probability")
            and f"({measure} and counting" in said
        )


def test_different_conditions_are_not_ranked(here):
    # The hash covers what is given, so it differs too: the conditions are the reason.
    said = alone(
        write("a", {"iwae": near(0)}), write("b", {"iwae": near(5)}, sha=OTHER, given=["digit"])
    )
    assert said == "b is not ranked with a: different conditions: p(x | digit) and p(x)"
    assert (
        vs.compare([write("c", {"iwae": near(5)}, sha=OTHER, given=["digit"]), "b"]).groups[0].pairs
    )


def test_conditions_of_an_evaluation_that_does_not_say_are_the_runs(here):
    write("a", {"iwae": near(0)})
    write("b", {"iwae": near(5)}, sha=OTHER)
    Path("b/config.yaml").write_text("source: mnist\nsteps: 1\nbatch: 8\ncondition: [digit]\n")
    assert "p(x | digit) and p(x)" in alone("a", "b")


def test_different_masks_are_not_ranked(here):
    write("a", {"iwae": near(0)}, masked=False)
    said = alone("a", write("b", {"iwae": near(5)}, sha=OTHER, masked=True))
    assert (
        "different masks: b is measured on data with missing cells, a on complete data (bbbbbbbb "
        "and aaaaaaaa)" in said
    )


def test_densities_of_one_data_set_standardised_twice_are_ranked(here):
    datum = 50 + 10 * np.random.default_rng(2).normal(size=N)
    keys = {"measure": "lebesgue"}
    write("a", {"iwae": near(0)}, datum=datum, **keys)
    write("b", {"iwae": near(5)}, sha=OTHER, datum=datum + 1e-4 * np.cos(datum), **keys)
    assert vs.compare(["a", "b"]).groups[0].pairs
    # One datum of them is another: by a tenth of the spread.
    changed = np.where(np.arange(N) == 7, datum + 1, datum)
    assert "different data" in alone(
        "a", write("c", {"iwae": near(5)}, sha=OTHER, datum=changed, **keys)
    )
    assert "different data" in alone("a", write("d", {"iwae": near(5)}, sha=OTHER, **keys))
    assert "different masks" in alone(
        write("e", {"iwae": near(5)}, sha="c" * 64, datum=datum, masked=True, **keys),
        write("f", {"iwae": near(5)}, sha=OTHER, datum=datum, masked=False, **keys),
    )
    assert "different conditions" in alone(
        "a", write("g", {"iwae": near(5)}, sha=OTHER, datum=datum, given=["y"], **keys)
    )


def test_densities_of_equal_hash_are_not_ranked_where_their_data_differ(here):
    datum = 50 + 10 * np.random.default_rng(2).normal(size=N)
    keys = {"measure": "lebesgue"}
    write("none", {"iwae": near(1)}, **keys)
    write("a", {"iwae": near(0)}, datum=datum, **keys)
    write("b", {"iwae": near(5)}, datum=datum + 1e-5, **keys)
    assert vs.compare(["a", "b"]).groups[0].pairs and vs.compare(["a", "none"]).groups[0].pairs
    write("c", {"iwae": near(5)}, datum=2 * datum, **keys)
    assert (
        alone("a", "c")
        == "c is not ranked with a: different data: equal as standardised (aaaaaaaa), but not in "
        "their own units"
    )
    # One whose data are not known belongs with either, but not with both.
    comparison = vs.compare(["none", "a", "c"])
    assert [{r.name for r in g.rows} for g in comparison.groups] == [{"a", "none"}, {"c"}]
    assert "different data: equal as standardised" in comparison.refusals[0]
    # The hash of probabilities says it all.
    write("d", {"iwae": near(0)}, datum=datum)
    assert vs.compare([write("e", {"iwae": near(5)}, datum=2 * datum), "d"]).groups[0].pairs


def test_probabilities_need_equal_hashes(here):
    datum = np.random.default_rng(2).normal(size=N)
    write("a", {"iwae": near(0)}, datum=datum)
    assert "different data" in alone("a", write("b", {"iwae": near(5)}, sha=OTHER, datum=datum))
    # Of the same values in the user's units, the measure is what keeps them apart.
    assert "a density and a probability" in alone(
        "a", write("c", {"iwae": near(5)}, sha=OTHER, datum=datum, measure="lebesgue")
    )


# -- what follows ----------------------------------------------------------------------------------


def test_the_error_of_a_difference_is_paired(here):
    # Each mean has an error of 1.25 nats; their difference has one of 0.025.
    a, b = near(0.5, seed=1), near(0, seed=2)
    write("a", {"iwae": a})
    write("b", {"iwae": b})
    got = pair(["a", "b"])
    assert got.difference == pytest.approx(0.5)
    assert got.stderr == pytest.approx(np.std(a - b, ddof=1) / math.sqrt(N))
    assert (
        got.stderr
        < 0.05
        < math.hypot(*(r.headline.mean()[1] for r in vs.compare(["a", "b"]).rows)) / 20
    )
    assert got.relation == "higher"
    # The same numbers without a common order would not be told apart.
    write("c", {"iwae": np.random.default_rng(9).permutation(b)})
    assert pair(["a", "c"]).relation == "equal"


def test_two_lower_bounds_do_not_order_two_models(here):
    write("a", {"iwae": near(0.8, seed=1)})
    write("b", {"iwae": near(0, seed=2)})
    got = pair(["a", "b"])
    assert (got.higher, got.lower, got.relation, got.decided) == ("a", "b", "higher", False)
    assert got.sentence == (
        f"a's bound is higher than b's by {number(0.8, got.stderr)} nats (IWAE_500, paired over "
        f"400 data); "
        "a is the better model if b's gap is below "
        "0.80 (b's gap is not known: vaestro evaluate b --methods elbo,iwae,ais --limit 400 "
        "measures it)"
    )
    assert vs.compare(["a", "b"]).groups[0].ranking is None


def test_the_command_that_measures_a_gap_keeps_data_and_draws(here):
    for name, shift in (("a a", 1), ("b b", 0)):
        write(name, {"iwae": near(shift)[:90]}, k=50, split="valid")
    assert (
        "vaestro evaluate 'b b' --methods elbo,iwae,ais --k 50 --split valid --limit 90 measures it"
        in pair(["a a", "b b"]).sentence
    )


@pytest.mark.parametrize("split", ["all", "test", "valid"])
def test_the_command_that_measures_a_gap_takes_the_data_that_were_given(here, split):
    for name, shift in (("a", 1), ("b", 0)):
        write(name, {"iwae": near(shift)[:90]}, source="my data.npz", split=split)
    said = pair(["a", "b"]).sentence
    assert (
        f"vaestro evaluate b --methods elbo,iwae,ais --data 'my data.npz' --split {split} "
        f"--limit 90 measures it" in said
    )


@pytest.mark.parametrize("gap", [(0.9, 0.05), (0.65, 0.05), (0.3, 0.3)])
def test_a_gap_that_may_reach_the_difference_leaves_it_open(here, gap):
    write("a", {"iwae": near(0.8, seed=1)})
    write("b", {"iwae": near(0, seed=2)}, gaps={"iwae": gap})
    got = pair(["a", "b"])
    assert got.relation == "higher"
    assert (
        f"if b's gap is below 0.80 (b's gap, measured on simulated data: at most {gap[0]:.2f} +- "
        f"{gap[1]:.2f})" in got.sentence
    )


def test_a_gap_below_the_difference_decides_if_simulated_data_are_like_real_ones(here):
    write("a", {"iwae": near(0.8, seed=1)}, gaps={"iwae": (5.0, 0.1)})
    write("b", {"iwae": near(0, seed=2)}, gaps={"iwae": (0.3, 0.05)})
    got = pair(["a", "b"])
    assert (got.relation, got.decided) == ("better on simulated data", True)
    assert (
        "more than b's gap (measured on simulated data: at most 0.30 +- 0.05): a is better, if "
        "the gap on real data is as on simulated" in got.sentence
    )
    group = vs.compare(["a", "b"]).groups[0]
    assert group.ranking == ("a", "b")
    assert (
        group.summary == "ranking, best first: a, b (if gaps on real data are as on simulated data)"
    )


def test_a_gap_on_simulated_data_that_are_unlike_the_data_decides_nothing(here):
    write("a", {"iwae": near(0.8, seed=1)})
    write("b", {"iwae": near(0, seed=2)}, gaps={"iwae": (0.3, 0.05)}, options={"alike": False})
    got = pair(["a", "b"])
    assert got.relation == "higher"
    assert (
        "if b's gap is below 0.80 (b's gap, measured on simulated data, which may differ from the "
        "data: at most 0.30" in got.sentence
    )


def test_the_gap_is_that_of_the_method_compared(here):
    write("a", {"elbo": near(0.8, seed=1)})
    write(
        "b",
        {"elbo": near(0, seed=2), "iwae": near(1, seed=3)},
        gaps={"iwae": (0.1, 0.01), "elbo": (4.0, 0.1)},
    )
    got = pair(["a", "b"])
    assert (
        got.methods == ("ELBO", "ELBO")
        and "at most 4.00" in got.sentence
        and got.relation == "higher"
    )


def test_what_lies_within_two_errors_cannot_be_told_apart(here):
    write("a", {"iwae": near(0.06, seed=1)}, gaps={"iwae": (0.001, 0.0001)})
    write("b", {"iwae": near(0, seed=2)}, gaps={"iwae": (0.001, 0.0001)})
    got = pair(["a", "b"])
    assert got.relation == "equal" and got.stderr < 0.06 < 2 * got.stderr
    assert (
        got.sentence
        == f"a and b cannot be told apart: they differ by 0.06 +- {got.stderr:.2f} nats "
        f"(IWAE_500, paired over 400 data)"
    )
    assert pair([write("c", {"iwae": near(0.09, seed=1)}), "b"]).decided


def test_twins_and_single_data_cannot_be_told_apart(here):
    write("a", {"iwae": near(0)})
    write("b", {"iwae": near(0)})
    assert pair(["a", "b"]).relation == "equal"
    write("c", {"iwae": np.array([-3.0])})
    write("d", {"iwae": np.array([-1.0])})
    got = pair(["c", "d"])
    assert (
        got.relation == "equal"
        and "differ by 2.00 nats (IWAE_500), from 1 datum, too few for" in got.sentence
    )
    assert report(vs.compare(["c", "d"]))


@pytest.mark.parametrize("n", [2, 9, 10])
def test_few_data_do_not_decide(here, n):
    r = np.random.default_rng(3)
    wiggle = r.normal(0, 0.01, n)
    for name, shift in (("a", 5), ("b", 0)):
        write(name, {"iwae": BASE[:n] + shift + wiggle * shift}, gaps={"iwae": (0.1, 0.01)})
    np.savez("p.npz", log_px=BASE[:n] - 1 - wiggle)
    for got in (pair(["a", "b"]), pair(["a"], {"p": "p.npz:measure=counting"})):
        assert got.decided == (n == 10)
        if n < 10:
            assert (
                got.relation == "equal"
                and f"from {n} data, too few for the error of their difference" in got.sentence
            )


def test_annealing_on_few_of_many_data_does_not_decide(here):
    write("a", {"iwae": near(0, seed=1)})
    write("b", {"ais": first(near(50, seed=3), 5)}, options={"temperatures": 100})
    got = pair(["a", "b"])
    assert (
        got.relation == "equal"
        and "from 5 data of 400, too few for the error of their difference" in got.sentence
    )


def test_a_gap_with_an_infinite_difference_is_not_known(here):
    write("a", {"iwae": near(5, seed=1)})
    write("b", {"iwae": near(0, seed=2)}, gaps={"iwae": (1.0, 0.01)})
    assert pair(["a", "b"]).decided
    arrays = dict(np.load("b/evaluation.npz"))
    for low, high in ((-np.inf, -80.0), (-np.inf, -np.inf), (np.nan, -80.0)):
        arrays["simulated_iwae"][5], arrays["simulated_ais_upper"][5] = low, high
        np.savez("b/evaluation.npz", **arrays)
        got = pair(["a", "b"])
        assert got.relation == "higher" and "b's gap is not known" in got.sentence
        assert vs.compare(["b"]).rows[0].headline.gap is None


@pytest.mark.parametrize("stale", ["a", "b", "ab"])
def test_an_evaluation_of_earlier_weights_decides_nothing(here, stale):
    write("a", {"iwae": near(0.8, seed=1)}, weights_sha256="0" * 64)
    write("b", {"iwae": near(0, seed=2)}, gaps={"iwae": (0.3, 0.05)}, weights_sha256="0" * 64)
    assert pair(["a", "b"]).decided, "without the file of the weights there is nothing to say"
    for name in "ab":
        weights = Path(name, "model.safetensors")
        weights.write_bytes(name.encode())
        if name not in stale:
            result = json.loads(Path(name, "evaluation.json").read_text())
            Path(name, "evaluation.json").write_text(
                json.dumps(result | {"weights_sha256": vs.Run(name).weights_sha256()})
            )
    comparison = vs.compare(["a", "b"])
    assert comparison.notes == tuple(
        f"{s}: its evaluation is of earlier weights (vaestro evaluate {s} measures these)"
        for s in stale
    )
    (got,) = comparison.groups[0].pairs
    whose = "the evaluations of a and b are" if stale == "ab" else f"{stale}'s evaluation is"
    assert got.relation == "higher" and comparison.groups[0].ranking is None
    assert got.sentence.endswith(
        f", but nothing follows for the models as they are now: {whose} of earlier weights"
    )
    # Nor does a bound above an exact value.
    np.savez("p.npz", log_px=near(-5))
    for name in stale:
        assert pair([name], {"p": "p.npz:measure=counting"}).relation == "higher"


def test_evaluations_that_do_not_name_their_weights_are_taken_as_they_are(here):
    write("a", {"iwae": near(0.8, seed=1)})
    Path("a/model.safetensors").write_bytes(b"a")
    assert vs.compare("a").notes == () and not vs.compare("a").rows[0].stale


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.8])
@pytest.mark.parametrize("gap", [None, 0.3, 2.0])
def test_the_order_of_the_runs_does_not_matter(here, shift, gap):
    gaps = None if gap is None else {"iwae": (gap, 0.02)}
    write("a", {"iwae": near(shift, seed=1)}, gaps=gaps)
    write("b", {"iwae": near(0, seed=2)}, gaps=gaps)
    assert pair(["a", "b"]) == pair(["b", "a"])
    # And with the runs exchanged, each statement says of a what it said of b.
    one = pair(["a", "b"]).sentence
    Path("a").rename("c")
    Path("b").rename("a")
    Path("c").rename("b")
    other = pair(["a", "b"]).sentence
    assert other != one
    assert other == re.sub(r"\b[ab]\b", lambda m: "ba"["ab".index(m[0])], one)


def test_bounds_of_different_tightness_are_said_to_be(here):
    write("a", {"elbo": near(0.8, seed=1)}, k=50)
    write("b", {"iwae": near(0, seed=2)}, k=50)
    write("c", {"iwae": near(-2, seed=3)}, k=5000)
    write("d", {"elbo": near(-4, seed=4)}, k=500)
    write("e", {"ais": near(-6, seed=5)}, options={"temperatures": 100})
    write("f", {"ais": near(-8, seed=6)}, options={"temperatures": 1000})
    for runs, label in (
        (["a", "b"], "ELBO against IWAE_50,"),
        (["b", "c"], "IWAE_50 against IWAE_5000,"),
        (["e", "f"], "AIS_100 against"),
    ):
        assert (
            f"({label}" in pair(runs).sentence
            and "bounds of different tightness" in pair(runs).sentence
        )
    assert "(ELBO, paired" in pair(["a", "d"]).sentence, "more draws do not tighten an ELBO"


@pytest.mark.parametrize("key", ["schedule", "start", "leapfrog"])
def test_annealing_of_another_kind_is_of_another_tightness(here, key):
    options = {"temperatures": 100, "schedule": "sigmoid", "start": "posterior", "leapfrog": 2}
    write("a", {"ais": near(0, seed=1)}, options=options)
    write("b", {"ais": near(5, seed=2)}, options=options)
    write(
        "c",
        {"ais": near(9, seed=3)},
        options=options | {key: {"schedule": "linear", "start": "prior", "leapfrog": 4}[key]},
    )
    assert "bounds of different tightness" not in pair(["a", "b"]).sentence
    assert "bounds of different tightness" in pair(["a", "c"]).sentence


def test_like_is_compared_with_like(here):
    write("a", {"elbo": near(-3, seed=1), "iwae": near(0, seed=2)})
    write("b", {"elbo": near(-2, seed=3)})
    assert pair(["a", "b"]).methods == ("ELBO", "ELBO")
    assert pair(["a", "b"]).higher == "b"
    write("c", {"elbo": near(-9, seed=3), "iwae": near(-1, seed=4)})
    assert pair(["a", "c"]).methods == ("IWAE_500", "IWAE_500")


def test_more_data_come_before_tightness_and_the_tighter_is_added(here):
    write(
        "a",
        {"iwae": near(0, seed=1), "ais": first(near(1.5, seed=2), 50)},
        options={"temperatures": 100},
    )
    write(
        "b",
        {"iwae": near(-0.5, seed=3), "ais": first(near(1.9, seed=4), 50)},
        options={"temperatures": 100},
    )
    got = pair(["a", "b"])
    assert (got.methods, got.n, got.higher) == (("IWAE_500", "IWAE_500"), N, "a")
    a, b = (np.load(f"{run}/evaluation.npz")["ais"][:50] for run in "ab")
    assert f"; a minus b by AIS_100, on 50 of them: {(a - b).mean():+.2f} +-" in got.sentence
    shown = "\n".join(report(vs.compare(["a", "b"])))
    iwae = np.load("a/evaluation.npz")["iwae"][:50]
    assert f"by AIS_100 on 50 of them, {(a - iwae).mean():.2f} +-" in shown


def test_annealing_on_few_data_is_compared_on_those(here):
    write("a", {"iwae": near(0, seed=1)})
    write("b", {"ais": first(near(0.5, seed=3), 50)}, options={"temperatures": 100})
    got = pair(["a", "b"])
    a, b = np.load("a/evaluation.npz")["iwae"], np.load("b/evaluation.npz")["ais"]
    assert got.n == 50 and got.difference == pytest.approx((b - a)[:50].mean())
    assert "paired over 50 data of 400" in got.sentence
    lines = report(vs.compare(["a", "b"]))
    assert any("50 of 400 test aaaaaaaa" in line for line in lines)
    assert any(line.startswith("b (50 data) ") and "o" in line for line in lines)


def test_infinite_bounds_are_not_compared(here):
    write("a", {"iwae": np.where(np.arange(N) == 3, -np.inf, near(0))})
    write("b", {"iwae": near(1)})
    comparison = vs.compare(["a", "b"])
    assert (
        "not finite" in comparison.groups[0].pairs[0].sentence
        and not comparison.groups[0].pairs[0].decided
    )
    assert any("not finite" in line for line in report(comparison))
    for name in ("a.png", "a.json", "a.csv"):
        comparison.save(name)
    assert json.loads(Path("a.json").read_text())["rows"][0]["log_px"] is None


# -- exact values ----------------------------------------------------------------------------------


def exact(name="exact.npz", shift=0.0, seed=7, scale=1.0, **arrays):
    np.savez(name, log_px=near(shift, seed=seed) * scale, **arrays)
    return f"{name}:measure=counting"


def test_a_bound_above_an_exact_value_decides(here):
    write("a", {"iwae": near(0.8, seed=1)})
    got = pair(["a"], {"oracle": exact()})
    assert (got.higher, got.relation) == ("a", "better")
    assert got.sentence.startswith(
        "a is better than oracle: its lower bound is 0.80 +- 0.03 nats above oracle's exact "
        "value (IWAE_500"
    )
    group = vs.compare(["a"], {"oracle": exact()}).groups[0]
    assert group.summary == "ranking, best first: a, oracle"


def test_an_exact_value_above_a_bound_decides_nothing(here):
    write("a", {"iwae": near(-0.8, seed=1)})
    got = pair(["a"], {"oracle": exact()})
    assert (got.higher, got.relation) == ("oracle", "higher")
    assert (
        "it does not follow that oracle is better: oracle is better than a only if a's gap is "
        "below 0.80 (a's gap is not" in got.sentence
    )
    write("b", {"iwae": near(-0.8, seed=1)}, gaps={"iwae": (0.2, 0.02)})
    got = pair(["b"], {"oracle": exact()})
    assert (
        got.relation == "better on simulated data"
        and "oracle's value is higher than b's by 0.80" in got.sentence
    )
    write("c", {"iwae": near(-0.04, seed=1)})
    assert pair(["c"], {"oracle": exact()}).relation == "equal"


def test_two_exact_values_decide_beyond_their_error(here):
    write("a", {"iwae": near(-3, seed=1)})
    group = vs.compare(["a"], {"p": exact("p.npz", 0.5, 3), "q": exact("q.npz", 0, 4)}).groups[0]
    got = group.pair("q", "p")
    assert (got.higher, got.relation) == ("p", "better") and "both values are exact" in got.sentence
    assert group.summary.startswith("the ranking is partial: p > q ? a")
    group = vs.compare(["a"], {"p": exact("r.npz", 0.04, 3), "q": exact("q.npz", 0, 4)}).groups[0]
    assert group.pair("p", "q").relation == "equal"


def test_an_exact_run_needs_no_gap(here):
    write("a", {"exact": near(0, seed=1)}, side="exact")
    write("b", {"elbo": near(1, seed=2)})
    got = pair(["a", "b"])
    assert (got.higher, got.relation, got.methods) == ("b", "better", ("ELBO", "exact"))


def test_units_and_measures_of_exact_values(here):
    write("a", {"iwae": near(-0.8, seed=1)})
    bits = exact("bits.npz", scale=1 / math.log(2))
    nats = vs.compare(["a"], {"oracle": exact()}).rows[1]
    assert vs.compare(["a"], {"oracle": f"{bits},unit=bits"}).rows[1].headline.mean()[
        0
    ] == pytest.approx(nats.headline.mean()[0])
    np.savez(
        "inside.npz",
        log_px=near(0, seed=7) / math.log(2),
        unit="bits",
        measure="counting",
        data_sha256=SHA,
    )
    row = vs.compare(["a"], {"oracle": "inside.npz"}).rows[1]
    assert row.headline.mean()[0] == pytest.approx(nats.headline.mean()[0])
    # Bits/dim from the number of cells of the runs beside it.
    assert row.headline.bits_per_dim == pytest.approx(
        -nats.headline.mean()[0] / (784 * math.log(2))
    )
    assert "a density and a probability" in alone(
        "a", exact={"oracle": "exact.npz:measure=lebesgue"}
    )
    assert "different conditions: p(x | digit) and p(x)" in alone(
        "a", exact={"oracle": f"{exact()},given=digit"}
    )


def test_whose_word_it_is_that_the_data_are_the_same(here):
    write("a", {"iwae": near(0, seed=1)})
    assert vs.compare(["a"], {"o": exact()}).notes == (
        "o is assumed to be of the same data: exact.npz has no data_sha256",
    )
    assert vs.compare(["a"], {"o": exact(data_sha256=SHA)}).notes == ()
    assert "different data or binarisation (bbbbbbbb and aaaaaaaa)" in alone(
        "a", exact={"o": exact(data_sha256=OTHER)}
    )


@pytest.mark.parametrize(
    ("arrays", "options", "says"),
    [
        ({"log_px": BASE}, "", "expected the measure of x.npz"),
        (
            {"log_px": BASE},
            ":measure=counted",
            "measure to be one of counting, lebesgue, mixed for x.npz; got 'counted'",
        ),
        ({"log_px": BASE}, ":measure=counting,unit=bans", "unit to be one of nats, bits"),
        (
            {"log_px": BASE},
            ":measure=counting,mesure=lebesgue",
            "'measure' (one of unit, measure, given)",
        ),
        (
            {"log_px": BASE, "measure": "counting"},
            ":measure=lebesgue",
            "expected one measure for x.npz",
        ),
        (
            {"log_px": BASE[:-1]},
            ":measure=counting",
            "log_px of the 400 data that the runs were evaluated on in x.npz; got 399",
        ),
        (
            {"log_px": np.where(BASE < -90, np.nan, BASE)},
            ":measure=counting",
            "finite numbers in log_px of x.npz",
        ),
        ({"log_px": np.where(BASE < -140, -np.inf, BASE)}, ":measure=counting", "NaN or infinite"),
        ({"log_px": BASE + 100}, ":measure=counting", "logs of probabilities, 0 or less, in x.npz"),
        (
            {"log_px": BASE[:, None]},
            ":measure=counting",
            "numbers (N,) in x.npz; got float64 of shape (400, 1)",
        ),
        ({"log_px": BASE.astype(str)}, ":measure=counting", "numbers (N,)"),
        (
            {"log_px": np.array([BASE], object)},
            ":measure=counting",
            "is damaged: it cannot be read",
        ),
        (
            {"logp": BASE},
            ":measure=counting",
            "arrays among log_px, unit, measure, given, data_sha256 in x.npz; got 'logp'",
        ),
        ({"unit": "nats"}, ":measure=counting", "an array log_px in x.npz; got unit"),
    ],
)
def test_bad_exact_files(here, refused, arrays, options, says):
    write("a", {"iwae": near(0)})
    np.savez("x.npz", **arrays)
    assert says in refused("compare", "a", "--exact", f"o=x.npz{options}")


def test_positive_values_are_densities(here):
    write("a", {"iwae": near(200)}, measure="lebesgue")
    np.savez("x.npz", log_px=near(190, seed=3))
    assert pair(["a"], {"o": "x.npz:measure=lebesgue"}).relation == "better"


def test_bad_exact_options(here, refused):
    write("a", {"iwae": near(0)})
    file = exact()
    Path("cut.npz").write_bytes(Path("exact.npz").read_bytes()[:300])
    assert "is damaged: it cannot be read" in refused(
        "compare", "a", "--exact", "o=cut.npz:measure=counting"
    )
    assert "nosuch.npz, which does not exist" in refused(
        "compare", "a", "--exact", "o=nosuch.npz:measure=counting"
    )
    assert "an .npz file" in refused("compare", "a", "--exact", "o=x.npy")
    for text in (file, f"={file}", "o="):
        assert "NAME=FILE.npz" in refused("compare", "a", "--exact", text)
    assert "NAME=FILE.npz" in refused(
        "compare", "a", "--exact", f"o={file}", "--exact", f"o={file}"
    )
    assert "a name for exact.npz:measure=counting that no other has; got 'a'" in refused(
        "compare", "a", "--exact", f"a={file}"
    )


def test_exact_values_must_say_which_of_two_data_sets_they_are_of(here, refused):
    write("a", {"iwae": near(0)})
    write("b", {"iwae": near(0)}, sha=OTHER)
    assert (
        f"an array data_sha256 in exact.npz, because the runs differ in their data ({SHA} or"
        in refused("compare", "a", "b", "--exact", f"o={exact()}")
    )
    assert vs.compare(["a", "b"], {"o": exact(data_sha256=OTHER)}).groups[1].pairs[0].sentence


# -- rankings --------------------------------------------------------------------------------------


def test_a_ranking_needs_every_neighbouring_pair(here):
    tight = {"iwae": (0.01, 0.001)}
    write("a", {"iwae": near(2, seed=1)})
    write("b", {"iwae": near(1, seed=2)}, gaps=tight)
    write("c", {"iwae": near(0, seed=3)}, gaps=tight)
    write("d", {"iwae": near(-1, seed=4)})
    write("e", {"iwae": near(-2, seed=5)}, gaps=tight)
    group = vs.compare(["c", "a", "b"]).groups[0]
    assert group.ranking == ("a", "b", "c")
    assert [(p.higher, p.lower) for p in group.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    group = vs.compare(["c", "a", "e", "b", "d"]).groups[0]
    assert group.ranking is None
    assert (
        group.summary
        == "the ranking is partial: a > b > c ? d > e (> is better than; ? is not decided)"
    )
    assert (
        vs.compare(["a", "d", write("f", {"iwae": near(-3)})]).groups[0].summary
        == "no ranking of a, d and f follows from these numbers"
    )


def test_every_pair_is_there_and_of_many_the_neighbours_are_said(here):
    for i in range(12):
        write(f"r{i:02}", {"iwae": near(-i, seed=i)})
    comparison = vs.compare([f"r{i:02}" for i in range(12)])
    assert len(comparison.groups[0].pairs) == 66
    assert sum("bound is higher" in s for s in comparison.statements) == 66
    assert sum("bound is higher" in s for s in comparison.spoken) == 11
    assert any(s.startswith("55 more pairs") for s in comparison.spoken)
    comparison.save("all.png")
    assert Image.open("all.png").size[0] == 1200


# -- showing it ------------------------------------------------------------------------------------


def test_names_are_the_shortest_that_differ(here):
    paths = [write(p, {"iwae": near(0)}) for p in ("x/a", "y/a", "y/b")]
    assert [r.name for r in vs.compare(paths).rows] == ["x/a", "y/a", "b"]


def test_the_interval_is_the_bound_and_the_bound_with_its_gap(here):
    write("a", {"iwae": near(0, seed=1)}, gaps={"iwae": (0.3, 0.02)})
    row = vs.compare(["a"]).rows[0]
    mean, error = row.headline.mean()
    assert row.headline.gap == pytest.approx((0.3, 0.02, 64))
    assert interval(row.headline) == pytest.approx(
        (mean, mean + 0.3, math.hypot(error, 0.02)), rel=1e-12
    )
    assert (
        f"in [{mean:.2f}, {mean + 0.3:.2f} +- {math.hypot(error, 0.02):.2f}] by bidirectional AIS, "
        f"gap measured on 64 simulated data" in "\n".join(report(vs.compare(["a"])))
    )


def test_the_table_and_the_chart_fit_a_hundred_columns(here, capsys):
    write(
        "a",
        {"iwae": near(0.8, seed=1)},
        gaps={"iwae": (0.5, 0.02)},
        warnings=["few effective draws"],
    )
    long = (
        "a-run-with-a-name-that-somebody-typed-when-there-was-all-the-time-in-the-world-2026-11-22"
    )
    write(long, {"iwae": near(0, seed=2), "ais": first(near(1), 20)})
    write("c", {"iwae": near(0)}, sha=OTHER, given=["digit", "slant", "thickness", "width"])
    assert main(["compare", "a", long, "c", "--exact", f"o={exact(data_sha256=SHA)}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    text = " ".join(" ".join(lines).split())
    for part in (
        "bits/dim",
        "IWAE_500",
        "400 test aaaaaaaa",
        "counting",
        ">= -",
        "c is not ranked with",
        "a: few effective draws",
        "o-->",
    ):
        assert part in text, part
    chart = {line.split()[0]: line for line in lines if line.startswith(("a ", "o "))}
    assert "[" in chart["a"] and "]" in chart["a"] and "<>" in chart["o"]
    assert next(line for line in lines[-12:] if line.startswith("a-run")).rstrip().endswith(">")


def test_the_chart_puts_numbers_in_their_places(here):
    write("a", {"iwae": near(0, seed=1)})
    write("b", {"iwae": near(30, seed=2)})
    lines = report(vs.compare(["a", "b"]))
    places = {
        line[0]: line.index("o", 1)
        for line in lines
        if line[:2] in ("a ", "b ") and "==o==" in line
    }
    assert places["b"] > places["a"] + 40
    assert lines.index(next(x for x in lines if x.startswith("b "))) > 0


def test_numbers_carry_as_many_decimals_as_their_error_deserves():
    assert number(-95.1, 0.2) == "-95.10 +- 0.20"
    assert number(-95.1, 0.0012) == "-95.1000 +- 0.0012"
    assert number(-95.1, math.nan) == "-95.10"
    assert number(0.5, 0.1, "+") == "+0.50 +- 0.10"
    assert shortened("abcdefghijklmnop", 10) == "abc...mnop"
    assert [len(shortened("x" * 30, w)) for w in (10, 11, 12)] == [10, 11, 12]


@pytest.mark.parametrize(
    ("low", "high"), [(-92.3, -88.1), (-0.01, 0.02), (-1e6, 3.0), (5.0, 5.001), (-1166.3, -1165.2)]
)
def test_ticks_are_round_few_and_inside(low, high):
    marks = ticks(low, high, 7)
    assert 2 <= len(marks) <= 7 and low <= marks[0] and marks[-1] <= high
    assert len(set(tick_labels(marks))) == len(marks)
    np.testing.assert_allclose([float(t) for t in tick_labels(marks)], marks, atol=1e-9)


def test_one_run_alone_shows_its_row(here, capsys):
    write("runs/a", {"iwae": near(0)})
    for arguments in (["compare", "runs/a"], ["compare"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "IWAE_500" in out and "ranking" not in out
    assert main(["compare", "runs/a", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert extent(vs.compare("runs/a").rows[0].bounds) is not None


def test_json_and_csv_say_the_same(here, capsys):
    write("a", {"iwae": near(0.8, seed=1)})
    write("b", {"iwae": near(0, seed=2)}, gaps={"iwae": (0.3, 0.02)})
    write("c", {"iwae": near(0, seed=2)}, sha=OTHER)
    assert main(["compare", "a", "b", "c", "-o", "x.json"]) == 0
    assert main(["compare", "a", "b", "c", "-o", "x.csv"]) == 0
    assert "wrote x.csv" in capsys.readouterr().out
    result = json.loads(Path("x.json").read_text())
    assert result["groups"][0]["ranking"] == ["a", "b"] and result["groups"][1]["ranking"] is None
    (found,) = result["groups"][0]["pairs"]
    assert (
        found["relation"] == "better on simulated data"
        and found["sentence"] in result["statements"]
        and found["decided"]
    )
    assert result["rows"][1]["bounds"][0]["gap"]["at_most"] == pytest.approx(0.3)
    rows = list(csv.DictReader(Path("x.csv").read_text().splitlines()))
    assert [r["name"] for r in rows] == ["a", "b", "c"] and [r["group"] for r in rows] == [
        "0",
        "0",
        "1",
    ]
    for flat, full in zip(rows, result["rows"], strict=True):
        assert (
            float(flat["log_px"]) == full["log_px"] and flat["data_sha256"] == full["data_sha256"]
        )
    assert float(rows[1]["interval_high"]) == pytest.approx(float(rows[1]["log_px"]) + 0.3)
    assert rows[0]["interval_high"] == ""


def test_the_picture_has_a_panel_for_each_group(here):
    write("a", {"iwae": near(0.8, seed=1)})
    write("b", {"iwae": near(0, seed=2)}, gaps={"iwae": (0.5, 0.02)})
    write("c", {"iwae": near(0, seed=2)}, sha=OTHER)
    vs.compare(["a", "b"]).save("one.png")
    vs.compare(["a", "b", "c"], {"o": exact(data_sha256=SHA)}).save("two.png")
    one, two = Image.open("one.png"), Image.open("two.png")
    assert one.size[0] == two.size[0] == 1200 and two.size[1] > one.size[1] + 100
    blue = np.array([31, 95, 168])
    pixels = np.asarray(one).astype(int)
    assert (np.abs(pixels[:150] - blue).sum(-1) < 12).sum() > 50, "a point, an arrow and brackets"
    assert (pixels[:, :10] == 255).all() and (pixels[:, -10:] == 255).all()


# -- bad input -------------------------------------------------------------------------------------


def test_a_run_without_an_evaluation(here, refused):
    write("a", {"iwae": near(0)})
    Path("b").mkdir()
    Path("b/config.yaml").write_text("source: mnist\nsteps: 1\nbatch: 8\n")
    assert (
        "a run that was evaluated (vaestro evaluate b); got b, which has no evaluation.json"
        in refused("compare", "a", "b")
    )
    Path("a/evaluation.npz").unlink()
    assert "evaluation.npz beside evaluation.json (vaestro evaluate a writes both)" in refused(
        "compare", "a"
    )


def test_what_is_no_run(here, refused):
    write("a", {"iwae": near(0)})
    Path("empty").mkdir()
    assert "no config.yaml" in refused("compare", "a", "empty")
    assert "does not exist" in refused("compare", "a", "nosuch")
    assert "a run's folder" in refused("compare", "a/config.yaml", "a")
    assert "got none under runs/" in refused("compare")
    with pytest.raises(ValueError, match="one run or more; got none"):
        vs.compare([])


def test_the_same_run_twice(here, refused):
    write("a", {"iwae": near(0)})
    assert "each run once; got a twice" in refused("compare", "a", "./a/")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "null",
        '{"n": 3}',
        '{"n": "x", "data_sha256": "", "split": "", "estimates": []}',
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_evaluation(here, refused, text):
    write("a", {"iwae": near(0)})
    Path("a/evaluation.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "a/evaluation.json is damaged: " in refused("compare", "a")


def test_an_evaluation_without_a_bound(here, refused):
    write("a", {"iwae": near(0)})
    result = json.loads(Path("a/evaluation.json").read_text())
    Path("a/evaluation.json").write_text(json.dumps(result | {"estimates": []}))
    assert (
        "expected a run with a bound (vaestro evaluate a); got a, whose evaluation has none"
        in refused("compare", "a")
    )


def test_damaged_arrays(here, refused):
    write("a", {"iwae": near(0)})
    arrays = Path("a/evaluation.npz")
    content = arrays.read_bytes()
    for damaged in (b"", content[:200], b"not arrays"):
        arrays.write_bytes(damaged)
        assert "is damaged: it cannot be read (vaestro evaluate a writes it again)" in refused(
            "compare", "a"
        )


def test_estimates_of_something_else_are_left_out(here):
    write("a", {"iwae": near(0)}, measure="lebesgue")
    result = json.loads(Path("a/evaluation.json").read_text())
    other = result["estimates"][0] | {
        "method": "elbo",
        "measure": "counting",
        "mean": near(50).mean(),
    }
    without = result["estimates"][0] | {"method": "sampled"}
    result["estimates"] += [other, without]
    Path("a/evaluation.json").write_text(json.dumps(result))
    np.savez("a/evaluation.npz", iwae=near(0), elbo=near(50))
    assert [b.method for b in vs.compare("a").rows[0].bounds] == ["iwae"]


def test_no_estimates_of_each_datum(here, refused):
    write("a", {"iwae": near(0)})
    np.savez("a/evaluation.npz", index=np.arange(N))
    assert (
        "estimates of each datum in a/evaluation.npz; got none (vaestro evaluate a writes them)"
        in refused("compare", "a")
    )


@pytest.mark.parametrize(
    "arrays",
    [
        {"iwae": near(0)[:-1]},
        {"iwae": near(1)},
        {"iwae": np.full(N, np.nan)},
        {"iwae": np.arange(N)},
    ],
)
def test_arrays_of_another_evaluation(here, refused, arrays):
    write("a", {"iwae": near(0)})
    np.savez("a/evaluation.npz", **arrays)
    assert "evaluation.npz of one evaluation; got others for iwae" in refused("compare", "a")


def test_a_damaged_configuration(here, refused):
    write("a", {"iwae": near(0)})
    Path("a/config.yaml").write_text("[1]")
    assert "a YAML file of options" in refused("compare", "a")


def test_bad_outputs(here, refused, capsys):
    write("a", {"iwae": near(0)})
    Path("there.json").write_text("mine")
    assert "a file name that ends in .png, .json, .csv; got x.pdf" in refused(
        "compare", "a", "-o", "x.pdf"
    )
    assert main(["compare", "a", "-o", "there.json"]) == 2
    assert capsys.readouterr().err == "vaestro: there.json exists (--force overwrites it)\n"
    assert Path("there.json").read_text() == "mine"
    assert main(["compare", "a", "-o", "there.json", "--force", "--quiet"]) == 0
    assert json.loads(Path("there.json").read_text())["rows"]
    with pytest.raises(ValueError, match="expected a file name that ends in"):
        vs.compare(["a"]).save("x.txt")


def test_refusing_to_rank_is_no_failure(here, capsys):
    write("a", {"iwae": near(0)})
    write("b", {"iwae": near(5)}, sha=OTHER)
    assert main(["compare", "a", "b"]) == 0
    out, err = capsys.readouterr()
    assert (
        err == ""
        and "different data or binarisation" in out
        and "ranking" not in out
        and "better" not in out
    )


# -- with runs that were trained -------------------------------------------------------------------


def test_runs_that_were_trained_and_evaluated(here, capsys):
    r = np.random.default_rng(0)
    centres = r.random((4, 16))
    x = (r.random((300, 16)) < centres[r.integers(0, 4, 300)]).astype(np.uint8)
    np.savez("x.npz", train=x[:200], valid=x[200:220], test=x[220:])
    options = {"latent": 2, "network": "mlp:width=8", "batch": 50, "device": "cpu"}
    trained = vs.train(x[:200], run="array", steps=20, **options)
    vs.train("x.npz", run="good", steps=200, lr=0.01, **options)
    vs.train("x.npz", run="bad", steps=1, **options)
    for name in ("array", "good", "bad"):
        assert main(["evaluate", name, "--k", "20", "--quiet"]) == 0
    comparison = vs.compare([trained, "good", "bad"])
    assert [[r.name for r in g.rows] for g in comparison.groups] == [["array"], ["good", "bad"]]
    (found,) = comparison.groups[1].pairs
    good, bad = (np.load(f"{name}/evaluation.npz")["iwae"] for name in ("good", "bad"))
    assert (
        found.higher == "good"
        and found.relation == "higher"
        and found.methods == ("IWAE_20", "IWAE_20")
    )
    assert found.difference == pytest.approx((good - bad).mean())
    assert found.stderr == pytest.approx((good - bad).std(ddof=1) / math.sqrt(80))
    assert "measured on 80 and on 10 data" in comparison.refusals[0]
    assert main(["compare", "good", "bad", "-o", "c.png"]) == 0
    assert "good's bound is higher than bad's by" in capsys.readouterr().out


# -- many pairs ------------------------------------------------------------------------------------


def rows(bounds, gap=None):
    """Return rows of one group, without files, from the numbers of each model, (models, data)."""
    return [
        Row(
            f"m{i}",
            Path(f"m{i}"),
            (
                Bound(
                    "exact" if gap is None else "iwae",
                    "exact" if gap is None else "lower",
                    nats,
                    gap=gap,
                ),
            ),
            "test",
            len(nats),
            SHA,
            "",
            "",
            "counting",
        )
        for i, nats in enumerate(bounds)
    ]


def winners(bounds, gap=None):
    """Count the pairs for which a winner is called, and those that are more than two standard
    errors apart."""
    pairs = decided(list(combinations(rows(bounds, gap), 2))).values()
    return (
        sum(p.decided for p in pairs),
        sum(p.relation != "equal" for p in pairs),
        sum(p.difference > 2 * p.stderr for p in pairs),
    )


@pytest.mark.parametrize("noise", ["normal", "heavy tails", "skewed, few data"])
def test_a_winner_among_ten_equal_models_is_called_in_at_most_one_comparison_of_twenty(noise):
    r = np.random.default_rng(3)
    sets, called, uncorrected = 300, 0, 0
    for _ in range(sets):
        n = 25 if "few" in noise else 60
        own = {
            "normal": r.normal,
            "heavy tails": lambda size: r.standard_t(3, size),
            "skewed, few data": lambda size: r.exponential(size=size),
        }
        found = winners(10 * r.normal(size=n) + own[noise](size=(10, n)))
        called, uncorrected = called + (found[1] > 0), uncorrected + (found[2] > 0)
    assert uncorrected > 0.5 * sets, "two standard errors alone call a winner in most sets"
    # 0.05 is the limit; with 300 sets, 0.05 + 3 standard errors of a share.
    assert called <= sets * (0.05 + 3 * math.sqrt(0.05 * 0.95 / sets)), called / sets


def test_a_clearly_better_model_among_ten_is_called_against_all_others():
    r = np.random.default_rng(4)
    complete = wrong = 0
    for _ in range(50):
        bounds = 10 * r.normal(size=200) + r.normal(size=(10, 200))
        bounds[3] += 0.6  # of 0.1 standard errors: six
        pairs = decided(list(combinations(rows(bounds), 2))).values()
        won = [p for p in pairs if "m3" in (p.higher, p.lower)]
        complete += all(p.higher == "m3" and p.decided for p in won)
        wrong += any(p.decided for p in pairs if p not in won)
    assert complete >= 45 and wrong <= 6


def test_better_on_simulated_data_is_corrected_too():
    r = np.random.default_rng(5)
    called = single = 0
    for _ in range(300):
        # Every difference equals the gap: no model is known to be better.
        gap = (1.0 + r.normal(0, 0.1), 0.1, 64)
        bounds = r.normal(size=(8, 400)) + np.arange(8)[:, None]
        pairs = [
            pair
            for pair in combinations(rows(bounds, gap), 2)
            if abs(int(pair[0].name[1]) - int(pair[1].name[1])) == 1
        ]
        found = decided(pairs).values()
        called += any(p.decided for p in found)
        single += any(p.difference - gap[0] > 2 * math.hypot(p.stderr, gap[1]) for p in found)
    assert single > 15 and called <= 300 * (0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)), (
        single,
        called,
    )


def test_p_values_are_those_of_students_t_and_of_holm():
    for freedom in (9, 9.5, 30, 399, 1e5):
        for t in (0.0, 0.5, 1.9, 2.1, 6.0, 40.0):
            assert p_value(t * 0.3, 0.3, freedom) == pytest.approx(
                2 * scipy.stats.t.sf(t, freedom), rel=1e-9, abs=1e-300
            )
    assert (
        p_value(1.0, 0.0, 9) == 0
        and p_value(0.0, 0.0, 9) == 1
        and p_value(math.inf, math.nan, 9) == 1
    )
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.6, 0.7]) == [1.0, 1.0]


def test_the_words_name_the_number_of_pairs_and_what_the_correction_changed(here):
    one = vs.compare([write("a", {"iwae": near(0)}), write("b", {"iwae": near(0.08, seed=2)})])
    assert one.groups[0].pairs[0].relation == "higher" and not any(
        "corrected" in s for s in one.statements
    )
    for i, name in enumerate("cdef"):
        write(name, {"iwae": near(0.01 * i, seed=3 + i)})
    many = vs.compare(list("abcdef"))
    pair = many.groups[0].pair("a", "b")
    assert pair.p == one.groups[0].pairs[0].p < 0.05 < pair.p_corrected and pair.relation == "equal"
    assert re.search(
        r"cannot be told apart: .* p = 0\.0\d+ alone, 0\.\d+ corrected for 15 pairs\)$",
        pair.sentence,
    ), pair.sentence
    assert any(
        "corrected for the 15 pairs that are compared (Holm)" in line for line in many.spoken
    )
    record = many.record()["groups"][0]["pairs"][0]
    assert 0 <= record["p"] <= record["p_corrected"] <= 1
    # Pairs of too few data are not tests.
    write("few", {"iwae": near(3, n=5)}, sha=OTHER)
    write("fewer", {"iwae": near(0, n=5)}, sha=OTHER)
    again = vs.compare([*"abcdef", "few", "fewer"]).groups[0].pair("a", "b")
    assert again.p_corrected == pair.p_corrected
