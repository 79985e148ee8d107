"""Make what is needed next while what is there is worked on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
class Ahead(Generic[T]):
    """Call a function of a whole number on a thread, one number ahead of the caller.

    A thread makes one result and ends. It is waited for before the function is called again, so that it never runs twice at a time, and
    at the interpreter's exit, so that none is stopped halfway. What it raises is raised by the call that asks for its result.
    """

    def __init__(self) -> None:
        self._next: _Making[T] | None = None

    def __call__(self, make: Callable[[int], T], number: int, *, more: bool) -> T:
        """Return make(number), which depends on the number alone, and begin with the number after it where there is `more`."""
        making = self._next
        self.close()
        result = making.result() if making is not None and making.number == number else make(number)
        if more:
            self._next = _Making(make, number + 1)
        return result

    def close(self) -> None:
        """Wait for a thread that still runs, and forget what it made."""
        if self._next is not None:
            self._next.thread.join()
            self._next = None


@final
class _Making(Generic[T]):
    """Hold the thread that makes one result, and what came of it."""

    def __init__(self, make: Callable[[int], T], number: int) -> None:
        self.number = number
        self._made: list[T] = []
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(make,), name=f"vaestro-ahead-{number}")
        self.thread.start()

    def _run(self, make: Callable[[int], T]) -> None:
        try:
            self._made.append(make(self.number))
        except BaseException as error:  # it belongs to the caller, which raises it
            self._error = error

    def result(self) -> T:
        """Return what was made, or raise what was raised; the thread must have ended."""
        if self._error is not None:
            raise self._error
        return self._made[0]
