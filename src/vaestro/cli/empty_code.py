"""A warning for commands that use codes without information."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaestro.files import Json
    from vaestro.runs import Run

EMPTY = ("collapsed", "latent unused by the decoder")


def warning(run: Run) -> str:
    """Return a warning if the code of a run contains no information, with a remedy; "" otherwise.

    The diagnosis of the weights in use decides. Without one, the last validation does.
    """
    from vaestro.diagnosis.curves import SMALL_SIGNAL
    from vaestro.records import read_object

    diagnosis = read_object(run.path / "diagnosis.json")
    if diagnosis is not None and diagnosis.get("weights_sha256") in (None, run.weights_sha256()):
        if diagnosis.get("verdict") not in EMPTY:
            return ""
        remedy = next(
            (
                f["remedy"]
                for f in diagnosis.get("findings", ())
                if f.get("remedy") and f.get("severity") == "error"
            ),
            "",
        )
        what = f"train again: {remedy}" if remedy else f"see: vaestro diagnose {run.path}"
        return (
            f"warning: the code of {run.path} contains nothing that the decoder uses "
            f"(verdict: {diagnosis['verdict']}); {what}"
        )
    last: dict[str, Json] = next(
        (m for m in reversed(run.metrics()) if m.get("split") == "valid"), {}
    )
    signal = last.get("signal")
    if not isinstance(signal, (int, float)) or signal >= SMALL_SIGNAL:
        return ""
    return (
        f"warning: the code of {run.path} contains {signal:.2g} nats about the data, so all "
        f"codes are alike; "
        f"vaestro diagnose {run.path} names a remedy"
    )
