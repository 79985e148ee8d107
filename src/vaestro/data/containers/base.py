"""The interface between a container of data (an array, a table, texts, sparse counts, a stream) and
the code that reads, infers and lays out data.

Opening, splitting, conditioning, inference, matching and laying out are the same code for all
containers. What differs is a method of `Container`: how rows are selected and joined, which options
apply, how the space is inferred, and how values are laid out for training. A new container is one
final class and one row in `CONTAINERS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, final

import numpy as np

from vaestro.data import duplicates, shards
from vaestro.data.images import Progress
from vaestro.data.named import NAMED
from vaestro.data.passes import Part, W
from vaestro.data.raw import Options
from vaestro.data.readers import is_images
from vaestro.data.source_options import of_groups
from vaestro.randomness import numpy_generator
from vaestro.spaces import Space
from vaestro.tokens import Ragged

if TYPE_CHECKING:
    from vaestro.data.series.record import Record
    from vaestro.data.sets import Rows, Values


@final
@dataclass(frozen=True, eq=False)
class Inference:
    """Hold what was inferred from the splits of a source.

    Args:
        parts: the splits; rows that cannot be read are left out.
        space: of the data.
        options: of the source, resolved.
        notes: what was inferred, a line each.
        shared: held-out rows that equal training rows, a line each; None if not searched for yet.
        codes: tokens of texts, by the id of the whole.
        key: of the cache's entry that stores the inference; None if it is not stored.
    """

    parts: dict[str, Part]
    space: Space
    options: Options
    notes: list[str]
    shared: list[str] | None = None
    codes: Mapping[int, Ragged] = field(default_factory=dict)
    key: str | None = None


class Laid(NamedTuple):
    """Hold data as codes or values: the values, a mask of the observed cells (None: all), and
    whether the channels of images come last."""

    values: Values
    observed: np.ndarray | None = None
    channels_last: bool = False


class Container(ABC, Generic[W]):
    """Handle data of one type of container, `W`, with rows in the user's units.

    The defaults are for numbers (N, ...).
    """

    type: ClassVar[type[object]]  # what a reader returns for this container
    name = "arrays"  # in messages about options
    numbers = "numbers"  # in messages about data that do not fit a run
    taken_over = "offsets, scales and levels"  # from a run whose space data are read into
    most_held_out: int | None = None  # rows of a validation or test split; None: any number
    fillable = False  # whether missing cells can be filled in the user's own data

    # -- opening -----------------------------------------------------------------------------------

    def check_options(
        self, options: Options, whole: W, name: str, folder: bool
    ) -> tuple[list[str], str]:
        """Return the options that do not apply, and what the data are called in the message.

        Args:
            options: of the source.
            whole: the first split.
            name: of the source.
            folder: whether the source may hold images, which are resized.

        Raises:
            ValueError: the container cannot have an option.
        """
        unfit = of_groups(options, "tables", "files", "texts")
        if not folder and name not in NAMED:
            unfit += [
                k for k in of_groups(options, "images") if not self.resized(k, options, whole)
            ]
        if folder and not is_images(name):
            unfit = [k for k in unfit if k != "ignore"]
        return unfit + self.sharding(options, name), "images" if folder else self.name

    def sharding(self, options: Options, name: str) -> list[str]:
        """Return the options of shards if the source has no shards."""
        sharded = name.startswith("hf:") or shards.is_shards(name)
        return [] if sharded else of_groups(options, "shards")

    def resized(self, key: str, options: Options, whole: W) -> bool:
        """Return whether an option is the size that the images already have."""
        return False

    # -- rows --------------------------------------------------------------------------------------

    def rows(self, part: Part[W]) -> W:
        """Return the rows of a part."""
        return part.whole if part.index is None else self.select(part.whole, part.index)

    @abstractmethod
    def select(self, whole: W, rows: np.ndarray) -> W:
        """Return some rows, by number."""

    @abstractmethod
    def join(self, wholes: Sequence[W]) -> W:
        """Return the rows of several wholes one below the other."""

    def columns(self, whole: W) -> Mapping[str, np.ma.MaskedArray]:
        """Return the columns of a table by name; none for other containers."""
        return {}

    def formats(self, whole: W) -> Mapping[str, str]:
        """Return how the cells of columns of a table are written, by name."""
        return {}

    def without(self, whole: W, names: Sequence[str]) -> W:
        """Return the data without the columns of the conditions."""
        return whole

    def cell_names(self, whole: W) -> tuple[str, ...]:
        """Return the names of the cells, such as genes; empty if they are not known."""
        return ()

    def totals(self, whole: W, names: tuple[str, ...]) -> np.ndarray | None:
        """Return the sum of each row of counts, (N,); None for data without sums.

        Args:
            whole: the data.
            names: of the cells to add, if both they and those of the data have names; by default
                all.
        """
        return None

    def divide(self, part: Part[W], sizes: Mapping[str, int], seed: int) -> dict[str, Part[W]]:
        """Draw rows for the held-out splits, by seed; the others are the training split."""
        order = numpy_generator(seed, "split").permutation(len(part))
        start, chosen = len(part), {}
        for split, size in reversed(list(sizes.items())):
            chosen[split] = np.sort(order[start - size : start])
            start -= size
        chosen["train"] = np.sort(order[:start])
        return {split: part.chosen(index) for split, index in chosen.items()}

    def settle(
        self, parts: dict[str, Part[W]], options: Options, name: str, progress: Progress | None
    ) -> tuple[dict[str, Part], Options, list[str]]:
        """Return the splits with the held-out rows in memory or in a file, options, and notes."""
        return parts, options, []

    # -- inference ---------------------------------------------------------------------------------

    @abstractmethod
    def infer(
        self, parts: dict[str, Part[W]], options: Options, name: str, progress: Progress | None
    ) -> Inference:
        """Infer the space of the data.

        Raises:
            ValueError: the data cannot be modelled, or are not what the options say.
        """

    def described(self, inference: Inference, record: Record | None) -> Inference:
        """Return what was inferred with the channels, the table and the lengths of series.

        Args:
            inference: from `infer`.
            record: how series were read; None for other data.
        """
        return inference

    def keep(self, inference: Inference, shared: list[str], source: str) -> None:
        """Keep in the cache what was inferred, if it takes long to infer."""
        return

    def shared(
        self, parts: Mapping[str, Part[W]], rows: Mapping[str, Rows], trusted: bool
    ) -> list[str]:
        """Return a line for each held-out split that has rows equal to training rows."""
        return duplicates.find_copies(rows, trusted)

    # -- into a known space ------------------------------------------------------------------------

    def accepts(self, space: Space) -> bool:
        """Return whether data of this container can be data of a space."""
        return not space.columns and space.tokeniser is None

    def fit(self, whole: W, space: Space, options: Options) -> W:
        """Return the data with the cells of a space, which are matched by name where they have one.

        Raises:
            ValueError: the data are of another shape, or lack a cell.
        """
        if whole.shape[1:] != space.outside:
            shape = ", ".join(map(str, space.outside))
            hint = " (x[None] is one row)" if whole.shape == space.outside else ""
            raise ValueError(
                f"expected data of shape (N, {shape}), as the run was trained on; got "
                f"{whole.shape}{hint}"
            )
        return whole

    def fitted_note(self, space: Space) -> list[str]:
        """Return a note for data whose shape `fit` changed."""
        return []

    def read_notes(self, parts: Mapping[str, Part[W]], rows: Mapping[str, Rows]) -> list[str]:
        """Return notes on values that a known space can only store in part, such as unknown tokens.

        Args:
            parts: the splits, in the user's units.
            rows: the splits, in the space.
        """
        return []

    def codes(
        self, parts: Mapping[str, Part[W]], space: Space, options: Options
    ) -> Mapping[int, Ragged]:
        """Return tokens of texts by the id of the whole; they are computed before the layout."""
        return {}

    def advise(self, error: ValueError, run: str, space: Space, where: str) -> ValueError:
        """Return an error about values of a source, with a remedy.

        Args:
            error: the error.
            run: name of the run whose space the data are read into.
            space: of the run.
            where: the source.
        """
        return ValueError(
            f"{error} ({run} was trained on {space}"
            f"{'' if space.missing else ' without missing cells'})"
        )

    # -- for training, and back --------------------------------------------------------------------

    @abstractmethod
    def lay_out(
        self, whole: W, space: Space, grey: bool, progress: Progress | None, checked: bool
    ) -> Laid:
        """Lay data out as codes or values.

        Args:
            whole: the data.
            space: of the data.
            grey: whether they are grey levels to be binarised.
            progress: called with (what, done, total).
            checked: whether the space was inferred from these data, which therefore fit.

        Raises:
            ValueError: the data do not fit the space.
        """

    def joined(self, rows: Sequence[Rows]) -> Values:
        """Return the values of several splits one below the other."""
        return np.concatenate([r.read() for r in rows])

    def merged(self, data: W, imputed: W, absent: Sequence[str] = ()) -> W:
        """Return the user's data with their missing cells taken from `imputed`.

        Args:
            data: the data.
            imputed: the same rows, filled.
            absent: the values of an array other than NaN that mean a missing cell, as text.
        """
        return data

    @abstractmethod
    def write(self, path: Path, data: W, places: np.ndarray | None, *, raw: bool = False) -> int:
        """Write data in the user's layout to a file whose suffix names the format.

        Args:
            path: the file, which is overwritten.
            data: the rows.
            places: their row numbers, which an .npz of an array also contains.
            raw: whether to write text that a spreadsheet would run without an apostrophe.

        Returns:
            the number of cells with such an apostrophe.

        Raises:
            ValueError: the format cannot hold data of this container.
        """
