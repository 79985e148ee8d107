"""Run a command and turn what it raises into an exit code.

0: it did what was asked. 2, with one line on stderr: the user asked for something impossible. 1,
with one line: it was possible but failed. 130: stopped by Ctrl-C, with what can be resumed saved. A
traceback only with --debug.
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from vaestro.cli.console import console
from vaestro.text import is_input_error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with arguments (by default the process's own) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = _take(arguments, "--debug")
    console.quiet = _take(arguments, "--quiet")
    if arguments == ["--version"]:
        import vaestro

        print(f"vaestro {vaestro.__version__}")
        return 0
    import typer

    from vaestro.cli.app import app

    try:
        code = typer.main.get_command(app).main(
            arguments or ["--help"], "vaestro", standalone_mode=False
        )
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return _say("stopped", 130)
    except BrokenPipeError:
        # The reader of our output has gone; say nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        # Typer carries a private copy of click in some versions and uses click itself in others:
        # only names are common.
        names = {c.__name__ for c in type(error).__mro__}
        if "Exit" in names:
            return int(getattr(error, "exit_code", 0))
        if "Abort" in names:
            return _say("stopped", 130)
        if "UsageError" in names:
            return _say(_usage(error, names), 2)
        if is_input_error(error):
            return _say(str(error), 2)
        return _say(_failure(error), 1)


def _take(arguments: list[str], flag: str) -> bool:
    found = flag in arguments
    while flag in arguments:
        arguments.remove(flag)
    return found


def _say(line: str, code: int) -> int:
    print("vaestro: " + " ".join(line.split()), file=sys.stderr)
    return code


def _failure(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return f"out of memory ({text.splitlines()[0]}); a smaller --batch or network may fit"
    if isinstance(error, OSError):
        return text
    first = text.splitlines()[0]
    return (
        first
        if type(error).__name__ == "Diverged"
        else f"{type(error).__name__}: {first} (--debug shows where)"
    )


def _usage(error: Any, names: set[str]) -> str:
    """Say a usage error of the command-line library in this program's words."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "vaestro"
    message = str(getattr(error, "message", error)).rstrip(".")
    parameter = getattr(error, "param", None)
    if "NoSuchOption" in names:
        known = [o for p in context.command.params for o in p.opts] if context is not None else []
        close = difflib.get_close_matches(error.option_name, known, 1)
        return (
            f"expected an option of "
            f"{command}{f', perhaps {close[0]}' if close else ' (see --help)'}; got "
            f"{error.option_name}"
        )
    if "MissingParameter" in names:
        name = "/".join(parameter.opts) if parameter is not None else "an argument"
        return f"expected {name} for {command} (see {command} --help); got none"
    if "BadParameter" in names:
        name = parameter.opts[0] if parameter is not None else "the option"
        return f"expected a value that {name} can take; got another ({message})"
    if message.startswith("No such command"):
        wrong, commands = (
            message.split("'")[1],
            list(context.command.commands) if context is not None else [],
        )
        close = difflib.get_close_matches(wrong, commands, 1)
        return (
            f"expected a command{f', perhaps {close[0]}' if close else ''} (one of "
            f"{', '.join(commands)}); got {wrong!r}"
        )
    return f"expected other arguments for {command} (see --help); got a mistake ({message})"
