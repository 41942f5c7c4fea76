"""The measurements of an audit: the rows of each part, and the parts in their order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from gradistill.auditing.changed_text_comparison import ChangedTextComparison, Flip, TextRows
from gradistill.auditing.model_comparison import (
    EXPECTED_GRADIENTS_SEEDS,
    FLOOR_SEEDS,
    ModelComparison,
    in_blocks,
)
from gradistill.auditing.per_example import (
    ON_WORDS,
    Columns,
    Reference,
    StudentColumns,
    concatenated,
    mean_values,
)
from gradistill.auditing.perturbations import PERTURBATIONS, perturbed
from gradistill.auditing.predictor import OnProgress, Predictor
from gradistill.auditing.summary import Audited, PerturbationResult
from gradistill.auditing.watched_words import unseen_words
from gradistill.commands.audit_choice import AuditChoice
from gradistill.commands.audit_model import AuditModel
from gradistill.commands.audit_models import AuditModels
from gradistill.commands.row_sample import WORD_POOL_ROWS, drawn_rows
from gradistill.data import Cut, Splits, Task, encode
from gradistill.data.raw_words import row_texts, word_pool, words_of
from gradistill.data.windows import Windows
from gradistill.models.random_head import cascade_parameters, randomised
from gradistill.models.word_neighbours import nearest_words
from gradistill.printing import progress_bars

EXAMPLES = "examples.jsonl"

CHECKED_ROWS = 25
"""Rows on which the teacher's maps are compared with those under random weights."""


@dataclass(frozen=True)
class AuditRows:
    """The rows for each part of an audit. ``splits`` and ``perturbed`` are keyed by split and by perturbation."""

    splits: Mapping[str, Dataset]
    rows: Dataset
    faithful: Dataset
    perturbed: dict[str, Dataset]
    floor: Dataset
    response: Dataset
    shapley: Dataset
    expected_gradients: Dataset
    pool: list[str]

    @classmethod
    def of(cls, splits: Splits, choice: AuditChoice) -> AuditRows:
        rows = splits.rows[choice.split]

        def some(count: int) -> Dataset:
            return drawn_rows(rows, count, choice.seed)

        few = some(choice.perturbed_rows)
        changed = {p.name: perturbed(few, splits.task.text_columns, p, choice.seed) for p in PERTURBATIONS}
        return cls(
            splits.rows, rows, some(choice.faithfulness_rows),
            {name: rows_of_one for name, rows_of_one in changed.items() if len(rows_of_one)}, some(choice.floor_rows),
            some(choice.response_rows), some(choice.shapley_rows), some(choice.expected_gradients_rows),
            word_pool(row_texts(some(WORD_POOL_ROWS), splits.task)),
        )  # fmt: skip


@dataclass(frozen=True)
class AuditMeasurements:
    """Measures ``models`` on ``rows``; ``seconds`` gets the time of each part.

    With ``windows`` texts are read whole. ``long_texts``: some texts have more than one window, so figures that need
    gradients are left out.
    """

    models: AuditModels
    task: Task
    rows: AuditRows
    choice: AuditChoice
    seconds: dict[str, float] = field(default_factory=dict)
    windows: Windows | None = None
    long_texts: bool = False

    def check(self) -> dict[str, Cut]:
        """The number of texts of each split and perturbation that are cut (or read in windows). They are counted for
        the teacher, or else for the first model with a tokenizer. Raises ModelError for rows that a model cannot read,
        and for a cascade through a model whose blocks cannot be told apart."""
        cuts: dict[str, Cut] = {}
        for student in self.models.students if self.choice.cascade else ():
            if student.model is not None:
                cascade_parameters(student.model)  # refuses a model whose blocks cannot be told apart
        for tokenizer in reversed(self.models.tokenizers):  # the first one's counts stay
            cuts = self._cuts(tokenizer)
        return cuts

    def _cuts(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Cut]:
        cuts: dict[str, Cut] = {}
        readers = [model.reader for model in self.models.every if model.tokenizer is tokenizer]
        limits = [(reader.owner, reader.limits) for reader in readers if reader is not None]
        for name, rows in {**self.rows.splits, **self.rows.perturbed}.items():
            for block in in_blocks(rows):
                encoded = encode(block, tokenizer, self.task, max_length=self.max_length)
                for owner, limit in limits:
                    limit.check(encoded.dataset, tokenizer, owner=owner)
                cut = encoded.cut if self.windows is None else encoded.cut.in_windows
                cuts[name] = cuts.get(name, Cut(self.max_length)) + cut
        return cuts

    def warnings(self) -> list[str]:
        """A warning for each chosen part that measures nothing on these rows."""
        choice, warnings = self.choice, []
        if self.task.multi_label and choice.response_rows:
            warnings.append("flips are not measured where a row may have several labels")
        still = [p.name for p in PERTURBATIONS if p.name not in self.rows.perturbed]
        if still and choice.perturbed_rows:
            warnings.append(f"perturbations that change no row are left out: {', '.join(still)}")
        asked = {"rationales": choice.rationale is not None, "watched words": bool(choice.watched)}
        if any(asked.values()) and not any(model.reader for model in self.models.every):
            parts = " and ".join(name for name, chosen in asked.items() if chosen)
            warnings.append(f"{parts} are left out: they need attributions, which none of these models has")
        if unseen := unseen_words(row_texts(self.rows.rows, self.task), choice.watched):
            warnings.append(f"no audited text has these watched words: {', '.join(unseen)}")
        return warnings

    @property
    def max_length(self) -> int:
        """The largest number of tokens of a text."""
        assert self.choice.max_length is not None  # set before
        return self.choice.max_length

    def audited(self, output: Path) -> Audited:
        """Measure all parts that were chosen. Each example is written to a file in ``output`` at once."""
        rows, students = self.rows, len(self.models.students)
        challenge = rows.splits[self.choice.challenge] if self.choice.challenge else None
        sampled, flips = self._sampled()
        with self._part("predictions and attributions", len(rows.rows) * (1 + students)) as done:
            shown = _by_number(flips, rows.response, self.task, students)
            columns = _all_blocks(self._model_comparison(done), rows.rows, shown, output)
        floors, faithful, changed = [{} for _ in range(students)], None, None
        if len(rows.floor):
            with self._part("floors", len(rows.floor) * students * (1 + len(FLOOR_SEEDS))) as done:
                floors = self._model_comparison(done).floors(rows.floor)
        if len(rows.faithful):
            with self._part("faithfulness") as done:
                faithful = self._faithfulness(done)
        checked = drawn_rows(rows.floor, CHECKED_ROWS, self.choice.seed)
        when_random = {}
        if len(checked):
            with self._part("randomised teacher") as done:
                when_random = self._model_comparison(done).when_teacher_is_random(checked, self.choice.seed)
        if challenge:
            with self._part("challenge", len(challenge) * (1 + students)) as done:
                changed = self._model_comparison(done).agreement(challenge)
        with self._part("perturbations", sum(map(len, rows.perturbed.values())) * (1 + students)) as done:
            comparison = self._model_comparison(done)
            perturbations = [
                PerturbationResult(p.name, p.description, comparison.agreement(rows.perturbed[p.name]))
                for p in PERTURBATIONS
                if p.name in rows.perturbed
            ]
        return Audited(
            self.models.names, columns, faithful, changed, perturbations,
            sampled=[part[:students] for part in sampled], floors=floors,
            reference=self._reference(sampled, columns), cascade=self._cascade(), when_random=when_random,
        )  # fmt: skip

    def _sampled(self) -> tuple[list[list[StudentColumns]], list[Flip]]:
        """The figures with floors of their own, for the students and then the reference: response loyalty and flips on
        the same rows, Shapley values, and expected gradients."""
        parts, flips = [], []
        if len(self.rows.response):
            rows = self._texts(self.rows.response)
            with self._part("response loyalty") as done:
                responses = self._changed_text_comparison(done).response(rows)
            parts.append(responses)
            if self.task.labels is not None and not self.task.multi_label:
                with self._part("flips") as done:
                    flipped, flips = self._changed_text_comparison(done).flips(rows)
                parts[0] = [one.joined(other) for one, other in zip(responses, flipped, strict=True)]
        if len(self.rows.shapley):
            with self._part("Shapley values") as done:
                comparison = self._changed_text_comparison(done)
                parts.append(
                    comparison.shapley(self._texts(self.rows.shapley), pairs=self.choice.shapley_pairs)
                )
        if rows := self.rows.expected_gradients:
            passes = 1 + len(self.models.compared) * (1 + len(EXPECTED_GRADIENTS_SEEDS))
            with self._part("expected gradients", len(rows) * passes) as done:
                parts.append(
                    self._model_comparison(done, self.models.every).expected_gradients(rows, self.choice.seed)
                )
        return parts, flips

    def _faithfulness(self, done: OnProgress) -> list[Columns]:
        rows, comparison = self.rows.faithful, self._model_comparison(done)
        words = replace(self._changed_text_comparison(done), students=comparison.students)
        columns = words.faithfulness(self._texts(rows), comparison.word_scores(rows), beam=self.choice.beam)
        if not self.choice.map_checks:
            return columns
        checks = comparison.map_checks(rows, self.choice.seed)
        return [measured | more for measured, more in zip(columns, checks, strict=True)]

    def _reference(
        self, sampled: Sequence[Sequence[StudentColumns]], columns: Sequence[Columns]
    ) -> Reference | None:
        """The figures of the reference and of the students, on the rows for floors and on the rows of ``sampled``."""
        reference, rows = self.models.reference, self.rows
        if reference is None:
            return None
        *students, reference_columns = (
            {name: column for part in sampled for name, column in part[k].columns.items()}
            for k in range(len(columns) + 1)
        )
        if len(rows.floor):
            with self._part("reference", 2 * len(rows.floor)) as done:
                (predictor,) = self._predictors([reference], done, self.long_texts)
                (agreement,) = replace(self._model_comparison(done), students=[predictor]).agreement(
                    rows.floor
                )
            places = np.isin(rows.rows["index"][:], rows.floor["index"][:])
            reference_columns |= agreement
            for student, whole in zip(students, columns, strict=True):
                student |= {name: whole[name][places] for name in (*agreement, ON_WORDS) if name in whole}
        return Reference(reference_columns, students)

    def _cascade(self) -> list[list[dict[str, float]]] | None:
        """Each student's figures with a random head, and then with more and more random blocks from the top."""
        if not self.choice.cascade:
            return None
        with self._part("cascade") as done:
            return [self._cascade_of(k, student, done) for k, student in enumerate(self.models.students)]

    def _cascade_of(self, k: int, student: AuditModel, done: OnProgress) -> list[dict[str, float]]:
        if student.model is None:
            return []
        floor, comparison = self.rows.floor, self._model_comparison(done)
        words = replace(self._changed_text_comparison(done), students=[comparison.students[k]])
        figures_by_step = []
        for parameters in cascade_parameters(student.model):
            by_maps = len(floor) and not self.long_texts
            figures = comparison.when_randomised(k, floor, parameters, seeds=(0,)) if by_maps else {}
            if len(self.rows.response):
                with randomised(student.model, parameters, seed=0):
                    (response,) = words.response(self._texts(self.rows.response))
                figures |= mean_values([response.columns])
            figures_by_step.append(figures)
        return figures_by_step

    def _texts(self, rows: Dataset) -> TextRows:
        return TextRows(row_texts(rows, self.task), rows["index"][:])

    def _model_comparison(self, done: OnProgress, models: Sequence[AuditModel] = ()) -> ModelComparison:
        models = models or [self.models.teacher, *self.models.students]
        teacher, *students = self._predictors(models, done, self.long_texts)
        return ModelComparison(
            teacher, students, self.task, self.choice.method, self.choice.watched, self.rows.pool
        )

    def _predictors(
        self, models: Sequence[AuditModel], done: OnProgress, in_windows: bool = True
    ) -> list[Predictor]:
        windows = self.windows if in_windows else None
        return [model.predicting(self.max_length, done, windows) for model in models]

    def _changed_text_comparison(self, done: OnProgress) -> ChangedTextComparison:
        teacher, *compared = self._predictors(self.models.every, done)
        several = self.task.multi_label
        return ChangedTextComparison(
            teacher, compared, self.rows.pool, self._neighbours, self.choice.seed, several
        )

    @cached_property
    def _neighbours(self) -> dict[str, str]:
        """For each word of the rows for flips, the nearest other word of the data. Empty if there are no flips, or if
        the teacher's embeddings are not known."""
        teacher = self.models.teacher
        if (
            self.task.labels is None
            or self.task.multi_label
            or teacher.model is None
            or teacher.tokenizer is None
        ):
            return {}
        words = {word for texts in row_texts(self.rows.response, self.task) for word in words_of(texts)}
        return nearest_words(teacher.model, teacher.tokenizer, words, self.rows.pool)

    def _part(self, name: str, total: int | None = None) -> AbstractContextManager[OnProgress]:
        return timed_part(self.seconds, name, total, unit="" if total else "predictions")


@contextmanager
def timed_part(
    seconds: dict[str, float], name: str, total: int | None = None, unit: str = ""
) -> Iterator[OnProgress]:
    """Show a progress bar for a part of an audit, which the block advances, and store its duration in ``seconds``.
    ``unit`` names what the bar counts if ``total`` is not known."""
    start = perf_counter()
    with progress_bars() as progress:
        bar = progress.add_task(f"{name}, {unit}" if unit else name, total=total)
        yield lambda rows: progress.advance(bar, rows)
    seconds[name] = perf_counter() - start


def _by_number(flips: Sequence[Flip], rows: Dataset, task: Task, students: int) -> dict[int, dict[str, Any]]:
    """The edits for the examples, by row number. A flip's labels are those of the ``students``, then the reference."""
    names, numbers = task.labels or (), rows["index"][:]
    return {
        numbers[flip.edit.row]: {
            "form": "substitution",
            "texts": list(flip.texts),
            "replaced": [list(word) for word in flip.replaced],
            "teacher": names[flip.edit.new_label],
            "students": [names[label] for label in flip.students[:students]],
        }
        for flip in flips
    }


def _all_blocks(
    comparison: ModelComparison, rows: Dataset, flips: Mapping[int, dict[str, Any]], output: Path
) -> list[Columns]:
    """The columns of each student. Each example is written to a file at once."""
    parts: list[list[Columns]] = []
    with (output / EXAMPLES).open("w", encoding="utf-8", errors="backslashreplace") as stream:
        for block in comparison.blocks(rows):
            parts.append(block.columns)
            for example in block.examples:
                shown = example | ({"flip": flip} if (flip := flips.get(example["index"])) else {})
                stream.write(json.dumps(shown) + "\n")
    return [concatenated(of_one) for of_one in zip(*parts, strict=True)]
