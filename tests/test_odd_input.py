"""Odd data, options and arguments end with a result or with one line, and leave nothing half-done.

The cases are the same in each run. `make torture` runs many more: docs/reliability.md.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.faults.odd import FEW, Case, fault, fault_of_reading, files, prepare, trainings, uses


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("odd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        prepare(place / "kept")
        yield place / "kept"


def test_odd_data_are_read_or_refused(kept: Path) -> None:
    @settings(FEW, max_examples=60)
    @given(files())
    def holds(drawn: tuple[dict[str, bytes], str]) -> None:
        assert fault_of_reading(*drawn, kept.parent / "case") == ""

    holds()


def test_a_header_that_is_no_python_is_refused(kept: Path) -> None:
    header = b"{'descr': '<i8', 'shape" + bytes(8) + b", 2), }"
    cut = b"\x93NUMPY\x01\x00v\x00" + header.ljust(117) + b"\n" + bytes(80)
    for made in ({"y.npy": cut}, {"many/a.npy": cut, "many/b.npy": cut}):
        source = next(iter(made)).partition("/")[0]
        assert fault_of_reading(made, source, kept.parent / "case") == ""


def test_odd_arguments_end_with_a_result_or_a_line(kept: Path) -> None:
    @settings(FEW, max_examples=40)
    @given(uses(without=("export",)))  # a right one takes seconds
    def holds(case: Case) -> None:
        assert fault(case, kept, kept.parent / "case") == ""

    holds()


@pytest.mark.parametrize("whole", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_latents_that_are_cut_short_are_refused(kept: Path, whole: bytes) -> None:
    case = Case({"z.npz": whole}, ("decode", "run", "z.npz", "-o", "o.npy"))
    assert fault(case, kept, kept.parent / "case") == ""


def test_odd_trainings_end_with_a_run_or_a_line(kept: Path) -> None:
    @settings(FEW, max_examples=25)
    @given(trainings())
    def holds(case: Case) -> None:
        assert fault(case, kept, kept.parent / "case") == ""

    holds()


def test_a_fault_is_seen(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = kept.parent / "case"
    assert "raised" not in fault(Case({}, ("info", "run")), kept, place)

    def writes(arguments: list[str]) -> int:
        Path("half").write_text("")
        print("vaestro: expected a; got b", file=sys.stderr)
        return 2

    monkeypatch.setattr("tests.faults.odd.main", writes)
    assert "half" in fault(Case({}, ("info", "run")), kept, place)
