"""A recorded function is the function: the same numbers, what it writes written, and what cannot be
recorded refused."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from vaestro import graphs

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
WAYS = [graphs.listed, pytest.param(graphs.compiled, marks=needs_compiler)]


class Log(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


def operations(function: Callable[..., Any], *inputs: Tensor) -> list[str]:
    with Log() as log:
        function(*inputs)
    return log.names


def test_what_comes_out_is_the_callers_to_write_to() -> None:
    weight = torch.ones(3)
    recorded = graphs.listed(
        lambda x: [weight * 1, x.view(3), (weight * 1)[:2], *(x * 1).split(2)], [torch.ones(3)]
    )
    x = torch.ones(3)
    for out in recorded(x):
        out.zero_()
    assert torch.equal(weight, torch.ones(3)) and torch.equal(x, torch.ones(3))


def test_no_two_outputs_share_a_memory() -> None:
    def step(x: Tensor) -> list[Tensor]:
        y = x + 1
        return [y, y * 1, y.t()]

    first, second, third = graphs.listed(step, [torch.ones(2, 2)])(torch.ones(2, 2))
    first.zero_()
    assert bool((second == 2).all()) and bool((third == 2).all())


@pytest.mark.parametrize(
    "step",
    [
        # what is copied lies otherwise than what it is copied from
        lambda x: [x[:, :2].neg().neg().view(-1) * 2],
        # a constant lies as what it is like
        lambda x: [torch.ones_like(x.t()).t().view(-1) * x.view(-1)],
        # a sum of one number has no negative zero
        lambda x: [1 / x.sum(1, keepdim=True)[:, :1], 1 / x[:, :1].sum(1)],
        lambda x: [x.expand(2, 4, 3)[0] * 1, x.unsqueeze(0).expand(1, 4, 3).squeeze(0).t().t() + 1],
        lambda x: [x.to(torch.float64).mul(1).pow(1).sum(0), x.bool().sum(1)],
    ],
)
def test_the_numbers_and_how_they_lie_are_the_same(step: Callable[[Tensor], list[Tensor]]) -> None:
    x = torch.randn(4, 3)
    x[0] = -0.0
    recorded = graphs.listed(step, [x])
    for a, b in zip(step(x), recorded(x), strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride()


def test_a_copy_of_what_is_written_to_afterwards_stays_a_copy() -> None:
    state = torch.ones(3)

    def step(x: Tensor) -> list[Tensor]:
        before = state * 1
        state.add_(x)
        return [before + x]

    recorded = graphs.listed(step, [torch.ones(3)])
    assert torch.equal(recorded(torch.ones(3))[0], torch.full((3,), 2.0))
    assert torch.equal(state, torch.full((3,), 2.0))


def test_a_backward_pass_is_recorded_with_the_weights_as_they_are_when_it_runs() -> None:
    weight = torch.randn(3, 4, requires_grad=True)
    x, y = torch.randn(5, 4), torch.randn(5, 4)

    def step(x: Tensor) -> list[Tensor]:
        loss = torch.tanh(F.linear(x, weight)).square().sum(-1).mean()
        return [loss.detach(), *torch.autograd.grad(loss, [weight])]

    recorded = graphs.listed(step, [x])
    with torch.no_grad():
        weight.mul_(2)
    assert all(torch.equal(a, b) for a, b in zip(step(y), recorded(y), strict=True))
    assert not recorded(y)[1].requires_grad


@pytest.mark.parametrize("way", WAYS)
def test_what_is_written_is_written(way: Callable[..., Callable[..., list[Tensor]]]) -> None:
    weight, count = torch.ones(4, requires_grad=True), torch.zeros((), dtype=torch.float64)
    several = [torch.zeros(2), torch.zeros(3)]

    def step(x: Tensor) -> list[Tensor]:
        loss = (x * weight).square().sum()
        (gradient,) = torch.autograd.grad(loss, [weight])
        with torch.no_grad():
            weight.sub_(0.1 * gradient)
            count.add_(1)
            torch._foreach_add_(several, 1.0)
        return [loss.detach()]

    x = torch.arange(4.0)
    recorded = way(step, [x])
    # recording runs nothing
    assert float(count) == 0 and not several[0].any() and torch.equal(weight, torch.ones(4))
    with torch.no_grad():
        losses = [float(recorded(x)[0]) for _ in range(3)]
    expected = torch.ones(4)
    for found in losses:
        assert found == pytest.approx(float((x * expected).square().sum()))
        expected = expected - 0.1 * 2 * x.square() * expected
    torch.testing.assert_close(weight.detach(), expected)
    assert float(count) == 3 and all(bool((s == 3).all()) for s in several)


def test_a_constant_that_is_written_to_begins_anew_each_time() -> None:
    def filled(x: Tensor) -> list[Tensor]:
        out = torch.zeros(3)
        out[1:] += x
        return [out]

    recorded = graphs.listed(filled, [torch.ones(2)])
    for _ in range(2):
        assert torch.equal(recorded(torch.ones(2))[0], torch.tensor([0.0, 1.0, 1.0]))


def test_what_depends_on_shapes_alone_is_computed_once() -> None:
    weight = torch.randn(4, requires_grad=True)

    def step(x: Tensor) -> list[Tensor]:
        loss = (x * weight).sum(-1).mean()
        return [loss.detach(), *torch.autograd.grad(loss, [weight])]

    recorded = graphs.listed(step, [torch.randn(5, 4)])
    # What is left of the mean's derivative is a product with a number known before.
    assert operations(recorded, torch.randn(5, 4)) == ["mul", "sum", "mean", "mul", "sum", "view"]


def test_what_nothing_else_reads_is_written_over() -> None:
    weight = torch.randn(4)

    def step(x: Tensor) -> list[Tensor]:
        kept, turned, wide = x * weight, (x + 1).t(), x.sum(0, keepdim=True)
        return [
            (kept.exp() + kept).relu(),
            turned.neg(),
            (x + 1).exp() * wide,
            (x - x.mean()) > 0,
            wide.neg() + x,
        ]

    x = torch.randn(3, 4)
    before, held = x.clone(), weight.clone()
    recorded = graphs.listed(step, [x])
    names = operations(recorded, x)
    # `kept` is read twice, `turned` is a view, a truth is no number, and neither does a row hold a
    # matrix nor may an input be written to.
    assert [n for n in names if n.endswith("_")] == ["add_", "relu_", "exp_", "mul_"]
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(step(x), recorded(x), strict=True))
    assert torch.equal(x, before) and torch.equal(weight, held)


def test_what_was_made_is_summed_up_while_it_is_at_hand() -> None:
    def step(x: Tensor) -> list[Tensor]:
        first, second = x @ x, x.t() @ x
        flat = first.reshape(-1)
        return [first, second, torch.dot(flat, flat), second.sum()]

    x = torch.randn(3, 3)
    recorded = graphs.listed(step, [x])
    assert [n for n in operations(recorded, x) if n in ("mm", "dot", "sum")] == [
        "mm",
        "dot",
        "mm",
        "sum",
    ]
    assert all(torch.equal(a, b) for a, b in zip(step(x), recorded(x), strict=True))


def test_views_and_what_changes_nothing_are_left_out() -> None:
    def step(x: Tensor) -> list[Tensor]:
        turned = x.t().t().unsqueeze(0).flatten(0, 1).view(2, 2, 3).view(4, 3)
        return [(turned * 1).pow(1).detach().unsqueeze(0).squeeze(0) + 1]

    x = torch.randn(4, 3)
    recorded = graphs.listed(step, [x])
    assert torch.equal(recorded(x)[0], x + 1)
    assert operations(recorded, x) == ["add"]


def test_dropout_draws_what_it_would_have_drawn() -> None:
    def step(x: Tensor) -> list[Tensor]:
        return [F.dropout(x, 0.5)]

    x = torch.ones(100)
    recorded = graphs.listed(step, [x])
    for seed in range(3):
        torch.manual_seed(seed)
        expected = step(x)[0]
        torch.manual_seed(seed)
        assert torch.equal(recorded(x)[0], expected)


def test_infinities_lists_and_keywords_are_kept() -> None:
    def step(x: Tensor) -> list[Tensor]:
        masked = x.masked_fill(x < 0, float("-inf")).to(torch.float64)
        first, second = masked.chunk(2)
        return [torch.cat([second, first, torch.full((1,), 2.0)]), torch.logsumexp(masked, 0)]

    x = torch.tensor([-1.0, 2.0, 3.0, -4.0])
    recorded = graphs.listed(step, [x])
    assert all(torch.equal(a, b) for a, b in zip(step(x), recorded(x), strict=True))


@pytest.mark.parametrize("way", [graphs.listed, graphs.compiled])
def test_a_number_that_is_read_from_a_tensor_cannot_be_recorded(way: Callable[..., object]) -> None:
    with pytest.raises(RuntimeError):
        way(lambda x: [x * 2 if float(x.sum()) > 0 else x], [torch.ones(3)])


def test_no_setting_is_left_changed() -> None:
    before = torch.backends.mkldnn.enabled
    with pytest.raises(RuntimeError):
        graphs.compiled(lambda x: [x * float(x.sum())], [torch.ones(3)])
    assert torch.backends.mkldnn.enabled == before
