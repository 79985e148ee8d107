"""Describe a split, or the result of an evaluation, in one sentence."""

from __future__ import annotations

from vaestro.data import Rows
from vaestro.evaluation import evaluate, within_seconds
from vaestro.models import Model


def result(model: Model, rows: Rows, *, k: int = 100) -> str:
    """Say in a sentence how good a model is, from an evaluation of seconds: up to 1,000 data at
    random, k draws or for large data fewer."""
    k, limit = within_seconds(model, rows, k)
    evaluation = evaluate(model, rows, k=k, methods=("iwae",), limit=limit)
    return evaluation.estimates[0].sentence(describe(rows, limit))


def describe(rows: Rows, n: int) -> str:
    """Name data in words: "10,000 test images", "1,000 of 10,000 test images, drawn at random"."""
    what = rows.space.layout.noun
    return (
        f"{n:,} {rows.name} {what}"
        if n == len(rows)
        else f"{n:,} of {len(rows):,} {rows.name} {what}, drawn at random"
    )
