"""The command line: parse, call a command, print. Errors of this package end with exit code 2 and one message."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from gradistill.errors import REMEDY, GradistillError, first_line, is_out_of_memory
from gradistill.printing import guard_terminal, write

_INTERRUPTED, _TERMINATED = 130, 143
_GO_ON = frozenset({"finetune", "pretrain", "distill", "signals", "tune", "bench", "run", "predict"})
"""The commands that resume after a stop."""


def main() -> None:
    """Entry point of ``gradistill``."""
    from typer import Abort

    from gradistill.cli.app import app

    guard_terminal()
    _end_on_sigterm()
    try:
        code = app(standalone_mode=False, prog_name="gradistill")
    except GradistillError as error:
        _refuse(str(error))
    except Terminated:
        _stop(_TERMINATED)
    except Abort as error:
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            _stop(_INTERRUPTED)
        write("aborted", error=True)
        sys.exit(1)
    except Exception as error:
        if (usage := getattr(error, "format_message", None)) is not None:  # click's, of any version
            _refuse_usage(error, usage)
        _refuse_limits_of_the_machine(error)
        guard_terminal()  # typer has replaced our hook for tracebacks
        raise
    finally:
        if "torch.distributed" in sys.modules:  # --help does not wait for torch
            from gradistill.training.distributed import leave_process_group

            leave_process_group()
    if code == _INTERRUPTED:
        _stop(_INTERRUPTED)
    if isinstance(code, int) and code:
        sys.exit(code)


def _refuse(error: str) -> NoReturn:
    write(f"error: {error}", error=True)
    sys.exit(2)


def _refuse_limits_of_the_machine(error: Exception) -> None:
    """Exit with a message if an error is of a memory that is too small, or of the disk."""
    from gradistill.io import reason_of_the_disk

    if is_out_of_memory(error):
        what = GradistillError(
            f"the memory is too small: {first_line(error)}",
            expected="models and batches that fit it",
            remedy="see that nothing else uses it, shorten the texts (--max-length, training.max_length), or "
            "choose a smaller model",
        )
        _refuse(str(what))
    if (reason := reason_of_the_disk(error)) is not None:
        what = GradistillError(
            f"the disk refused {getattr(error, 'filename', None) or 'a file'}: {reason}",
            expected="free space on the disk, and permission to write",
            remedy="free space or change permissions, then give the same command again: complete files are kept",
        )
        _refuse(str(what))


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


class Terminated(SystemExit):
    """Raised where SIGTERM arrives, so that locks and temporary files are left as after Ctrl-C."""


def _end_on_sigterm() -> None:
    """Let SIGTERM, which schedulers and ``timeout`` send, end this command with a message.

    Not under torchrun: a process that waits for the others runs no handler, and torchrun would wait for it.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _raise_terminated)


def _raise_terminated(*_: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    raise Terminated(_TERMINATED)


def _stop(code: int) -> NoReturn:
    goes_on = len(sys.argv) > 1 and sys.argv[1] in _GO_ON
    more = "goes on from what was saved" if goes_on else "begins anew"
    how = "ended by SIGTERM" if code == _TERMINATED else "stopped"
    write(f"{how}. The same command {more}.", error=True)
    sys.exit(code)
