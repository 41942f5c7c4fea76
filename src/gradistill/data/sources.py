"""Where rows come from: a folder, a file, or the hub. Each split becomes one table."""

from __future__ import annotations

import re
from pathlib import Path

import datasets

from gradistill.data.reading import READERS, Table, read_file, read_hub
from gradistill.data.tasks import TASKS, Task
from gradistill.errors import DataError, Problem, nearest

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::([\w.+-]+))?")
_GLUE = "nyu-mll/glue"
_ENDINGS = ", ".join(READERS)


def read_source(
    source: str, splits: tuple[str, ...], task: Task | None
) -> tuple[dict[str, Table], list[Problem]]:
    """The tables of those splits that are there, and a problem for each that is not.

    A local path goes before a hub id of the same name. Raises DataError if ``source`` is neither.
    """
    if not splits:
        raise DataError("No split was asked for.", expected="at least one, such as 'train'")
    path = Path(source)
    try:
        if path.is_dir():
            return _from_folder(path, splits, task)
        if path.exists():
            return _from_file(path, splits), []
    except (OSError, ValueError) as error:
        raise DataError(f"{source!r} cannot be opened: {error}") from None
    if path.suffix.lower() in READERS or not _HUB_ID.fullmatch(source):
        raise DataError(
            f"There is no file or folder {source!r}.",
            expected=f"a folder with train and validation files ({_ENDINGS}), one such file, "
            "or a hub id such as glue/sst2 or owner/name:config",
            remedy="check the path",
        )
    return _from_hub(source, splits, task)


def _split_names(split: str, task: Task | None) -> tuple[str, ...]:
    """What a split may be called: MNLI has two validation splits, of which the matched one counts."""
    if split != "validation":
        return (split,)
    known = (task.validation,) if task else ()
    return tuple(dict.fromkeys((split, *known, "validation_matched")))


def _from_folder(
    folder: Path, splits: tuple[str, ...], task: Task | None
) -> tuple[dict[str, Table], list[Problem]]:
    there = sorted(folder.iterdir())
    usable = [path for path in there if path.suffix.lower() in READERS]
    tables, problems = {}, []
    for split in splits:
        candidates = ([p for p in usable if p.stem == name] for name in _split_names(split, task))
        found = next((paths for paths in candidates if paths), [])
        if len(found) == 1:
            tables[split] = read_file(found[0])
            continue
        if found:
            what = (
                f"the split {split!r} is there more than once: {', '.join(p.name for p in found)}; keep one"
            )
        else:
            listing = ", ".join(p.name for p in there[:20]) or "nothing"
            what = f"there is no {split!r} split ({split} with {_ENDINGS}); the folder holds {listing}"
        problems.append(Problem(str(folder), what))
    return tables, problems


def _from_file(path: Path, splits: tuple[str, ...]) -> dict[str, Table]:
    if path.suffix.lower() not in READERS:
        raise DataError(
            f"{path} is of a kind that cannot be read ({path.suffix or 'no file ending'}).",
            expected=f"a file ending in {_ENDINGS}",
            remedy="save it as CSV with a header line, or as JSONL with one object a line",
        )
    if len(splits) != 1:
        raise DataError(
            f"{path} is one file, but the splits {', '.join(splits)} are needed.",
            expected="a folder with one file for each split",
            remedy=f"put {' and '.join(split + path.suffix for split in splits)} into one folder and name that, "
            "or ask for one split (splits= in Python)",
        )
    return {splits[0]: read_file(path)}


def _hub_address(source: str) -> tuple[str, str | None]:
    match = _HUB_ID.fullmatch(source)
    assert match is not None
    if not source.startswith("glue/"):
        return match[1], match[2]
    config = source.removeprefix("glue/")
    known = [task.source for task in TASKS.values() if task.source.startswith("glue/")]
    if source not in known:
        raise DataError(f"GLUE has no task {config!r}.", remedy=nearest(source, known))
    return _GLUE, config


def _from_hub(
    source: str, splits: tuple[str, ...], task: Task | None
) -> tuple[dict[str, Table], list[Problem]]:
    repository, config = _hub_address(source)
    try:
        loaded = datasets.load_dataset(repository, config)
    except Exception as error:  # the hub client has dozens of kinds, from connection to script
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(
            f"{source!r} is no file or folder here, and the hub did not give it. {cause}",
            expected="a path that exists, or a hub id and a connection to the hub (or its local cache)",
            remedy="check the name and the connection; files of your own go into a folder as train.csv and "
            "validation.csv",
        ) from error
    tables, problems = {}, []
    for split in splits:
        name = next((name for name in _split_names(split, task) if name in loaded), None)
        if name is not None:
            tables[split] = read_hub(f"{source} ({name})", loaded[name])
            continue
        what = f"there is no {split!r} split; the data set has {', '.join(map(str, loaded))}"
        problems.append(Problem(source, what))
    return tables, problems
