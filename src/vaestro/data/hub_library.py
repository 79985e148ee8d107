"""The datasets library: its version, its messages and its errors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from vaestro.data import cache
from vaestro.text import InputError, one_line

OLDEST = 4  # version of the library; older ones run code of a data set's author


def datasets_library() -> ModuleType:
    """Return the datasets library.

    Raises:
        ValueError: it is not installed, or too old.

    >>> datasets_library().__name__
    'datasets'
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            "reading Hugging Face datasets needs the datasets library: pip install 'vaestro[hub]'"
        ) from error
    if int(datasets.__version__.partition(".")[0]) < OLDEST:
        raise InputError(
            f"datasets {datasets.__version__} can run code of a data set's author: install "
            f"version {OLDEST} or newer (pip install --upgrade datasets)"
        )
    return datasets


@contextmanager
def quiet(library: ModuleType, *, bars: bool) -> Iterator[None]:
    """Suppress the libraries' own messages; errors are reported once, by this package.

    Args:
        library: datasets.
        bars: whether to show progress bars.

    >>> with quiet(datasets_library(), bars=False):
    ...     logging.getLogger("datasets").warning("not shown")
    """
    from huggingface_hub import utils

    shown = (
        []
        if bars
        else [module for module in (library, utils) if not module.are_progress_bars_disabled()]
    )
    loggers = {
        logger: logger.level for logger in map(logging.getLogger, ("datasets", "huggingface_hub"))
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for module in shown:
                module.disable_progress_bars()
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for module in shown:
                module.enable_progress_bars()
            for logger, level in loggers.items():
                logger.setLevel(level)


def hub_error(library: ModuleType, error: Exception, name: str) -> Exception:
    """Return an error of one line about a data set that cannot be read from the Hub.

    Args:
        library: datasets.
        error: that it raised.
        name: of the data set.

    >>> hub_error(datasets_library(), ConnectionError("timeout"), "some/data")
    ConnectionError('the Hugging Face Hub cannot be reached, and some/data is not in its cache on
    this machine (timeout)')
    """
    cause = (
        error.__cause__
        if isinstance(error, library.exceptions.DatasetBuildError) and error.__cause__
        else error
    )
    if isinstance(error, library.exceptions.DatasetNotFoundError):
        return InputError(
            f"there is no data set {name} on the Hugging Face Hub, or it is private (log in with "
            f"hf auth login)"
        )
    if isinstance(error, ConnectionError) or type(error).__module__.partition(".")[0] in (
        "httpx",
        "requests",
        "huggingface_hub",
    ):
        return ConnectionError(
            f"the Hugging Face Hub cannot be reached, and {name} is not in its cache on this "
            f"machine ({one_line(error)})"
        )
    if isinstance(cause, OSError) and cause.errno in cache.FULL:
        return OSError(
            f"the disk has no space for {name}: free some, or set HF_HOME to a folder on another "
            f"disk"
        )
    reason = " ".join(str(cause).split())[:160] or type(cause).__name__
    return InputError(
        f"datasets.load_dataset({name!r}) cannot read the data set: {reason} (if it needs further "
        f"arguments, load it in Python, call save_to_disk, and use that folder)"
    )
