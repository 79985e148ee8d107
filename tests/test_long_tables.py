"""Series as people have them: long tables, lists of arrays, windows; and series of lengths."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import vaestro as vs
from vaestro.cli import main
from vaestro.data.opening import open_source
from vaestro.data.series.lengths import smoothed
from vaestro.data.series.looks import series_of
from vaestro.data.series.steps import place_rows
from vaestro.data.series.windows import Windows
from vaestro.data.tables import frame_of
from vaestro.models.lengths import Lengths
from vaestro.spaces import Batch, RealSpace

NAN = np.nan


def read(source: object, **options: object) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """Return the array, the attributes and the notes of a source."""
    raw = open_source(source, options=options).raw
    return raw.splits["all"], dict(raw.attributes["all"]), list(raw.notes)


def engines(n: int = 30, seed: int = 0) -> pd.DataFrame:
    r = np.random.default_rng(seed)
    rows = []
    for unit in range(n):
        length = int(r.integers(4, 9))
        level = r.normal()
        rows += [
            {"unit": f"e{unit}", "cycle": t + 1, "speed": level + r.normal(), "load": int(t > 2)}
            for t in range(length)
        ]
    return pd.DataFrame(rows)


# -- long tables -----------------------------------------------------------------------------------


def test_rows_become_series_in_the_order_of_the_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "unit,cycle,speed,temp,site\n7,2,0.2,20,A\n7,1,0.1,10,A\n3,1,0.5,,B\n7,4,0.4,40,A\n"
    )
    x, attributes, notes = read(f"{tmp_path}/t.csv:series=unit:cycle")
    expected = [
        [[0.1, 10], [0.2, 20], [NAN, NAN], [0.4, 40]],
        [[0.5, NAN], [NAN, NAN], [NAN, NAN], [NAN, NAN]],
    ]
    np.testing.assert_array_equal(x, expected)
    assert attributes["unit"].tolist() == [7, 3] and attributes["site"].tolist() == ["A", "B"]
    assert notes == [
        "2 series of unit, 1 to 4 steps by cycle, 2 channels (speed, temp)",
        "1 step has no row in cycle: read as missing cells",
    ]


def test_the_order_of_the_file_and_odd_names() -> None:
    table = {"my unit": ["a", "b", "a"], "t, s": [0.0, 0.5, 0.25], "x": [1.0, 2.0, 3.0]}
    x, _, _ = read(table, series='"my unit"')
    np.testing.assert_array_equal(x, [[[0, 1], [0.25, 3]], [[0.5, 2], [NAN, NAN]]])
    x, _, _ = read(table, series='my unit:"t, s"')
    np.testing.assert_array_equal(x[..., 0], [[1, 3], [2, NAN]])


@pytest.mark.parametrize(
    ("columns", "option", "message"),
    [
        ({"x": [1.0, 2.0, 3.0]}, "unit:cyle", "name a column of table: .cycle."),
        ({"x": [1.0, 2.0, 3.0]}, "unit:name", "expected numbers or dates in column 'name'"),
        (
            {"x": [1.0, 2.0, 3.0], "cycle": [1, 1, 1]},
            "unit:cycle",
            "1 of 3 rows have an earlier row of",
        ),
        ({"x": [1.0, 2.0, 3.0], "cycle": [1, None, 1]}, "unit:cycle", "is empty in row 2"),
        ({"x": ["p", "q", "r"]}, "unit:cycle", "no column of numbers that vary"),
        ({"x": [1.0, 2.0, 3.0]}, "name:cycle", "each row of table has another value of name"),
        ({"x": [1.0, 2.0, 3.0]}, True, "type series=GROUP:ORDER"),
    ],
)
def test_contradictions_are_refused(columns: dict, option: object, message: str) -> None:
    table = {"unit": [1, 1, 2], "cycle": [1, 2, 1], "name": ["a", "b", "c"], **columns}
    with pytest.raises(ValueError, match=message):
        open_source(table, options={"series": option})


def test_equal_rows_and_columns_that_are_no_channels() -> None:
    table = {
        "unit": [1, 1, 1, 2, 2],
        "cycle": [1, 1, 2, 1, 2],
        "speed": [0.1, 0.1, 0.2, 0.3, 0.4],
        "age": [40.0, 40.0, 40.0, 50.0, 50.0],
        "note": ["a", "a", "b", "c", "d"],
        "fixed": [7, 7, 7, None, 7],
        "nothing": [None] * 5,
    }
    x, attributes, notes = read(table, series="unit:cycle")
    np.testing.assert_array_equal(x[..., 0], [[0.1, 0.2], [0.3, 0.4]])
    assert attributes["age"].tolist() == [40, 50] and "note" not in attributes
    assert notes[1:] == [
        "1 row that repeats another row left out",
        "age: the same in all rows of a series, therefore an attribute and no channel (--condition "
        "age gives it to the model)",
        "note left out: no numbers, but vary within a series",
        "nothing left out: all cells are empty",
        "fixed: constant, not modelled, copied into samples",
    ]


def test_few_rows_of_one_step_are_averaged() -> None:
    cycle = [*range(40), 7, 7]
    table = {"unit": [1] * 42, "cycle": cycle, "x": [*np.arange(40.0), 10.0, None]}
    x, _, notes = read(table, series="unit:cycle")
    assert x.shape == (1, 40, 1) and x[0, 6:9, 0].tolist() == [6, 8.5, 8]
    assert notes[1] == (
        "rows 8 and 41 are both for unit 1 and cycle 7 (1 more such rows): the mean of each number "
        "is taken"
    )


def test_values_of_overlapping_windows_are_no_atoms() -> None:
    time = np.arange(400).astype("datetime64[s]")
    table = {"time": time, "v": np.random.default_rng(0).normal(size=400)}
    data = vs.load(table, series="time", window=16, stride=2)
    assert data.space.resolution is None


def test_gaps_jitter_and_irregular_times() -> None:
    starts = np.array([0])
    assert place_rows(np.array([10, 20, 40, 50]), starts, "t").at.tolist() == [0, 1, 3, 4]
    jittered = place_rows(np.array([0.0, 1.04, 1.98, 4.03, 5.0]), starts, "t")
    assert jittered.at.tolist() == [0, 1, 2, 4, 5] and jittered.gaps == 1
    odd = place_rows(np.array([0.0, 1.0, 1.5, 3.7, 4.0]), starts, "t")
    assert odd.at.tolist() == [0, 1, 2, 3, 4] and odd.step == 0
    assert "irregular (0.3 to 2.2)" in odd.notes[0]
    days = np.array(["2024-01-01", "2024-01-02", "2024-01-03", "2024-03-01"], "datetime64[us]")
    gap = place_rows(days, starts, "day")
    assert gap.at.tolist() == [0, 1, 2, 3] and "gaps of up to 58 days" in gap.notes[0]
    assert place_rows(days, starts, "day", window=2).at.tolist() == [0, 1, 2, 60]


def test_windows_of_one_long_series_are_not_cut_across_long_gaps() -> None:
    time = [*range(5), *range(50, 54)]
    x, attributes, notes = read(
        {"time": np.array(time, "datetime64[s]"), "v": np.arange(9.0)},
        series="time",
        window=4,
        stride=1,
    )
    np.testing.assert_array_equal(x[..., 0], [[0, 1, 2, 3], [1, 2, 3, 4], [5, 6, 7, 8]])
    assert attributes["time"].astype("datetime64[s]").astype(int).tolist() == [0, 1, 50]
    assert notes[0] == (
        "one series, cut into 3 windows of 4 steps by time (stride 1), 1 channel (v)"
    )


def test_no_step_is_in_two_splits() -> None:
    windows = Windows(np.repeat(np.arange(20), 5), np.tile(np.arange(5), 20), 3, "unit")
    index, note = windows.divide({"valid": 5, "test": 5}, 0)
    units = {split: set(windows.series[rows]) for split, rows in index.items()}
    assert {s: len(u) for s, u in units.items()} == {"train": 18, "valid": 1, "test": 1}
    assert not units["train"] & units["test"] and note.endswith("no unit is in two splits")
    one = Windows(np.zeros(100, int), np.arange(0, 200, 2), 8)
    index, _ = one.divide({"valid": 5, "test": 5}, 0)
    assert one.start[index["train"]].max() + 8 <= one.start[index["valid"]].min()
    assert one.start[index["valid"]].max() + 8 <= one.start[index["test"]].min()
    assert len(index["test"]) == 5
    with pytest.raises(ValueError, match="use a smaller window= or stride="):
        Windows(np.zeros(10, int), np.arange(10), 9).divide({"valid": 1, "test": 1}, 0)


def test_a_series_is_in_one_split(tmp_path: Path) -> None:
    frame = engines()
    frame["split"] = ["test" if unit == "e0" else "train" for unit in frame["unit"]]
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = vs.load(f"{tmp_path}/t.csv:series=unit:cycle,split=split")
    assert data.test.attributes["unit"].tolist() == ["e0"]
    frame.loc[0, "split"] = "train"
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ValueError, match=r"unit e0 of .* is in the splits train and test"):
        vs.load(f"{tmp_path}/t.csv:series=unit:cycle,split=split")


def test_options_that_need_series_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engines().to_csv(tmp_path / "t.csv", index=False)
    for options, said in (
        ("window=3", "window= cuts series, and"),
        ("series=true,by=unit", "as series=GROUP:ORDER; got by=unit: type series=unit instead"),
        ("series=unit:cycle,stride=3", "stride=3 needs a window: add window="),
        ("series=unit:cycle,window=1", "expected window=2 or more"),
    ):
        assert main(["train", f"{tmp_path}/t.csv:{options}", "--dry-run"]) == 2
        assert said in capsys.readouterr().err


def test_long_tables_are_recognised(tmp_path: Path) -> None:
    frame = engines()
    assert series_of(frame_of(frame)) == ("unit", "cycle")
    assert series_of(frame_of(frame.sample(frac=1, random_state=0).sort_values("cycle"))) == (
        "unit",
        "cycle",
    )
    assert series_of(frame_of(frame.assign(cycle=range(len(frame))))) is None
    customers = {"age": [20, 21, 22] * 20, "number": list(range(60)), "x": [0.5, 0.1, 0.2] * 20}
    assert series_of(frame_of(customers)) is None
    frame.to_csv(tmp_path / "engines.csv", index=False)
    notes = vs.load(tmp_path / "engines.csv").notes
    assert notes[-1].startswith("each row is one datum, but the rows look like series: ")
    assert notes[-1].endswith("look like series: series=unit:cycle reads them as such")
    assert vs.load(f"{tmp_path}/engines.csv:series=unit:cycle").space.names == ("speed", "load")
    assert "read as series=unit:cycle" in vs.load(f"{tmp_path}/engines.csv:series=true").notes


def test_rows_of_numbered_columns_are_series() -> None:
    table = {f"t{i}": np.arange(3.0) + i for i in range(9)} | {"kind": ["a", "b", "c"]}
    x, attributes, notes = read(table, series=True)
    np.testing.assert_array_equal(x, np.arange(3)[:, None] + np.arange(9.0))
    assert attributes["kind"].tolist() == ["a", "b", "c"]
    assert notes[0] == "each row is a series (columns t0 .. t8); attributes: kind"


# -- ragged data -----------------------------------------------------------------------------------


def test_series_of_different_lengths_in_memory(tmp_path: Path) -> None:
    arrays = [np.arange(3.0), np.arange(1.0), np.arange(2.0)]
    expected = [[0, 1, 2], [0, NAN, NAN], [0, 1, NAN]]
    np.savez(tmp_path / "x.npz", *arrays)
    (tmp_path / "x.jsonl").write_text('{"s": [0, 1, 2]}\n{"s": [0]}\n{"s": [0, 1]}\n')
    frame = pd.DataFrame({"s": [a.tolist() for a in arrays], "label": ["a", "b", "c"]})
    for source in (
        arrays,
        [a.tolist() for a in arrays],
        f"{tmp_path}/x.npz:series=true",
        f"{tmp_path}/x.jsonl:series=true",
    ):
        np.testing.assert_array_equal(read(source)[0], expected)
    x, attributes, _ = read(frame, series=True)
    np.testing.assert_array_equal(x, expected)
    assert attributes["label"].tolist() == ["a", "b", "c"]
    x, attributes, _ = read(dict(zip("abc", arrays, strict=True)), series=True)
    np.testing.assert_array_equal(x, expected)
    assert attributes["series"].tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"shape \(3, 2\) in series 0 and \(2, 3\) in series 1"):
        read([np.ones((3, 2)), np.ones((2, 3))])


def test_lists_of_several_columns_are_channels(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('[{"a": [1, 2], "b": [3, 4]}, {"a": [5], "b": [6]}]')
    handle = open_source(f"{tmp_path}/x.json:series=true")
    np.testing.assert_array_equal(handle.raw.splits["all"], [[[1, 3], [2, 4]], [[5, 6], [NAN] * 2]])
    assert handle.raw.series is not None and handle.raw.series.names == ("a", "b")


def test_windows_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(10.0))
    x, _, _ = read(f"{tmp_path}/x.npy:series=true,window=4,stride=3")
    np.testing.assert_array_equal(x, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]])
    with pytest.raises(ValueError, match="needs a window"):
        read(f"{tmp_path}/x.npy:series=true,stride=3")


def test_objects_are_refused_with_two_ways_that_work(tmp_path: Path) -> None:
    objects = np.empty(2, object)
    objects[:] = [np.arange(3.0), np.arange(2.0)]
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    with pytest.raises(ValueError, match=r'np.savez\("x.npz", \*arrays\) and x.npz:series=true'):
        read(f"{tmp_path}/x.npy:series=true")


# -- a run -----------------------------------------------------------------------------------------


def test_a_run_reads_and_writes_the_users_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = engines(40)
    site = ["A" if unit < "e2" else "B" for unit in frame["unit"]]
    frame = frame.assign(site=site, altitude=12.5)[["site", *frame.columns, "altitude"]]
    frame.to_csv(tmp_path / "t.csv", index=False)
    source, run = f"{tmp_path}/t.csv:series=unit:cycle", str(tmp_path / "run")
    assert main(["train", source, "--run", run, "--latent", "2", "--steps", "5"]) == 0
    assert "40 series of unit, 4 to 8 steps by cycle" in capsys.readouterr().out
    assert main(["evaluate", run, "--k", "5"]) == 0
    assert "log p(length | z) = -" in capsys.readouterr().out
    score = vs.Run(run).evaluation["lengths"]
    assert -4 < score["given_z"]["mean"] < 0 and -4 < score["without_z"]["mean"] < 0
    other = engines(3, seed=1)
    other = other[["load", "cycle", "speed", "unit"]].assign(extra=1.0)
    last = other[other.unit == "e2"].iloc[-1:]
    longer = pd.concat([other, *(last.assign(cycle=c) for c in range(9, 12))])
    longer.to_csv(tmp_path / "u.csv", index=False)
    assert main(["encode", run, str(tmp_path / "u.csv"), "-o", str(tmp_path / "z.csv")]) == 0
    said = capsys.readouterr().out
    assert "1 of 3 series of" in said and "are longer than the 8 steps of the run: cut off" in said
    codes = pd.read_csv(tmp_path / "z.csv")
    assert codes["unit"].tolist() == ["e0", "e1", "e2"]
    assert list(codes.columns)[:2] == ["row", "unit"]
    assert list(codes.columns)[-4:] == ["mean_0", "mean_1", "logvar_0", "logvar_1"]
    assert main(["reconstruct", run, str(tmp_path / "t.csv"), "-o", str(tmp_path / "r.csv")]) == 0
    back = pd.read_csv(tmp_path / "r.csv")
    assert back[["unit", "cycle"]].equals(frame[["unit", "cycle"]])
    assert list(back.columns) == list(frame.columns) and back["load"].dtype == "int64"
    assert back[["site", "altitude"]].equals(frame[["site", "altitude"]])
    assert main(["sample", run, "-n", "3", "-o", str(tmp_path / "s.parquet")]) == 0
    drawn = pd.read_parquet(tmp_path / "s.parquet")
    assert list(drawn.columns) == ["unit", "cycle", "speed", "load", "altitude"]
    assert sorted(set(drawn["unit"])) == [1, 2, 3] and drawn.groupby("unit").cycle.min().eq(1).all()
    assert main(["sample", run, "-n", "3", "-o", str(tmp_path / "s.npz")]) == 0
    with np.load(tmp_path / "s.npz") as arrays:
        sizes = drawn.groupby("unit").size().tolist()
        assert [arrays[f"arr_{i}"].shape for i in range(3)] == [(n, 2) for n in sizes]
    holes = frame.copy()
    holes.loc[1, "speed"] = NAN
    holes.to_csv(tmp_path / "h.csv", index=False)
    assert main(["impute", run, str(tmp_path / "h.csv"), "-o", str(tmp_path / "i.csv")]) == 0
    assert "1 missing cells" in capsys.readouterr().out
    whole = pd.read_csv(tmp_path / "i.csv")
    assert len(whole) == len(frame) and whole["speed"].notna().all()
    np.testing.assert_allclose(whole["speed"][2:], frame["speed"][2:])


def test_a_table_in_python_is_stored_with_the_run(tmp_path: Path) -> None:
    frame = engines(40)
    run = vs.train(frame, series="unit:cycle", run=tmp_path / "run", latent=2, steps=2)
    assert run.data().space.names == ("speed", "load")
    assert vs.open(run).encode(frame[frame.unit == "e3"])["mean"].shape == (1, 2)
    arrays = [np.arange(5.0 + i % 3) + 0.1 * i for i in range(40)]
    run = vs.train(arrays, run=tmp_path / "second", latent=2, steps=2)
    assert run.data().train.outward().shape == (36, 7)
    assert vs.open(run).encode(arrays[:2])["mean"].shape == (2, 2)


# -- lengths ---------------------------------------------------------------------------------------


def test_lengths_start_at_the_frequencies_and_follow_z() -> None:
    ends = np.random.default_rng(0).choice([5, 20], 400, p=[0.25, 0.75])
    m = smoothed(ends, 24)
    assert m.shape == (24,) and abs(m.sum() - 1) < 1e-12 and (m > 0).all()
    assert abs(m[4] - (ends == 5).mean()) < 0.01 and abs(m[19] - (ends == 20).mean()) < 0.01
    torch.manual_seed(0)
    lengths = Lengths(RealSpace((24, 1), (24,), lengths=m), (1,))
    z = torch.where(torch.from_numpy(ends) == 5, -1.0, 1.0).unsqueeze(-1)
    drawn = lengths.draw(z, None, torch.Generator().manual_seed(0))
    assert 0.15 < (drawn == 5).float().mean() < 0.35
    seen = torch.arange(24) < torch.from_numpy(ends)[:, None]
    batch = Batch(torch.zeros(400, 24, 1), seen.unsqueeze(-1))
    torch.testing.assert_close(
        lengths.log_prob(z.unsqueeze(0), batch)[0],
        lengths(z.unsqueeze(0))[0].gather(-1, torch.from_numpy(ends)[:, None] - 1)[:, 0],
    )
    optimizer = torch.optim.Adam(lengths.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        (-lengths.log_prob(z.unsqueeze(0), batch).mean()).backward()
        optimizer.step()
    assert lengths.median(torch.tensor([[-1.0], [1.0]])).tolist() == [5, 20]
    assert lengths.log_prob(z.unsqueeze(0), batch).mean() > -0.2


def test_the_bound_is_that_of_the_values_and_training_adds_the_length() -> None:
    r = np.random.default_rng(0)
    data = vs.load([r.normal(size=int(n)) for n in r.integers(4, 9, 60)])
    model = vs.build(data.space, latent=2)
    batch = data.train.batch(slice(0, 7))
    noise = torch.randn(3, 7, 2)
    model.train()
    draws = model.draw(batch, 3, noise=noise)
    assert model.lengths is not None
    extra = draws.trained().log_px - draws.log_px
    torch.testing.assert_close(extra, model.lengths.log_prob(draws.z, batch))
    assert (extra < 0).all()
    model.eval()
    reported = model.draw(batch, 3, noise=noise)
    assert reported.trained() is reported
    torch.testing.assert_close(reported.log_px, draws.log_px)
    full = vs.load(r.normal(size=(60, 8)), series=True)
    assert full.space.lengths is None and vs.build(full.space, latent=2).lengths is None


def test_samples_have_the_lengths_of_the_data_and_reconstructions_end_where_the_data_do() -> None:
    r = np.random.default_rng(0)
    arrays = [r.normal(size=(int(n), 2)) for n in r.choice([3, 9], 80)]
    data = vs.load(arrays)
    model = vs.build(data.space, latent=2)
    from vaestro.latent import decode, reconstruct, sample

    drawn = sample(model, 200)
    ends = (~np.isnan(drawn)).any(-1).sum(1)
    assert 0.3 < (ends == 3).mean() < 0.7 and (np.isin(ends, [3, 9])).mean() > 0.9
    assert np.isfinite(drawn[0, : ends[0]]).all()
    back = reconstruct(model, data.test)
    assert (np.isnan(back) == np.isnan(data.test.outward())).all()
    assert np.isnan(decode(model, np.zeros((1, 2)), lengths=np.array([4]))[0, 4:]).all()


def test_lists_in_json_of_another_encoding_are_noted(tmp_path: Path) -> None:
    rows = "".join(f'{{"name": "J\u00fcrgen", "s": [{i}, 1.5, 2]}}\n' for i in range(40))
    (tmp_path / "x.jsonl").write_bytes(rows.encode("latin-1"))
    notes = vs.load(f"{tmp_path}/x.jsonl:series=true").notes
    assert [n for n in notes if n.startswith("read as Windows-1252 (Latin-1)")]
