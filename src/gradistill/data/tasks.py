"""Tasks with their columns, labels and metrics: ten known ones, and rules for an inferred one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from gradistill.data.multilabel_metrics import MULTI_LABEL_METRICS, assigned
from gradistill.data.span_metrics import SPAN_F1, TOKEN_METRICS, token_metrics
from gradistill.errors import DataError, RecipeError, nearest

RESERVED = frozenset({"label", "labels", "index"})
"""Column names of the prepared rows, so no text column can have them."""

_WHOLE = re.compile(r"([+-]?(?:0|[1-9]\d{0,17}))(\.0*)?", re.ASCII)
"""A whole number; 01 is not one, but a code."""
_UNSEEN = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff]")
"""Characters without width, as copied text has them. They change no word."""


def label_key(value: object) -> str:
    """The spelling by which labels are compared. Letter case and invisible characters do not matter.

    ``1``, ``1.0`` and ``"1.0"`` have the same one, ``"01"`` has another.
    """
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    text = _UNSEEN.sub("", str(value)).strip()
    whole = _WHOLE.fullmatch(text)
    return str(int(whole[1])) if whole else text.casefold()


@dataclass(frozen=True)
class Task:
    """A text classification or regression task on one text or a pair of texts.

    ``labels`` are the class names in the order of their ids; None means regression. ``select`` is the metric that picks
    the best checkpoint, and becomes the first of the ``metrics``. ``validation`` is the hub's name of the validation
    split. With two classes, the metric ``f1`` is the F1 of the class id ``positive``; with more, ``f1`` is another name
    of ``macro_f1``, the mean over the classes. ``skip_unlabelled`` leaves out rows whose label is -1 or "-" (in SNLI:
    annotators disagree) instead of refusing them. ``multi_label``: a row has any number of the labels, none included;
    each label is a separate yes or no. ``token_labels``: the text is a list of words, each with a label, a BIO2 tag.

    Raises RecipeError if the fields contradict each other.
    """

    name: str
    text_columns: tuple[str, ...]
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    select: str
    validation: str = "validation"
    source: str = ""
    positive: int = 1
    skip_unlabelled: bool = False
    multi_label: bool = False
    token_labels: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(map(self.metric, self.metrics)))
        object.__setattr__(self, "select", self.metric(self.select))
        texts, labels = self.text_columns, self.labels
        if len(texts) not in (1, 2) or len(set(texts)) < len(texts):
            raise self._refused(f"text columns {texts}", "one column, or two different ones")
        if taken := RESERVED.intersection(texts):
            raise self._refused(f"a text column called {min(taken)!r}", "a name that the label does not use")
        if labels is None and (self.multi_label or self.token_labels):
            kind = "a label a word" if self.token_labels else "several labels a row"
            raise self._refused(f"{kind}, and no labels", "the names of its labels")
        if self.token_labels and (self.multi_label or len(texts) != 1):
            raise self._refused("a label a word, and several labels a row or texts", "one list of words")
        if labels is not None and (len(labels) < 2 or len({label_key(x) for x in labels}) < len(labels)):
            raise self._refused(f"labels {labels}", "two or more, which differ in more than letter case")
        if unknown := [metric for metric in self.metrics if metric not in self._possible_metrics()]:
            raise self._refused(f"metric {unknown[0]!r}", f"some of {', '.join(self._possible_metrics())}")
        if self.select not in self.metrics:
            raise self._refused(f"select {self.select!r}", f"one of its metrics: {', '.join(self.metrics)}")
        others = (metric for metric in self.metrics if metric != self.select)
        object.__setattr__(self, "metrics", (self.select, *others))

    def metric(self, name: str) -> str:
        """The name of a metric in this task: ``f1`` is ``macro_f1`` for more than two classes, ``span_f1`` for tags."""
        if self.token_labels:
            return SPAN_F1 if name == "f1" else name
        return "macro_f1" if name == "f1" and (self.num_labels > 2 or self.multi_label) else name

    @property
    def positive_label(self) -> str | None:
        """The class that the metric ``f1`` is computed for; None unless there are two classes."""
        two = self.kind == "classes" and self.num_labels == 2
        return self.labels[self.positive] if two and self.labels else None

    def with_positive(self, label: str) -> Task:
        """The task with another positive class. Raises DataError for an unknown class, or unless there are two."""
        if self.labels is None or self.positive_label is None:
            kind = "scores" if self.labels is None else f"{len(self.labels)} classes"
            kind = {"multi_label": "several labels a row", "tokens": "a tag a word"}.get(self.kind, kind)
            raise DataError(
                f"The positive class {label!r} was named, but the task {self.name!r} has {kind}.",
                expected="a task of two classes: the F1 of more is the mean over all of them (macro_f1)",
                remedy="leave --positive out (positive= in Python)",
            )
        keys = [label_key(name) for name in self.labels]
        if label_key(label) not in keys:
            raise DataError(
                f"There is no label {label!r} to be positive.", remedy=nearest(label, self.labels)
            )
        return replace(self, positive=keys.index(label_key(label)))

    def _possible_metrics(self) -> tuple[str, ...]:
        if self.multi_label or self.token_labels:
            return tuple(MULTI_LABEL_METRICS) if self.multi_label else TOKEN_METRICS
        return tuple(CLASS_METRICS if self.labels is not None else SCORE_METRICS)

    def _refused(self, what: str, expected: str) -> RecipeError:
        remedy = "rename the column, or correct the task"
        return RecipeError(f"Task {self.name!r} has {what}.", expected=expected, remedy=remedy)

    @property
    def problem_type(self) -> str:
        """The ``problem_type`` of a transformers configuration."""
        if self.multi_label:
            return "multi_label_classification"
        return "regression" if self.labels is None else "single_label_classification"

    @property
    def kind(self) -> Literal["classes", "scores", "multi_label", "tokens"]:
        """The kind of the labels: a ``LabelKind`` of ``DataChoice``."""
        if self.token_labels:
            return "tokens"
        return "multi_label" if self.multi_label else "scores" if self.labels is None else "classes"

    @property
    def no_label(self) -> Any:
        """The ``label`` of a row without one.

        It is ``UNLABELLED``, NaN for a score, a NaN for each of several labels, or an empty list of tags.
        """
        from gradistill.batch import UNLABELLED  # imports torch, which reading columns does not need

        if self.token_labels:
            return []
        if self.multi_label:
            return [math.nan] * self.num_labels
        return math.nan if self.labels is None else UNLABELLED

    def labelled(self, labels: Any) -> np.ndarray:
        """Which rows have a label: truth values ``(row,)`` for the column ``label`` of prepared rows."""
        if self.token_labels:
            return np.array([len(tags) > 0 for tags in labels], dtype=bool)
        values = np.asarray(labels)
        if self.multi_label:
            return np.asarray(np.isfinite(values.reshape(-1, self.num_labels)).all(axis=1))
        return np.asarray(np.isfinite(values) if self.labels is None else values >= 0)

    def predicted(self, logits: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """The predictions of logits ``(row, label)``.

        They are class ids, scores ``(row,)``, or flags ``(row, label)`` at ``thresholds`` (½ by default).
        """
        if self.multi_label:
            return assigned(logits, thresholds)
        return np.asarray(logits).reshape(len(logits)) if self.labels is None else logits.argmax(-1)

    @property
    def num_labels(self) -> int:
        """The width of the logits: the number of labels, or 1 for regression."""
        return 1 if self.labels is None else len(self.labels)


def inferred_task(
    text_columns: tuple[str, ...],
    labels: tuple[str, ...] | None,
    source: str,
    *,
    multi_label: bool = False,
    token_labels: bool = False,
) -> Task:
    """A task inferred from the data, with the usual metrics of its kind."""
    if token_labels:
        return Task(
            "inferred", text_columns, labels, TOKEN_METRICS, SPAN_F1, source=source, token_labels=True
        )
    if multi_label:
        metrics = tuple(MULTI_LABEL_METRICS)
        return Task("inferred", text_columns, labels, metrics, metrics[0], source=source, multi_label=True)
    metrics = ("spearman", "pearson") if labels is None else ("accuracy", "f1")  # macro_f1 of more than two
    return Task("inferred", text_columns, labels, metrics, metrics[0], source=source)


def metric_title(name: str, positive: object) -> str:
    """The name of a metric as messages show it: F1 with its class. ``positive`` is None if it is not known."""
    return name if name != "f1" or positive is None else f"f1 ({positive})"


# scipy.stats and sklearn are imported on first use: code that only reads columns does not need them.


def _f1(labels: np.ndarray, predicted: np.ndarray, task: Task) -> float:
    from sklearn.metrics import f1_score

    f1_values = f1_score(labels, predicted, labels=[task.positive], average=None, zero_division=0.0)  # pyright: ignore[reportArgumentType]
    return float(np.asarray(f1_values)[0])


def _accuracy(labels: np.ndarray, predicted: np.ndarray, _: Task) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predicted))


def _matthews(labels: np.ndarray, predicted: np.ndarray, _: Task) -> float:
    from sklearn.metrics import matthews_corrcoef

    one_sided = not np.ptp(labels) or not np.ptp(predicted)  # 0, where scikit-learn warns too
    return 0.0 if one_sided else float(matthews_corrcoef(labels, predicted))


def _spearman(labels: np.ndarray, scores: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return _correlation(spearmanr, labels, scores)


def _pearson(labels: np.ndarray, scores: np.ndarray) -> float:
    from scipy.stats import pearsonr

    return _correlation(pearsonr, labels, scores)


def _macro_f1(labels: np.ndarray, predicted: np.ndarray, _: Task) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, zero_division=0.0, average="macro"))  # pyright: ignore[reportArgumentType]


def _correlation(of: Callable[..., tuple[float, float]], labels: np.ndarray, scores: np.ndarray) -> float:
    if np.ptp(labels) == 0 or np.ptp(scores) == 0:
        return 0.0
    return float(of(labels, scores)[0])


CLASS_METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray, Task], float]] = MappingProxyType(
    {
        "accuracy": _accuracy,
        "f1": _f1,
        "macro_f1": _macro_f1,
        "matthews_correlation": _matthews,
    }
)
SCORE_METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = MappingProxyType(
    {
        "spearman": _spearman,
        "pearson": _pearson,
    }
)


def compute_metrics(
    task: Task, logits: np.ndarray, labels: np.ndarray, thresholds: np.ndarray | None = None
) -> dict[str, float]:
    """The metrics of ``task``, each between -1 and 1; larger is better.

    ``logits`` is (examples, labels), or (examples,) for regression. ``f1`` is the F1 of class ``task.positive``,
    ``macro_f1`` the unweighted mean over classes. A correlation with a constant is 0.0, where scipy returns nan: a
    constant prediction must lose against any other. Scores that are nan stay nan.

    For words with a tag each, ``logits`` are (examples, words, labels) and ``labels`` are (examples, words), −100 where
    there is none.

    For several labels a row, ``labels`` are flags (examples, labels). A label is predicted if its probability is above
    its threshold, ½ by default. ``average_precision`` is the mean over the labels that some row has.
    """
    if task.token_labels:
        return token_metrics(task.labels or (), logits.argmax(-1), labels)
    if task.multi_label:
        flags, predicted = np.asarray(labels) > 0, assigned(logits, thresholds)
        return {name: MULTI_LABEL_METRICS[name](flags, predicted, logits) for name in task.metrics}
    return metrics_of(task, logits if task.labels is None else logits.argmax(-1), labels)


def metrics_of(task: Task, predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """``compute_metrics`` from predicted class ids or scores; not for several labels a row."""
    if task.labels is not None:
        return {name: CLASS_METRICS[name](labels, predicted, task) for name in task.metrics}
    truth = np.asarray(labels, np.float64).reshape(-1)
    scores = np.asarray(predicted, np.float64).reshape(-1)
    return {name: SCORE_METRICS[name](truth, scores) for name in task.metrics}


_NLI = ("entailment", "neutral", "contradiction")
_PAIR = ("sentence1", "sentence2")
_ENTAILS = ("entailment", "not_entailment")
_ACCURACY = ("accuracy",)

_KNOWN = (
    Task(
        "cola",
        ("sentence",),
        ("unacceptable", "acceptable"),
        ("matthews_correlation",),
        "matthews_correlation",
        source="glue/cola",
    ),
    Task("sst2", ("sentence",), ("negative", "positive"), _ACCURACY, "accuracy", source="glue/sst2"),
    Task("mrpc", _PAIR, ("not_equivalent", "equivalent"), ("f1", "accuracy"), "f1", source="glue/mrpc"),
    Task(
        "qqp",
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        ("accuracy", "f1"),
        "accuracy",
        source="glue/qqp",
    ),
    Task("stsb", _PAIR, None, ("spearman", "pearson"), "spearman", source="glue/stsb"),
    Task(
        "mnli",
        ("premise", "hypothesis"),
        _NLI,
        _ACCURACY,
        "accuracy",
        validation="validation_matched",
        source="glue/mnli",
    ),
    Task("qnli", ("question", "sentence"), _ENTAILS, _ACCURACY, "accuracy", source="glue/qnli"),
    Task("rte", _PAIR, _ENTAILS, _ACCURACY, "accuracy", source="glue/rte"),
    Task("wnli", _PAIR, ("not_entailment", "entailment"), _ACCURACY, "accuracy", source="glue/wnli"),
    Task(
        "snli",
        ("premise", "hypothesis"),
        _NLI,
        _ACCURACY,
        "accuracy",
        source="stanfordnlp/snli",
        skip_unlabelled=True,
    ),
)
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _KNOWN})
"""The known tasks by name: nine of GLUE, with the hub's columns and order of labels, and SNLI."""


def get_task(name: str) -> Task:
    """The known task of this name. Raises RecipeError with the nearest name if there is none."""
    if name not in TASKS:
        raise RecipeError(f"There is no task {name!r}.", remedy=nearest(name, TASKS))
    return TASKS[name]
