"""The routes of the service: the page, and the API under /api."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from importlib import resources
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import Body, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import vaestro
from vaestro.data import Rows
from vaestro.explorer import messages as m
from vaestro.explorer.engine import Engine
from vaestro.explorer.guard import MOST_BYTES, PROBLEM, problem
from vaestro.explorer.uploads import read_upload
from vaestro.explorer.values import NPZ, RAW, arrays_of, as_json, npz, numbers, pack, unpack
from vaestro.explorer.worker import Worker
from vaestro.latent import UserData
from vaestro.text import is_input_error

T = TypeVar("T")
PAGE = {"app.js": "text/javascript", "index.html": "text/html", "style.css": "text/css"}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": title, "content": {PROBLEM: {"schema": m.Problem.model_json_schema()}}}
    for status, title in (
        (400, "The request cannot be read."),
        (403, "The request comes from another site."),
        (413, "The request is too large."),
        (421, "The request is for another host."),
        (422, "The request does not fit the run."),
        (500, "The service failed."),
    )
}
BINARY: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {"content": {RAW: {}, NPZ: {}}, "description": "JSON, or as Accept says: raw or .npz."},
}


class TooMany(ValueError):
    """Report a request with too many rows."""


def service(engine: Engine, worker: Worker) -> FastAPI:
    """Return the application that answers for a run.

    Args:
        engine: of the run.
        worker: the thread in which the engine is called.
    """
    app = FastAPI(
        title="Vaestro explorer",
        version=vaestro.__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    _add_problems(app)
    _add_page(app)
    _add_reading(app, engine, worker)
    _add_coding(app, engine, worker)
    _add_moving(app, engine, worker)
    return app


# -- errors ----------------------------------------------------------------------------------------


def _refusal(status: int, detail: str) -> Response:
    return Response(problem(status, detail), status, media_type=PROBLEM)


def _add_problems(app: FastAPI) -> None:
    """Answer errors with problem details."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        many = first["type"] == "too_long" and first["loc"][-1] in ("z", "rows")
        return _refusal(413 if many else 422, f"{place}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        response = _refusal(error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ValueError)
    async def wrong(request: Request, error: ValueError) -> Response:
        if isinstance(error, TooMany):
            return _refusal(413, str(error))
        if is_input_error(error):
            return _refusal(422, str(error))
        return _refusal(500, f"{type(error).__name__}: the request failed")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _refusal(500, f"{type(error).__name__}: the request failed")


# -- the page --------------------------------------------------------------------------------------


@cache
def page_file(name: str) -> bytes:
    """Return a file of the page. The style has the colours of the report.

    >>> b"<canvas" in page_file("index.html")
    True
    """
    text = (resources.files("vaestro.explorer") / "page" / name).read_text("utf-8")
    colours = resources.files("vaestro.report") / "page"
    for theme in ("light", "dark"):
        if name.endswith(".css"):
            text = text.replace(f"@{theme};", (colours / f"{theme}.css").read_text("utf-8"))
    return text.encode()


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(page_file("index.html"), media_type=PAGE["index.html"])

    @app.get("/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in PAGE:
            raise HTTPException(404, f"there is no page {name[:80]!r}")
        return Response(page_file(name), media_type=PAGE[name])


# -- answers ---------------------------------------------------------------------------------------


def _accepts(request: Request) -> str:
    """Return the media type that a request asks for: JSON, raw numbers or .npz."""
    accept = request.headers.get("accept", "")
    return next((kind for kind in (RAW, NPZ) if kind in accept), "application/json")


def _json(value: Mapping[str, Any]) -> Response:
    return Response(json.dumps(value, allow_nan=False), media_type="application/json")


def _content(data: Any, *, pictures: bool) -> dict[str, Any]:
    return {"kind": "image", "values": data.tolist()} if pictures else as_json(data)


def _data_answer(request: Request, data: UserData, z: np.ndarray, *, pictures: bool) -> Response:
    """Return decoded data in the format that the request asks for."""
    kind = _accepts(request)
    if kind == NPZ:
        return Response(npz(**arrays_of(data), z=z), media_type=NPZ)
    if kind == RAW:
        if not isinstance(data, np.ndarray) or data.dtype.kind not in "biuf":
            raise ValueError("expected JSON or .npz for tables and texts; got raw numbers")
        return Response(pack(data), media_type=RAW)
    return _json({"data": _content(data, pictures=pictures), "z": numbers(z)})


async def _called(worker: Worker, function: Callable[[], T]) -> T:
    """Call a function in the model's thread."""
    result: T = await asyncio.wrap_future(worker.call(function))
    return result


async def _decoded(
    engine: Engine,
    worker: Worker,
    z: np.ndarray,
    condition: Mapping[str, Any],
    *,
    sample: bool = False,
    seed: int = 0,
    pictures: bool = False,
) -> Any:
    """Decode latents together with those of other requests; draws are not batched, because they
    depend on the seed and the place in the batch."""
    z = engine.check(z)

    def decode(rows: np.ndarray) -> Any:
        return engine.decode(rows, condition, sample=sample, seed=seed, pictures=pictures)

    if sample:
        return await _called(worker, lambda: decode(z))
    key = json.dumps([condition, pictures], sort_keys=True)
    return await asyncio.wrap_future(worker.decode(key, decode, z))


def _rows_of(engine: Engine, request: m.DataRequest | m.ScoreRequest) -> Rows:
    """Return the rows that a request names or contains."""
    if (request.rows is None) == (request.data is None):
        raise ValueError("expected one of rows and data; got both or neither")
    if request.rows is not None:
        return engine.picked(request.rows)
    data: Any = request.data
    if not data:
        raise ValueError("expected data; got none")
    if isinstance(data, dict):
        source: Any = data
        size = max((len(cells) for cells in data.values()), default=0)
    else:
        size = len(data)
        source = data if all(isinstance(item, str) for item in data) else _array_of(data)
    if size > m.MOST_ROWS:
        raise TooMany(f"expected at most {m.MOST_ROWS:,} rows in a request; got {size:,}")
    return engine.session.rows(source, condition=request.condition)


def _array_of(data: list[Any]) -> np.ndarray:
    """Return nested lists of numbers as an array; None is NaN.

    Raises:
        ValueError: they are not numbers of a rectangular shape.
    """
    try:
        array = np.array(data)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            "expected numbers in lists of equal lengths, or texts; got others"
        ) from error
    if array.dtype.kind not in "biuf":
        raise ValueError("expected numbers or texts; got a mixture")
    return array


# -- routes ----------------------------------------------------------------------------------------


def _add_reading(app: FastAPI, engine: Engine, worker: Worker) -> None:
    """Add the routes that describe the run and its data."""

    @app.get("/api/info", responses=PROBLEMS)
    async def info() -> m.Info:
        """Describe the run."""
        facts = await _called(worker, engine.info)
        return m.Info(
            **facts, version=vaestro.__version__, most_rows=m.MOST_ROWS, most_bytes=MOST_BYTES
        )

    @app.get("/api/units", responses=PROBLEMS)
    async def units() -> list[m.Unit]:
        """List the latent units, the most informative first, with their rates in nats."""
        return [m.Unit(**unit) for unit in await _called(worker, engine.units)]

    @app.get("/api/attributes", responses=PROBLEMS)
    async def attributes() -> list[m.AttributeDirection]:
        """List the directions of attributes; none for a run without attributes."""
        found = await _called(worker, engine.attributes)
        return [m.AttributeDirection(**asdict(direction)) for direction in found]

    @app.get("/api/map", responses=PROBLEMS)
    async def latent_map() -> m.LatentMap:
        """Return codes of the run's data on the plane of their two main axes."""
        return m.LatentMap(**await _called(worker, engine.map))

    @app.get("/api/data", responses=BINARY, response_model=m.PageResponse)
    async def data(
        request: Request,
        start: Annotated[int, Query(ge=0, le=2**53)] = 0,
        count: Annotated[int, Query(ge=1, le=256)] = 24,
        pictures: bool = False,
    ) -> Response:
        """Return some of the run's data; with `pictures` images as bytes."""

        def read() -> tuple[Any, list[dict[str, Any]]]:
            stop = min(start + count, len(engine.rows))
            rows = engine.picked(range(min(start, stop), stop))
            values = rows.outward()
            return engine.pictures(values) if pictures else values, engine.labels(rows)

        if start >= len(engine.rows):
            raise ValueError(f"expected a start below {len(engine.rows):,}; got {start:,}")
        values, labels = await _called(worker, read)
        if _accepts(request) != "application/json":
            return _data_answer(request, values, np.zeros((0, 0)), pictures=pictures)
        content = _content(values, pictures=pictures)
        page = {"start": start, "total": len(engine.rows), "data": content, "attributes": labels}
        return _json(page)


def _code_answer(request: Request, engine: Engine, rows: Rows) -> Response:
    codes, values = engine.encode(rows), rows.outward()
    kind = _accepts(request)
    if kind == RAW:
        return Response(pack(codes["z"]), media_type=RAW)
    if kind == NPZ:
        return Response(npz(**codes, **arrays_of(values)), media_type=NPZ)
    images = engine.kind == "image"
    return _json(
        {
            "mean": numbers(codes["mean"]),
            "logvar": numbers(codes["logvar"]) if "logvar" in codes else None,
            "z": numbers(codes["z"]),
            "data": _content(engine.pictures(values) if images else values, pictures=images),
            "conditions": engine.given(rows),
            "attributes": engine.labels(rows),
        }
    )


def _add_coding(app: FastAPI, engine: Engine, worker: Worker) -> None:
    """Add the routes that encode and decode."""

    @app.post("/api/encode", responses=BINARY, response_model=m.CodeResponse)
    async def encode(request: Request, body: m.DataRequest) -> Response:
        """Encode data: rows of the run's data by number, or data in the request."""
        return await _called(worker, lambda: _code_answer(request, engine, _rows_of(engine, body)))

    @app.post("/api/encode-file", responses=BINARY, response_model=m.CodeResponse)
    async def encode_file(
        request: Request,
        content: Annotated[bytes, Body(media_type=RAW)],
        name: Annotated[str, Query(max_length=255)] = "file",
        condition: Annotated[str, Query(max_length=10_000, description="JSON")] = "{}",
    ) -> Response:
        """Encode a file: an image, a table, texts or numbers."""
        try:
            given = json.loads(condition)
        except ValueError as error:
            raise ValueError("expected JSON in condition; got other text") from error
        if not isinstance(given, dict):
            raise ValueError("expected a JSON object in condition; got another value")

        def read() -> Response:
            rows = read_upload(engine, name, content, given)
            if len(rows) > m.MOST_ROWS:
                raise TooMany(f"expected at most {m.MOST_ROWS:,} rows; got {len(rows):,}")
            return _code_answer(request, engine, rows)

        return await _called(worker, read)

    @app.post("/api/decode", responses=BINARY, response_model=m.DataResponse)
    async def decode(request: Request, body: m.DecodeRequest) -> Response:
        """Decode latents (N, units): the mean of p(x | z), or a draw."""
        z = _latents(body.z)
        data = await _decoded(
            engine,
            worker,
            z,
            body.condition,
            sample=body.sample,
            seed=body.seed,
            pictures=body.pictures,
        )
        return _data_answer(request, data, z, pictures=body.pictures)

    @app.post("/api/decode-raw", responses=BINARY, response_model=m.DataResponse)
    async def decode_raw(
        request: Request, content: Annotated[bytes, Body(media_type=RAW)], pictures: bool = False
    ) -> Response:
        """Decode latents in raw numbers with a header (or .npz), for models without conditions."""
        z = unpack(content)
        if z.ndim and len(z) > m.MOST_ROWS:
            raise TooMany(f"expected at most {m.MOST_ROWS:,} rows; got {len(z):,}")
        data = await _decoded(engine, worker, z, {}, pictures=pictures)
        return _data_answer(request, data, z, pictures=pictures)

    @app.post("/api/score", responses=PROBLEMS)
    async def score(body: m.ScoreRequest) -> m.ScoreResponse:
        """Bound log p(x) of each datum from below (ELBO), in nats."""

        def bound() -> np.ndarray:
            return engine.score(_rows_of(engine, body), body.k, body.seed)

        return m.ScoreResponse(elbo=numbers(await _called(worker, bound)), k=body.k)


def _latents(z: list[list[float]]) -> np.ndarray:
    """Return latents as an array.

    Raises:
        ValueError: their lengths differ.
    """
    if len({len(row) for row in z}) != 1:
        raise ValueError("expected latents of one length; got several")
    return np.array(z)


def _add_moving(app: FastAPI, engine: Engine, worker: Worker) -> None:
    """Add the routes that draw latents or move them."""

    @app.post("/api/sample", responses=BINARY, response_model=m.DataResponse)
    async def sample(request: Request, body: m.SampleRequest) -> Response:
        """Draw latents from the prior, and decode them."""
        z = await _called(
            worker, lambda: engine.sample(body.n, body.temperature, body.seed, body.condition)
        )
        data = await _decoded(engine, worker, z, body.condition, pictures=body.pictures)
        return _data_answer(request, data, z, pictures=body.pictures)

    @app.post("/api/interpolate", responses=BINARY, response_model=m.DataResponse)
    async def interpolate(request: Request, body: m.InterpolateRequest) -> Response:
        """Decode latents on a path between two."""
        ends = engine.check(_latents([body.a, body.b]))
        z = engine.path(ends[0], ends[1], body.steps, spherical=body.path == "spherical")
        data = await _decoded(engine, worker, z, body.condition, pictures=body.pictures)
        return _data_answer(request, data, z, pictures=body.pictures)

    @app.post("/api/edit", responses=BINARY, response_model=m.DataResponse)
    async def edit(request: Request, body: m.EditRequest) -> Response:
        """Move latents along the direction of an attribute, and decode them."""
        z = engine.check(_latents(body.z))
        step = await _called(worker, lambda: engine.step(body.attribute))
        moved = z + np.float32(body.amount) * step
        data = await _decoded(engine, worker, moved, body.condition, pictures=body.pictures)
        return _data_answer(request, data, moved, pictures=body.pictures)
