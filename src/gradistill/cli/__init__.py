"""The command line: parse, call a job, print. Errors of ours end with exit code 2 and one message."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of ``gradistill``."""
    from rich.console import Console

    from gradistill.cli.app import app
    from gradistill.errors import GradistillError
    from gradistill.report.words import printable

    try:
        app()
    except GradistillError as error:
        message = "\n".join(printable(line) for line in str(error).splitlines())
        Console(stderr=True, highlight=False).print(f"error: {message}", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped. The same command goes on from the last checkpoint.")
        sys.exit(130)
