"""The types of requests and responses; OpenAPI is generated from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, final

from pydantic import BaseModel, ConfigDict, Field

MOST_ROWS = 4096  # largest number of rows of a request

Numbers = Annotated[list[float], Field(max_length=2**20)]
Latents = Annotated[
    list[Numbers], Field(min_length=1, max_length=MOST_ROWS, description="(N, units)")
]
RowNumbers = Annotated[
    list[Annotated[int, Field(ge=0, le=2**53)]], Field(min_length=1, max_length=MOST_ROWS)
]
Seed = Annotated[int, Field(ge=0, le=2**53)]
Text = Annotated[str, Field(max_length=10_000)]
Condition = Annotated[
    dict[Text, Text | float | int | bool],
    Field(max_length=1000, description="{name: value} of a conditional model"),
]


class Message(BaseModel):
    """Base of all messages: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


@final
class DataRequest(Message):
    """Name data by their row numbers, or contain them."""

    rows: RowNumbers | None = None
    data: Annotated[
        list[Any] | dict[str, list[Any]] | None,
        Field(description="arrays, texts, or {column: cells}"),
    ] = None
    condition: Condition = Field(default_factory=dict)


@final
class ScoreRequest(Message):
    """Name or contain data to score."""

    rows: RowNumbers | None = None
    data: list[Any] | dict[str, list[Any]] | None = None
    condition: Condition = Field(default_factory=dict)
    k: Annotated[int, Field(ge=1, le=500, description="draws per datum")] = 50
    seed: Seed = 0


@final
class DecodeRequest(Message):
    """Contain latents to decode."""

    z: Latents
    condition: Condition = Field(default_factory=dict)
    sample: Annotated[bool, Field(description="a draw from p(x | z), not the mean")] = False
    seed: Seed = 0
    pictures: Annotated[bool, Field(description="images as bytes (N, H, W, C)")] = False


@final
class SampleRequest(Message):
    """Say how many data to draw."""

    n: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 16
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    condition: Condition = Field(default_factory=dict)
    seed: Seed = 0
    pictures: bool = False


@final
class InterpolateRequest(Message):
    """Name the two ends of a path, as latents."""

    a: Numbers
    b: Numbers
    steps: Annotated[int, Field(ge=2, le=256)] = 9
    path: Literal["linear", "spherical"] = "linear"
    condition: Condition = Field(default_factory=dict)
    pictures: bool = False


@final
class EditRequest(Message):
    """Say how far latents move along the direction of an attribute."""

    z: Latents
    attribute: Annotated[str, Field(max_length=1000, description="NAME or NAME=VALUE")]
    amount: Annotated[float, Field(ge=-1e6, le=1e6)] = 1.0
    condition: Condition = Field(default_factory=dict)
    pictures: bool = False


@final
class Content(Message):
    """Contain data in the user's units, by kind."""

    kind: Literal["array", "table", "text", "image"]
    values: Any = None
    columns: list[str] | None = None
    rows: list[list[Any]] | None = None
    texts: list[str] | None = None


@final
class DataResponse(Message):
    """Contain data, with the latents that they were decoded from."""

    data: Content
    z: list[list[float | None]]


@final
class CodeResponse(Message):
    """Contain codes, (N, units) each, with the data, their conditions and attributes."""

    mean: list[list[float | None]]
    logvar: list[list[float | None]] | None
    z: list[list[float | None]]
    data: Content
    conditions: list[dict[str, Any]]
    attributes: list[dict[str, Any]]


@final
class PageResponse(Message):
    """Contain some of the run's data."""

    start: int
    total: int
    data: Content
    attributes: list[dict[str, Any]]


@final
class ScoreResponse(Message):
    """Contain a lower bound on log p(x) of each datum."""

    elbo: list[float | None]
    unit: str = "nats"
    k: int


@final
class Unit(Message):
    """Describe a latent unit."""

    unit: int
    name: str
    rate: float | None = Field(description="mean KL to the prior in nats")
    activity: float
    informative: bool
    low: float
    high: float
    attributes: list[str]


@final
class AttributeDirection(Message):
    """Describe the direction of an attribute in the latent space."""

    name: str
    unit: str
    warning: str
    step: list[float]
    low: float
    high: float


@final
class LatentMap(Message):
    """Contain codes on a plane."""

    points: list[list[float]]
    rows: list[int]
    mean: list[float]
    axes: list[list[float]]
    attributes: list[dict[str, Any]]


@final
class Info(Message):
    """Describe the run."""

    run: str
    space: str
    kind: Literal["image", "table", "text", "series", "vector"]
    shape: list[int]
    picture: list[int] | None
    units: int
    latent_shape: list[int]
    alphabet: int
    split: str
    rows: int
    attributes: list[str]
    conditions: dict[str, list[Any]]
    weights: str
    version: str
    most_rows: int
    most_bytes: int


@final
class Problem(BaseModel):
    """Describe an error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
