"""Contracts over every body: shapes, gradients, conditions, where a decoder starts, and that
examples do not mix."""

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn as nn
from torch import Tensor

from vaestro.networks import MLP, Convolutional, Residual
from vaestro.parts import TABLE
from vaestro.signatures import options_of

BODIES: dict[str, Callable[..., Any]] = TABLE["network"] | {"conv": Convolutional}
SMALL: dict[str, dict[str, Any]] = {
    "residual": {"width": 8},
    "mlp": {"width": 8},
    "conv": {"width": 4},
    "conv3d": {"width": 4},
    "conv1d": {"width": 4},
    "former-conv": {"width": 4},
    "former-conv3d": {"width": 4},
    "gru": {"width": 8},
    "transformer": {"width": 8, "layers": 1},
}
OVER_TIME = ("conv1d", "gru", "transformer")  # for (T, C), where the others take (C, H, W)
PLANAR = [name for name in BODIES if name not in (*OVER_TIME, "conv3d", "former-conv3d")]
VOLUMES = [(1, 4, 4, 4), (1, 16, 16, 16), (2, 9, 17, 30), (1, 3, 40, 8)]
SHAPES = [
    (1, 4, 4),
    (1, 7, 7),
    (1, 28, 28),
    (3, 29, 29),
    (3, 32, 32),
    (1, 33, 33),
    (3, 64, 64),
    (3, 96, 64),
    (1, 5, 40),
    (3, 256, 256),
]
LATENT = 3


def body(
    name: str, inputs: tuple[int, ...], outputs: tuple[int, ...], given: int = 0, **options: Any
) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = BODIES[name](inputs, outputs, given, **SMALL.get(name, {}) | options)
    return made


def both(name: str, given: int = 0, shape: tuple[int, ...] = (), **options: Any) -> list[nn.Module]:
    """Make an encoder and a decoder, for a latent vector."""
    usual = dict.fromkeys(("conv3d", "former-conv3d"), (2, 9, 8, 10)) | dict.fromkeys(
        OVER_TIME, (12, 3)
    )
    shape = shape or usual.get(name, (2, 9, 10))
    return [
        body(name, shape, (2, LATENT), given, **options),
        body(name, (LATENT,), (2, *shape), given, **options),
    ]


def call(module: Any, rows: int = 3, given: int | None = None) -> Tensor:
    torch.manual_seed(1)
    conditions = module.given if given is None else given
    out: Tensor = module(
        torch.randn(rows, *module.inputs), torch.randn(rows, conditions) if conditions else None
    )
    return out


@pytest.fixture(params=BODIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PLANAR)
def test_every_side_works_in_both_directions(name: str, shape: tuple[int, ...]) -> None:
    for module in both(name, shape=shape):
        assert call(module, 2).shape == (2, *module.outputs)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (8, 1), (9, 2), (100, 5)], ids=str)
@pytest.mark.parametrize("name", OVER_TIME)
def test_every_length_works_in_both_directions(name: str, shape: tuple[int, ...]) -> None:
    for module in both(name, shape=shape):
        assert call(module, 2).shape == (2, *module.outputs)
    assert call(body(name, (LATENT,), shape)).shape == (3, *shape)


@pytest.mark.parametrize(
    "outputs", [(1, 29, 28), (2, 3, 8, 9), (11, 2, 3, 8, 8), (100, 12, 12)], ids=str
)
@pytest.mark.parametrize("name", PLANAR)
def test_leading_dimensions_become_channels(name: str, outputs: tuple[int, ...]) -> None:
    assert call(body(name, (LATENT,), outputs)).shape == (3, *outputs)


@pytest.mark.parametrize("name", PLANAR)
def test_one_hot_cells(name: str) -> None:
    assert call(body(name, (2, 9, 10, 4), (2, LATENT), 2)).shape == (3, 2, LATENT)


@pytest.mark.parametrize("shape", VOLUMES, ids=str)
def test_volumes_of_every_side_work_in_both_directions(shape: tuple[int, ...]) -> None:
    for module in both("conv3d", shape=shape):
        assert call(module, 2).shape == (2, *module.outputs)
    assert call(body("conv3d", (*shape, 4), (2, LATENT))).shape == (3, 2, LATENT)
    assert call(body("conv3d", (LATENT,), (5, *shape))).shape == (3, 5, *shape)


def test_a_spatial_latent_of_volumes() -> None:
    shape, grid = (1, 8, 12, 9), (LATENT, 2, 3, 3)
    assert BODIES["conv3d"].latent_shape(LATENT, shape, factor=4) == grid  # type: ignore[attr-defined]
    assert call(body("conv3d", shape, (2, *grid), factor=4)).shape == (3, 2, *grid)
    assert call(body("conv3d", grid, shape, factor=4)).shape == (3, *shape)


def test_the_last_two_dimensions_are_the_image() -> None:
    # Channel by channel: only outputs[1, 0] reads the second channel's bias.
    decoder = body("conv", (LATENT,), (2, 1, 9, 10))
    decoder.start_at(torch.tensor([-5.0, 5.0]).view(2, 1, 1, 1))  # type: ignore[operator]
    out = call(decoder)
    assert (out[:, 0] < -4).all() and (out[:, 1] > 4).all()


@pytest.mark.parametrize("given", [0, 2])
def test_gradient_reaches_every_parameter(name: str, given: int) -> None:
    for module in both(name, given):
        out = call(module, 5)
        (out * torch.randn_like(out)).sum().backward()
        assert [
            n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
        ] == []


def test_conditions_change_every_row(name: str) -> None:
    for module in both(name, 2):
        x = torch.randn(3, *module.inputs)
        out, other = (
            module(x, torch.zeros(3, 2)),
            module(x, torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])),
        )
        assert torch.equal(out[0], other[0])
        assert not torch.allclose(out[1], other[1]) and not torch.allclose(out[2], other[2])


@pytest.mark.parametrize(("made_for", "called_with"), [(2, 0), (0, 2), (2, 3)])
def test_conditions_that_are_missing_are_told(name: str, made_for: int, called_with: int) -> None:
    for module in both(name, made_for):
        with pytest.raises(
            ValueError, match=f"expected {made_for} conditions for each row; got {called_with}"
        ):
            call(module, given=called_with)


@pytest.mark.parametrize("given", [0, 2])
def test_examples_do_not_mix(name: str, given: int) -> None:
    for module in both(name, given):
        module.double()
        x, conditions = torch.randn(4, *module.inputs).double(), torch.randn(4, given).double()
        together = module(x, conditions if given else None)
        alone = [module(x[i : i + 1], conditions[i : i + 1] if given else None) for i in range(4)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-9)


def test_nothing_is_remembered(name: str) -> None:
    for module in both(name):
        before, state = call(module), {k: v.clone() for k, v in module.state_dict().items()}
        call(module, 7)
        assert torch.equal(before, call(module))
        assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())


def test_a_decoder_starts_where_it_is_told(name: str) -> None:
    decoder: Any = both(name)[1]
    channels = (2, 1, 3) if name in OVER_TIME else (2, 2, *[1] * (len(decoder.outputs) - 2))
    values = torch.randn(channels).expand(decoder.outputs)
    decoder.start_at(torch.zeros(()))
    origin = call(decoder, 8)
    decoder.start_at(values)
    torch.testing.assert_close(
        call(decoder, 8) - origin, values.expand(8, *values.shape), rtol=1e-4, atol=1e-5
    )


def test_a_convolution_starts_at_the_average_of_each_channel() -> None:
    for inputs in ((LATENT,), (LATENT, 7, 7)):
        decoder: Any = body("conv", inputs, (2, 3, 28, 28), width=16)
        values = torch.randn(2, 3, 28, 28) + torch.arange(6.0).view(2, 3, 1, 1)
        decoder.start_at(values)
        torch.testing.assert_close(decoder.last.bias, values.mean((-2, -1)).flatten())
        assert (call(decoder, 8) - values.mean((-2, -1), keepdim=True)).abs().max() < 0.25


@pytest.mark.parametrize(
    ("shape", "factor", "latent"),
    [
        ((3, 64, 64), 8, (8, 8)),
        ((1, 28, 28), 4, (7, 7)),
        ((1, 29, 33), 8, (4, 5)),
        ((2, 5, 40), 2, (3, 20)),
        ((1, 8, 8), 8, (1, 1)),
    ],
)
def test_spatial_latents(shape: tuple[int, ...], factor: int, latent: tuple[int, ...]) -> None:
    units = Convolutional.latent_shape(LATENT, shape, factor=factor, width=4)
    assert units == (LATENT, *latent)
    for given in (0, 2):
        encoder, decoder = (
            body("conv", shape, (2, *units), given, factor=factor),
            body("conv", units, (5, *shape), given, factor=factor),
        )
        for module in (encoder, decoder):
            out = call(module)
            assert out.shape == (3, *module.outputs)
            (out * torch.randn_like(out)).sum().backward()
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_a_spatial_latent_is_where_the_image_is() -> None:
    encoder = body("conv", (1, 64, 64), (2, LATENT, 16, 16), factor=4)
    x = torch.zeros(1, 1, 64, 64)
    x[..., 40:44, 8:12] = 5
    changed = (encoder(x) - encoder(torch.zeros_like(x))).abs().sum((0, 1, 2))
    assert divmod(int(changed.argmax()), 16) in [(i, j) for i in (9, 10, 11) for j in (1, 2, 3)]


def test_latent_shape_by_default() -> None:
    assert [b.latent_shape(5, (7,), width=3) for b in (Residual, MLP)] == [(5,), (5,)]
    assert Convolutional.latent_shape(5, (1, 28, 28), width=3) == (5,)


@pytest.mark.parametrize(
    ("inputs", "outputs", "options", "message"),
    [
        ((6,), (2, 3), {}, "expected images on one side"),
        ((3,), (4, 6), {}, "expected images on one side"),
        ((6, 4), (2, 3), {}, "expected images on one side"),
        ((3, 8, 8), (3, 8, 8), {}, "expected images on one side"),
        ((3, 4), (3, 8, 8), {}, "expected images on one side"),
        ((3, 32, 32), (2, 8), {"factor": 8}, "expected a latent with sides"),
        ((8, 8, 8), (3, 32, 32), {"factor": 8}, "expected a latent with sides"),
        ((3, 32, 32), (2, 8, 5, 5), {}, "expected a latent with sides"),
        ((3, 32, 32), (2, 8, 8, 8), {"factor": 3}, "expected factor=0, or a power of two"),
        ((3, 32, 32), (2, 8), {"width": 0}, "expected width >= 1"),
        ((3, 32, 32), (2, 8), {"blocks": 0}, "expected width >= 1, blocks >= 1"),
        ((3, 32, 32), (2, 8), {"dropout": 1.0}, "expected width >= 1"),
    ],
)
def test_refusals(
    inputs: tuple[int, ...], outputs: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"{message}.*; got"):
        Convolutional(inputs, outputs, **options)


@pytest.mark.parametrize(
    ("shape", "factor"),
    [
        ((1, 28, 28), 3),
        ((1, 28, 28), 1),
        ((1, 28, 28), -2),
        ((1, 28, 28), 32),
        ((6,), 2),
        ((6,), 0),
    ],
)
def test_latent_shapes_that_there_are_not(shape: tuple[int, ...], factor: int) -> None:
    with pytest.raises(ValueError, match=r"expected .*; got"):
        Convolutional.latent_shape(4, shape, factor=factor)


def test_a_body_for_no_conditions_is_the_one_it_always_was() -> None:
    # Saved runs name these tensors, and a seed means these numbers.
    torch.manual_seed(0)
    last, first = nn.Linear(4, 6), nn.Linear(5, 4)
    residual = ["last", "first", "blocks.0.norm", "blocks.0.first", "blocks.0.second", "norm"]
    for name, layers, firsts in (
        ("residual", residual, "first"),
        ("mlp", ["last", "hidden.0"], "hidden.0"),
    ):
        module = body(name, (5,), (2, 3), width=4)
        assert list(module.state_dict()) == [
            f"{layer}.{p}" for layer in layers for p in ("weight", "bias")
        ]
        assert torch.equal(module.get_submodule("last").weight, last.weight)  # type: ignore[arg-type]
        assert torch.equal(module.get_submodule(firsts).weight, first.weight)  # type: ignore[arg-type]
    assert (
        sum(p.numel() for p in body("residual", (784,), (2, 40), width=512).parameters()) == 970_320
    )
    assert sum(p.numel() for p in body("mlp", (784,), (2, 20), width=400).parameters()) == 330_040
    assert sum(p.numel() for p in body("linear", (784,), (2, 20)).parameters()) == 31_400


def test_tensors_can_be_saved_and_copied(name: str) -> None:
    for module in both(name, 2):
        # safetensors refuses others
        assert all(v.is_contiguous() for v in module.state_dict().values())
        assert torch.equal(call(copy.deepcopy(module)), call(module))


def test_half_precision(name: str) -> None:
    for module in both(name, 2):
        with torch.autocast("cpu", torch.bfloat16):
            out = call(module)
        torch.testing.assert_close(out.float(), call(module), rtol=0.1, atol=0.1)
        out.float().square().sum().backward()


def test_double_precision_as_the_default(name: str, float64: None) -> None:
    assert all(call(module).dtype == torch.float64 for module in both(name, 2))


@pytest.mark.parametrize("name", ["residual", "conv", "conv3d", *OVER_TIME])
def test_dropout_acts_in_training_only(name: str) -> None:
    for module in both(name, dropout=0.5):
        x = torch.randn(2, *module.inputs)
        assert not torch.equal(module(x), module(x))
        module.eval()
        assert torch.equal(module(x), module(x))


def test_signatures(name: str) -> None:
    positional = [
        p.name
        for p in inspect.signature(BODIES[name]).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert positional == ["inputs", "outputs", "given"]
    assert all(
        default is not None and isinstance(default, kind)
        for kind, default in options_of(BODIES[name]).values()
        if isinstance(kind, type)
    )


def test_more_blocks_and_width_are_more_parameters() -> None:
    sizes = [
        sum(p.numel() for p in body("conv", (3, 32, 32), (2, 8), **o).parameters())
        for o in ({}, {"blocks": 2}, {"width": 8})
    ]
    assert sizes == sorted(sizes) and math.prod(sizes) > sizes[0] ** 3
