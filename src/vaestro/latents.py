"""Put the latent space to work: encode a set, decode, reconstruct, interpolate, edit, sample,
impute."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaestro.data import Rows, tables
from vaestro.data.columns import filled
from vaestro.data.containers import container_of
from vaestro.densities import Categorical, DataDensity, Decoding, Density, Sentences
from vaestro.frames import Frame
from vaestro.models import LatentModel
from vaestro.randomness import torch_generator
from vaestro.spaces import Space
from vaestro.text import nearest
from vaestro.tokens import Texts
from vaestro.written import check_dtype, means


@torch.inference_mode()
def encode(
    model: LatentModel, rows: Rows, *, draws: int = 0, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return `mean` and `logvar` of q(z | x) for each datum, each (N, *Z); with `draws`, also `z`
    (draws, N, *Z).

    The code of a datum is the mean, which does not change from call to call; a draw is one only
    where asked for.
    """
    means, logvars, zs = [], [], []
    device = next(model.parameters()).device
    for i, batch in enumerate(rows.fixed().chunks(model.space.chunk, device)):
        code = model.code(batch)
        means.append(code.mean.cpu())
        if code.logvar is not None:
            logvars.append(code.logvar.cpu())
        if draws:
            zs.append(
                model.draw(
                    batch,
                    draws,
                    noise=model.noise(
                        draws, len(batch), torch_generator(device, seed, "encode", i)
                    ),
                ).z.cpu()
            )
    out = {"mean": torch.cat(means).numpy()}
    if logvars:
        out["logvar"] = torch.cat(logvars).numpy()
    if draws:
        out["z"] = torch.cat(zs, 1).numpy()
    return out


@torch.inference_mode()
def decode(
    model: LatentModel,
    z: np.ndarray,
    *,
    given: Tensor | None = None,
    sample: bool = False,
    seed: int = 0,
    decoding: Decoding | None = None,
    dtype: str | None = None,
) -> Any:
    """Return the likelihood's mean at latents (N, *Z), or a draw from it, in the user's layout and
    units.

    For binary data the mean is a probability; for categories it is the most probable value, and for
    texts the most probable one that a search finds; `decoding` says how that, or draws of texts,
    are made. Other means are in the user's dtype, unless `dtype` is "float": see `written.means`. A
    conditional model needs `given`, (N, G), as `conditions` makes it.

    Raises:
        ValueError: the latents are of another shape, or not finite, conditions are missing, or
            `decoding` or `dtype` is of no use.
    """
    check_dtype(dtype, draws=sample)
    z = np.asarray(z)
    if z.ndim == 2 and z.dtype.kind in "iuf" and z.shape[1] == math.prod(model.units):
        z = z.reshape(len(z), *model.units)  # a table of codes holds grids flat
    if z.dtype.kind not in "iuf" or z.shape[1:] != tuple(model.units):
        raise ValueError(
            f"expected latents of shape (N, {', '.join(map(str, model.units))}); got {z.dtype} "
            f"{z.shape}"
        )
    if not len(z) or not np.isfinite(z).all():
        raise ValueError(
            f"expected finite latents; got {'none' if not len(z) else 'NaN or infinite values'}"
        )
    _check_given(model, given)
    parameter, size = next(model.parameters()), model.space.chunk
    out = []
    for i in range(0, len(z), size):
        chunk = torch.from_numpy(np.array(z[i : i + size])).to(parameter)
        generator = torch_generator(parameter.device, seed, "decode", i) if sample else None
        density = model.decode(
            chunk, None if given is None else given[i : i + size].to(parameter.device)
        )
        out.append(
            values(
                density,
                model.space,
                sample=sample,
                generator=generator,
                decoding=decoding,
                dtype=dtype,
            )
        )
    return joined(out)


def settled(model: LatentModel, mean: np.ndarray) -> np.ndarray:
    """Return the latents that codes stand for, (N, *Z): the means themselves, or for discrete
    latents the most probable values."""
    if not model.alphabet:
        return mean
    if model.alphabet == 1:
        return (mean > 0.5).astype(mean.dtype)
    groups = mean.reshape(len(mean), -1, model.alphabet, *mean.shape[2:])
    chosen = groups.argmax(2, keepdims=True) == np.arange(model.alphabet).reshape(
        1, 1, -1, *[1] * (mean.ndim - 2)
    )
    return chosen.astype(mean.dtype).reshape(mean.shape)


def reconstruct(
    model: LatentModel, rows: Rows, *, decoding: Decoding | None = None, dtype: str | None = None
) -> Any:
    """Return the likelihood's mean at each datum's code, in the user's layout and units; for
    discrete latents at its most probable one.

    `decoding` and `dtype` as for `decode`.
    """
    return decode(
        model,
        settled(model, encode(model, rows)["mean"]),
        given=given_of(rows),
        decoding=decoding,
        dtype=dtype,
    )


def interpolate(
    model: LatentModel,
    rows: Rows,
    i: int,
    j: int,
    *,
    steps: int = 9,
    path: str = "linear",
    decoding: Decoding | None = None,
    dtype: str | None = None,
) -> Any:
    """Return what codes between those of two data decode to, from the first to the second, in the
    user's layout and units.

    Args:
        model: a trained model with real latents.
        rows: the data; conditions are those of the first.
        i, j: their numbers, from 0.
        steps: codes, both ends among them.
        path: "linear", or "spherical": along the great circle, lengths in proportion, since draws
            of a standard normal prior in many units lie near a sphere, and the middle of a straight
            line does not (White 2016).
        decoding, dtype: as for `decode`.

    Raises:
        ValueError: there are no such data, fewer than 2 steps, another path, discrete latents, or
            no great circle between the codes.
    """
    if model.alphabet:
        raise ValueError(
            "expected real latents to interpolate between; got discrete ones, between which "
            "nothing lies"
        )
    if not (0 <= i < len(rows) and 0 <= j < len(rows)):
        raise ValueError(f"expected numbers of data from 0 to {len(rows) - 1:,}; got {i} and {j}")
    if steps < 2 or path not in ("linear", "spherical"):
        raise ValueError(
            f"expected 2 or more steps on a path linear or spherical; got {steps} and {path!r}"
        )
    ends = rows.fixed().pick(np.array([i, j]))
    a, b = encode(model, ends)["mean"].astype(np.float64)
    z = between(a, b, steps, spherical=path == "spherical").astype(np.float32)
    given = given_of(ends)
    return decode(
        model,
        z,
        given=None if given is None else given[:1].expand(steps, -1),
        decoding=decoding,
        dtype=dtype,
    )


def between(a: np.ndarray, b: np.ndarray, steps: int, *, spherical: bool = False) -> np.ndarray:
    """Return codes from one to another, (steps, *Z), both ends among them: on a straight line, or
    along the great circle.

    Raises:
        ValueError: the codes are opposite or one is the origin, so that there is no one great
            circle through both.
    """
    share = np.linspace(0, 1, steps).reshape(-1, *[1] * a.ndim)
    first, second = 1 - share, share
    if spherical:
        lengths = float(np.linalg.norm(a)), float(np.linalg.norm(b))
        # The half-angle between unit vectors by two lengths, which is exact near 0 and near 180
        # degrees, where the cosine is flat.
        one, other = (
            x / max(length, np.finfo(float).tiny) for x, length in zip((a, b), lengths, strict=True)
        )
        angle = 2 * math.atan2(
            float(np.linalg.norm(one - other)), float(np.linalg.norm(one + other))
        )
        if not min(lengths) > 0 and (a != b).any():
            raise ValueError(
                "expected codes with a great circle between them; got one at the origin (--path "
                "linear)"
            )
        if math.pi - angle < OPPOSITE:
            raise ValueError(
                "expected codes with one great circle between them; got opposite ones, between "
                "which there are many (--path linear)"
            )
        if angle > OPPOSITE:
            length = (1 - share) * lengths[0] + share * lengths[1]
            first = np.sin((1 - share) * angle) / np.sin(angle) * length / lengths[0]
            second = np.sin(share * angle) / np.sin(angle) * length / lengths[1]
    return np.asarray(first * a + second * b)


KNOWN = 10_000  # data from which a direction is found
# of the angle between codes in radians: the middle of a great circle is then decided by rounding
OPPOSITE = 1e-3


WEAK = 0.5  # correlation with an attribute below which an edit along it is not an edit of it


class Direction(NamedTuple):
    """Say where an attribute lies in the latent space.

    Args:
        step: what is added to a code for an amount of 1, (*Z).
        correlation: of codes along it with the attribute, over the data that it was found on.
        n: how many those were.
        unit: what an amount of 1 is, in words.
        name: of the attribute, with the value that is moved to where there is one: slant, digit=7.
        valued: whether there is one.
    """

    step: np.ndarray
    correlation: float
    n: int
    unit: str
    name: str = ""
    valued: bool = False

    @property
    def warning(self) -> str:
        """Say so if the codes have too little to do with the attribute for an edit along it to mean
        much; "" if they may have enough.

        The upper limit of the correlation is that of Fisher (1915): its inverse hyperbolic tangent
        has standard error 1 / sqrt(n - 3).
        """
        reach = 1.96 / math.sqrt(max(1, self.n - 3))
        most = math.tanh(math.atanh(min(abs(self.correlation), 1 - 1e-9)) + reach)
        if most > WEAK:
            return ""
        return (
            f"warning: the codes along this direction explain at most {most * most:.0%} of the "
            f"variance of {self.name}, so the edit may "
            f"not change it: train with --condition {self.name.partition('=')[0]}, or with more "
            f"latent units or steps"
        )

    def moved(self, amount: float) -> str:
        """Say where an amount moves data to: "1 towards digit=7", "slant +0.5"."""
        if not self.valued:
            return f"{self.name} {amount:+g}"
        return f"{abs(amount):g} {'towards' if amount >= 0 else 'away from'} {self.name}"


def direction(model: LatentModel, rows: Rows, name: str, value: Any = None) -> Direction:
    """Return the direction in which an attribute grows, from the codes of data whose attribute is
    known.

    For a value, or an attribute of two values, it is the mean code of the data that have it (of
    two, the larger) less the mean code of the others (Larsen et al. 2016); for numbers, the codes'
    least-squares slope: by what they move where the attribute grows by one. What goes along with
    the attribute in the data goes along in the direction.

    Args:
        model: a trained model with real latents.
        rows: data with attributes; a table's own columns are attributes too.
        name: of the attribute.
        value: the one to move towards; None for numbers, and where there are two.

    Raises:
        ValueError: there is no such attribute or value, it does not vary or was given to the model,
            or latents are discrete.
    """
    if model.alphabet:
        raise ValueError(
            "expected real latents to edit; got discrete ones, to which nothing can be added"
        )
    known = attributes(rows)
    given = () if model.given is None else model.given.names
    if name in given:
        raise ValueError(
            f"expected an attribute that the code can tell; got {name!r}, which the model is "
            f"given (--condition {name}=VALUE sets it)"
        )
    if name not in known:
        raise ValueError(
            f"expected an attribute of {rows.name} data: "
            f"{nearest(name, known) if known else 'there are none'}; got {name!r}"
        )
    values = known[name]
    there = values == values
    if values.dtype.kind == "U":
        there &= values != ""
    rows, values = rows.pick(np.flatnonzero(there)), values[there]
    distinct = np.unique(values)
    if value is None and len(distinct) == 2:
        value = distinct[1]
    elif value is None and values.dtype.kind not in "biuf":
        raise ValueError(
            f"expected {name}=VALUE, one of {_some(distinct)}; got {name} alone, which has "
            f"{len(distinct):,} values"
        )
    if value is not None:
        has = (
            values == value
            if values.dtype.kind != "U" and not isinstance(value, str)
            else _equal(values, str(value))
        )
        if not has.any() or has.all():
            raise ValueError(
                f"expected a value of {name} that some data have and others do not: "
                f"{_some(distinct)}; got {value}"
            )
        target, unit = (
            has.astype(np.float64),
            f"the step from other data to those with {name}={value}",
        )
    else:
        target, unit = (
            values.astype(np.float64),
            f"1 of {name}, whose standard deviation is {values.astype(np.float64).std():.3g}",
        )
    if len(distinct) < 2:
        raise ValueError(
            f"expected an attribute that varies; got {name}, which is {_some(distinct)} in all data"
        )
    codes = encode(model, rows)["mean"].astype(np.float64)
    centred = target - target.mean()
    step = np.tensordot(centred, codes - codes.mean(0), 1) / (centred @ centred)
    along = codes.reshape(len(codes), -1) @ step.ravel()
    told = float(np.corrcoef(along, target)[0, 1]) if along.std() > 0 else 0.0
    valued = value is not None
    return Direction(
        step.astype(np.float32),
        told,
        len(rows),
        unit,
        f"{name}={value}" if valued else name,
        valued,
    )


def edit(
    model: LatentModel,
    rows: Rows,
    along: Direction,
    amount: float,
    *,
    decoding: Decoding | None = None,
    dtype: str | None = None,
) -> Any:
    """Return what codes decode to after so much of an attribute is added, in the user's layout and
    units.

    Args:
        model: the model that the direction is of.
        rows: the data to edit; their conditions stay.
        along: the direction, as `direction` finds it.
        amount: how much of it; negative takes away.
        decoding, dtype: as for `decode`.

    Raises:
        ValueError: the amount is not finite.
    """
    if not math.isfinite(amount):
        raise ValueError(f"expected a finite amount; got {amount}")
    z = encode(model, rows)["mean"] + np.float32(amount) * along.step
    return decode(model, z, given=given_of(rows), decoding=decoding, dtype=dtype)


def attributes(rows: Rows) -> dict[str, np.ndarray]:
    """Return the attributes of rows, and of a table its columns, with NaN or empty text in empty
    cells."""
    found = {name: np.asarray(values) for name, values in rows.attributes.items()}
    if rows.space.tabular and isinstance(frame := rows.outward(), Frame):
        found |= {name: filled(column) for name, column in frame.columns.items()}
    return found


def _equal(values: np.ndarray, text: str) -> np.ndarray:
    """Tell which values a text names: numbers by what they are, others by how they are written."""
    with suppress(ValueError):
        if values.dtype.kind in "iuf":
            return np.asarray(values == float(text))
    return np.asarray(values.astype(str) == text)


def _some(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:8].tolist())) + (" .." if len(values) > 8 else "")


@torch.inference_mode()
def sample(
    model: LatentModel,
    n: int,
    *,
    given: Tensor | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    mean: bool = False,
    decoding: Decoding | None = None,
    dtype: str | None = None,
) -> Any:
    """Draw n data from the model, (n, *outside) or a table, in the user's layout, units and dtype.

    Args:
        model: a trained model.
        n: how many.
        given: conditions of a conditional model, (n, G), as `conditions` makes them.
        temperature: the prior's standard deviation is multiplied by this.
        seed: of the draws.
        mean: return the mean of p(x | z) at each drawn z in place of a draw from it, of texts the
            most probable one.
        decoding: how texts are drawn or searched for.
        dtype: of means, as for `decode`.

    Raises:
        ValueError: n below 1, a temperature that is not 0 or more, conditions that are missing, or
            a `dtype` of draws.
    """
    check_dtype(dtype, draws=not mean)
    if n < 1:
        raise ValueError(f"expected 1 or more samples; got {n}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"expected a temperature of 0 or more; got {temperature}")
    _check_given(model, given)
    device, size = next(model.parameters()).device, model.space.chunk
    out = []
    for i in range(0, n, size):
        generator = torch_generator(device, seed, "sample", i)
        part = None if given is None else given[i : i + size].to(device)
        density = model.sample(min(size, n - i), part, temperature=temperature, generator=generator)
        out.append(
            values(
                density,
                model.space,
                sample=not mean,
                generator=generator,
                decoding=decoding,
                dtype=dtype,
            )
        )
    return joined(out)


@torch.inference_mode()
def impute(
    model: LatentModel,
    rows: Rows,
    *,
    k: int = 100,
    sample: bool = False,
    seed: int = 0,
    dtype: str | None = None,
    own: Any = None,
) -> Any:
    """Fill in the cells that are missing, in the user's layout, units and dtype; observed cells
    stay as they are.

    Draws from q(z | x) are weighted by w = p(x observed, z) / q(z | x), so that what is filled in
    follows p(missing | observed) and not q alone (Rezende, Mohamed and Wierstra 2014; Mattei and
    Frellsen 2019). Cells are assumed to be missing at random.

    Args:
        model: a trained model.
        rows: data with missing cells.
        k: draws for each datum.
        sample: fill in a draw from p(missing | observed), by resampling one z by its weight, in
            place of the weighted mean (for categories the most probable value).
        seed: of the draws.
        dtype: "float" does not round the means that are filled in; else they are rounded to values
            that the data can have.
        own: the rows as the user's data have them, an array with NaN or a Frame, from which
            observed cells are copied bit for bit; by default they are turned back from what the
            model sees, which rounds them to the precision of float32 inside.

    Raises:
        ValueError: k below 1, or texts, which have no missing cells.
    """
    if model.space.tokeniser is not None:
        raise ValueError(
            "expected data with cells that can be missing; got texts, which end where they do"
        )
    if k < 1:
        raise ValueError(f"expected k of 1 or more draws; got {k}")
    check_dtype(dtype, draws=sample)
    rows = rows.fixed()
    if rows.observed is None:
        return rows.outward() if own is None else own
    device, space = next(model.parameters()).device, model.space
    size = max(1, space.chunk // min(k, 32))
    filled = []
    for i, batch in enumerate(rows.chunks(size, device)):
        assert batch.observed is not None
        draws = model.draw(
            batch, k, noise=model.noise(k, len(batch), torch_generator(device, seed, "impute", i))
        )
        weights = torch.softmax(draws.log_w, 0)
        assert isinstance(draws.px, DataDensity)
        if sample:
            generator = torch_generator(device, seed, "impute draw", i)
            chosen = torch.multinomial(weights.T, 1, generator=generator).T  # (1, B)
            z = draws.z.gather(
                0, chosen.view(1, -1, *[1] * (draws.z.ndim - 2)).expand(1, *draws.z.shape[1:])
            )
            px = model.decode(z[0], batch.given)
            assert isinstance(px, DataDensity)
            x = px.conditioned(batch.x, batch.observed).sample(generator)[0]
        else:
            x = draws.px.conditioned(batch.x, batch.observed).point(weights)
        filled.append(torch.where(batch.observed, batch.x.to(x.dtype), x).cpu().numpy())
    made = space.outward(np.concatenate(filled), exact=dtype != "float")
    if dtype == "float" and space.probabilities:
        # beside observed values a probability is the expected value
        made = made * space.step + space.low
    return made if own is None else container_of(own).merged(own, made)


def conditions(model: LatentModel, values: Mapping[str, Any], n: int) -> Tensor | None:
    """Turn one value for each condition into what a model is given, (n, G); None for a model
    without conditions.

    Args:
        model: a conditional model.
        values: {name: value}, the value as the user's data have it, or as text.
        n: for how many rows.

    Raises:
        ValueError: a condition is missing or unknown, or has no such value.
    """
    columns = tables.condition_columns(model.given, values, n)
    if model.given is None:
        return None
    absent = [name for name in model.given.names if name not in values]
    if absent:
        raise ValueError(
            f"expected a value for each condition, such as {absent[0]}=VALUE; got none for "
            f"{', '.join(absent)}"
        )
    codes = torch.from_numpy(model.given.inward(Frame(columns)))
    return model.given.features(codes, None, torch.get_default_dtype())


def given_of(rows: Rows) -> Tensor | None:
    """Return the conditions of rows as a network sees them, (N, G); None without."""
    if rows.given is None or rows.given_space is None:
        return None
    return rows.given_space.features(torch.from_numpy(rows.given), None, torch.get_default_dtype())


def _check_given(model: LatentModel, given: Tensor | None) -> None:
    if model.given is not None and given is None:
        raise ValueError(
            f"expected conditions ({', '.join(model.given.names)}) for a conditional model; got "
            f"none"
        )


def joined(parts: list[Any]) -> Any:
    """Put arrays or tables one below the other."""
    if isinstance(parts[0], Texts):
        return Texts(np.concatenate([p.lines for p in parts]))
    if isinstance(parts[0], Frame):
        return Frame(
            {name: np.ma.concatenate([p.columns[name] for p in parts]) for name in parts[0].columns}
        )
    return np.concatenate(parts)


def values(
    density: Density,
    space: Space,
    *,
    sample: bool,
    generator: torch.Generator | None = None,
    decoding: Decoding | None = None,
    dtype: str | None = None,
) -> Any:
    """Turn p(x | z) with parameters (1, B, ...) into data in the user's layout: a draw, or the mean
    in a dtype as for `written.means`.

    Where a mean has no meaning, as for categories, it is the most probable value.
    """
    if decoding is not None:
        if not isinstance(density, Sentences):
            raise ValueError(
                f"expected texts under the likelihood autoregressive for a way of decoding; got "
                f"{space}"
            )
        density = density.by(decoding)
    if sample:
        return space.outward(density.sample(generator)[0].cpu().numpy())  # type: ignore[attr-defined]
    point = density.point() if isinstance(density, DataDensity) else density.mean[0]
    return means(
        space,
        point.cpu().numpy(),
        dtype,
        most_probable=isinstance(density, Categorical) and not density.ordered,
    )
