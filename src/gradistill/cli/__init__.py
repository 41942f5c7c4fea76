"""The command line: parse, call a job, print. Errors of ours end with exit code 2 and one message."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from gradistill.errors import REMEDY, GradistillError, first_line, is_out_of_memory
from gradistill.printing import guard_terminal, write

_INTERRUPTED = 130
_GO_ON = frozenset({"finetune", "pretrain", "distill", "signals", "tune", "bench", "run", "predict"})
"""The commands that keep what they have when they are stopped."""


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
            guard_terminal()  # typer puts a hook for tracebacks of its own in the place of ours
            raise
        name = getattr(error, "filename", None)
        what = GradistillError(
            f"the disk refused {name or 'a file'}: {reason}",
            expected="room on the disk, and leave to write",
            remedy="see to it and give the same command again: what was whole stands",
        )
        _refuse(str(what))
    finally:
        if "torch.distributed" in sys.modules:  # --help does not wait for torch
            from gradistill.training.distributed import leave_the_others

            leave_the_others()
    if code == _INTERRUPTED:
        _stop(interrupted=True)
    if isinstance(code, int) and code:
        sys.exit(code)


def _refuse(error: str) -> NoReturn:
    write(f"error: {error}", error=True)
    sys.exit(2)


def _refuse_usage(error: Any, message: Callable[[], str]) -> NoReturn:
    """A command line that typer cannot read, without its frame: an option's value is shown as text."""
    if type(error).__name__ != "NoArgsIsHelpError":  # which has printed the help
        place = error.ctx.command_path if getattr(error, "ctx", None) else "gradistill"
        write(f"error: {message()}\n{REMEDY}see {place} --help{_first_steps(place)}", error=True)
    sys.exit(error.exit_code)


def _first_steps(place: str) -> str:
    """Where somebody has data and no teacher: how to begin."""
    if not place.endswith(" distill") or any(part.startswith("--teacher") for part in sys.argv):
        return ""
    return (
        ", or begin with your file alone: gradistill init FILE proposes teacher, student and settings, and gradistill "
        "run carries them through"
    )


def _stop(*, interrupted: bool) -> NoReturn:
    if interrupted:
        goes_on = len(sys.argv) > 1 and sys.argv[1] in _GO_ON
        more = "goes on from what was saved" if goes_on else "begins anew"
        write(f"stopped. The same command {more}.", error=True)
        sys.exit(_INTERRUPTED)
    write("aborted", error=True)
    sys.exit(1)
