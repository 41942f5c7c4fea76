"""The student's loyalty on a sample of validation rows: floors before training, and response loyalty after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from gradistill.auditing.changed_text_comparison import ChangedTextComparison, TextRows
from gradistill.auditing.loyalty_measures import loyalty
from gradistill.auditing.per_example import estimates, without_groups
from gradistill.auditing.predictions import Predictions, predict_rows
from gradistill.auditing.predictor import ClassifierPredictor, Predictor
from gradistill.auditing.statistics import Estimate
from gradistill.auditing.windowed_predictor import WindowedPredictor
from gradistill.commands.row_sample import WORD_POOL_ROWS, drawn_rows
from gradistill.data import Collator, Task, encode
from gradistill.data.changed_copies import Copy
from gradistill.data.raw_words import row_texts, word_pool
from gradistill.data.windows import Windows
from gradistill.models.facts import thresholds_of
from gradistill.models.probe import ProbedModel

FLOOR_ROWS = 200
"""The number of rows on which the untrained student is compared with its teacher."""

RESPONSE_ROWS = 50
"""The number of rows for response loyalty; each is predicted 17 times."""


@dataclass(frozen=True)
class LoyaltySample:
    """Measures loyalty on validation rows of a run: ``initial`` before training, ``response`` at any time."""

    teacher: ProbedModel
    tokenizer: PreTrainedTokenizerBase
    task: Task
    rows: Dataset
    max_length: int
    seed: int = 0
    windows: Windows | None = None

    def initial(self, student: ProbedModel) -> dict[str, float]:
        """The loyalties of an untrained student by name. They are the floors of the trained student's loyalties."""
        rows = drawn_rows(self.rows, FLOOR_ROWS, self.seed)
        if self.windows is not None:
            copies = [Copy(texts) for texts in row_texts(rows, self.task)]
            student_predictions, teacher_predictions = (
                Predictions(
                    self._predictor(probed.model).logits(copies)[0],
                    multi_label=self.task.multi_label,
                    thresholds=thresholds_of(probed.model),
                )
                for probed in (student, self.teacher)
            )
            return self._values(student_predictions, teacher_predictions, student.model)
        encoded = encode(rows, self.tokenizer, self.task, max_length=self.max_length).dataset
        teacher_predictions = predict_rows(self.teacher, encoded, Collator(self.tokenizer))
        student_predictions = predict_rows(
            student, encoded, Collator(self.tokenizer), labels=teacher_predictions.labels
        )
        return self._values(student_predictions, teacher_predictions, student.model)

    def _values(self, own: Predictions, taught: Predictions, student: nn.Module) -> dict[str, float]:
        own = own if taught.maps else replace(own, maps=())
        figures = {**loyalty(own, taught).figures, "response": self.response(student)}
        return {name: figure.value for name, figure in figures.items() if figure is not None and figure.n}

    def response(self, student: nn.Module) -> Estimate | None:
        """Response loyalty by replaced words; None if no text has enough words."""
        teacher, student_predictor = (self._predictor(model) for model in (self.teacher.model, student))
        return response_of(teacher, student_predictor, self.rows, self.task, self.seed)

    def _predictor(self, model: nn.Module) -> Predictor:
        """The model as a predictor of texts, in windows if there are any."""
        cutting = ClassifierPredictor(model, self.tokenizer, self.max_length)
        return cutting if self.windows is None else WindowedPredictor(cutting, self.windows)


def response_of(
    teacher: Predictor, student: Predictor, rows: Dataset, task: Task, seed: int
) -> Estimate | None:
    """Response loyalty by replaced words on a sample of ``rows``; None if no text has enough words."""
    sample, pool = (drawn_rows(rows, count, seed) for count in (RESPONSE_ROWS, WORD_POOL_ROWS))
    words = word_pool(row_texts(pool, task))
    comparison = ChangedTextComparison(teacher, [student], words, seed=seed, multi_label=task.multi_label)
    (response,) = comparison.response(TextRows(row_texts(sample, task), sample["index"][:]), masked=False)
    return without_groups(estimates(response.columns, ["response"])).get("response")
