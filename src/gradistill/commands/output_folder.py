"""Output folders: which folders and files are ours, and how a result is moved into its folder.

A mark file that parses identifies a folder as ours; file names alone never do. The mark, ``.gradistill.json``, holds
the kind of folder, and a checksum of every file that a finished run or audit wrote there. Folders of versions without
a mark are recognised by the content of another file (``FolderKind.unmarked``).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gradistill.errors import RecipeError
from gradistill.io import (
    checksum_of,
    discard,
    draft_beside,
    drafts_in,
    locked,
    read_object,
    remove_drafts,
    sync_folder,
    synced,
    system_reason,
    write_whole,
)

MARK = ".gradistill.json"
_FORMAT = 1


@dataclass(frozen=True)
class FolderKind:
    """A kind of output folder.

    ``unmarked`` recognises a folder of a version that wrote no mark, and ``files`` matches the names that such a
    version wrote. ``finished`` is the file that only a finished folder has; None where a command always continues.
    """

    name: str
    unmarked: Callable[[Path], bool] = lambda _: False
    files: re.Pattern[str] = re.compile(r"(?!)")
    finished: str | None = None


def check_output(output: Path, kind: FolderKind, *, overwrite: bool = True) -> None:
    """Refuse a folder that holds files of others, or a finished one that is not to be replaced.

    Nothing is written. ``overwrite`` allows a finished one, unless a file of it was changed later: that change would
    be lost. Raises RecipeError.
    """
    with _explained(output):
        if output.exists() and not output.is_dir():
            raise RecipeError(
                f"{output} is a file",
                expected=f"a folder for the {kind.name}",
                remedy="choose another --output",
            )
        present = _present(output)
        if present and not is_ours(output, kind):
            raise RecipeError(
                f"{output} holds files that are no {kind.name} of ours: {', '.join(present[:5])}",
                expected=f"a new or empty folder, or one of an earlier {kind.name}",
                remedy="choose another --output",
            )
        if kind.finished and kind.finished in present:
            if not overwrite:
                raise RecipeError(
                    f"{output} holds a finished {kind.name}",
                    expected="a new folder",
                    remedy="choose another --output, or give --overwrite to replace it",
                )
            _refuse_changed(output, kind)


@contextmanager
def locked_output(output: Path, kind: FolderKind | None = None) -> Iterator[None]:
    """Lock an output folder for this process. With a ``kind``, also remove drafts in it and write its mark file.

    A refused folder is left as it was: a new one is removed again. Raises RecipeError if another process works in the
    folder, if it holds files that are not ours, or if it cannot be written.
    """
    with ExitStack() as stack:
        with _explained(output):
            had = stack.enter_context(locked(output))
        if not had:
            raise RecipeError(
                f"another process is at work in {output}", remedy="wait for it, or choose another --output"
            )
        marked = False
        if kind is not None:
            check_output(output, kind)
            with _explained(output):
                remove_drafts(output)
                marked = _mark_of(output) is None
                if marked:
                    _write_mark(output, kind, _files_of(output, kind))
        try:
            yield
        except Exception:
            if marked and _present(output) == [MARK]:
                (output / MARK).unlink()
            raise


@contextmanager
def draft_folder(output: Path) -> Iterator[Path]:
    """A temporary folder to write a result into. It is removed at the end of the block."""
    draft = draft_beside(output / "result")
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def is_ours(output: Path, kind: FolderKind) -> bool:
    """Whether we wrote the folder, for this kind of output."""
    mark = _mark_of(output)
    return mark[0] == kind.name if mark is not None else kind.unmarked(output)


def put_in_place(draft: Path, output: Path, kind: FolderKind) -> None:
    """Move the content of a draft folder into the output, file by file; the ``finished`` file of the kind comes last.

    An earlier result in the output is removed first. A user's file of the same name is renamed to ``NAME.before``.
    """
    _write_mark(draft, kind, {path: checksum_of(draft / path) for path in _files_below(draft)})
    synced(draft)
    before = _files_of(output, kind)
    if before and _mark_of(output) is None:
        _write_mark(
            output, kind, before
        )  # if the process is killed from here on, this mark lists the files that are left
    for path in sorted(before, key=lambda path: path != kind.finished):
        if _is_as_written(output, path, before):
            (output / path).unlink()
    for part in sorted(draft.iterdir(), key=lambda part: (part.name == kind.finished, part.name != MARK)):
        place = output / part.name
        if part.is_dir() and place.is_dir() and not _files_below(place):
            discard(place)
        elif part.name != MARK and (place.exists() or place.is_symlink()):
            place.rename(_free_name(place))
        part.replace(place)
    sync_folder(output)


def _files_of(output: Path, kind: FolderKind) -> dict[str, str]:
    """Name and checksum of each file that we wrote into a folder of ours."""
    mark = _mark_of(output)
    if mark is not None:
        return dict(mark[1])
    if kind.finished is None or not (output / kind.finished).is_file() or not kind.unmarked(output):
        return {}
    paths = [path for path in output.iterdir() if kind.files.fullmatch(path.name) and path.is_file()]
    return {path.name: checksum_of(path) for path in paths}


def _refuse_changed(output: Path, kind: FolderKind) -> None:
    files = _files_of(output, kind)
    changed = sorted(p for p in files if (output / p).exists() and not _is_as_written(output, p, files))
    if changed:
        raise RecipeError(
            f"{output / changed[0]} was changed after the {kind.name} had written it",
            expected="files as they were written: --overwrite would lose the change",
            remedy="move the file elsewhere, or delete it, and give the command again",
        )


def _is_as_written(output: Path, path: str, files: Mapping[str, str]) -> bool:
    place = output / path
    inside = place.is_file() and place.resolve().is_relative_to(output.resolve())
    return inside and checksum_of(place) == files[path]


def _free_name(place: Path) -> Path:
    names = (f"{place.name}.before{number or ''}" for number in range(10_000))
    return next(free for free in map(place.with_name, names) if not (free.exists() or free.is_symlink()))


def _present(output: Path) -> list[str]:
    """The names in a folder, without drafts of ours that a killed process left."""
    if not output.is_dir():
        return []
    drafts = drafts_in(output)
    return sorted(path.name for path in output.iterdir() if path not in drafts)


def _files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _mark_of(output: Path) -> tuple[str, Mapping[str, str]] | None:
    """The kind and the files of a marked folder; None without a mark file that parses."""
    try:
        mark = read_object(output / MARK)
        kind, files = mark["gradistill"], mark["files"]
    except (OSError, ValueError, KeyError):
        return None
    fits = isinstance(kind, str) and isinstance(files, dict) and mark.get("format") == _FORMAT
    inside = fits and all(_is_inside(path) and isinstance(checksum, str) for path, checksum in files.items())
    return (kind, files) if inside else None


def _is_inside(path: str) -> bool:
    """Whether a path in a mark file stays inside the folder: the file may come from somebody else."""
    return bool(path) and not Path(path).is_absolute() and ".." not in Path(path).parts


def _write_mark(output: Path, kind: FolderKind, files: Mapping[str, str]) -> None:
    mark = {"gradistill": kind.name, "format": _FORMAT, "files": dict(files)}
    write_whole(output / MARK, (json.dumps(mark, indent=1) + "\n").encode())


@contextmanager
def _explained(output: Path) -> Iterator[None]:
    """Raise RecipeError for errors of the system when it finds, reads or makes the folder ``output``."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{output} cannot be used: {system_reason(error)}",
            expected="a folder that can be made and written",
            remedy="choose another --output",
        ) from error
