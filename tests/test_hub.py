import io
import logging
import socket

import numpy as np
import pytest
from PIL import Image

import vaestro
from vaestro.data import cache, hub_library, images
from vaestro.data.hub import read_hub, read_saved
from vaestro.frames import Frame
from vaestro.spaces import Kind
from vaestro.text import is_input_error

datasets = pytest.importorskip("datasets")
Value, Array2D, Array3D, ClassLabel, List, Picture = (
    getattr(datasets, n) for n in ("Value", "Array2D", "Array3D", "ClassLabel", "List", "Image")
)
r = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """Keep every cache in the test's folder, and let nothing reach out."""

    def refuse(*_):
        raise AssertionError("a local folder was read, and something reached out")

    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "huggingface")
    monkeypatch.setattr(
        datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "huggingface" / "downloads"
    )
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def picture(height=8, width=8, channels=3):
    return r.integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


def png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def made(columns, features=None):
    return datasets.Dataset.from_dict(
        columns, features=None if features is None else datasets.Features(features)
    )


def pictures(arrays, **more):
    """Make a data set of images and further columns, each (feature, values)."""
    values = {"image": [a if isinstance(a, dict) or a is None else png(a) for a in arrays]} | {
        n: v for n, (_, v) in more.items()
    }
    return made(values, {"image": Picture()} | {n: f for n, (f, _) in more.items()})


@pytest.fixture
def saved(tmp_path):
    def save(dataset, name="saved"):
        folder = tmp_path / name
        (datasets.DatasetDict(dataset) if isinstance(dataset, dict) else dataset).save_to_disk(
            folder
        )
        return folder

    return save


def refused(read, *words):
    with pytest.raises(ValueError) as caught:
        read()
    text = str(caught.value)
    assert is_input_error(caught.value) and "\n" not in text
    for word in words:
        assert word in text, text
    assert not list(cache.folder().glob("*.part"))


# -- images ----------------------------------------------------------------------------------------


def test_images_with_classes(saved):
    arrays = [picture() for _ in range(30)]
    known = {
        "label": (ClassLabel(names=["cat", "dog"]), [i % 2 for i in range(30)]),
        "weight": (Value("float32"), [i / 2 for i in range(30)]),
        "caption": (Value("string"), [f"a {'very ' * i}small cat" for i in range(30)]),
        "box": (List(Value("int32")), [list(range(i)) for i in range(30)]),
    }
    path = saved(pictures(arrays, **known))
    raw = read_saved(path, {})
    assert list(raw.splits) == ["all"] and isinstance(raw.splits["all"], np.memmap)
    assert np.array_equal(raw.splits["all"], arrays) and raw.splits["all"].dtype == np.uint8
    assert list(raw.attributes["all"]) == ["label", "weight"], "long texts are no attributes"
    assert raw.attributes["all"]["label"].tolist() == ["cat", "dog"] * 15
    assert np.array_equal(raw.attributes["all"]["weight"], np.arange(30) / 2)
    assert raw.notes == ("image is the data; left out caption, box",)
    data = vaestro.load(str(path))
    assert (
        data.space.kind is Kind.LEVELS and data.space.outside == (8, 8, 3) and len(data.train) == 26
    )
    assert set(data.train.attributes["label"]) == {"cat", "dog"}
    assert len(cache.entries()) == 1, "read from the cache"


def test_splits_are_the_data_set_s_own(saved):
    parts = {"train": 5, "validation": 2, "test": 3, "extra": 4}
    arrays = {s: [picture(channels=1) for _ in range(n)] for s, n in parts.items()}
    path = saved(
        {s: pictures(a, n=(Value("int64"), list(range(len(a))))) for s, a in arrays.items()}
    )
    raw = read_saved(path, {})
    assert list(raw.splits) == ["train", "valid", "test"] and raw.notes == (
        "splits extra left out",
    )
    for split, name in (("train", "train"), ("valid", "validation"), ("test", "test")):
        assert np.array_equal(raw.splits[split], arrays[name]) and raw.splits[split].shape[1:] == (
            8,
            8,
        )
        assert raw.attributes[split]["n"].tolist() == list(range(len(arrays[name])))
    data = vaestro.load(str(path))
    assert [len(data.split(s)) for s in ("train", "valid", "test")] == [5, 2, 3]
    assert list(read_saved(saved({"whatever": pictures(arrays["train"])}, "one"), {}).splits) == [
        "all"
    ], "a single split"


def test_mixed_sizes_are_refused_without_size(saved):
    path = saved(pictures([picture(8, 8)] * 3 + [picture(9, 16)] * 2))
    refused(
        lambda: read_saved(path, {}),
        "images of one size",
        "8x8 (3), 9x16 (2)",
        "scale them with size=8",
    )
    raw = read_saved(path, {"size": "8x10", "channels": "grey"})
    assert raw.splits["all"].shape == (5, 8, 10)
    assert any("8x10" in note for note in raw.notes)
    folder = path.parent / "photos"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(picture(9, 13)).save(folder / f"{i}.png")
    held = [{"bytes": (folder / f"{i}.png").read_bytes(), "path": None} for i in range(5)]
    same = read_saved(saved(pictures(held), "same"), {"size": 6, "crop": "none"})
    assert np.array_equal(
        same.splits["all"], images.read_images(folder, {"size": 6, "crop": "none"}).splits["all"]
    )


def test_what_was_decoded_comes_from_the_cache(saved, monkeypatch):
    told = []
    path = saved({"train": pictures([picture() for _ in range(4)]), "test": pictures([picture()])})
    first = read_saved(path, {}, lambda *said: told.append(said))
    assert told[-1] == ("decoding", 5, 5)
    with monkeypatch.context() as m:
        m.setattr(images, "decode_image", lambda *_: pytest.fail("decoded again"))
        again = read_saved(path, {})
    assert again.splits["train"].filename == first.splits["train"].filename
    assert read_saved(path, {"size": 4}).splits["train"].shape == (4, 4, 4, 3)
    other = picture()
    saved({"train": pictures([other] * 4), "test": pictures([picture()])})
    assert np.array_equal(read_saved(path, {}).splits["train"][0], other), (
        "the folder holds other data now"
    )
    assert len(cache.entries()) == 3


def test_rows_that_cannot_be_used_are_left_out_with_their_attributes(saved):
    arrays = [picture() for _ in range(6)]
    whole = png(arrays[1])["bytes"]
    broken = [
        arrays[0],
        {"bytes": whole[:40], "path": None},
        arrays[2],
        None,
        {"bytes": b"text", "path": "x.png"},
        arrays[5],
    ]
    label = (Value("int64"), list(range(6)))
    path = saved({"train": pictures(arrays, n=label), "test": pictures(broken, n=label)})
    raw = read_saved(path, {})
    assert np.array_equal(raw.splits["test"], [arrays[i] for i in (0, 2, 5)])
    assert raw.attributes["test"]["n"].tolist() == [0, 2, 5] and raw.attributes["train"][
        "n"
    ].tolist() == list(range(6))
    assert (
        "3 of 12 files skipped, which are damaged or unreadable: test/1, test/3, test/4"
        in raw.notes
    )
    refused(lambda: read_saved(path, {"strict": True}), "strict=true", "test/1")
    refused(lambda: read_saved(saved(pictures([None, None]), "none"), {}), "none can be used")


def test_images_beside_the_data_set_are_opened_and_those_on_the_web_are_not(tmp_path, monkeypatch):
    array = picture()
    Image.fromarray(array).save(tmp_path / "a.png")
    places = [
        tmp_path / "a.png",
        "https://a.b/c.png",
        tmp_path / "absent.png",
        "zip://a.png::https://a.b/c.zip",
    ]
    found = pictures([{"bytes": None, "path": str(place)} for place in places])
    monkeypatch.setattr(datasets, "load_dataset", lambda name: found)
    raw = read_hub("some/links", {})
    assert np.array_equal(raw.splits["all"], [array]) and "3 of 4 files skipped" in raw.notes[0]


def test_images_of_several_columns_need_a_choice(saved):
    columns = {"image": [png(picture())] * 3, "mask": [png(picture(8, 8, 1))] * 3}
    path = saved(made(columns, {"image": Picture(), "mask": Picture()}))
    refused(
        lambda: read_saved(path, {}),
        "one column of images",
        "image, mask",
        f"choose one with {path}:array=image",
    )
    assert read_saved(path, {"array": "mask"}).splits["all"].shape == (3, 8, 8)
    assert read_saved(path, {"ignore": "mask"}).splits["all"].shape == (3, 8, 8, 3)
    refused(
        lambda: read_saved(path, {"array": "mosk"}), "'mask' (one of image, mask)", "got 'mosk'"
    )
    refused(lambda: read_saved(path, {"ignore": "mosk"}), "ignore=", "'mask'")
    refused(lambda: read_saved(path, {"ignore": "image+mask"}), "ignore= leaves no column")


def test_attributes_that_are_empty_here_and_there(saved):
    known = {
        "label": (ClassLabel(names=["cat", "dog"]), [0, None, -1, 1]),
        "age": (Value("int64"), [3, None, 4, 5]),
        "name": (Value("string"), ["a", None, "", "d"]),
        "day": (Value("date32"), [np.datetime64("2020-01-01").item(), None, None, None]),
        "nothing": (Value("string"), [None] * 4),
    }
    raw = read_saved(saved(pictures([picture()] * 4, **known)), {})
    found = raw.attributes["all"]
    assert found["label"].tolist() == ["cat", "", "", "dog"] and found["name"].tolist() == [
        "a",
        "",
        "",
        "d",
    ]
    assert np.array_equal(found["age"], [3, np.nan, 4, 5], equal_nan=True)
    assert found["day"][0] == np.datetime64("2020-01-01") and np.isnat(found["day"][1:]).all()
    assert "nothing" not in found and raw.notes == ("image is the data; left out nothing",)
    test = {n: (f, [None] * 4 if n == "label" else v) for n, (f, v) in known.items()}
    hidden = read_saved(
        saved(
            {
                "train": pictures([picture()] * 4, **known),
                "test": pictures([picture()] * 4, **test),
            },
            "hidden",
        ),
        {},
    )
    assert (
        hidden.attributes["test"]["label"].tolist() == [""] * 4
        and hidden.attributes["train"]["label"][0] == "cat"
    )


# -- arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feature", "shape"),
    [
        (Array2D((3, 4), "float32"), (3, 4)),
        (Array3D((2, 3, 4), "uint8"), (2, 3, 4)),
        (List(Value("int16"), length=5), (5,)),
        (List(Value("float64")), (5,)),
        (List(List(Value("bool"))), (2, 3)),
        (datasets.LargeList(Value("float32")), (4,)),
    ],
    ids=str,
)
def test_arrays(saved, feature, shape):
    kind = np.dtype(getattr(feature, "dtype", None) or getattr(feature.feature, "dtype", "bool"))
    x = (100 * r.random((12, *shape))).astype(kind)
    path = saved(
        {
            "train": made(
                {"x": x.tolist(), "y": list(range(12))}, {"x": feature, "y": Value("int8")}
            ),
            "test": _tail(x, feature),
        }
    )
    raw = read_saved(path, {})
    assert (
        raw.splits["train"].dtype == kind
        and np.array_equal(raw.splits["train"], x)
        and np.array_equal(raw.splits["test"], x[:5])
    )
    assert raw.attributes["train"]["y"].tolist() == list(range(12)) and raw.notes == ()
    assert read_saved(path, {"array": "x"}).splits["test"].shape == (5, *shape)


def _tail(x, feature):
    """Join two tables, so that the column has several pieces."""
    parts = [
        made({"x": x[part].tolist(), "y": [0] * len(x[part])}, {"x": feature, "y": Value("int8")})
        for part in (slice(2), slice(2, 5))
    ]
    return datasets.concatenate_datasets(parts)


def test_missing_values_in_arrays_are_nan(saved):
    path = saved(made({"x": [[1, None], [3, 4]]}, {"x": List(Value("int32"), length=2)}))
    assert np.array_equal(read_saved(path, {}).splits["all"], [[1, np.nan], [3, 4]], equal_nan=True)


def test_ragged_arrays_are_refused(saved):
    path = saved(made({"x": [[1, 2], [3]], "y": [1, 2]}))
    refused(
        lambda: read_saved(path, {}),
        "arrays of one shape in column 'x'",
        "1 to 2 values",
        "leave it out with ignore=x",
    )
    assert list(read_saved(path, {"ignore": "x"}).splits["all"].columns) == ["y"]
    refused(lambda: read_saved(saved(made({"x": [[1, 2], None]}), "gap"), {}), "empty cells")
    refused(
        lambda: read_saved(saved(made({"x": [[], []]}, {"x": List(Value("int8"))}), "void"), {}),
        "(0,)",
    )
    two = saved(
        datasets.concatenate_datasets([made({"x": [[1, 2]]}), made({"x": [[1, 2, 3]]})]), "two"
    )
    refused(lambda: read_saved(two, {}), "one shape")
    both = saved(made({"a": [[1, 2]], "b": [[1, 2]]}), "both")
    refused(lambda: read_saved(both, {}), "one column of arrays", "a, b", ":array=a")


# -- tables ----------------------------------------------------------------------------------------


def table(n=40):
    columns = {
        "age": [None if i == 3 else i % 7 for i in range(n)],
        "weight": [float("nan") if i == 5 else i / 3 for i in range(n)],
        "city": ["", *("Rome" if i % 3 else "Oslo" for i in range(1, n))],
        "kind": [-1 if i == 2 else i % 3 for i in range(n)],
        "old": [None if i == 1 else i > 20 for i in range(n)],
        "day": [np.datetime64("2020-01-01").item()] * n,
    }
    features = {
        "age": "int32",
        "weight": "float64",
        "city": "string",
        "old": "bool",
        "day": "date32",
    }
    features = {k: Value(v) for k, v in features.items()} | {
        "kind": ClassLabel(names=["a", "b", "c"])
    }
    return made(columns, {k: features[k] for k in columns})


def test_columns_of_single_values_are_a_table(saved):
    path = saved({"train": table(), "test": table(9)})
    raw = read_saved(path, {"ignore": "day"})
    frame = raw.splits["train"]
    assert (
        isinstance(frame, Frame)
        and frame.shape == (40, 5)
        and list(frame.columns) == ["age", "weight", "city", "kind", "old"]
    )
    assert {
        n: np.flatnonzero(np.ma.getmaskarray(c)).tolist() for n, c in frame.columns.items()
    } == {"age": [3], "weight": [5], "city": [0], "kind": [2], "old": [1]}
    assert (
        frame.columns["kind"][[0, 1, 5]].tolist() == ["a", "b", "c"]
        and frame.columns["age"].dtype == np.int32
    )
    data = vaestro.load(f"{path}:ignore=day")
    assert (
        data.space.kind is Kind.TABLE
        and data.space.names == tuple(frame.columns)
        and len(data.test) == 9
        and data.space.missing
    )


def test_a_single_column_of_numbers_can_be_chosen(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda name: table())
    raw = read_hub("some/table:kind", {})
    assert list(raw.splits["all"].columns) == ["kind"]
    assert list(raw.attributes["all"]) == ["age", "weight", "city", "old", "day"]
    texts = read_hub("some/table:city", {})
    kept = [city for city in table()["city"] if city]
    assert texts.splits["all"].lines.tolist() == kept and len(
        texts.attributes["all"]["age"]
    ) == len(kept)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: table().select([]))
    refused(lambda: read_hub("some/table", {}), "rows of data in hf:some/table")


def test_a_column_can_say_the_split(saved):
    split = ["train"] * 6 + ["validation"] * 2 + ["test"] * 4
    path = saved(made({"x": list(range(12)), "part": split}))
    raw = read_saved(path, {"split": "part"})
    assert {s: f.columns["x"].tolist() for s, f in raw.splits.items()} == {
        "train": [*range(6)],
        "valid": [6, 7],
        "test": [*range(8, 12)],
    }
    refused(lambda: read_saved(path, {"split": "port"}), "'part'")
    refused(
        lambda: read_saved(saved({"train": table(), "test": table()}, "two"), {"split": "city"}),
        "its own splits",
    )


def test_nested_columns_are_refused_by_name(saved):
    path = saved(
        made(
            {
                "x": [1, 2],
                "where": [{"a": 1}, {"a": 2}],
                "words": [["a"], ["b"]],
                "raw": [b"1", b"2"],
            }
        )
    )
    refused(
        lambda: read_saved(path, {}),
        "'where'",
        "leave out such columns with ignore=where+words+raw",
    )
    refused(lambda: read_saved(path, {"array": "words"}), "column 'words'", "List(Value('string'))")
    assert list(read_saved(path, {"ignore": "where+words+raw"}).splits["all"].columns) == ["x"]


# -- what is refused, and what never happens -------------------------------------------------------


def test_splits_that_cannot_be_told_apart(saved):
    x = made({"x": [1, 2]})
    refused(lambda: read_saved(saved({"a": x, "b": x}, "1"), {}), "a split train", "got a, b")
    refused(
        lambda: read_saved(saved({"train": x, "val": x, "validation": x}, "2"), {}), "one valid"
    )
    refused(
        lambda: read_saved(saved({"train": x, "test": made({"y": [1]})}, "3"), {}),
        "the same columns",
        "test",
    )
    refused(
        lambda: read_saved(saved({"train": x, "test": x.select([])}, "4"), {}),
        "a split without rows",
    )
    assert list(read_saved(saved({"train": x, "unsupervised": x}, "5"), {}).splits) == ["all"]


def test_damaged_folders(saved):
    path = saved(made({"x": [*range(1000)]}))
    file = next(path.glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:-400])
    refused(lambda: read_saved(path, {}), str(path), "damaged")
    (path / "state.json").unlink()
    refused(lambda: read_saved(path, {}), "save_to_disk")


def test_without_the_library(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    refused(lambda: read_saved(tmp_path, {}), "pip install 'vaestro[hub]'")
    refused(lambda: read_hub("some/thing", {}), "pip install 'vaestro[hub]'")


def test_an_old_library_would_run_code(monkeypatch):
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    refused(lambda: read_hub("some/thing", {}), "version 4 or newer", "datasets 3.6.0 can run code")


@pytest.mark.parametrize(
    "name", ["", "mnist", "a/b/c", "../up", "/etc/passwd", "a/b:", "s3://a/b", "-a/b"]
)
def test_names_that_are_none(name, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda name: pytest.fail(f"{name} was asked for"))
    refused(lambda: read_hub(name, {}), "hf:OWNER/NAME")


# -- the hub ---------------------------------------------------------------------------------------


def test_the_hub_s_own_reader(tmp_path, monkeypatch):
    """Read files as they lie in a repository of the hub; load_dataset takes a folder of that name
    for one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some" / "digits").mkdir(parents=True)
    arrays = [picture() for _ in range(25)]
    for split, part in (("train", slice(20)), ("test", slice(20, 25))):
        label = (ClassLabel(names=["zero", "one"]), [i % 2 for i in range(25)][part])
        pictures(arrays[part], label=label).to_parquet(
            tmp_path / "some" / "digits" / f"{split}-00000-of-00001.parquet"
        )
    raw = read_hub("some/digits", {})
    assert np.array_equal(raw.splits["train"], arrays[:20]) and np.array_equal(
        raw.splits["test"], arrays[20:]
    )
    assert set(raw.attributes["test"]["label"]) == {"zero", "one"}
    monkeypatch.setattr(images, "decode_image", lambda *_: pytest.fail("decoded again"))
    assert np.array_equal(read_hub("some/digits:image", {}).splits["test"], arrays[20:])
    refused(
        lambda: read_hub("some/digits:imge", {}),
        "a column of hf:some/digits: 'image'",
        "got 'imge'",
    )
    data = vaestro.load("hf:some/digits")
    assert (
        data.source == "hf:some/digits" and data.space.outside == (8, 8, 3) and len(data.test) == 5
    )


def test_size_is_offered_as_an_option_of_the_source(monkeypatch):
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name: pictures([picture(8, 8), picture(9, 9)])
    )
    refused(lambda: read_hub("some/pictures", {}), "scale them with size=8")
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name: pictures([picture(300, 280), picture(300, 280)])
    )
    refused(
        lambda: read_hub("some/pictures", {}),
        "300x280 (2): scale them with size=64x60, or keep their size with size=300x280",
    )


def test_the_author_s_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "some" / "code"
    place.mkdir(parents=True)
    (place / "code.py").write_text(f"import datasets\nopen({str(tmp_path / 'ran')!r}, 'w')\n")
    refused(lambda: read_hub("some/code", {}), "load_dataset('some/code')")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            ConnectionError("Couldn't reach 'some/thing' on the Hub"),
            ConnectionError,
            "cannot be reached, and some/thing is not in its cache",
        ),
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'some/thing' doesn't exist"),
            ValueError,
            "there is no data set some/thing",
        ),
        (
            ValueError("Config name is missing.\nPlease pick one among: ['a', 'b']"),
            ValueError,
            "one among: ['a', 'b'] (if it needs",
        ),
        (OSError(28, "No space left on device"), OSError, "the disk has no space"),
    ],
)
def test_what_fails_is_one_line(error, kind, words, monkeypatch, capfd):
    def load(name):
        logging.getLogger("huggingface_hub.utils").warning("Retrying in 1s")
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    level = logging.getLogger("huggingface_hub").level
    with pytest.raises(kind) as caught:
        read_hub("some/thing", {})
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert kind is not ValueError or is_input_error(caught.value)
    assert capfd.readouterr() == ("", "") and logging.getLogger("huggingface_hub").level == level
    assert not datasets.are_progress_bars_disabled()


def test_a_failure_inside_the_library_tells_its_cause(monkeypatch):
    def load(name):
        raise datasets.exceptions.DatasetGenerationError("An error occurred") from OSError(
            28, "No space left on device"
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(OSError, match="set HF_HOME to a folder on another disk"):
        read_hub("some/thing", {})
    assert hub_library.OLDEST == 4
