"""What commands write: the user's dtype and units to the last digit, observed cells as they were,
and what was done to a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vaestro as vs
from vaestro import latents
from vaestro.cli import main
from vaestro.data.merging import merged_column
from vaestro.data.tables import read_table
from vaestro.data.writers import write_arrays
from vaestro.spaces import Space

TINY = [
    "--latent",
    "2",
    "--steps",
    "2",
    "--network",
    "linear",
    "--device",
    "cpu",
    "--compile",
    "off",
    "--quiet",
]
R = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(*words: Any) -> None:
    assert main([str(w) for w in words]) == 0, words


def said(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    capsys.readouterr()
    ran(*words)
    return capsys.readouterr().out


# -- dtype and offset ------------------------------------------------------------------------------

FLOATS = [
    ("float64", 2.4e9, 50.0),
    ("float64", 2.4e9, 1e3),
    ("float64", 0.0, 3e-12),
    ("float64", -1e12, 7.0),
    ("float32", 1e6, 10.0),
    ("float32", 0.0, 1.0),
    ("float16", 3.0, 1.0),
]
WHOLES = [
    ("uint8", 0, 256, "levels"),
    ("int16", 0, 9, "levels"),
    ("uint16", 0, 60_000, "real"),
    ("int64", 2_400_000_000, 100_000, "real"),
    ("float64", 0, 20, "levels"),
]
COMMANDS = {
    "reconstruct": ["reconstruct", "run", "x.npz", "--split", "train"],
    "decode": ["decode", "run", "z.npz"],
    "sample": ["sample", "run", "-n", "200", "--mean"],
    "interpolate": ["interpolate", "run", "x.npz", "0", "1", "--steps", "5", "--split", "train"],
    "edit": ["edit", "run", "x.npz", "--attribute", "size", "--amount", "0.5", "--split", "train"],
}


def trained(x: np.ndarray, source: str = "x.npz") -> Space:
    size = np.arange(len(x)) % 7.0
    np.savez(
        "x.npz",
        train=x[:160],
        train_size=size[:160],
        valid=x[160:180],
        valid_size=size[160:180],
        test=x[180:],
        test_size=size[180:],
    )
    ran("train", source, "--run", "run", *TINY)
    ran("encode", "run", "x.npz", "--split", "train", "-o", "z.npz", "--quiet")
    space: Space = vs.Run("run").model().space
    return space


def inside(name: str) -> np.ndarray:
    """Return the means that a command decodes, as the model has them, (N, *X) float64."""
    run = vs.Run("run")
    model, rows = run.model(), run.data().train
    codes = latents.encode(model, rows)["mean"]
    z = {
        "interpolate": lambda: latents.between(
            codes[0].astype(np.float64), codes[1].astype(np.float64), 5
        ).astype(np.float32),
        "edit": lambda: codes + np.float32(0.5) * latents.direction(model, rows, "size").step,
    }.get(name, lambda: codes)()
    with torch.no_grad():
        if name == "sample":
            from vaestro.randomness import torch_generator

            return (
                model.sample(200, None, generator=torch_generator("cpu", 0, "sample", 0))
                .point()
                .double()
                .numpy()
            )  # type: ignore[attr-defined]
        return model.decode(torch.from_numpy(z)).point().double().numpy()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("dtype", "offset", "scale"), FLOATS)
def test_means_of_reals_are_in_the_users_dtype_to_its_last_digit(
    dtype: str, offset: float, scale: float
) -> None:
    x = (offset + scale * R.normal(size=(200, 6))).astype(dtype)
    space = trained(x, "x.npz:kind=real")
    assert space.offset is not None and space.scale is not None
    for name, command in COMMANDS.items():
        ran(*command, "-o", "out.npy", "--force", "--quiet")
        out = np.load("out.npy")
        assert out.dtype == x.dtype, name
        wanted = inside(name) * space.scale + space.offset
        rounding = np.finfo(dtype).eps * (abs(offset) + 10 * scale)
        np.testing.assert_allclose(
            out.astype(np.float64), wanted, rtol=0, atol=rounding + 2e-6 * scale, err_msg=name
        )
        ran(*command, "-o", "out.npy", "--force", "--quiet", "--dtype", "float")
        needed = dtype == "float64" or offset > 1e5
        assert np.load("out.npy").dtype == (np.float64 if needed else np.float32)
    ran("sample", "run", "-n", "50", "-o", "out.npy", "--force", "--quiet")
    assert np.load("out.npy").dtype == x.dtype and np.load("out.npy").std() > 0.1 * scale


@pytest.mark.parametrize(("dtype", "low", "levels", "kind"), WHOLES)
def test_means_of_whole_numbers_are_rounded_to_them_unless_floats_are_asked_for(
    dtype: str, low: int, levels: int, kind: str
) -> None:
    x = (
        low
        + np.clip(R.normal(0.5, 0.15, (200, 6)) * levels, 0, levels - 1).round().astype(np.int64)
    ).astype(dtype)
    x[0], x[1] = low, low + levels - 1
    space = trained(x, f"x.npz:kind={kind}" if dtype != "uint8" else "x.npz")
    assert space.kind == kind
    for name, command in COMMANDS.items():
        ran(*command, "-o", "own.npy", "--force", "--quiet")
        ran(*command, "-o", "float.npy", "--force", "--quiet", "--dtype", "float")
        own, means = np.load("own.npy"), np.load("float.npy")
        wanted = inside(name)
        if kind == "real":
            assert space.offset is not None and space.scale is not None
            wanted = wanted * space.scale + space.offset
        else:
            wanted = np.clip(wanted, 0, levels - 1) * space.step + space.low
        assert own.dtype == x.dtype and means.dtype.kind == "f", name
        np.testing.assert_allclose(
            means - float(low),
            wanted - low,
            rtol=0,
            atol=2e-3 if kind == "levels" else 1e-5 * levels,
            err_msg=name,
        )
        assert (
            np.abs(
                own.astype(np.float64)
                - (wanted if kind == "real" else np.clip(wanted, low, low + levels - 1))
            ).max()
            <= 0.51
        ), name
        assert (own == np.rint(own)).all() == (np.dtype(dtype).kind != "f"), (
            "a user's float keeps the mean"
        )
    ran("sample", "run", "-n", "50", "-o", "out.npy", "--force", "--quiet")
    drawn = np.load("out.npy")
    assert drawn.dtype == x.dtype and (drawn == np.rint(drawn)).all() and len(np.unique(drawn)) > 3
    assert (
        low - 5 * levels <= drawn.astype(np.float64).min()
        and drawn.astype(np.float64).max() <= low + 6 * levels
    )


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float64"])
def test_means_of_binary_data_are_probabilities_unless_their_own_values_are_asked_for(
    dtype: str,
) -> None:
    top = 1 if dtype == "bool" else 255
    x = (top * (R.random((200, 6)) < 0.4)).astype(dtype)
    trained(x)
    for name, command in COMMANDS.items():
        for more, of in (
            ([], "f"),
            (["--dtype", "float"], "f"),
            (["--dtype", "own"], np.dtype(dtype).kind),
        ):
            ran(*command, "-o", "out.npy", "--force", "--quiet", *more)
            out = np.load("out.npy")
            assert out.dtype.kind == of, name
            if more == ["--dtype", "own"]:
                assert out.dtype == dtype and set(np.unique(out)) <= {0, top}
                assert (out == top).mean() == pytest.approx((inside(name) > 0.5).mean())
            else:
                assert (
                    out.min() > 0
                    and out.max() < 1
                    and out.dtype == ("float64" if dtype == "float64" else "float32")
                )


def test_a_dtype_is_of_means_and_rounding_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    trained(R.integers(0, 256, (200, 4, 4)).astype(np.uint8))
    assert "means are rounded to uint8 (--dtype float writes unrounded means)" in said(
        capsys, "decode", "run", "z.npz", "-o", "a.npy"
    )
    assert "rounded" not in said(
        capsys, "decode", "run", "z.npz", "-o", "b.npy", "--dtype", "float"
    )
    assert "rounded" not in said(capsys, "sample", "run", "-o", "c.npy", "--draws")
    assert "rounded" in said(capsys, "sample", "run", "-o", "e.npy")
    for wrong in (["sample", "run", "--draws"], ["decode", "run", "z.npz", "--sample"]):
        assert main([*wrong, "-o", "d.npy", "--dtype", "float"]) == 2
        assert "got it for draws" in capsys.readouterr().err
    assert main(["decode", "run", "z.npz", "-o", "d.npy", "--dtype", "uint8"]) == 2
    assert "expected dtype own or float; got 'uint8'" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".txt", ".parquet"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8"])
def test_every_format_holds_every_digit(suffix: str, dtype: str) -> None:
    x = (R.normal(2.4e9, 50, (20, 3)) if dtype == "float64" else R.normal(100, 20, (20, 3))).astype(
        dtype
    )
    path = Path(f"x{suffix}")
    write_arrays(path, {"x": x})
    if suffix in (".csv", ".parquet"):
        columns = read_table(path, {}).splits["all"].columns
        out = np.stack([np.asarray(c.data) for c in columns.values()], 1)
    else:
        out = (
            np.loadtxt(path, dtype)
            if suffix == ".txt"
            else np.load(path)
            if suffix == ".npy"
            else np.load(path)["x"]
        )
    assert (out.astype(dtype) == x).all()


def test_a_table_is_written_in_its_columns_dtypes_or_as_means(
    capsys: pytest.CaptureFixture[str],
) -> None:
    n = 300
    lines = [
        f"{2.4e9 + 50 * R.normal():.2f},{R.poisson(2)},{R.integers(0, 2)},{'ab'[R.integers(0, 2)]},"
        f"{(20.5 + R.integers(0, 40)):.1f}"
        for _ in range(n)
    ]
    Path("t.csv").write_text("hertz,visits,flag,kind,price\n" + "\n".join(lines) + "\n")
    ran("train", "t.csv:count=visits", "--run", "run", *TINY)
    assert "numbers are rounded to values of their columns" in said(
        capsys, "reconstruct", "run", "t.csv", "-o", "own.parquet"
    )
    ran("reconstruct", "run", "t.csv", "-o", "means.parquet", "--dtype", "float", "--quiet")
    user, own, means = (
        read_table(Path(f), {}).splits["all"].columns
        for f in ("t.csv", "own.parquet", "means.parquet")
    )
    assert {k: v.dtype.kind for k, v in own.items()} == {k: v.dtype.kind for k, v in user.items()}
    assert own["hertz"].std() > 0 and abs(own["hertz"].mean() - 2.4e9) < 50
    assert means["visits"].dtype.kind == "f" and (means["visits"] != np.rint(means["visits"])).any()
    assert (np.rint(means["visits"]) == own["visits"]).all() and (
        np.abs(means["hertz"] - own["hertz"]) <= 0.0051
    ).all()


# -- impute ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("options", [[], ["--sample"], ["--split", "test"], ["--dtype", "float"]])
def test_impute_leaves_observed_cells_of_arrays_as_they_are(dtype: str, options: list[str]) -> None:
    x = (R.normal(100, 3, (200, 5)) * np.pi).astype(dtype)
    x[R.random(x.shape) < 0.2] = np.nan
    np.save("x.npy", x)
    ran("train", "x.npy:missing=nan", "--run", "run", *TINY)
    ran("impute", "run", "x.npy:missing=nan", "-o", "full.npy", "--k", "5", "--quiet", *options)
    full = np.load("full.npy")
    if "--split" in options:
        x = x[vs.load("x.npy:missing=nan").test.index]
    there = ~np.isnan(x)
    assert (
        full.shape == x.shape
        and full.dtype == x.dtype
        and np.isfinite(full).all()
        and not there.all()
    )
    assert (full[there] == x[there]).all()


def test_impute_returns_complete_data_as_they_are() -> None:
    x = R.normal(100, 3, (200, 5))
    holed = x.copy()
    holed[::3, 0] = np.nan
    np.save("x.npy", holed)
    np.save("whole.npy", x)
    ran("train", "x.npy:missing=nan", "--run", "run", *TINY)
    ran("impute", "run", "whole.npy", "-o", "full.npy", "--quiet")
    assert (np.load("full.npy") == x).all()


def table(n: int = 240, *, holes: bool = True) -> dict[str, list[Any]]:
    """Return a table's cells as text: floats with many digits, whole numbers, codes, dates, truth
    values, text, and a row number."""
    columns = {
        "weight": [repr(float(v)) for v in R.normal(70, 10, n) / 3],
        "visits": [str(v) for v in R.poisson(3, n)],
        "big": [str(9_007_199_254_740_993 + 2 * int(v)) for v in R.integers(0, 3, n)],
        "code": [f"0{v}" for v in R.integers(1, 4, n)],
        "day": [str(np.datetime64("2020-01-01") + int(v)) for v in R.integers(0, 300, n)],
        "paid": [("true", "false")[v] for v in R.integers(0, 2, n)],
        "city": [("Ulm", "Bad Muenster", "'s-Hertogenbosch")[v] for v in R.integers(0, 3, n)],
    }
    if holes:
        for cells in columns.values():
            for i in np.flatnonzero(R.random(n) < 0.15):
                cells[i] = ""
    return {"row": [f"r{i:05d}" for i in range(n)], **columns}


def cells(path: Path) -> dict[str, list[str]]:
    import pyarrow as pa
    import pyarrow.csv

    found = pa.csv.read_csv(path)
    words = pa.csv.ConvertOptions(column_types=dict.fromkeys(found.column_names, pa.string()))
    return dict(pa.csv.read_csv(path, convert_options=words).to_pydict())


@pytest.mark.parametrize(
    "options", [[], ["--split", "test"], ["--split", "train", "--sample"], ["--dtype", "float"]]
)
def test_impute_leaves_observed_cells_of_tables_as_they_are(options: list[str]) -> None:
    columns = table()
    rows = ["\t".join(row).replace("\t", ",") for row in zip(*columns.values(), strict=True)]
    Path("t.csv").write_text(",".join(columns) + "\n" + "\n".join(rows) + "\n")
    ran("train", "t.csv:ignore=row", "--run", "run", *TINY)
    ran("impute", "run", "t.csv:ignore=row", "-o", "full.csv", "--k", "5", "--quiet", *options)
    full = cells(Path("full.csv"))
    assert list(full) == list(columns), "columns that are not modelled stay, in their place"
    places = [int(name[1:]) for name in full["row"]]
    assert len(places) == {"test": 12, "train": 216}.get(
        options[1] if options[:1] == ["--split"] else "", 240
    )
    for name, column in columns.items():
        for at, cell in zip(places, full[name], strict=True):
            assert cell and (not column[at] or cell == column[at]), (name, at, column[at], cell)


@pytest.mark.parametrize(
    ("own", "fills", "wanted"),
    [
        (np.array([1, 0], np.int32), np.array([0, 7.0]), np.array([1, 7], np.int32)),
        (np.array([1, 0], np.int32), np.array([0, 7.5]), np.array([1, 7.5])),
        (np.array([2**53 + 1, 0]), np.array([0, 7.5]), np.array([2**53 + 1, 8])),
        (np.array([0.1, 0], np.float32), np.array([0, 0.7]), np.array([0.1, 0.7], np.float32)),
        (np.array([True, False]), np.array([0, 1]), np.array([True, True])),
        (np.array(["a", ""]), np.array(["a", "long"]), np.array(["a", "long"])),
        (
            np.array(["2020-01-01", "NaT"], "datetime64[D]"),
            np.array(["2020-01-01", "2021-02-03"], "datetime64[us]"),
            np.array(["2020-01-01", "2021-02-03"], "datetime64[D]"),
        ),
    ],
)
def test_a_column_keeps_its_dtype_where_that_holds_what_is_filled_in(
    own: Any, fills: Any, wanted: Any
) -> None:
    out = merged_column(np.ma.MaskedArray(own, [False, True]), np.ma.MaskedArray(fills))
    assert (
        out.data.dtype == wanted.dtype
        and (out.data == wanted).all()
        and not np.ma.getmaskarray(out).any()
    )


# -- what is shown ---------------------------------------------------------------------------------


def folder(name: str, n: int = 40, side: tuple[int, int] = (16, 16), colour: bool = False) -> None:
    Path(name).mkdir()
    for i in range(n):
        shape = (*side, 3) if colour else side
        Image.fromarray((R.random(shape) * 60 + 4 * i).astype(np.uint8)).save(
            Path(name) / f"{i:03}.png"
        )


def test_some_rows_are_spread_over_sorted_data_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained(R.normal(size=(200, 6)))
    out = said(
        capsys, "reconstruct", "run", "x.npz", "--split", "train", "-n", "4", "-o", "few.npz"
    )
    assert "wrote 4 reconstructions (rows 0, 53, 106, 159 of 160) to few.npz" in out
    ran("reconstruct", "run", "x.npz", "--split", "train", "-o", "all.npz", "--quiet")
    few, every = np.load("few.npz"), np.load("all.npz")
    assert few["index"].tolist() == [0, 53, 106, 159] and "index" not in every.files
    np.testing.assert_allclose(few["x"], every["x"][few["index"]], atol=1e-6)
    out = said(
        capsys,
        "edit",
        "run",
        "x.npz",
        "--split",
        "train",
        "--attribute",
        "size",
        "-n",
        "2",
        "-o",
        "e.npz",
    )
    assert "wrote 2 data (train) (rows 0, 159 of 160), moved size +1, to e.npz" in out
    assert "(rows 0, 14, 28 .. 159 of 160, evenly spaced)" in said(
        capsys, "reconstruct", "run", "x.npz", "--split", "train", "-n", "12", "-o", "f.npz"
    )


def test_what_a_run_does_to_a_source_is_said_by_every_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder("small")
    folder("photos", side=(20, 30), colour=True)
    ran("train", "small", "--run", "run", *TINY)
    for command in (
        ["reconstruct", "run", "photos", "-o", "r.npy"],
        ["encode", "run", "photos", "-o", "z.npy"],
        ["interpolate", "run", "photos", "0", "1", "-o", "i.npy"],
        ["evaluate", "run", "--data", "photos:size=16,channels=grey", "--k", "2", "--limit", "5"],
    ):
        out = said(capsys, *command)
        assert "40 images cropped at the centre and scaled to 16x16" in out, command
        assert "40 of 40 images are not stored as grey and are read as grey" in out, command
        unchanged = ["small" if word.startswith("photos") else word for word in command]
        assert "cropped" not in said(capsys, *unchanged, *(["--force"] if "-o" in command else []))


def test_edit_shows_the_reconstruction_without_the_edit_and_names_where_it_moves_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for c, low in (("dark", 0), ("light", 120)):
        (Path("two") / c).mkdir(parents=True)
        for i in range(40):
            Image.fromarray((R.random((16, 16)) * 100 + low).astype(np.uint8)).save(
                Path("two") / c / f"{i}.png"
            )
    ran("train", "two", "--run", "run", *TINY)
    shown: dict[str, Any] = {}

    def keep(path: Path, rows: dict[str, Any], space: Space, title: str, columns: int = 16) -> None:
        shown.update(rows, title=title)

    monkeypatch.setattr("vaestro.data.writers.write_grid", keep)
    ran("edit", "run", "two", "--attribute", "class", "-o", "e.png", "-n", "6", "--quiet")
    assert (
        list(shown) == ["data", "reconstruction", "1 towards class=light", "title"]
        and "1 towards class=light" in shown["title"]
    )
    run = vs.Run("run")
    rows = vs.data.load_rows("two", run.model().space)
    np.testing.assert_allclose(
        shown["reconstruction"],
        latents.reconstruct(run.model(), rows.spread(6), dtype="float"),
        atol=1e-3,
    )
    assert np.abs(shown["1 towards class=light"] - shown["reconstruction"]).max() > 1e-3
    assert len({str(rows.attributes["class"][i]) for i in rows.places(6)}) == 2


def test_sets_of_real_images_are_shown_on_one_scale() -> None:
    from vaestro.data.writers import write_grid

    x = R.normal(size=(40, 8, 8))
    space = vs.load(x).space
    write_grid(Path("g.png"), {"data": x[:4], "mean": np.zeros((4, 8, 8))}, space, "title")
    with Image.open("g.png") as image:
        grey = np.asarray(image.convert("L"))
    middle = round(255 * (0 - x[:4].min()) / (x[:4].max() - x[:4].min()))
    assert (np.abs(grey.astype(int) - middle) <= 1).mean() > 0.25, (
        "a mean of 0 is grey beside data that are not"
    )


# -- interpolate -----------------------------------------------------------------------------------


def test_there_is_no_spherical_path_between_opposite_codes() -> None:
    a = R.normal(size=5)
    for wrong, why in (
        (-2 * a, "opposite"),
        (-a + 1e-6 * R.normal(size=5), "opposite"),
        (0 * a, "at the origin"),
    ):
        with pytest.raises(ValueError, match=f"{why}.*--path linear"):
            latents.between(a, wrong, 3, spherical=True)
        assert np.isfinite(latents.between(a, wrong, 3)).all()
    b = R.normal(size=5)
    b *= 2 * np.linalg.norm(a) / np.linalg.norm(b)
    z = latents.between(a, b, 9, spherical=True)
    np.testing.assert_allclose([z[0], z[-1]], [a, b], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), np.linalg.norm(a) * np.linspace(1, 2, 9))
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    angles = np.arccos(np.clip((unit[1:] * unit[:-1]).sum(1), -1, 1))
    np.testing.assert_allclose(angles, angles.mean(), rtol=1e-6)
    np.testing.assert_allclose(latents.between(a, a, 4, spherical=True), np.tile(a, (4, 1)))
