"""Pieces of large images."""

import numpy as np
import pytest
from PIL import Image

import vaestro as vs
from vaestro.cli import main


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def picture(height, width, dtype=np.uint8):
    """Return an image in which each pixel has another value, as far as there are values."""
    values = np.random.default_rng(height).integers(0, np.iinfo(dtype).max, (height, width))
    return values.astype(dtype)


@pytest.mark.parametrize(("height", "width"), [(60, 200), (300, 40)])
def test_pieces_are_those_of_the_image_and_do_not_overlap(height, width):
    image = picture(height, width, np.uint16)
    Image.fromarray(image).save("a.png")
    data = vs.load("a.png:crops=400,size=8x6,levels=65536")
    assert [len(s) for s in (data.train, data.valid, data.test)] == [360, 20, 20]
    along = 0 if height > width else 1
    ends = []
    for rows in (data.train, data.valid, data.test):
        corners = np.stack([rows.attributes["top"], rows.attributes["left"]], 1)
        for piece, (top, left) in zip(rows.outward(), corners, strict=True):
            assert np.array_equal(piece, image[top : top + 8, left : left + 6])
        assert len(np.unique(corners, axis=0)) > len(rows) / 2
        ends.append((corners[:, along].min(), (corners[:, along] + (8, 6)[along]).max()))
    assert ends[0][1] <= ends[1][0] and ends[1][1] <= ends[2][0] <= max(height, width)
    again = vs.load("a.png:crops=400,size=8x6,levels=65536")
    assert np.array_equal(again.train.outward(), data.train.outward())
    other = vs.load("a.png:crops=400,size=8x6,levels=65536,seed=1")
    assert not np.array_equal(other.train.outward(), data.train.outward())
    note = (
        "400 random pieces of 8x6 from 1 image; held-out pieces are from other parts of the image"
    )
    assert note in data.notes


def test_pieces_of_a_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for i, side in enumerate((64, 128)):
        Image.fromarray(picture(side, 100)).save(tmp_path / "photos" / f"{i}.png")
    data = vs.load("photos:crops=300,size=16")
    files = data.train.attributes["file"]
    assert 0.2 < (files == "0.png").mean() < 0.5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a.png", "at least 10 rows, .*: cut the image into pieces with crops=1000,"),
        ("a.png:crops=100", "crops=100 needs the size of a piece: add size=32"),
        ("a.png:crops=100,size=32", "a.png has 60x90 pixels, too few for .* pieces of 32x32"),
        ("a.png:crops=5,size=8", "expected crops of 20 or more; got 5"),
    ],
)
def test_refusals(source, message):
    Image.fromarray(picture(60, 90)).save("a.png")
    with pytest.raises(ValueError, match=message):
        vs.load(source)


def test_one_image_is_reconstructed(tmp_path):
    Image.fromarray(picture(60, 90)).save("a.png")
    options = ["--latent", "2", "--steps", "1", "--network", "mlp:width=4"]
    assert main(["train", "a.png:crops=100,size=8", "--run", "r", *options]) == 0
    Image.fromarray(picture(8, 8)).save("b.png")
    assert main(["encode", "r", "b.png", "-o", "z.npy"]) == 0
    assert np.load("z.npy").shape == (1, 2)
    assert main(["reconstruct", "r", "b.png", "-o", "out.png"]) == 0
    assert main(["reconstruct", "r", "b.png", "-o", "out/"]) == 0
    assert np.asarray(Image.open("out/b.png")).shape == (8, 8)
