"""Classes and functions of the user's own, named `module:object`.

A name is imported when it is looked up, so callers look up only names that the user typed or that
`vaestro.trust` permits. This module does not import torch.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import cast

from vaestro.text import article


def import_object(kind: str, name: str, base: type) -> Callable[..., object]:
    """Import the class or function that `module:object` names, and check what it is.

    The module is looked up as `import` does, and then in the current folder.

    Args:
        kind: the kind of part, for messages.
        name: module:object.
        base: the class from which a class must be derived. A function must declare with `->` that
            it returns such an object.

    Raises:
        ValueError: there is no such module or object, the import fails, or the object is something
            else. It was not called.

    Example:
        >>> import_object("recipe", "collections:OrderedDict", dict).__name__
        'OrderedDict'
    """
    module, _, attribute = name.partition(":")
    if not all(piece.isidentifier() for piece in module.split(".")):
        raise ValueError(f"expected module:Class; got {module!r} as the module")
    value = getattr(import_module(module), attribute, None)
    if value is None:
        raise ValueError(f"expected {module} to have {attribute}; got a module without it")
    if not _is_maker(value, base):
        raise ValueError(
            f"expected {name} to be {article(kind)}: a class or function that makes "
            f"{article(base.__name__)}, that is, class ...({base.__name__}) or def ...(...) -> "
            f"{base.__name__}; got {_words(value)}"
        )
    return cast("Callable[..., object]", value)


def import_module(module: str, folder: str | None = None) -> ModuleType:
    """Import a module.

    Args:
        module: its name with dots.
        folder: where its first part is; by default where `import` finds it, or else the current
            folder.

    Raises:
        ValueError: there is no such module, or it raises an error.

    Example:
        >>> import_module("os.path").__name__
        'posixpath'
    """
    top, here = module.partition(".")[0], str(Path.cwd())
    try:
        if folder is not None and top not in sys.modules:
            return _import_from(folder, module, first=True)
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != top or PathFinder.find_spec(top, [here]) is None:
                raise
        return _import_from(here, module, first=False)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        reason = (str(error) or "no reason given").splitlines()[0]
        raise ValueError(
            f"expected a module that can be imported; got {module!r} ({type(error).__name__}: "
            f"{reason})"
        ) from error


def _import_from(folder: str, module: str, *, first: bool) -> ModuleType:
    """Import a module that is in a folder, before other modules of its name or after them. The
    folder stays at the end of the path, because the module may import its neighbours later."""
    sys.path.insert(0 if first else len(sys.path), folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    finally:
        if first:
            sys.path.remove(folder)
            if folder not in sys.path:
                sys.path.append(folder)


def folder_of(module: str) -> str:
    """Return the folder in which an imported module was found; "" for one without a file.

    Args:
        module: its name, without dots.

    Example:
        >>> Path(folder_of("vaestro")).name == Path(__file__).parents[1].name
        True
    """
    spec = sys.modules[module].__spec__ if module in sys.modules else None
    if spec is None:
        return ""
    if spec.submodule_search_locations:
        return str(Path(next(iter(spec.submodule_search_locations))).absolute().parent)
    return str(Path(spec.origin).absolute().parent) if spec.has_location and spec.origin else ""


def _is_maker(value: object, base: type) -> bool:
    """Return whether a value is a class derived from `base`, or a function that declares to return
    an object of such a class."""
    if inspect.isclass(value):
        return issubclass(value, base) and not inspect.isabstract(value)
    if not inspect.isfunction(value):
        return False
    try:
        declared = typing.get_type_hints(value).get("return")
    except Exception:  # names in annotations may not exist
        return False
    declared = typing.get_origin(declared) or declared
    return inspect.isclass(declared) and issubclass(declared, base)


def _words(value: object) -> str:
    """Return in words what a value is."""
    if inspect.isclass(value):
        return f"{'an abstract class' if inspect.isabstract(value) else 'another class'}"
    return "a function that does not declare this" if callable(value) else type(value).__name__
