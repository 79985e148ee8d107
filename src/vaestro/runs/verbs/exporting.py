"""The verb export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vaestro.runs.verbs.base import Verbs
from vaestro.text import InputError

if TYPE_CHECKING:
    from vaestro.export import Exported

COMPARED = 64  # data on which an exported model is compared with the run


class ExportVerbs(Verbs):
    """Write the model in formats of other programs."""

    def export(self, folder: str | Path, to: str = "onnx", *, force: bool = False) -> Exported:
        """Write encoder and decoder as ONNX files or programs of torch.export; see
        `vaestro.export.export`.

        Args:
            folder: the folder, which must not exist or be empty.
            to: onnx or torch.
            force: write into a folder with files; files of other names stay.

        Raises:
            ValueError: the folder has files, or the model cannot be exported.
            RuntimeError: the exported graphs differ from the model.
        """
        import numpy as np

        from vaestro.export import FORMATS, export
        from vaestro.text import nearest

        if to not in FORMATS:
            raise ValueError(f"expected a format: {nearest(to, FORMATS)}; got {to!r}")
        place = Path(folder)
        if place.exists() and not place.is_dir():
            raise ValueError(f"expected a folder; got {place}, which is a file")
        if not force and place.is_dir() and any(place.iterdir()):
            raise InputError(f"{place} is not empty (--force writes into it)")
        session = self.session
        rows = session.data.held_out.spread(COMPARED)
        x = np.asarray(rows.fixed().outward())
        return export(session.model, x, place, to, source=str(session.run.path))
