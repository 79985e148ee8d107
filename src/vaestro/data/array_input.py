"""Arrays of other libraries as NumPy arrays: torch tensors, masked arrays, and objects that NumPy
can read, such as those of JAX, xarray and h5py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from vaestro.text import InputError


@runtime_checkable
class ArrayLike(Protocol):
    """Describe an object that NumPy can read as an array."""

    def __array__(self) -> np.ndarray:
        """Return the values."""


@runtime_checkable
class Tabular(Protocol):
    """Describe a table of another library, such as a pandas DataFrame."""

    @property
    def columns(self) -> object:
        """Return the columns, or their names."""


def as_array(source: object) -> tuple[object, bool]:
    """Return an array of another library as a NumPy array, and whether NaN means a missing cell;
    other sources unchanged.

    Gradients of a tensor are not tracked, and a tensor of a GPU is copied. The masked cells of a
    masked array become NaN.

    Raises:
        ValueError: the array cannot be read.

    >>> as_array(np.ma.MaskedArray([1.0, 2.0], [False, True]))
    (array([ 1., nan]), True)
    """
    if isinstance(source, np.ma.MaskedArray) and not source.dtype.names:
        return _filled(source)
    if isinstance(source, (np.ndarray, str, Mapping)):
        return source, False
    if type(source).__module__.partition(".")[0] == "torch":
        return _of_tensor(source), False
    if isinstance(source, Tabular) or not isinstance(source, ArrayLike):
        return source, False
    try:
        return np.asarray(source), False
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the {type(source).__name__} is not an array that NumPy can read ({error})"
        ) from error


def _filled(source: np.ma.MaskedArray) -> tuple[np.ndarray, bool]:
    """Return a masked array with NaN in its masked cells, and whether there are any."""
    mask, data = np.ma.getmaskarray(source), np.ma.getdata(source)
    if not mask.any() or data.dtype.kind not in "biuf":
        return data, False
    own = data.dtype if data.dtype.kind == "f" else np.result_type(data.dtype, np.float32)
    return np.where(mask, np.nan, data).astype(own), True


def _of_tensor(source: object) -> object:
    """Return a tensor as an array; other objects of torch unchanged."""
    import torch

    if not isinstance(source, torch.Tensor):
        return source
    tensor = source.detach().cpu()
    if tensor.is_sparse or tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    return tensor.resolve_conj().numpy()
