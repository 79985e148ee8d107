import io
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vaestro.data import cache, images
from vaestro.data.images import read_images
from vaestro.text import is_input_error

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def smooth(height=12, width=16, channels=3, phase=0.0):
    """Paint slow waves, which JPEG keeps well."""
    y, x, c = np.ogrid[:height, :width, :channels]
    picture = 127.5 + 100 * np.sin(phase + 2 * np.pi * (y / height + c / 3)) * np.cos(
        2 * np.pi * x / width
    )
    return np.rint(picture).astype(np.uint8).squeeze()


def save(path, picture=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = (
        picture
        if isinstance(picture, Image.Image)
        else Image.fromarray(smooth() if picture is None else picture)
    )
    image.save(path, **options)


def only(folder, **options):
    """Read a folder of one image."""
    raw = read_images(folder, options)
    assert len(raw.splits["all"]) == 1
    return raw.splits["all"][0], raw.notes


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def refused(folder, expected, **options):
    with pytest.raises(ValueError, match=expected) as caught:
        read_images(folder, options)
    assert is_input_error(caught.value) and "\n" not in str(caught.value)
    assert not cache.entries() and not list(cache.folder().glob("*.part"))


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "suffix", [".png", ".jpg", ".JPEG", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_formats(folder, suffix, channels):
    picture = smooth(channels=channels)
    fine = {"quality": 95, "subsampling": 0}
    options = {".webp": {"lossless": True}, ".jpg": fine, ".JPEG": fine}.get(suffix, {})
    save(folder / f"a{suffix}", picture, **options)
    if suffix == ".gif" and channels == 3:
        picture = np.asarray(Image.open(folder / "a.gif").convert("RGB"))  # in 256 colours
    found, notes = only(folder, channels="grey" if channels == 1 else "colour")
    assert found.shape == picture.shape and found.dtype == np.uint8
    # A GIF has a palette and a WebP three channels, whatever they show.
    assert notes == (
        ("1 of 1 images are not stored as grey and are read as grey",)
        if channels == 1 and suffix in (".gif", ".webp")
        else ()
    )
    assert np.abs(found.astype(int) - picture).max() <= (12 if suffix in (".jpg", ".JPEG") else 0)


def test_what_is_read_and_in_what_order(folder):
    for name in (
        "b/2.png",
        "b.png",
        "a/z.png",
        "a/10.png",
        ".hidden.png",
        ".folder/x.png",
        "a/.x/y.png",
    ):
        save(folder / name, np.full((8, 8), len(name), np.uint8))
    (folder / "notes.txt").write_text("not an image")
    raw = read_images(folder, {"kind": "levels"})
    names = ["a/10.png", "a/z.png", "b.png", "b/2.png"]
    assert list(raw.splits) == ["all"] and raw.attributes["all"]["file"].tolist() == names
    assert raw.splits["all"][:, 0, 0].tolist() == [*map(len, names)]
    assert raw.notes == ()
    for i in range(11):
        (folder / f"{i}.csv").touch()
    assert read_images(folder, {}).notes == ("12 files that are not images left out",)


def test_the_first_frame_is_read(folder):
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (10, 200)]
    for suffix in (".gif", ".tif", ".png", ".webp"):
        save(
            folder / f"a{suffix}",
            frames[0],
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if suffix == ".webp" else {}),
        )
    assert (read_images(folder, {}).splits["all"] == np.full((4, 8, 8, 1), 10)).all()


def test_the_content_counts_and_not_the_name(folder):
    Image.fromarray(smooth()).save(folder / "a.jpg", format="PNG")
    assert np.array_equal(only(folder)[0], smooth())


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    save(tmp_path / "elsewhere" / "a.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (folder / "broken.png").symlink_to("nothing")
    assert read_images(folder, {}).attributes["all"]["file"].tolist() == ["linked/a.png"]


# -- levels and channels ---------------------------------------------------------------------------


def test_images_are_grey_if_all_are(folder):
    save(folder / "a.png", smooth(channels=1))
    save(folder / "b.png", smooth(channels=1) > 127)
    save(folder / "c.png", Image.fromarray(smooth(channels=1)).convert("LA"))
    raw = read_images(folder, {})
    assert raw.splits["all"].shape == (3, 12, 16) and raw.notes == ()
    assert np.array_equal(raw.splits["all"][1], np.where(smooth(channels=1) > 127, 255, 0))
    assert np.array_equal(raw.splits["all"][2], smooth(channels=1))
    colour = read_images(folder, {"channels": "color"})
    assert np.array_equal(colour.splits["all"], np.repeat(raw.splits["all"][..., None], 3, -1))
    assert colour.notes == ("3 of 3 images are grey and are read as colour",)
    save(folder / "d.png")
    mixed = read_images(folder, {})
    assert np.array_equal(mixed.splits["all"][:3], colour.splits["all"]) and np.array_equal(
        mixed.splits["all"][3], smooth()
    )
    assert mixed.notes == ("3 of 4 images are grey and are read as colour",)
    grey = read_images(folder, {"channels": "gray"})
    assert np.array_equal(grey.splits["all"][:3], raw.splits["all"])
    assert grey.notes == ("1 of 4 images are not stored as grey and are read as grey",)
    assert np.array_equal(grey.splits["all"][3], Image.fromarray(smooth()).convert("L"))


@pytest.mark.parametrize("size", [None, "12x16"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bits_are_kept_or_scaled_to_8(folder, suffix, size):
    levels = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16)
    levels = levels * 341  # 0 .. 65131
    levels[-1, -1] = 65535
    save(folder / f"a{suffix}", levels)
    kept, notes = only(folder, **({"size": size} if size else {}))
    assert kept.dtype == np.uint16 and np.array_equal(kept, levels) and not notes
    found, notes = only(folder, depth=8, **({"size": size} if size else {}))
    assert np.array_equal(found, np.rint(levels / 257)) and found.max() == 255
    assert notes == ("1 images of 16 bits scaled to 8 bits (65535 becomes 255)",)


def test_palettes(folder):
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:4], picture[4:] = RED, (10, 20, 30)
    save(folder / "a.png", Image.fromarray(picture).quantize(4))
    assert Image.open(folder / "a.png").mode == "P"
    assert np.array_equal(only(folder)[0], picture)


def transparent(mode):
    """Paint a red or black upper half, half-transparent on the left; the lower half is not to be
    seen."""
    image = Image.new(
        "RGBA" if mode == "P" else mode, (8, 8), (*RED, 255) if mode != "LA" else (0, 255)
    )
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[4:] = 0
    alpha[:4, :4] = 255 if mode == "P" else 127
    image.putalpha(Image.fromarray(alpha))
    return image.quantize(4) if mode == "P" else image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(folder, mode):
    save(folder / "a.png", transparent(mode))
    found, notes = only(folder, channels="colour")
    full = np.array(RED if mode != "LA" else (0, 0, 0))
    assert (found[4:] == 255).all() and (found[:4, 4:] == full).all()
    assert np.abs(found[:4, :4] - (full if mode == "P" else 0.5 * full + 127.5)).max() <= 1
    assert notes[-1] == "1 images with transparency put on white (channels=rgba keeps it)"
    assert notes[:-1] == (
        ("1 of 1 images are grey and are read as colour",) if mode == "LA" else ()
    )
    grey, _ = only(folder, channels="grey")
    assert np.array_equal(grey, Image.fromarray(found).convert("L"))


def test_no_edge_of_what_is_transparent_shows_after_scaling(folder):
    picture = np.zeros((32, 32, 4), np.uint8)
    picture[:, 16:] = (*RED, 0)  # red, but not to be seen
    picture[:, :16] = (255, 255, 255, 255)
    save(folder / "a.png", picture)
    assert (only(folder, size=9)[0] == 255).all()


def test_opaque_alpha_is_no_note(folder):
    save(folder / "a.png", np.dstack([smooth(), np.full((12, 16), 255, np.uint8)]))
    found, notes = only(folder)
    assert np.array_equal(found, smooth()) and not notes


def test_cmyk(folder):
    picture = Image.fromarray(smooth(48, 64)).convert("CMYK")
    save(folder / "a.jpg", picture, quality=95)
    save(folder / "b.tif", picture)
    raw = read_images(folder, {}).splits["all"]
    assert raw.shape == (2, 48, 64, 3)
    assert np.abs(raw.astype(int) - smooth(48, 64)).max() <= 12
    assert read_images(folder, {"size": 8}).splits["all"].shape == (2, 8, 8, 3)


@pytest.mark.parametrize("size", [None, "16x24"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns_images_upright(folder, suffix, turn, size):
    stored = Image.fromarray(
        smooth(32, 48)[:, :, ::-1] // 2 + np.arange(48, dtype=np.uint8)[:, None]
    )
    exif = Image.Exif()
    exif[0x0112] = turn
    save(
        folder / f"a{suffix}",
        stored,
        exif=exif,
        **({"lossless": True} if suffix == ".webp" else {}),
    )
    with Image.open(folder / f"a{suffix}") as opened:
        opened.load()
        wanted = ImageOps.exif_transpose(opened).convert("RGB")
    if size:
        wanted = ImageOps.fit(wanted, (24, 16), Image.Resampling.LANCZOS)
    found, _ = only(folder, **({"size": size} if size else {}))
    assert np.abs(found.astype(int) - np.asarray(wanted)).max() <= (
        0 if not size else 3 if suffix == ".jpg" else 1
    )


def test_images_that_exif_turns_to_one_size_fit_together(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "a.jpg", smooth(32, 48))
    save(folder / "b.jpg", smooth(48, 32), exif=exif)
    assert read_images(folder, {}).splits["all"].shape == (2, 32, 48, 3)


def test_damaged_exif_is_passed_over(folder):
    save(folder / "a.jpg", smooth(32, 48), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05junk")
    assert only(folder)[0].shape == (32, 48, 3)


# -- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "shape"), [(8, (8, 8)), ("8", (8, 8)), ("6x9", (6, 9)), ("32x40", (32, 40))]
)
def test_sizes(folder, size, shape):
    for i, (height, width) in enumerate([(12, 16), (30, 20), (9, 9)]):
        save(folder / f"{i}.png", smooth(height, width))
    assert read_images(folder, {"size": size}).splits["all"].shape == (3, *shape, 3)


def striped(height, width, across):
    """Paint a green middle half between red quarters."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = RED
    if across:
        picture[:, width // 4 : -width // 4] = GREEN
    else:
        picture[height // 4 : -height // 4] = GREEN
    return picture


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("across", [True, False])
def test_crops(folder, suffix, across):
    options = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    save(folder / f"a{suffix}", striped(*((80, 160) if across else (160, 80)), across), **options)
    near = 3 if suffix == ".jpg" else 0
    middle, notes = only(folder, size=10)
    # The filter looks past the crop's edge, as it would in the scaled whole.
    inner = middle[:, 1:-1] if across else middle[1:-1]
    assert np.abs(inner.astype(int) - GREEN).max() <= max(near, 12)
    assert notes == (
        "1 images cropped at the centre and scaled to 10x10 (crop=none stretches them)",
    )
    assert np.array_equal(only(folder, size=10, crop="center")[0], middle)
    whole, notes = only(folder, size=16, crop="none")
    line = whole[8] if across else whole[:, 8]
    assert np.abs(line[[0, 1, 14, 15]].astype(int) - RED).max() <= max(near, 12)
    assert np.abs(line[[6, 7, 8, 9]].astype(int) - GREEN).max() <= max(near, 12)
    assert notes == ("1 images stretched to 16x16",)


def test_a_crop_keeps_the_centre_where_it_is(folder):
    picture = np.zeros((40, 100), np.uint8)
    picture[20:24, 48:52] = 255
    save(folder / "a.png", picture)
    found, _ = only(folder, size=40)
    assert np.array_equal(found, picture[:, 30:70])
    found, _ = only(folder, size="20x50")
    assert found[10:12, 24:26].min() > 200 and found.sum() - found[9:13, 23:27].sum() < 255


@pytest.mark.parametrize("size", [16, 30, "24x40", 100])
def test_jpeg_is_reduced_while_decoding_to_nearly_the_same(folder, size):
    rng = np.random.default_rng(0)
    picture = smooth(300, 400) // 2 + rng.integers(0, 60, (300, 400, 3), dtype=np.uint8)
    save(folder / "a.jpg", picture, quality=95)
    height, width = map(int, size.split("x")) if isinstance(size, str) else (size, size)
    with Image.open(folder / "a.jpg") as opened:
        wanted = np.asarray(
            ImageOps.fit(opened.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
        )
    found, _ = only(folder, size=size)
    assert np.abs(found.astype(int) - wanted).mean() < 1


def test_what_was_done_to_sizes_is_said(folder):
    for i, (height, width) in enumerate([(8, 8), (16, 16), (4, 4), (16, 20), (6, 20)]):
        save(folder / f"{i}.png", smooth(height, width))
    assert read_images(folder, {"size": 8}).notes == (
        "2 images cropped at the centre and scaled to 8x8 (crop=none stretches them)",
        "2 images scaled to 8x8",
        "2 images are smaller than 8x8 and were enlarged",
    )


def test_mixed_sizes_need_a_size(folder):
    for i, (height, width) in enumerate(
        [(48, 64), (48, 64), (60, 80), (33, 40), (100, 100), (101, 100)]
    ):
        save(folder / f"{i}.png", smooth(height, width))
    text = (
        r"one size; got height x width 48x64 \(2\), .* \(1\), .* \(1\) and 2 more: "
        r"scale them with size=24x32$"
    )
    refused(folder, text)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(257, 257, "64"), (300, 40, "124x17"), (20, 400, "10x202")]
)
def test_large_images_need_a_size_before_any_is_decoded(folder, monkeypatch, height, width, size):
    for i in range(3):
        save(folder / f"{i}.png", smooth(height, width))
    with monkeypatch.context() as m:
        m.setattr(images, "decode_image", lambda *_: pytest.fail("decoded"))
        text = (
            rf"sides of at most 256.*; got height x width {height}x{width} \(3\): scale "
            rf"them with size={size}, or keep"
        )
        refused(folder, text)
    assert read_images(folder, {"size": f"{height}x{width}"}).splits["all"].shape == (
        3,
        height,
        width,
        3,
    )
    assert read_images(folder, {"size": 8}).splits["all"].shape == (3, 8, 8, 3)


def test_images_up_to_256_need_none(folder):
    save(folder / "a.png", smooth(256, 256))
    assert only(folder)[0].shape == (256, 256, 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": 3}, "expected size as 64 or 48x64 .*; got 3$"),
        ({"size": "64x2"}, "got '64x2'$"),
        ({"size": "big"}, "got 'big'$"),
        ({"size": 64.5}, "got 64.5$"),
        ({"size": True}, "got True$"),
        ({"size": -64}, "got -64$"),
        ({"size": 10**9}, "got 1000000000$"),
        ({"size": 8, "crop": "left"}, "expected crop to be center or none; got 'left'"),
        ({"crop": "center"}, "crop=center has an effect only with size="),
        ({"channels": 2}, "expected channels to be grey, colour or rgba; got 2"),
        ({"depth": 12}, r"expected depth to be 8 or 16 \(bits\); got 12"),
        ({"pages": "some"}, "expected pages to be first, all or channels; got 'some'"),
        ({"volume": True, "pages": "all"}, "volume=true reads the pages of a file as slices"),
        ({"strict": "yes please"}, "expected strict to be true or false; got 'yes please'"),
    ],
)
def test_options_that_cannot_be(folder, options, expected):
    save(folder / "a.png")
    refused(folder, expected, **options)


# -- attributes and splits -------------------------------------------------------------------------


def test_class_folders(folder):
    for name in ("dog/1.png", "cat/deep/er/2.png", "cat/3.png"):
        save(folder / name)
    raw = read_images(folder, {})
    assert raw.attributes["all"]["class"].tolist() == ["cat", "cat", "dog"]
    assert raw.attributes["all"]["file"].tolist() == ["cat/3.png", "cat/deep/er/2.png", "dog/1.png"]
    assert all(isinstance(values, np.memmap) for values in raw.attributes["all"].values())


@pytest.mark.parametrize(
    "names", [("1.png", "2.png"), ("cat/1.png", "cat/2.png"), ("cat/1.png", "dog/2.png", "3.png")]
)
def test_no_class_without_two_folders_for_all(folder, names):
    for name in names:
        save(folder / name)
    assert list(read_images(folder, {}).attributes["all"]) == ["file"]


@pytest.mark.parametrize("valid", ["valid", "val", "Validation"])
def test_own_splits(folder, valid):
    names = [
        "train/cat/1.png",
        "train/dog/2.png",
        "train/dog/3.png",
        f"{valid}/cat/4.png",
        "test/dog/5.png",
        "test/cat/6.png",
    ]
    for i, name in enumerate([*names, "extra/7.png", "8.png"]):
        save(folder / name, np.full((8, 8), i, np.uint8))
    raw = read_images(folder, {})
    wanted = {"train": [0, 1, 2], "valid": [3], "test": [5, 4]}
    assert {s: a[:, 0, 0].tolist() for s, a in raw.splits.items()} == wanted
    assert {s: a["file"].tolist() for s, a in raw.attributes.items()} == {
        s: [names[i] for i in w] for s, w in wanted.items()
    }
    assert raw.attributes["train"]["class"].tolist() == ["cat", "dog", "dog"]
    assert raw.attributes["test"]["class"].tolist() == ["cat", "dog"]
    assert raw.notes == ("2 images outside train, valid, test left out",)
    assert all(isinstance(a, np.memmap) and not a.flags.writeable for a in raw.splits.values())


@pytest.mark.parametrize("tops", [("train", "test"), ("train", "val")])
def test_two_splits_are_enough(folder, tops):
    for top in tops:
        save(folder / top / "a.png")
    raw = read_images(folder, {})
    assert list(raw.splits) == ["train", "valid" if tops[1] == "val" else "test"] and list(
        raw.attributes["train"]
    ) == ["file"]


@pytest.mark.parametrize("tops", [("train", "dogs"), ("valid", "test")])
def test_what_is_not_splits_is_classes(folder, tops):
    for top in tops:
        save(folder / top / "a.png")
    raw = read_images(folder, {})
    assert list(raw.splits) == ["all"] and raw.attributes["all"]["class"].tolist() == sorted(tops)


def test_a_split_with_two_folders_is_refused(folder):
    for top in ("train", "val", "valid"):
        save(folder / top / "a.png")
    refused(folder, "expected one folder for each split in .*; got train, val, valid")


def test_splits_stay_in_place_when_files_are_skipped(folder):
    for split, n in (("train", 5), ("valid", 3), ("test", 2)):
        for i in range(n):
            save(folder / split / f"{i}.png", smooth(phase=i))
    for name in ("train/0.png", "train/3.png", "valid/2.png", "test/0.png"):
        cut(folder / name, 0.8)
    (folder / "valid" / "0.png").write_text("not an image")
    raw = read_images(folder, {})
    kept = {"train": [1, 2, 4], "valid": [1], "test": [1]}
    for split, numbers in kept.items():
        assert np.array_equal(raw.splits[split], [smooth(phase=i) for i in numbers])
        assert raw.attributes[split]["file"].tolist() == [f"{split}/{i}.png" for i in numbers]
    text = (
        "5 of 10 files skipped, which are damaged or unreadable: train/0.png, train/3.png, "
        "valid/0.png, ..."
    )
    assert raw.notes == (text,)
    cut(folder / "test" / "1.png")
    assert list(read_images(folder, {}).splits) == ["train", "valid"]


# -- bad input -------------------------------------------------------------------------------------


def test_an_empty_folder_is_refused(folder):
    refused(folder, rf"expected images in {folder}; got none$")
    (folder / "a.txt").write_text("text")
    refused(folder, rf"expected images in {folder}; got none among 1 file$")
    refused(folder / "a.txt", "expected a folder of images; got ")


def damaged(folder):
    """Write ten good images, a JPEG that ends too soon and a text named .png."""
    for i in range(10):
        save(folder / f"{i}.jpg", smooth(48, 64, phase=i), quality=95)
    cut(folder / "3.jpg")
    (folder / "text.png").write_text("not an image")


@pytest.mark.parametrize("options", [{}, {"size": 16}, {"channels": "grey"}])
def test_damaged_files_are_skipped_with_their_names(folder, options):
    damaged(folder)
    raw = read_images(folder, options)
    assert raw.attributes["all"]["file"].tolist() == [f"{i}.jpg" for i in range(10) if i != 3]
    assert raw.notes[0] == "2 of 11 files skipped, which are damaged or unreadable: 3.jpg, text.png"
    (folder / "3.jpg").unlink()
    (folder / "text.png").unlink()
    assert np.array_equal(read_images(folder, options).splits["all"], raw.splits["all"])


def test_damaged_files_are_refused_if_asked(folder):
    damaged(folder)
    expected = (
        r"^strict=true allows no unusable images, but 2 of 11 files are damaged "
        r"or unreadable: 3.jpg, text.png: repair"
    )
    for _ in range(2):  # also from the cache
        with pytest.raises(ValueError, match=expected):
            read_images(folder, {"strict": True})
    assert (
        len(read_images(folder, {"strict": False}).splits["all"]) == 9 and len(cache.entries()) == 1
    )
    (folder / "3.jpg").unlink()
    (folder / "text.png").unlink()
    assert len(read_images(folder, {"strict": True}).splits["all"]) == 9


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".webp", ".tif", ".ppm"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.7])
def test_every_format_may_end_too_soon(folder, suffix, share):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    save(folder / f"a{suffix}", noise)
    save(folder / f"b{suffix}", noise)
    cut(folder / f"b{suffix}", share)
    raw = read_images(folder, {})
    assert raw.attributes["all"]["file"].tolist() == [f"a{suffix}"] and raw.notes == (
        f"1 of 2 files skipped, which are damaged or unreadable: b{suffix}",
    )


def test_nothing_that_can_be_used_is_refused(folder):
    damaged(folder)
    for i in range(10):
        cut(folder / f"{i}.jpg", 0.6)
    text = (
        r"none of the 11 image files in .* can be used: 11 are damaged or unreadable \(0.jpg, "
        r"1.jpg, 2.jpg, ...\)"
    )
    refused(folder, text)
    refused(folder, text, size=16)
    for top in ("train", "test"):
        save(folder / "split" / top / "a.png")
    cut(folder / "split" / "train" / "a.png")
    refused(folder / "split", "none of the training images in .* can be used")


def bomb(path, side):
    """Write a PNG whose header promises side x side pixels."""
    small = io.BytesIO()
    Image.new("1", (side, 8)).save(small, "PNG")
    content = bytearray(small.getvalue())
    content[20:24] = side.to_bytes(4, "big")
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("side", [9_500, 20_000])
def test_decompression_bombs_are_not_decoded(folder, monkeypatch, side):
    save(folder / "a.png")
    bomb(folder / "bomb.png", side)
    raw = read_images(folder, {"size": 8})
    assert raw.attributes["all"]["file"].tolist() == ["a.png"]
    assert raw.notes[0] == "1 of 2 files skipped, which have more than 89 million pixels: bomb.png"
    with pytest.raises(
        ValueError, match=r"strict=true .* 1 of 2 files have more than 89 million pixels: bomb.png"
    ):
        read_images(folder, {"size": 8, "strict": True})
    shutil.rmtree(cache.folder())
    (folder / "a.png").unlink()
    monkeypatch.setattr(images, "decode_image", None)
    refused(folder, r".* can be used: 1 have more than 89 million pixels \(bomb.png\)", size=8)


def test_tiny_images_are_not_used(folder):
    save(folder / "dot.png", smooth(1, 5))
    refused(folder, r".* can be used: 1 are smaller than 4x4 \(dot.png\)")
    save(folder / "a.png")
    assert read_images(folder, {}).notes == (
        "1 of 2 files skipped, which are smaller than 4x4: dot.png",
    )


def test_values_of_32_bits_are_not_cut_to_8(folder):
    save(folder / "a.tif", Image.fromarray(smooth(channels=1).astype(np.float32)))
    save(folder / "b.tif", Image.fromarray(smooth(channels=1).astype(np.int32)))
    refused(folder, r"different types of values: float32 \(1, such as a.tif\) and int32 \(1, such")
    refused(folder, "depth=8 scales images of 8 and 16 bits, but .* has float32", depth=8)
    (folder / "b.tif").unlink()
    found, notes = only(folder)
    assert found.dtype == np.float32 and np.array_equal(found, smooth(channels=1)) and not notes


# -- the cache -------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch):
    """Count the images that are opened."""
    seen, real = [], Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: (seen.append(a), real(*a, **k))[1])
    return seen


def test_the_second_time_nothing_is_decoded(folder, opened):
    damaged(folder)
    first = read_images(folder, {"size": 16})
    assert len(opened) > 11
    opened.clear()
    for options in (
        {"size": 16},
        {"size": "16x16"},
        {"size": 16, "crop": "center"},
        {"size": 16, "kind": "levels", "strict": False},
    ):
        again = read_images(folder, options)
        assert np.array_equal(first.splits["all"], again.splits["all"])
        assert again.splits["all"].filename == first.splits["all"].filename
        assert (
            again.attributes["all"]["file"].tolist() == first.attributes["all"]["file"].tolist()
            and again.notes == first.notes
        )
    assert not opened and len(cache.entries()) == 1
    assert cache.entries()[0].source == str(folder)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda f: save(f / "0.png", smooth(phase=3)), {}),
        (lambda f: save(f / "new.png"), {}),
        (lambda f: (f / "0.png").unlink(), {}),
        (lambda f: (f / "0.png").rename(f / "2.png"), {}),
        (lambda f: os.utime(f / "0.png", ns=(1, 1)), {}),
        (lambda f: None, {"size": 16, "crop": "none"}),
        (lambda f: None, {"size": 16, "channels": "grey"}),
        (lambda f: None, {"size": 17}),
        (lambda f: None, {"size": None}),
    ],
)
def test_what_changes_is_decoded_again(folder, opened, change, options):
    for i in range(2):
        save(folder / f"{i}.png", smooth(phase=i))
    read_images(folder, {"size": 16})
    opened.clear()
    change(folder)
    read_images(folder, {"size": 16, **options})
    assert opened and len(cache.entries()) == 2


def test_what_is_beside_the_images_changes_nothing(folder, opened):
    save(folder / "a.png")
    read_images(folder, {})
    opened.clear()
    (folder / "a.txt").touch()
    save(folder / ".a.png")
    opened.clear()
    read_images(folder, {})
    assert not opened


def test_an_interrupted_reading_leaves_nothing(folder, home):
    for i in range(200):
        save(folder / f"{i}.ppm", np.zeros((4, 4), np.uint8))

    def stop(what, done, total):
        if what == "decoding":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_images(folder, {}, stop)
    assert list(home.iterdir()) == []
    assert len(read_images(folder, {}).splits["all"]) == 200


def test_running_out_of_memory_is_not_damage(folder, monkeypatch):
    def full(*args):
        raise MemoryError

    save(folder / "a.png")
    monkeypatch.setattr(images, "decode_image", full)
    with pytest.raises(MemoryError):
        read_images(folder, {})


def test_progress_is_told(folder):
    for i in range(300):
        save(folder / f"{i}.ppm", np.zeros((4, 4), np.uint8))
    told = []
    read_images(folder, {}, lambda *a: told.append(a))
    for what in ("reading headers", "decoding"):
        done = [d for w, d, total in told if w == what and total == 300]
        assert done == sorted(set(done)) and done[-1] == 300 and 2 <= len(done) <= 101


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="tells memory apart on Linux alone"
)
def test_memory_stays_flat(folder):
    def anonymous():
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024

    save(folder / "0.ppm", smooth(256, 256))
    for i in range(1, 300):
        os.link(folder / "0.ppm", folder / f"{i}.ppm")
    before, seen = anonymous(), []
    raw = read_images(folder, {}, lambda *a: seen.append(anonymous()))
    assert raw.splits["all"].nbytes > 55e6
    assert max(*seen, anonymous()) - before < 15
