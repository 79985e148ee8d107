"""The base of the verbs of a run: methods that take and return data in the user's units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaestro.runs.session import Session


class Verbs(ABC):
    """Have a session on a run, which the verbs use.

    >>> from vaestro.runs import Run
    >>> issubclass(Run, Verbs)
    True
    """

    # an empty DataFrame if tables that are drawn or decoded are returned in its type
    example: object | None = None

    @property
    @abstractmethod
    def session(self) -> Session:
        """Return the session: the opened run."""
