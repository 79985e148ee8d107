"""The processes that torchrun starts for one command: how many, which one writes, which one
reports a failure. No torch."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

CLAIM = "vaestro-failure"  # exists once a process of this attempt has reported its failure


def count() -> int:
    """Return the number of processes.

    >>> count()
    1
    """
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process. Number 0 writes files and prints.

    >>> rank()
    0
    """
    return int(os.environ.get("RANK", "0"))


def here() -> int:
    """Return the number of processes on this machine.

    >>> here()
    1
    """
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def shared(rows: int) -> int:
    """Return the largest batch of at most so many rows that the processes share equally.

    >>> shared(101)
    101
    """
    return max(count(), rows - rows % count())


def reports(failure: str) -> bool:
    """Return whether this process prints a failure: the first one of a machine that fails does.

    The failure is also written to the file that torchrun names in `TORCHELASTIC_ERROR_FILE`, in the
    format of `torch.distributed.elastic.multiprocessing.errors`. torchrun prints it at its end.
    Each process has a folder for this file, and these folders have one parent.

    Args:
        failure: what failed, in a line.

    >>> reports("the disk is full")
    True
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file:
        return True
    extra = {"py_callstack": failure, "timestamp": str(int(time.time()))}
    with suppress(OSError):
        Path(file).write_text(
            json.dumps({"message": {"message": failure, "extraInfo": extra}}), encoding="utf-8"
        )
    try:
        (Path(file).parents[1] / CLAIM).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True
    return True
