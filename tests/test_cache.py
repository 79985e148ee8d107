import errno
import itertools
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vaestro.data import cache

NAME = "0123456789abcdef" * 2


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def making(value=0, rows=5):
    def make(part):
        cache.create_array(part / "x.npy", np.uint8, (rows, 3))[:] = value
        return {"rows": rows}

    return make


def never(part):
    raise AssertionError("made again")


# -- keys ------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source" / "a").mkdir(parents=True)
    (tmp_path / "source" / "one").write_text("1")
    (tmp_path / "source" / "a" / "two").write_text("22")
    return tmp_path / "source"


def of(source, kind="test-1", **options):
    return cache.key(kind, sorted(p for p in source.rglob("*") if p.is_file()), options, source)


def test_a_key_is_the_same_however_the_source_is_named(source, monkeypatch):
    name = of(source, size=3)
    assert cache._KEY.fullmatch(name)
    monkeypatch.chdir(source.parent)
    assert of(Path("source"), size=3) == name
    monkeypatch.chdir(source)
    assert of(Path(), size=3) == name
    assert (
        cache.key(
            "test-1", [os.path.join(".", "a", "two"), os.path.join(".", "one")], {"size": 3}, Path()
        )
        == name
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda s: (s / "one").write_text("10"),
        lambda s: os.utime(s / "one", ns=(0, 10**18)),
        lambda s: (s / "one").rename(s / "three"),
        lambda s: (s / "one").rename(s / "a" / "one"),
        lambda s: (s / "one").unlink(),
        lambda s: (s / "a" / "more").write_text(""),
    ],
)
def test_a_key_changes_with_any_file(source, change):
    name = of(source)
    change(source)
    assert of(source) != name


def test_a_key_changes_with_options_kind_and_place(source):
    assert (
        len(
            {
                of(source),
                of(source, size=3),
                of(source, size=4),
                of(source, crop=3),
                of(source, "test-2"),
            }
        )
        == 5
    )
    name = of(source)
    assert of(source.rename(source.with_name("moved"))) != name


def test_a_file_is_a_source_of_its_own(source):
    first, second = (cache.key("test-1", [source / f], {}, source / f) for f in ("one", "a/two"))
    assert first != second


# -- entries ---------------------------------------------------------------------------------------


def test_an_entry_is_made_once(home):
    place, meta = cache.entry(NAME, making(7), "/photos")
    assert place == home / NAME and meta["rows"] == 5
    again, same = cache.entry(NAME, never)
    assert again == place and same == meta == json.loads((place / "meta.json").read_text())
    array = cache.open_array(place / "x.npy")
    assert isinstance(array, np.memmap) and array.shape == (5, 3) and (array == 7).all()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    assert [p.name for p in home.iterdir()] == [NAME]


def test_entries_are_listed_and_cleared(home):
    assert cache.entries() == [] and cache.clear() == 0
    other = NAME[::-1]
    cache.entry(NAME, making(), "/photos")
    cache.entry(other, making(rows=500), "/more")
    listed = cache.entries()
    assert [(e.key, e.source) for e in listed] == [(NAME, "/photos"), (other, "/more")]
    assert [e.bytes for e in listed] == [(home / e.key / "x.npy").stat().st_size for e in listed]
    assert cache.clear() == sum(e.bytes for e in listed)
    assert cache.entries() == [] and list(home.iterdir()) == []


def test_clear_removes_nothing_else(home):
    cache.entry(NAME, making())
    (home / "thesis.txt").write_text("mine")
    for name in ("a" * 32, "photos"):
        (home / name).mkdir()
        (home / name / "x.npy").write_text("mine")
    (home / ("b" * 32)).mkdir()
    (home / ("b" * 32) / "meta.json").write_text('{"key": "another program\'s"}')
    (home / ("c" * 32)).symlink_to(home / "photos")
    before = sorted(home.rglob("*"))
    cache.clear()
    assert sorted(home.rglob("*")) == [p for p in before if NAME not in p.parts]


@pytest.mark.parametrize("file", ["x.npy", "meta.json"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"{"), Path.unlink])
def test_a_damaged_entry_is_made_again(home, file, damage):
    place, _ = cache.entry(NAME, making(7))
    damage(place / file)
    place, _ = cache.entry(NAME, making(7))
    assert (cache.open_array(place / "x.npy") == 7).all()
    assert [p.name for p in home.iterdir()] == [NAME]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("expected better; got this"),
        KeyboardInterrupt(),
        OSError(errno.EIO, "source", "/photos/a"),
    ],
)
def test_what_fails_leaves_nothing(home, error):
    def make(part):
        making()(part)
        raise error

    with pytest.raises(type(error)) as caught:
        cache.entry(NAME, make)
    assert caught.value is error
    assert cache.entries() == [] and list(home.iterdir()) == []


def test_a_killed_process_leaves_no_entry_and_its_rest_goes(home):
    def make(part):
        making(rows=1000)(part)
        os.kill(os.getpid(), signal.SIGKILL)

    def killed(name):
        if not (child := os.fork()):
            try:
                cache.entry(name, make)
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert cache.entries() == [] and sum(p.suffix == ".part" for p in home.iterdir()) == 1

    killed(NAME)
    assert cache.clear() > 1000 and list(home.iterdir()) == []
    killed(NAME)
    killed(NAME[::-1])  # which has removed what was left before
    cache.entry(NAME, making())
    assert [p.name for p in home.iterdir()] == [NAME]


def test_one_makes_and_the_other_waits(home):
    started, finish, made, ends = threading.Event(), threading.Event(), [], []

    def make(part):
        started.set()
        assert finish.wait(10)
        made.append(part)
        return making(7)(part)

    threads = [
        threading.Thread(target=lambda: ends.append(cache.entry(NAME, make)[0])) for _ in range(3)
    ]
    threads[0].start()
    assert started.wait(10)
    for thread in threads[1:]:
        thread.start()
    # another's entry waits for nobody, and leaves what is being made
    cache.entry(NAME[::-1], making())
    assert len(list(home.glob("*.part"))) == 1
    finish.set()
    for thread in threads:
        thread.join(10)
    assert ends == [home / NAME] * 3 and len(made) == 1
    assert sorted(p.name for p in home.iterdir()) == sorted([NAME, NAME[::-1]])


def test_a_kill_at_any_operation_leaves_no_part_of_an_entry(home, monkeypatch):
    for stop in itertools.count():
        left = [stop]

        def hook(operation, path, left=left):
            left[0] -= 1
            if left[0] == -1:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("vaestro.storage.before", hook)
            try:
                cache.entry(NAME, making())
            except KeyboardInterrupt:
                assert cache.entries() == []
            else:
                break
    assert stop > 5, "folder, flush, three for meta.json, rename"
    assert [p.name for p in home.iterdir()] == [NAME]


def test_without_locks_the_first_stays(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)

    def make(part):
        cache.entry(NAME, making(7))
        return making(8)(part)

    place, _ = cache.entry(NAME, make)
    assert (cache.open_array(place / "x.npy") == 7).all()
    assert [p.name for p in home.iterdir()] == [NAME]


# -- the folder ------------------------------------------------------------------------------------


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("VAESTRO_CACHE", "~/mine")
    assert cache.folder() == tmp_path / "mine"
    monkeypatch.setenv("VAESTRO_CACHE", "")
    assert cache.folder() == tmp_path / "xdg" / "vaestro"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.folder() == tmp_path / ".cache" / "vaestro"


@pytest.mark.parametrize("under", [".", "deeper/down"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, under):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "file" / under))
    with pytest.raises(
        OSError,
        match=r"^decoded data cannot be written to .*file.*: set VAESTRO_CACHE to another folder",
    ):
        cache.entry(NAME, never)


def test_a_read_only_folder_is_named_but_what_it_has_is_read(home, monkeypatch):
    place, _ = cache.entry(NAME, making())

    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        OSError,
        match=r"^decoded data cannot be written to .*Permission denied\): set VAESTRO_CACHE",
    ):
        cache.entry(NAME[::-1], never)
    monkeypatch.undo()
    monkeypatch.setenv("VAESTRO_CACHE", str(home))
    assert cache.entry(NAME, never)[0] == place


def allocation_fails(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


def numpy_fails(part):
    raise OSError("800 requested and 0 written")


@pytest.mark.parametrize("make", [making(), numpy_fails])
def test_a_full_disk_is_said_and_leaves_nothing(home, monkeypatch, make):
    monkeypatch.setattr(os, "posix_fallocate", allocation_fails, raising=False)
    with pytest.raises(
        OSError, match=r"^the disk has no space for .*: free some, or set VAESTRO_CACHE"
    ):
        cache.entry(NAME, make)
    assert list(home.iterdir()) == []


def test_room_is_asked_for_where_it_cannot_be_reserved(home, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    cache.entry(NAME, making())
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(OSError, match="the disk has no space"):
        cache.entry(NAME[::-1], making())


def test_all_of_an_array_is_on_the_disk_before_it_is_written(tmp_path):
    cache.create_array(tmp_path / "x.npy", np.uint8, (1_000_000,))
    assert (tmp_path / "x.npy").stat().st_blocks * 512 >= 1_000_000


def test_an_entry_is_found_only_while_it_is_whole(home):
    assert cache.find(NAME) is None
    place, meta = cache.entry(NAME, making())
    assert cache.find(NAME) == (place, meta)
    (place / "x.npy").write_bytes(b"")
    assert cache.find(NAME) is None
    cache.remove(NAME)
    assert not place.exists() and list(home.iterdir()) == []
