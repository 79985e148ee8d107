"""Train a run, or continue one."""

from __future__ import annotations

from pathlib import Path
from types import EllipsisType

from vaestro.files import Json
from vaestro.options import documented
from vaestro.runs.job import Job
from vaestro.runs.run import Run
from vaestro.runs.sources import Source


@documented(lambda row: row.name != "source")
def train(
    source: Source | EllipsisType = ...,
    *,
    run: str | Path | None = None,
    force: bool = False,
    config: str | Path | None = None,
    recipe: str | None = None,
    trust: bool = False,
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
        Job.new(given, run=run, force=force, config=config, recipe=recipe, trust=trust, **options)
    )


@documented(lambda row: row.resumable)
def resume(run: str | Path, *, trust: bool = False, **options: Json) -> Run:
    """Continue a stopped run and return it. The result is the same as that of an uninterrupted run.

    Args:
        run: the run's folder.
        trust: run code (module:Class) that its files name.
        {options}

    Raises:
        ValueError: it is not a run's folder, or the options are invalid.

    >>> import numpy as np, vaestro as vs
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> run = train(x, run="second", latent=2, steps=2)
    >>> resume(run.path, steps=3).metrics()[-1]["step"]
    3
    """
    return _run_through(Job.resumed(run, trust=trust, **options))


def _run_through(job: Job) -> Run:
    with job:
        for _ in job:
            pass
    return job.run
