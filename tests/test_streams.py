"""Sharded data: the order of rows, what several processes read, damage, changes, and the way from
the command line."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vaestro as vs
from vaestro.data import decoders, load, shard_formats, shard_streams, shards, streams
from vaestro.data.loading import load_rows
from vaestro.data.sets import StreamedRows
from vaestro.data.streams import Stream
from vaestro.parts import build
from vaestro.randomness import Windows
from vaestro.text import is_input_error

SIDE = 8


@pytest.fixture(autouse=True)
def _cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing reach out."""

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"reached out to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


def picture(i: int) -> np.ndarray:
    """Return an image whose pixels say which it is."""
    return (
        np.add.outer(np.arange(SIDE) * 16, np.arange(SIDE) * 3).astype(np.uint8)
        ^ np.uint8(i % 256)
        ^ np.uint8(i // 256 * 7)
    )


def encoded(array: np.ndarray, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, form)
    return out.getvalue()


def saved(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def write_tar(path: Path, samples: list[dict[str, bytes]], first: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for i, sample in enumerate(samples):
            for field, content in sample.items():
                info = tarfile.TarInfo(f"{first + i:06d}.{field}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def tars(folder: Path, counts: list[int], name: str = "part") -> Path:
    """Write shards of images with a class and a number; the rows are numbered through."""
    first = 0
    for s, count in enumerate(counts):
        samples = [
            {
                "png": encoded(picture(i)),
                "cls": str(i % 3).encode(),
                "json": json.dumps({"number": i, "caption": "x" * 200}).encode(),
            }
            for i in range(first, first + count)
        ]
        write_tar(folder / f"{name}-{s:04d}.tar", samples, first)
        first += count
    return folder


def parquet(path: Path, first: int, count: int, group: int = 10, kind: str = "images") -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = range(first, first + count)
    data: Any
    if kind == "images":
        data = pa.array(
            [{"bytes": encoded(picture(i)), "path": None} for i in rows],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        )
    else:
        data = pa.array(
            [picture(i).astype(np.float32).tolist() for i in rows], pa.list_(pa.list_(pa.float32()))
        )
    table = pa.table(
        {"x": data, "label": pa.array([i % 3 for i in rows]), "number": pa.array(list(rows))}
    )
    about = {"info": {"features": {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}}}
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(about)}),
        path,
        row_group_size=group,
    )
    return path


# -- the order -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "buffer", "batch"),
    [([5, 3, 8, 1, 7, 0, 4], 10, 4), ([16] * 9, 40, 7), ([3], 100, 2), ([2] * 50, 1, 8)],
)
def test_each_epoch_has_every_row_once_in_an_order_that_follows_from_seed_and_step(
    sizes: list[int], buffer: int, batch: int
) -> None:
    order = Windows(np.array(sizes), buffer, batch, seed=3)
    rows = sum(sizes)
    steps = -(-3 * rows // batch)
    whole = np.concatenate([order(s) for s in range(steps)])
    for epoch in range(3):
        assert sorted(whole[epoch * rows : (epoch + 1) * rows].tolist()) == list(range(rows))
    again = Windows(np.array(sizes), buffer, batch, seed=3)
    for step in (steps - 1, 0, steps // 2):
        assert (again(step) == order(step)).all(), "a step's rows do not depend on those before"
    other = Windows(np.array(sizes), buffer, batch, seed=4)
    if rows > 10:
        assert any((other(s) != order(s)).any() for s in range(steps))


def test_a_window_holds_few_blocks_and_mixes_their_rows() -> None:
    sizes = np.full(40, 25)
    order = Windows(sizes, 200, 50, seed=0)
    first = order.over(0, 1)[0]
    assert len(first.rows) == 200 and len(np.unique(first.rows // 25)) == 8
    assert len(np.unique(order(0) // 25)) > 4, "a step's rows come from several blocks"
    assert [w.start for w in order.over(0, 1000)] == [0, 200, 400, 600, 800]


# -- what is read ----------------------------------------------------------------------------------


def test_rows_of_tar_shards_are_their_images_with_what_stands_beside_them(tmp_path: Path) -> None:
    folder = tars(tmp_path / "s", [30, 50, 20])
    raw = shard_streams.read_shards(str(folder), {})
    stream, known = raw.splits["all"], raw.attributes["all"]
    assert (
        isinstance(stream, Stream)
        and stream.shape == (100, SIDE, SIDE)
        and stream.dtype == np.uint8
    )
    assert set(known) == {"class", "number"}, "a long caption is no attribute"
    assert (known["class"] == np.arange(100) % 3).all() and (
        known["number"] == np.arange(100)
    ).all()
    wanted = np.stack([picture(i) for i in range(100)])
    assert (stream[:] == wanted).all()
    rows = np.array([[99, 0, 31], [30, 30, -1]])
    assert (stream[rows] == wanted[rows]).all()
    assert "3 shards of png, 100 rows" in raw.notes[0]


@pytest.mark.parametrize("kind", ["images", "arrays"])
def test_parquet_shards(tmp_path: Path, kind: str) -> None:
    for s in range(3):
        parquet(tmp_path / "p" / "data" / f"part-{s}.parquet", 40 * s, 40, kind=kind)
    raw = shard_streams.read_shards(str(tmp_path / "p"), {})
    stream = raw.splits["all"]
    wanted = np.stack([picture(i) for i in range(120)])
    assert (stream[:] == wanted).all() and stream.dtype == (
        np.uint8 if kind == "images" else np.float32
    )
    assert len(stream.sizes) == 12, "row groups are the blocks"
    assert raw.attributes["all"]["label"][:4].tolist() == ["a", "b", "c", "a"], (
        "the names of classes stand for their codes"
    )
    assert (raw.attributes["all"]["number"] == np.arange(120)).all()


def test_a_single_parquet_file_with_images_is_read(tmp_path: Path) -> None:
    file = parquet(tmp_path / "one.parquet", 0, 60)
    data = load(f"{file}:array=x")
    assert isinstance(data.train.values, StreamedRows) and len(data.train) == 54


def test_images_beside_a_table_are_images_and_a_table_without_its_lists_is_a_table(
    tmp_path: Path,
) -> None:
    for i in range(20):
        (tmp_path / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / "ab"[i % 2] / f"{i}.png").write_bytes(encoded(picture(i)))
    parquet(tmp_path / "photos" / "about" / "meta.parquet", 0, 20)
    assert (
        not shards.is_shards(str(tmp_path / "photos"))
        and len(load(str(tmp_path / "photos")).train) == 18
    )
    file = parquet(tmp_path / "t.parquet", 0, 40, kind="arrays")
    assert {column.name for column in load(f"{file}:ignore=x").space.columns} == {"number", "label"}


def test_splits_are_what_the_names_say(tmp_path: Path) -> None:
    tars(tmp_path / "s", [40, 20], "train")
    tars(tmp_path / "s", [10], "val")
    tars(tmp_path / "s", [12], "test")
    data = load(str(tmp_path / "s"))
    assert (len(data.train), len(data.valid), len(data.test)) == (60, 10, 12)
    assert not isinstance(data.valid.values, StreamedRows), (
        "what is looked at again and again is decoded once"
    )
    assert (data.valid.outward() == np.stack([picture(i) for i in range(10)])).all()
    nested = tmp_path / "n"
    tars(nested / "train", [30], "a")
    tars(nested / "validation", [10], "a")
    assert {s: len(a) for s, a in shard_streams.read_shards(str(nested), {}).splits.items()} == {
        "train": 30,
        "valid": 10,
    }
    write_tar(tmp_path / "s" / "more.tar", [{"png": encoded(picture(0))}])
    with pytest.raises(
        ValueError, match=r"train, valid or test in the name of every shard .* got .*more.tar"
    ):
        load(str(tmp_path / "s"))


def test_held_out_rows_are_not_trained_on(tmp_path: Path) -> None:
    data = load(
        str(tars(tmp_path / "s", [100, 300])) + ":valid=30,test=50,seed=2", condition=["number"]
    )
    held = {s: set(getattr(data, s).given[:, 0].tolist()) for s in ("train", "valid", "test")}
    assert [len(v) for v in held.values()] == [320, 30, 50] and len(
        set.union(*held.values())
    ) == 400
    batch = data.train.gather(np.array([[0, 5, 319]]))[0]
    rows = data.train.index[[0, 5, 319]]
    assert (batch.x.numpy().reshape(3, SIDE, SIDE) == np.stack([picture(i) for i in rows])).all()
    assert (data.train.attributes["class"][[0, 5]] == rows[:2] % 3).all()


def test_held_out_rows_of_many_blocks_come_from_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_formats, "BLOCK_ROWS", 4)
    monkeypatch.setattr(streams, "FEWEST", 3)
    stream = shard_streams.read_shards(str(tars(tmp_path / "s", [400])), {}).splits["all"]
    found = stream.held_out({"valid": 10, "test": 10}, 0)
    held = np.concatenate([found["valid"], found["test"]])
    assert (
        len(np.unique(held // 4)) <= 11
        and len(np.intersect1d(held, found["train"])) == 0
        and len(found["train"]) == 380
    )


def test_decoded_once_the_values_are_the_same(tmp_path: Path) -> None:
    folder = tars(tmp_path / "s", [60, 60])
    streamed, packed = load(str(folder)), load(f"{folder}:streaming=false")
    assert (
        isinstance(packed.train.values, np.ndarray) and packed.space.shape == streamed.space.shape
    )
    together = np.concatenate(
        [packed.train.outward(), packed.valid.outward(), packed.test.outward()]
    )
    mine = np.concatenate(
        [streamed.train.outward(), streamed.valid.outward(), streamed.test.outward()]
    )
    assert sorted(map(bytes, together)) == sorted(map(bytes, mine))


def test_real_arrays_are_standardised_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (300, 5)).astype(np.float32)
    write_tar(tmp_path / "s" / "a.tar", [{"npy": saved(row)} for row in x])
    data = load(str(tmp_path / "s"))
    assert str(data.space).startswith("real")
    batch = data.train.gather(np.arange(200)[None])[0].x.numpy()
    assert abs(batch.mean()) < 0.2 and abs(batch.std() - 1) < 0.1
    assert np.allclose(data.train.outward(), x[data.train.index], atol=1e-4)


def test_encode_and_its_kin_take_shards(tmp_path: Path) -> None:
    folder = tars(tmp_path / "s", [70])
    space = load(str(folder)).space
    rows = load_rows(str(folder), space)
    assert len(rows) == 70 and (rows.outward() == np.stack([picture(i) for i in range(70)])).all()
    tars(tmp_path / "t", [30], "train")
    tars(tmp_path / "t", [20], "test")
    both = load_rows(str(tmp_path / "t"), space, "all")
    assert len(both) == 50 and isinstance(both.values, StreamedRows)


def test_tables_and_texts_in_shards_are_read_as_one(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "t").mkdir()
    for s in range(2):
        words = [f"row {i} of the text" for i in range(30 * s, 30 * s + 30)]
        pq.write_table(
            pa.table({"a": np.arange(30) + 0.5 * s, "words": words}),
            tmp_path / "t" / f"{s}.parquet",
        )
    assert len(load(f"{tmp_path / 't'}:ignore=words").train) == 54
    texts = load(f"{tmp_path / 't'}:text=words,tokens=words")
    assert str(texts.space).startswith("text") or texts.space.tokeniser is not None
    with pytest.raises(
        ValueError, match="is a table, which is read into memory: leave out streaming=true"
    ):
        load(f"{tmp_path / 't'}:streaming=true")


# -- elsewhere -------------------------------------------------------------------------------------


def test_shards_at_an_address_are_read_like_those_here(tmp_path: Path) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    tars(tmp_path / "s", [30, 30], "train")
    for file in sorted((tmp_path / "s").iterdir()):
        system.pipe(f"/bucket/{file.name}", file.read_bytes())
    here = load(f"{tmp_path / 's'}:seed=1")
    for name in (
        "memory://bucket",
        "memory://bucket/train-*.tar",
        "memory://bucket/train-{0000..0001}.tar",
    ):
        there = load(f"{name}:seed=1")
        assert (there.train.outward() == here.train.outward()).all()
        assert there.source.startswith("memory://bucket"), (
            "what is kept of the source can be read again"
        )
        assert len(load(there.source).train) == len(there.train)


def test_an_address_may_look_like_options() -> None:
    from vaestro.data.source_options import parse_source

    assert parse_source("s3://b/date=2026/x.tar") == ("s3://b/date=2026/x.tar", {})
    assert parse_source("s3://b/date=2026/x.tar:size=64") == (
        "s3://b/date=2026/x.tar",
        {"size": 64},
    )


def test_a_data_set_of_the_hub_is_streamed_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    for s in range(2):
        parquet(
            tmp_path / "owner" / "name" / "data" / f"train-0000{s}-of-00002.parquet", 30 * s, 30
        )
    parquet(tmp_path / "owner" / "name" / "data" / "test-00000-of-00001.parquet", 60, 20)
    data = load("hf:owner/name:streaming=true")
    assert isinstance(data.train.values, StreamedRows) and (
        len(data.train),
        len(data.valid),
        len(data.test),
    ) == (57, 3, 20)
    assert (data.test.outward() == np.stack([picture(i) for i in range(60, 80)])).all()
    (tmp_path / "owner" / "other").mkdir()
    (tmp_path / "owner" / "other" / "a.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(
        ValueError, match=r"expected Parquet or .tar files to stream in hf:owner/other; got a.csv"
    ):
        load("hf:owner/other:streaming=true")


# -- training --------------------------------------------------------------------------------------


def small(data: vs.Data, **options: Any) -> Any:
    torch.manual_seed(0)
    model = build(data.space, latent=2, network="mlp:width=8,depth=1")
    return vs.training(model, vs.Objective(), data, batch=16, seed=5, **options)


def test_a_run_that_is_stopped_in_the_middle_of_a_shard_goes_on_bit_for_bit(tmp_path: Path) -> None:
    source = str(tars(tmp_path / "s", [150, 90])) + ":buffer=50"
    whole = [s.loss.loss.item() for s in small(load(source), steps=60) if s.loss is not None]
    run, part = small(load(source), steps=60), []
    for step in run:
        if step.loss is not None:
            part.append(step.loss.loss.item())
        if step.index == 23:
            break
    state = run.state()
    run.data.train.values.release()
    later = small(load(source), steps=60, workers=1)
    later.load(*state)
    part += [s.loss.loss.item() for s in later if s.loss is not None]
    assert part == whole


def test_the_packed_form_sees_batches_of_the_same_law_and_the_streams_are_released(
    tmp_path: Path,
) -> None:
    data = load(str(tars(tmp_path / "s", [150, 90])) + ":buffer=64")
    run = small(data, steps=40)
    records = [r for s in run for r in s.records if r.split == "train"]
    stream = data.train.values
    assert isinstance(stream, Stream)
    assert stream._ahead == {} and stream.source._pool is None, (
        "nothing is held after the last step"
    )
    assert all(r.waited is not None and 0 <= r.waited <= 1 and r.unread == 0 for r in records)
    assert "waited" in records[0].line()


def test_two_processes_decode_what_is_theirs_and_together_what_one_does(tmp_path: Path) -> None:
    source = str(tars(tmp_path / "s", [120, 80])) + ":buffer=64"
    alone = small(load(source), steps=10)
    batches = [alone.inputs(s, 10).batch.x.numpy() for s in range(10)]
    most = sum(len(a.rows) for a in alone.data.train.values._ahead.values())
    alone.data.train.values.release()
    halves = []
    for rank in range(2):
        run = small(load(source), steps=10)
        half = run.batch // 2
        run.processes.rows = slice(rank * half, (rank + 1) * half)
        halves.append([run.inputs(s, 10).batch.x.numpy() for s in range(10)])
        held = sum(len(a.rows) for a in run.data.train.values._ahead.values())
        assert held <= 0.6 * most, "a process does not decode what is another's"
        run.data.train.values.release()
    for whole, first, second in zip(batches, *halves, strict=True):
        assert (whole == np.concatenate([first, second])).all()


def test_validation_comes_several_times_in_a_long_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaestro.loop.inputs.LAP", 5)
    data = load(str(tars(tmp_path / "s", [200])))
    seen = [s.index for s in small(data, epochs=1) for r in s.records if r.split == "valid"]
    assert len(seen) == 4 and seen[0] == 0


def test_waiting_for_the_loader_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    data = load(str(tars(tmp_path / "s", [200])) + ":buffer=20")
    slow: Callable[..., np.ndarray] = decoders.Images.__call__

    def slowly(self: decoders.Images, cell: bytes) -> np.ndarray:
        time.sleep(0.003)
        return slow(self, cell)

    monkeypatch.setattr(decoders.Images, "__call__", slowly)
    found = [r for s in small(data, steps=60, workers=1) for r in s.records if r.split == "train"]
    last = max(found, key=lambda r: r.waited or 0)
    assert last.waited is not None and last.waited > 0.1
    from vaestro.diagnosis.curve_rules import slow_data
    from vaestro.diagnosis.curves import Curves
    from vaestro.diagnosis.remedies import Remedies
    from vaestro.runs.watching import line

    assert "waiting for data" in line(last, 30)
    said = slow_data(
        Curves([last.line()], 30), Remedies("runs/a", {"source": "/d/s:size=8,buffer=20"})
    )
    assert said is not None and "waited for data" in said.evidence
    assert (
        said.remedy
        == "vaestro train /d/s:size=8,streaming=false --config runs/a/config.yaml --run "
        "runs/a-packed"
    )


# -- damage ----------------------------------------------------------------------------------------


def test_a_shard_that_is_cut_short_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = tars(tmp_path / "s", [40, 40])
    file = folder / "part-0001.tar"
    file.write_bytes(file.read_bytes()[:20_000])
    raw = shard_streams.read_shards(str(folder), {})
    rows = len(raw.splits["all"])
    assert 40 < rows < 80
    assert any("part-0001.tar" in note and "truncated" in note for note in raw.notes)
    assert (raw.splits["all"][:] == np.stack([picture(i) for i in range(rows)])).all()
    with pytest.raises(
        ValueError, match=r"a shard is damaged, and strict=true allows none \(.*part-0001.tar"
    ):
        load(f"{folder}:strict=true")
    (folder / "part-0001.tar").write_bytes(b"x" * 5000)
    raw = shard_streams.read_shards(str(folder), {})
    assert len(raw.splits["all"]) == 40 and any("part-0001.tar" in note for note in raw.notes)


def test_parquet_that_is_cut_short_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    parquet(tmp_path / "p" / "a.parquet", 0, 50)
    other = parquet(tmp_path / "p" / "b.parquet", 50, 50)
    other.write_bytes(other.read_bytes()[:-20])
    raw = shard_streams.read_shards(str(tmp_path / "p"), {})
    assert len(raw.splits["all"]) == 50 and any("b.parquet" in note for note in raw.notes)


def test_a_damaged_image_is_counted_and_the_next_one_stands_for_it(tmp_path: Path) -> None:
    samples = [{"png": encoded(picture(i))} for i in range(60)]
    samples[7] = {"png": b"nothing"}
    samples[59] = {"png": encoded(np.zeros((4, 4), np.uint8))}
    write_tar(tmp_path / "s" / "a.tar", samples)
    stream = shard_streams.read_shards(str(tmp_path / "s"), {}).splits["all"]
    assert (stream[np.array([6, 7, 8, 59])] == np.stack([picture(i) for i in (6, 8, 8, 0)])).all()
    assert (stream[np.array([7])] == picture(8)).all(), "the same one, whatever else is asked for"
    count, said = stream.unread()
    assert count == 2 and "row 8 of" in said and "row 60 of" in said and "shape (4, 4)" in said
    packed = shard_streams.read_shards(str(tmp_path / "s"), {"streaming": False})
    assert len(packed.splits["all"]) == 58, "decoded once, they are left out"
    strict = shard_streams.read_shards(str(tmp_path / "s"), {"strict": True}).splits["all"]
    with pytest.raises(
        ValueError, match=r"1 row cannot be read: row 8 of .*a.tar .*strict=true allows none"
    ):
        strict[np.array([7])]


def test_what_stands_for_a_damaged_row_is_of_its_own_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training row must not be replaced by one that is held out, nor the other way."""
    samples = [{"png": encoded(picture(i)), "cls": str(i).encode()} for i in range(200)]
    held = set(
        load(str(write_tar(tmp_path / "a" / "a.tar", samples).parent))
        .test.attributes["class"]
        .tolist()
    )
    held |= set(load(str(tmp_path / "a")).valid.attributes["class"].tolist())
    bad = [i - 1 for i in held if i and i - 1 not in held][:12] + sorted(held)[:3]
    for i in bad:
        samples[i] = {"png": b"nothing", "cls": str(i).encode()}
    data = load(str(write_tar(tmp_path / "b" / "a.tar", samples).parent), condition=["class"])
    assert len(data.valid) + len(data.test) == len(held) - 3 and any(
        "cannot be read and are left out" in n for n in data.notes
    )
    for rows in (data.valid, data.test):
        names = rows.given_space.outward(rows.given).columns["class"].data.astype(int)
        assert (rows.outward() == np.stack([picture(i) for i in names])).all()
    seen = data.train.gather(np.arange(len(data.train))[None])[0].x.numpy().reshape(-1, SIDE, SIDE)
    assert not {bytes(picture(i)) for i in held} & set(map(bytes, seen))
    from vaestro.cli.main import main

    run = str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                str(tmp_path / "b"),
                "--run",
                run,
                "--steps",
                "5",
                "--network",
                "mlp:width=8,depth=1",
            ]
        )
        == 0
    )
    capsys.readouterr()
    assert main(["encode", run, str(tmp_path / "b"), "-o", str(tmp_path / "z.npy")]) == 0
    assert "warning: 15 rows cannot be read: row " in capsys.readouterr().out


def test_grey_images_in_shards_are_binarised_anew(tmp_path: Path) -> None:
    data = load(str(tars(tmp_path / "s", [300])) + ":binarise=dynamic")
    assert str(data.space).startswith("binary")
    index = np.arange(len(data.train))[None]
    x = np.stack(
        [data.train.gather(index, seed=s)[0].x.numpy().reshape(-1, SIDE, SIDE) for s in range(40)]
    )
    assert set(np.unique(x)) == {0, 1} and (x[0] != x[1]).any()
    grey = np.stack([picture(i) for i in data.train.index]) / 255
    assert abs(x.mean(0) - grey).mean() < 0.08 and abs(x.mean() - grey.mean()) < 0.005


def test_rows_that_cannot_be_read_are_named_while_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vaestro.cli.main import main

    samples = [{"png": encoded(picture(i)) if i != 40 else b"nothing"} for i in range(100)]
    write_tar(tmp_path / "s" / "a.tar", samples)
    options = ["--steps", "20", "--batch", "16", "--network", "mlp:width=8,depth=1"]
    assert main(["train", str(tmp_path / "s"), "--run", str(tmp_path / "run"), *options]) == 0
    said = capsys.readouterr().out
    assert (
        said.count("1 row cannot be read: row 41 of") == 1
        and "each was replaced by the next row" in said
    )
    assert "(1 rows could not be read)" in said


def test_many_damaged_images_end_it(tmp_path: Path) -> None:
    samples = [{"png": encoded(picture(i)) if i % 2 else b"nothing"} for i in range(400)]
    write_tar(tmp_path / "s" / "a.tar", samples)
    stream = shard_streams.read_shards(str(tmp_path / "s"), {}).splits["all"]
    with pytest.raises(ValueError, match="one in ten is allowed"):
        stream[:]


def test_not_a_number_is_not_trained_on(tmp_path: Path) -> None:
    rows = [np.full(4, i, np.float32) for i in range(50)]
    rows[10][2] = np.nan
    write_tar(tmp_path / "s" / "a.tar", [{"npy": saved(r)} for r in rows])
    stream = shard_streams.read_shards(str(tmp_path / "s"), {}).splits["all"]
    assert np.isfinite(stream[:]).all() and "NaN" in stream.unread()[1]


def test_a_shard_that_changes_while_it_is_read_ends_it(tmp_path: Path) -> None:
    folder = tars(tmp_path / "s", [200])
    run = small(load(f"{folder}:buffer=20"), steps=200)
    next(run)
    file = folder / "part-0000.tar"
    content = file.read_bytes()
    file.write_bytes(content[:-512] + b"\1" * 512)
    os.utime(file, ns=(1, 1))
    with pytest.raises(
        shard_formats.ShardChanged, match=r"part-0000.tar has changed since it was indexed"
    ):
        list(run)


def test_what_was_trained_until_a_shard_changed_is_kept(tmp_path: Path) -> None:
    from vaestro.runs import Job, resume

    folder = tars(tmp_path / "s", [200])
    job = Job.new(
        f"{folder}:buffer=20",
        run=tmp_path / "run",
        steps=200,
        batch=16,
        network="mlp:width=8,depth=1",
        latent=2,
    )

    def change() -> None:
        with job:
            for step in job:
                if step.index == 30:
                    os.utime(folder / "part-0000.tar", ns=(1, 1))

    with pytest.raises(shard_formats.ShardChanged):
        change()
    done = job.training.index
    assert (
        done >= 30 and (tmp_path / "run" / "checkpoints" / f"step-{done:010d}.safetensors").exists()
    )
    assert resume(tmp_path / "run", steps=done + 20).finished


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: (p / "a.tar.gz").write_bytes(b"x") and f"{p}/a.tar.gz", "uncompress it to .tar"),
        (lambda p: f"{p}/none-{{0..2}}.tar", "no file .*none-0.tar, and 2 more are missing"),
        (
            lambda p: write_tar(p / "a.tar", [{"txt": b"x"}]),
            "expected images .* or arrays .* got txt",
        ),
        (
            lambda p: write_tar(p / "a.tar", [{"jpg": b"x", "seg.png": b"y"}]),
            "one field of images .* array=jpg",
        ),
        (lambda p: write_tar(p / "a.tar", [{"png": b"x"}] * 20), "all images in .* are damaged"),
        (lambda p: write_tar(p / "a.tar", []), "damaged or empty"),
        (lambda p: (p / "a.tar").write_bytes(b"x" * 2000) and p / "a.tar", "damaged or empty"),
        (
            lambda p: write_tar(
                p / "a.tar",
                [{"png": encoded(np.zeros((9, 9), np.uint8))}, {"png": encoded(picture(1))}],
            ),
            "size=",
        ),
        (
            lambda p: f"{write_tar(p / 'a.tar', [{'npy': saved(np.zeros(3))}] * 20)}:size=64",
            "size=64 applies to images only",
        ),
        (lambda p: f"{tars(p / 's', [30])}:buffer=0", "buffer to be 1 row or more"),
        (lambda p: f"{tars(p / 's', [30])}:missing=nan", "missing=nan"),
        (
            lambda p: f"{tars(p / 's', [30])}:buffer=9,streaming=false",
            "buffer=9 has no effect with streaming=false",
        ),
        (
            lambda p: (p / "a.png").write_bytes(encoded(picture(0))) and f"{p}:streaming=true",
            "streaming= does not apply to images",
        ),
        (
            lambda p: "memory://nowhere/x.csv",
            r"expected shards \(.tar, .parquet\) in memory://nowhere/x.csv; got .csv",
        ),
        (lambda p: "memory://nowhere/x.tar", "there is no shard at memory://nowhere/x.tar"),
        (
            lambda p: "nosuch://bucket/x.tar",
            "expected an address of file, memory, .*; got nosuch://bucket/x.tar",
        ),
        (
            lambda p: "hf:owner/name:buffer=9",
            "buffer=9 has an effect only with streaming: add streaming=true",
        ),
        (lambda p: f"{tars(p / 's', [30])}:array=jpg", "array= to name images or arrays"),
        (lambda p: "mnist:streaming=true", "expected an option of mnist"),
    ],
)
def test_bad_input_is_said_in_one_line(
    tmp_path: Path, make: Callable[[Path], Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        load(str(make(tmp_path)))
    assert is_input_error(caught.value) and "\n" not in str(caught.value)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vaestro.cli.main import main

    folder = tars(tmp_path / "s", [150, 150])
    run = tmp_path / "run"
    options = [
        "--steps",
        "40",
        "--batch",
        "32",
        "--workers",
        "2",
        "--network",
        "mlp:width=16,depth=1",
        "--latent",
        "3",
    ]
    assert main(["train", f"{folder}:buffer=100", "--run", str(run), *options]) == 0
    said = capsys.readouterr().out
    assert "2 shards of png, 300 rows" in said and "streamed, shuffled within 100 rows" in said
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"waited", "unread"} <= lines[1].keys()
    assert main(["evaluate", str(run), "--k", "10"]) == 0
    assert main(["encode", str(run), str(folder), "-o", str(tmp_path / "z.npz")]) == 0
    assert np.load(tmp_path / "z.npz")["mean"].shape == (300, 3)
    assert main(["diagnose", str(run)]) == 0
    assert main(["train", "--resume", str(run), "--steps", "50", "--workers", "1"]) == 0
    file = folder / "part-0000.tar"
    os.utime(file, ns=(1, 1))
    tars(folder, [151])
    capsys.readouterr()
    assert main(["diagnose", str(run)]) == 0
    assert "not those of the training" in capsys.readouterr().out


def test_a_killed_run_goes_on_from_its_checkpoint_as_if_nothing_had_happened(
    tmp_path: Path,
) -> None:
    from vaestro.runs import Job, Run, resume

    source = str(tars(tmp_path / "s", [150, 90])) + ":buffer=50"
    options: dict[str, Any] = {
        "steps": 50,
        "batch": 16,
        "network": "mlp:width=8,depth=1",
        "latent": 2,
    }
    whole = vs.train(source, run=tmp_path / "whole", **options)
    job = Job.new(source, run=tmp_path / "part", **options)
    with job:
        for step in job:
            if step.index == 22:
                job.checkpoint()
            if step.index == 27:
                break  # what came after the checkpoint is lost
    again = resume(tmp_path / "part")
    timed = ("seconds", "examples_per_second", "waited")
    lines = [
        [{k: v for k, v in line.items() if k not in timed} for line in Run(r.path).metrics()]
        for r in (whole, again)
    ]
    assert lines[0] == lines[1]
    assert whole.weights_sha256() == again.weights_sha256()
