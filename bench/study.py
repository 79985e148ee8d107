"""Study the diagnosis on runs that are healthy or faulty by construction.

    python bench/study.py --out FOLDER [--jobs 2] [--only PATTERN ..] [--seed N] [--again]
                          [--longer] [--list]

Each case of study_cases.py is trained in FOLDER/NAME and diagnosed by `vaestro diagnose`. Answers
are stored, so the same command continues an interrupted study. `--again` diagnoses every run again
and trains only missing runs. The tables are printed and written to FOLDER/study.md, and all wrong
statements to FOLDER/wrong.md. Every process uses one thread.

`--longer` checks what no construction guarantees: that healthy runs have converged. Each is trained
with twice the steps. The gain of its validation bound is printed and written to FOLDER/longer.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the modules of tests/ill_runs.py

import torch
from study_cases import CASES, Case, draws

from vaestro.loop import Diverged
from vaestro.runs import Job, Run

ALARMS = ("error", "warning")
Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Answer:
    """Hold the diagnosis of a run: the verdict, (name, severity, evidence) of each finding, and its
    time in seconds."""

    name: str
    verdict: str
    findings: tuple[tuple[str, str, str], ...]
    training: float = 0.0
    diagnosis: float = 0.0
    failure: str = ""

    @property
    def names(self) -> set[str]:
        return {name for name, _, _ in self.findings}


@dataclass(frozen=True)
class Wrong:
    """Describe a wrong statement: a false alarm, a miss, a wrong verdict, or a failure of the
    program."""

    case: str
    kind: str
    finding: str
    evidence: str


# -- runs ------------------------------------------------------------------------------------------


def train(case: Case, folder: Path) -> float:
    """Train the run of a case unless it exists, and return the time in seconds."""
    mark = folder / "trained.json"
    name, content = case.file()
    key = case.key(content)
    if mark.exists() and (stored := json.loads(mark.read_text()))["case"] == key:
        return float(stored["seconds"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start = time.perf_counter()
    file = folder / name
    file.write_bytes(content)
    job = Job.new(
        f"{file}{case.source}",
        run=folder / "run",
        **{"seed": 1 + draws(), "device": "cpu", "compile": "off", **case.options},
    )
    with suppress(Diverged), job:
        for step in job:
            if step.index == case.stop:
                job.checkpoint()
                break
    if case.after is not None:
        case.after(file)
    seconds = time.perf_counter() - start
    mark.write_text(json.dumps({"case": key, "seconds": seconds}))
    return seconds


def answer(case: Case, out: Path, again: bool = False) -> Answer:
    """Train and diagnose a case, or return its stored answer."""
    folder = out / case.name
    file = folder / "answer.json"
    try:
        training = train(case, folder)
        if file.exists() and not again:
            stored = json.loads(file.read_text())
            return Answer(**{**stored, "findings": tuple(map(tuple, stored["findings"]))})
        start = time.perf_counter()
        said = Run(folder / "run").diagnose()
        findings = tuple((f.name, f.severity, f.evidence) for f in said.findings)
        found = Answer(case.name, said.verdict, findings, training, time.perf_counter() - start)
    except Exception as error:  # the study goes on and reports it
        return Answer(case.name, "", (), failure=f"{type(error).__name__}: {error}")
    file.write_text(json.dumps(asdict(found), indent=1))
    return found


def _one(name: str, out: Path, again: bool) -> Answer:
    torch.set_num_threads(1)
    return answer(next(c for c in CASES if c.name == name), out, again)


def gain(case: Case, out: Path) -> tuple[float, float, float]:
    """Train a case with twice the steps, and return the gain of the best validation bound in nats,
    its standard error, and the bound."""
    longer = replace(case, options={**case.options, "steps": 2 * case.options["steps"]})
    train(case, out / case.name)
    train(longer, out / f"{case.name}-longer")
    lines = [
        [
            line
            for line in Run(out / name / "run").metrics()
            if line["split"] == "valid" and line["step"]
        ]
        for name in (case.name, f"{case.name}-longer")
    ]
    best = [max(held, key=lambda line: float(line["bound"])) for held in lines]
    return best[1]["bound"] - best[0]["bound"], best[0]["stderr"], best[0]["bound"]


def _gain(name: str, out: Path) -> tuple[float, float, float]:
    torch.set_num_threads(1)
    return gain(next(c for c in CASES if c.name == name), out)


def check_lengths(cases: Sequence[Case], out: Path, jobs: int) -> str:
    """Return a Markdown table of the gains of healthy runs from twice the steps."""
    trained = [c for c in cases if not c.ill and "steps" in c.options]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        gains = list(pool.map(_gain, [c.name for c in trained], [out] * len(trained)))
    rows = [
        f"| {c.name} | {c.options['steps']} | {bound:.2f} | {more:+.3f} | {error:.2f} |"
        for c, (more, error, bound) in zip(trained, gains, strict=True)
    ]
    head = [
        "| run | steps | validation bound | gain by twice the steps | error of the bound |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows]) + "\n"


# -- what is wrong ---------------------------------------------------------------------------------


def judge(case: Case, said: Answer) -> list[Wrong]:
    """Return the wrong statements of an answer."""
    if said.failure:
        return [Wrong(case.name, "failure", "", said.failure)]
    wrong = [
        Wrong(case.name, "miss", name, f"said: {_all(said)}")
        for name in case.must
        if name not in said.names
    ]
    # a finding may occur several times, such as once for each split
    alarms: dict[str, list[str]] = {}
    for name, severity, evidence in said.findings:
        if false_alarm(case, name, severity):
            alarms.setdefault(name, []).append(f"{severity}: {evidence}")
    wrong += [
        Wrong(case.name, "false alarm", name, " / ".join(evidence))
        for name, evidence in alarms.items()
    ]
    if case.verdicts and said.verdict not in case.verdicts:
        wrong.append(
            Wrong(case.name, "verdict", said.verdict, f"right: {' or '.join(case.verdicts)}")
        )
    return wrong


def false_alarm(case: Case, name: str, severity: str) -> bool:
    """Return whether a finding of a run is wrong."""
    return (
        name not in case.must
        and name not in case.may
        and (severity in ALARMS or name in case.never)
    )


def _all(said: Answer) -> str:
    return (
        said.verdict
        + "; "
        + (", ".join(f"{severity}: {name}" for name, severity, _ in said.findings) or "no finding")
    )


# -- tables ----------------------------------------------------------------------------------------


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927)."""
    if not n:
        return 0.0, 1.0
    share, spread = hits / n, Z * Z / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt((share * (1 - share) + spread / 4) / n) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _percent(hits: int, n: int) -> str:
    if not n:
        return ""
    low, high = wilson(hits, n)
    return f"{100 * hits / n:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def table(cases: Sequence[Case], answers: Sequence[Answer]) -> str:
    """Return a Markdown table: a row for each finding, and for the verdicts of healthy and of
    faulty runs."""
    pairs = [(c, a) for c, a in zip(cases, answers, strict=True) if not a.failure]
    lines = [
        "| finding | runs that have it | missed | % | runs without it | false alarms | % |",
        "|---|---|---|---|---|---|---|",
    ]
    names = {name for case in cases for name in case.must} | {
        name for _, said in pairs for name in said.names
    }
    totals = [0, 0, 0, 0]
    for name in sorted(names):
        have = [said for case, said in pairs if name in case.must]
        lack = [
            (case, said) for case, said in pairs if name not in case.must and name not in case.may
        ]
        severities = {n: severity for _, said in pairs for n, severity, _ in said.findings}
        judged = [
            (c, a) for c, a in lack if severities.get(name) in (*ALARMS, None) or name in c.never
        ]
        missed = sum(name not in said.names for said in have)
        false = sum(
            any(n == name and false_alarm(case, n, severity) for n, severity, _ in said.findings)
            for case, said in judged
        )
        row = [len(have), missed, len(judged), false]
        totals = [a + b for a, b in zip(totals, row, strict=True)]
        lines.append(
            f"| {name} | {row[0]} | {row[1]} | {_percent(row[1], row[0])} | {row[2]} | {row[3]} "
            f"| {_percent(row[3], row[2])} |"
        )
    lines.append(
        f"| all findings | {totals[0]} | {totals[1]} | {_percent(totals[1], totals[0])} | "
        f"{totals[2]} | {totals[3]} | "
        f"{_percent(totals[3], totals[2])} |"
    )
    lines += [
        "",
        "| runs | number | wrong verdict | % | with any false alarm | % |",
        "|---|---|---|---|---|---|",
    ]
    for word, ill in (("healthy", False), ("ill", True)):
        mine = [(c, a) for c, a in pairs if c.ill == ill]
        verdicts = sum(any(w.kind == "verdict" for w in judge(c, a)) for c, a in mine)
        alarms = sum(any(w.kind == "false alarm" for w in judge(c, a)) for c, a in mine)
        lines.append(
            f"| {word} | {len(mine)} | {verdicts} | {_percent(verdicts, len(mine))} | {alarms} | "
            f"{_percent(alarms, len(mine))} |"
        )
    failed = len(cases) - len(pairs)
    training, diagnosis = sum(a.training for a in answers), sum(a.diagnosis for a in answers)
    lines += [
        "",
        f"{failed} of {len(cases)} runs failed. Training took {training:.0f} s and diagnosis "
        f"{diagnosis:.0f} s of one thread.",
    ]
    return "\n".join(lines) + "\n"


def listed(wrong: Iterable[Wrong]) -> str:
    """Return every wrong statement as a list in Markdown."""
    lines = [f"- **{w.case}**: {w.kind}: {w.finding}. {w.evidence}" for w in wrong]
    return "\n".join(lines or ["Nothing wrong."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and tables")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--only", nargs="*", default=[], help="names or patterns such as 'exact-*'")
    parser.add_argument(
        "--again", action="store_true", help="diagnose anew; train only what is not there"
    )
    parser.add_argument(
        "--longer",
        action="store_true",
        help="check that healthy runs gain nothing by twice the steps",
    )
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="other numbers draw other data and train with other seeds",
    )
    options = parser.parse_args()
    os.environ["STUDY_SEED"] = str(options.seed)
    cases = [c for c in CASES if not options.only or any(fnmatch(c.name, p) for p in options.only)]
    if not cases:
        parser.error(f"no case is named {' or '.join(options.only)} (--list prints the names)")
    if options.list:
        print(
            "\n".join(
                f"{c.name}: {' or '.join(c.verdicts)}; must: {', '.join(c.must) or '-'}"
                for c in cases
            )
        )
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if options.longer:
        lengths = check_lengths(cases, options.out, options.jobs)
        (options.out / "longer.md").write_text(lengths)
        print(lengths)
        return
    answers: dict[str, Answer] = {}
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        # Start with the longest, so that no long one remains at the end.
        order = sorted(cases, key=lambda c: -int(c.options.get("steps", 0)))
        waiting = {pool.submit(_one, c.name, options.out, options.again): c for c in order}
        for done in as_completed(waiting):
            said, case = done.result(), waiting[done]
            answers[case.name] = said
            wrong = "; ".join(f"{w.kind} {w.finding}" for w in judge(case, said)) or "right"
            print(
                f"{len(answers)}/{len(cases)} {case.name}: {said.verdict or said.failure}: {wrong}",
                file=sys.stderr,
                flush=True,
            )
    ordered = [answers[c.name] for c in cases]
    found = table(cases, ordered)
    wrong_statements = listed(
        w for case, said in zip(cases, ordered, strict=True) for w in judge(case, said)
    )
    (options.out / "study.md").write_text(found)
    (options.out / "wrong.md").write_text(wrong_statements)
    print(found)
    print(wrong_statements)


if __name__ == "__main__":
    main()
