"""Where the rows of a run are, and how to read them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from gradistill.data.data_source import Source, described_source, is_path, path_text
from gradistill.data.tasks import Task
from gradistill.errors import RecipeError, check_number, check_one_of, check_whole_numbers

LabelKind = Literal["classes", "scores", "multi_label", "tokens"]
"""The kind of the labels: names or ids of classes, numbers to be predicted, any number of labels a row, or a tag for
each word of a row."""


def _as_names(columns: Any) -> Any:
    """Names of columns, with numbers converted to text."""
    if isinstance(columns, list | tuple):
        return tuple(map(_as_names, columns))
    return str(columns) if isinstance(columns, int) and not isinstance(columns, bool) else columns


@dataclass(frozen=True)
class DataChoice:
    """Where the rows are and how to read them.

    ``source`` is a folder, a file, a hub id (``glue/sst2``, ``owner/name:config``), or an object: a ``Dataset``, a
    ``DatasetDict``, a pandas ``DataFrame``, a list of dicts, or a dict of these by split. Without a ``task`` it is
    inferred from the training rows. ``label_column`` and ``text_columns`` are names in the source; ``body.text`` names
    a field of the column ``body``. ``kind`` decides whether numeric labels are ``classes`` or ``scores``.

    Several labels a row are lists in the label column. Otherwise ``label_columns`` names one column of 0 and 1 for
    each label, or ``label_separator`` is the text between the labels in a cell. For words with a BIO2 tag each, the
    text column has lists of words and the label column has lists of tags.

    ``unlabelled`` is a source of more rows without labels (``load_unlabelled``). ``validation_share`` (between 0 and
    1) is the share of the training rows that becomes the validation split, for one file without splits. The rows are
    drawn with ``validation_seed``.

    ``label_map`` names the teacher's output for each class of the data, where their names differ (``align_labels``).
    ``positive`` is the class, of two, that F1 is computed for. The default is the teacher's, or the affirmative one
    (1, yes, true, positive), or else the rarer one.

    ``skip_incomplete`` leaves out rows that lack a text or a label; without it they are refused.

    Raises RecipeError for invalid values.
    """

    source: Source
    task: Task | str | None = None
    label_column: str | None = None
    text_columns: Sequence[str] | None = None
    unlabelled: Source = None
    kind: LabelKind | None = None
    validation_share: float | None = None
    validation_seed: int = 0
    label_map: Mapping[str, str] | None = None
    positive: str | None = None
    label_columns: Sequence[str] | None = None
    label_separator: str | None = None
    skip_incomplete: bool = False

    def __post_init__(self) -> None:
        for name in (
            "label_column",
            "text_columns",
            "label_columns",
        ):  # columns of a frame may be named 0 and 1
            object.__setattr__(self, name, _as_names(getattr(self, name)))
        if self.kind is not None:
            check_one_of(self, "kind", get_args(LabelKind))
        self._check_several()
        if self.validation_share is not None:
            check_number(self, "validation_share", above=0.0, below=1.0)
        pairs = self.label_map
        if pairs is not None and not (
            isinstance(pairs, Mapping)
            and all(isinstance(part, str) for pair in pairs.items() for part in pair)
        ):
            raise RecipeError(
                f"label_map is {pairs!r}",
                expected="a mapping from each label of the data to the name of the teacher's output",
                remedy='for example {"refund": "LABEL_2", "login": "LABEL_0"}',
            )
        check_whole_numbers(self, validation_seed=0)
        check_one_of(self, "skip_incomplete", (False, True))
        if self.validation_seed and self.validation_share is None:
            raise RecipeError(
                f"validation_seed is {self.validation_seed}, and there is no validation_share",
                expected="a share of the training rows that the seed draws",
                remedy="give --validation-share, or leave --validation-seed out",
            )

    def _check_several(self) -> None:
        """Raise RecipeError for options of several labels a row that contradict each other."""
        columns, separator = self.label_columns, self.label_separator
        if columns is None and separator is None:
            return
        named = [name for name in ("label_columns", "label_separator") if getattr(self, name) is not None]
        others = [("kind", self.kind)] if self.kind not in (None, "multi_label") else []
        others += [("label_column", self.label_column)] if columns is not None and self.label_column else []
        if len(named) == 2 or others:
            also = named[1] if len(named) == 2 else f"{others[0][0]} {others[0][1]!r}"
            raise RecipeError(
                f"{named[0]} is given, and {also} too",
                expected="one way to read several labels a row",
                remedy="leave one of them out",
            )
        if columns is not None and (isinstance(columns, str) or len(set(columns)) < 2):
            raise RecipeError(
                f"label_columns is {columns!r}",
                expected="two columns or more, each a 0 or 1 for the label of its name",
                remedy="for example billing,urgent; one column of lists is a label_column",
            )
        if separator is not None and not separator.strip("\n"):
            raise RecipeError(
                f"label_separator is {separator!r}",
                expected="the text between two labels of a row",
                remedy='for example ";"',
            )

    @property
    def label(self) -> str | None:
        """The named label column. Several columns of flags become one; its name is theirs, joined by commas."""
        return self.label_column if self.label_columns is None else ",".join(self.label_columns)

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The named text columns. A single name is one column, not its letters."""
        named = self.text_columns
        return (named,) if isinstance(named, str) else None if named is None else tuple(named)

    @classmethod
    def of(cls, data: DataChoice | Source) -> DataChoice:
        """``data`` itself if it is a choice, else the choice with this source."""
        return data if isinstance(data, DataChoice) else cls(data)

    @property
    def name(self) -> str:
        """The name of the source in run folders and messages."""
        return described_source(self.source)

    def options(self) -> list[str]:
        """The command-line options that give these data."""
        typed = ["--data", self.name]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "source" or value is None:
                continue
            if field.name == "unlabelled":
                value = described_source(value)
            elif value == field.default:
                continue
            if isinstance(value, Mapping):
                value = json.dumps(dict(value), ensure_ascii=False)
            elif isinstance(value, Task):
                value = value.name
            shown = ",".join(value) if isinstance(value, list | tuple) else str(value)
            option = f"--{field.name.replace('_', '-')}"
            typed += [option] if value is True else [option, shown]
        return typed

    @property
    def paths(self) -> tuple[str, ...]:
        """The sources that are paths or hub ids, as text."""
        return tuple(path_text(s) for s in (self.source, self.unlabelled) if is_path(s))
