"""The command line: one function a command. A user's mistake is one line on stderr and exit code
2."""

from vaestro.cli.main import main

__all__ = ["main"]
