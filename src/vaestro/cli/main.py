"""Run a command, and turn exceptions into an exit code and one line on stderr.

0: success. 2: the arguments or the data are invalid. 1: any other failure. 130: stopped by Ctrl-C
or SIGTERM, after the state that can be resumed was saved. A traceback is printed with --debug only.
"""

from __future__ import annotations

import difflib
import errno
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeGuard

from vaestro import processes
from vaestro.cli.console import Stopped, console, discard_output
from vaestro.text import is_input_error, visible
from vaestro.trust import Untrusted

# parts of the messages of allocators: PyTorch on a CPU and on a GPU, NumPy, C++ and the system
OUT_OF_MEMORY = ("out of memory", "allocate memory", "unable to allocate", "bad_alloc")
# parts of the messages of gloo and NCCL if another process has ended
PEER_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "remote process exited",
)
# what uses less memory, by command
SMALLER = {
    "train": "a smaller --batch or --network may fit",
    "evaluate": "a smaller --limit may fit",
    "sample": "a smaller -n may fit",
    "": "fewer rows at once may fit",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with arguments (by default the process's own) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = _take(arguments, "--debug")
    console.quiet = _take(arguments, "--quiet") or processes.rank() > 0
    console.pending.clear()
    if arguments == ["--version"]:
        import vaestro

        print(f"vaestro {vaestro.__version__}")
        return 0
    with _terminable():
        return _run(arguments, debug)


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C: locks and temporary files are removed, and one line is printed."""
    first = threading.current_thread() is threading.main_thread()
    if not first or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(arguments: Sequence[str], debug: bool) -> int:
    """Run a command, and return its exit code."""
    import typer

    from vaestro.cli.app import app

    try:
        code = typer.main.get_command(app).main(
            list(arguments) or ["--help"], "vaestro", standalone_mode=False
        )
        if code == 130:  # Typer's code after Ctrl-C
            return _say("stopped", 130)
        console.end()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return _say("stopped", 130)
    except BrokenPipeError:
        discard_output()  # also at exit
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        names = _names(error)
        if isinstance(error, Stopped):
            return 130
        if "Abort" in names:
            return _say("stopped", 130)
        if "Exit" in names:
            return int(getattr(error, "exit_code", 0))
        if _is_usage_error(error):
            return _say(_usage(error, arguments), 2)
        if isinstance(error, Untrusted):
            command = shlex.join(["vaestro", *arguments, "--trust"])
            return _say(f"{error.reason} (to run it: {command})", 2)
        if is_input_error(error):
            return _say(str(error), 2)
        return _say(_failure(error, arguments), 1)


def _take(arguments: list[str], flag: str) -> bool:
    """Remove a flag from arguments, and return whether it was there."""
    present = flag in arguments
    while flag in arguments:
        arguments.remove(flag)
    return present


def _say(line: str, code: int) -> int:
    """Print a line on stderr, once for all processes of a command, and return the exit code."""
    line = visible(" ".join(line.split()))
    if processes.reports(line):
        print("vaestro: " + line, file=sys.stderr)
    return code


def _failure(error: Exception, arguments: Sequence[str]) -> str:
    """Return an error in one line."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, MemoryError) or any(words in text.lower() for words in OUT_OF_MEMORY):
        command = next((a for a in arguments if a in SMALLER), "")
        return f"out of memory ({text.splitlines()[0]}): {SMALLER[command]}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({text}): free some space, then type the same command again"
    if isinstance(error, OSError):
        return text
    if processes.count() > 1 and any(words in text for words in PEER_LOST):
        return "another process of this command ended: what torchrun prints names it"
    first = text.splitlines()[0]
    return (
        first
        if type(error).__name__ in ("Diverged", "ArithmeticError")
        else f"{type(error).__name__}: {first} (--debug shows where)"
    )


class _Parameter(Protocol):
    """Describe an option or an argument of a command."""

    name: str
    opts: Sequence[str]


class _Command(Protocol):
    """Describe a command, or the program with its commands."""

    params: Sequence[_Parameter]
    commands: Mapping[str, object]


class _Context(Protocol):
    """Describe where the command line was wrong."""

    command_path: str
    command: _Command


class _UsageError(Protocol):
    """Describe a usage error of the command-line library."""

    message: str
    ctx: _Context | None
    param: _Parameter | None  # of MissingParameter and BadParameter
    option_name: str  # of NoSuchOption


def _is_usage_error(error: Exception) -> TypeGuard[_UsageError]:
    return "UsageError" in _names(error)


def _names(error: object) -> set[str]:
    """Return the names of the classes of an error.

    Typer has its own copy of click in some versions and uses click in others: only names are the
    same.
    """
    return {c.__name__ for c in type(error).__mro__}


def _usage(error: _UsageError, arguments: Sequence[str]) -> str:
    """Return a usage error in this program's words."""
    context, names = error.ctx, _names(error)
    typed = " ".join(["vaestro", *arguments[:1]])
    command = typed if context is None else context.command_path
    message = error.message.rstrip(".")
    if "NoSuchOption" in names:
        options = [] if context is None else [o for p in context.command.params for o in p.opts]
        close = difflib.get_close_matches(error.option_name, options, 1)
        hint = f", perhaps {close[0]}" if close else f" (see {command} --help)"
        return f"expected an option of {command}{hint}; got {error.option_name}"
    if "BadParameter" in names and error.param is not None:  # MissingParameter is one too
        if "MissingParameter" in names:
            name = "/".join(error.param.opts) if _is_option(error.param) else _written(error.param)
            return f"expected {name} for {command} (see {command} --help); got none"
        name = _written(error.param)
        kinds = {"integer": "a whole number", "number": "a number", "float": "a number"}
        kind = next((kinds[word] for word in kinds if word in message), "another value")
        return f"expected {kind} for {name}; got {_refused(error) or message}"
    if message.startswith("No such command") and context is not None:
        wrong, commands = message.split("'")[1], list(context.command.commands)
        close = difflib.get_close_matches(wrong, commands, 1)
        hint = f", perhaps {close[0]}" if close else ""
        return f"expected a command{hint} (one of {', '.join(commands)}); got {wrong!r}"
    message = message.removeprefix("Got ")
    return f"invalid arguments for `{command}`: {message} (see `{command} --help`)"


def _is_option(parameter: _Parameter) -> bool:
    return parameter.opts[0].startswith("-")


def _written(parameter: _Parameter) -> str:
    """Return the long name of an option, or the name of an argument in capitals."""
    if not _is_option(parameter):
        return parameter.name.upper()
    return next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0])


def _refused(error: _UsageError) -> str:
    """Return the value that a parameter cannot have, in quotes; "" if it is not known."""
    text = f"{error.message} {error.__cause__ if isinstance(error, Exception) else ''}"
    match = re.search(r"('.*?') is not a valid|input_value=(.*?), input_type", text)
    return "" if match is None else match[1] or match[2]
