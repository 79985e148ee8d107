"""Hints: what a refusal or a note says to type is typed, for the same data, until the data are read
or a refusal has no hint."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib.metadata import metadata
from pathlib import Path

import pytest

import vaestro
import vaestro as vs
from tests.hint_rows import NOTED, REFUSED, N, R, csv, real, words
from vaestro.cli import main
from vaestro.data.source_options import NAMES, OPTIONS, as_source, parse_source
from vaestro.text import Value, is_input_error, parse_path

KEYS = "|".join(OPTIONS)
# an option with a value, or a source with such options, as a word of a shell
VALUE = r"(?!:\s)(?:[^\s'\"();,]|\"[^\"]*\")+"
OPTION = rf"(?:{KEYS})={VALUE}(?:,(?:{KEYS})={VALUE})*"
WORD = re.compile(
    rf"'(?:[^']*:)?(?:{KEYS})=[^']*'(?:,{OPTION})?|(?<![\w'\"-])(?:[^\s'\"()]+:)?{OPTION}"
)
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b|[=:+,<][A-Z]\b")  # such as GROUP, or N of window=N

HINT = rf"\b(?:{KEYS})=|\0=|leave |--[a-z]|pip install"
NAMING = rf"expected (?:{KEYS}|\0)= to "  # begins a list of names, which is no hint
UNREAD = {"objects": "the hint is for another file, which is saved first"}
RUN = "needs a trained run: tests/test_transfer.py"
HUB = "needs the Hub: tests/test_hub.py"
INSTALL = "see test_extras_exist"
UNMADE = {  # a piece of a refusal without a row -> why
    "or array=LAYER": "needs a file of AnnData without X",
    "models the texts themselves": "needs gigabytes of text",
    "take a condition": "see test_hints_on_conditions",
    "condition": "see test_hints_on_conditions",
    "pip install": INSTALL,
    "has an effect only with streaming": HUB,
    "leave out streaming=true to download": HUB,
    "own splits: leave out split=": HUB,
    "for texts of": HUB,
    "for attributes=": "says which files the option takes",
    "converts grey and colour images": "needs images of many bands: tests/test_image_depth.py",
    "a shard is damaged": "needs a damaged shard among others: tests/test_streams.py",
    "train without --init": RUN,
    "leave .. out..": RUN,
    "as in ..": RUN,
    "in another encoding": "needs a SAS file in another encoding",
    "series=True": "in Python: tests/test_series.py",
    "numbers in column .. for ..=": "text is refused by data.parsing before",
    "--force": "an output: tests/test_bad_input.py",
    "leave out the slash": "an output: tests/test_bad_input.py",
}


def options_of(source: str) -> tuple[str, dict[str, Value]]:
    """Return a source and its options, which may be wrong."""
    try:
        return parse_source(source)
    except ValueError:
        name, options = parse_path(source, NAMES)
        return name, options


def hints(message: str, source: str) -> Iterator[str]:
    """Yield the sources that a message says to type instead of a source, in its order.

    A hint is a whole source, or an option to add, to change or to leave out, as a shell reads it.
    """
    name, given = options_of(source)
    out = re.findall(rf"\b({KEYS})= does not apply[^:]*: leave it out", message)
    out += re.findall(rf"leave (?:out |it out of )?({KEYS})=", message)
    if message.endswith("leave it out"):
        out += re.findall(rf"^({KEYS})=", message)
    if "leave one of them out" in message:
        out += [key for key in given if f"{key}=" in message]
    for key in out:
        yield as_source(name, {k: v for k, v in given.items() if k != key})
    message = re.split(r" leaves ", message)[-1]
    for match in WORD.finditer(message):
        if PLACEHOLDER.search(re.sub("axes=[A-Z]+", "", match[0])) or message[
            : match.start()
        ].endswith("leave out "):
            continue
        words = shlex.split(match[0].rstrip(".,;:"))
        assert len(words) == 1, f"no word of a shell: {match[0]} in {message}"
        bare = re.match(rf"({KEYS})=", words[0])
        path, options = parse_source(f"x:{words[0]}" if bare else words[0])
        if message[match.end() :].startswith(" instead"):
            given = {k: v for k, v in given.items() if f"got {k}=" not in message}
        if not bare:
            yield as_source(path, options)
        elif not options.items() <= given.items():
            yield as_source(name, {**given, **options})


def read(source: str) -> tuple[str, tuple[str, ...]]:
    """Return why a source is refused, or nothing, and the notes."""
    try:
        return "", tuple(vs.load(source).notes)
    except ValueError as error:
        refusal = error
    assert is_input_error(refusal) and "\n" not in str(refusal)
    return str(refusal), ()


class Trail:
    """Follow all hints from a source.

    Args:
        filled: what replaces the placeholders of hints, such as N of window=N.
    """

    def __init__(self, filled: dict[str, str]) -> None:
        self.filled = filled
        self.messages: list[str] = []
        self.ends: dict[str, str] = {}  # the last sources -> the refusal, or nothing
        self.hinted = False

    def follow(self, source: str, *seen: str) -> None:
        assert source not in seen, f"hints form a loop: {seen}"
        refusal, _ = read(source)
        self.messages.append(refusal)
        for placeholder, value in self.filled.items():
            refusal = re.sub(rf"(?<![A-Za-z]){placeholder}(?![A-Za-z])", value, refusal)
        further = list(dict.fromkeys(hints(refusal, source))) if refusal else []
        self.hinted |= bool(further)
        for hint in further:
            self.follow(hint, *seen, source)
        if not further:
            self.ends[source] = refusal


START = R.bit_generator.state


@cache
def trail(name: str) -> Trail:
    """Return where the hints of a row of the table lead, in the folder of the test."""
    row = REFUSED[name]
    make, filled = row if isinstance(row, tuple) else (row, {})
    R.bit_generator.state = dict(START)  # so that a source does not depend on the tests before it
    one = Trail(filled)
    one.follow(make())
    return one


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", REFUSED)
def test_hints_lead_to_data_or_to_a_refusal_without_a_hint(name: str) -> None:
    one = trail(name)
    assert one.messages[0], "the source is refused"
    assert not one.hinted or "" in one.ends.values() or name in UNREAD, one.ends


def templates() -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each refusal of the package's readers that has a hint."""
    for file in sorted((Path(vaestro.__file__).parent / "data").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                for text in map(template, node.exc.args):
                    if re.search(HINT, re.sub(NAMING, "", text)):
                        yield file.name, text


def template(node: ast.expr) -> str:
    """Return the text of an expression, with \\0 for values that are not constant."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "typed":
        return "kind=\0"
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Call):
        return template(node.value)
    return "\0"


def test_every_refusal_with_a_hint_has_a_row() -> None:
    said = [message for name in REFUSED for message in trail(name).messages]
    missing = []
    for file, text in templates():
        pattern = re.escape(text.replace("kind=\0", "\0")).replace("\0", ".*")
        if not any(re.search(pattern, message) for message in said):
            missing.append((file, text.replace("\0", "..")))
    unexplained = [m for m in missing if not any(key in m[1] for key in UNMADE)]
    assert not unexplained


@pytest.mark.parametrize("name", NOTED)
def test_hints_of_notes_lead_to_data(name: str) -> None:
    source = NOTED[name]()
    refusal, notes = read(source)
    assert not refusal
    found = {hint: note for note in notes for hint in hints(note, source)}
    assert found, notes
    assert {hint: why for hint in found if (why := read(hint)[0])} == {}


@pytest.mark.parametrize(
    ("given", "filled"),
    [(["--condition", "c"], {}), (["--condition", "the sex", "--condition", "c, d"], {})],
)
def test_hints_on_conditions(
    given: list[str], filled: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = csv({"the sex": ["", *words(N - 1)], "c, d": real(), "x": real()})
    tiny = ["--network", "mlp:width=8", "--latent", "2", "--steps", "2", "--dry-run"]
    assert main(["train", source, *given, *tiny]) == 2
    refusal = capsys.readouterr().err
    if "without" in refusal:
        assert "without --condition 'the sex'" in refusal
        assert main(["train", source, "--condition", '"c, d"', *tiny]) == 0
    else:
        assert "leave" in refusal or "expected a condition" in refusal


def test_extras_exist() -> None:
    """What `pip install` is told to install is an extra of the package."""
    root = Path(vaestro.__file__).parent
    named = {
        extra
        for file in root.rglob("*.py")
        for extra in re.findall(r"vaestro\[(\w+)\]", file.read_text())
    }
    stated = set(metadata("vaestro").get_all("Provides-Extra") or [])
    assert named and named <= stated
