"""Find held-out rows that are copies or near-copies ("twins") of a training row. Bounds on them
measure memorisation instead of generalisation.

The test statistic is the expected number of independent rows that are as close to a training row as
this row is. Around a row, the number of training rows within a distance r grows as r^m, with m the
local dimension of the data (Levina and Bickel 2004). With D the distance to the K-th nearest
training row, K (d / D)^m independent rows are expected within d, the distance to the nearest one. A
row is called a twin if this number is so small that at most 0.3 % of the calls are false (Benjamini
and Hochberg 1995).

The test does not depend on the scale of the data. It is valid for smooth and low-rank data, whose m
is small, and for outliers, whose D is large. It is not valid for small groups of similar rows, such
as images of one template with different noise. Such groups are recognised by training rows that
also have very close neighbours. The distances between nearest training rows then determine how
close independent rows are, and a copy must be closer, or equal. Distances are at least the step
between two values: rows of a few integers coincide by chance, and are then no twins.

Images are compared in two ways at once: at a low resolution without brightness and contrast, and by
their fine detail. Noise and re-encoding change the fine detail, and independent photographs of the
same sky differ in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from vaestro.data.neighbours import Neighbours, nearest, views_of
from vaestro.data.passes import Part, RowSelector, distinct, once
from vaestro.data.sets import Rows
from vaestro.randomness import numpy_generator
from vaestro.spaces import Space
from vaestro.tokens import Ragged

MOST = 100_000  # largest number of rows of a split that are compared
CELLS = 4096  # largest number of cells of a row that are compared
SIDE = 64  # largest height and width of the compared images
GROUP = 1024  # largest number of rows in memory
TABLES, BITS = 8, 20  # hash tables, and bits of a hash, for large data
# largest share of false calls, and chance of any call if there are no twins
FALSE = 0.003
# largest distance of a candidate, as a share of the median distance between training neighbours
CLOSE = 0.5
SOME = 2000  # number of training rows for a first estimate of neighbourhoods
# largest expected number of independent rows for which all training rows are used
LIKELY = 0.05
# largest number of candidates of a split with that estimate; of more, a random sample
EXAMINED = 500
CERTAIN_TRIPLES = 5  # smallest expected number of triples of equal texts that is informative
# from this mean number of occurrences of a training text, equal texts are not called copies
REPEATED = 4
# largest number of pairs for comparing all; above, only rows with equal hashes are compared
PAIRS = 200_000_000


def find_copies(rows: Mapping[str, Rows], trusted: bool) -> list[str]:
    """Return a note for each held-out split that has rows equal or nearly equal to training rows.

    Args:
        rows: the splits.
        trusted: whether the data are known to have no copies, and are not examined.

    >>> import vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> data = vs.load(np.concatenate([x, x]))
    >>> find_copies({"train": data.train, "valid": data.valid, "test": data.test}, trusted=True)
    []
    """
    train = rows["train"]
    parts = {name: Part(r.values, r.index) for name, r in rows.items()}
    twins = Twins.among(
        parts, train.space, trusted, lambda name, values: rows[name].channels_first(values)
    )
    if twins is None:
        return []
    once(distinct(parts.values()), *(p.look for p in twins.picks))
    return twins.notes()


def of_texts(splits: Mapping[str, tuple[Ragged, np.ndarray | None]]) -> list[str]:
    """Return a note for each held-out split that has texts equal to training texts.

    There is no note on texts that repeat by chance. If there are few different texts, repeats
    follow from the distribution. If there are more, such as short answers, triples of equal
    training texts are as frequent as the numbers of single texts and pairs imply.

    Args:
        splits: the codes, and the numbers of the rows of the split (None: all).

    >>> codes = Ragged.of([[i % 250 + 1, i // 250 + 1] for i in range(300)], 3, 256)
    >>> of_texts({"train": (codes, np.arange(290)), "test": (codes, np.array([0, 299]))})
    ['1 of 2 test texts equals a training text: bounds on them are too good']
    """
    hashed = {name: [hash(line) for line in _lines(*codes)] for name, codes in splits.items()}
    count, notes = Counter(hashed["train"]), []
    every = len(hashed["train"])
    # The second condition excludes files that consist mostly of one text.
    if count and len(count) * REPEATED <= every and 2 * max(count.values()) <= every:
        return []
    times = Counter(count.values())
    # expected number if all texts have the same small probability; larger if they differ
    triples = 2 / 3 * times[2] ** 2 / max(1, times[1])
    if triples >= CERTAIN_TRIPLES and sum(n for k, n in times.items() if k >= 3) >= triples / 2:
        return []
    for name in ("valid", "test"):
        equal = sum(line in count for line in hashed.get(name, ()))
        if equal:
            notes.append(
                f"{equal:,} of {len(hashed[name]):,} {name} texts "
                f"{'equals' if equal == 1 else 'each equal'} a training text: "
                f"bounds on them are too good"
            )
    return notes


def _lines(codes: Ragged, index: np.ndarray | None) -> Iterator[bytes]:
    for row in range(len(codes)) if index is None else index:
        yield codes.codes[codes.starts[row] : codes.starts[row + 1]].tobytes()


class Twins:
    """Find twins: held-out rows that are copies or near-copies of a training row.

    `once` must pass all rows to the consumers `picks` before `notes` is called.

    Args:
        parts: the splits.
        space: of the data.
        inside: transforms rows of a split's array to codes or values, (N, *X).

    >>> import vaestro as vs
    >>> data = vs.load(np.random.default_rng(0).normal(size=(200, 3)))
    >>> parts = {s: Part(r.values, r.index) for s, r in
    ...          (("train", data.train), ("test", data.test))}
    >>> twins = Twins(parts, data.space, lambda name, values: values)
    >>> once(distinct(parts.values()), *(pick.look for pick in twins.picks))
    >>> twins.notes()
    []
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        space: Space,
        inside: Callable[[str, np.ndarray], np.ndarray],
    ) -> None:
        self._space, self._inside = space, inside
        self._parts = {name: part.spread(MOST) for name, part in parts.items() if len(part)}
        train = self._parts["train"].spread(GROUP)
        sample = self._read("train", train, np.arange(len(train)))
        self._views = views_of(space, sample)
        self._centre = self._views[0].of(sample).mean(0)
        self._planes = (
            numpy_generator(0, "duplicates")
            .normal(size=(len(self._centre), TABLES * BITS))
            .astype(np.float32)
        )
        self._neighbours: tuple[list[Neighbours], list[Neighbours]] | tuple[()] = ()
        self._signs: dict[str, list[np.ndarray]] = {name: [] for name in self._parts}
        self._sketches: dict[str, list[list[np.ndarray]]] = {
            name: [[] for _ in self._views] for name in self._parts
        }
        self.picks = [
            RowSelector(part, GROUP, partial(self._look, name), partial(self._vectors, name))
            for name, part in self._parts.items()
        ]

    @classmethod
    def among(
        cls,
        parts: Mapping[str, Part],
        space: Space,
        trusted: bool,
        inside: Callable[[str, np.ndarray], np.ndarray],
    ) -> Twins | None:
        """Return a finder of twins; None for `trusted` data, which are not examined."""
        return None if trusted else cls(parts, space, inside)

    def notes(self) -> list[str]:
        """Return a note for each held-out split that has twins, after all rows were read."""
        notes = []
        training = [np.concatenate(parts) for parts in self._sketches["train"]]
        for name in ("valid", "test"):
            if name in self._parts:
                (twins, every), rows = self._count_twins(name, training), len(self._parts[name])
                if twins:
                    counted = (
                        f"{twins:,} of {rows:,} {name} rows"
                        if every
                        else f"about {twins:,} of {rows:,} {name} rows"
                    )
                    equal = (
                        "equals or nearly equals" if twins == 1 else "each equal or nearly equal"
                    )
                    notes.append(f"{counted} {equal} a training row: bounds on them are too good")
        return notes

    def _vectors(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return rows of a split as they are compared, (N, cells) or for images (N, C, H, W),
        float32."""
        values = self._inside(name, rows)
        if self._space.image and values.ndim == 4:
            by = -(-max(values.shape[2:]) // SIDE)
            return np.asarray(values[:, :, ::by, ::by], np.float32)
        values = values.reshape(len(rows), -1)
        return np.asarray(values[:, :: -(-values.shape[1] // CELLS)], np.float32)

    def _read(self, name: str, part: Part, rows: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [
                self._vectors(name, part.take(rows[start : start + 64]))
                for start in range(0, len(rows), 64)
            ]
        )

    def _look(self, name: str, rows: np.ndarray) -> None:
        seen = [view.of(rows) for view in self._views]
        projected = (seen[0] - self._centre) @ self._planes
        bits = 1 << np.arange(BITS, dtype=np.int64)
        signs = (projected > 0).reshape(-1, TABLES, BITS) @ bits
        # Equal rows share a bucket in the first table.
        signs[:, 0] = [hash(row.tobytes()) for row in seen[0]]
        self._signs[name].append(signs)
        for view, values, kept in zip(self._views, seen, self._sketches[name], strict=True):
            kept.append(view.sketch(values))

    def _count_twins(self, name: str, training: list[np.ndarray]) -> tuple[int, bool]:
        """Return the number of twins in a split, and whether every candidate was examined.

        Args:
            name: of the split.
            training: sketches of the training rows, one array for each view.
        """
        sketches = [np.concatenate(parts) for parts in self._sketches[name]]
        some, whole = self._around(training)
        all_pairs = len(sketches[0]) * len(training[0]) <= PAIRS
        partner, apart = (
            nearest(sketches[0], training[0])
            if all_pairs
            else self._hashed(name, sketches[0], training[0])
        )
        # Distances between sketches are accurate to a factor of 2, and to the rounding of large
        # numbers.
        candidates = np.flatnonzero(
            apart <= 2 * CLOSE * some[0].typical + 1e-3 * np.sqrt((sketches[0] ** 2).sum(1))
        )
        expected = self._chance(name, candidates, partner, sketches, some)
        if whole is not some:
            candidates = candidates[expected < LIKELY]
            part = candidates
            if len(part) > EXAMINED:
                part = np.sort(numpy_generator(0, "duplicates", name).permutation(part)[:EXAMINED])
            expected = self._chance(name, part, partner, sketches, whole)
        share = len(expected) / max(1, len(candidates))
        sure = np.sort(expected)
        limits = FALSE * np.arange(1, len(sure) + 1) / (len(sketches[0]) * share)
        below = np.flatnonzero(sure <= limits)
        return (round((below[-1] + 1) / share) if len(below) else 0), share == 1

    def _around(self, training: list[np.ndarray]) -> tuple[list[Neighbours], list[Neighbours]]:
        """Return the neighbourhoods by some training rows and by all of them, for each view."""
        if not self._neighbours:
            n = len(training[0])
            rows = np.sort(numpy_generator(0, "duplicates").permutation(n)[:SOME])
            some = [Neighbours(sketch[rows], n) for sketch in training]
            self._neighbours = (
                some,
                some if n <= SOME else [Neighbours(sketch, n) for sketch in training],
            )
        return self._neighbours

    def _chance(
        self,
        name: str,
        part: np.ndarray,
        partner: np.ndarray,
        sketches: list[np.ndarray],
        around: list[Neighbours],
    ) -> np.ndarray:
        """Return the expected number of independent training rows that are as close to each row as
        its partner is, (len(part),)."""
        expected = [np.zeros(0)]
        for start in range(0, len(part), GROUP):
            at = part[start : start + GROUP]
            rows, others = (
                self._read(name, self._parts[name], at),
                self._read("train", self._parts["train"], partner[at]),
            )
            expected.append(
                self._chance_of(rows, others, [sketch[at] for sketch in sketches], around)
            )
        return np.concatenate(expected)

    def _chance_of(
        self,
        rows: np.ndarray,
        others: np.ndarray,
        sketches: list[np.ndarray],
        around: list[Neighbours],
    ) -> np.ndarray:
        """Return the expected number of independent training rows that are as close to each row as
        its partner is, (N,)."""
        expected, grouped = np.ones(len(rows)), np.zeros(len(rows), bool)
        for i, (view, sketch, neighbours) in enumerate(
            zip(self._views, sketches, around, strict=True)
        ):
            distance = np.sqrt(((view.of(rows) - view.of(others)) ** 2).sum(1, dtype=np.float64))
            number = neighbours.expected(sketch, distance, view.step(rows))
            grouped |= neighbours.grouped(sketch)
            if i == 0:
                expected = np.where(distance <= CLOSE * neighbours.typical, number, np.inf)
            # The first view chose the partner. The product of two uniform numbers is below x with
            # probability x (1 - log x).
            else:
                # In a small group of similar images, the partner is in the group, and close in this
                # view too.
                expected = expected * np.minimum(
                    number / np.where(grouped, 1, len(self._parts["train"])), 1
                )
                expected = expected * (1 - np.log(np.clip(expected, 1e-300, 1)))
        return expected

    def _hashed(
        self, name: str, sketch: np.ndarray, training: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of the nearest training row in the same buckets as each row, (N,), and
        its distance, (N,)."""
        my_signs, signs = (np.concatenate(self._signs[n]) for n in (name, "train"))
        partner, apart = np.zeros(len(sketch), np.int64), np.full(len(sketch), np.inf)
        for t in range(TABLES):
            order = np.argsort(signs[:, t], kind="stable")
            first = np.searchsorted(signs[order, t], my_signs[:, t])
            # Four rows of a bucket are enough, because a twin is among them in one of the tables.
            for step in range(4):
                candidate = order[np.minimum(first + step, len(order) - 1)]
                distance = np.sqrt(((sketch - training[candidate]) ** 2).sum(1, dtype=np.float64))
                better = (signs[candidate, t] == my_signs[:, t]) & (distance < apart)
                partner[better], apart[better] = candidate[better], distance[better]
        return partner, apart
