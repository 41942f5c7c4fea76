"""What a task is: its columns, its labels, its metrics. Ten known ones, and rules for one that is inferred."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from gradistill.errors import RecipeError, nearest

RESERVED = frozenset({"label", "labels", "index"})
"""Column names of the prepared rows, which therefore cannot name a text."""

_WHOLE = re.compile(r"([+-]?\d{1,18})(\.0*)?", re.ASCII)


def label_key(value: object) -> str:
    """One spelling for one label: ``1``, ``1.0`` and ``"1.0"`` are the same; letter case does not matter."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    whole = _WHOLE.fullmatch(text)
    return str(int(whole[1])) if whole else text.casefold()


@dataclass(frozen=True)
class Task:
    """A text classification or regression task on one text or a pair of texts.

    ``labels`` are the class names in the order of their ids; None means regression. ``select`` is the metric
    that picks the best checkpoint. ``validation`` is the hub's name of the split that we call validation.
    ``positive`` is the class id that binary f1 counts. ``skip_unlabelled`` leaves rows out whose label is
    -1 or "-" (SNLI's mark for annotators who disagree) instead of refusing them.

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

    def __post_init__(self) -> None:
        texts, labels = self.text_columns, self.labels
        if len(texts) not in (1, 2) or len(set(texts)) < len(texts):
            raise self._refused(f"text columns {texts}", "one column, or two different ones")
        if taken := RESERVED.intersection(texts):
            raise self._refused(f"a text column called {min(taken)!r}", "a name that the label does not use")
        if labels is not None and (len(labels) < 2 or len({label_key(x) for x in labels}) < len(labels)):
            raise self._refused(f"labels {labels}", "two or more, which differ in more than letter case")
        if unknown := [metric for metric in self.metrics if metric not in self._possible_metrics()]:
            raise self._refused(f"metric {unknown[0]!r}", f"some of {', '.join(self._possible_metrics())}")
        if self.select not in self.metrics:
            raise self._refused(f"select {self.select!r}", f"one of its metrics: {', '.join(self.metrics)}")

    def _possible_metrics(self) -> tuple[str, ...]:
        return tuple(CLASS_METRICS if self.labels is not None else SCORE_METRICS)

    def _refused(self, what: str, expected: str) -> RecipeError:
        remedy = "rename the column, or correct the task"
        return RecipeError(f"Task {self.name!r} has {what}.", expected=expected, remedy=remedy)

    @property
    def problem_type(self) -> str:
        """The word that transformers uses in a model's configuration."""
        return "regression" if self.labels is None else "single_label_classification"

    @property
    def num_labels(self) -> int:
        """Classes, or 1 for regression: the width of the logits."""
        return 1 if self.labels is None else len(self.labels)


def inferred_task(text_columns: tuple[str, ...], labels: tuple[str, ...] | None, source: str) -> Task:
    """A task that nobody named, with the usual metrics of its kind."""
    metrics = ("spearman", "pearson") if labels is None else ("accuracy", "f1")
    return Task("inferred", text_columns, labels, metrics, metrics[0], source=source)


def _f1(labels: np.ndarray, predicted: np.ndarray, task: Task) -> float:
    how = {"pos_label": task.positive} if task.num_labels == 2 else {"average": "macro"}
    return float(f1_score(labels, predicted, zero_division=0.0, **how))  # pyright: ignore[reportArgumentType]


def _correlation(of: Callable[..., tuple[float, float]], labels: np.ndarray, scores: np.ndarray) -> float:
    if np.ptp(labels) == 0 or np.ptp(scores) == 0:
        return 0.0
    return float(of(labels, scores)[0])


CLASS_METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray, Task], float]] = MappingProxyType(
    {
        "accuracy": lambda labels, predicted, _: float(accuracy_score(labels, predicted)),
        "f1": _f1,
        "matthews_correlation": lambda labels, predicted, _: float(matthews_corrcoef(labels, predicted)),
    }
)
SCORE_METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = MappingProxyType(
    {
        "spearman": lambda labels, scores: _correlation(spearmanr, labels, scores),
        "pearson": lambda labels, scores: _correlation(pearsonr, labels, scores),
    }
)


def compute_metrics(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics of ``task``, each between -1 and 1, the larger the better.

    ``logits`` is (examples, labels), or (examples,) for regression. f1 is that of class ``task.positive``
    for two classes and the unweighted mean over classes otherwise. A correlation with something constant
    is 0.0, where scipy says nan: a model that always says the same must lose against any other.
    Scores that are nan stay nan.
    """
    if task.labels is not None:
        predicted = logits.argmax(-1)
        return {name: CLASS_METRICS[name](labels, predicted, task) for name in task.metrics}
    truth = np.asarray(labels, np.float64).reshape(-1)
    scores = np.asarray(logits, np.float64).reshape(-1)
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
    """The known task of that name; raises RecipeError with the nearest one."""
    if name not in TASKS:
        raise RecipeError(f"There is no task {name!r}.", remedy=nearest(name, TASKS))
    return TASKS[name]
