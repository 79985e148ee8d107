"""What a model decodes to, in the user's layout and units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from vaestro.data import Rows, tables
from vaestro.data.raw import IDENTIFIERS
from vaestro.data.series.record import ended, ends_of
from vaestro.densities import Categorical, DataDensity, Decoding, Density, Sentences
from vaestro.frames import Frame
from vaestro.latent.codes import Codes, means_of, settled
from vaestro.models import Model, with_latent
from vaestro.randomness import torch_generator
from vaestro.spaces import Batch, Space
from vaestro.tokens import Texts
from vaestro.written import check_dtype, means

# data in the user's layout and units: an array (N, *outside), a table or texts
UserData: TypeAlias = np.ndarray | Frame | Texts
# one value for each condition, as the user's data have it, or as text
Conditions: TypeAlias = Mapping[str, str | float | np.generic]


@torch.inference_mode()
def decode(
    model: Model,
    z: np.ndarray,
    *,
    given: Tensor | None = None,
    sample: bool = False,
    seed: int = 0,
    decoding: Decoding | None = None,
    dtype: str | None = None,
    lengths: np.ndarray | None = None,
) -> UserData:
    """Return the mean of p(x | z) at latents (N, *Z), or a draw, in the user's layout and units.

    For binary data the mean is a probability. For categories and texts it is the most probable
    value; that of a text is found by a search.

    Args:
        model: a trained model.
        z: latents, (N, *Z), or (N, prod(Z)).
        given: conditions of a conditional model, (N, G), from `conditions`.
        sample: return a draw from p(x | z) instead of the mean.
        seed: of the draws.
        decoding: how texts are drawn or searched for.
        dtype: "own" or "float", for means: see `written.means`.
        lengths: of series, (N,), after which cells are NaN; by default the median of
            p(length | z), or a draw.

    Raises:
        ValueError: the model has no latent, the latents have another shape or are not finite,
            conditions are missing, or `decoding` or `dtype` does not apply.

    >>> import numpy as np, vaestro as vs
    >>> space = vs.load(np.random.default_rng(0).normal(size=(100, 3))).space
    >>> decode(vs.build(space, latent=2), np.zeros((4, 2))).shape
    (4, 3)
    """
    check_dtype(dtype, draws=sample)
    model = with_latent(model)
    z = _checked(model, z)
    _check_given(model, given)
    parameter, size = next(model.parameters()), model.space.chunk
    out = []
    for i in range(0, len(z), size):
        chunk = torch.from_numpy(np.array(z[i : i + size])).to(parameter)
        generator = torch_generator(parameter.device, seed, "decode", i) if sample else None
        part = None if given is None else given[i : i + size].to(parameter.device)
        data = values(
            model.decode(chunk, part),
            model.space,
            sample=sample,
            generator=generator,
            decoding=decoding,
            dtype=dtype,
        )
        own = None if lengths is None else lengths[i : i + size]
        out.append(_ended(data, model, chunk, part, own, sample=sample, generator=generator))
    return joined(out)


def _ended(
    data: UserData,
    model: Model,
    z: Tensor,
    given: Tensor | None,
    lengths: np.ndarray | None,
    *,
    sample: bool,
    generator: torch.Generator | None,
) -> UserData:
    """Return series with NaN after their end; other data unchanged."""
    if model.lengths is None or not isinstance(data, np.ndarray):
        return data
    if lengths is None:
        modelled = model.lengths.draw(z, given, generator) if sample else None
        lengths = (model.lengths.median(z, given) if modelled is None else modelled).cpu().numpy()
    return ended(data, lengths, model.space)


def _checked(model: Model, z: np.ndarray) -> np.ndarray:
    """Return latents as (N, *Z); raise ValueError if they are not latents of the model."""
    z = np.asarray(z)
    if z.ndim == 2 and z.dtype.kind in "iuf" and z.shape[1] == math.prod(model.units):
        z = z.reshape(len(z), *model.units)  # a table of codes has flat grids
    if z.dtype.kind not in "iuf" or z.shape[1:] != tuple(model.units):
        raise ValueError(
            f"expected latents of shape (N, {', '.join(map(str, model.units))}); got {z.dtype} "
            f"{z.shape}"
        )
    if not len(z) or not np.isfinite(z).all():
        raise ValueError(
            f"expected finite latents; got {'none' if not len(z) else 'NaN or infinite values'}"
        )
    return z


def reconstruct(
    model: Model,
    rows: Rows,
    *,
    decoding: Decoding | None = None,
    dtype: str | None = None,
    codes: Codes | None = None,
    changed: Conditions | None = None,
) -> UserData:
    """Return the mean of p(x | z) at the code of each datum, in the user's layout and units.

    Discrete latents are decoded at their most probable values. Series end where the data end.

    Args:
        model: a trained model.
        rows: the data, N rows.
        changed: {name: value} of conditions that the decoder has instead of those of the rows; the
            encoder has those of the rows.
        decoding, dtype: as for `decode`.
        codes: computes and keeps the codes; by default they are computed anew.

    >>> import numpy as np, vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).test
    >>> reconstruct(vs.build(rows.space, latent=2), rows).shape
    (5, 3)
    """
    z = settled(model, means_of(model, rows, codes))
    lengths = None
    if model.lengths is not None:
        mask = rows.mask()
        lengths = np.full(len(rows), rows.space.shape[0]) if mask is None else ends_of(mask)
    given = given_of(with_conditions(model, rows, changed or {}))
    return decode(model, z, given=given, decoding=decoding, dtype=dtype, lengths=lengths)


def with_conditions(model: Model, rows: Rows, changed: Conditions) -> Rows:
    """Return rows with other values of some conditions, the same for all rows.

    Args:
        model: a conditional model.
        rows: data of its space.
        changed: {name: value}, the value as the user's data have it, or as text.

    Raises:
        ValueError: there is no such condition, or it has no such value.

    >>> import vaestro as vs
    >>> data = vs.load({"size": [0.1, 0.5, 0.3] * 9, "sex": ["f", "m", "f"] * 9}, condition=["sex"])
    >>> model = vs.build(data.space, latent=2, given=data.given)
    >>> with_conditions(model, data.train, {"sex": "m"}).given.mean()
    np.float32(1.0)
    """
    columns = tables.condition_frame(model.given, changed, len(rows)).columns
    if model.given is None or rows.given is None or not columns:
        return rows
    given = rows.given.copy()
    for i, column in enumerate(model.given.columns):
        if column.name in columns:
            given[:, i] = column.inward(columns[column.name])
    replaced = replace(rows, given=given)
    check_conditions(model, replaced)
    return replaced


@torch.inference_mode()
def sample(
    model: Model,
    n: int,
    *,
    given: Tensor | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    mean: bool = False,
    complete: bool | None = None,
    decoding: Decoding | None = None,
    dtype: str | None = None,
) -> UserData:
    """Draw n data from the model, (n, *outside) or a table, in the user's layout, units and dtype.

    Args:
        model: a trained model.
        n: the number of data.
        given: conditions of a conditional model, (n, G), from `conditions`.
        temperature: multiplies the prior's standard deviation.
        seed: of the draws.
        mean: return the mean of p(x | z) at each drawn z instead of a draw; of texts the most
            probable one.
        complete: fill every cell. False draws which cells are empty; None does so for draws of
            tables whose training rows have empty cells.
        decoding: how texts are drawn or searched for.
        dtype: "own" or "float", for means, as for `decode`.

    Raises:
        ValueError: n is below 1, the temperature is negative or infinite, conditions are missing,
            `dtype` is given for draws, or `complete` is False for means or a model without a
            distribution of empty cells.

    >>> import numpy as np, vaestro as vs
    >>> space = vs.load(np.random.default_rng(0).normal(size=(100, 3))).space
    >>> sample(vs.build(space, latent=2), 5).shape
    (5, 3)
    """
    check_dtype(dtype, draws=not mean)
    if n < 1:
        raise ValueError(f"expected 1 or more samples; got {n}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"expected a temperature of 0 or more; got {temperature}")
    _check_given(model, given)
    gaps = _with_gaps(model, complete, mean=mean)
    device, size = next(model.parameters()).device, model.space.chunk
    out = []
    for i in range(0, n, size):
        generator = torch_generator(device, seed, "sample", i)
        part = None if given is None else given[i : i + size].to(device)
        density, z = _drawn(model, min(size, n - i), part, temperature, generator)
        data = values(
            density,
            model.space,
            sample=not mean,
            generator=generator,
            decoding=decoding,
            dtype=dtype,
        )
        if z is not None:
            data = _ended(data, model, z, part, None, sample=not mean, generator=generator)
            if gaps and model.absences is not None:
                x = torch.from_numpy(model.space.inward(data)).to(device)
                empty = model.absences.draw(z, Batch(x, None, part), generator)
                data = model.space.emptied(data, empty.cpu().numpy())
        out.append(data)
    return joined(out)


def _with_gaps(model: Model, complete: bool | None, *, mean: bool) -> bool:
    """Return whether samples have empty cells; raise ValueError if they cannot."""
    if complete is None:
        return model.absences is not None and model.space.tabular and not mean
    if not complete and mean:
        raise ValueError("expected draws for samples with empty cells; got means")
    if not complete and model.absences is None:
        raise ValueError(
            f"expected a run on a table or vectors with empty cells, for samples with empty cells; "
            f"got {model.space}, whose empty cells are not modelled"
        )
    return not complete


def _drawn(
    model: Model,
    n: int,
    given: Tensor | None,
    temperature: float,
    generator: torch.Generator | None,
) -> tuple[Density, Tensor | None]:
    """Return p(x | z) at n draws from the prior, and the draws if they say which cells exist."""
    if not model.presences:
        return model.sample(n, given, temperature=temperature, generator=generator), None
    latent = with_latent(model)
    z = latent.draw_prior(n, given, generator, temperature=temperature)
    return latent.decode(z, given), z


def values(
    density: Density,
    space: Space,
    *,
    sample: bool,
    generator: torch.Generator | None = None,
    decoding: Decoding | None = None,
    dtype: str | None = None,
) -> UserData:
    """Return p(x | z) with parameters (1, B, ...) as data in the user's layout: a draw or the mean.

    If a mean has no meaning, as for categories, it is the most probable value.

    Args:
        density: p(x | z).
        space: of the data.
        sample: return a draw.
        generator: of the draw.
        decoding: how texts are drawn or searched for.
        dtype: of means: see `written.means`.

    Raises:
        ValueError: `decoding` is given for data other than autoregressive texts.

    >>> import numpy as np, torch, vaestro as vs
    >>> space = vs.load(np.random.default_rng(0).normal(size=(100, 3))).space
    >>> values(vs.build(space, latent=2).decode(torch.zeros(4, 2)), space, sample=True).shape
    (4, 3)
    """
    if decoding is not None:
        if not isinstance(density, Sentences):
            raise ValueError(
                f"expected autoregressive text data for --top-p, --token-temperature and --beam; "
                f"got {space}"
            )
        density = density.by(decoding)
    if sample:
        assert isinstance(density, DataDensity)
        return space.limited(space.outward(density.sample(generator)[0].cpu().numpy()))
    point = density.point() if isinstance(density, DataDensity) else density.mean[0]
    categories = isinstance(density, Categorical) and not density.ordered
    return means(space, point.cpu().numpy(), dtype, most_probable=categories)


def joined(parts: Sequence[UserData]) -> UserData:
    """Return arrays, tables or texts of one kind concatenated along the rows.

    >>> joined([np.zeros((2, 3)), np.ones((1, 3))]).shape
    (3, 3)
    """
    frames = [p for p in parts if isinstance(p, Frame)]
    if frames:
        return Frame.concatenated(frames)
    texts = [p.lines for p in parts if isinstance(p, Texts)]
    if texts:
        return Texts(np.concatenate(texts))
    return np.concatenate([p for p in parts if isinstance(p, np.ndarray)])


def file_suffix(space: Space) -> str:
    """Return the suffix of the file that samples are written to by default.

    >>> import numpy as np, vaestro as vs
    >>> file_suffix(vs.load(np.random.default_rng(0).normal(size=(100, 3))).space)
    '.npz'
    """
    if space.tokeniser is not None:
        return ".txt"
    if space.columns:
        return ".csv"
    return ".png" if space.image else ".npz"


def conditions(model: Model, values: Conditions, n: int) -> Tensor | None:
    """Return one value for each condition as a model's input, (n, G); None without conditions.

    Args:
        model: a conditional model.
        values: {name: value}, the value as the user's data have it, or as text.
        n: the number of rows.

    Raises:
        ValueError: a condition is missing or unknown, or has no such value.

    >>> import vaestro as vs
    >>> data = vs.load({"size": [0.1, 0.5, 0.3] * 9, "sex": ["f", "m", "f"] * 9}, condition=["sex"])
    >>> conditions(vs.build(data.space, latent=2, given=data.given), {"sex": "m"}, 4).shape
    torch.Size([4, 1])
    """
    frame = tables.condition_frame(model.given, values, n)
    if model.given is None:
        return None
    absent = [name for name in model.given.names if name not in values]
    if absent:
        raise ValueError(
            f"expected a value for each condition, such as {absent[0]}=VALUE; got none for "
            f"{', '.join(absent)}"
        )
    firsts = {name: np.asarray(column.data[:1]) for name, column in frame.columns.items()}
    model.check_conditions(firsts, [""])
    return features_of(model.given, frame)


def features_of(space: Space, frame: Frame) -> Tensor:
    """Return conditions as a network's input, (N, G).

    Args:
        space: of the conditions.
        frame: their columns, N rows.

    >>> import vaestro as vs
    >>> table = {"size": [0.1, 0.5, 0.3] * 9, "sex": ["f", "m", "f"] * 9}
    >>> given = vs.load(table, condition=["sex"]).given
    >>> features_of(given, tables.frame_of({"sex": ["f", "m"]})).tolist()
    [[-1.0], [1.0]]
    """
    codes = torch.from_numpy(space.inward(frame))
    return space.features(codes, None, torch.get_default_dtype())


def given_of(rows: Rows) -> Tensor | None:
    """Return the conditions of rows as a network's input, (N, G); None without conditions.

    >>> import vaestro as vs
    >>> table = {"size": [0.1, 0.5, 0.3] * 9, "sex": ["f", "m", "f"] * 9}
    >>> given_of(vs.load(table, condition=["sex"]).test).shape
    torch.Size([1, 1])
    """
    if rows.given is None or rows.given_space is None:
        return None
    return rows.given_space.features(torch.from_numpy(rows.given), None, torch.get_default_dtype())


def check_conditions(model: Model, rows: Rows) -> None:
    """Raise ValueError if the model is not defined for the conditions of some rows.

    >>> import numpy as np, vaestro as vs
    >>> rows = vs.load(np.random.default_rng(0).normal(size=(100, 3))).test
    >>> check_conditions(vs.build(rows.space, latent=2), rows)
    """
    if rows.given is None or rows.given_space is None:
        return
    columns = rows.given_space.outward(rows.given, exact=False).columns
    names = next((rows.attributes[n] for n in IDENTIFIERS if n in rows.attributes), None)
    if names is None:
        index = np.arange(len(rows)) if rows.index is None else rows.index
        names = np.array([f"row {i + 1}" for i in index])
    values = {name: np.asarray(column.data) for name, column in columns.items()}
    model.check_conditions(values, names.astype(str).tolist())


def _check_given(model: Model, given: Tensor | None) -> None:
    if model.given is not None and given is None:
        raise ValueError(
            f"expected conditions ({', '.join(model.given.names)}) for a conditional model; got "
            f"none"
        )
