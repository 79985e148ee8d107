"""Images keep their depth, bands, pages and transparency, and attributes come from their names and
from tables."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import vaestro as vs
from vaestro.data.images import read_images
from vaestro.data.opening import open_source, with_layout

tifffile = pytest.importorskip("tifffile")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def wave(height=12, width=16, most=4095, phase=0.0):
    """Return slow waves from 0 to `most`."""
    y, x = np.ogrid[:height, :width]
    values = 0.5 + 0.5 * np.sin(phase + 2 * np.pi * y / height) * np.cos(2 * np.pi * x / width)
    return np.rint(values * most).astype(np.uint16)


def png16(values):
    """Return a PNG of 16 bits per colour."""
    height, width, channels = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)

    def chunk(name, content):
        crc = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + crc

    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def only(folder, **options):
    raw = read_images(folder, options)
    assert len(raw.splits["all"]) == 1
    return raw.splits["all"][0], raw.notes


# -- depth -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "levels", "step"), [(1, 4096, 1), (16, 4096, 16), (0.5, 2**12, 1), (0.2, 1024, 1)]
)
def test_cameras_of_12_bits_keep_all_their_levels(folder, factor, levels, step):
    frames = [(wave(phase=i) * factor).astype(np.uint16) for i in range(20)]
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{i:02}.png")
    data = vs.load(folder)
    assert (data.space.levels, data.space.step, data.space.dtype) == (levels, step, "uint16")
    assert data.space.default_likelihood == "logistic-mixture"
    back = data.train.outward()
    assert back.dtype == np.uint16
    assert np.array_equal(back, np.stack(frames)[np.array(data.train.index)])
    assert any(f"levels of {levels.bit_length() - 1} bits" in note for note in data.notes)


def test_levels_can_be_chosen(folder):
    for i in range(20):
        Image.fromarray(wave(phase=i)).save(folder / f"{i:02}.png")
    assert vs.load(f"{folder}:levels=65536").space.levels == 65536
    assert vs.load(f"{folder}:kind=real").space.levels == 0
    shallow = vs.load(f"{folder}:depth=8")
    assert (shallow.space.dtype, shallow.space.levels) == ("uint8", 17)


def test_images_of_a_run_have_its_depth(folder):
    for i in range(20):
        Image.fromarray(wave(phase=i)).save(folder / f"{i:02}.png")
    shallow, deep = vs.load(f"{folder}:depth=8").space, vs.load(folder).space
    assert with_layout("photos", shallow) == "photos:size=12x16,channels=grey,depth=8"
    assert open_source(with_layout("photos", deep)).raw.splits["all"].dtype == np.uint16


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits(folder, channels):
    values = np.random.default_rng(0).integers(0, 65536, (8, 10, channels)).astype(np.uint16)
    if channels == 4:
        values[..., 3] |= 1
    (folder / "a.png").write_bytes(png16(values))
    found, _ = only(folder, **({"channels": "rgba"} if channels == 4 else {}))
    assert found.dtype == np.uint16
    assert np.abs(found.astype(int) - values).max() <= (1 if channels == 4 else 0)
    tifffile.imwrite(folder / "a.png", values[..., :3], photometric="rgb")
    assert np.array_equal(only(folder)[0], values[..., :3])


@pytest.mark.parametrize("most", [1023, 4095])
def test_a_pgm_keeps_the_values_of_its_largest_one(folder, most):
    values = np.minimum(wave(), most)
    header = f"P5 16 12 {most}\n".encode()
    (folder / "a.pgm").write_bytes(header + values.astype(">u2").tobytes())
    found, _ = only(folder)
    assert np.array_equal(found, values)


def test_depths_are_mixed_with_a_note(folder):
    Image.fromarray(wave(most=65535)).save(folder / "a.png")
    Image.fromarray(wave(most=255).astype(np.uint8)).save(folder / "b.png")
    raw = read_images(folder, {})
    assert np.array_equal(raw.splits["all"][1], wave(most=255) * 257)
    assert raw.notes == (
        "1 of 2 images have 8 bits and are read as 16 bits (255 becomes 65535; depth=8 reads all "
        "as 8 bits)",
    )


def test_scaling_keeps_depth_and_range(folder):
    values = wave(64, 64, 65535)
    Image.fromarray(values).save(folder / "a.png")
    tifffile.imwrite(folder / "b.tif", values)
    found = read_images(folder, {"size": 32}).splits["all"]
    exact = values.reshape(32, 2, 32, 2).mean((1, 3))
    assert np.array_equal(found[0], found[1]) and found.dtype == np.uint16
    assert np.abs(found[0] - exact).max() < 0.02 * 65535 and len(np.unique(found)) > 256
    assert found.max() <= values.max() and found.min() >= values.min()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "float16"])
def test_values_of_tiff_are_kept(folder, dtype):
    values = (wave() / 7 - 100).astype(dtype)
    tifffile.imwrite(folder / "a.tif", values)
    found, notes = only(folder)
    assert found.dtype == dtype and np.array_equal(found, values) and not notes


# -- bands, pages and frames -----------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["pages", "lines", "contig", "separate", "imagej"])
def test_five_bands(folder, layout):
    values = np.random.default_rng(1).random((32, 30, 5)).astype(np.float32)
    planes = values.transpose(2, 0, 1)
    if layout == "pages":
        tifffile.imwrite(folder / "a.tif", planes)
    elif layout == "lines":
        tifffile.imwrite(folder / "a.tif", values)
    elif layout == "imagej":
        tifffile.imwrite(folder / "a.tif", planes, imagej=True, metadata={"axes": "CYX"})
    else:
        kept = values if layout == "contig" else planes
        tifffile.imwrite(folder / "a.tif", kept, photometric="minisblack", planarconfig=layout)
    found, notes = only(folder)
    assert found.shape == values.shape and np.array_equal(found, values)
    several = layout in ("pages", "lines", "imagej")
    assert any("read as the bands of an image" in note for note in notes) == several
    assert only(folder, size=16)[0].shape == (16, 16, 5)


def test_other_bands_are_refused(folder):
    for bands in (4, 5):
        values = np.zeros((16, 16, bands), np.float32)
        tifffile.imwrite(
            folder / f"{bands}.tif", values, photometric="minisblack", planarconfig="contig"
        )
    with pytest.raises(ValueError, match=r"the same bands in .*; got 4 bands \(1, such as 4.tif\)"):
        read_images(folder, {})
    with pytest.raises(ValueError, match="channels=grey converts grey and colour images, but"):
        read_images(folder, {"channels": "grey"})


def animation(path, levels=(10, 90, 200)):
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in levels]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def test_frames_and_pages(folder):
    animation(folder / "a.tif")
    animation(folder / "b.gif", (20, 30, 40))
    first = read_images(folder, {"channels": "grey"})
    assert first.splits["all"][:, 0, 0].tolist() == [10, 20]
    assert first.notes[-1] == (
        "2 files have 3 pages, of which the first is read (pages=all reads each page, "
        "pages=channels as bands)"
    )
    every = read_images(folder, {"channels": "grey", "pages": "all"})
    assert every.splits["all"][:, 0, 0].tolist() == [10, 90, 200, 20, 30, 40]
    assert every.attributes["all"]["file"].tolist() == ["a.tif"] * 3 + ["b.gif"] * 3
    assert every.attributes["all"]["page"].tolist() == [0, 1, 2] * 2
    volumes = read_images(folder, {"channels": "grey", "volume": True})
    assert volumes.splits["all"].shape == (2, 3, 8, 8)
    assert volumes.splits["all"][1, :, 0, 0].tolist() == [20, 30, 40]
    (folder / "b.gif").unlink()
    assert read_images(folder, {"pages": "channels"}).splits["all"][0, 0, 0].tolist() == [
        10,
        90,
        200,
    ]


@pytest.mark.parametrize("name", ["{}/B02.tif", "x/{}_B02.tif"])
def test_a_file_for_each_band(folder, name):
    for tile in range(3):
        for i, band in enumerate(("B02", "B03", "B8A")):
            path = folder / name.format(f"tile{tile}").replace("B02", band)
            path.parent.mkdir(exist_ok=True, parents=True)
            tifffile.imwrite(path, wave(most=1000 * (1 + i), phase=tile))
    raw = read_images(folder, {})
    assert raw.splits["all"].shape == (3, 12, 16, 3) and raw.splits["all"].dtype == np.uint16
    assert np.array_equal(raw.splits["all"][2, ..., 1], wave(most=2000, phase=2))
    assert raw.attributes["all"]["file"][0] in ("tile0", "x/tile0")
    assert raw.notes == (
        "3 images with the bands B02, B03, B8A, a file each (bands=none reads each file as an "
        "image)",
    )
    assert len(read_images(folder, {"bands": "none"}).splits["all"]) == 9
    two = read_images(folder, {"bands": "B8A+B02"})
    assert np.array_equal(two.splits["all"][0, ..., 0], wave(most=3000))
    assert two.notes[-1] == "3 files of other bands left out"
    path.unlink()
    with pytest.raises(ValueError, match=r"1 of 3 images in .* lack a band, such as B8A of '"):
        read_images(folder, {"bands": "B02+B8A"})
    with pytest.raises(ValueError, match=r"no file in .* has the band 'B11'"):
        read_images(folder, {"bands": "B02+B11"})


def test_class_folders_with_equal_names_are_no_bands(folder):
    for top in ("disc", "ring"):
        for i in range(3):
            (folder / top).mkdir(exist_ok=True)
            Image.fromarray(wave()).save(folder / top / f"{i:03}.png")
    raw = read_images(folder, {})
    assert len(raw.splits["all"]) == 6 and not raw.notes


# -- transparency and formats ----------------------------------------------------------------------


@pytest.mark.parametrize("palette", [False, True])
def test_transparency_can_be_kept(folder, palette):
    values = np.zeros((32, 32, 4), np.uint8)
    values[8:16, 8:16] = (200, 100, 50, 255)
    values[16:18, 8:16] = (20, 20, 20, 128)
    values[0, 0] = (90, 90, 90, 0)  # unseen
    image = Image.fromarray(values)
    if palette:
        image = image.quantize(16, method=Image.Quantize.FASTOCTREE)
    image.save(folder / "a.png")
    found, notes = only(folder, channels="rgba")
    values[0, 0] = 0
    assert found.shape == (32, 32, 4) and not notes
    assert np.abs(found.astype(int) - values).max() <= (3 if palette else 0)
    assert only(folder, channels="rgba", size=16)[0].shape == (16, 16, 4)
    assert only(folder)[1] == ("1 images with transparency put on white (channels=rgba keeps it)",)


@pytest.mark.parametrize("suffix", [".avif", ".jfif", ".jp2", ".tga", ".heic"])
def test_more_formats(folder, suffix):
    values = np.stack([wave(32, 32, 255, phase) for phase in (0, 1, 2)], -1).astype(np.uint8)
    if suffix == ".heic":
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(Image.fromarray(values)).save(folder / "a.heic", quality=95)
    else:
        kind = {".jfif": "JPEG"}.get(suffix)
        Image.fromarray(values).save(folder / f"a{suffix}", format=kind, quality=95)
    found, _ = only(folder)
    assert np.abs(found.astype(int) - values).max() < 30


def test_what_needs_a_library_is_skipped_with_its_name(folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tifffile", None)
    Image.fromarray(wave(most=255).astype(np.uint8)).save(folder / "a.png")
    tifffile.imwrite(folder / "b.tif", np.zeros((8, 8, 3), np.uint16), photometric="rgb")
    assert read_images(folder, {}).notes == (
        "1 of 2 files skipped, which need tifffile (pip install 'vaestro[images]'): b.tif",
    )


# -- names and tables ------------------------------------------------------------------------------


def pictures(folder, *names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 10 * i, np.uint8)).save(folder / name)


def test_nested_class_folders_and_junk(folder):
    pictures(folder, "cat/tabby/1.png", "cat/siam/2.png", "dog/pug/3.png")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "1.png").write_bytes(b"")
    for i in range(20):
        (folder / "cat" / f"x{i}").mkdir()
        (folder / "cat" / f"x{i}" / "Thumbs.db").write_bytes(b"")
    raw = read_images(folder, {})
    assert raw.attributes["all"]["class"].tolist() == ["cat", "cat", "dog"]
    assert raw.attributes["all"]["class 2"].tolist() == ["siam", "tabby", "pug"]
    assert not raw.notes


@pytest.mark.parametrize(
    "names", [("a/1.png", "b/2.png"), ("photos/a/1.png", "photos/b/2.png"), ("1", "2")]
)
def test_a_table_beside_the_images(folder, names):
    pictures(folder, "a/1.png", "b/2.png", "b/007.png")
    lines = [f"{name},{i + 0.5},old" for i, name in enumerate((*names, "007", "nothing"))]
    (folder / "labels.csv").write_text("\n".join(["image,age,state", *lines]))
    raw = read_images(folder, {})
    attributes = raw.attributes["all"]
    order = attributes["file"].tolist()
    ages = dict(zip(order, attributes["age"].tolist(), strict=True))
    assert ages == {"a/1.png": 0.5, "b/2.png": 1.5, "b/007.png": 2.5}
    assert raw.notes == (
        "attributes age, state from labels.csv; 1 of its rows name no image (attributes=none "
        "leaves it out)",
    )
    assert "age" not in read_images(folder, {"attributes": "none"}).attributes["all"]


def test_a_named_table(folder, tmp_path):
    pictures(folder, "1.png", "2.png", "3.png")
    (tmp_path / "t.csv").write_text("name,weight\n1.png,2\n3.png,5\n")
    raw = read_images(folder, {"attributes": "t.csv"})
    assert raw.attributes["all"]["weight"].tolist()[::2] == [2, 5]
    assert raw.notes == ("attributes weight from t.csv; 1 of 3 images have no row in it",)
    (tmp_path / "t.csv").write_text("name,weight\nx.png,2\ny.png,5\n")
    with pytest.raises(ValueError, match=r"no row of t.csv names an image in .*'name' has x.png"):
        read_images(folder, {"attributes": "t.csv"})
    with pytest.raises(ValueError, match=r"there is no table u.csv for attributes="):
        read_images(folder, {"attributes": "u.csv"})


def test_one_image_is_a_source(folder):
    Image.fromarray(wave()).save(folder / "a.png")
    raw = read_images(folder / "a.png", {})
    assert np.array_equal(raw.splits["all"], wave()[None])
    assert raw.attributes["all"]["file"].tolist() == ["a.png"]
