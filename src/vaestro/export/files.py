"""Files of exported models: ONNX, and programs of torch.export."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

import vaestro
from vaestro.export.graphs import DecoderGraph, EncoderGraph
from vaestro.files import Json
from vaestro.models import Model
from vaestro.spaces import Space
from vaestro.storage import make_folder, remove, write_text, writing
from vaestro.text import InputError, nearest

if TYPE_CHECKING:
    from torch.export import ExportedProgram

TOLERANCE = 1e-4  # largest difference from the model, relative to the largest value
Run: TypeAlias = Callable[[np.ndarray], Sequence[np.ndarray]]


@final
@dataclass(frozen=True)
class Exported:
    """Hold what was exported.

    Args:
        folder: the folder.
        files: their names.
        differences: of each output by name, the largest absolute difference from the model.
        rows: number of data, and of codes, that were compared.

    >>> Exported(Path("out"), ("encoder.onnx",), {"mean": 2e-7}, 64).lines()[0]
    'mean: largest difference from the model 2e-07 (64 data)'
    """

    folder: Path
    files: tuple[str, ...]
    differences: Mapping[str, float]
    rows: int

    def lines(self) -> list[str]:
        """Return the differences in words."""
        return [
            f"{name}: largest difference from the model {difference:.1g} ({self.rows} data)"
            for name, difference in self.differences.items()
        ]


def export(
    model: Model, x: np.ndarray, folder: Path, to: str = "onnx", *, source: str = ""
) -> Exported:
    """Write encoder and decoder of a model, and check them on data.

    The transform between the user's units and the model's is part of the graphs. The number of rows
    is free.

    Args:
        model: a trained model of an array, without conditions.
        x: some of the user's data, (N, *outside), for the comparison.
        folder: the folder, which is made.
        to: onnx (encoder.onnx, decoder.onnx) or torch (encoder.pt2, decoder.pt2).
        source: the name of the run, for export.json.

    Raises:
        ValueError: the model cannot be exported, or the format is unknown.
        RuntimeError: a graph differs from the model; nothing was written.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    >>> export(vs.build(vs.load(x).space, latent=2), x[:5], Path("exported"), "torch").files
    ('encoder.pt2', 'decoder.pt2', 'export.json')
    """
    if to not in FORMATS:
        raise ValueError(f"expected a format: {nearest(to, FORMATS)}; got {to!r}")
    encoder, decoder = EncoderGraph(model).eval().cpu(), DecoderGraph(model).eval().cpu()
    values = torch.from_numpy(np.asarray(x, np.float32))
    suffix, write = FORMATS[to]
    with torch.no_grad():
        codes = encoder(values)
        graphs = {
            "encoder": (encoder, values, encoder.outputs, codes),
            "decoder": (decoder, codes[0], ("x",), (decoder(codes[0]),)),
        }
    make_folder(folder)
    files: list[str] = []
    differences: dict[str, float] = {}
    try:
        for name, (graph, given, outputs, expected) in graphs.items():
            files.append(f"{name}{suffix}")
            run = write(_program(graph, given), folder / files[-1], _input(name), outputs)
            for output, got, want in zip(outputs, run(given.numpy()), expected, strict=True):
                differences[output] = _difference(output, got, want.numpy())
    except BaseException:
        for name in files:
            remove(folder / name)
        raise
    record = _record(model.space, encoder, decoder, differences, source)
    write_text(folder / "export.json", json.dumps(record, indent=1) + "\n")
    return Exported(folder, (*files, "export.json"), differences, len(values))


def _input(name: str) -> str:
    return "x" if name == "encoder" else "z"


def _difference(name: str, got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest absolute difference.

    Raises:
        RuntimeError: it is larger than the tolerance, relative to the largest value.
    """
    difference = float(np.abs(got - want).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(want).max())):
        raise RuntimeError(f"the exported graph differs from the model: {name} by {difference:.2g}")
    return difference


def _program(graph: nn.Module, given: Tensor) -> ExportedProgram:
    """Return a graph as an exported program, for any number of rows."""
    rows = torch.export.Dim("rows", min=1)
    example = given if len(given) > 1 else given.repeat(2, *[1] * (given.ndim - 1))
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes=({0: rows},))


def _write_onnx(program: ExportedProgram, path: Path, given: str, outputs: Sequence[str]) -> Run:
    """Write an ONNX file, and return what runs it.

    Raises:
        InputError: a library is not installed.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            "export to ONNX needs onnx, onnxscript and onnxruntime: pip install 'vaestro[export]'"
        ) from error
    with _quiet():
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=[given], output_names=list(outputs)
        )
    assert made is not None
    with writing(path) as part:
        made.save(part)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(values: np.ndarray) -> Sequence[np.ndarray]:
        found: Sequence[np.ndarray] = session.run(None, {given: values})
        return found

    return run


def _write_torch(program: ExportedProgram, path: Path, given: str, outputs: Sequence[str]) -> Run:
    """Write a program of torch.export, and return what runs it."""
    with writing(path) as part, part.open("wb") as file:
        torch.export.save(program, file)
    module = program.module()

    def run(values: np.ndarray) -> Sequence[np.ndarray]:
        out: Any = module(torch.from_numpy(values))
        every = out if isinstance(out, (tuple, list)) else (out,)
        return [o.detach().numpy() for o in every]

    return run


FORMATS: dict[str, tuple[str, Callable[..., Run]]] = {
    "onnx": (".onnx", _write_onnx),
    "torch": (".pt2", _write_torch),
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence notes of the exporter about libraries that are not needed."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _record(
    space: Space,
    encoder: EncoderGraph,
    decoder: DecoderGraph,
    differences: Mapping[str, float],
    source: str,
) -> dict[str, Json]:
    """Return export.json: the inputs and outputs of the graphs."""
    outside, units = ["rows", *space.outside], ["rows", *encoder.model.units]
    mean = "probability of the larger value" if space.probabilities else "mean of p(x | z)"
    mean = mean if space.has_mean else "most probable category"
    gaps = "; missing cells are NaN" if space.missing else ""
    return {
        "vaestro": vaestro.__version__,
        "run": source,
        "space": str(space),
        "encoder": {
            "inputs": {"x": {"shape": outside, "dtype": "float32", "is": f"your values{gaps}"}},
            "outputs": {
                name: {"shape": units, "dtype": "float32", "is": f"{name} of q(z | x)"}
                for name in encoder.outputs
            },
        },
        "decoder": {
            "inputs": {"z": {"shape": units, "dtype": "float32", "is": "latents"}},
            "outputs": {"x": {"shape": outside, "dtype": "float32", "is": mean}},
        },
        "largest_difference": dict(differences),
    }
