"""One writer for a folder: see vaestro.locks."""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from vaestro.locks import Lock, is_locked
from vaestro.storage import clear_leftovers, temporary, writing
from vaestro.text import InputError


def change(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_a_second_writer_is_refused_by_name(tmp_path: Path) -> None:
    with Lock(tmp_path):
        with pytest.raises(InputError, match=r"in use by this process, since .*: leave the"):
            Lock(tmp_path)
        with Lock(tmp_path, "other"):
            pass
    Lock(tmp_path).release()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "fields", [{"process": 2**22 + 1}, {"started": "5 a-boot"}], ids=["gone", "another start"]
)
def test_a_stale_lock_is_taken_over(tmp_path: Path, fields: dict[str, object]) -> None:
    lock = Lock(tmp_path)
    change(tmp_path / "lock", **fields)
    assert not is_locked(tmp_path)
    second = Lock(tmp_path)
    assert is_locked(tmp_path)
    with pytest.raises(InputError):
        Lock(tmp_path)
    second.release()
    assert not list(tmp_path.iterdir())
    lock.release()


def test_a_killed_process_leaves_a_stale_lock(tmp_path: Path) -> None:
    code = (
        f"import os\nfrom pathlib import Path\nfrom vaestro.locks import Lock\n"
        f"lock = Lock(Path({str(tmp_path)!r}))\nos._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert (tmp_path / "lock").exists()
    Lock(tmp_path).release()
    assert not list(tmp_path.iterdir())


def test_a_lock_of_another_machine_says_how_to_remove_it(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    change(tmp_path / "lock", host="elsewhere", process=1)
    with pytest.raises(InputError, match=f"on elsewhere.*remove {tmp_path / 'lock'}"):
        Lock(tmp_path)
    lock.release()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"host": 1}'])
def test_a_damaged_lock_is_stale_once_it_is_old(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    with pytest.raises(InputError, match="try again"):
        Lock(tmp_path)
    os.utime(tmp_path / "lock", (1, 1))
    Lock(tmp_path).release()
    assert not list(tmp_path.iterdir())


def test_one_of_many_takes_a_stale_lock(tmp_path: Path) -> None:
    for _ in range(20):
        killed = Lock(tmp_path)
        killed._release.detach()
        change(tmp_path / "lock", process=2**22 + 1)
        taken: list[Lock] = []
        barrier = threading.Barrier(6)

        def take(taken: list[Lock] = taken, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            with suppress(InputError):
                taken.append(Lock(tmp_path))

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == 1
        taken[0].release()
        assert not list(tmp_path.iterdir())


def test_leftovers_of_dead_processes_alone_are_removed(tmp_path: Path) -> None:
    (tmp_path / "mine.part").touch()
    living = temporary(tmp_path / "a.txt")
    living.touch()
    dead = Path(str(living).replace(f"-{os.getpid()}-", f"-{2**22 + 1}-"))
    dead.touch()
    clear_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "mine.part", living])


def test_two_writers_of_a_file_do_not_mix(tmp_path: Path) -> None:
    with writing(tmp_path / "a.txt") as first, writing(tmp_path / "a.txt") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.txt").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1
