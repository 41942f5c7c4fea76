"""The measurements of an audit of token classifiers: figures over words and spans, tables of tags, examples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from gradistill.auditing.model_comparison import FLOOR_SEEDS
from gradistill.auditing.per_example import Columns, Reference, mean_values
from gradistill.auditing.predicted_labels import disagreements, label_pairs
from gradistill.auditing.summary import Audited
from gradistill.auditing.token_loyalty import on_common_words, token_columns, word_confidence
from gradistill.auditing.token_predictions import TokenPredictions, predict_tokens
from gradistill.commands.audit_choice import AuditChoice
from gradistill.commands.audit_measurements import EXAMPLES, timed_part
from gradistill.commands.audit_model import AuditModel
from gradistill.commands.audit_models import AuditModels
from gradistill.commands.row_sample import drawn_rows
from gradistill.data import Collator, Cut, Splits, Task, encode
from gradistill.data.overlap import as_text
from gradistill.data.span_metrics import find_spans
from gradistill.errors import RecipeError
from gradistill.models.random_head import has_head, randomised_head

NOT_DEFINED = (
    "words have a label each: response loyalty, flips, Shapley values, maps, expected gradients, faithfulness, "
    "perturbations and calibration belong to the one label of a text, and are left out"
)
"""The warning about figures that an audit of token classifiers leaves out."""


@dataclass(frozen=True)
class TokenAuditMeasurements:
    """Measures ``models`` on the rows of ``splits``; ``seconds`` gets the time of each part.

    Models are compared on the words that both read. Their tokenizers may differ.
    """

    models: AuditModels
    task: Task
    splits: Splits
    choice: AuditChoice
    seconds: dict[str, float] = field(default_factory=dict)

    def warnings(self) -> list[str]:
        """Warnings about figures that are left out."""
        return [NOT_DEFINED, *(["costs of token classifiers are not measured"] if self.choice.costs else ())]

    def check(self) -> dict[str, Cut]:
        """The number of texts of each split that are cut. Raises RecipeError for parts that are not defined for token
        classifiers, and ModelError for rows that a model cannot read."""
        wanted = {
            "rationale": self.choice.rationale is not None,
            "watched": bool(self.choice.watched),
            "map_checks": self.choice.map_checks,
            "cascade": self.choice.cascade,
        }
        if asked := [name for name, on in wanted.items() if on]:
            raise RecipeError(
                f"{' and '.join(asked)} cannot be measured where each word has a label: they need one label for a "
                "whole text",
                expected="an audit of words without them",
                remedy=f"leave {' and '.join(asked)} out",
            )
        cuts: dict[str, Cut] = {}
        for model in reversed(self.models.every):  # the teacher's counts stay
            for name, rows in self.splits.rows.items():
                encoded = self._encoded(model, rows)
                assert model.reader is not None
                assert model.tokenizer is not None
                model.reader.limits.check(encoded.dataset, model.tokenizer, owner=model.owner)
                cuts[name] = encoded.cut
        return cuts

    def audited(self, output: Path) -> Audited:
        """Measure figures and tables of tags of each student, and write all examples to a file in ``output``."""
        rows = self.splits.rows[self.choice.split]
        floor_rows = drawn_rows(rows, self.choice.floor_rows, self.choice.seed)
        challenge = self.splits.rows[self.choice.challenge] if self.choice.challenge else None
        with timed_part(self.seconds, "predictions"):
            teacher, *students = (
                self._predicted(m, rows) for m in (self.models.teacher, *self.models.students)
            )
            columns = [self._columns(student, teacher, rows) for student in students]
        with timed_part(self.seconds, "floors"):
            floors = [self._floors(student, floor_rows) for student in self.models.students]
        changed = None
        if challenge is not None:
            with timed_part(self.seconds, "challenge"):
                theirs = self._predicted(self.models.teacher, challenge)
                changed = [
                    self._columns(self._predicted(student, challenge), theirs, challenge)
                    for student in self.models.students
                ]
        with (output / EXAMPLES).open("w", encoding="utf-8", errors="backslashreplace") as stream:
            for k, row in enumerate(rows):
                stream.write(json.dumps(self._example(dict(row), k, teacher, students)) + "\n")
        return Audited(
            self.models.names, columns, None, changed, [], floors=floors,
            reference=self._reference(rows, teacher, columns), tables=[self._tables(own, teacher) for own in students],
        )  # fmt: skip

    def _encoded(self, model: AuditModel, rows: Dataset) -> Any:
        assert self.choice.max_length is not None  # set before
        assert model.tokenizer is not None
        return encode(rows, model.tokenizer, self.task, max_length=self.choice.max_length)

    def _predicted(self, model: AuditModel, rows: Dataset) -> TokenPredictions:
        assert model.model is not None
        assert model.tokenizer is not None
        return predict_tokens(model.model, self._encoded(model, rows).dataset, Collator(model.tokenizer))

    def _columns(self, student: TokenPredictions, teacher: TokenPredictions, rows: Dataset) -> Columns:
        student, teacher = on_common_words(student, teacher)
        tags = rows["label"][:]
        known = all(len(row) for row in tags)
        gold = (
            [np.asarray(row)[words] for row, words in zip(tags, teacher.words, strict=True)]
            if known
            else None
        )
        return token_columns(student, teacher, self.task.labels or (), gold)

    def _floors(self, student: AuditModel, rows: Dataset) -> dict[str, float]:
        """The figures of a student with a random head, as the mean over several seeds; empty if its head is not
        known."""
        if not len(rows) or student.model is None or not has_head(student.model):
            return {}
        teacher, drawn = self._predicted(self.models.teacher, rows), []
        for seed in FLOOR_SEEDS:
            with randomised_head(student.model, seed):
                drawn.append(self._columns(self._predicted(student, rows), teacher, rows))
        return mean_values(drawn)

    def _reference(
        self, rows: Dataset, teacher: TokenPredictions, students: list[Columns]
    ) -> Reference | None:
        if self.models.reference is None:
            return None
        return Reference(self._columns(self._predicted(self.models.reference, rows), teacher, rows), students)

    def _tables(self, student: TokenPredictions, teacher: TokenPredictions) -> dict[str, Any]:
        """The confusion of tags, and the share of words with another tag by the teacher's confidence."""
        student, teacher = on_common_words(student, teacher)
        ours, theirs = np.concatenate(student.labels), np.concatenate(teacher.labels)
        return {
            "confusion": label_pairs(ours, theirs, self.task.labels or ()),
            "disagreements": disagreements(ours == theirs, word_confidence(teacher)),
        }

    def _example(
        self, row: dict[str, Any], k: int, teacher: TokenPredictions, students: Sequence[TokenPredictions]
    ) -> dict[str, Any]:
        """One row as an example for the page, with its spans instead of a label."""
        names: Sequence[str] = self.task.labels or ()
        words: Sequence[str] = row[self.task.text_columns[0]]
        tags: Sequence[int] = row["label"]
        example = {
            "index": row["index"],
            "gold": shown_spans(words, [names[int(tag)] for tag in tags]) if len(tags) else None,
            "texts": [as_text(words)],
            "teacher": self._shown(teacher, k, words),
            "students": [],
            "words": _places(words, students=len(students)),
        }
        for student in students:
            ours, theirs = on_common_words(_row(student, k), _row(teacher, k))
            columns = token_columns(ours, theirs, names)
            other = columns["label_count"][0] - columns["label_sum"][0]
            distance = columns["probability_count"][0] - columns["probability_sum"][0]
            example["students"].append({
                **self._shown(student, k, words), "agreement": None, "same_label": bool(other == 0),
                "disagreement": round(float(2 * other + distance), 4),
            })  # fmt: skip
        return example

    def _shown(self, model: TokenPredictions, k: int, words: Sequence[str]) -> dict[str, Any]:
        names = self.task.labels or ()
        tags = word_tags(model.labels[k], model.words[k], len(words), names)
        sure = float(word_confidence(_row(model, k)).min()) if len(model.words[k]) else None
        label = shown_spans(words, [tag or "O" for tag in tags])
        return {"label": label, "confidence": sure and round(sure, 4), "prediction": None}


def word_tags(
    labels: Sequence[int] | np.ndarray, words: Sequence[int] | np.ndarray, count: int, names: Sequence[str]
) -> list[str | None]:
    """The tag of each of ``count`` words; None for words without a token."""
    tags: list[str | None] = [None] * count
    for word, label in zip(words, labels, strict=True):
        tags[int(word)] = names[int(label)]
    return tags


def shown_spans(words: Sequence[str], tags: Sequence[str]) -> str:
    """The spans of a row as text: "Empire State Building (location)"."""
    spans = [f"{' '.join(words[s.start : s.end])} ({s.kind})" for s in find_spans(tags)]
    return "; ".join(spans) or "(no span)"


def _row(model: TokenPredictions, k: int) -> TokenPredictions:
    return TokenPredictions((model.logits[k],), (model.words[k],))


def _places(words: Sequence[str], students: int) -> list[Mapping[str, Any]]:
    """The character offsets of each word in the shown text, without attributions."""
    places, start = [], 0
    for word in words:
        end = start + len(word)
        places.append(
            {"segment": 0, "start": start, "end": end, "teacher": None, "students": [None] * students}
        )
        start = end + 1
    return places
