"""The table of the report that compares samples with held-out rows."""

from __future__ import annotations

from collections.abc import Mapping

from vaestro.evaluation.fidelity import to_its_error
from vaestro.files import Json
from vaestro.report.reading import Folder
from vaestro.report.sections import Values

WORST = 3  # number of columns and of pairs that are named


def resemblance(folder: Folder) -> Values | None:
    """Return the rows of the table and its caption; None if samples were not compared."""
    samples = (folder.evaluation or {}).get("samples")
    if not samples:
        return None
    rows = [
        _row("column shapes", samples["shapes"], "1"),
        _row("pair trends", samples["pairs"], "1"),
        _row("AUC of a detector of samples", samples["detector"], "0.5"),
    ]
    if utility := samples["utility"]:
        score = "AUC" if utility["score"] == "auc" else "R²"
        name = f"{score} of predicting {utility['target']} after training on these rows"
        rows.append(_row(name, utility, "as real rows"))
    rows.append(_row("share of copies of a training row", samples["copies"], "as real rows"))
    return {"rows": [row for row in rows if row], "caption": _caption(samples)}


def _row(name: str, compared: Mapping[str, Json] | None, best: str) -> Values | None:
    if compared is None:
        return None
    drawn, real = (
        to_its_error((compared[which]["mean"], compared[which]["stderr"])).replace("+-", "±")
        for which in ("drawn", "real")
    )
    return {"name": name, "drawn": drawn, "real": real, "best": best}


def _caption(samples: Mapping[str, Json]) -> str:
    """Return what was compared, and the columns and pairs that differ most."""
    columns = [
        f"{c['column']} ({c['drawn']:.2f}, real rows {c['real']:.2f})"
        for c in samples["shapes"]["columns"][:WORST]
    ]
    caption = (
        f"{samples['n']:,} samples against {samples['held_out']:,} held-out rows. Real rows are as "
        f"many training rows; the copies among real rows are those among held-out rows. The "
        f"columns that differ most: {', '.join(columns)}."
    )
    if samples["pairs"]:
        pairs = [
            f"{' and '.join(p['columns'])} ({p['drawn']:.2f}, real rows {p['real']:.2f})"
            for p in samples["pairs"]["pairs"][:WORST]
        ]
        caption += f" The pairs: {', '.join(pairs)}."
    return " ".join([caption, *samples["notes"]])
