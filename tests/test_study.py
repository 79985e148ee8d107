"""The study of the doctor (bench/study.py): its fastest cases, and its judge."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("study")


@pytest.mark.parametrize(
    "name", ["exact-1000", "cut-exact-5000", "deaf-exact-200", "noise-1000", "miss-200"]
)
def test_fast_cases_of_the_study_are_answered_rightly(
    name: str, study: Any, tmp_path: Path
) -> None:
    case = next(c for c in study.CASES if c.name == name)
    said = study.answer(case, tmp_path)
    assert study.judge(case, said) == []
    assert study.answer(case, tmp_path) == said  # from its file
    for other in ("healthy", "collapsed"):
        if other not in case.verdicts:
            assert [w.kind for w in study.judge(case, replace(said, verdict=other))] == ["verdict"]


def test_the_study_counts_misses_and_false_alarms(study: Any) -> None:
    sick, sound = (
        next(c for c in study.CASES if c.name == name) for name in ("noise-1000", "exact-1000")
    )
    missed = study.Answer(sick.name, "healthy", ())
    alarmed = study.Answer(
        sound.name,
        "overfitted",
        (("overfitting", "warning", "so it seems"), ("new note", "note", "no claim")),
    )
    assert [(w.kind, w.finding) for w in study.judge(sick, missed)] == [
        ("miss", "units that carry noise")
    ]
    assert [(w.kind, w.finding) for w in study.judge(sound, alarmed)] == [
        ("false alarm", "overfitting"),
        ("verdict", "overfitted"),
    ]
    rows = {
        line.split(" | ")[0].strip("| "): line
        for line in study.table([sick, sound], [missed, alarmed]).splitlines()
    }
    assert rows["units that carry noise"].startswith(
        "| units that carry noise | 1 | 1 | 100.0 (20.7 to 100.0) | 1 | 0 |"
    )
    assert rows["overfitting"].startswith("| overfitting | 0 | 0 |  | 2 | 1 | 50.0 ")
    assert rows["healthy"].startswith("| healthy | 1 | 1 |")


def test_the_study_has_sixty_healthy_and_sixty_ill_runs_with_names_of_their_own(study: Any) -> None:
    assert min(sum(c.ill == ill for c in study.CASES) for ill in (False, True)) >= 60
    assert len({c.name for c in study.CASES}) == len(study.CASES)
    assert all(c.must or c.verdicts != ("healthy",) for c in study.CASES if c.ill)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 60, 0.0, 0.0602), (5, 10, 0.2366, 0.7634), (60, 60, 0.9398, 1.0)],
)
def test_intervals_of_proportions_are_wilsons(
    hits: int, n: int, low: float, high: float, study: Any
) -> None:
    assert study.wilson(hits, n) == pytest.approx((low, high), abs=1e-4)
