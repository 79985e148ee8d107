"""The command line: one function for each command. A user error is one line on stderr and exit code
2."""

from vaestro.cli.main import main

__all__ = ["main"]
