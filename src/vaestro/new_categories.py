"""Learn new categories of a condition with all other weights unchanged, such as a new batch of
single cells (Lotfollahi et al. 2022).

A condition enters a network through the last columns of some weights W (`Conditioned`). A new
category adds columns to W, which start at the mean over the known categories. Only these columns
are trained: W is a parametrisation of them, and its other columns are constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, final

import torch
import torch.nn as nn
import torch.nn.utils.parametrize as parametrize
from torch import Tensor

from vaestro.models import Model
from vaestro.spaces import Column, Space

NEW_CATEGORIES = "all-but-new-categories"  # the value of --freeze


class _Features(NamedTuple):
    """Where the features of a column of conditions are among all features."""

    column: Column
    place: slice
    atoms: slice  # which tell the column's frequent values


def _features(space: Space) -> dict[str, _Features]:
    """Return where the features of each column are, by its name."""
    starts, start = [], 0
    for sizes in ([c.features for c in space.columns], [len(c.points) for c in space.columns]):
        for size in sizes:
            starts.append(slice(start, start + size))
            start += size
    count = len(space.columns)
    return {c.name: _Features(c, starts[i], starts[count + i]) for i, c in enumerate(space.columns)}


def feature_map(known: Space, given: Space) -> Tensor:
    """Return the matrix M, (features of known, features of given), for which W M are the columns of
    a weight that belong to the conditions `given`, if W are those of `known`.

    A column that belongs to a category is W times the features of that category. It is the mean
    over the known categories for a new one.

    Args:
        known: the space of the conditions before categories were added.
        given: the space with the new categories.

    >>> from vaestro.spaces import BinaryColumn, CategoryColumn, TableSpace
    >>> known = TableSpace.of([BinaryColumn("lab", "str", ("a", "b"))])
    >>> feature_map(known, TableSpace.of([CategoryColumn("lab", "str", ("a", "b", "c"))]))
    tensor([[-1.,  1.,  0.]])
    """
    result = torch.zeros(known.feature_shape[0], given.feature_shape[0])
    before, after = _features(known), _features(given)
    for name, (column, place, atoms) in before.items():
        new = after[name]
        if new.column.values == column.values:
            for rows, columns in ((place, new.place), (atoms, new.atoms)):
                result[rows, columns] = torch.eye(rows.stop - rows.start)
            continue
        codes = torch.arange(len(column.values)).unsqueeze(1).float()
        each = column.encoded([column], codes, None)
        added = each.mean(0, keepdim=True).expand(len(new.column.values) - len(each), -1)
        result[place, new.place] = torch.cat([each, added]).T
    return result


def _added(given: Space | None) -> list[int]:
    """Return the positions of the features of the new categories."""
    columns = [] if given is None else _features(given).values()
    return [i for c, at, _ in columns for i in range(at.stop - c.added, at.stop)]


def grown(model: Model, given: Space | None) -> dict[str, Tensor]:
    """Return the weights of a model with columns for the new categories of its conditions.

    Args:
        model: a model of the known categories.
        given: the space of the conditions with the new ones.

    >>> import vaestro as vs
    >>> model = vs.build(vs.load("digits").space, latent=2, network="mlp:width=8")
    >>> grown(model, None).keys() == model.state_dict().keys()
    True
    """
    weights = model.state_dict()
    if given is None or model.given is None or given.feature_shape == model.given.feature_shape:
        return weights
    matrix, count = feature_map(model.given, given), model.given.feature_shape[0]
    for module, path, name in model.columns_of_conditions():
        weight = module.get_parameter(name).detach()
        rest, known = weight[..., :-count], weight[..., -count:]
        weights[f"{path}{name}"] = torch.cat([rest, known @ matrix.to(weight)], -1)
    return weights


@final
class NewColumns(nn.Module):
    """Represent a weight of which only some columns, those of the new categories, are trained.

    Args:
        weight: the whole weight, (..., inputs).
        places: positions of the trained columns.

    >>> NewColumns(torch.zeros(1, 3), [2])(torch.ones(1, 1))
    tensor([[0., 0., 1.]])
    """

    places: Tensor

    def __init__(self, weight: Tensor, places: list[int]) -> None:
        super().__init__()
        self.known = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.register_buffer("places", torch.tensor(places, device=weight.device))

    def forward(self, columns: Tensor) -> Tensor:
        return self.known.index_copy(-1, self.places, columns)

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        """Store the whole weight, and return its trained columns."""
        self.known.copy_(weight)
        return weight[..., self.places].clone()


def train_new_categories(model: Model) -> None:
    """Freeze a model except for the columns that belong to new categories of its conditions.

    Raises:
        ValueError: its conditions have no new categories.

    >>> import vaestro as vs
    >>> model = vs.build(vs.load("digits").space, latent=2, network="mlp:width=8")
    >>> train_new_categories(model)
    Traceback (most recent call last):
    ...
    ValueError: expected a condition with categories that the run of --init does not have, for ...
    """
    places = _added(model.given)
    if model.given is None or not places:
        raise ValueError(
            f"expected a condition with categories that the run of --init does not have, for "
            f"--freeze {NEW_CATEGORIES}; got none (without --freeze all weights are trained)"
        )
    count = model.given.feature_shape[0]
    model.requires_grad_(False)
    for module, _, name in list(model.columns_of_conditions()):
        weight = module.get_parameter(name)
        first = weight.shape[-1] - count
        trained = NewColumns(weight, [first + i for i in places])
        weight.requires_grad_(True)
        parametrize.register_parametrization(module, name, trained, unsafe=True)


def _parametrised(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield the modules with weights of which some columns are trained, and their names."""
    for path, module in list(model.named_modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):
                yield f"{path}.{name}" if path else name, module, name


def whole_weights(model: Model, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a model by their own names.

    Args:
        model: a model of which some columns may be trained.
        state: its `state_dict`, or an earlier one.

    >>> import vaestro as vs
    >>> model = vs.build(vs.load("digits").space, latent=2, network="mlp:width=8")
    >>> whole_weights(model, model.state_dict()).keys() == model.state_dict().keys()
    True
    """
    whole = dict(state)
    for path, _, name in _parametrised(model):
        # where PyTorch stores the parts of a parametrisation
        prefix = f"{path.removesuffix(name)}parametrizations.{name}."
        known, places = whole.pop(f"{prefix}0.known"), whole.pop(f"{prefix}0.places")
        whole[path] = known.index_copy(-1, places, whole.pop(f"{prefix}original"))
    return whole


@torch.no_grad()
def load_whole(model: Model, weights: Mapping[str, Tensor]) -> None:
    """Load weights by their own names into a model of which some columns may be trained; the other
    weights of the model stay.

    >>> import vaestro as vs
    >>> model = vs.build(vs.load("digits").space, latent=2, network="mlp:width=8")
    >>> load_whole(model, model.state_dict())
    """
    rest = dict(weights)
    for path, module, name in list(_parametrised(model)):
        if path in rest:
            setattr(module, name, rest.pop(path))  # the parametrisation keeps its parts
    model.load_state_dict(model.state_dict() | rest)
