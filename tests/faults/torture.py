"""The long campaigns of faults on the files of a run: `make torture`.

Processes are killed (SIGKILL) at each file operation, each operation fails with a full and with a
broken disk, and each file of a run is damaged. Odd files and arguments are given to commands
(`python -m tests.faults.torture bad-input` runs only these). A line is printed for each campaign.
The run is tiny, so a campaign tests how files are written and read, not how long training takes.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy

from tests.faults.campaign import (
    TRAIN,
    content,
    damages,
    failing,
    make_data,
    results,
    stopping,
    wrong_types,
)
from tests.faults.odd import FEW, Case, fault, fault_of_reading, files, prepare, trainings, uses
from vaestro import locks, storage
from vaestro.cli import main
from vaestro.runs import job, writer

VARIANTS: dict[str, tuple[str, ...]] = {
    "Gaussian": (),
    "IWAE, 3 draws, last weights": ("--objective", "iwae:k=3", "--keep", "last"),
    "Mixture prior, warm-up of beta": (
        "--prior",
        "mixture:components=3",
        "--beta",
        "warmup:share=0.5",
    ),
}
QUICK: tuple[tuple[str, ...], ...] = (
    ("info", "run"),
    ("sample", "run", "-n", "2", "-o", "s.csv", "--force"),
    ("compare", "run"),
    ("train", "--resume", "run", "--quiet"),
)
FULL, BROKEN = errno.ENOSPC, errno.EIO
UNTIMED = ("evaluation.npz", "diagnosis.json", "diagnosis.npz")


class Campaign:
    """Count the cases of a campaign and the ones that failed."""

    def __init__(self, name: str) -> None:
        self.name, self.cases, self.faults = name, 0, [""][:0]
        self.start = time.monotonic()

    def check(self, good: bool, what: str) -> None:
        self.cases += 1
        if not good:
            self.faults.append(what)
            print(f"  failed: {self.name}: {what}", file=sys.stderr)

    def row(self) -> str:
        seconds = time.monotonic() - self.start
        return f"| {self.name} | {self.cases:,} | {len(self.faults):,} | {seconds:,.0f} s |"


def run(*arguments: str) -> tuple[int, str]:
    """Run a command, and return its exit code and what it wrote to standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    return code, err.getvalue()


def ends_well(code: int, err: str) -> bool:
    """Return whether a command ended with success, or with one line that is no bare error."""
    if code == 0:
        return True
    bare = re.search(r"--debug shows where|[a-z]Error:|Traceback", err)
    return code in (1, 2) and err.startswith("vaestro: ") and err.count("\n") == 1 and not bare


def operations(*arguments: str) -> int:
    """Run a command, and return the number of its file operations."""
    count = [0]

    def hook(operation: str, path: Path) -> None:
        count[0] += 1

    with hooked(hook):
        assert run(*arguments)[0] == 0
    return count[0]


@contextlib.contextmanager
def hooked(hook: Callable[[str, Path], None]) -> Iterator[None]:
    """Call a hook before each file operation, and save a checkpoint at each step."""
    before, seconds = storage.before, job.CHECKPOINT_SECONDS
    storage.before, job.CHECKPOINT_SECONDS = hook, 0.0  # type: ignore[assignment]
    try:
        yield
    finally:
        storage.before, job.CHECKPOINT_SECONDS = before, seconds  # type: ignore[assignment]


def killed(number: int, *arguments: str) -> None:
    """Run a command in a fork that is killed at a file operation, after half of a file."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    with hooked(stopping(number, lambda: os.kill(os.getpid(), signal.SIGKILL))):
        run(*arguments)
    os._exit(0)


def resumed(*train: str) -> None:
    """Do what a user does after a fault: resume the run if it is there, or else start again."""
    if Path("run").exists():
        run("train", "--resume", "run", "--quiet")
    else:
        run(*train)


def leftovers(place: Path) -> list[str]:
    return [n for n in content(place) if re.search(r"\.part|\.new|\.replaced|lock", n)]


def kills_of_training(name: str, options: tuple[str, ...]) -> Campaign:
    """Kill training at each file operation, and compare the resumed run bit for bit."""
    campaign, train = Campaign(f"`train` killed, resumed: {name}"), (*TRAIN, *options)
    shutil.rmtree("run", ignore_errors=True)
    total = operations(*train)
    expected = results(Path("run"))
    for number in range(total):
        shutil.rmtree("run")
        killed(number, *train)
        resumed(*train)
        good = results(Path("run")) == expected and not leftovers(Path("."))
        campaign.check(good, f"operation {number}")
    return campaign


def terminations() -> Campaign:
    """Send SIGTERM at each file operation of training, and compare the resumed run."""
    campaign = Campaign("`train` with SIGTERM at each operation, resumed")
    shutil.rmtree("run", ignore_errors=True)
    total = operations(*TRAIN)
    expected = results(Path("run"))
    for number in range(total):
        shutil.rmtree("run", ignore_errors=True)
        with hooked(stopping(number, lambda: os.kill(os.getpid(), signal.SIGTERM))):
            code, err = run(*TRAIN)
        good = code in (0, 130) and err in ("", "vaestro: stopped\n") and not leftovers(Path("."))
        resumed(*TRAIN)
        campaign.check(good and results(Path("run")) == expected, f"operation {number}: {err}")
    return campaign


def kills_of_replacing() -> Campaign:
    """Kill `train --force` at each file operation: one of the two runs is there, and whole."""
    campaign, force = (
        Campaign("`train --force` killed, resumed"),
        (*TRAIN, "--force", "--seed", "5"),
    )
    shutil.rmtree("run")
    run(*TRAIN)
    Path("run/mine.txt").write_text("mine")
    shutil.copytree("run", "kept")
    old = results(Path("run"))
    total = operations(*force)
    new = results(Path("run"))
    for number in range(total):
        shutil.rmtree("run")
        shutil.copytree("kept", "run")
        killed(number, *force)
        code, _ = run("train", "--resume", "run", "--quiet")
        good = code == 0 and results(Path("run")) in (old, new) and not leftovers(Path("."))
        campaign.check(good and Path("run/mine.txt").exists(), f"operation {number}")
    shutil.rmtree("kept")
    return campaign


def kills_of(name: str, *command: str) -> Campaign:
    """Kill a command on a run at each file operation, and repeat it."""
    campaign = Campaign(f"`{name}` killed, repeated")
    shutil.copytree("run", "kept")
    total = operations(*command)
    expected = {f: v for f, v in content(Path("run")).items() if f.endswith(UNTIMED)}
    for number in range(total):
        shutil.rmtree("run")
        shutil.copytree("kept", "run")
        killed(number, *command)
        code, _ = run(*command)
        now = content(Path("run"))
        good = code == 0 and all(now.get(f) == v for f, v in expected.items())
        campaign.check(good, f"operation {number}")
    shutil.rmtree("kept")
    return campaign


def failures(name: str, code: int) -> Campaign:
    """Let each file operation of training fail, and resume."""
    campaign = Campaign(f"`train` with {name} at each operation, resumed")
    shutil.rmtree("run")
    total = operations(*TRAIN)
    expected = results(Path("run"))
    for number in range(total):
        shutil.rmtree("run", ignore_errors=True)
        with hooked(failing(number, code)):
            exit_code, err = run(*TRAIN)
        good = ends_well(exit_code, err) and not leftovers(Path("."))
        resumed(*TRAIN)
        campaign.check(good and results(Path("run")) == expected, f"operation {number}: {err}")
    return campaign


def limits() -> Campaign:
    """Train with a limit on the size of files, which fails within a write, and resume."""
    campaign = Campaign("`train` with a limit on the size of files, resumed")
    shutil.rmtree("run", ignore_errors=True)
    run(*TRAIN)
    expected = results(Path("run"))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (0, 10, 100, 200, 400, 800, 1200, 1600, 2000, 3000, 4000, 6000, 8000):
        shutil.rmtree("run", ignore_errors=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            code, err = run(*TRAIN)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        good = ends_well(code, err) and not leftovers(Path("."))
        resumed(*TRAIN)
        campaign.check(good and results(Path("run")) == expected, f"{size} bytes: {err}")
    return campaign


def damage() -> Campaign:
    """Damage each file of a run, and run commands on it."""
    campaign = Campaign("a file of a run damaged; `info`, `sample`, `compare`, `--resume`")
    shutil.copytree("run", "kept")
    for number, file in enumerate(f for f in sorted(Path("kept").rglob("*")) if f.is_file()):
        name = str(file.relative_to("kept"))
        forms = damages(file.read_bytes(), number)
        if file.suffix == ".json":
            forms |= wrong_types(file.read_text())
        commands = QUICK if len(forms) < 20 else QUICK[:3]
        for (what, damaged), command in ((f, c) for f in forms.items() for c in commands):
            shutil.rmtree("run")
            shutil.copytree("kept", "run")
            Path("run", name).write_bytes(damaged)
            code, err = run(*command)
            good = ends_well(code, err)
            if name == "model.safetensors" and command[0] == "sample":
                good = good and code == 2  # never used silently
            campaign.check(good, f"{name}: {what}: {command[0]}: {err}")
    shutil.rmtree("kept")
    return campaign


def bad_input(name: str, cases: int, cases_of: SearchStrategy[Case] | None = None) -> Campaign:
    """Read odd files in Python, or run odd commands; without an assertion, so that all are run."""
    campaign, place = Campaign(name), Path("case").absolute()
    many = settings(FEW, max_examples=cases)
    if cases_of is None:

        @many
        @given(files())
        def reads(drawn: tuple[dict[str, bytes], str]) -> None:
            wrong = fault_of_reading(*drawn, place)
            campaign.check(not wrong, f"{drawn[1]}: {wrong}")

        reads()
        return campaign
    if not Path("kept").exists():
        prepare(Path("kept"))
    kept = Path("kept").absolute()

    @many
    @given(cases_of)
    def runs(case: Case) -> None:
        wrong = fault(case, kept, place)
        campaign.check(not wrong, f"{case.arguments}: {wrong}")

    runs()
    return campaign


BAD_INPUT: tuple[Callable[[], Campaign], ...] = (
    lambda: bad_input("odd files and options, read in Python", 800),
    lambda: bad_input("odd files and arguments of commands on a run", 250, uses()),
    lambda: bad_input("odd files and options of `train`", 300, trainings()),
)


def torture(only_bad_input: bool = False) -> int:
    """Run all campaigns, print the table, and return the number of failures."""
    rows, faults = ["| campaign | cases | failures | time |", "|---|---|---|---|"], 0
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        # a lock file that is not complete is stale at once, and not after ten seconds
        locks.WRITING_SECONDS = writer.YOUNG_SECONDS = 0.0
        make_data(Path("."))
        judge = ("--quiet",)
        campaigns: list[Callable[[], Campaign]] = [
            *(lambda n=n, o=o: kills_of_training(n, o) for n, o in VARIANTS.items()),
            kills_of_replacing,
            lambda: kills_of("evaluate", "evaluate", "run", "--k", "4", *judge),
            lambda: kills_of("report", "report", "run", *judge),
            damage,
            lambda: failures("a full disk (ENOSPC)", FULL),
            lambda: failures("a broken disk (EIO)", BROKEN),
            limits,
            terminations,
        ]
        for campaign in BAD_INPUT if only_bad_input else (*campaigns, *BAD_INPUT):
            done = campaign()
            rows.append(done.row())
            faults += len(done.faults)
            print(rows[-1], flush=True)
        os.chdir("/")
    print("\n" + "\n".join(rows))
    return faults


if __name__ == "__main__":
    sys.exit(min(torture("bad-input" in sys.argv), 1))
