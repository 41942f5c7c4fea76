"""Files as columns: CSV, TSV, JSON, JSONL, CoNLL and Parquet, each row with its line in the file.

Nothing is converted or guessed here: a CSV cell is text even where it looks like a number or like "NA". (The one
exception: decimal commas in a file with semicolons.) Faults are collected as problems, so all files are read before an
error is raised.
"""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradistill.data.arrow_tables import Expanding, most_bytes, read_parquet
from gradistill.data.conll import read_conll
from gradistill.data.delimited import read_csv, read_tsv
from gradistill.data.json_rows import read_json, read_jsonl
from gradistill.data.table import Table
from gradistill.errors import Problem
from gradistill.io import system_reason

BOM = "\ufeff"
_PACKED = ".gz"
NO_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
"""The errors that reading a broken gzip file raises."""

TEXT_FORMATS: dict[str, Callable[[str, str], Table]] = {
    ".csv": read_csv, ".tsv": read_tsv, ".jsonl": read_jsonl, ".json": read_json, ".conll": read_conll,
}  # fmt: skip
"""Text formats and their readers. The files may be compressed by gzip."""
FORMATS = (*TEXT_FORMATS, ".parquet")
"""Supported file endings. Those of text formats may be followed by ``.gz``."""
LISTED = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}; the text formats also with {_PACKED}"


class UnreadableError(ValueError):
    """A file whose bytes are not text. The message has the reason; ``row`` is the line."""

    def __init__(self, what: str, row: int | None = None) -> None:
        super().__init__(what)
        self.row = row


def ending_of(path: Path) -> str | None:
    """The ending that decides how a file is read, such as ``.csv.gz``; None for an unsupported one."""
    name = path.name.lower()
    for ending in FORMATS:
        for whole in (ending, ending + _PACKED) if ending in TEXT_FORMATS else (ending,):
            if name.endswith(whole):
                return whole
    return None


def stem_of(path: Path) -> str:
    """The file's name without its supported ending."""
    return path.name.removesuffix(path.name[len(path.name) - len(ending_of(path) or "") :])


def read_file(path: Path) -> Table:
    """Read one file by its ending, which ``ending_of`` must support. Faults become problems, not exceptions."""
    ending = ending_of(path)
    try:
        if fault := not_a_file(path):
            return _unreadable(path, fault)
        if ending is None or ending == ".parquet":
            return read_parquet(path)
        text = text_of(gunzipped(path) if ending.endswith(_PACKED) else path.read_bytes())
    except OSError as error:
        return _unreadable(path, f"cannot be read: {system_reason(error)}")
    except Expanding as error:
        return _unreadable(path, str(error))
    except UnreadableError as error:
        return _unreadable(path, str(error), error.row)
    return TEXT_FORMATS[ending.removesuffix(_PACKED)](str(path), text)


def not_a_file(path: Path) -> str:
    """The fault of a path that is no ordinary file; an empty string for a file. Raises OSError if nothing is there."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISDIR(mode):
        return "this is a folder, not a file"
    kind = {stat.S_IFIFO: "a pipe (FIFO)", stat.S_IFSOCK: "a socket"}.get(stat.S_IFMT(mode), "a device")
    return f"this is {kind}, not a file; write its content into a file first"


def gunzipped(path: Path) -> bytes:
    """The content of a gzip file, at most ``most_bytes``. Raises UnreadableError, Expanding and OSError."""
    size = path.stat().st_size
    most = most_bytes(size)
    try:
        with gzip.open(path) as file:
            data = file.read(most + 1)
    except NO_GZIP as error:
        raise no_gzip(error) from None
    if len(data) > most:
        raise Expanding(size, most)
    return data


def text_of(data: bytes) -> str:
    """UTF-8 bytes as text, without the byte order mark. Raises UnreadableError with the line of the fault."""
    _refuse_wide(data[:200])
    try:
        return data.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _not_utf8(error.start, data[error.start], line) from None


def opened_text(path: Path, newline: str = "") -> io.TextIOWrapper:
    """Open a UTF-8 file, compressed by gzip or not, to be read by line, without its byte order mark.

    With an empty ``newline`` lines end at ``\\n``, ``\\r`` or both, with ``"\\n"`` only there. Line ends are kept.
    Raises UnreadableError for UTF-16 and for a path that is no file, and OSError. Reading raises UnicodeDecodeError,
    whose place ``undecodable`` finds.
    """
    if fault := not_a_file(path):
        raise UnreadableError(fault)
    raw = _opened(path)
    try:
        _refuse_wide(raw.peek(200)[:200])
    except (*NO_GZIP, UnreadableError):
        raw.close()
        raise
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline=newline)


def has_byte_order_mark(path: Path) -> bool:
    """Whether a text file begins with the byte order mark of UTF-8."""
    with _opened(path) as raw:
        return raw.read(len(BOM.encode())) == BOM.encode()


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.name.lower().endswith(_PACKED) else path.open("rb")


def undecodable(path: Path) -> UnreadableError:
    """The error for a file that raised UnicodeDecodeError, with the place where it is not UTF-8."""
    start = 0
    with _opened(path) as raw:
        for line, data in enumerate(raw, start=1):
            try:
                data.decode("utf-8")
            except UnicodeDecodeError as error:
                return _not_utf8(start + error.start, data[error.start], line)
            start += len(data)
    return UnreadableError(f"not UTF-8; {_of_unknown_encoding()}")


def no_gzip(error: Exception) -> UnreadableError:
    """The error for a file that raised one of ``NO_GZIP``."""
    return UnreadableError(f"this is no complete gzip file ({error}); compress it again, or drop {_PACKED}")


def _not_utf8(place: int, byte: int, line: int) -> UnreadableError:
    what = f"not UTF-8 at byte {place} (0x{byte:02x}); {_of_unknown_encoding()}"
    return UnreadableError(what, line)


def _convert(encoding: str) -> str:
    """The advice for a file that probably has this encoding."""
    return f"save the file as UTF-8, such as by: iconv -f {encoding} -t UTF-8 OLD > NEW"


def _of_unknown_encoding() -> str:
    """The advice for a file of unknown encoding."""
    return (
        f"{_convert('WINDOWS-1252')} (that is for western Europe; Cyrillic is often WINDOWS-1251, Japanese SHIFT_JIS, "
        "Chinese GB18030)"
    )


def _refuse_wide(start: bytes) -> None:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or _is_wide(start):
        raise UnreadableError(f"this is UTF-16, not UTF-8; {_convert('UTF-16')}")


def _is_wide(start: bytes) -> bool:
    """Whether every second byte is zero: UTF-16 without a byte order mark."""
    return len(start) >= 8 and not (any(start[::2]) and any(start[1::2])) and any(start)


def _unreadable(path: Path, what: str, row: int | None = None) -> Table:
    return Table(str(path), problems=(Problem(str(path), what, row),))
