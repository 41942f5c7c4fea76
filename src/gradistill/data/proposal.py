"""A proposal for the label, the texts and the validation rows of a table, with a reason where it is not certain.

``task_inference`` raises an error where it is not certain, before hours of training. Here it becomes a proposal that a
person reads and corrects before training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from gradistill.data.cell_checks import is_missing, number, shown, stands_for_nothing
from gradistill.data.checked_rows import with_problems
from gradistill.data.column_names import LABEL_COLUMNS, TEXT_COLUMNS
from gradistill.data.data_choice import DataChoice
from gradistill.data.data_source import is_path, path_text
from gradistill.data.file_readers import ending_of, stem_of
from gradistill.data.multilabel import holds_flags, joined_labels, several_labels, with_flag_columns
from gradistill.data.raw_words import word_spans
from gradistill.data.split_loading import MANY_INCOMPLETE, read_splits
from gradistill.data.split_sources import Wanted, has_splits, read_source, split_column
from gradistill.data.splits import Splits
from gradistill.data.table import Table, nested_names, with_fields
from gradistill.data.task_inference import MOST_CLASSES, words_and_tags
from gradistill.data.tasks import label_key
from gradistill.data.text_columns import (
    find_text_columns,
    holds_text,
    is_ignored,
    label_candidates,
    label_dependence,
    wordless,
)
from gradistill.data.token_labels import are_tags, holds_lists
from gradistill.errors import DataError, GradistillError

LABEL_WORDS = (
    "category", "categories", "intent", "topic", "topics", "sentiment", "emotion", "emotions", "rating", "stars",
    "grade", "type", "tag", "tags", "kind", "status", "outcome", "verdict", "classification", "severity", "priority",
    "urgency", "department", "queue", "y", "kategorie", "thema", "stimmung", "bewertung", "absicht", "dringlichkeit",
    "abteilung", "catégorie", "thème", "étiquette", "avis", "categoría", "categoria", "etiqueta", "sentimiento",
    "sentimento", "classificação", "etichetta", "カテゴリ", "カテゴリー", "ラベル", "評価", "评价", "类别",
    "标签", "情感",
)  # fmt: skip
"""Names that labels often have, and other columns too."""
JUDGEMENTS = {
    "positive", "negative", "neutral", "pos", "neg", "positiv", "negativ", "positif", "négatif", "positivo", "negativo",
    "good", "bad", "pass", "fail", "passed", "failed", "accepted", "rejected", "approved", "denied", "spam", "ham",
}  # fmt: skip
"""Values of a column that judges a row."""
UNDECIDED = {"unknown", "unverified", "unsure", "maybe", "mixed", "n/a"}
"""Other values that may occur among judgements."""
ORIGINS = {
    "language", "lang", "locale", "channel", "source", "platform", "device", "browser", "version", "country", "region",
    "city", "gender", "sex", "speaker", "author", "user", "agent", "customer", "reviewer", "reporter", "coder",
    "annotator", "rater", "labeler", "labeller", "editor", "owner", "assignee", "store", "branch", "year", "month",
    "weekday", "split", "fold", "kanal", "filiale", "sprache", "quelle", "gerät", "land", "stadt", "kunde", "kundin",
    "bearbeiter", "autor", "geschlecht", "canal", "langue", "pays", "ville", "auteur", "client", "idioma", "país",
    "ciudad", "cliente", "lingua", "paese", "città", "cidade",
}  # fmt: skip
"""Words in the names of columns about where a row comes from."""
SCALES = ("score", "similarity", "rating", "stars", "grade")
"""Names of labels whose numbers have a meaningful order."""
PAIRS = (
    ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2"), ("text_a", "text_b"),
    ("premise", "hypothesis"), ("question", "sentence"), ("question", "passage"), ("question", "context"),
    ("query", "document"), ("query", "passage"),
)  # fmt: skip
"""Names of text columns that form a pair."""
FLAG_COLUMNS = 3
"""So many columns of 0 and 1, without another label, are probably one label each."""
REPEATS = 3
"""How often a class must occur on average."""
MANY_CLASSES, WORDS = 500, 6
"""The most classes of a label, and the most words of their names on average, if each occurs often."""
MOSTLY_NUMBERS = 0.8
"""A label with this share of numbers, some with decimals, is a score; the other values are faults."""
FEW_ROWS, SHARE, SHARE_OF_FEW = 500, 0.1, 0.2
"""``SHARE`` of the rows is taken for validation, but ``SHARE_OF_FEW`` if there are fewer than ``FEW_ROWS``."""

DOUBT = "not certain: "
"""Prefix of a reason that is a doubt."""
_CODES = "ids or codes"
_NO_LABEL = ("dates", "links", _CODES, "the same in every row")
_ENDS = re.compile(r"(\(s\))?[\s?!:.*]*$")
_NAME_WORDS = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+|\d+")


@dataclass(frozen=True)
class Proposal:
    """How to read a source, and why that is not certain.

    ``choice`` has every field that a run needs. ``reasons`` maps a field of ``choice`` to a sentence that explains or
    doubts it. ``splits`` are the rows as a run will read them.
    """

    choice: DataChoice
    reasons: Mapping[str, str]
    splits: Splits

    @property
    def doubts(self) -> tuple[str, ...]:
        """The fields of ``choice`` that are not certain."""
        return tuple(name for name, reason in self.reasons.items() if reason.startswith(DOUBT))

    @property
    def tags_words(self) -> bool:
        """Whether each word has a tag, so that a student predicts tags too."""
        return self.splits.task.kind == "tokens"


def propose(given: DataChoice) -> Proposal:
    """Fill in the fields that ``given`` leaves open. Fields that it sets are kept.

    Raises DataError for a source that cannot be read, that has rows which a run would refuse, or in which no column can
    be the label or the text.

    Example: ``propose(DataChoice("tickets.csv")).choice.label_column``
    """
    source, reasons = _table_source(given)
    choice = replace(given, source=source)
    named = (choice.label_column, *(choice.columns or ()), *(choice.label_columns or ()))
    wanted = Wanted(("train",), ("validation", "test"), tuple(name for name in named if name))
    tables, problems = read_source(source, wanted, None)
    if problems or not tables["train"].columns:
        problems = [*problems, *(p for table in tables.values() for p in table.problems)]
        raise with_problems(f"The data of {choice.name} has", problems, "correct these and start again")
    table = _flat(tables["train"])
    marks = split_column(table) if choice.task is None else None
    marks = None if marks in named else marks
    if marks is not None:
        table = replace(table, columns={k: cells for k, cells in table.columns.items() if k != marks})
    if choice.task is None and (tagged := _tagged_words(choice, table)):
        choice, more = tagged
        reasons |= more
    elif choice.task is None:
        choice, more = _with_label(choice, table)
        reasons |= more
        choice, more = _with_texts(choice, table)
        reasons |= more
    if choice.validation_share is None and "validation" not in tables:
        share = SHARE if len(table.lines) >= FEW_ROWS else SHARE_OF_FEW
        choice = replace(choice, validation_share=share)
        reasons["validation_share"] = "there is no validation split, so these rows are drawn from the others"
    if marks is not None and "validation" not in tables:
        reasons["validation_share"] = (
            f"{DOUBT}the column {shown(marks)} marks the splits, and is not read: make a folder with a file of each, "
            "train.csv, validation.csv and test.csv"
        )
    splits = _read(choice, reasons.get("label_column"))
    if count := sum(splits.incomplete.values()):
        choice = replace(choice, skip_incomplete=True)
        rows = count + sum(map(len, splits.rows.values()))
        reasons["skip_incomplete"] = (
            f"{DOUBT * (count > MANY_INCOMPLETE * rows)}{count:,} of {rows:,} rows lack a text or a "
            "label; without this line they are refused"
        )
    if nothing := [name for name in splits.task.labels or () if stands_for_nothing(name)]:
        before = reasons.get("label_column", DOUBT).removeprefix(DOUBT)
        reasons["label_column"] = (
            f"{DOUBT}{before}{'; ' * bool(before)}{', '.join(map(shown, nothing))} is a label: leave these cells blank "
            "where it means that there is none"
        )
    if choice.positive is None and splits.task.positive_label is not None:
        choice = replace(choice, positive=splits.task.positive_label)
        reasons["positive"] = "F1 is computed for this class: 1, yes, true or positive, or else the rarer one"
    return Proposal(choice, reasons, splits)


def holds_tagged_words(choice: DataChoice) -> bool:
    """Whether the training rows are lists of words with a tag each. Rows that cannot be read are not judged.

    Example: ``holds_tagged_words(DataChoice("wnut17"))``
    """
    if choice.kind is not None or choice.task is not None:
        return choice.kind == "tokens"
    try:
        tables, _ = read_source(choice.source, Wanted(("train",)), None)
        return words_and_tags(tables["train"], choice) is not None
    except (GradistillError, KeyError):
        return False


def _read(choice: DataChoice, guess: str | None) -> Splits:
    """Read the rows that have a text and a label.

    If other rows are refused, the error has the ``guess``: the reason for the choice of the label, if it was chosen.
    """
    try:
        return read_splits(replace(choice, skip_incomplete=True), optional=("test",))
    except DataError as refused:
        if guess is None:
            raise
        raise DataError(
            refused.summary, problems=refused.problems, expected=refused.expected,
            remedy=f"{refused.remedy}. {shown(choice.label_column)} was taken for the label, which is {guess}",
        ) from None  # fmt: skip


def _table_source(given: DataChoice) -> tuple[Any, dict[str, str]]:
    """The source and a reason for it. For a folder with one table that is not named as a split, it is that table."""
    if not is_path(given.source):
        return given.source, {}
    path = Path(path_text(given.source))
    if not path.is_dir():
        return given.source, {}
    if has_splits(path):
        return given.source, {}
    files = [file for file in sorted(path.iterdir()) if file.is_file() and ending_of(file)]
    names = ("train", "validation", "dev", "val", "valid", "test")
    if len(files) == 1 and stem_of(files[0]).partition("-")[0] not in names:
        return str(files[0]), {"source": "the only table in the folder"}
    return given.source, {}


def _flat(table: Table) -> Table:
    """The table with a column for each field of its objects, and without the objects."""
    nested = with_fields(table, nested_names(table))
    columns = {
        name: cells
        for name, cells in nested.columns.items()
        if not any(isinstance(cell, Mapping) for cell in cells)
    }
    return replace(nested, columns=columns)


def _tagged_words(choice: DataChoice, table: Table) -> tuple[DataChoice, dict[str, str]] | None:
    """The choice for lists of words with a tag each, and its reasons; None for other data."""
    columns = words_and_tags(table, choice) if choice.kind != "tokens" else None
    reasons = {}
    if columns is None and choice.kind in (None, "tokens"):
        columns = _likely_tags(table, choice)
        reasons = {"label_column": f"{DOUBT}no column is named like one, but its lists hold BIO2 tags"}
    if columns is None:
        return None
    words, tags = columns
    return replace(choice, text_columns=(words,), label_column=tags, kind="tokens"), reasons


def _likely_tags(table: Table, choice: DataChoice) -> tuple[str, str] | None:
    """A column of lists of words, and one of equally long lists of tags. Columns that the user names must be these."""
    lists = {name: cells for name, cells in table.columns.items() if holds_lists(cells)}
    tagged = [name for name in lists if choice.label in (None, name) and all(map(are_tags, lists[name]))]
    possible = [name for name in choice.columns or lists if name in lists and name not in tagged]

    def as_long(words: str, tags: str) -> bool:
        return all(len(a or ()) == len(b or ()) for a, b in zip(lists[words], lists[tags], strict=True))

    return next(((words, tags) for tags in tagged for words in possible if as_long(words, tags)), None)


def _with_label(choice: DataChoice, table: Table) -> tuple[DataChoice, dict[str, str]]:
    reasons: dict[str, str] = {}
    if choice.label is None:
        choice, reasons = _proposed_label(choice, table)
    if choice.label_columns is not None:
        return replace(choice, kind="multi_label"), reasons
    label = choice.label_column or ""
    if label not in table.columns:
        return choice, reasons  # the reader lists the columns that there are
    if choice.kind in (None, "multi_label") and choice.label_separator is None:
        if joined := joined_labels(table, label):
            reasons["label_separator"] = (
                f"{shown(joined[0])} looks like several labels in one; remove this line where it is one class"
            )
            return replace(choice, label_separator=joined[1]), reasons
        if several_labels(table, label) is not None:
            return replace(choice, kind="multi_label"), reasons
    if choice.kind is None and choice.label_separator is None:
        kind, reason = _kind(table, label)
        choice = replace(choice, kind=kind)
        reasons |= {"kind": reason} if reason else {}
    return choice, reasons


def _proposed_label(choice: DataChoice, table: Table) -> tuple[DataChoice, dict[str, str]]:
    texts = choice.columns or ()
    called = [name for name in table.columns if label_candidates([name.rpartition(".")[2]])]
    if called:
        order = sorted(called, key=lambda name: ("." in name, LABEL_COLUMNS.index(_last(name))))
        others = ", ".join(map(shown, order[1:]))
        reason = {"label_column": f"{DOUBT}{others} may be the label too"} if others else {}
        return replace(choice, label_column=order[0]), reason
    likely = {name: why for name in table.columns if name not in texts and (why := _why_a_label(table, name))}
    flags = [name for name in likely if holds_flags(table.columns[name])]
    rest = [name for name in likely if name not in flags]
    signs = {name: _label_signs(table, name) for name in likely}
    if len(flags) >= FLAG_COLUMNS and not any(signs[name].is_a_labels for name in rest):
        reason = f"{DOUBT}no column is named like a label, and each of these holds 0 or 1"
        also = f"; the label could also be {', '.join(map(shown, rest))}" if rest else ""
        return replace(choice, label_columns=tuple(flags)), {"label_columns": reason + also}
    if not likely:
        raise DataError(
            f"In {table.file} no column looks like a label. Its columns: {', '.join(map(shown, table.columns))}.",
            expected=f"a column called {', '.join(LABEL_COLUMNS)}, or one with few values that occur often",
            remedy="name the label's column with --label-column (label_column= in Python)",
        )
    names = list(likely)
    best = max(names, key=lambda name: (signs[name], names.index(name)))
    others = ", ".join(shown(name) for name in names if name != best)
    also = f"; it could also be {others}" if others else ""
    if signs[best].called_label:
        reason = f"{DOUBT}labels often have this name, and it has {likely[best]}{also}"
    else:
        reason = f"{DOUBT}no column is named like a label, and this one has {likely[best]}{also}"
    return replace(choice, label_column=best), {"label_column": reason}


def _last(name: str) -> str:
    """The part of a column's name that is compared: after the last dot, without "(s)" and punctuation at its end."""
    return _ENDS.sub("", name.rpartition(".")[2].casefold())


def _why_a_label(table: Table, name: str) -> str | None:
    """The reason why a column may be the label; None if it cannot be."""
    values = table.columns[name]
    present = [value for value in values if not is_missing(value)]
    if is_ignored(_last(name)) or _last(name) in TEXT_COLUMNS or len(present) < max(2, 0.9 * len(values)):
        return None
    if any(isinstance(value, list | tuple) for value in present):
        return "lists"
    different = {label_key(value) for value in present}
    most = MANY_CLASSES if _last(name) in LABEL_WORDS else MOST_CLASSES
    few = 2 <= len(different) <= most and len(present) >= REPEATS * len(different)
    without_words = wordless(values)
    few_codes = few and without_words == _CODES  # priorities such as P1
    if without_words in _NO_LABEL and not few_codes:
        return None
    short = _words(values) <= WORDS and 2 <= len(different) <= MANY_CLASSES
    if few or (short and len(present) >= 10 * len(different) and not _numbers(values)):
        return f"{len(different)} values in {len(present)} rows"
    numbers = _numbers(values)
    if numbers and not all(n.is_integer() for n in numbers):
        return "numbers with decimals"
    return None


class _Signs(NamedTuple):
    """Signs that a possible label column is the label, the strongest first."""

    called_label: bool
    no_amount: bool
    no_origin: bool
    complete: bool
    partly_called: bool
    judges: bool
    no_codes: bool
    no_numbers: bool

    @property
    def is_a_labels(self) -> bool:
        """Whether the column's name or its values are typical of a label."""
        return self.called_label or self.partly_called or self.judges


def _label_signs(table: Table, name: str) -> _Signs:
    values = table.columns[name]
    words = [word.casefold() for word in _NAME_WORDS.findall(name.rpartition(".")[2])]
    keys = {label_key(value) for value in values if not is_missing(value)}
    partly_called = not {*words[:1], *words[-1:]}.isdisjoint((*LABEL_WORDS, *LABEL_COLUMNS))
    return _Signs(
        called_label=_last(name) in LABEL_WORDS,
        no_amount=partly_called or all(n.is_integer() for n in _numbers(values)),
        no_origin=ORIGINS.isdisjoint(words),
        complete=not any(map(is_missing, values)),
        partly_called=partly_called,
        judges=keys <= JUDGEMENTS | UNDECIDED and not keys <= UNDECIDED,
        no_codes=wordless(values) != _CODES,
        no_numbers=holds_flags(values) or not _numbers(values),
    )


def _numbers(values: Sequence[Any]) -> list[float]:
    """The numbers of a column that holds only numbers; empty for other columns."""
    parsed = [number(value) for value in values if not is_missing(value)]
    numbers = [n for n in parsed if n is not None and math.isfinite(n)]
    return numbers if len(numbers) == len(parsed) else []


def _no_numbers(values: Sequence[Any]) -> list[Any]:
    """The few values that are no finite numbers, in a column of scores with decimals; empty for other columns."""
    present = [value for value in values if not is_missing(value)]
    numbers = [n for value in present if (n := number(value)) is not None and math.isfinite(n)]
    different = {label_key(value) for value in present}
    repeated = REPEATS * len(different) <= len(present)  # as versions do
    if len(numbers) < MOSTLY_NUMBERS * len(present) or all(n.is_integer() for n in numbers) or repeated:
        return []
    return [v for v in dict.fromkeys(present) if (n := number(v)) is None or not math.isfinite(n)]


def _kind(table: Table, label: str) -> tuple[Any, str]:
    """The kind of a label column with one label a row, and why it is not certain."""
    values = _numbers(table.columns[label])
    if not values and label not in table.class_names and (others := _no_numbers(table.columns[label])):
        return "scores", f"{DOUBT}nearly all are numbers, but not {', '.join(map(shown, others[:3]))}"
    if not values or label in table.class_names:
        return "classes", ""
    if not all(value.is_integer() for value in values):
        return "scores", ""
    different = sorted(set(values))
    span = f"{len(different)} whole numbers from {different[0]:g} to {different[-1]:g}"
    if len(different) > MOST_CLASSES:
        return "scores", f"{DOUBT}{span}; classes where they only name something"
    if different == list(range(len(different))) and _last(label) not in SCALES:
        return "classes", ""  # how classes are numbered
    if len(different) > 2 and _last(label) in SCALES:
        return (
            "scores",
            f"{DOUBT}{span} in a column of this name; classes where their order means nothing",
        )
    if len(different) > 2:
        return "classes", f"{DOUBT}{span}; scores where their order and distance count"
    return "classes", ""


def _with_texts(choice: DataChoice, table: Table) -> tuple[DataChoice, dict[str, str]]:
    if choice.columns is not None:
        return choice, {}
    label = choice.label or ""
    table = with_flag_columns(table, tuple(choice.label_columns or ()))
    left_out: dict[str, str] = {}
    try:
        columns = find_text_columns(table, label)
        texts = columns.texts
        reason = "two texts, read as a pair" if len(texts) == 2 else ""
        if columns.left_out:
            named = ", ".join(f"{shown(name)} ({why})" for name, why in columns.left_out.items())
            left_out["left_out"] = f"not text: {named}"
    except DataError as doubt:
        texts = _likely_texts(table, label)
        if not texts:
            raise
        what = doubt.summary.partition("\n")[0].removeprefix(f"{table.file}: ").removeprefix(f"{table.file} ")
        reason = f"{DOUBT}{what.removesuffix(' No texts are:')}"
    return replace(choice, text_columns=texts), left_out | ({"text_columns": reason} if reason else {})


def _likely_texts(table: Table, label: str) -> tuple[str, ...]:
    """Two columns whose names form a pair, or the column of the longest texts."""
    names = {
        name: _words(table.columns[name])
        for name in table.columns
        if name != label
        and not is_ignored(_last(name))
        and _last(name) not in LABEL_COLUMNS
        and holds_text(table, name)
        and not wordless(table.columns[name])
        and not label_dependence(table, name, label)
    }
    for pair in PAIRS:
        by_name = {_last(name): name for name in names}
        if by_name.keys() >= set(pair):
            return tuple(by_name[name] for name in pair)
    best = max(names, key=lambda name: (names[name], _last(name) in TEXT_COLUMNS), default=None)
    return () if best is None else (best,)


def _words(values: Sequence[Any]) -> float:
    lengths = [len(word_spans(value)) for value in values if isinstance(value, str)]
    return sum(lengths) / max(len(lengths), 1)
