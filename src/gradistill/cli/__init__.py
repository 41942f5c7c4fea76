"""The command line: parse, call a command, print. Errors of this package end with exit code 2 and one message."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from gradistill.errors import REMEDY, GradistillError, first_line, is_out_of_memory
from gradistill.printing import guard_terminal, write

_INTERRUPTED = 130
_GO_ON = frozenset({"finetune", "pretrain", "distill", "signals", "tune", "bench", "run", "predict"})
"""The commands that resume after a stop."""


def main() -> None:
    """Entry point of ``gradistill``."""
    from typer import Abort

    from gradistill.cli.app import app
    from gradistill.io import reason_of_the_disk

    guard_terminal()
    try:
        code = app(standalone_mode=False, prog_name="gradistill")
    except GradistillError as error:
        _refuse(str(error))
    except Abort as error:
        _stop(interrupted=isinstance(error.__cause__ or error.__context__, KeyboardInterrupt))
    except Exception as error:
        if (usage := getattr(error, "format_message", None)) is not None:  # click's, of any version
            _refuse_usage(error, usage)
        if is_out_of_memory(error):
            what = GradistillError(
                f"the memory is too small: {first_line(error)}",
                expected="models and batches that fit it",
                remedy="see that nothing else uses it, shorten the texts (--max-length, training.max_length), or "
                "choose a smaller model",
            )
            _refuse(str(what))
        reason = reason_of_the_disk(error)
        if reason is None:
            guard_terminal()  # typer has replaced our hook for tracebacks
            raise
        name = getattr(error, "filename", None)
        what = GradistillError(
            f"the disk refused {name or 'a file'}: {reason}",
            expected="free space on the disk, and permission to write",
            remedy="free space or change permissions, then give the same command again: complete files are kept",
        )
        _refuse(str(what))
    finally:
        if "torch.distributed" in sys.modules:  # --help does not wait for torch
            from gradistill.training.distributed import leave_process_group

            leave_process_group()
    if code == _INTERRUPTED:
        _stop(interrupted=True)
    if isinstance(code, int) and code:
        sys.exit(code)


def _refuse(error: str) -> NoReturn:
    write(f"error: {error}", error=True)
    sys.exit(2)


def _refuse_usage(error: Any, message: Callable[[], str]) -> NoReturn:
    """Print typer's error about a command line as plain text, without a frame, and exit."""
    if type(error).__name__ != "NoArgsIsHelpError":  # this one has already printed the help
        place = error.ctx.command_path if getattr(error, "ctx", None) else "gradistill"
        write(f"error: {message()}\n{REMEDY}see {place} --help{_first_steps(place)}", error=True)
    sys.exit(error.exit_code)


def _first_steps(place: str) -> str:
    """A hint to begin with ``gradistill init``, for ``distill`` without a teacher; otherwise blank."""
    if not place.endswith(" distill") or any(part.startswith("--teacher") for part in sys.argv):
        return ""
    return (
        ", or begin with your file alone: gradistill init FILE proposes teacher, student and settings, and gradistill "
        "run trains them"
    )


def _stop(*, interrupted: bool) -> NoReturn:
    if interrupted:
        goes_on = len(sys.argv) > 1 and sys.argv[1] in _GO_ON
        more = "goes on from what was saved" if goes_on else "begins anew"
        write(f"stopped. The same command {more}.", error=True)
        sys.exit(_INTERRUPTED)
    write("aborted", error=True)
    sys.exit(1)
