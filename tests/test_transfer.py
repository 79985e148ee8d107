"""A run that starts from another reads its data as that run's: columns, categories, conditions and
tokens by name, in that run's units."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import vaestro as vs
from vaestro.cli.main import main
from vaestro.data import load_rows
from vaestro.diagnosis import Remedies
from vaestro.runs import Job, resume
from vaestro.spaces import Kind

SMALL: dict[str, Any] = {
    "latent": 2,
    "network": "mlp:width=8",
    "steps": 4,
    "batch": 16,
    "device": "cpu",
}
COLUMNS = ("a", "b", "n", "site", "works")


def table(n: int = 120, seed: int = 0) -> dict[str, np.ndarray]:
    """Return columns of every kind: two real, a count, a category and a binary one."""
    r = np.random.default_rng(seed)
    z = r.normal(size=n)
    return {
        "a": 50 + 3 * z + r.normal(size=n),
        "b": -2 - z + 0.3 * r.normal(size=n),
        "n": r.poisson(np.exp(1 + 0.5 * z)),
        "site": np.where(z > 0.5, "north", np.where(z > -0.5, "middle", "south")),
        "works": np.where(z + r.normal(size=n) > 0, "yes", "no"),
    }


def write(path: Path, columns: dict[str, Any]) -> str:
    lines = [
        ",".join(columns),
        *(
            ",".join("" if v is None else str(v) for v in row)
            for row in zip(*columns.values(), strict=True)
        ),
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    vs.train(write(folder / "old.csv", table()), run=folder / "old", **SMALL)
    return folder


@pytest.fixture
def old(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a run on a table, beside which a test works."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "old", tmp_path / "old")
    return "old"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["train", *arguments, "--run", "refused", "--quiet"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and said.startswith("vaestro: "), said
        assert not Path("refused").exists()
        return said

    return run


def codes(run: Any, source: Any) -> torch.Tensor:
    model = (run if isinstance(run, vs.Run) else vs.Run(run)).model()
    rows = load_rows(source, model.space, "all", given=model.given)
    with torch.no_grad():
        return model.code(rows.batch(slice(0, len(rows))))[0]


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(COLUMNS))[7::40])
def test_a_frozen_encoder_gives_the_same_codes_for_any_order_of_columns(
    old: str, order: tuple[str, ...]
) -> None:
    new = table(60, seed=1)
    source = write(Path("new.csv"), {name: new[name] for name in order})
    run = vs.train(source, run="new", init=old, freeze=["posterior"], **SMALL)
    assert torch.equal(codes(run, source), codes(old, source)) and codes(old, source).std() > 0
    assert run.model().space.scalars() == vs.Run(old).model().space.scalars()


def test_codes_show_a_shift_between_two_plants(old: str) -> None:
    ours, theirs = table(60, seed=1), table(60, seed=1)
    theirs["a"] = theirs["a"] + 30
    run = vs.train(
        write(Path("theirs.csv"), theirs), run="new", init=old, freeze=["posterior"], **SMALL
    )
    before, after = codes(old, write(Path("ours.csv"), ours)), codes(run, "theirs.csv")
    assert (after - before).abs().mean() > 0.5 * before.std()
    assert torch.equal(after, codes(old, "theirs.csv"))
    notes = Job.new("theirs.csv", init=old, steps=4, dry=True).notes
    shift = next(n for n in notes if "standard deviations" in n)
    assert "'a'" not in shift and "a by +" in shift and " b by " not in shift


def test_notes_name_the_columns_that_are_unlike_those_of_the_old_run(old: str) -> None:
    def notes(columns: dict[str, Any]) -> str:
        job = Job.new(write(Path("new.csv"), columns), init=Path("base"), dry=True, steps=4)
        return "\n".join(
            n for n in job.notes if any(word in n for word in ("grid", "repeat", "deviations"))
        )

    r = np.random.default_rng(2)
    base = {
        "cents": r.normal(50, 9, 90).round(2),
        "free": r.normal(size=90),
        "other": r.normal(size=90),
    }
    vs.train(write(Path("base.csv"), base), run="base", **SMALL)
    fresh = {
        "cents": r.normal(50, 9, 90).round(2),
        "free": r.normal(size=90),
        "other": r.normal(size=90),
    }
    assert notes(fresh) == ""
    assert notes({**fresh, "cents": fresh["cents"] + 0.004}).startswith(
        "'cents': some values are not on the grid of base"
    )
    assert notes({**fresh, "free": np.maximum(fresh["free"], 0)}).startswith(
        "'free': values are repeated, but were not in base"
    )
    assert notes({**fresh, "other": fresh["other"] - 4}).endswith(
        "standard deviations: other by -3.6; codes show this shift"
    )
    # Eight training rows of many columns: the largest mean of all lies more than a standard
    # deviation off by chance.
    wide = {f"c{i}": r.normal(size=200) for i in range(600)}
    vs.train(write(Path("wide.csv"), wide), run="base", force=True, **SMALL)
    few = {name: r.normal(size=10) for name in wide}
    assert notes(few) == ""
    train = Job.new("new.csv", init="base", dry=True, steps=4).data.train
    assert train.batch(slice(0, 8)).x.mean(0).abs().max() > 1, "the test has power"


def test_labels_are_mapped_by_name_and_may_be_absent(old: str) -> None:
    new = table(60, seed=1)
    new["site"] = np.where(new["site"] == "north", "south", "middle")
    data = Job.new(write(Path("new.csv"), new), init=old, dry=True, **SMALL).data
    column = next(c for c in data.space.columns if c.name == "site")
    assert column.values == ("middle", "north", "south")
    assert set(data.train.outward().columns["site"].tolist()) == {"middle", "south"}
    assert np.array_equal(
        np.sort(data.train.outward().columns["n"]), np.sort(new["n"][data.train.index])
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"site": "west"},
            ("column 'site' (middle, north, south); got west", "as in old;", "leave such rows out"),
        ),
        ({"works": "perhaps"}, ("column 'works' (no, yes); got perhaps", "empty such cells")),
        ({"n": 2.5}, ("counts of 0 .. 16,777,216 in column 'n'; got 2.5", "old")),
        ({"n": -1}, ("in column 'n'; got -1",)),
    ],
)
def test_a_value_that_the_old_column_cannot_hold_is_named(
    old: str, refused: Any, change: dict[str, Any], says: tuple[str, ...]
) -> None:
    new: dict[str, Any] = {name: list(values) for name, values in table(60, seed=1).items()}
    for name, value in change.items():
        new[name][5] = value
    said = refused(write(Path("new.csv"), new), "--init", old, "--steps", "4")
    assert all(s in said for s in says), said
    for name in change:  # what is advised works
        new[name][5] = None
    assert (
        main(
            [
                "train",
                write(Path("new.csv"), new),
                "--init",
                old,
                "--steps",
                "4",
                "--run",
                "new",
                "--quiet",
            ]
        )
        == 0
    )


def test_columns_without_a_counterpart_are_named_and_the_advice_works(
    old: str, refused: Any
) -> None:
    new = table(60, seed=1)
    said = refused(
        write(Path("new.csv"), {**{k: v for k, v in new.items() if k != "b"}, "bb": new["b"]}),
        "--init",
        old,
        "--steps",
        "4",
    )
    assert "the columns of old in new.csv; got no 'b', but 'bb': rename" in said
    said = refused(
        write(Path("new.csv"), {**new, "extra": new["a"], "one more": new["a"]}),
        "--init",
        old,
        "--steps",
        "4",
    )
    assert "got 'extra', 'one more' too: leave them out with" in said
    source = said.rpartition(" with ")[2].strip().strip("'")
    assert main(["train", source, "--init", old, "--steps", "4", "--run", "new", "--quiet"]) == 0
    said = refused(
        write(Path("new.csv"), {k: v for k, v in new.items() if k != "b"}),
        "--init",
        old,
        "--steps",
        "4",
    )
    assert "got no 'b': a column of empty cells" in said
    source = write(Path("new.csv"), {**new, "b": [None] * 60})
    assert main(["train", source, "--init", old, "--steps", "4", "--run", "new2", "--quiet"]) == 0
    rows = vs.Run("new2").data().train
    assert (
        rows.observed is not None
        and not rows.observed[:, [c.name for c in rows.space.columns].index("b")].any()
    )


def test_arrays_and_texts_are_not_read_as_a_table(old: str, refused: Any) -> None:
    np.save("x.npy", np.zeros((40, len(COLUMNS))))
    Path("x.txt").write_text("a line\n" * 40)
    assert "expected a table of 5 columns" in (
        said := refused("x.npy", "--init", old)
    ) and said.endswith("got numbers\n")
    assert refused("x.txt", "--init", old).endswith("got texts\n")


def test_the_kinds_are_those_of_the_old_run(old: str, refused: Any) -> None:
    new = table(120, seed=1)
    new["n"] = new["n"] % 3  # few values, which would be categories
    source = write(Path("new.csv"), new)
    assert next(c for c in vs.load(source).space.columns if c.name == "n").kind is Kind.CATEGORY
    run = vs.train(source, run="new", init=old, steps=4)
    assert next(c for c in run.data().space.columns if c.name == "n").kind is Kind.COUNT
    assert "expected column 'n' as count, as in old; got category=" in refused(
        f"{source}:category=n", "--init", old, "--steps", "4"
    )
    assert vs.train(f"{source}:count=n", run="same", init=old, steps=4).finished


def test_gaps_are_taken_with_a_note_by_a_model_that_was_trained_without(old: str) -> None:
    new: dict[str, Any] = {name: list(values) for name, values in table(60, seed=1).items()}
    new["a"][3] = new["site"][4] = None
    job = Job.new(write(Path("new.csv"), new), init=old, steps=4, dry=True)
    assert not job.data.space.missing
    said = next(n for n in job.notes if "empty" in n)
    assert (
        said.startswith("2 cells are empty, in 'a', 'site'")
        and "old was trained without empty cells" in said
    )


def test_codes_written_with_zeros_in_front_stay_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    columns: dict[str, Any] = {
        "x": np.random.default_rng(0).normal(size=60),
        "zip": ["0123", "4567", "9999"] * 20,
    }
    vs.train(write(Path("old.csv"), columns), run="old", **SMALL)
    columns["zip"] = ["4567", "9999", "9999"] * 20  # which look like numbers
    run = vs.train(
        write(Path("new.csv"), columns), run="new", init="old", freeze=["posterior"], steps=4
    )
    assert torch.equal(codes(run, "new.csv"), codes("old", "new.csv"))
    assert set(run.data().train.outward().columns["zip"].tolist()) == {"4567", "9999"}


def test_text_among_whole_number_categories_is_named_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    columns: dict[str, Any] = {
        "x": np.random.default_rng(0).normal(size=60),
        "grade": [1, 2, 3] * 20,
    }
    vs.train(write(Path("old.csv"), columns), run="old", **SMALL)
    columns["grade"][:10] = ["none yet"] * 10  # too many to be taken as empty
    assert "'grade' (1, 2, 3); got none yet (as in old;" in refused(
        write(Path("new.csv"), columns), "--init", "old", "--steps", "4"
    )


# -- other data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (6, 6), (8, 8, 3)])
def test_arrays_are_read_in_the_units_of_the_old_run(
    tmp_path: Path, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    r = np.random.default_rng(0)
    x = 3 + r.normal(size=(80, *shape))
    np.save("old.npy", x)
    np.save("new.npy", 10 + 2 * x[:40])
    np.save("other.npy", np.zeros((40, 7)) + r.normal(size=(40, 7)))
    first = vs.train("old.npy:kind=real", run="old", **SMALL)
    run = vs.train("new.npy:kind=real", run="new", init="old", freeze=["posterior"], **SMALL)
    one, two = first.model().space, run.data().space
    assert np.array_equal(one.offset, two.offset) and np.array_equal(one.scale, two.scale)
    assert torch.equal(codes(run, "new.npy"), codes(first, "new.npy"))
    inferred = vs.load("new.npy:kind=real").space
    assert not np.allclose(inferred.offset, two.offset), "the test has power"
    with pytest.raises(
        ValueError, match=r"expected data of shape \(N, .*as the run was trained on; got \(40, 7\)"
    ):
        vs.train("other.npy:kind=real", run="x", init="old", steps=4)
    with pytest.raises(
        ValueError, match=r"expected real .* as the run was trained on; got a table"
    ):
        vs.train({"a": np.arange(40.0), "b": np.arange(40.0)}, run="x", init="old", steps=4)
    with pytest.raises(
        ValueError, match=r"expected kind=real for new\.npy, as in old; got kind=unit"
    ):
        vs.train("new.npy:kind=unit", run="x", init="old", steps=4)


def test_levels_that_the_old_run_has_not_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    r = np.random.default_rng(0)
    np.save("old.npy", r.integers(0, 9, (80, 6)))
    np.save("few.npy", r.integers(0, 4, (40, 6)))
    np.save("more.npy", r.integers(0, 15, (40, 6)))
    vs.train("old.npy", run="old", **SMALL)
    assert vs.train("few.npy", run="few", init="old", steps=4).data().space.levels == 9
    said = refused("more.npy", "--init", "old", "--steps", "4")
    assert (
        "expected levels values 0, 1 .. 8; got 9, 10, 11 .." in said
        and "old was trained on" in said
    )


def test_grey_levels_for_a_binary_run_say_how_to_binarise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    r = np.random.default_rng(0)
    np.save("old.npy", r.integers(0, 256, (80, 6, 6), np.uint8))
    vs.train("old.npy:binarise=dynamic", run="old", **SMALL)
    said = refused("old.npy", "--init", "old", "--steps", "4")
    assert "old.npy:binarise=dynamic binarises grey levels" in said
    run = vs.train("old.npy:binarise=dynamic", run="new", init="old", steps=4)
    assert "binarise=dynamic" in run.config["source"] and any(
        "dynamic binarisation" in n for n in run.data().notes
    )
    assert (
        run.data().train.dynamic
        and run.data().train.sha256() == vs.Run("old").data().train.sha256()
    )


def test_a_folder_of_images_is_brought_to_the_size_of_the_old_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    r = np.random.default_rng(0)
    for name, side in (("one", 20), ("two", 26)):
        Path(name).mkdir()
        for i in range(24):
            Image.fromarray(r.integers(0, 256, (side, side, 3), np.uint8)).save(f"{name}/{i}.png")
    vs.train("one:size=12", run="old", **SMALL)
    run = vs.train("two", run="new", init="old", steps=4)
    assert run.data().space.shape == (3, 12, 12) and "size=12x12" in run.config["source"]


def test_texts_are_cut_into_the_tokens_of_the_old_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.txt").write_text(
        "\n".join(f"the cat sat on mat {'again ' * (i % 3)}" for i in range(40))
    )
    Path("new.txt").write_text("\n".join(["mat on the dog", "on cat"] * 20))
    Path("long.txt").write_text("\n".join(["the cat sat on mat " * 5, "cat"] * 20))
    small = {**SMALL, "network": "gru:width=8"}
    first = vs.train("old.txt:tokens=words", run="old", **small)
    run = vs.train("new.txt", run="new", init="old", freeze=["posterior"], steps=4)
    assert run.data().space.scalars() == first.data().space.scalars()
    assert torch.equal(codes(run, "new.txt"), codes(first, "new.txt"))
    job = Job.new("new.txt", init="old", steps=4, dry=True)
    assert any(n.startswith("20 of 120 words are not in the vocabulary") for n in job.notes), (
        job.notes
    )
    assert "expected tokens=words for new.txt, as in old; got tokens=bytes" in refused(
        "new.txt:tokens=bytes", "--init", "old"
    )
    said = refused("long.txt", "--init", "old", "--steps", "4")
    assert "got one of 25 in row 1" in said
    length = first.data().space.shape[0]
    assert f"expected length={length} for long.txt" in refused("long.txt:length=5", "--init", "old")
    assert vs.train(f"long.txt:length={length}", run="cut", init="old", steps=4).finished


def test_conditions_are_those_of_the_old_run_by_name(old: str, refused: Any) -> None:
    vs.train(write(Path("c.csv"), table()), run="conditional", condition=["site", "works"], **SMALL)
    new = table(60, seed=1)
    source = write(Path("new.csv"), {name: new[name] for name in reversed(COLUMNS)})
    for asked in (None, ["works", "site"]):
        run = vs.train(
            source,
            run="new",
            init="conditional",
            freeze=["posterior"],
            condition=asked,
            steps=4,
            force=True,
        )
        assert run.config["condition"] == ["site", "works"] and run.model().given is not None
        assert torch.equal(codes(run, source), codes("conditional", source))
        assert run.data().train.given_space is not None
    assert (
        "expected --condition site --condition works, as in conditional; got --condition site"
        in refused(source, "--init", "conditional", "--condition", "site")
    )
    assert "expected no --condition, as in old; got --condition site" in refused(
        source, "--init", old, "--condition", "site"
    )
    new["site"][0] = "west"
    said = refused(write(Path("west.csv"), new), "--init", "conditional")
    assert (
        "column 'site' (middle, north, south); got west (as in conditional; leave such rows out, "
        "or train" in said
    )
    said = refused(
        write(Path("less.csv"), {k: v for k, v in new.items() if k != "works"}),
        "--init",
        "conditional",
    )
    assert (
        "less.csv has no column or attribute 'works', which is a condition of conditional" in said
    )


# -- parts -----------------------------------------------------------------------------------------


def test_the_options_of_the_model_are_taken_over_and_others_are_refused(
    old: str, refused: Any
) -> None:
    source = write(Path("new.csv"), table(60, seed=1))
    run = vs.train(source, run="new", init=old, steps=4)
    assert run.config["network"] == "mlp:width=8" and run.config["latent"] == 2
    for option, value, own in (
        ("latent", "3", "2"),
        ("posterior", "laplace", "normal"),
        ("network", "residual:width=8", "mlp:width=8"),
    ):
        said = refused(source, "--init", old, f"--{option}", value)
        assert (
            f"expected a model of the same parts in old, but for the prior; got --{option} "
            f"{value}, not --{option} {own}" in said
        )
    # Weights of the same shapes behind another non-linearity are another encoder.
    said = refused(
        source, "--init", old, "--network", "mlp:width=8,activation=tanh", "--freeze", "posterior"
    )
    assert "since the posterior is frozen; got --network mlp:width=8,activation=tanh" in said
    notes = Job.new(
        source, init=old, network="mlp:width=8,activation=tanh", steps=4, dry=True
    ).notes
    assert any("network is mlp:width=8,activation=tanh (old: mlp:width=8)" in n for n in notes)


@pytest.mark.parametrize("frozen", ["posterior", "likelihood", "prior"])
def test_a_frozen_part_keeps_the_old_weights_bit_for_bit(old: str, frozen: str) -> None:
    source = write(Path("new.csv"), table(60, seed=1))
    vs.train(
        "old.csv" if Path("old.csv").exists() else source,
        run="base",
        prior="mixture:components=3",
        init=old,
        steps=4,
    )
    job = Job.new(source, init="base", freeze=[frozen], lr=0.1, steps=8, dry=True)
    for _ in range(6):
        next(job.training)
    before, after = vs.Run("base").model().state_dict(), job.training.model.state_dict()
    assert job.config["prior"] == "mixture:components=3"
    same = {k for k in before if torch.equal(before[k], after[k])}
    own = {k for k in before if k.startswith(frozen)}
    assert own and own <= same and same != set(before)


def test_another_prior_starts_anew_and_the_notes_say_so(old: str, refused: Any) -> None:
    source = write(Path("new.csv"), table(60, seed=1))
    job = Job.new(source, init=old, prior="mixture:components=3", steps=4, dry=True)
    assert any("the prior starts anew: mixture:components=3 (old: normal)" in n for n in job.notes)
    said = refused(source, "--init", old, "--prior", "mixture:components=3", "--freeze", "prior")
    assert (
        "expected a model of the same parts in old, since the prior is frozen; got --prior "
        "mixture:components=3, not --prior normal" in said
    )
    assert any(
        "starts from the weights of old" in n
        for n in Job.new(source, init=old, steps=4, dry=True).notes
    )


# -- files -----------------------------------------------------------------------------------------


def test_a_run_is_resumed_exactly_also_without_the_run_it_started_from(
    old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(Path("new.csv"), table(60, seed=1))
    whole = vs.train(source, run="whole", init=old, steps=8)
    for name, steps in (("early", 1), ("late", 5)):
        with Job.new(source, run=name, init=old, steps=8) as job:
            for _ in itertools.islice(job, steps):
                pass
            if name == "late":
                job.checkpoint()
    Path(old).rename("elsewhere")
    for name in ("early", "late"):
        again = resume(name)
        assert again.finished
        one, two = whole.model(), again.model()
        assert all(torch.equal(v, two.state_dict()[k]) for k, v in one.state_dict().items())
        assert one.space.scalars() == two.space.scalars()
        assert again.data().train.sha256() == whole.data().train.sha256()
        assert [{k: v for k, v in m.items() if "second" not in k} for m in again.metrics()] == [
            {k: v for k, v in m.items() if "second" not in k} for m in whole.metrics()
        ]
    assert (
        main(["evaluate", "late", "--k", "3", "--quiet"]) == 0
        and main(["diagnose", "late", "--quiet"]) == 0
    )
    shutil.rmtree("late/checkpoints")
    capsys.readouterr()
    assert main(["train", "--resume", "late", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "got old, which does not exist" in said


def test_a_run_that_inferred_its_own_space_still_opens_and_resumes(old: str) -> None:
    """As runs did that were started with `init` before spaces were taken over: all is in the run's
    own files."""
    source = write(Path("new.csv"), table(60, seed=1))
    run = vs.train(source, run="new", **SMALL)
    config = yaml.safe_load(Path("new/config.yaml").read_text())
    Path("new/config.yaml").write_text(yaml.safe_dump(config | {"init": "gone"}))
    assert run.data().space.scalars() == vs.load(source).space.scalars()
    more = resume("new", steps=8)
    assert more.finished and more.model().space.scalars() == vs.load(source).space.scalars()
    shutil.rmtree("new/checkpoints")
    with pytest.raises(ValueError, match="gone, which does not exist"):
        resume("new")


def test_the_configuration_repeats_the_run_and_a_dry_run_writes_nothing(
    old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(Path("new.csv"), table(60, seed=1))
    run = vs.train(source, run="new", init=old, freeze=["posterior"], steps=4)
    again = vs.train(config="new/config.yaml", run="again")
    assert all(
        torch.equal(v, again.model().state_dict()[k]) for k, v in run.model().state_dict().items()
    )
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert (
        main(
            [
                "train",
                source,
                "--init",
                old,
                "--freeze",
                "posterior",
                "--steps",
                "4",
                "--run",
                "dry",
                "--dry-run",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert sorted(Path().rglob("*")) == before
    assert "# read into the space of old" in said and yaml.safe_load(said)["init"] == old
    assert yaml.safe_load(said)["network"] == "mlp:width=8"


def test_remedies_leave_the_parts_that_were_taken_over_alone(old: str) -> None:
    config = vs.train(
        write(Path("new.csv"), table(60, seed=1)), run="new", init=old, steps=4
    ).config
    remedies = Remedies("new", config)
    assert (
        remedies.smaller() == remedies.fewer_units(1) == ""
        and Remedies("new", config | {"init": None}).smaller()
    )
    command = remedies.slower(2).split()
    assert main([*command[1:], "--quiet"]) == 0, "what is offered runs"
