"""Sources that are refused, or read with a note, and whose messages say what to type instead."""

import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = "my data"  # the space must be quoted in every hint
R = np.random.default_rng(0)
N = 40


def text(name: str, content: str | bytes) -> str:
    path = Path(FOLDER, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def csv(columns: dict[str, list[object]], name: str = "t.csv") -> str:
    """Write a table, with cells in quotes."""
    import csv as library

    out = io.StringIO()
    writer = library.writer(out)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text(name, out.getvalue())


def npy(x: np.ndarray, name: str = "x.npy") -> str:
    Path(FOLDER).mkdir(exist_ok=True)
    np.save(Path(FOLDER, name), x)
    return str(Path(FOLDER, name))


def npz(**arrays: np.ndarray) -> str:
    Path(FOLDER).mkdir(exist_ok=True)
    np.savez(Path(FOLDER, "x.npz"), **arrays)
    return str(Path(FOLDER, "x.npz"))


def parquet(columns: dict[str, object], name: str = "t.parquet") -> str:
    import pyarrow
    from pyarrow.parquet import write_table

    path = Path(FOLDER, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.table(columns), path)
    return str(path)


def png(x: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(x).save(out, "PNG")
    return out.getvalue()


def grey(*shape: int) -> np.ndarray:
    return R.integers(0, 256, shape).astype(np.uint8)


def photos(shapes: list[tuple[int, ...]], name: str = "photos") -> str:
    for i, shape in enumerate(shapes):
        text(f"{name}/{i:03d}.png", png(grey(*shape)))
    return f"{FOLDER}/{name}"


def tar(samples: list[dict[str, bytes]], name: str = "a.tar") -> str:
    Path(FOLDER).mkdir(exist_ok=True)
    with tarfile.open(Path(FOLDER, name), "w") as archive:
        for i, sample in enumerate(samples):
            for field, content in sample.items():
                info = tarfile.TarInfo(f"{i:06d}.{field}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return str(Path(FOLDER, name))


def saved(x: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, x)
    return out.getvalue()


def zipped(**files: str) -> str:
    Path(FOLDER).mkdir(exist_ok=True)
    with zipfile.ZipFile(Path(FOLDER, "t.zip"), "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", " ") + ".csv", content)
    return str(Path(FOLDER, "t.zip"))


def database(**tables: list[float]) -> str:
    Path(FOLDER).mkdir(exist_ok=True)
    path = Path(FOLDER, "shop.db")
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as base:
        for name, values in tables.items():
            name = name.replace("_", " ")
            base.execute(f'create table "{name}" (a real, b real)')
            base.executemany(f'insert into "{name}" values (?, ?)', [(v, -v) for v in values])
    base.close()
    return str(path)


def cells(x: np.ndarray, name: str = "c.h5ad", **layers: np.ndarray) -> str:
    import anndata
    import pandas
    import scipy.sparse

    def index(letter: str, n: int) -> object:
        return pandas.DataFrame(
            index=pandas.Index([f"{letter}{i}" for i in range(n)], dtype=object)
        )

    data = anndata.AnnData(
        scipy.sparse.csr_matrix(x.astype(np.float32)),
        obs=index("c", len(x)),
        var=index("g", x.shape[1]),
    )
    for layer, values in layers.items():
        data.layers[layer.replace("_", " ")] = values.astype(np.float32)
    Path(FOLDER).mkdir(exist_ok=True)
    data.write_h5ad(Path(FOLDER, name))
    return str(Path(FOLDER, name))


def matrix(options: str = "") -> str:
    import scipy.sparse

    Path(FOLDER).mkdir(exist_ok=True)
    scipy.sparse.save_npz(Path(FOLDER, "s.npz"), scipy.sparse.csr_matrix(R.poisson(1.0, (N, 5))))
    return f"{FOLDER}/s.npz{options}"


def hub(columns: dict[str, object], features: dict[str, object] | None = None) -> str:
    import datasets

    data = datasets.Dataset.from_dict(columns, features and datasets.Features(features))
    data.save_to_disk(f"{FOLDER}/saved")
    return f"{FOLDER}/saved"


def tiffs() -> str:
    for i in range(20):
        out = io.BytesIO()
        Image.fromarray(R.random((8, 8)).astype(np.float32)).save(out, "TIFF")
        text(f"deep/{i}.tif", out.getvalue())
    return f"{FOLDER}/deep"


def bands(lacking: str) -> str:
    for i in range(20):
        for band in ("B02", "B03"):
            if f"{i}{band}" != lacking:
                text(f"bands/{i}_{band}.png", png(grey(8, 8)))
    return f"{FOLDER}/bands"


def splits(**more: object) -> str:
    for name in ("train", "test"):
        parquet({"a b": real(), "c": real(), **more}, f"{name}-0.parquet")
    return f"{FOLDER}/*-0.parquet"


def real(n: int = N) -> list[object]:
    return [round(float(v), 3) for v in R.normal(size=n)]


def bad(x: np.ndarray, *values: float) -> np.ndarray:
    x = x.astype(float)
    x.flat[: len(values)] = values
    return x


def words(n: int = N) -> list[object]:
    return ["red" if i % 3 else "blue" for i in range(n)]


def pictures() -> list[dict[str, bytes]]:
    return [{"png": png(grey(8, 8)), "cls": b"1"} for _ in range(N)]


def arrays() -> list[dict[str, bytes]]:
    return [{"npy": saved(R.normal(size=(2, 3)).astype(np.float32))} for _ in range(N)]


def long(n: int = 20, steps: int = 6) -> dict[str, list[object]]:
    size = n * steps
    return {
        "the unit": [i // steps for i in range(size)],
        "t, s": [i % steps + 0.5 for i in range(size)],
        "x": real(size),
    }


SENTENCES = [" ".join(R.choice(["dog", "cat", "ship", "river", "moon"], 5)) for _ in range(N)]
LONG_TEXTS = [s + f" {i} " * 30 for i, s in enumerate(SENTENCES)]

Make = Callable[[], str]
# a source; for some, what replaces the placeholders of its hints
REFUSED: dict[str, Make | tuple[Make, dict[str, str]]] = {
    # arrays
    "nan": lambda: npy(bad(R.normal(size=(N, 4)), np.nan)),
    "nan and inf": lambda: npy(bad(R.normal(size=(N, 4)), np.nan, np.inf)) + ":missing=-9",
    "huge": lambda: npy(bad(R.normal(size=(N, 4)), 1e35)),
    "onehot with a kind": lambda: npy(np.eye(4)[R.integers(0, 4, N)]) + ":onehot=true,kind=real",
    "onehot of reals": lambda: npy(R.normal(size=(N, 4))) + ":onehot=true",
    "onehot of probabilities": lambda: npy(R.dirichlet(np.ones(4), N)) + ":onehot=true",
    "onehot of bits": lambda: npy(R.integers(0, 2, (N, 4))) + ":onehot=true",
    "onehot of no axis": lambda: npy(np.eye(4)[R.integers(0, 4, N)]) + ":onehot=5",
    "unit": lambda: npy(R.normal(size=(N, 4))) + ":kind=unit",
    "limit of levels": lambda: npy(R.integers(0, 5, (N, 4))) + ":kind=levels,low=0",
    "value below a limit": lambda: npy(R.normal(size=(N, 4))) + ":low=1",
    "value above a limit": lambda: npy(R.normal(size=(N, 4))) + ":high=-1",
    "unit, closed": lambda: npy(R.integers(0, 5, (N, 4)) / 4) + ":kind=unit",
    "binary": lambda: npy(R.normal(size=(N, 4))) + ":kind=binary",
    "count of reals": lambda: npy(R.normal(size=(N, 4))) + ":kind=count",
    "count below 0": lambda: npy(R.integers(-50, 500, (N, 4))) + ":kind=count",
    "levels below 0": lambda: npy(R.integers(-50, 500, (N, 4))) + ":kind=levels",
    "too few levels": lambda: npy(R.integers(0, 50, (N, 4))) + ":kind=levels,levels=9",
    "binarise reals": lambda: npy(R.normal(size=(N, 4))) + ":binarise=static",
    "few integers": lambda: npy(R.choice([-1, 0, 5, 1000], (N, 4))),
    "words as missing": lambda: npy(R.normal(size=(N, 4))) + ":missing=none",
    "per channel": lambda: npy(R.normal(size=(N, 4))) + ":standardise=channel",
    "axes, rows last": lambda: npy(grey(8, 8, N)) + ":axes=HWN",
    "axes, too few": lambda: npy(grey(N, 8, 8)) + ":axes=NH",
    "axes, unknown": lambda: npy(grey(N, 8, 8)) + ":axes=NQZ",
    "axes and volume": lambda: npy(grey(N, 8, 8, 8)) + ":axes=NHWC,volume=true",
    "objects": lambda: npy(np.array([{} for _ in range(N)], dtype=object)),
    "several arrays": lambda: npz(**{"a b": R.normal(size=(N, 3)), "c": R.normal(size=(N, 3))}),
    "no such array": lambda: npz(x=R.normal(size=(N, 3))) + ":array=y",
    "series of columns": lambda: npy(R.normal(size=(N, 12))) + ":series=a",
    "option of tables": lambda: npy(R.normal(size=(N, 4))) + ":ignore=a",
    "option of images": lambda: npy(R.normal(size=(N, 4))) + ":size=64",
    "window without series": lambda: npy(R.normal(size=(N, 4))) + ":window=2",
    "nine rows": lambda: npy(R.normal(size=(9, 4))),
    "one series": lambda: npy(R.normal(size=(1, 400))) + ":series=true",
    "no training rows": lambda: npy(R.normal(size=(N, 4))) + f":valid={N}",
    "own splits": lambda: (
        npz(**{s: R.normal(size=(N, 3)) for s in ("train", "valid", "test")}) + ":test=4"
    ),
    "stride alone": (lambda: npy(R.normal(size=(N, 12))) + ":series=true,stride=2", {"N": "4"}),
    "window of 1": lambda: npy(R.normal(size=(N, 12))) + ":series=true,window=1",
    "too few windows": (
        lambda: npy(R.normal(size=(3, 12))) + ":series=true,window=12",
        {"N": "3", "M": "1"},
    ),
    "not streamed": lambda: npy(R.normal(size=(N, 4))) + ":streaming=true",
    "unknown option": lambda: npy(R.normal(size=(N, 4))) + ":kidn=real",
    "unknown kind": lambda: npy(R.normal(size=(N, 4))) + ":kind=reals",
    "no file": lambda: npy(R.normal(size=(N, 4))).replace("x.npy", "y.npy"),
    # tables
    "too many categories": lambda: csv(
        {"a b": [f"k{i}" for i in range(N * 30)], "c": real(N * 30)}
    ),
    "codes in two columns": lambda: (
        csv(
            {
                "a, b": [f"k{i}" for i in range(1200)],
                "c:d": [f"q{i}" for i in range(1200)],
                "e": real(1200),
            }
        )
        + ":ignore=e"
    ),
    "words among numbers": lambda: csv(
        {"d": [*[f"{v:.1f} kg" for v in R.gamma(2, 9, 160)], *["too, big"] * N], "c": real(200)}
    ),
    "long words": lambda: csv(
        {"the text": ["it was a fine day, " * 30 + str(i) for i in range(1200)], "c": real(1200)}
    ),
    "real of text": lambda: csv({"a b": words(), "c": real()}) + ':real="a b"',
    "count of fractions": lambda: csv({"a b": real(), "c": real()}) + ':count="a b"',
    "binary of many": lambda: csv({"a b": real(), "c": real()}) + ':binary="a b"',
    "ordinal of text": lambda: csv({"a b": words(), "c": real()}) + ':ordinal="a b"',
    "ordinal, others": lambda: csv({"a": words(), "c": real()}) + ":ordinal=a=x<y",
    "log of negative": lambda: csv({"a b": real(), "c": real()}) + ':log="a b"',
    "log of words": lambda: csv({"a b": words(), "c": real()}) + ':log="a b"',
    "log of counts": lambda: csv({"a b": list(range(1, N + 1)), "c": real()}) + ':log="a b"',
    "log of zero": lambda: csv({"a b": [0.0, *real()[1:]], "c": real()}) + ':log="a b"',
    "two transforms": lambda: csv({"a b": real(), "c": R.random(N)}) + ":log=c,logit=c",
    "two kinds": lambda: csv({"a b": real(), "c": real()}) + ":real=c,count=c",
    "no such column": lambda: csv({"a b": real(), "c": real()}) + ":ignore=ab",
    "all ignored": lambda: csv({"a b": real(), "c": real()}) + ':ignore=c+"a b"',
    "too large": lambda: csv({"a b": [*real(N - 1), 1e35], "c": real()}),
    "too large, two": lambda: csv({"a b": [*real(N - 2), 1e35, 2e35], "c": real()}),
    "dates of none": lambda: csv({"a b": real(), "c": real()}) + ":dates=%d/%m/%Y",
    "dates that look otherwise": lambda: (
        csv({"a b": [f"{1 + i % 12}/{13 + i % 12}/2024" for i in range(N)], "c": real()})
        + ":dates=%d/%m/%Y"
    ),
    "dates of another pattern": lambda: (
        csv({"a b": [f"2024-{1 + i % 12:02d}-1{i % 9}" for i in range(N)], "c": real()})
        + ':dates="a b"=%d.%m.%Y'
    ),
    "no pattern": lambda: csv({"a b": real(), "c": real()}) + ":dates=yes",
    "too many cells": lambda: text("t.csv", "a,b\n" + "1,2\n" * 20 + "1,2,3\n" + "3,4\n" * 20),
    "too few names": lambda: text("t.csv", "title\n" + "1.5,2,3\n3,4,5.5\n" * 20),
    "no names": lambda: text("t.csv", "".join(f"{i}.5,{i * i}\n" for i in range(N))),
    "wrong encoding": lambda: (
        text("t.csv", "näme,b\n" + "".join(f"{i % 7}.5,{i}\n" for i in range(N)))
        + ":encoding=ascii"
    ),
    "no encoding": lambda: csv({"a": real(), "b": real()}) + ":encoding=klingon",
    "several in a zip": lambda: zipped(a_b="x,y\n" + "1,2.5\n3,4\n" * 20, c="x\n1\n2\n" * 9),
    "no such member": lambda: zipped(a_b="x,y\n" + "1,2.5\n3,4\n" * 20) + ":member=c.csv",
    "several tables": lambda: database(the_orders=real(), other=real()),
    "no such table": lambda: database(the_orders=real(), other=real()) + ":table=orders",
    "streamed table": lambda: csv({"a": real(), "b": real()}) + ":streaming=true",
    "buffered table": lambda: csv({"a": real(), "b": real()}) + ":buffer=3",
    "cut table": (
        lambda: (
            csv({"g": [i // 4 for i in range(200)], "t": list(range(200)), "x": real(200)})
            + ":window=4"
        ),
        {"GROUP": "g", "ORDER": "t", "TIME": "t"},
    ),
    "array of tables": lambda: csv({"a": real(), "b": real()}) + ":array=a",
    "split of none": lambda: csv({"a": real(), "b": words()}) + ":split=b",
    "categories": lambda: csv({"a": real(), "b": words()}) + ":categories=1",
    "empty column": lambda: csv({"a b": [""] * N, "c": [""] * N}),
    "mixed json": lambda: text(
        "t.json", json.dumps([{"a b": 1, "c": 2.5}, {"a b": "x", "c": 1}] * 20)
    ),
    "nested json": lambda: text(
        "t.json", json.dumps([{"a b": {"x": i, "y": "q"}, "c": i / 7} for i in range(N)])
    ),
    "lists": lambda: parquet(
        {"a b": [[float(i)] * (1 + i % 3) for i in range(N)], "c": R.normal(size=N)}
    ),
    "bytes": lambda: parquet({"a b": [b"\xff\x00"] * N, "c": R.normal(size=N)}),
    "structures": lambda: parquet({"a b": [{"x": 1}] * N, "c": R.normal(size=N)}),
    # series
    "series of none": (
        lambda: (
            csv({"a": real(), "t": R.permutation(N).tolist(), "g": [7] * 20 + [9] * 20})
            + ":series=true,window=2"
        ),
        {"GROUP:ORDER": "g:t", "TIME": "t"},
    ),
    "series of three": lambda: csv(long()) + ":series=x:y:z",
    "series of no column": lambda: csv(long()) + ":series=unit",
    "series by": lambda: csv(long()) + ':by="the unit"',
    "series with by": lambda: csv(long()) + ":series=true,by=the unit",
    "order of words": lambda: csv({**long(), "w": words(120)}) + ':series="the unit":w',
    "group of one": lambda: csv({"the unit": list(range(N)), "x": real()}) + ':series="the unit"',
    "steps twice": lambda: csv({**long(), "t, s": [1] * 120}) + ':series="the unit":"t, s"',
    "one series, steps twice": lambda: csv(long()) + ':series=:"t, s"',
    "empty group": lambda: csv({**long(), "the unit": ["", *range(119)]}) + ':series="the unit"',
    "no channels": lambda: (
        csv({k: v for k, v in long().items() if k != "x"}) + ':series="the unit":"t, s"'
    ),
    # texts
    "text of no column": lambda: csv({"a b": real(), "c": SENTENCES}) + ":text=d",
    "text of texts": lambda: text("t.txt", "\n".join(SENTENCES)) + ":text=a",
    "short texts": lambda: text("t.txt", "\n".join(SENTENCES)) + ":length=1",
    "bytes with a vocabulary": lambda: (
        text("t.txt", "\n".join(SENTENCES)) + ":tokens=bytes,vocabulary=300"
    ),
    "small vocabulary": lambda: text("t.txt", "\n".join(SENTENCES)) + ":tokens=bpe,vocabulary=3",
    "latin texts": lambda: text("t.txt", "\n".join(s + " é" for s in SENTENCES).encode("latin-1")),
    "a long word": lambda: text("t.txt", "\n".join([*SENTENCES, "x" * 60_000])),
    "kind of texts": lambda: text("t.txt", "\n".join(SENTENCES)) + ":kind=real",
    # images
    "sizes": lambda: photos([(20, 20), (30, 20)] * 10),
    "crop without size": lambda: photos([(20, 20)] * 20) + ":crop=center",
    "crops without size": lambda: photos([(90, 90)] * 2) + ":crops=100",
    "crops with a crop": lambda: photos([(90, 90)] * 2) + ":crops=100,size=16,crop=center",
    "few crops": lambda: photos([(90, 90)] * 2) + ":crops=10,size=16",
    "crops of small images": lambda: photos([(30, 30)] * 2) + ":crops=100,size=24",
    "crops of a damaged image": lambda: (
        (photos([(90, 90)] * 2), text("photos/x.png", b"\x89PNG\r\n\x1a\nqq"))[0]
        + ":crops=100,size=16"
    ),
    "pages of volumes": lambda: photos([(20, 20)] * 20) + ":volume=true,pages=all",
    "size of words": lambda: photos([(20, 20)] * 20) + ":size=big",
    "depth of 12": lambda: photos([(20, 20)] * 20) + ":depth=12",
    "no attributes": lambda: photos([(20, 20)] * 20) + ":attributes=labels.csv",
    "attributes of others": lambda: (
        photos([(20, 20)] * 20) + ":attributes=" + csv({"file": ["x.png"], "y": [1]}, "l.csv")
    ),
    "strict": lambda: (
        (photos([(20, 20)] * 20), text("photos/x.png", b"\x89PNG\r\n\x1a\nqq"))[0] + ":strict=true"
    ),
    "one band": lambda: photos([(20, 20)] * 20) + ":bands=B02",
    "no bands": lambda: photos([(20, 20)] * 20) + ":bands=B02+B03",
    "one image": lambda: text("one.png", png(grey(80, 80))),
    "kinds of columns of images": lambda: photos([(20, 20)] * 20) + ":real=a",
    # shards
    "several fields": lambda: tar([{"a.png": png(grey(8, 8)), "b.png": png(grey(8, 8))}] * N),
    "no such field": lambda: tar(pictures()) + ":array=jpg",
    "pages in shards": lambda: tar(pictures()) + ":pages=all",
    "size of arrays in shards": lambda: tar(arrays()) + ":size=16",
    "buffer without streaming": lambda: tar(pictures()) + ":streaming=false,buffer=9",
    "no buffer": lambda: tar(pictures()) + ":buffer=0",
    "missing in shards": lambda: tar(arrays()) + ":missing=nan,streaming=true",
    "nan in shards": lambda: tar(
        [{"npy": saved(bad(R.normal(size=(2, 3)), np.nan))} for _ in range(N)]
    ),
    "a damaged shard": lambda: (tar(pictures()), text("a.tar", b"not a tar"))[0] + ":strict=true",
    "a packed shard": lambda: (
        tar(pictures()),
        text("a.tar.gz", gzip.compress(Path(FOLDER, "a.tar").read_bytes())),
    )[1],
    "split of shards": lambda: (
        (tar(pictures(), "train-0.tar"), tar(pictures(), "test-0.tar"))
        and f"{FOLDER}/*-0.tar:split=a"
    ),
    "sizes in shards": lambda: tar([{"png": png(grey(8 + i % 2, 8))} for i in range(N)]),
    # counts
    "kind of a sparse matrix": lambda: matrix(":kind=real"),
    "logs in X": lambda: cells(R.normal(size=(N, 4)), the_counts=R.poisson(3, (N, 4))),
    "no counts": lambda: cells(R.normal(size=(N, 4))),
    "no such layer": lambda: cells(R.poisson(3, (N, 4))) + ":array=raw",
    "no such names": lambda: cells(R.poisson(3, (N, 4))) + ":var_names=id",
    # groups
    "groups with an empty cell": lambda: (
        csv({"a b": ["", *words(N - 1)], "c": real()}) + ":groups=a b"
    ),
    "two groups": lambda: csv({"a b": words(), "c": real()}) + ":groups=a b",
    "groups of an array": lambda: npy(R.normal(size=(N, 4))) + ":groups=a",
    "groups alone": lambda: csv({"a b": [f"k{i % 9}" for i in range(N)]}) + ":groups=a b",
    "groups of a stream": lambda: tar(pictures()) + ":groups=cls,streaming=true",
    # several files
    "streamed tables": lambda: splits() + ":streaming=true",
    "buffered tables": lambda: splits() + ":buffer=3",
    "split of tables": lambda: splits(s=words()) + ":split=s",
    "depth of floats": lambda: tiffs() + ":depth=8",
    "a lacking band": lambda: bands("3B02") + ":bands=B02+B03",
    "mixed encodings": lambda: text("t.csv", "a,b\nä,1\n".encode() + b"\xe9,2\ne,1.5\n" * 20),
    "long texts": lambda: text("t.txt", "\n".join("dog " * 1500 for _ in range(N))),
    "text of a column of numbers": lambda: parquet({"a b": real(), "c": SENTENCES}) + ":text=a b",
    "channels of several lengths": lambda: (
        parquet({n: [real(3 + (i + j) % 4) for i in range(N)] for j, n in enumerate(["a b", "c"])})
        + ":series=true"
    ),
    "windows that overlap": lambda: npy(R.normal(size=(1, 40))) + ":series=true,window=20,stride=1",
    "shapes beyond memory": lambda: "shapes:n=100000000,size=256",
    # Hugging Face
    "nested columns": lambda: hub({"a b": [{"x": 1}] * N, "c": real()}),
    "ragged arrays": lambda: hub({"a b": [[1.0] * (1 + i % 3) for i in range(N)], "c": real()}),
    "all columns ignored": lambda: hub({"c": real()}) + ":ignore=c",
    "buffer of a folder": lambda: hub({"c": real()}) + ":buffer=3",
}

# sources that are read with a note that says what to type instead
NOTED: dict[str, Make] = {
    "counts": lambda: npy(R.poisson(300, (N, 4))),
    "counts or real": lambda: npy(R.integers(500, 520, (N * 5, 4))),
    "codes": lambda: npy(R.integers(-50, 500, (N, 4))),
    "images first": lambda: npy(np.cumsum(grey(N, 3, 9, 9) // 99, 2, dtype=np.uint8)),
    "series or images": lambda: npy(R.normal(size=(N, 40, 3))),
    "cells of five axes": lambda: npy(grey(N, 4, 4, 4, 3)),
    "a far value": lambda: npy(bad(R.integers(0, 99, (200, 4)), -99999)),
    "columns": lambda: csv(
        {
            "n": list(range(N * 5)),
            "a, b": R.poisson(9, N * 5).tolist(),
            "c d": R.integers(0, 4, N * 5).tolist(),
            "e=f": ["NA", "DE", "FR", "IT"] * (N // 4) * 5,
            "g+h": R.integers(60, 90, N * 5).tolist(),
            "i": [-999, *R.integers(60, 90, N * 5 - 1).tolist()],
            'j"k': ["n/a", "x", "y", "zz zz"] * (N // 4) * 5,
        }
    ),
    "formats": lambda: csv(
        {
            "a, b": [f"${v:,.2f}" for v in R.gamma(2, 900, N * 5)],
            "c": [*["24/12/2024"] * 5, *["05/03/2023", "07/08/2022"] * 95, *["not, yet"] * 5],
        }
    ),
    "titles": lambda: text(
        "t.csv", "Report 2026\n\na;b\n" + "1,5;2\n3;4\n" * 20 + "Source: a form\n"
    ),
    "a long table": lambda: csv(long()),
    "one long series": lambda: csv(
        {
            "the day": [f"2024-01-01 {i // 60:02d}:{i % 60:02d}:00" for i in range(900)],
            "x": np.cumsum(R.normal(size=900)).round(3).tolist(),
        }
    ),
    "sequences": lambda: csv(
        {"d, na": ["".join(R.choice(list("ACGT"), 30)) for _ in range(N)], "x": real()}
    ),
    "deep images": lambda: npy(R.integers(0, 4000, (N, 8, 8)).astype(np.uint16)),
}
