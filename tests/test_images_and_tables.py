"""Images and tables end to end, as a user meets them on the command line."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro import latents
from vaestro.cli import main
from vaestro.data import arrays as inferring
from vaestro.data import loading, passes
from vaestro.data.opening import open_source
from vaestro.randomness import Order
from vaestro.runs import summary
from vaestro.spaces import Kind

TINY = [
    "--latent",
    "3",
    "--steps",
    "6",
    "--batch",
    "16",
    "--device",
    "cpu",
    "--compile",
    "off",
    "--quiet",
]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and err.startswith("vaestro: "), err
    return err


def photographs(folder: Path, count: int, side: int) -> None:
    """Write squares cut from the photographs that scikit-learn and scikit-image carry, a folder for
    each photograph."""
    from PIL import Image

    pictures = dict(
        zip(
            ("china", "flower"),
            pytest.importorskip("sklearn.datasets").load_sample_images().images,
            strict=True,
        )
    )
    data = pytest.importorskip("skimage.data")
    pictures |= {name: getattr(data, name)() for name in ("astronaut", "coffee", "rocket")}
    r = np.random.default_rng(0)
    for i in range(count):
        name = list(pictures)[i % len(pictures)]
        top, left = (r.integers(0, length - side) for length in pictures[name].shape[:2])
        (folder / name).mkdir(parents=True, exist_ok=True)
        suffix = "jpg" if i % 3 else "png"
        Image.fromarray(pictures[name][top : top + side, left : left + side]).save(
            folder / name / f"{i:03}.{suffix}"
        )


def test_a_folder_of_photographs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photographs(place / "photos", 60, 40)
    assert main(["train", "photos:size=16", "--run", "run", *TINY, "--condition", "class"]) == 0
    assert main(["evaluate", "run", "--k", "3", "--quiet"]) == 0
    result = json.loads(Path("run/evaluation.json").read_text())
    assert result["space"] == "levels of 256 (16, 16, 3)"
    for estimate in result["estimates"]:
        assert estimate["measure"] == "counting" and 4 < estimate["bits_per_dim"] < 12
    assert (
        main(["sample", "run", "-n", "5", "-o", "s.npz", "--condition", "class=flower", "--quiet"])
        == 0
    )
    drawn = np.load("s.npz")["x"]
    assert drawn.shape == (5, 16, 16, 3) and drawn.dtype == np.uint8
    for command in (["reconstruct", "run", "photos"], ["encode", "run", "photos"]):
        assert main([*command, "-o", f"{command[0]}.npz", "--quiet"]) == 0, (
            "a folder is brought to the run's size"
        )
    assert np.load("reconstruct.npz")["x"].shape == (60, 16, 16, 3)
    assert "one of astronaut, china, coffee, flower, rocket; got tree" in refused(
        capsys, "sample", "run", "--condition", "class=tree"
    )
    assert "'class'" in refused(
        capsys, "train", "photos:size=16", "--run", "new", *TINY, "--condition", "clas"
    )
    assert main(["info", "--cache", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["entries"]) == 1
    assert main(["info", "--clear-cache"]) == 0 and not list(Path("cache").rglob("*.npy"))


@pytest.mark.parametrize("side", [28, 45, 64, 128, 256])
def test_colour_images_of_every_side_train_by_convolutions(side: int) -> None:
    r = np.random.default_rng(0)
    x = (
        r.integers(0, 256, (12, 4, 4, 3))
        .astype(np.uint8)
        .repeat(side // 4 + 1, 1)
        .repeat(side // 4 + 1, 2)[:, :side, :side]
    )
    np.save("x.npy", x)
    options = [
        "--network",
        "conv:width=2",
        "--latent",
        "2",
        "--steps",
        "2",
        "--batch",
        "2",
        "--device",
        "cpu",
        "--compile",
        "off",
        "--quiet",
    ]
    assert main(["train", "x.npy", "--run", "run", *options]) == 0
    assert main(["sample", "run", "-n", "2", "-o", "s.npy", "--quiet"]) == 0
    assert main(["reconstruct", "run", "x.npy", "-o", "r.npy", "-n", "2", "--quiet"]) == 0
    drawn = np.load("s.npy")
    assert (
        drawn.shape == (2, side, side, 3)
        and drawn.dtype == np.uint8
        and np.load("r.npy").shape == (2, side, side, 3)
    )
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2 and np.isfinite(last["bound"])
    assert vs.Run("run").config["likelihood"] == (
        "discretized-logistic:channels=conditioned,means=squares"
    )


def test_the_evaluation_after_training_takes_fewer_draws_of_large_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []

    def evaluate(model: Any, rows: Any, **options: Any) -> Any:
        asked.append(options)
        return vs.evaluate(model, rows, k=1, limit=1)

    monkeypatch.setattr(summary, "evaluate", evaluate)
    for side in (8, 128, 256):
        data = vs.load(
            np.random.default_rng(0).integers(0, 256, (60, side, side, 3)).astype(np.uint8)
        )
        model = vs.build(
            data.space, latent=2, network="conv:width=2" if side > 8 else "mlp:width=8"
        )
        summary.result(model, data.train)
    small, large, largest = (options["k"] * options["limit"] for options in asked)
    assert small == 100 * 54 and 20 <= largest < large < 100


@pytest.mark.parametrize(
    "likelihood",
    ["discretized-logistic", "logistic-mixture", "categorical", "gaussian", "laplace:scale=pixel"],
)
def test_every_likelihood_of_levels_reports_bits(likelihood: str) -> None:
    run = vs.train(
        "digits",
        run="run",
        likelihood=likelihood,
        latent=3,
        steps=4,
        batch=16,
        device="cpu",
        compile="off",
    )
    bits = vs.evaluate(run.model(), run.data().test, k=4)["iwae"].bits_per_dim
    assert bits is not None and 2 < bits < 12


def mixed(path: Path, rows: int = 3000) -> dict[str, np.ndarray]:
    """Write a table whose columns depend on each other through a hidden group, with strings, dates
    and empty cells."""
    r = np.random.default_rng(0)
    group = r.integers(0, 3, rows)
    columns: dict[str, np.ndarray] = {
        "city": np.array(["Lima", "Oslo", "Rome"])[
            np.where(r.random(rows) < 0.9, group, r.integers(0, 3, rows))
        ],
        "income": np.round(
            np.array([20.0, 40.0, 80.0])[group] * np.exp(0.2 * r.normal(size=rows)), 2
        ),
        "visits": r.poisson(np.array([1, 6, 20])[group]),
        "member": r.random(rows) < np.array([0.05, 0.5, 0.95])[group],
        "since": np.datetime64("2020-01-01")
        + (300 * group + r.integers(0, 100, rows)).astype("timedelta64[D]"),
    }
    empty = r.random((rows, 5)) < 0.05
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for i in range(rows):
            writer.writerow(
                ["" if empty[i, j] else values[i] for j, values in enumerate(columns.values())]
            )
    return columns


def association(
    city: np.ndarray, income: np.ndarray, member: np.ndarray, since: np.ndarray
) -> np.ndarray:
    """Return numbers that say how columns hang together: means by city, and the correlation of
    income and date."""
    days = since.astype("datetime64[D]").astype(float)
    by_city = [
        [np.log(income[city == c]).mean(), member[city == c].mean()]
        for c in ("Lima", "Oslo", "Rome")
    ]
    return np.array([*np.ravel(by_city), np.corrcoef(np.log(income), days)[0, 1]])


def test_a_mixed_table_keeps_its_dependence_in_samples_and_imputations(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    true = mixed(place / "people.csv")
    train = [
        "train",
        "people.csv",
        "--run",
        "run",
        "--latent",
        "4",
        "--steps",
        "1200",
        "--network",
        "residual:width=64",
        "--quiet",
    ]
    assert main([*train, "--device", "cpu", "--compile", "off", "--batch", "128"]) == 0
    assert main(["sample", "run", "-n", "3000", "--complete", "-o", "s.csv", "--quiet"]) == 0
    drawn = open_source(place / "s.csv").raw.splits["all"].columns
    assert list(drawn) == list(true)
    assert (
        drawn["since"].dtype.kind == "M"
        and set(drawn["city"].tolist()) <= {"Lima", "Oslo", "Rome"}
        and drawn["visits"].min() >= 0
    )
    names = ("city", "income", "member", "since")
    wanted = association(*(true[n] for n in names))
    kept = drawn["income"].data > 1
    found = association(*(drawn[n].data[kept] for n in names))
    np.testing.assert_allclose(found, wanted, atol=0.2)
    for options in ([], ["--sample"]):
        assert (
            main(["impute", "run", "people.csv", "-o", "full.csv", "--force", "--quiet", *options])
            == 0
        )
        full = open_source(place / "full.csv").raw.splits["all"].columns
        before = open_source(place / "people.csv").raw.splits["all"].columns
        assert not any(np.ma.is_masked(c) for c in full.values())
        hole = np.ma.getmaskarray(before["city"])
        assert hole.sum() > 100
        assert all(
            (full[n].data == before[n].data)[~np.ma.getmaskarray(before[n])].all() for n in true
        ), "what is there stays"
        assert (full["city"].data[hole] == true["city"][hole]).mean() > (
            0.8 if not options else 0.7
        ), "chance is a third"
    assert main(["evaluate", "run", "--k", "5"]) == 0
    said = capsys.readouterr().out
    assert "of the observed cells" in said and "partly a density" in said and "bits/dim" not in said
    (place / "new.csv").write_text(
        "city,income,visits,member,since\nParis,30.5,3,true,2020-03-01\n"
    )
    assert "column 'city'" in refused(capsys, "encode", "run", "new.csv", "-o", "z.npz")


def test_tables_of_scikit_learn(place: Path) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    for name in ("wine", "iris", "breast_cancer"):
        loaded = getattr(datasets, f"load_{name}")()
        header = ",".join(n.replace(",", "") for n in loaded.feature_names) + ",kind"
        table = np.column_stack([loaded.data, loaded.target])
        np.savetxt(f"{name}.csv", table, delimiter=",", header=header, comments="", fmt="%.6g")
        assert main(["train", f"{name}.csv", "--run", name, *TINY]) == 0
        assert main(["sample", name, "-n", "4", "-o", f"{name}-samples.csv", "--quiet"]) == 0
        assert Path(f"{name}-samples.csv").read_text().splitlines()[0].replace('"', "") == header


def test_a_table_from_python_is_kept_with_the_run(place: Path) -> None:
    r = np.random.default_rng(0)
    table = {"a": r.normal(size=60), "b": [["x", "y", None][i % 3] for i in range(60)]}
    run = vs.train(table, run="run", latent=2, steps=3, batch=16, device="cpu", compile="off")
    assert run.data().space.names == ("a", "b") and run.data().train.observed is not None
    again = vs.train(config="run/config.yaml", run="again")
    assert all(
        torch.equal(a, b)
        for a, b in zip(run.model().parameters(), again.model().parameters(), strict=True)
    )


def test_nan_in_an_array_is_missing_where_asked(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    r = np.random.default_rng(0)
    x = r.normal(size=(200, 1)) * np.ones((1, 6)) + 0.1 * r.normal(size=(200, 6))
    holed = np.where(r.random(x.shape) < 0.2, np.nan, x)
    np.save("x.npy", holed)
    assert "missing=nan" in refused(capsys, "train", "x.npy", "--run", "run", *TINY)
    assert main(["train", "x.npy:missing=nan", "--run", "run", *TINY]) == 0
    assert main(["impute", "run", "x.npy", "-o", "full.npy", "--quiet"]) == 0
    full = np.load("full.npy")
    assert np.isfinite(full).all() and np.allclose(
        full[~np.isnan(holed)], x[~np.isnan(holed)], atol=1e-5
    )


def test_a_conditional_model_needs_its_conditions(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "train",
                "digits",
                "--run",
                "run",
                *TINY,
                "--condition",
                "digit",
                "--prior",
                "conditional",
            ]
        )
        == 0
    )
    assert (
        main(["sample", "run", "-n", "3", "-o", "s.png", "--condition", "digit=3", "--quiet"]) == 0
    )
    assert "digit=VALUE" in refused(capsys, "sample", "run", "-n", "3", "-o", "t.png")
    assert "a condition of the model" in refused(capsys, "sample", "run", "--condition", "digt=3")
    assert main(["evaluate", "run", "--k", "2"]) == 0
    assert "log p(x | digit) >=" in capsys.readouterr().out
    np.save("x.npy", np.zeros((12, 8, 8), np.uint8) + np.arange(12, dtype=np.uint8)[:, None, None])
    line = refused(capsys, "encode", "run", "x.npy", "-o", "z.npz")
    assert (
        "'digit', on which the model is conditioned" in line and "--condition digit=VALUE" in line
    )
    assert "--condition COLUMN" in refused(
        capsys, "train", "digits", "--run", "new", *TINY, "--prior", "conditional"
    )
    assert "no conditions" in refused(capsys, "sample", *plain_run(), "--condition", "digit=3")


def test_rows_without_conditions_are_given_one(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    r = np.random.default_rng(0)
    lines = [
        f"{i % 3},{'' if i % 9 == 5 else r.normal()},{'ab'[i % 2]},{2000 + r.integers(40)}"
        for i in range(60)
    ]
    (place / "t.csv").write_text("a,b,kind,year\n" + "\n".join(lines) + "\n")
    (place / "bare.csv").write_text(
        "a,b\n" + "\n".join(",".join(x.split(",")[:2]) for x in lines) + "\n"
    )
    (place / "half.csv").write_text(
        "a,b,year\n" + "\n".join(",".join(x.split(",")[i] for i in (0, 1, 3)) for x in lines) + "\n"
    )
    (place / "all_b.csv").write_text(
        "a,b,kind,year\n" + "\n".join(x.replace(",a,", ",b,") for x in lines) + "\n"
    )
    assert (
        main(
            ["train", "t.csv", "--run", "run", *TINY, "--condition", "kind", "--condition", "year"]
        )
        == 0
    )
    both = ["--condition", "kind=b", "--condition", "year=2003"]
    for command, file in (("encode", "z.npz"), ("reconstruct", "r.csv"), ("impute", "full.csv")):
        assert "'kind', on which the model is conditioned" in refused(
            capsys, command, "run", "bare.csv", "-o", file
        )
        assert main([command, "run", "bare.csv", "-o", file, *both, "--quiet"]) == 0
        assert "got '2003.5'" in refused(
            capsys, command, "run", "bare.csv", "-o", f"new-{file}", *both[:3], "year=2003.5"
        )
        assert "'year'" in refused(
            capsys, command, "run", "bare.csv", "-o", f"new-{file}", *both[:2]
        )
        assert "a condition of the model" in refused(
            capsys, command, "run", "bare.csv", "-o", f"new-{file}", "--condition", "knd=b"
        )
    full = open_source(place / "full.csv").raw.splits["all"].columns
    assert list(full) == ["a", "b"] and not np.ma.is_masked(full["b"])

    def mean(source: str, *options: str) -> np.ndarray:
        assert main(["encode", "run", source, "-o", "m.npy", "--force", "--quiet", *options]) == 0
        return np.load("m.npy")

    # The weights of so short a training tell 'a' from 'b' all the same.
    np.testing.assert_array_equal(mean("half.csv", *both[:2]), mean("all_b.csv"))
    np.testing.assert_array_equal(
        mean("t.csv", *both[:2]), mean("all_b.csv"), "what is given wins over the source's own"
    )
    assert (mean("half.csv", "--condition", "kind=a") != mean("all_b.csv")).any()
    (place / "gap.csv").write_text(
        "a,b,kind,year\n"
        + "\n".join(x[:-4] if i in (7, 31) else x for i, x in enumerate(lines))
        + "\n"
    )
    assert "'year' in every row of gap.csv; got 2 empty cells, the first in row 8 (" in refused(
        capsys, "encode", "run", "gap.csv", "-o", "n.npz"
    )
    assert "2 empty cells, the first in row 8 (" in refused(
        capsys, "train", "gap.csv", "--run", "new", *TINY, "--condition", "year"
    )
    assert mean("gap.csv", *both).shape == (60, 3)
    assert "no conditions" in refused(
        capsys, "encode", *plain_run(), "digits", "-o", "n.npz", "--condition", "digit=3"
    )


def test_names_of_columns_with_commas_and_other_signs(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    r = np.random.default_rng(0)
    names = ["price, EUR", "a+b", "time: utc", 'say "hi"', "x=y", "plain"]
    cells = [
        [r.integers(0, 30), i % 2, r.integers(0, 9), r.normal(), r.integers(0, 3), i]
        for i in range(60)
    ]
    with (place / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *cells])
    options = 'ignore=plain+"say ""hi""",binary="a+b",seed=3,real="time: utc"'
    space = vs.load(f't.csv:{options}+"price, EUR"', condition=["x=y"]).space
    assert space.names == ("price, EUR", "a+b", "time: utc") and len(space.of_kind(Kind.REAL)) == 2
    given = ["--condition", "price, EUR", "--condition", '"x=y"']
    assert main(["train", f"t.csv:{options}", "--run", "run", *TINY, *given]) == 0
    run = vs.Run("run")
    assert run.config["condition"] == ["price, EUR", "x=y"]
    assert run.data().space.names == ("a+b", "time: utc"), "the resolved source is read"
    values = ["--condition", '"price, EUR"=7', "--condition", '"x=y"=2']
    assert main(["sample", "run", "-n", "3", "-o", "s.csv", "--quiet", *values]) == 0
    drawn = open_source(place / "s.csv").raw.splits["all"].columns
    assert drawn["price, EUR"].tolist() == [7] * 3 and drawn["x=y"].tolist() == [2] * 3
    assert (
        main(
            [
                "sample",
                "run",
                "-n",
                "3",
                "-o",
                "t.npz",
                "--quiet",
                "--condition",
                "price, EUR=7",
                *values[2:],
            ]
        )
        == 0
    )
    assert main(["encode", "run", "t.csv", "-o", "z.npz", "--quiet"]) == 0
    assert "closed quotes" in refused(capsys, "train", 't.csv:ignore="plain', "--run", "new", *TINY)
    with (place / "bad.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["a, b", "c"], *[["inf", i] for i in range(60)]])
    assert "with 'ignore=\"a, b\"')" in refused(
        capsys, "train", "bad.csv", "--run", "new", *TINY
    ), "as a shell takes it"
    assert vs.load('bad.csv:ignore="a, b"').space.names == ("c",)


def test_a_whole_number_given_as_a_fraction_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    r = np.random.default_rng(0)
    (place / "t.csv").write_text(
        "year,b\n" + "".join(f"{r.integers(1900, 2000)},{r.normal():.3f}\n" for _ in range(60))
    )
    assert main(["train", "t.csv", "--run", "run", *TINY, "--condition", "year"]) == 0
    assert "a whole number for year" in refused(
        capsys, "sample", "run", "--condition", "year=1950.5", "-o", "s.csv"
    )
    assert (
        main(["sample", "run", "-n", "2", "--condition", "year=1950", "-o", "s.csv", "--quiet"])
        == 0
    )
    assert open_source(place / "s.csv").raw.splits["all"].columns["year"].tolist() == [1950, 1950]


def plain_run() -> list[str]:
    assert main(["train", "digits", "--run", "plain", *TINY]) == 0
    return ["plain"]


def test_negative_counts_and_values_outside_the_unit_interval(
    capsys: pytest.CaptureFixture[str],
) -> None:
    r = np.random.default_rng(0)
    np.save("x.npy", r.integers(-1, 9, (40, 5)))
    assert "counts of 0 or more; got -1" in refused(
        capsys, "train", "x.npy:kind=count", "--run", "run", *TINY
    )
    np.save("u.npy", r.random((40, 5)) + 0.5)
    assert "inside (0, 1)" in refused(capsys, "train", "u.npy:kind=unit", "--run", "run", *TINY)
    np.save("c.npy", r.poisson(4, (40, 5)))
    assert main(["train", "c.npy:kind=count", "--run", "run", *TINY]) == 0
    assert "size=" in refused(capsys, "train", "c.npy:size=64", "--run", "new", *TINY)


def test_large_arrays_are_laid_out_on_the_disk_and_train_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    r = np.random.default_rng(0)
    arrays = {
        "real": r.normal(size=(300, 8)),
        "grey": r.integers(0, 256, (300, 6, 6)),
        "colour": r.integers(0, 256, (300, 6, 6, 3)),
    }
    for name, array in arrays.items():
        np.save(f"{name}.npy", array if name == "real" else array.astype(np.uint8))
        small = vs.load(f"{name}.npy")
        with monkeypatch.context() as m:
            m.setattr(inferring, "IN_MEMORY", 100)
            m.setattr(passes, "PIECE", 2000)
            large = vs.load(f"{name}.npy")
            rows = loading.load_rows(f"{name}.npy", large.space)
        assert isinstance(large.train.values, np.memmap) or isinstance(
            large.train.values.base, np.memmap
        )
        assert str(large.space) == str(small.space) and large.test.sha256() == small.test.sha256()
        order = Order(len(small.train), 16, 0)(3)[None]
        torch.testing.assert_close(large.train.gather(order).x, small.train.gather(order).x)
        np.testing.assert_allclose(rows.outward(), np.load(f"{name}.npy"), atol=1e-5)


def test_arrays_of_large_images_are_taken_where_size_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    x = np.random.default_rng(0).integers(0, 256, (12, 30, 260)).astype(np.uint8)
    np.save("x.npy", x)
    assert "30x260 (12): scale them, or keep their size with size=30x260" in refused(
        capsys, "train", "x.npy", "--run", "run", *TINY
    )
    assert vs.load("x.npy:size=30x260").space.outside == (30, 260)
    assert "size= does not apply to arrays" in refused(
        capsys, "train", "x.npy:size=64", "--run", "run", *TINY
    ), "arrays are not scaled"
    data = vs.load(x)
    assert data.source == "array:size=30x260" and any("at most 256" in note for note in data.notes)
    run = vs.train(
        x,
        run="run",
        latent=2,
        steps=1,
        batch=2,
        network="mlp:width=4",
        likelihood="gaussian",
        device="cpu",
        compile="off",
    )
    assert run.data().space.outside == (30, 260), "its copy is read again"
    np.save("y.npy", np.random.default_rng(0).random((12, 10, 300)))
    assert vs.load("y.npy").space.outside == (10, 300), "rows of numbers, and no images"


def test_twins_across_splits_are_said() -> None:
    r = np.random.default_rng(0)
    x = r.integers(0, 256, (400, 6, 6)).astype(np.uint8)
    assert not [n for n in vs.load(x).notes if "training row" in n]
    near = np.clip(x[:200].astype(int) + r.integers(-2, 3, (200, 6, 6)), 0, 255).astype(np.uint8)
    notes = vs.load(np.concatenate([x, near, x[200:]])).notes
    assert [n for n in notes if "valid rows each equal or nearly equal a training row" in n], notes


def test_imputation_of_a_grid_of_colours_uses_the_other_channels() -> None:
    space = vs.load("shapes:n=100,size=16").space
    model = vs.build(
        space,
        latent=2,
        likelihood="logistic-mixture:channels=independent,components=2",
        network="mlp:width=8",
    )
    rows = vs.load("shapes:n=100,size=16").test
    observed = np.random.default_rng(0).random((len(rows.values), *space.shape)) < 0.5
    filled: Any = latents.impute(model, replace(rows, observed=observed), k=3)
    assert filled.shape == (len(rows), 16, 16, 3) and filled.dtype == np.uint8


def test_data_of_another_table_are_refused(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    mixed(place / "people.csv", 100)
    assert main(["train", "people.csv", "--run", "run", *TINY]) == 0
    (place / "other.csv").write_text("a,b\n" + "".join(f"{i},{i / 7}\n" for i in range(20)))
    assert "expected columns income, since, visits and 2 more" in refused(
        capsys, "encode", "run", "other.csv", "-o", "z.npz"
    )
    np.save("x.npy", np.zeros((20, 5)) + np.arange(5))
    assert "expected a table" in refused(capsys, "encode", "run", "x.npy", "-o", "z.npz")
    assert "a table" in refused(capsys, "train", "people.csv:kind=real", "--run", "new", *TINY)
    assert "'city'" in refused(capsys, "train", "people.csv:real=ctiy", "--run", "new", *TINY)


def test_a_completed_table_keeps_every_column_and_codes_go_through_csv(place: Path) -> None:
    r = np.random.default_rng(0)
    lines = [
        f"{'' if i % 7 == 0 else i % 3},{r.normal():.4f},row {i},{'ab'[i % 2]}" for i in range(60)
    ]
    (place / "t.csv").write_text("a,b,id,kind\n" + "\n".join(lines) + "\n")
    assert main(["train", "t.csv:ignore=id", "--run", "run", *TINY, "--condition", "kind"]) == 0
    assert main(["impute", "run", "t.csv", "-o", "full.csv", "--quiet"]) == 0
    before, after = (
        open_source(place / f).raw.splits["all"].columns for f in ("t.csv", "full.csv")
    )
    assert list(after) == ["a", "b", "id", "kind"] and not any(
        np.ma.is_masked(c) for c in after.values()
    )
    for name in ("b", "id", "kind"):
        assert (after[name] == before[name]).all()
    assert (
        main(["sample", "run", "-n", "3", "-o", "s.csv", "--condition", "kind=b", "--quiet"]) == 0
    )
    assert open_source(place / "s.csv").raw.splits["all"].columns["kind"].tolist() == ["b"] * 3
    assert main(["encode", "run", "t.csv", "-o", "z.csv", "--quiet"]) == 0
    assert main(["encode", "run", "t.csv", "-o", "z.npz", "--quiet"]) == 0
    for codes in ("z.csv", "z.npz"):
        assert (
            main(
                [
                    "decode",
                    "run",
                    codes,
                    "-o",
                    f"{codes}.parquet",
                    "--condition",
                    "kind=a",
                    "--quiet",
                ]
            )
            == 0
        )
    first, second = (
        open_source(place / f"z.{s}.parquet").raw.splits["all"].columns for s in ("csv", "npz")
    )
    assert all(np.array_equal(first[n], second[n]) for n in first)
    reconstructed = place / "r.csv"
    assert main(["reconstruct", "run", "t.csv", "-o", str(reconstructed), "--quiet"]) == 0
    on_grid = open_source(reconstructed).raw.splits["all"].columns["b"].data * 1e4
    assert np.allclose(on_grid, np.rint(on_grid), atol=1e-6)
