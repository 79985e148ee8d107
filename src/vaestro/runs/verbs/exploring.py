"""The verb explore."""

from __future__ import annotations

from typing import TYPE_CHECKING

import vaestro
from vaestro.runs.verbs.base import Verbs

if TYPE_CHECKING:
    from vaestro.explorer import Explorer


class ExploreVerbs(Verbs):
    """Explore a run in the browser."""

    def explore(self, host: str = "127.0.0.1", port: int | None = None) -> Explorer:
        """Start the explorer in a thread; its `url` is the address of the page.

        Args:
            host, port: see `vaestro.explore`.

        Raises:
            ValueError: the extra vaestro[explorer] is not installed, the model has no latent, or
                the port is taken.
        """
        return vaestro.explore(self.session, host, port)
