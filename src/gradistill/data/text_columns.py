"""The choice of text columns. Ids, dates, categories and labels under another name are left out, with a reason."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import Any

from gradistill.data.cell_checks import NO_AND_YES, TRUTH_VALUES, all_numbers, is_missing, number, shown
from gradistill.data.column_names import names_labels, names_texts
from gradistill.data.table import Table, nested_names
from gradistill.data.tasks import label_key
from gradistill.data.unspaced_scripts import CHARACTER
from gradistill.errors import DataError

IGNORED_COLUMNS = ("", "id", "idx", "index", "guid", "uid", "rationale")
"""Columns that are never a text. The one without a name is the row number that some tools write first."""
_ROW_INDEX = re.compile(r"__index_level_\d+__")
"""The name that pandas gives to an index without a name in a Parquet file."""
NAME_TEXTS = "name the text column, or two of them, with --text-columns (text_columns= in Python)"

FEWEST_ROWS = 5
"""With fewer rows a pattern in a column means nothing."""
SAMPLE = 5000
"""The most values that the patterns are tested on: as good as all of them."""
MOST = 0.95
"""The share of the values that must fit a pattern."""
REPEATS = 3
"""How often a value, or a label, must occur on average before a dependence between them counts."""
ALIKE = 0.98
"""A column is the label under another name if it agrees with the label in this share of rows."""
FEW_VALUES, FEW_WORDS = 50, 3
"""A category has at most so many values, of at most so many words on average, and ten rows a value."""
PHRASE_WORDS, PHRASE_ROWS = 8, 30
"""A category's values may have so many words on average, as departments have, if there are so many rows a value."""
NAME_WORDS = 4
"""A person or place has a name of at most so many words, each with a capital."""

FEW_WITH_ONE_LABEL = "few values, and one label for each"

_CODE = re.compile(r"(?=.*\d)[!-~]+|[0-9a-f]{8,}", re.IGNORECASE)
_LINK = re.compile(r"(?:[a-z][a-z0-9+.-]{1,9}://|www\.)\S+|[^\s@]+@[^\s@]+\.[^\s@]+", re.IGNORECASE)
_FLAGS = frozenset(chain.from_iterable((*TRUTH_VALUES, *NO_AND_YES)))
_DATE_WORDS = frozenset({
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "mon", "tue", "tues", "wed",
    "thu", "thur", "thurs", "fri", "sat", "sun", "am", "pm", "utc", "gmt", "z", "t", "est", "edt", "cst", "cdt",
    "mst", "mdt", "pst", "pdt", "cet", "cest", "bst", "st", "nd", "rd", "th", "at", "of",
})  # fmt: skip
_DIGITS = re.compile(r"\d+")
_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class TextChoice:
    """The text columns, and the reason why each other column is not one."""

    texts: tuple[str, ...]
    left_out: Mapping[str, str]


def is_ignored(column: str) -> bool:
    """Whether a column is never a text, by its name.

    Example: ``is_ignored("Id")``
    """
    return column.casefold() in IGNORED_COLUMNS or bool(_ROW_INDEX.fullmatch(column))


def label_candidates(columns: Iterable[str]) -> list[str]:
    """The columns with a usual name of labels."""
    return [name for name in columns if names_labels(name)]


def find_text_columns(table: Table, label_column: str) -> TextChoice:
    """The one or two columns of text, in the order of the file. Raises DataError if they are not certain.

    A column without words (ids, dates, links, numbers, one value throughout) is never a text. Nor is one that follows
    from the label or gives it away (its name, its number, a finer or a coarser class). Any other category may be half
    of a pair, so the user must name the columns. Single words and running numbers are texts if there is nothing better.
    """
    others = [name for name in table.columns if name != label_column]
    kinds = {name: _kind(table, name, label_column) for name in others}
    texts = [name for name in others if kinds[name].kind == "text"]
    texts = texts or [name for name in others if kinds[name].kind == "weak"]
    categories = [name for name in others if kinds[name].kind == "category"]
    candidates = [name for name in others if _may_be_text(table, name)]
    if not texts and len(candidates) == 1 and (categories or names_texts(candidates[0])):
        texts, categories = candidates, []
    if rivals := label_candidates([*texts, *categories]):
        # It may be the label in words: as a text it would give the label away.
        raise DataError(f"{table.file}: is {rivals[0]!r} a text, or another label?", remedy=NAME_TEXTS)
    left_out = {name: kinds[name].reason for name in others if name not in texts}
    if len(texts) == 1 and categories:
        raise _is_it_a_pair(table, texts[0], categories[0], left_out[categories[0]])
    if names := _column_of_names(table, texts):
        other = next(name for name in texts if name != names)
        raise _is_it_a_pair(table, other, names, "a few capitalised words, as names have")
    if len(texts) not in (1, 2):
        raise _no_choice(table, label_column, texts, left_out)
    return TextChoice(tuple(texts), left_out)


@dataclass(frozen=True)
class _Kind:
    """``kind`` is ``none`` (no text), ``category``, ``weak`` (a text if there is no better one) or ``text``."""

    kind: str
    reason: str = ""


def _kind(table: Table, name: str, label_column: str) -> _Kind:
    values, called_text = table.columns[name], names_texts(name)
    reason = _no_text(table, name) or label_dependence(table, name, label_column)
    if reason and not (reason == FEW_WITH_ONE_LABEL and called_text):
        return _Kind("none", reason)
    if not called_text and (reason := _category(values)):
        return _Kind("category", reason)
    if not called_text and (reason := _weak_text(values)):
        return _Kind("weak", reason)
    return _Kind("text")


def _may_be_text(table: Table, name: str) -> bool:
    return not is_ignored(name) and holds_text(table, name)


def _column_of_names(table: Table, texts: Sequence[str]) -> str | None:
    """The one of two text columns that holds names of people or places, where the other does not."""
    if len(texts) != 2:
        return None
    named = [name for name in texts if not names_texts(name) and _are_names(table.columns[name])]
    return named[0] if len(named) == 1 else None


def _are_names(values: Sequence[Any]) -> bool:
    """Whether almost all values are a few capitalised words. Scripts without capitals have none."""
    sample = _sample(values)
    return len(sample) >= FEWEST_ROWS and _mostly(sample, _is_name)


def _is_name(value: str) -> bool:
    words = value.replace(",", " ").split()
    return len(words) <= NAME_WORDS and all(word[0].isupper() for word in words) and value[-1] not in "!?"


def _is_it_a_pair(table: Table, text: str, category: str, reason: str) -> DataError:
    pair = [name for name in table.columns if name in (text, category)]
    return DataError(
        f"{table.file}: is {category!r} ({reason}) half of a pair with {text!r}, or no text?",
        expected="texts that differ from row to row, or the names of the text columns",
        remedy=f"name the text columns: --text-columns {_option(text)}, or --text-columns {_option(*pair)} "
        "(text_columns= in Python)",
    )


def _option(*names: str) -> str:
    listed = ",".join(names)
    return listed if re.fullmatch(r"[\w,.-]+", listed) else repr(listed)


def _no_choice(
    table: Table, label_column: str, texts: Sequence[str], reasons: Mapping[str, str]
) -> DataError:
    counted = (
        f"{len(texts)} columns of text: {', '.join(map(shown, texts))}" if texts else "no column of text"
    )
    no_texts = "".join(f"\n  - {shown(name)}: {reason}" for name, reason in reasons.items())
    return DataError(
        f"{table.file} has {counted}.{' No texts are:' + no_texts if no_texts else ''}",
        expected=f"one or two{f' besides the label {label_column!r}' if label_column else ''}, among the columns "
        + ", ".join(map(shown, table.columns)),
        remedy=NAME_TEXTS,
    )


def holds_text(table: Table, column: str) -> bool:
    """Whether a column holds texts, and not numbers or class ids."""
    values = table.columns[column]
    if not table.typed:
        return not all_numbers(values)
    return column not in table.class_names and any(isinstance(value, str) for value in values)


def wordless(values: Sequence[Any]) -> str | None:
    """Why a column holds no words: ids, dates, links, yes or no, numbers, one value throughout; None where it does."""
    sample = _sample(values)
    if len(sample) < FEWEST_ROWS:
        return None
    if all(value == sample[0] for value in _filled(values)):
        return "the same in every row"
    for reason, fits in _WORDLESS.items():
        if _mostly(sample, fits):
            return reason
    return None


def _filled(values: Iterable[Any]) -> Iterator[str]:
    """The texts among cells, without blanks around them."""
    return (text for value in values if isinstance(value, str) and (text := value.strip()))


def _sample(values: Sequence[Any]) -> list[str]:
    """At most ``SAMPLE`` of the texts, from all over the column: a list of all may not fit into memory."""
    count = sum(1 for _ in _filled(values))
    return [*islice(_filled(values), 0, None, -(-count // SAMPLE) or 1)]


def _is_date(value: str) -> bool:
    """Whether a text has digits, and no letters but those of months, days, time zones."""
    digits = _DIGITS.findall(value)
    return (
        len(value) <= 40
        and (len(digits) > 1 or any(len(part) in (4, 8) for part in digits))
        and all(word.casefold() in _DATE_WORDS for word in _LETTERS.findall(value))
        and (len(digits) > 2 or bool(_LETTERS.search(value)) or ":" in value)
    )


_WORDLESS = {
    "numbers": lambda value: (n := number(value)) is not None and math.isfinite(n),
    "dates": _is_date,
    "links": lambda value: bool(_LINK.fullmatch(value)),
    "ids or codes": lambda value: bool(_CODE.fullmatch(value)),
    "yes or no": lambda value: value.casefold() in _FLAGS,
}


def _mostly(values: Sequence[str], fits: Any) -> bool:
    allowed = math.floor(len(values) * (1 - MOST))
    misses = 0
    for value in values:
        misses += not fits(value)
        if misses > allowed:
            return False
    return True


def _no_text(table: Table, column: str) -> str | None:
    if is_ignored(column):
        return "named like a row number or mark"
    if column in table.class_names:
        return "class ids"
    if fields := nested_names(replace(table, columns={column: table.columns[column]})):
        return f"objects with the fields {', '.join(map(shown, fields[:5]))}"
    if not holds_text(table, column):
        return "no text in any row" if all(map(is_missing, table.columns[column])) else "numbers, or no texts"
    return wordless(table.columns[column])


def _weak_text(values: Sequence[Any]) -> str | None:
    """Why a column is a text only if there is no better one; None if it is a good one."""
    if 2 * (blank := sum(map(is_missing, values))) > len(values):
        return f"empty in {blank} of {len(values)} rows"
    sample = _sample(values)
    if len(sample) < FEWEST_ROWS:
        return None
    if _mostly(sample, lambda value: not any(map(str.isspace, value)) and not CHARACTER.search(value)):
        return "single words"
    frames = Counter(_DIGITS.sub("#", value) for value in sample)
    frame, count = frames.most_common(1)[0]
    if "#" in frame and len(frame.split()) <= FEW_WORDS and count >= MOST * len(sample):
        return "running numbers"
    return None


def _category(values: Sequence[Any]) -> str | None:
    counts: Counter[str] = Counter()
    for value in _filled(values):
        counts[value] += 1
        if len(counts) > FEW_VALUES:
            return None
    different = [*counts]
    if not different or counts.total() < 10 * len(different):
        return None
    most = PHRASE_WORDS if counts.total() >= PHRASE_ROWS * len(different) else FEW_WORDS
    if sum(len(value.split()) for value in different) > most * len(different):
        return None
    return f"{len(different)} different values"


def label_dependence(table: Table, column: str, label_column: str) -> str | None:
    """How a column with few values and the label follow from each other; None if they do not, or for free text.

    Unique values determine everything. So only repeated values show that a column is the label in other words.
    """
    if label_column not in table.columns:  # a split without labels
        return None
    if _are_unique(table.columns[column]):  # before spellings are unified
        return None
    pairs = [
        (label_key(value), label_key(label))
        for value, label in zip(table.columns[column], table.columns[label_column], strict=True)
        if not is_missing(value) and not is_missing(label) and isinstance(value, Hashable)
    ]
    rows, values = len(pairs), {value for value, _ in pairs}
    if rows < FEWEST_ROWS or rows < REPEATS * len(values) or len(values) < 2:
        return None
    labels = {label for _, label in pairs}
    if values <= labels and not all(number(value) is not None for value in values):
        return "the names of the labels"
    if len(values) == len(labels) and min(_purity(pairs), _purity((b, a) for a, b in pairs)) >= ALIKE:
        return "one value for each label"
    few_words = sum(len(value.split()) for value in values) <= FEW_WORDS * len(values)
    if len(labels) > 1 and (few_words or len(values) <= 2 * len(labels)) and _purity(pairs) == 1:
        return FEW_WITH_ONE_LABEL
    backward = rows >= REPEATS * len(labels) and len(values) < len(labels)
    if backward and _purity((label, value) for value, label in pairs) == 1:
        return "it follows from the label"
    if _in_steps(pairs, len(values)):
        return "it follows from the score"
    return None


def _are_unique(values: Sequence[Any]) -> bool:
    """Whether hardly any value of a column is repeated, or it has hardly any values."""
    count, different = 0, set()
    for value in values:
        if isinstance(value, Hashable) and not is_missing(value):
            count += 1
            different.add(hash(value))  # a long text is larger
            if REPEATS * len(different) // 2 > len(values):
                return True
    return count < max(FEWEST_ROWS, REPEATS * len(different) // 2)


def _purity(pairs: Iterable[tuple[str, str]]) -> float:
    """The share of rows whose second value is the most frequent one for their first value."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for first, second in pairs:
        counts[first][second] += 1
    rows = sum(map(Counter.total, counts.values()))
    return sum(max(beside.values()) for beside in counts.values()) / rows


def _in_steps(pairs: Sequence[tuple[str, str]], different: int) -> bool:
    """Whether each value of a column covers one range of scores. There must be more different scores than values."""
    scores = [(n, value) for value, label in pairs if (n := number(label)) is not None and math.isfinite(n)]
    if len(scores) < len(pairs) or different >= len({n for n, _ in scores}):
        return False
    scores.sort()
    changes = sum(a[1] != b[1] for a, b in pairwise(scores))
    return changes == different - 1
