"""The command line: parse, call a job, print. Errors of ours end with exit code 2 and one message."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> None:
    """Entry point of ``gradistill``."""
    from gradistill.cli.app import app
    from gradistill.errors import GradistillError, reason_of_the_disk

    try:
        app()
    except GradistillError as error:
        _refuse(str(error))
    except Exception as error:
        reason = reason_of_the_disk(error)
        if reason is None:
            raise
        name = getattr(error, "filename", None)
        what = GradistillError(
            f"the disk refused {name or 'a file'}: {reason}",
            expected="room on the disk, and leave to write",
            remedy="see to it and give the same command again: what was whole stands",
        )
        _refuse(str(what))
    except SystemExit as ended:
        if _interrupted(ended):
            print("stopped. The same command goes on from the last checkpoint.", file=sys.stderr)
            sys.exit(130)
        raise
    finally:
        if "torch.distributed" in sys.modules:  # --help does not wait for torch
            from gradistill.training.processes import leave_the_others

            leave_the_others()


def _refuse(error: str) -> NoReturn:
    from rich.console import Console

    from gradistill.report.words import printable

    message = "\n".join(printable(line) for line in error.splitlines())
    Console(stderr=True, highlight=False).print(f"error: {message}", markup=False, soft_wrap=True)
    sys.exit(2)


def _interrupted(ended: BaseException | None) -> bool:
    """Whether a KeyboardInterrupt stands behind it: typer turns one into an exit, by ways that its versions change."""
    while ended is not None and not isinstance(ended, KeyboardInterrupt):
        ended = ended.__cause__ or ended.__context__
    return ended is not None
