"""Warn where a command uses a code that contains nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaestro.runs import Run

EMPTY = ("collapsed", "latent unused by the decoder")


def warning(run: Run) -> str:
    """Return a line on a run whose code contains nothing, and what to do about it; "" for others.

    The diagnosis of the weights in use decides; without one, what the last validation measured.
    """
    from vaestro.diagnosis.curves import SMALL_SIGNAL
    from vaestro.files import read_object

    found = read_object(run.path / "diagnosis.json")
    if found is not None and found.get("weights_sha256") in (None, run.weights_sha256()):
        if found.get("verdict") not in EMPTY:
            return ""
        remedy = next(
            (
                f["remedy"]
                for f in found.get("findings", ())
                if f.get("remedy") and f.get("severity") == "error"
            ),
            "",
        )
        what = f"train again: {remedy}" if remedy else f"see: vaestro diagnose {run.path}"
        return (
            f"warning: the code of {run.path} contains nothing that the decoder uses "
            f"(verdict: {found['verdict']}); {what}"
        )
    last: dict[str, Any] = next(
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
