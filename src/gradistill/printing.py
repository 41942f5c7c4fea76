"""The only module that prints. Content of data, files and models reaches a terminal as plain text only.

Control characters are written as escapes (``printable``), also in log lines, warnings and tracebacks. A terminal that
cannot show a character gets an ASCII replacement, or its escape, so no command fails because of an encoding.

Progress reports of jobs go to loggers below ``gradistill`` (INFO; WARNING; DEBUG with ``--verbose``), and from there to
stdout as plain lines. The level of that logger also decides whether progress bars are shown.
"""

from __future__ import annotations

import codecs
import logging
import os
import shutil
import sys
import textwrap
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gradistill.errors import REMEDY

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

_ASCII = {
    "–": "-", "—": "-", "−": "-", "×": "x", "…": "...", "‘": "'", "’": "'", "“": '"', "”": '"', "ρ": "rho", "τ": "tau",
    "√": "sqrt ", "∇": "grad ", "·": "*", "≥": ">=", "≤": "<=", "→": "->", "ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss",
    "━": "-", "╸": "-", "╺": "-", "█": "#", "▏": "|", "▎": "|", "▍": "|", "▌": "|", "▋": "|", "▊": "|", "▉": "#",
}  # fmt: skip
_HANDLER = "gradistill.ascii"

LOGGER = logging.getLogger("gradistill")
"""The parent of every logger of the package."""
NO_PREFIX = {"prefix": ""}
"""``extra`` of a warning that is shown without the prefix ``WARNING: ``."""

PROGRESS = {"is_progress": True}
"""``extra`` of a progress line of long work: it is shown even if the other lines of a job are not."""
SECONDS_BETWEEN_LINES = 60.0
"""Seconds between progress lines without a terminal, where there is no bar."""

JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiner: format characters, but part of Persian words and of emoji, and harmless by themselves."""

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    """The text, with Python escapes for all characters that could mislead a terminal or a reader.

    Controls (ANSI escapes, carriage returns, line ends, C1), bidirectional and other format characters, lone
    surrogates, private and unassigned code points become ``\\x1b``, ``\\u202e`` and so on. Not markup-safe:
    hand the result to ``rich.text.Text``, or escape it.
    """
    if text.isprintable():  # a fast way for most texts; pages hold thousands of them
        return text
    return "".join(
        c if c in JOINERS or unicodedata.category(c) not in _HIDDEN else c.encode("unicode_escape").decode()
        for c in text
    )


def write(*parts: object, error: bool = False, fold: bool = True) -> None:
    """Print text line by line, with escapes for all control characters but line ends; an ``error`` on stderr.

    A terminal breaks long lines within words, so for a terminal they are folded between words first. Text that a user
    may copy is not folded (``fold=False``, and the remedy of an error), nor is output that another program reads.
    """
    stream = sys.stderr if error else sys.stdout
    lines = [printable(line) for line in " ".join(map(str, parts)).split("\n")]
    if fold and stream.isatty():
        width = shutil.get_terminal_size().columns
        lines = [line if line.startswith(REMEDY) else _folded(line, width) for line in lines]
    print(_encodable("\n".join(lines), stream), file=stream)


def _folded(line: str, width: int) -> str:
    """The line folded to this width, with the second and later lines indented. A longer word stays whole."""
    begin = line[: len(line) - len(line.lstrip())]
    wrapper = textwrap.TextWrapper(
        width,
        initial_indent=begin,
        subsequent_indent=f"{begin}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(wrapper.wrap(line.strip()))


def write_lines(lines: bytes) -> None:
    """Write lines of UTF-8 to stdout, for another program to read; on a terminal as ``write`` shows them."""
    if sys.stdout.isatty():
        write(lines.decode().removesuffix("\n"), fold=False)
        return
    sys.stdout.buffer.write(lines)
    sys.stdout.buffer.flush()


def close_stdout() -> None:
    """Redirect stdout to nowhere after its reader has closed the pipe (``BrokenPipeError``)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(*renderables: RenderableType) -> None:
    """Print tables and formatted texts."""
    console = _console()
    with console.capture() as captured:
        for renderable in renderables:
            console.print(_Safe(renderable))
    lines = "\n".join(line.rstrip() for line in captured.get().split("\n"))
    sys.stdout.write(_encodable(lines, sys.stdout))
    sys.stdout.flush()


def progress_bars(
    *columns: Any, error: bool = False, note: Callable[[], str] = str, lines: bool = True, **options: Any
) -> Progress:
    """Progress bars that disappear at the end; none if the package's logger shows warnings only.

    Without a terminal there are no bars, and with ``lines`` a plain line every minute reports the progress. With
    ``error`` bars are on stderr. ``note`` returns a line to show below them.
    """
    from rich.progress import Progress
    from rich.text import Text

    console = _console(error=error)
    live = console.is_terminal or console.is_jupyter  # without these rich would leave a blank line
    disabled = options.pop("disable", False) or not progress_shown()
    lines = lines and not live and not disabled

    class Bars(Progress):
        last_line = perf_counter()

        def get_renderables(self) -> Iterable[Any]:
            yield from super().get_renderables()
            if text := note():
                yield Text(printable(text), style="dim", no_wrap=True, overflow="ellipsis")

        def advance(self, task_id: Any, advance: int | float = 1) -> None:
            super().advance(task_id, advance)
            if lines and perf_counter() - self.last_line >= SECONDS_BETWEEN_LINES:
                LOGGER.info(_how_far(self.tasks[self.task_ids.index(task_id)]), extra=PROGRESS)
                self.last_line = perf_counter()

    return Bars(
        *columns, console=console, transient=True, disable=disabled or not live, auto_refresh=live, **options
    )


def _how_far(task: Any) -> str:
    done = f"{task.description}: {task.completed:,.0f}"
    if task.total is None or not task.completed:
        return done
    left = (task.elapsed or 0.0) * (task.total - task.completed) / task.completed
    return f"{done} of {task.total:,.0f}, {clock(left)} left"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    Example: ``clock(3725)`` is ``"1:02:05"``
    """
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def progress_shown() -> bool:
    """Whether progress lines and bars are shown, which ``--quiet`` turns off."""
    return LOGGER.isEnabledFor(logging.INFO)


def log_line(record: logging.LogRecord) -> str:
    """The line that shows a log record: its text, with the prefix ``WARNING: `` for a warning."""
    usual = "WARNING: " if record.levelno == logging.WARNING else ""
    return f"{getattr(record, 'prefix', usual)}{record.getMessage()}"


class LineHandler(logging.Handler):
    """Prints the log records of the package on stdout, line by line; on stderr while ``error`` is set."""

    error = False

    def emit(self, record: logging.LogRecord) -> None:
        write(log_line(record), error=self.error)


def show_log_lines() -> None:
    """Print the package's log lines, from INFO on, unless a program has set up the logger ``gradistill`` itself."""
    if not LOGGER.handlers:
        LOGGER.addHandler(LineHandler())
        LOGGER.propagate = False  # a program that logs to the terminal too would show every line twice
    if LOGGER.level == logging.NOTSET:
        LOGGER.setLevel(logging.INFO)


@contextmanager
def log_on_stderr() -> Iterator[None]:
    """Within the block, log lines go to stderr: stdout is for results that another program reads."""
    handlers = [handler for handler in LOGGER.handlers if isinstance(handler, LineHandler)]
    for handler in handlers:
        handler.error = True
    try:
        yield
    finally:
        for handler in handlers:
            handler.error = False


@contextmanager
def log_filter(keep: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    """Within the block, the handlers of the package get only the log records for which ``keep`` returns True."""
    handlers = list(LOGGER.handlers)
    for handler in handlers:
        handler.addFilter(keep)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(keep)


def confirmed(question: str) -> bool:
    """Ask the user a question. Returns True for y or yes; anything else, or nothing, is no."""
    print(f"{_encodable(printable(question), sys.stdout)} [y/N]: ", end="", flush=True)
    return sys.stdin.readline().strip().casefold() in ("y", "yes")


def guard_terminal() -> None:
    """Make the streams of this process, its log lines, warnings and tracebacks safe as well."""
    codecs.register_error(_HANDLER, _stand_in)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_HANDLER)
    logging.setLogRecordFactory(_SafeRecord)
    warnings.formatwarning = _safe_warning
    sys.excepthook = _print_traceback


class _Safe:
    """A renderable whose segments hold no control characters, wherever they come from."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        from rich.segment import Segment

        for segment in console.render(self._renderable, options):
            if segment.control:
                continue
            text = "\n".join(map(printable, segment.text.split("\n")))
            yield segment if text == segment.text else Segment(text, segment.style)


def _console(*, error: bool = False) -> Any:
    from rich.console import Console

    codecs.register_error(_HANDLER, _stand_in)
    return Console(stderr=error)


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """An ASCII replacement for characters that an encoding cannot hold."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_ASCII.get(c, c.encode("ascii", "backslashreplace").decode()) for c in missing), error.end


def _encodable(text: str, stream: Any) -> str:
    """The text with replacements for characters that the stream's encoding cannot hold."""
    encoding = getattr(stream, "encoding", None)
    if not isinstance(encoding, str):
        return text
    codecs.register_error(_HANDLER, _stand_in)
    return text.encode(encoding, _HANDLER).decode(encoding)


class _SafeRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return "\n".join(map(printable, super().getMessage().split("\n")))


def _safe_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    text = printable(str(message))
    return f"{printable(filename)}:{lineno}: {category.__name__}: {text}\n"


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    write("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), error=True, fold=False)


def between(low: str, high: str) -> str:
    """A range of two numbers, with a dash, or with "to" if one has a minus sign: a dash before it would be misread."""
    return f"{low} to {high}" if "-" in low + high else f"{low}–{high}"


def percent(share: float) -> str:
    """A share as whole percent. It is 0 % or 100 % only if the share is exactly 0 or 1.

    Example: ``percent(0.9975)`` gives ``99.8%``
    """
    shown = f"{share:.0%}"
    if shown not in ("0%", "100%") or share in (0, 1):
        return shown
    finer = f"{share:.1%}"
    return {"100.0%": "over 99.9%", "0.0%": "under 0.1%"}.get(finer, finer)


def places_shown(value: float, least: int = 3) -> int | None:
    """The number of decimals, ``least`` or more, with which a value is not rounded to 0; None for rounding errors."""
    return next((places for places in range(least, 12) if round(value, places)), None)


def places_below(value: float, limit: float, least: int = 3) -> int:
    """The number of decimals, at least ``least``, with which a rounded value is still below a limit.

    It is ``least`` if the value is not below the limit.
    """
    return next(
        (places for places in range(least, 12) if not value < limit or round(value, places) < limit), 12
    )
