"""Train a run, or continue one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import EllipsisType
from typing import TypeVar

from vaestro.data.source_options import ROWS as SOURCE_ROWS
from vaestro.files import Json
from vaestro.options import documented
from vaestro.runs.job import Job
from vaestro.runs.returning import example_of
from vaestro.runs.run import Run
from vaestro.runs.saving import remove_with, temporary_folder
from vaestro.runs.sources import Source
from vaestro.runs.summary import closing
from vaestro.runs.watching import is_interactive, live_console, watch
from vaestro.storage import remove_tree
from vaestro.text import Value, visible

Function = TypeVar("Function", bound=Callable[..., object])


def _with_source_options(function: Function) -> Function:
    """Give a function with `**options` the options of a source in its signature."""
    signature = inspect.signature(function)
    present = signature.parameters
    added = [
        inspect.Parameter(row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Value)
        for row in SOURCE_ROWS
        if row.name not in present
    ]
    parameters = [*present.values(), *added]
    function.__dict__["__signature__"] = signature.replace(parameters=parameters)
    return function


@_with_source_options
@documented(lambda row: row.name != "source")
def train(
    source: Source | EllipsisType = ...,
    *,
    run: str | Path | None = None,
    force: bool = False,
    config: str | Path | None = None,
    recipe: str | None = None,
    trust: bool = False,
    progress: bool | None = None,
    **options: Json,
) -> Run:
    """Train a model, write a run's folder, and return the run; `vaestro train` does the same.

    Args:
        source: `mnist` (the default), a path with options, or an array (N, ...), a table or a
            list of series, which is stored with the run. Options of a source (docs/sources.md) are
            keyword arguments too, such as series="unit:cycle".
        run: the folder; by default runs/SOURCE-DATE-TIME.
        force: overwrite an existing run.
        config: a YAML file of options; options that are given override it.
        recipe: a named set of options, such as "beta-tcvae:beta=6"; options that are given
            override it.
        trust: run code (module:Class) that `config`, or the files of the run to start from, name.
        progress: show the training and a closing summary; by default in a terminal or a notebook.
        {options}

    Raises:
        ValueError: the options are invalid; nothing was written.
        Diverged: training failed; the weights before the failure are kept.
        KeyboardInterrupt: after the state was saved.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> train(x, run="example", latent=2, steps=2)
    Run('example')
    """
    if source is None:
        raise ValueError(
            "expected a source: a name such as mnist, a path, an array, a table or a list of "
            "texts; got None"
        )
    given = None if isinstance(source, EllipsisType) else source
    return _run_through(
        Job.new(given, run=run, force=force, config=config, recipe=recipe, trust=trust, **options),
        progress,
    )


@_with_source_options
@documented(lambda row: row.name != "source")
def fit(
    data: Source,
    *,
    run: str | Path | None = None,
    force: bool = False,
    config: str | Path | None = None,
    recipe: str | None = None,
    trust: bool = False,
    progress: bool | None = None,
    **options: Json,
) -> Run:
    """Fit a model to data in Python, and return the run, whose methods use the model.

    Without `run`, the run's folder is temporary: it is removed when the returned object is
    collected or the process ends. `save` keeps a copy.

    Args:
        data: an array (N, ...), a table (pandas, polars, Arrow, or a mapping of columns), a list
            of texts, a list of arrays (series), AnnData, sparse counts, or a path or a name with
            options. Options of a source (docs/sources.md) are keyword arguments.
        run: the folder, which is kept.
        force, config, recipe, trust, progress: see `train`.
        {options}

    Raises:
        ValueError: the options or the data are invalid; nothing was written.
        Diverged: training failed.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> m = vs.fit(x, latent=2, steps=2)
    >>> m.transform(x).shape, m.score_samples(x[:4], k=5).shape, m.sample(3).shape
    ((60, 2), (4,), (3, 3))
    """
    folder = None if run is not None else temporary_folder()
    try:
        fitted = train(
            data,
            run=run if folder is None else folder / "run",
            force=force,
            config=config,
            recipe=recipe,
            trust=trust,
            progress=progress,
            **options,
        )
    except BaseException:
        if folder is not None:
            remove_tree(folder)
        raise
    if folder is not None:
        remove_with(fitted, folder)
    fitted.example = example_of(data)
    return fitted


@documented(lambda row: row.resumable)
def resume(
    run: str | Path, *, trust: bool = False, progress: bool | None = None, **options: Json
) -> Run:
    """Continue a stopped run and return it. The result is the same as that of an uninterrupted run.

    Args:
        run: the run's folder.
        trust: run code (module:Class) that its files name.
        progress: see `train`.
        {options}

    Raises:
        ValueError: it is not a run's folder, or the options are invalid.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = train(x, run="second", latent=2, steps=2)
    >>> resume(run.path, steps=3).metrics()[-1]["step"]
    3
    """
    return _run_through(Job.resumed(run, trust=trust, **options), progress)


def _run_through(job: Job, progress: bool | None) -> Run:
    """Run a job to its end, and return its run.

    Args:
        job: the training.
        progress: whether to show it; None for "in a terminal or a notebook".
    """
    if not job.writes or not (is_interactive() if progress is None else progress):
        with job:
            for _ in job:
                pass
        return job.run
    for note in job.notes:
        _say(note)
    with job:
        watch(job, _say, live_console())
    for sentence in closing(job):
        _say(sentence)
    return job.run


def _say(text: str) -> None:
    print(visible(text), flush=True)
