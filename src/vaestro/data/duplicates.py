"""Find held-out rows that are copies or near-copies of a training row: bounds on them measure
memory, not generalisation.

The question is how many independent rows would be expected as close to a training row as this one
is. Around a row, the number of training rows within a distance r grows as r^m, with m the local
dimension of the data (Levina and Bickel 2004). With D the distance to the K-th nearest training
row, K (d / D)^m independent rows are expected within d, the distance to the nearest one. Rows are
called twins where that number is so small that at most 0.3 % of the calls are false (Benjamini and
Hochberg 1995). The test has no scale. It holds for smooth and low-rank data, where m is small, and
for outliers, whose D is large. It does not hold for small groups of alike rows, such as one
template with noise of its own in each image. They show in the training rows: many of those have too
near a row as well. There, the distances of training rows to their nearest say how close independent
rows are, and a copy has to be closer, or equal. Distances are
never taken to be smaller than the step between two values: rows of a few integers coincide by
chance, and then are no twins.

Images are compared in two ways at once: at a low resolution without brightness and contrast, and by
their fine detail. Noise and a new encoding change the second, and independent photographs of the
same sky differ in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from vaestro.data.neighbours import Neighbours, nearest, views_of
from vaestro.data.passes import Part, Picked, distinct, once
from vaestro.data.sets import Rows
from vaestro.randomness import numpy_generator
from vaestro.spaces import Space
from vaestro.tokens import Ragged

MOST = 100_000  # rows of a split that are compared
CELLS = 4096  # cells of a row that are compared
SIDE = 64  # rows and columns of an image that are compared
GROUP = 1024  # rows in memory at a time
TABLES, BITS = 8, 20  # of the hashes of large data
# share of the calls that may be false, and chance that any is called where there are none
FALSE = 0.003
# of the median distance between training neighbours: rows further apart are not examined
CLOSE = 0.5
SOME = 2000  # training rows from which neighbourhoods are estimated first
# expected independent rows up to which the neighbourhood among all training rows is examined
LIKELY = 0.05
# rows of a split that are examined so; if there are more candidates, they are drawn at random
EXAMINED = 500
CERTAIN_TRIPLES = 5  # expected triples of equal texts from which their number says something
# occurrences of the average training text from which texts are values that repeat, and not copies
REPEATED = 4
# pairs of rows up to which all are compared; of more, those in one bucket of a hash
PAIRS = 200_000_000


def between(rows: Mapping[str, Rows], trusted: bool) -> list[str]:
    """Say how many held-out rows equal a training row, or nearly do; `trusted` data are not looked
    at."""
    train = rows["train"]
    parts = {name: Part(r.values, r.index) for name, r in rows.items()}
    twins = Twins.among(parts, train.space, trusted, lambda name, values: rows[name].turned(values))
    if twins is None:
        return []
    once(distinct(parts.values()), *(p.look for p in twins.picks))
    return twins.notes()


def of_texts(splits: Mapping[str, tuple[Ragged, np.ndarray | None]]) -> list[str]:
    """Say how many held-out texts equal a training text, from the codes of each split and which of
    their rows it has.

    Nothing is said of texts that repeat by chance. If there are few different texts, repeats are
    what the distribution gives. If there are more, such as short answers, three equal ones are as
    frequent among training texts as the numbers of single texts and pairs imply.
    """
    hashed = {name: [hash(line) for line in _lines(*held)] for name, held in splits.items()}
    known, notes = Counter(hashed["train"]), []
    every = len(hashed["train"])
    # one text that is most of the file is no language
    if known and len(known) * REPEATED <= every and 2 * max(known.values()) <= every:
        return []
    times = Counter(known.values())
    # if every text is drawn with the same small probability; more if they differ
    triples = 2 / 3 * times[2] ** 2 / max(1, times[1])
    if triples >= CERTAIN_TRIPLES and sum(n for k, n in times.items() if k >= 3) >= triples / 2:
        return []
    for name in ("valid", "test"):
        found = sum(line in known for line in hashed[name])
        if found:
            notes.append(
                f"{found:,} of {len(hashed[name]):,} {name} texts each equal a training text: "
                f"bounds on them are too good"
            )
    return notes


def _lines(codes: Ragged, index: np.ndarray | None) -> Iterator[bytes]:
    for row in range(len(codes)) if index is None else index:
        yield codes.codes[codes.starts[row] : codes.starts[row + 1]].tobytes()


class Twins:
    """Find held-out rows that are copies or near-copies of a training row, from what `once` shows
    to its `picks`.

    Args:
        parts: the splits.
        space: of the data.
        inside: turns rows of a split's array into codes or values, (N, *X).
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
            Picked(part, GROUP, partial(self._look, name), partial(self._vectors, name))
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
        """Return what finds them; None for `trusted` data."""
        return None if trusted else cls(parts, space, inside)

    def notes(self) -> list[str]:
        """Say how many rows have a twin, once all rows were seen."""
        notes = []
        known = [np.concatenate(parts) for parts in self._sketches["train"]]
        for name in ("valid", "test"):
            if name in self._parts:
                (found, every), rows = self._found(name, known), len(self._parts[name])
                if found:
                    counted = (
                        f"{found:,} of {rows:,} {name} rows"
                        if every
                        else f"about {found:,} of {rows:,} {name} rows"
                    )
                    notes.append(
                        f"{counted} each equals or nearly equals a training row: bounds on them "
                        f"are too good"
                    )
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
        # copies share a bucket, also where few directions make few buckets
        signs[:, 0] = [hash(row.tobytes()) for row in seen[0]]
        self._signs[name].append(signs)
        for view, values, kept in zip(self._views, seen, self._sketches[name], strict=True):
            kept.append(view.sketch(values))

    def _found(self, name: str, known: list[np.ndarray]) -> tuple[int, bool]:
        """Count the rows of a split that have a twin, and tell whether every candidate was
        examined."""
        mine, (some, whole) = (
            [np.concatenate(parts) for parts in self._sketches[name]],
            self._around(known),
        )
        all_pairs = len(mine[0]) * len(known[0]) <= PAIRS
        partner, apart = (
            nearest(mine[0], known[0]) if all_pairs else self._hashed(name, mine[0], known[0])
        )
        # Sketches differ from distances by a factor of up to 2, and for large numbers by their
        # rounding.
        candidates = np.flatnonzero(
            apart <= 2 * CLOSE * some[0].typical + 1e-3 * np.sqrt((mine[0] ** 2).sum(1))
        )
        expected = self._chance(name, candidates, partner, mine, some)
        if whole is not some:
            candidates = candidates[expected < LIKELY]
            part = candidates
            if len(part) > EXAMINED:
                part = np.sort(numpy_generator(0, "duplicates", name).permutation(part)[:EXAMINED])
            expected = self._chance(name, part, partner, mine, whole)
        share = len(expected) / max(1, len(candidates))
        sure = np.sort(expected)
        limits = FALSE * np.arange(1, len(sure) + 1) / (len(mine[0]) * share)
        below = np.flatnonzero(sure <= limits)
        return (round((below[-1] + 1) / share) if len(below) else 0), share == 1

    def _around(self, known: list[np.ndarray]) -> tuple[list[Neighbours], list[Neighbours]]:
        """Return the neighbourhoods by some training rows and by all of them, for each view."""
        if not self._neighbours:
            n = len(known[0])
            rows = np.sort(numpy_generator(0, "duplicates").permutation(n)[:SOME])
            some = [Neighbours(sketch[rows], n) for sketch in known]
            self._neighbours = (
                some,
                some if n <= SOME else [Neighbours(sketch, n) for sketch in known],
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
        """Return how many independent training rows are expected to be as close to rows as their
        partners are, (len(part),)."""
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
        """Return how many independent training rows are expected to be as close to rows as their
        partners are, (N,)."""
        found, grouped = np.ones(len(rows)), np.zeros(len(rows), bool)
        for i, (view, sketch, neighbours) in enumerate(
            zip(self._views, sketches, around, strict=True)
        ):
            distance = np.sqrt(((view.of(rows) - view.of(others)) ** 2).sum(1, dtype=np.float64))
            number = neighbours.expected(sketch, distance, view.step(rows))
            grouped |= neighbours.grouped(sketch)
            if i == 0:
                found = np.where(distance <= CLOSE * neighbours.typical, number, np.inf)
            # of the one partner that the first view chose: the product of two uniform numbers is
            # below x with x (1 - log x)
            else:
                # In a small group of alike images, the partner is of the group, and close in this
                # view too.
                found = found * np.minimum(
                    number / np.where(grouped, 1, len(self._parts["train"])), 1
                )
                found = found * (1 - np.log(np.clip(found, 1e-300, 1)))
        return found

    def _hashed(
        self, name: str, mine: np.ndarray, known: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest of the training rows that share a bucket with each row, and how far it
        is: (N,) and (N,)."""
        my_signs, signs = (np.concatenate(self._signs[n]) for n in (name, "train"))
        partner, apart = np.zeros(len(mine), np.int64), np.full(len(mine), np.inf)
        for t in range(TABLES):
            order = np.argsort(signs[:, t], kind="stable")
            first = np.searchsorted(signs[order, t], my_signs[:, t])
            # the first few of a bucket: a true twin is found in one of the tables
            for step in range(4):
                candidate = order[np.minimum(first + step, len(order) - 1)]
                distance = np.sqrt(((mine - known[candidate]) ** 2).sum(1, dtype=np.float64))
                better = (signs[candidate, t] == my_signs[:, t]) & (distance < apart)
                partner[better], apart[better] = candidate[better], distance[better]
        return partner, apart
