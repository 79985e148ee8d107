"""Check that the values of a batch can be data of a space, before a model scores them.

Batches of `Rows` are checked when the data are read. Other batches are checked here, because a
likelihood returns a number for any value: a Bernoulli likelihood of grey levels is not a
probability (Loaiza-Ganem and Cunningham 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaestro.spaces.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from vaestro.spaces.base import Space


def check_batch(space: Space, batch: Batch) -> None:
    """Raise ValueError unless a batch has values of a space.

    Args:
        space: of the model.
        batch: B data; not read if it is `checked`.

    Raises:
        ValueError: it is no batch of tensors, its shape differs, or an observed value is not in the
            support of the data: NaN, infinite, or no code of the space.

    >>> import torch
    >>> from vaestro.spaces import BinarySpace
    >>> check_batch(BinarySpace((3,), (3,), levels=2), Batch(torch.full((2, 3), 0.5)))
    Traceback (most recent call last):
    ValueError: expected whole numbers from 0 to 1 in a batch of binary (3,); got 0.5
    """
    import torch

    if not isinstance(batch, Batch):
        raise ValueError(
            f"expected a Batch, such as data.train.batch(slice(0, 8)); got {type(batch).__name__}"
        )
    if batch.checked:
        return
    x = batch.x
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"expected a batch of tensors; got {type(x).__name__}")
    if tuple(x.shape[1:]) != space.shape and not space.ragged:
        shape = ", ".join(map(str, space.shape))
        raise ValueError(f"expected a batch of shape (B, {shape}); got {tuple(x.shape)}")
    low, high, whole = (torch.from_numpy(a).to(x.device) for a in space.support())
    wrong = ~((x >= low) & (x <= high)) | ~torch.isfinite(x)
    if x.is_floating_point():
        wrong = wrong | (whole & (x != x.round()))
    if batch.observed is not None:
        wrong = wrong & batch.observed
    if wrong.any():
        where = wrong.nonzero()[0, 1:]
        at = [a.expand(x.shape[1:])[tuple(where)].item() for a in (low, high, whole)]
        raise ValueError(f"expected {_range(*at)} in a batch of {space}; got {_some(x[wrong])}")


def _range(low: float, high: float, whole: float) -> str:
    """Return the support of a cell in words."""
    kind = "whole numbers" if whole else "finite numbers"
    if low == -float("inf"):
        return kind
    return f"{kind} from {low:g}" + ("" if high == float("inf") else f" to {high:g}")


def _some(values: Tensor) -> str:
    """Return the first different values in words."""
    different = list(dict.fromkeys(f"{v:g}" for v in values[:1000].tolist()))
    return ", ".join(different[:3]) + (" .." if len(different) > 3 else "")
