"""One thread that calls the model, and batches requests to decode."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

MOST_ROWS = 2048  # largest number of rows that are decoded together


@dataclass(eq=False)
class Job:
    """Hold a call, or rows to be decoded together with those of other jobs of the same key.

    Args:
        call: without rows, a function of no argument; with rows, a function of all rows (N, ...)
            of a batch that returns their results, one for each row in a sequence.
        rows: (n, ...); None for a call.
        key: jobs with equal keys are decoded together.
        result: of the call, or the results of the job's own rows.
    """

    call: Callable[..., Any]
    rows: np.ndarray | None = None
    key: Hashable = None
    result: Future = field(default_factory=Future)


@final
class Worker:
    """Call functions in one thread, in order; rows that wait together are one batch.

    A job whose caller has gone (whose future is cancelled) is left out.

    >>> worker = Worker()
    >>> jobs = [worker.decode("double", lambda x: 2 * x, np.array([i])) for i in range(3)]
    >>> [job.result(9).tolist() for job in jobs], worker.call(lambda: "done").result(9)
    ([[0], [2], [4]], 'done')
    >>> worker.stop()
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="vaestro explorer", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], Any]) -> Future:
        """Call a function in the thread, and return the future of its result."""
        return self._put(Job(function))

    def decode(self, key: Hashable, function: Callable[[Any], Any], rows: np.ndarray) -> Future:
        """Call a function of rows (N, ...), which returns a result for each row, with those of
        other jobs of the same key; return the future of the results of these rows."""
        return self._put(Job(function, rows, key))

    def _put(self, job: Job) -> Future:
        self._jobs.put(job)
        return job.result

    def stop(self) -> None:
        """End the thread after the jobs that wait."""
        self._jobs.put(None)
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            for batch in _batches([job for job in jobs if job is not None]):
                _work(batch)
            if None in jobs:
                return


def _batches(jobs: list[Job]) -> list[list[Job]]:
    """Return jobs in order of arrival, with those of one key together up to `MOST_ROWS` rows."""
    batches: list[list[Job]] = []
    open_batches: dict[Hashable, tuple[list[Job], int]] = {}
    for job in jobs:
        if job.rows is None:
            batches.append([job])
            continue
        shape = (job.key, job.rows.shape[1:])
        batch, size = open_batches.get(shape, ([], 0))
        if not batch or size + len(job.rows) > MOST_ROWS:
            batch, size = [], 0
            batches.append(batch)
        batch.append(job)
        open_batches[shape] = (batch, size + len(job.rows))
    return batches


def _work(jobs: list[Job]) -> None:
    """Run the jobs of one batch whose callers still wait."""
    jobs = [job for job in jobs if job.result.set_running_or_notify_cancel()]
    if not jobs:
        return
    try:
        if jobs[0].rows is None:
            results = [jobs[0].call()]
        else:
            rows = np.concatenate([job.rows for job in jobs if job.rows is not None])
            whole = jobs[0].call(rows)
            ends = np.cumsum([len(job.rows) for job in jobs if job.rows is not None])
            results = [whole[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    except Exception as error:
        for job in jobs:
            job.result.set_exception(error)
        return
    for job, result in zip(jobs, results, strict=True):
        job.result.set_result(result)
