"""What is found in arrays, in as few passes as it takes, is what straightforward code finds, and is
kept for the next start."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vaestro as vs
from vaestro.data import Data, arrays, cache, loading, passes
from vaestro.data.passes import Part, RowSelector, once
from vaestro.data.sets import Rows
from vaestro.spaces import Kind

N = 700


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small arrays treated as large ones, in many pieces."""
    monkeypatch.setattr(passes, "PIECE", 4000)
    monkeypatch.setattr(arrays, "IN_MEMORY", 100)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List which files are read through, each time."""
    listed: list[str] = []
    cut = passes.pieces

    def pieces(array: Any, *rows: int) -> Any:
        listed.append(Path(str(getattr(array, "filename", "memory"))).name)
        return cut(array, *rows)

    monkeypatch.setattr(passes, "pieces", pieces)
    return listed


def told(data: Data) -> Any:
    """Return all there is to know of data."""
    hashes = {
        k: (a.dtype.str, a.shape, hashlib.sha256(a.tobytes()).hexdigest())
        for k, a in data.space.arrays().items()
    }
    splits = [
        (rows.sha256(), rows.observed_cells(), rows.dynamic)
        for rows in (data.train, data.valid, data.test)
    ]
    return json.loads(
        json.dumps([data.space.scalars(), hashes, data.notes, data.shared, data.source, splits])
    )


# -- one pass, and straightforwardly ---------------------------------------------------------------


def straight(
    x: np.ndarray, kind: Kind, levels: int = 0, low: float = 0, step: float = 1, group: int = N
) -> dict[str, np.ndarray]:
    """Fit to training rows what a space holds of them; `group` rows at a time are summed where sums
    are rounded."""
    x = (
        np.ascontiguousarray(np.moveaxis(x, -1, 1))
        if x.ndim == 4
        else x[:, None]
        if x.ndim == 3
        else x
    )
    seen = ~np.isnan(x.astype(float))
    if kind in (Kind.REAL, Kind.UNIT):
        wide, axes = x.astype(np.float64), "feature" if x.ndim == 2 else "global"
        groups = [wide[i : i + group] for i in range(0, len(x), group)]
        offset = sum(np.nansum(g, 0) for g in groups) / seen.sum(0)
        spread = np.sqrt(sum(np.nansum((g - offset) ** 2, 0) for g in groups) / seen.sum(0))
        if kind is Kind.UNIT:
            return {
                "offset": np.zeros(()),
                "scale": np.ones(()),
                "marginal": offset.astype(np.float32),
            }
        return {
            "offset": offset,
            "scale": spread if axes == "feature" else np.sqrt((spread**2).mean()),
        }
    codes = np.rint((np.where(seen, x, low) - low) / step).astype(int)
    if kind in (Kind.BINARY, Kind.COUNT):
        return {"marginal": ((codes * seen).sum(0) / seen.sum(0)).astype(np.float32)}
    counts = np.stack([((codes == level) & seen).sum(0) for level in range(levels)])
    pooled = (counts.sum(tuple(range(1, counts.ndim))) + 1) / (counts.sum() + levels)
    smooth = counts + levels * pooled.reshape(-1, *[1] * (counts.ndim - 1))
    return {"marginal": (smooth / smooth.sum(0)).astype(np.float32)}


def holes(x: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(1).random(x.shape) < 0.1, np.nan, x)


R = np.random.default_rng(0)
CASES: dict[str, tuple[np.ndarray, str, Kind, dict[str, Any]]] = {
    "binary": (R.integers(0, 2, (N, 20)).astype(np.uint8), "", Kind.BINARY, {}),
    "black-white": (
        R.integers(0, 2, (N, 5, 5)).astype(np.uint8) * 255,
        "",
        Kind.BINARY,
        {"step": 255},
    ),
    "two reals": (R.choice([-1.0, 1.0], (N, 20)), "", Kind.BINARY, {"low": -1, "step": 2}),
    "binary, holes": (holes(R.choice([0.0, 1.0], (N, 20))), "missing=nan", Kind.BINARY, {}),
    "levels": (R.integers(0, 17, (N, 6, 6)).astype(np.uint8), "", Kind.LEVELS, {"levels": 17}),
    "colours": (
        R.integers(0, 256, (N, 6, 5, 3)).astype(np.uint8),
        "",
        Kind.LEVELS,
        {"levels": 256},
    ),
    "k / 255": (
        R.integers(0, 256, (N, 6, 6)).astype(np.float32) / np.float32(255),
        "",
        Kind.LEVELS,
        {"levels": 256, "step": 1 / 255},
    ),
    "categories": (
        R.integers(3, 9, (N, 20)),
        "kind=category",
        Kind.CATEGORY,
        {"levels": 6, "low": 3},
    ),
    "categories, holes": (
        holes(R.integers(0, 5, (N, 20))),
        "kind=category,missing=nan",
        Kind.CATEGORY,
        {"levels": 5},
    ),
    "counts": (R.poisson(40, (N, 20)), "kind=count", Kind.COUNT, {}),
    "counts, holes": (holes(R.poisson(4, (N, 20))), "kind=count,missing=nan", Kind.COUNT, {}),
    "real": (R.normal(3, 2, (N, 20)).astype(np.float32), "", Kind.REAL, {}),
    "real, holes": (holes(R.normal(size=(N, 20))).astype(np.float32), "missing=nan", Kind.REAL, {}),
    "real images": (R.normal(size=(N, 5, 4, 3)).astype(np.float32), "", Kind.REAL, {}),
    "real images, holes": (holes(R.normal(size=(N, 5, 4, 3))), "missing=nan", Kind.REAL, {}),
    "unit": (R.uniform(0.01, 0.99, (N, 20)), "kind=unit", Kind.UNIT, {}),
}


@pytest.mark.parametrize("pieces", [1, 30])
@pytest.mark.parametrize("name", CASES)
def test_one_pass_finds_what_straightforward_code_finds(
    name: str, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, options, kind, known = CASES[name]
    np.save("x.npy", x)
    group = -(-N // pieces)
    monkeypatch.setattr(passes, "PIECE", group * x[:1].nbytes)
    monkeypatch.setattr(arrays, "IN_MEMORY", 10**9 if pieces == 1 else 100)
    data = vs.load(f"x.npy:{options},seed=5" if options else "x.npy:seed=5")
    space = data.space
    assert (space.kind, space.levels, space.low, space.missing) == (
        kind,
        known.get("levels", 2 if kind is Kind.BINARY else 0),
        known.get("low", 0),
        bool(np.isnan(x.astype(float)).any()),
    )
    assert data.train.index is not None and len(data.train.index) == 630
    wanted = straight(x[data.train.index], kind, group=group, **known)
    for field, array in wanted.items():
        assert np.array_equal(getattr(space, field), array), field
    outward = np.concatenate([data.split(s).outward() for s in ("train", "valid", "test")])
    order = np.concatenate([data.split(s).index for s in ("train", "valid", "test")])
    np.testing.assert_allclose(outward, x[order], atol=5e-4)
    assert not data.shared


@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_the_binarisation_of_large_data_is_made_once_and_is_that_of_small_ones(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("x.npy", np.random.default_rng(0).integers(0, 256, (200, 6, 5)).astype(np.uint8))
    source = f"x.npy:binarise={how}"
    small = vs.load(source)
    monkeypatch.setattr(arrays, "IN_MEMORY", 100)
    large = vs.load(source)
    fixed = [rows for rows in (large.train, large.valid, large.test) if not rows.dynamic]
    assert len(fixed) == (2 if how == "dynamic" else 3) and all(
        isinstance(rows.values, np.memmap) for rows in fixed
    )
    assert told(large) == told(small)
    other = vs.load(f"{source},seed=1")
    assert not np.array_equal(other.valid.values, large.valid.values)
    fixed_now = Rows.fixed
    monkeypatch.setattr(
        Rows,
        "fixed",
        lambda rows, out=None: fixed_now(rows, out) if out is None else pytest.fail("made again"),
    )
    assert told(vs.load(source)) == told(small) and told(vs.load(f"{source},seed=1")) == told(other)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.usefixtures("on_disk")
def test_every_twin_is_found_and_no_other(dtype: str) -> None:
    r = np.random.default_rng(0)
    x = r.integers(0, 256, (600, 5, 5)).astype(np.uint8)
    np.save(
        "x.npy",
        np.concatenate([x, x[:200]])[r.permutation(800)].astype(dtype)
        + (0 if dtype == "uint8" else np.float32(0.5)),
    )
    data = vs.load("x.npy:valid=150,test=150")
    twins = {}
    for split in ("valid", "test"):
        mine, known = (
            rows.outward().reshape(len(rows), -1).astype(float)
            for rows in (data.split(split), data.train)
        )
        twins[split] = int((((mine[:, None] - known) ** 2).sum(-1) == 0).any(1).sum())
    how = "rows each equal or nearly equal a training row: bounds on them are too good"
    assert min(twins.values()) > 10 and data.shared == tuple(
        f"{n} of 150 {s} {how}" for s, n in twins.items()
    )


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_rows_come_in_groups_of_one_size_however_the_array_is_cut(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.arange(600).reshape(300, 2)
    for index in (
        None,
        np.flatnonzero(np.random.default_rng(0).random(300) < 0.3),
        np.array([299]),
        np.array([], int),
    ):
        for rows in (1, 11, 300):
            monkeypatch.setattr(passes, "PIECE", rows * 16)
            for made, times in ((None, 1), (lambda a: a * 3, 3)):
                groups: list[Any] = []
                keep = lambda group, groups=groups: groups.append(group.tolist())  # noqa: E731
                once([x, x[:100]], RowSelector(Part(x, index), size, keep, made).look)
                wanted = times * (x if index is None else x[index])
                assert groups == [
                    wanted[i : i + size].tolist() for i in range(0, len(wanted), size)
                ]


@pytest.mark.usefixtures("on_disk")
def test_a_guess_that_nothing_speaks_against_until_the_end_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrays, "GUESSED", 10)
    x = CASES["real"][0].copy()
    x[333, 2] = np.nan
    np.save("x.npy", x)
    data = vs.load("x.npy:missing=nan,seed=5")
    assert data.space.missing and any("missing at random" in note for note in data.notes)
    assert data.train.observed is not None and data.train.observed.sum() == x.size - 1


# -- passes and memory -----------------------------------------------------------------------------


def late(x: np.ndarray) -> np.ndarray:
    """Return data of which one cell is not what the others seem to be."""
    x = x.copy()
    x[333, 2] = 9
    return x


@pytest.mark.parametrize(
    ("x", "passes"),
    [
        (CASES["colours"][0], ["x.npy"]),
        (CASES["levels"][0], ["x.npy"]),
        (late(CASES["binary"][0]), ["x.npy"] * 2),  # a wrong guess
        (CASES["k / 255"][0], ["x.npy"] * 2 + ["values.npy"]),  # seen and laid out
        (CASES["real"][0], ["x.npy"] * 3 + ["values.npy"]),  # seen, deviations, laid out
    ],
)
@pytest.mark.usefixtures("on_disk")
def test_a_file_is_read_through_no_more_often_than_it_takes(
    x: np.ndarray, passes: list[str], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "GUESSED", 10)
    np.save("x.npy", x)
    vs.load("x.npy")
    assert read == passes


@pytest.mark.usefixtures("on_disk")
def test_what_is_missing_of_large_data_is_told_by_a_file() -> None:
    x = holes(R.normal(size=(N, 20)))
    np.save("x.npy", x)
    rows = vs.load("x.npy:missing=nan").train
    assert isinstance(rows.observed, np.memmap) and isinstance(rows.values, np.memmap)
    assert np.array_equal(rows.observed, ~np.isnan(x))
    assert loading.load_rows(
        "x.npy", vs.load("x.npy:missing=nan").space
    ).observed_cells() == pytest.approx(18, abs=0.2)
    np.save("y.npy", np.nan_to_num(x))
    assert loading.load_rows("y.npy", vs.load("x.npy:missing=nan").space).observed is None


@pytest.mark.usefixtures("on_disk")
def test_splits_that_lie_in_one_file_are_laid_out_apart() -> None:
    for split, count in (("train", 30), ("test", 20)):
        (Path("photos") / split).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng([count, i]).integers(0, 256, (6, 6)).astype(np.uint8)
            Image.fromarray(pixels).save(Path("photos") / split / f"{i:02}.png")
    data = vs.load("photos:kind=real")
    assert isinstance(data.train.values, np.memmap)
    expected = np.random.default_rng([20, 7]).integers(0, 256, (6, 6))
    assert len(data.test) == 20 and np.array_equal(data.test.outward()[7], expected)


@pytest.mark.usefixtures("on_disk")
def test_a_level_beyond_the_last_of_a_known_space_is_refused() -> None:
    np.save("x.npy", CASES["levels"][0])
    np.save(
        "y.npy",
        CASES["colours"][0][..., 0, 0].reshape(-1, 1, 1).repeat(36, 1).reshape(-1, 6, 6)[:N],
    )
    space = vs.load("x.npy").space
    assert len(loading.load_rows("x.npy", space)) == N
    with pytest.raises(ValueError, match=r"expected levels values 0, 1 \.\. 16; got \d"):
        loading.load_rows("y.npy", space)


# -- the second start ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("on_disk")
def test_the_second_start_is_the_first_and_reads_nothing_through(
    name: str, read: list[str]
) -> None:
    x, options, _, _ = CASES[name]
    np.save("x.npy", np.concatenate([x, x[:30]]))
    source = f"x.npy:{options}" if options else "x.npy"
    first = vs.load(source)
    assert "x.npy" in read and first.shared
    read.clear()
    again = vs.load(source)
    assert read == []
    assert told(again) == told(first)


@pytest.mark.parametrize(
    "source",
    ["x.npy:seed=1", "x.npy:valid=9", "x.npy:kind=category", "x.npy:levels=30", "x.npy", "y.npy"],
)
@pytest.mark.usefixtures("on_disk")
def test_other_content_options_and_files_are_looked_at_anew(
    source: str, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = CASES["levels"][0]
    np.save("x.npy", x)
    np.save("y.npy", x // 2)
    first = told(vs.load("x.npy"))
    if source == "x.npy":
        time = os.stat("x.npy").st_mtime_ns
        np.save("x.npy", x[::-1] // 3)
        os.utime("x.npy", ns=(time + 1, time + 1))
    read.clear()
    made = told(vs.load(source))
    assert (
        Path(source.partition(":")[0]).name in read and made[:4] + made[5:] != first[:4] + first[5:]
    )
    monkeypatch.setenv("VAESTRO_CACHE", "another")
    assert told(vs.load(source)) == made


@pytest.mark.usefixtures("on_disk")
def test_an_array_in_memory_or_of_one_piece_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    x = CASES["levels"][0]
    np.save("x.npy", x)
    mapped = np.load("x.npy", mmap_mode="r+")
    vs.load(mapped)
    monkeypatch.setattr(passes, "PIECE", x.nbytes)
    vs.load("x.npy")
    assert cache.entries() == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def meddle(path: Path) -> None:
    path.write_text(
        path.read_text()
        .replace('"levels": 17', '"levels": 16')
        .replace('"levels": 0', '"levels": 1')
    )


def renamed(path: Path) -> None:
    path.write_text(path.read_text().replace('"found"', '"lost"'))


def nothing(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"found": 3}))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("marginal.npy", flip),
        ("marginal.npy", Path.unlink),
        ("marginal.npy", lambda path: path.write_bytes(b"")),
        ("marginal.npy", lambda path: path.write_bytes(b"x" * path.stat().st_size)),
        ("meta.json", meddle),
        ("meta.json", renamed),
        ("meta.json", nothing),
        ("meta.json", lambda path: path.write_text("{")),
    ],
)
@pytest.mark.usefixtures("on_disk")
def test_a_damaged_record_is_made_again(
    file: str, damage: Callable[[Path], Any], place: Path, read: list[str]
) -> None:
    np.save("x.npy", CASES["levels"][0])
    first = told(vs.load("x.npy"))
    [entry] = cache.entries()
    damaged = place / "cache" / entry.key / file
    before = damaged.read_bytes()
    damage(damaged)
    assert not damaged.exists() or damaged.read_bytes() != before
    read.clear()
    assert told(vs.load("x.npy")) == first and read == ["x.npy"]
    read.clear()
    assert told(vs.load("x.npy")) == first and read == []


@pytest.mark.usefixtures("on_disk")
def test_where_the_cache_cannot_be_written_data_are_read_all_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("x.npy", CASES["levels"][0])
    first = told(vs.load("x.npy"))
    (place / "file").write_text("mine")
    monkeypatch.setenv("VAESTRO_CACHE", str(place / "file"))
    assert told(vs.load("x.npy")) == first
