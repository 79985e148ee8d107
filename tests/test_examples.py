"""The examples in the docstrings run, and every public function and class has one."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import io
import pkgutil
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import vaestro

# The modules whose public names need an example: those of the mathematics, and the verbs.
SUBJECTS = (
    "comparison",
    "densities",
    "diagnosis",
    "diffusion",
    "drawing",
    "evaluation",
    "export",
    "flows",
    "gradients",
    "latent",
    "likelihoods",
    "loop",
    "networks",
    "objectives",
    "optimizers",
    "options",
    "parts",
    "penalties",
    "posteriors",
    "prior_fitting",
    "randomness",
    "recipes",
    "runs",
    "schedules",
    "selection",
    "sequences",
    "session",
    "spaces",
    "text",
    "tokens",
    "transfer",
)

# Modules, each with its submodules, that still lack examples. Remove a line when its module has
# them all. Nothing is ever added here.
LACKING = ("diagnosis.code", "diagnosis.rules")

NAMES = [
    module.name
    for module in pkgutil.walk_packages(vaestro.__path__, "vaestro.")
    if not module.name.endswith("__main__")
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the public functions and concrete classes that a module defines."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        function = inspect.isfunction(value)
        concrete = inspect.isclass(value) and not (
            inspect.isabstract(value) or issubclass(value, Exception) or is_interface(value)
        )
        if function or concrete:
            yield name, value


def is_interface(value: type) -> bool:
    """Return whether a class has no behaviour of its own: a TypedDict, or one whose bases include
    ABC or Protocol."""
    return typing.is_typeddict(value) or any(
        base.__name__ in ("ABC", "Protocol") for base in value.__bases__
    )


def has_example(value: Any) -> bool:
    """Return whether a docstring has an example: its own, or that of a method of the class."""
    methods = vars(value).values() if inspect.isclass(value) else ()
    return any(">>>" in (getattr(v, "__doc__", None) or "") for v in (value, *methods))


def without_example() -> dict[str, list[str]]:
    """Return, by module, the public names that need an example and have none."""
    names: dict[str, list[str]] = {}
    for module in NAMES:
        if module.split(".")[1] in SUBJECTS:
            values = public(importlib.import_module(module))
            names[module] = [name for name, value in values if not has_example(value)]
    for name in vaestro.__all__:
        value = getattr(vaestro, name)
        if callable(value) and not has_example(value):
            missing = names.setdefault(value.__module__, [])
            missing += [] if value.__name__ in missing else [value.__name__]
    return {module: missing for module, missing in names.items() if missing}


def covers(entry: str, module: str) -> bool:
    """Return whether an entry of LACKING names a module or a package that contains it."""
    return module == f"vaestro.{entry}" or module.startswith(f"vaestro.{entry}.")


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    if not any(test.examples for test in doctest.DocTestFinder().find(module)):
        pytest.skip("no examples")
    monkeypatch.chdir(tmp_path)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        result = doctest.testmod(module, optionflags=FLAGS)
    assert result.failed == 0, output.getvalue()


def test_every_public_name_has_an_example() -> None:
    missing = {
        module: names
        for module, names in without_example().items()
        if not any(covers(entry, module) for entry in LACKING)
    }
    assert not missing, "no example in the docstring of " + "; ".join(
        f"{module}: {', '.join(names)}" for module, names in missing.items()
    )


def test_the_list_of_modules_without_examples_shrinks() -> None:
    modules = without_example()
    complete = [entry for entry in LACKING if not any(covers(entry, m) for m in modules)]
    assert not complete, f"have all their examples; remove them from LACKING: {complete}"
