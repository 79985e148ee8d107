"""Keep rows that belong together, such as those of one patient, in one split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vaestro.randomness import numpy_generator


def divided_by_group(
    groups: np.ndarray, sizes: Mapping[str, int], seed: int
) -> dict[str, np.ndarray]:
    """Return the rows of each split. All rows of a group are in one split.

    Args:
        groups: the group of each row, (N,).
        sizes: the least number of rows of each held-out split. At least one group remains for
            training.
        seed: of the draw.

    >>> index = divided_by_group(np.repeat(np.arange(20), 3), {"valid": 3, "test": 4}, 0)
    >>> {split: len(rows) for split, rows in index.items()}
    {'test': 6, 'valid': 3, 'train': 51}
    """
    names, codes, rows = np.unique(groups, return_inverse=True, return_counts=True)
    order = numpy_generator(seed, "split").permutation(len(names))
    left, index = len(names), {}
    for split, size in reversed(list(sizes.items())):
        end, held = left, 0
        while held < size and left > 1:
            left -= 1
            held += int(rows[order[left]])
        index[split] = np.flatnonzero(np.isin(codes, order[left:end]))
    return {**index, "train": np.flatnonzero(np.isin(codes, order[:left]))}
