"""Folders as outputs: a file for each datum, with the names, format and depth of the user's
files."""

import numpy as np
import pytest
from PIL import Image

import vaestro as vs
from vaestro.cli import main
from vaestro.data.image_writing import write_folder
from vaestro.data.images import read_images

tifffile = pytest.importorskip("tifffile")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def folder_of(images, path, suffix=".png"):
    path.mkdir()
    for i, image in enumerate(images):
        if suffix == ".npy":
            np.save(path / f"x{i:02}.npy", image)
        elif suffix == ".tif":
            planar = {"planarconfig": "contig"} if image.ndim == 3 else {}
            tifffile.imwrite(path / f"x{i:02}.tif", image, photometric="minisblack", **planar)
        else:
            Image.fromarray(image).save(path / f"x{i:02}{suffix}")


def pictures(dtype, shape=(8, 8), n=20):
    values = np.random.default_rng(0).random((n, *shape))
    values = np.sort(values, 1)
    if np.dtype(dtype).kind == "f":
        return values.astype(dtype)
    return (values * {"uint8": 255, "uint16": 4095}[dtype]).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "shape", "before", "after"),
    [
        ("uint8", (8, 8), ".jpg", ".png"),
        ("uint8", (8, 8, 3), ".png", ".png"),
        ("uint16", (8, 8), ".png", ".png"),
        ("uint16", (8, 8, 5), ".tif", ".tif"),
        ("float32", (8, 8), ".tif", ".tif"),
        ("float32", (8, 8, 5), ".tif", ".tif"),
    ],
)
def test_samples_and_reconstructions_are_files_like_the_data(
    tmp_path, capsys, dtype, shape, before, after
):
    folder_of(pictures(dtype, shape), tmp_path / "data", before)
    space = vs.load("data").space
    vs.train("data", run="r", latent=2, steps=1, network="mlp:width=4")
    assert main(["sample", "r", "-n", "3", "-o", "made/"]) == 0
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == [
        f"000{i}{after}" for i in (1, 2, 3)
    ]
    back = read_images(tmp_path / "made", {}).splits["all"]
    assert back.shape == (3, *shape) and back.dtype == dtype
    assert np.array_equal(back, vs.open("r").sample(3, mean=True, dtype="own"))
    assert (
        "3 means of p(x|z) at draws of z (--draws writes draws) to made" in capsys.readouterr().out
    )
    assert main(["reconstruct", "r", "data", "-o", "again/"]) == 0
    names = [f"x{i:02}{after}" for i in range(20)]
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == names
    again = read_images(tmp_path / "again", {}).splits["all"]
    assert np.array_equal(again, vs.open("r").reconstruct("data", split="all"))
    assert (space.dtype, space.outside) == (dtype, shape)


def test_a_folder_is_not_overwritten(tmp_path, capsys):
    folder_of(pictures("uint8"), tmp_path / "data")
    vs.train("data", run="r", latent=2, steps=1, network="mlp:width=4")
    capsys.readouterr()
    assert main(["sample", "r", "-n", "2", "-o", "made/"]) == 0
    assert main(["sample", "r", "-n", "2", "-o", "made"]) == 2
    assert capsys.readouterr().err == (
        "vaestro: the folder made is not empty (--force writes into it, and overwrites files of "
        "the same names)\n"
    )
    assert main(["sample", "r", "-n", "3", "-o", "made", "--force"]) == 0
    assert len(list((tmp_path / "made").iterdir())) == 3
    assert main(["sample", "r", "-o", "no/such/"]) == 2
    assert main(["sample", "r", "-o", "data/x00.png/"]) == 2
    assert main(["encode", "r", "data", "-o", "made/"]) == 2


def test_masks_keep_their_two_values(tmp_path):
    folder_of(np.where(pictures("float32") > 0.5, 255, 0).astype(np.uint8), tmp_path / "masks")
    vs.train("masks", run="r", latent=2, steps=1, network="mlp:width=4")
    assert main(["sample", "r", "-n", "4", "-o", "s.npy"]) == 0
    samples = np.load("s.npy")
    assert samples.dtype == np.uint8 and set(np.unique(samples)) <= {0, 255}
    assert main(["sample", "r", "-n", "4", "-o", "grey/", "--dtype", "float"]) == 0
    grey = read_images(tmp_path / "grey", {}).splits["all"]
    chances = vs.open("r").sample(4, mean=True)
    assert np.array_equal(grey, np.rint(255 * chances).astype(np.uint8))
    assert main(["sample", "r", "-n", "4", "-o", "d.npy", "--draws"]) == 0
    assert np.array_equal(np.load("d.npy"), vs.open("r").sample(4, mean=False))


def test_names_are_in_codes_and_evaluation(tmp_path):
    folder_of(pictures("uint8"), tmp_path / "data")
    vs.train("data", run="r", latent=1, steps=1, network="mlp:width=4")
    names = [f"x{i:02}.png" for i in range(20)]
    assert main(["encode", "r", "data", "-o", "codes.npz"]) == 0
    with np.load("codes.npz") as codes:
        assert codes["file"].tolist() == names and codes["mean"].shape == (20, 1)
        mean = codes["mean"]
    assert main(["encode", "r", "data", "-o", "codes.csv"]) == 0
    lines = (tmp_path / "codes.csv").read_text().splitlines()
    assert lines[0] == '"row","file","mean","logvar"' and lines[3].startswith('2,"x02.png",')
    assert main(["decode", "r", "codes.csv", "-o", "x.npy"]) == 0
    assert np.abs(np.load("x.npy").astype(int) - vs.open("r").decode(mean)).max() <= 1
    vs.evaluate("r", k=2)
    with np.load("r/evaluation.npz") as archive:
        rows = vs.Run("r").data().test
        assert archive["file"].tolist() == rows.attributes["file"].tolist()


def test_names_that_are_not_safe_or_not_unique(tmp_path):
    space = vs.load(pictures("uint8"), axes="NHW").space
    names = ["../a.jpg", "/b/a.png", "a.png", "b/a.v2"]
    (tmp_path / "made").mkdir()
    write_folder(tmp_path / "made", pictures("uint8", n=4), space, names=names)
    found = sorted(str(p.relative_to(tmp_path / "made")) for p in tmp_path.rglob("made/**/*.png"))
    assert found == ["a.png", "a_2.png", "b/a.png", "b/a.v2.png"]


def test_other_data(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("\n".join(["a cat", "a dog", "an owl"] * 10))
    vs.train("t.txt", run="t", latent=2, steps=1)
    assert main(["sample", "t", "-n", "2", "-o", "texts/"]) == 0
    assert sorted(p.name for p in (tmp_path / "texts").iterdir()) == ["0001.txt", "0002.txt"]
    vs.train(np.random.default_rng(0).normal(size=(60, 3)), run="v", latent=2, steps=1)
    assert main(["sample", "v", "-n", "2", "-o", "vectors/"]) == 0
    assert np.load("vectors/0002.npy").shape == (3,)
    vs.train({"a": np.arange(60) / 7, "b": np.arange(60) / 3}, run="c", latent=2, steps=1)
    capsys.readouterr()
    assert main(["sample", "c", "-n", "2", "-o", "rows/"]) == 2
    assert "a table is one file: write rows.csv instead" in capsys.readouterr().err


def test_a_folder_of_arrays(tmp_path, capsys):
    values = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    for i, row in enumerate(values):
        (tmp_path / "data" / f"c{i % 2}").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "data" / f"c{i % 2}" / f"x{i:02}.npy", row)
    data = vs.load("data")
    assert data.space.outside == (5,) and set(data.train.attributes["class"]) == {"c0", "c1"}
    names = np.concatenate([s.attributes["file"] for s in (data.train, data.valid, data.test)])
    back = np.concatenate([s.outward() for s in (data.train, data.valid, data.test)])
    assert np.allclose(back, [values[int(n[-6:-4])] for n in names], atol=1e-6)
    vs.train("data", run="r", latent=2, steps=1, network="mlp:width=4")
    assert main(["sample", "r", "-n", "2", "-o", "made/"]) == 0
    assert np.load("made/0002.npy").shape == (5,)
    assert main(["reconstruct", "r", "data", "-o", "again/"]) == 0
    assert np.load("again/c1/x01.npy").shape == (5,)
    capsys.readouterr()
    assert main(["train", "data:size=8", "--run", "n"]) == 2
    assert "size= does not apply to arrays (data)" in capsys.readouterr().err
    np.save(tmp_path / "data" / "c0" / "x00.npy", np.zeros(4))
    assert main(["train", "data", "--run", "n"]) == 2
    assert "got (5,) (19, such as c0/x02.npy) and (4,) (1, such as" in capsys.readouterr().err
