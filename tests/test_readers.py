import gzip
import math
import struct
from dataclasses import replace

import numpy as np
import pytest

import vaestro as vs
from vaestro.data import sets
from vaestro.data.loading import load_rows
from vaestro.data.readers import parse_source, read
from vaestro.data.sets import Rows
from vaestro.randomness import Order, binarised, derive
from vaestro.spaces import Batch, BinarySpace, restored_space

GREY = BinarySpace((256,), (256,), "uint8", step=255.0, levels=2)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def mnist():
    return vs.load("mnist")


@pytest.fixture(scope="module")
def static():
    return vs.load("mnist:binarise=static")


@pytest.fixture(scope="module")
def grey():
    return vs.load("mnist:binarise=none")


def saved(path, array):
    np.save(path, array)
    return str(path)


def among(values, dtype, shape=(40, 6)):
    """Fill an array with the values in turn, so that each occurs."""
    return np.resize(np.array(values, dtype), shape)


# -- what the values are ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "kind", "low", "step", "levels"),
    [
        (among([False, True, True], bool), "binary", 0, 1, 2),
        (among([0, 1, 1], "uint8"), "binary", 0, 1, 2),
        (among([0, 255, 255], "uint8"), "binary", 0, 255, 2),
        (among([-1, 1, 1], "int8"), "binary", -1, 2, 2),
        (among([0.0, 1.0, 1.0], "float32"), "binary", 0, 1, 2),
        (among([-1.0, 1.0, 1.0], "float64"), "binary", -1, 2, 2),
        (among([0.25, 0.75, 0.75], "float64"), "binary", 0.25, 0.5, 2),
        (among(range(17), "uint8"), "levels", 0, 1, 17),
        (among(range(256), "uint8", (60, 6)), "levels", 0, 1, 256),
        (among([0, 200, 3], "int64"), "levels", 0, 1, 256),
        (among([3.0, 4.0, 7.0], "float64"), "levels", 0, 1, 8),
        (among([0.0, 0.5, 1.0], "float32"), "real", 0, 1, 0),
        (among([0.0, -3.0, 1.0], "float64"), "real", 0, 1, 0),
        (among([0.0, 1000.0, 1.0], "float64"), "real", 0, 1, 0),
    ],
)
def test_the_kind_is_inferred(array, kind, low, step, levels):
    space = vs.load(array).space
    assert (space.kind, space.low, space.step, space.levels, space.dtype) == (
        kind,
        low,
        step,
        levels,
        array.dtype.name,
    )


@pytest.mark.parametrize(
    ("options", "kind", "low", "levels"),
    [
        ("kind=category", "category", 3, 5),
        ("kind=levels", "levels", 0, 8),
        ("kind=levels,levels=20", "levels", 0, 20),
        ("kind=real", "real", 0, 0),
    ],
)
def test_a_kind_can_be_asked_for(tmp_path, options, kind, low, levels):
    source = saved(tmp_path / "x.npy", among([3, 4, 7], "int16"))
    data = vs.load(f"{source}:{options}")
    assert (data.space.kind, data.space.low, data.space.levels) == (kind, low, levels)
    assert data.source == f"{source}:{options}"
    assert data.notes[0].startswith(kind)


@pytest.mark.parametrize("values", [[-3, 0, 4], [0, 300, 7]])
def test_integers_that_could_be_anything_need_a_kind(values):
    with pytest.raises(ValueError, match="expected kind= for integers"):
        vs.load(among(values, "int32"))


def test_one_value_everywhere_is_refused():
    with pytest.raises(ValueError, match="expected data that vary; got 3"):
        vs.load(np.full((20, 4), 3))


# -- splits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "sizes"), [(200, (180, 10, 10)), (1000, (900, 50, 50)), (10, (8, 1, 1))]
)
def test_a_file_is_split_90_5_5(n, sizes):
    rows = np.arange(n) + 0.5
    data = vs.load(rows)
    splits = [s.outward() for s in (data.train, data.valid, data.test)]
    assert tuple(map(len, splits)) == sizes
    assert np.allclose(np.sort(np.concatenate(splits)), rows, atol=1e-3), (
        "every row is in exactly one split"
    )
    assert all((np.diff(s) > 0).all() for s in splits)


def test_the_split_follows_from_the_seed(tmp_path, rng):
    source = saved(tmp_path / "x.npy", rng.normal(size=(200, 3)))
    first, again, other = vs.load(source), vs.load(f"{source}:seed=0"), vs.load(f"{source}:seed=1")
    for split in ("train", "valid", "test"):
        assert first.split(split).sha256() == again.split(split).sha256()
        assert first.split(split).sha256() != other.split(split).sha256()


def test_sizes_of_splits_can_be_asked_for(tmp_path, rng):
    source = saved(tmp_path / "x.npy", rng.normal(size=(100, 3)))
    data = vs.load(f"{source}:valid=20,test=7")
    assert [len(data.split(s)) for s in ("train", "valid", "test")] == [73, 20, 7]
    data = vs.load(f"{source}:valid=0,test=0")
    assert (len(data.train), len(data.valid), len(data.test)) == (100, 0, 0)
    with pytest.raises(ValueError, match=r"the valid split of .* is empty"):
        data.split("valid")


def test_too_few_rows_are_not_split(rng):
    with pytest.raises(ValueError, match=r"expected at least 10 rows, to split .*; got 9"):
        vs.load(rng.normal(size=(9, 3)))


def test_an_npz_brings_its_splits_and_attributes(tmp_path, rng):
    arrays = {s: rng.normal(size=(n, 3)) for s, n in (("train", 30), ("valid", 4), ("test", 5))}
    labels = {f"{s}_y": np.arange(len(a)) for s, a in arrays.items()}
    np.savez(tmp_path / "x.npz", **arrays, **labels)
    data = vs.load(str(tmp_path / "x.npz"))
    assert data.attributes == ("y",)
    for split, array in arrays.items():
        assert np.allclose(data.split(split).outward(), array)
        assert np.array_equal(data.split(split).attributes["y"], np.arange(len(array)))


@pytest.mark.parametrize("given", [("train",), ("train", "test"), ("train", "valid")])
def test_missing_splits_are_cut_from_train_with_their_attributes(tmp_path, given):
    n = {"train": 100, "valid": 8, "test": 9}
    arrays = {s: np.stack([np.arange(n[s]) + 0.5, np.sin(np.arange(n[s]))], 1) for s in given}
    np.savez(tmp_path / "x.npz", **arrays, train_y=np.arange(100))
    data = vs.load(str(tmp_path / "x.npz"))
    cut = {s: 5 for s in ("valid", "test") if s not in given}
    assert len(data.train) == 100 - sum(cut.values())
    for split in ("train", *cut):
        rows = data.split(split)
        assert len(rows) == cut.get(split, len(data.train))
        assert np.allclose(rows.outward()[:, 0], rows.attributes["y"] + 0.5)
    for split in set(given) - {"train"}:
        assert np.allclose(data.split(split).outward(), arrays[split], atol=1e-6)


def test_attributes_of_another_length_are_refused(tmp_path, rng):
    np.savez(tmp_path / "x.npz", train=rng.normal(size=(30, 3)), train_y=np.arange(29))
    with pytest.raises(ValueError, match=r"expected train_y .* 30 rows; got 29"):
        vs.load(str(tmp_path / "x.npz"))


@pytest.mark.parametrize(
    ("names", "option"),
    [(("x",), ""), (("other",), ""), (("data", "labels"), ""), (("a", "b"), ":array=a")],
)
def test_the_array_of_an_npz(tmp_path, names, option):
    np.savez(
        tmp_path / "x.npz",
        **{name: among([0, 1, 1], "uint8", (20 + i, 3)) for i, name in enumerate(names)},
    )
    data = vs.load(f"{tmp_path / 'x.npz'}{option}")
    assert len(data.train) + len(data.valid) + len(data.test) == 20


def test_rows_of_a_known_space(tmp_path, rng):
    arrays = {s: rng.integers(0, 2, (n, 3)) for s, n in (("train", 30), ("valid", 4), ("test", 5))}
    np.savez(tmp_path / "x.npz", **arrays)
    np.save(tmp_path / "x.npy", arrays["train"])
    space = vs.load(str(tmp_path / "x.npz")).space
    for split, wanted in [(None, "test"), ("valid", "valid"), ("train", "train")]:
        assert np.array_equal(
            load_rows(str(tmp_path / "x.npz"), space, split).values, arrays[wanted]
        )
    assert len(load_rows(str(tmp_path / "x.npz"), space, "all")) == 39
    assert parse_source('x.npz:array="a, b"') == ("x.npz", {"array": '"a, b"'})
    assert np.array_equal(load_rows(str(tmp_path / "x.npy"), space).values, arrays["train"])
    test = vs.load(str(tmp_path / "x.npy")).test
    assert np.array_equal(load_rows(str(tmp_path / "x.npy"), space, "test").values, test.values)


# -- IDX -------------------------------------------------------------------------------------------


def idx(array, code):
    return (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")]
)
def test_idx_files(tmp_path, rng, code, dtype, packed):
    array = (100 * rng.random((20, 5, 4))).astype(dtype)
    content = idx(array, code)
    path = tmp_path / "images-idx3"
    path.write_bytes(gzip.compress(content) if packed else content)
    found = read(str(path), {}).splits["all"]
    assert found.dtype == array.dtype and np.array_equal(found, array)
    data = vs.load(str(path))
    assert data.space.outside == (5, 4) and len(data.train) == 18
    assert data.train.outward().dtype == array.dtype


# -- MNIST -----------------------------------------------------------------------------------------


def test_mnist_is_55_5_10_thousand(mnist):
    assert [len(mnist.split(s)) for s in ("train", "valid", "test")] == [55_000, 5_000, 10_000]
    assert (str(mnist.space), mnist.space.shape, mnist.source) == (
        "binary (28, 28)",
        (1, 28, 28),
        "mnist:binarise=dynamic",
    )
    assert [
        int(np.bincount(mnist.split(s).attributes["digit"]).size)
        for s in ("train", "valid", "test")
    ] == [10] * 3


def test_valid_is_the_end_of_the_training_images():
    whole, cut = read("mnist", {"valid": 0}), read("mnist", {})
    assert whole.splits["train"].shape == (60_000, 28, 28) and len(whole.splits["valid"]) == 0
    assert np.array_equal(cut.splits["train"], whole.splits["train"][:55_000])
    assert np.array_equal(cut.splits["valid"], whole.splits["train"][55_000:])
    assert np.array_equal(
        cut.attributes["valid"]["digit"], whole.attributes["train"]["digit"][55_000:]
    )
    assert np.array_equal(cut.splits["test"], whole.splits["test"])


def test_mnist_without_validation_trains_on_all():
    data = vs.load("mnist:valid=0")
    assert (len(data.train), len(data.valid), len(data.test)) == (60_000, 0, 10_000)


def test_dynamic_binarisation_is_new_at_every_access(mnist):
    assert mnist.train.dynamic and not mnist.valid.dynamic and not mnist.test.dynamic
    index = np.arange(40).reshape(2, 20)
    first, again, other, seed = (
        mnist.train.gather(index, seed=seed, stream=stream).x.numpy()
        for seed, stream in [(0, 0), (0, 0), (0, 1), (1, 0)]
    )
    assert first.shape == (2, 20, 1, 28, 28) and set(np.unique(first)) == {0, 1}
    assert (
        np.array_equal(first, again)
        and not np.array_equal(first, other)
        and not np.array_equal(first, seed)
    )


def test_static_binarisation_stays(mnist, static):
    assert static.space.kind == "binary" and not static.train.dynamic
    index = np.arange(40).reshape(2, 20)
    assert np.array_equal(
        static.train.gather(index, stream=0).x, static.train.gather(index, stream=1).x
    )
    assert np.array_equal(static.train.values, mnist.train.fixed().values)
    assert static.test.sha256() == mnist.test.sha256()


def test_without_binarisation_mnist_has_256_levels(grey, mnist):
    assert (str(grey.space), grey.space.levels) == ("levels of 256 (28, 28)", 256)
    assert np.array_equal(grey.train.outward(), mnist.train.values.reshape(-1, 28, 28))
    assert grey.test.sha256() != mnist.test.sha256()


def test_the_marginal_is_the_mean_grey_level(mnist, grey):
    assert np.allclose(mnist.space.marginal, grey.train.values.mean(0) / 255, atol=1e-6)


def test_the_test_set_has_one_hash(mnist, static):
    hashes = {name: mnist.split(name).sha256() for name in ("valid", "test")}
    assert (
        hashes["test"]
        == static.test.sha256()
        == load_rows("mnist", mnist.space, "test").sha256()
        != hashes["valid"]
    )
    values = mnist.test.values.copy()
    values[-1, 0, 0, 0] ^= 1
    assert replace(mnist.test, values=values).sha256() != hashes["test"]


# -- binarisation is exact -------------------------------------------------------------------------


def test_a_level_becomes_one_with_its_probability():
    levels = np.arange(256, dtype=np.uint8)
    rows = Rows(np.tile(levels, (8, 1)), GREY, "train", dynamic=True)
    index = np.tile(np.arange(8), (250, 1))
    draws = np.concatenate(
        [rows.gather(index, seed=3, stream=s).x.numpy().reshape(-1, 256) for s in range(10)]
    )
    n, p = len(draws), levels / 255
    assert n == 20_000 and set(np.unique(draws)) == {0, 1}
    ones = draws.mean(0)
    assert ones[0] == 0 and ones[255] == 1
    assert (np.abs(ones - p) <= 4 * np.sqrt(p * (1 - p) / n)).all()


@pytest.mark.parametrize("parts", [1, 4])
def test_the_fixed_binarisation_has_the_same_law(parts, monkeypatch):
    monkeypatch.setattr(sets, "DRAWN", 20_000 * 256 // parts)
    levels = np.arange(256, dtype=np.uint8)
    rows = Rows(np.tile(levels, (20_000, 1)), GREY, "test", dynamic=True).fixed()
    p = levels / 255
    assert (np.abs(rows.values.mean(0) - p) <= 4 * np.sqrt(p * (1 - p) / 20_000)).all()
    assert np.array_equal(
        rows.values, Rows(np.tile(levels, (20_000, 1)), GREY, "test", dynamic=True).fixed().values
    )
    first, second = (
        rows.values[:5000].astype(float).ravel(),
        rows.values[5000:10_000].astype(float).ravel(),
    )
    spread = np.tile(2 * p * (1 - p), 5000)
    assert abs(((first - second) ** 2 - spread).mean()) < 0.003  # no part repeats another's draws


def test_processes_draw_together_what_one_would():
    rows = Rows(np.full((12, 256), 128, np.uint8), GREY, "train", dynamic=True)
    index = np.arange(36).reshape(3, 12) % 12
    whole = rows.gather(index, stream=5).x.numpy()
    shares = [
        rows.gather(index[:, a : a + 4], stream=5, place=(a, 12)).x.numpy() for a in (0, 4, 8)
    ]
    assert np.array_equal(np.concatenate(shares, 1), whole)


def test_every_level_is_a_one_with_its_own_frequency():
    times = 20_000
    levels = np.tile(np.arange(256, dtype=np.uint8), times)
    ones = binarised(levels, 0, "test").reshape(times, 256)
    p = np.arange(256) / 255
    assert ones.dtype == np.uint8 and (ones[:, 0] == 0).all() and (ones[:, 255] == 1).all()
    chi_square = ((ones.mean(0) - p)[1:255] ** 2 * times / (p * (1 - p))[1:255]).sum()
    assert abs(chi_square - 254) < 4 * math.sqrt(2 * 254)


@pytest.mark.parametrize("pixels", [0, 1, 7, 2**17 - 3, 2**17, 2**18 + 5])
def test_a_binarisation_is_the_first_draws_below_its_levels(pixels):
    # What was recorded of binarisations (their hashes, the bounds on them) holds for as long as
    # this does.
    levels = np.random.default_rng(0).integers(0, 256, pixels).astype(np.uint8)
    bits = np.random.PCG64(derive(3, "a", 1))
    draws = bits.random_raw((pixels + 7) // 8).astype("<u8").view(np.uint8)[:pixels].copy()
    for place in np.flatnonzero(draws == 255):
        draws[place] = bits.random_raw() & 255
    for place in np.flatnonzero(draws == 255):
        draws[place] = bits.random_raw() & 255
    assert not (draws == 255).any()
    out = np.full(pixels, 9, np.uint8)
    assert binarised(levels, 3, "a", 1, out=out) is out
    assert np.array_equal(out, draws < levels)
    assert np.array_equal(binarised(levels, 3, "a", 1), out)


def test_binarisations_follow_from_seed_and_purpose():
    levels = np.full((30, 7), 128, np.uint8)
    first = binarised(levels, 0, "a", 1)
    assert first.shape == (30, 7)
    for seed, path in [(1, ("a", 1)), (0, ("b", 1)), (0, ("a", 2))]:
        assert not np.array_equal(first, binarised(levels, seed, *path))


# -- in and out ------------------------------------------------------------------------------------

KINDS = [
    ("", "bool", lambda r, s: r.random(s) < 0.4),
    ("", "uint8", lambda r, s: 255 * r.integers(0, 2, s)),
    ("", "int8", lambda r, s: 2 * r.integers(0, 2, s) - 1),
    ("", "float64", lambda r, s: r.integers(0, 2, s)),
    ("", "uint8", lambda r, s: r.integers(0, 17, s)),
    ("", "uint8", lambda r, s: r.integers(0, 256, s)),
    ("", "float32", lambda r, s: r.integers(0, 9, s)),
    (":kind=levels", "int32", lambda r, s: r.integers(0, 1000, s)),
    (":kind=category", "int64", lambda r, s: r.integers(-5, 3, s)),
    (":kind=real", "int32", lambda r, s: r.integers(-5000, 5000, s)),
    ("", "float32", lambda r, s: 3 + 5 * r.normal(size=s)),
    (":standardise=none", "float64", lambda r, s: 3 + 5 * r.normal(size=s)),
]


@pytest.mark.parametrize(
    ("layout", "inside"), [((6, 5), (1, 6, 5)), ((6, 5, 3), (3, 6, 5)), ((7,), (7,)), ((), (1,))]
)
@pytest.mark.parametrize(("options", "dtype", "draw"), KINDS)
def test_values_come_out_as_they_went_in(tmp_path, layout, inside, options, dtype, draw):
    array = draw(np.random.default_rng(1), (40, *layout)).astype(dtype)
    space = vs.load(saved(tmp_path / "x.npy", array) + options).space
    assert (space.outside, space.shape) == (layout, inside)
    codes = space.inward(array)
    assert codes.shape == (40, *inside)
    back = space.outward(codes)
    assert back.dtype == array.dtype and back.shape == array.shape
    assert (
        np.allclose(back, array, atol=1e-5)
        if array.dtype.kind == "f"
        else np.array_equal(back, array)
    )
    if space.discrete:
        assert (
            codes.dtype == (np.uint8 if space.levels <= 256 else np.int32)
            and codes.max() <= space.levels - 1
        )
    stacked = space.outward(np.stack([codes, codes]))
    assert np.array_equal(stacked[1], back), "leading dimensions are kept"


def test_channels_move_inside(rng):
    images = rng.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
    inside = vs.load(images).space.inward(images)
    assert all(
        inside[n, c, h, w] == images[n, h, w, c]
        for n, c, h, w in [(0, 0, 1, 2), (3, 2, 5, 4), (19, 1, 0, 3)]
    )


def test_means_are_probabilities_or_the_users_units(rng):
    binary = vs.load(among([0, 255, 255], "uint8")).space
    mean = binary.outward(np.full((2, 6), 0.25), exact=False)
    assert mean.dtype == np.float32 and (mean == 0.25).all()
    real = vs.load(3 + 5 * rng.normal(size=(50, 4))).space
    assert np.allclose(real.outward(np.zeros((1, 4)), exact=False), real.offset)


@pytest.mark.parametrize("values", [[0, 2], [-1, 0], [0.5, 1.0], [0, np.nan], [0, np.inf]])
def test_values_of_another_kind_are_refused_inward(values):
    space = vs.load(among([0, 1, 1], "uint8")).space
    with pytest.raises(ValueError, match=r"expected .*; got "):
        space.inward(among(values, None, (1, 6)))


def test_a_space_is_restored_from_what_it_stores(rng):
    for array in (rng.normal(size=(50, 4)), rng.integers(0, 5, (50, 3, 3))):
        space = vs.load(array).space
        again = restored_space(space.scalars(), space.arrays())
        assert again.scalars() == space.scalars() and again.arrays().keys() == space.arrays().keys()
        assert np.array_equal(again.inward(array), space.inward(array))


# -- standardising ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """Write real data whose columns differ in scale, with a test split that differs from the
    training split."""
    train = np.random.default_rng(0).normal(size=(300, 4)) * [0.1, 1, 10, 100] + [1, 2, 3, 4]
    path = tmp_path_factory.mktemp("data") / "x.npz"
    np.savez(path, train=train, valid=train[:5] + 7, test=train[:9] * 1e3)
    return str(path), train


@pytest.mark.parametrize("how", ["feature", "global", "none"])
def test_standardising(unequal, how):
    source, train = unequal
    data = vs.load(f"{source}:standardise={how}")
    inside = data.train.values.astype(np.float64)
    mean, std = train.mean(0), train.std(0)
    scale = {"feature": std, "global": np.full(4, np.sqrt((std**2).mean())), "none": np.ones(4)}[
        how
    ]
    offset = np.zeros(4) if how == "none" else mean
    assert np.allclose(inside, (train - offset) / scale, atol=1e-5)
    log_dets = data.space.log_dets()
    assert (0.0 if log_dets is None else log_dets.sum()) == pytest.approx(-np.log(scale).sum())
    assert np.allclose(data.test.outward(), train[:9] * 1e3, rtol=1e-4), (
        "statistics are the training split's"
    )


def test_the_default_is_by_feature_for_vectors_and_global_for_images(unequal, rng):
    source, _ = unequal
    assert np.array_equal(
        vs.load(source).space.scale, vs.load(f"{source}:standardise=feature").space.scale
    )
    images = vs.load(rng.normal(size=(60, 4, 4)) * np.arange(1, 5)).space
    assert images.scale.shape == ()
    assert images.log_dets().sum() == pytest.approx(-16 * np.log(images.scale))


def test_the_density_is_in_the_users_units(unequal):
    import torch

    source, train = unequal
    space = vs.load(source).space
    inside = torch.from_numpy(space.inward(train[:6])).double()
    log_p = -0.5 * (inside.square() + math.log(2 * math.pi)).sum(1) + space.log_dets().sum()
    outside = torch.distributions.Normal(
        torch.from_numpy(train.mean(0)), torch.from_numpy(train.std(0))
    )
    assert torch.allclose(log_p, outside.log_prob(torch.from_numpy(train[:6])).sum(1), atol=1e-4)


def test_the_log_det_counts_observed_cells_alone(unequal):
    import torch

    space = vs.load(unequal[0]).space
    observed = torch.tensor([[True, False, True, False], [False] * 4])
    model = vs.build(
        replace(space, missing=True), latent=2, likelihood="gaussian:variance=1", network="linear"
    )
    batch = Batch(torch.zeros(2, 4), observed)
    px = model.likelihood(torch.zeros(1, 2, 2))
    expected = [-np.log(space.scale[[0, 2]]).sum(), 0.0]
    more = model.log_terms(batch, torch.zeros(1, 2, 2))[0] - px.log_prob(batch.x, observed)
    assert np.allclose(more.detach().numpy(), expected, atol=1e-4)


def test_constant_columns_are_said_and_not_divided_by_zero(rng):
    array = rng.normal(size=(50, 4))
    array[:, 2] = 7.0
    data = vs.load(array)
    assert any("1 of 4 columns are constant" in note for note in data.notes)
    assert np.isfinite(data.train.values).all() and np.allclose(data.train.outward()[:, 2], 7)


# -- the order of the rows -------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "batch"), [(20, 5), (20, 7), (7, 20), (13, 13), (5, 1)])
def test_each_epoch_is_a_permutation(rows, batch):
    order = Order(rows, batch, 0)
    steps = [order(s) for s in range(3 * rows)]
    assert all(len(s) == batch for s in steps)
    epochs = np.concatenate(steps)[: 3 * rows].reshape(3, rows)
    assert (np.sort(epochs, 1) == np.arange(rows)).all()
    if rows > 5:
        assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])


def test_a_step_follows_from_seed_and_number():
    straight = [Order(20, 7, 3)(s) for s in range(12)]
    order = Order(20, 7, 3)
    for s in (11, 0, 5, 2, 2, 7):
        assert np.array_equal(order(s), straight[s]), "whatever was asked before"
    assert not np.array_equal(
        np.concatenate(straight), np.concatenate([Order(20, 7, 4)(s) for s in range(12)])
    )
