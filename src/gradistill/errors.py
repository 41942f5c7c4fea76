"""One family of errors. Every message states what is wrong, what was expected, and what to do.

The command line turns any of these into exit code 2 and one message without a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf, isfinite
from typing import TypeGuard

REMEDY = "To do: "
"""The start of an error's line with what to do."""

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class GradistillError(Exception):
    """The base class: ``what`` is wrong, what was ``expected`` instead, and the ``remedy``."""

    def __init__(self, what: str, *, expected: str = "", remedy: str = "") -> None:
        self.what, self.expected, self.remedy = what, expected, remedy
        parts = [what.rstrip()]
        if expected:
            parts.append(f"Expected: {expected}")
        if remedy:
            parts.append(f"{REMEDY}{remedy}")
        super().__init__("\n".join(parts))


class ModelError(GradistillError):
    """A model or tokenizer that cannot be loaded, built, or paired."""


class RecipeError(GradistillError):
    """A recipe, an option or a command line that is invalid or cannot be carried out."""


class TrainingError(GradistillError):
    """A reason why training must not start, or must not go on."""


class StoreError(GradistillError):
    """Teacher signals on disk that cannot be trusted, written or found."""


class UnusableStoreError(StoreError):
    """A store that is damaged, or made for something else, and must be replaced."""


@dataclass(frozen=True)
class Problem:
    """One fault of the data, with its place. ``row`` is the line of the file, counted from 1."""

    file: str
    what: str
    row: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        place = self.file
        if self.row is not None:
            place += f", row {self.row}"
        if self.column is not None:
            place += f", column {self.column!r}"
        return f"{place}: {self.what}"


class MissingColumn(Problem):
    """A named column that the data do not have."""


class DataError(GradistillError):
    """Data that cannot be used. ``problems`` has all faults, of which the message lists the first twenty."""

    SHOWN = 20

    def __init__(
        self, what: str, *, problems: Sequence[Problem] = (), expected: str = "", remedy: str = ""
    ) -> None:
        self.summary, self.problems = what, tuple(problems)
        lines = [what, *(f"  - {problem}" for problem in self.problems[: self.SHOWN])]
        if len(self.problems) > self.SHOWN:
            lines.append(f"  … and {len(self.problems) - self.SHOWN} more")
        super().__init__("\n".join(lines), expected=expected, remedy=remedy)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is raised because a device, or this machine, has too little memory.

    On an accelerator torch raises a class of its own, on a CPU a RuntimeError with a message.
    """
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(part in str(error) for part in _NO_MEMORY)
    )


def check_whole_numbers(choice: object, **least: int) -> None:
    """Raise RecipeError if an attribute of ``choice`` is no whole number, or below its value in ``least``.

    None is allowed if it is the default of the class.

    Example: ``check_whole_numbers(AuditChoice(), seed=0, beam=1)``
    """
    for name, low in least.items():
        value = getattr(choice, name)
        if value is None and getattr(type(choice), name, 0) is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise RecipeError(
                f"{name} of {type(choice).__name__} is {value!r}",
                expected=f"a whole number of {low} or more",
                remedy=f"give such a number, or leave {name} out",
            )


def check_one_of(choice: object, name: str, known: Sequence[object]) -> None:
    """Raise RecipeError if an attribute of ``choice`` is not one of the ``known`` values.

    Example: ``check_one_of(AuditChoice(), "rationale_units", ("characters", "words"))``
    """
    value = getattr(choice, name)
    refuse_others(f"{name} is {value!r}", value, known)


def refuse_others(what: str, value: object, known: Sequence[object]) -> None:
    """Raise RecipeError, whose message begins with ``what``, if the value is not one of the ``known`` ones.

    Example: ``refuse_others("--encoding 'zip'", "zip", ("exact", "small"))``
    """
    if value not in known:
        *first, last = map(str, known)
        raise RecipeError(what, expected=f"{', '.join(first)} or {last}", remedy="choose one of them")


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number. Truth values, which are numbers in Python, do not count."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def check_number(
    choice: object,
    name: str,
    *,
    least: float = -inf,
    most: float = inf,
    above: float = -inf,
    below: float = inf,
) -> None:
    """Raise RecipeError if an attribute of ``choice`` is no finite number, or is outside the given limits.

    Example: ``check_number(ExportChoice(), "least_loyalty", least=0.0, most=1.0)``
    """
    value = getattr(choice, name)
    if is_number(value) and least <= value <= most and above < value < below:
        return
    ends = {"of at least": least, "above": above, "of at most": most, "below": below}
    limits = " and ".join(f"{word} {end:g}" for word, end in ends.items() if isfinite(end))
    raise RecipeError(
        f"{name} of {type(choice).__name__} is {value!r}",
        expected=f"a number {limits}",
        remedy=f"give such a number, or leave {name} out",
    )


def check_type(name: str, value: object, kinds: type | tuple[type, ...], expected: str) -> None:
    """Raise RecipeError if the argument ``name`` has none of the types ``kinds``.

    Example: ``check_type("output", "runs/a", (str, Path), "a path")``
    """
    if not isinstance(value, kinds):
        shown = (
            repr(value)
            if isinstance(value, str | int | float | None)
            else f"of the type {type(value).__name__}"
        )
        raise RecipeError(f"{name} is {shown}", expected=expected, remedy=f"pass {name} so")


def nearest(name: object, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the nearest known one, and all known ones."""
    known = sorted(known)
    close = get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(known)}"
