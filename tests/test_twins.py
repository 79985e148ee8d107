"""Near-duplicates between splits: independent rows are none, and planted ones are found, whatever
the data are."""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from PIL import Image

import vaestro as vs
from vaestro.data import duplicates

N, HELD = 2000, 1000
TIME = np.linspace(0, 1, 60)


def sines(r: np.random.Generator, noise: float) -> np.ndarray:
    x = np.sin(2 * np.pi * (TIME * r.uniform(1, 3, (N + HELD, 1)) + r.uniform(size=(N + HELD, 1))))
    return x + noise * r.normal(size=x.shape)


def photographs(r: np.random.Generator, n: int, size: int = 24) -> np.ndarray:
    """Return colour images whose spectrum falls as that of photographs, half of them nearly plain
    as a sky is."""
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    k[0, 0] = 1 / size
    waves = r.normal(size=(n, size, size, 3)) + 1j * r.normal(size=(n, size, size, 3))
    x = np.fft.ifft2(waves / k[None, :, :, None] ** 1.2, axes=(1, 2)).real
    x = x.mean(3, keepdims=True) + 0.2 * x
    contrast = np.where(r.random((n, 1, 1, 1)) < 0.5, 8, 40)
    x = (
        128
        + r.normal(size=(n, 1, 1, 1)) * 20
        + contrast * (x - x.mean((1, 2, 3), keepdims=True)) / x.std((1, 2, 3), keepdims=True)
    )
    return np.clip(x + r.normal(size=x.shape) * 2, 0, 255).astype(np.uint8)


def low_rank(r: np.random.Generator, rank: int, cells: int, noise: float = 0.0) -> np.ndarray:
    return r.normal(size=(N + HELD, rank)) @ r.normal(size=(rank, cells)) + noise * r.normal(
        size=(N + HELD, cells)
    )


ROWS = N + HELD
INDEPENDENT: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "sines": lambda r: sines(r, 0.0),
    "noisy sines": lambda r: sines(r, 0.05),
    "rank 1": lambda r: low_rank(r, 1, 30),
    "rank 2": lambda r: low_rank(r, 2, 30),
    "rank 5 with noise": lambda r: low_rank(r, 5, 100, 0.05),
    "two numbers": lambda r: r.normal(size=(ROWS, 2)),
    "numbers with two decimals": lambda r: np.round(r.normal(size=(ROWS, 3)), 2),
    "many zeros": lambda r: np.where(r.random((ROWS, 4)) < 0.7, 0.0, r.gamma(2, 1, (ROWS, 4))),
    "integers": lambda r: r.integers(0, 256, (ROWS, 25)),
    "few integers": lambda r: r.integers(0, 100, (ROWS, 3)),
    "counts": lambda r: r.poisson(3, (ROWS, 10)),
    "bits": lambda r: r.integers(0, 2, (ROWS, 16)).astype(np.uint8),
    "bits of few factors": lambda r: (r.normal(size=(ROWS, 3)) @ r.normal(size=(3, 40)) > 0).astype(
        np.uint8
    ),
    "heavy tails": lambda r: r.standard_t(1.2, (ROWS, 8)),
    "one outlier": lambda r: np.concatenate([np.full((1, 20), 1e9), r.normal(size=(ROWS - 1, 20))]),
    "codes for missing": lambda r: np.where(
        r.random((ROWS, 6)) < 0.002, -999.0, r.normal(size=(ROWS, 6))
    ),
    "amplitudes over decades": lambda r: sines(r, 0.0) * np.exp(2 * r.normal(size=(ROWS, 1))),
    "photographs": lambda r: photographs(r, ROWS),
}


def found(train: np.ndarray, valid: np.ndarray) -> int:
    """Count the twins that are said; one call in a thousand may be false."""
    words = said(train, valid)
    return int(words.split()[0]) if words else 0


def said(train: np.ndarray, valid: np.ndarray) -> str:
    np.savez("x.npz", train=train, valid=valid, test=valid[:1])
    return " ".join(s.partition(" rows")[0] for s in vs.load("x.npz").shared if " valid rows" in s)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", INDEPENDENT)
def test_independent_rows_are_no_twins(kind: str) -> None:
    x = INDEPENDENT[kind](np.random.default_rng(0))
    assert said(x[:N], x[N:]) == ""


EXACT = (
    "sines",
    "noisy sines",
    "rank 2",
    "rank 5 with noise",
    "two numbers",
    "integers",
    "heavy tails",
    "one outlier",
    "photographs",
)


@pytest.mark.parametrize("kind", EXACT)
def test_copies_are_found_among_independent_rows(kind: str) -> None:
    x = INDEPENDENT[kind](np.random.default_rng(1))
    assert 200 <= found(x[:N], np.concatenate([x[N:], x[5 : 5 + 200]])) <= 1.02 * 200


def test_copies_with_little_noise_are_found() -> None:
    r = np.random.default_rng(2)
    for x, noise in (
        (low_rank(r, 5, 100, 0.05), 0.01),
        (sines(r, 0.05), 0.002),
        (INDEPENDENT["heavy tails"](r), 1e-4),
    ):
        near = x[:200] + noise * r.normal(size=x[:200].shape)
        assert 200 <= found(x[:N], np.concatenate([x[N:], near])) <= 1.02 * 200
    x = INDEPENDENT["integers"](r)
    assert (
        200
        <= found(
            x[:N], np.concatenate([x[N:], np.clip(x[:200] + r.integers(-2, 3, (200, 25)), 0, 255)])
        )
        <= 1.02 * 200
    )


def templates(r: np.random.Generator, classes: int, each: int, noise: float) -> np.ndarray:
    """Return 8-bit images of templates, with noise of its own in every image, in a random order."""
    x = np.repeat(r.uniform(0, 255, (classes, 12, 12)), each, 0)
    return np.clip(np.rint(x + noise * r.normal(size=x.shape)), 0, 255).astype(np.uint8)[
        r.permutation(len(x))
    ]


def shapes(r: np.random.Generator, n: int, noise: int) -> np.ndarray:
    """Return 8-bit images of bars and squares at some places on black, with noise of its own in
    every image."""
    x = r.integers(0, noise, (n, 12, 12))
    for image, kind, top, left in zip(
        x, r.integers(0, 3, n), *r.integers(1, 7, (2, n)), strict=True
    ):
        image[top : top + (1 if kind == 1 else 4), left : left + (1 if kind == 0 else 4)] += (
            200 if kind == 2 else 249
        )
    return np.clip(x, 0, 255).astype(np.uint8)


def groups(r: np.random.Generator, number: int, cells: int, noise: float) -> np.ndarray:
    x = r.normal(size=(number, cells))[r.integers(0, number, 3 * number)]
    return x + noise * r.normal(size=x.shape)


GROUPED: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    **{
        f"{c} templates, {n} images each, noise {s}": partial(templates, classes=c, each=n, noise=s)
        for c, n in ((3, 20), (3, 500), (100, 5), (300, 3), (1000, 3))
        for s in (0.3, 5, 60)
    },
    **{
        f"{n} images of shapes, noise {s}": partial(shapes, n=n, noise=s)
        for n in (200, 450, 1500)
        for s in (3, 6, 30)
    },
    **{
        f"groups of 3 in {d} cells, noise {s}": partial(groups, number=1000, cells=d, noise=s)
        for d in (2, 8, 30)
        for s in (1e-4, 0.01, 0.1)
    },
}


@pytest.mark.parametrize("kind", GROUPED)
def test_alike_rows_with_noise_of_their_own_are_no_twins(kind: str) -> None:
    x = GROUPED[kind](np.random.default_rng(0))
    held = len(x) // 5
    assert said(x[held:], x[:held]) == ""


def test_copies_are_found_among_alike_images_and_nothing_else() -> None:
    r = np.random.default_rng(7)
    for classes, each in ((3, 100), (100, 5), (300, 3)):
        x = templates(r, classes, each, 20)
        held = len(x) // 5
        copied = x[held : held + 50]
        changes = {
            "equal": copied,
            "noise": np.clip(np.rint(copied + 3 * r.normal(size=copied.shape)), 0, 255).astype(
                np.uint8
            ),
            "brightness": np.clip(copied * 0.85 + 10, 0, 255).astype(np.uint8),
            "encoding": jpeg(copied),
        }
        for name, near in changes.items():
            assert 50 <= found(x[held:], np.concatenate([x[:held], near])) <= 51, (classes, name)


def test_copies_that_were_shuffled_with_their_originals_are_found() -> None:
    r = np.random.default_rng(8)
    x = photographs(r, 1500)
    for share, least in ((0.15, 0.75), (1.0, 0.95)):  # with noise; equal
        copied = x[: int(1500 * share)]
        near = (
            copied
            if share == 1
            else np.clip(copied + 2 * r.normal(size=copied.shape), 0, 255).astype(np.uint8)
        )
        order = r.permutation(len(x) + len(near))
        y, own = np.concatenate([x, near])[order], order % 1500
        held = len(y) // 5
        true = int(np.isin(own[:held], own[held:]).sum())
        assert least * true <= found(y[held:], y[:held]) <= 1.02 * true


def jpeg(images: np.ndarray) -> np.ndarray:
    made = []
    for image in images:
        held = io.BytesIO()
        Image.fromarray(image).save(held, "JPEG", quality=85)
        made.append(np.asarray(Image.open(held)))
    return np.array(made)


def test_changed_copies_of_images_are_found() -> None:
    r = np.random.default_rng(3)
    x = photographs(r, ROWS)
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "noise": lambda x: np.clip(x + 2 * r.normal(size=x.shape), 0, 255).astype(np.uint8),
        "brightness": lambda x: np.clip(x * 0.85 + 10, 0, 255).astype(np.uint8),
        "encoding": jpeg,
    }
    for name, change in changes.items():
        assert 100 <= found(x[:N], np.concatenate([x[N:], change(x[:100])])) <= 1.02 * 100, name


def test_most_rows_may_be_copies_and_training_rows_copies_of_each_other() -> None:
    x = low_rank(np.random.default_rng(4), 8, 40)
    train = np.concatenate([x[:1500], x[:500]])
    assert 400 <= found(train, np.concatenate([x[:400], x[N : N + 100]])) <= 1.02 * 400


def test_large_data_are_compared_by_hashes_and_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    r = np.random.default_rng(5)
    x = low_rank(r, 8, 40)
    held = np.concatenate([x[N:], x[:200] + 1e-4 * r.normal(size=(200, 40))])
    monkeypatch.setattr(duplicates, "PAIRS", 0)
    monkeypatch.setattr(duplicates, "SOME", 300)
    assert said(x[:N], x[N:]) == "" and 200 <= found(x[:N], held) <= 204
    monkeypatch.setattr(duplicates, "EXAMINED", 50)
    assert said(x[:N], held).startswith("about ")
    monkeypatch.setattr(duplicates, "SOME", 300)
    grouped = groups(r, 1000, 30, 0.01)
    assert said(grouped[:N], grouped[N:]) == ""


def test_texts_of_a_small_language_repeat_by_chance() -> None:
    r = np.random.default_rng(0)
    words = [f"{a} {b}" for a in ("the", "a", "my") for b in ("cat", "dog", "ship", "king")]
    assert vs.load([words[i] for i in r.integers(0, len(words), 600)]).shared == ()
    twice = [f"line {i} of {i * 7919 % 1000}" for i in range(300)] * 2
    assert any("texts each equal a training text" in s for s in vs.load(twice).shared)


def test_equal_texts_are_said_unless_texts_repeat_by_chance() -> None:
    r = np.random.default_rng(6)
    words = np.array(["dog", "cat", "ship", "river", "king", "moon", "tree", "road"])
    short = [" ".join(r.choice(words, 3)) for _ in range(3000)]
    assert not [s for s in vs.load(short).shared if "equal" in s]
    long = [" ".join(r.choice(words, 12)) for _ in range(3000)]
    assert vs.load(long).shared == ()
    repeated = np.array(long + long[:600])[r.permutation(3600)].tolist()
    assert any("texts each equal a training text" in s for s in vs.load(repeated).shared)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_images_of_one_colour_are_no_twins_and_give_no_warning() -> None:
    x = np.zeros((100, 8, 8), np.uint8)
    x[:50] = np.random.default_rng(0).integers(0, 255, (50, 1, 1))
    assert vs.load(x).shared is not None
