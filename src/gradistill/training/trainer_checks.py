"""Checks of DistillationTrainer's inputs: wrong types, tasks and labels are refused with a clear message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from transformers import TrainingArguments

from gradistill.batch import UNLABELLED, Batch
from gradistill.errors import TrainingError
from gradistill.models.facts import ModelFacts, is_token_classifier
from gradistill.models.head import names_in, some
from gradistill.objectives import Objective, Pair, Term
from gradistill.objectives.term import refuse_idle_steps

_LOADED = "load it with AutoModelForSequenceClassification.from_pretrained(…)"


def refuse_types(given: Mapping[str, Any], teacher: object) -> None:
    """Raise TrainingError for parameters of wrong types. ``given`` are the Trainer's parameters by name."""
    model, args, init = given.get("model"), given.get("args"), given.get("model_init")
    if model is not None and not isinstance(model, nn.Module):
        raise TrainingError(f"`model` is {_named(model)}.", expected="a model in memory", remedy=_LOADED)
    if model is None and not callable(init):
        raise TrainingError(
            "`model` is missing.",
            expected="a student, or model_init=…",
            remedy="pass the student as the first argument",
        )
    if model is not None and init is not None:
        raise TrainingError(
            "`model` and `model_init` are both given.",
            expected="one of the two",
            remedy="leave one of the two out",
        )
    if args is not None and not isinstance(args, TrainingArguments):
        a_teacher = isinstance(args, nn.Module)
        raise TrainingError(
            f"`args` is {_named(args)}.",
            expected="transformers.TrainingArguments as the second argument, as for Trainer",
            remedy="pass the teacher as teacher=…" if a_teacher else "pass args=TrainingArguments(…)",
        )
    if teacher is not None and (isinstance(teacher, type) or not callable(teacher)):
        raise TrainingError(f"`teacher` is {_named(teacher)}.", expected="a model in memory", remedy=_LOADED)
    if given.get("compute_loss_func") is not None:
        raise TrainingError(
            "`compute_loss_func` is given, and DistillationTrainer computes its loss from objectives.",
            expected="objectives only",
            remedy="write an objective of your own, or use Trainer",
        )


def checked_terms(objectives: Any, teacher: object) -> list[Term]:
    """The terms of the loss; bare objectives get weight 1. Raises TrainingError if they or the teacher are missing."""
    if isinstance(objectives, Objective | Term | str | Mapping) or not isinstance(objectives, Iterable):
        raise TrainingError(
            f"`objectives` is {_named(objectives)}.",
            expected="a list of objectives or Terms",
            remedy="pass objectives=[…], such as [HardLabel(), Term(SoftLabel(), 0.5)]",
        )
    terms = [_term(each) for each in objectives]
    if not terms:
        raise TrainingError(
            "`objectives` is empty. DistillationTrainer needs at least one objective.",
            remedy="pass objectives=[…]",
        )
    names = [term.name for term in terms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TrainingError(
            f"`objectives` holds {twice[0]} more than once.",
            expected="each objective once, with one weight",
            remedy="add the weights up",
        )
    if teacher is None and (needing := [term.name for term in terms if term.objective.needs_teacher]):
        raise TrainingError(
            f"`teacher` is missing, and {' and '.join(needing)} cannot run without a teacher.",
            remedy="pass teacher=…",
        )
    refuse_idle_steps(terms)
    return terms


def _term(each: Any) -> Term:
    if isinstance(each, Term):
        return each
    if isinstance(each, Objective):
        if not isinstance(getattr(each, "name", None), str):
            raise TrainingError(
                f"The objective {type(each).__name__} has no name.",
                expected="a class attribute `name`, which logs use",
                remedy=f'write name: ClassVar[str] = "{type(each).__name__.lower()}" into the class',
            )
        return Term(each)
    a_class = isinstance(each, type) and issubclass(each, Objective)
    raise TrainingError(
        f"`objectives` holds {_named(each)}.",
        expected="objectives, such as HardLabel(), or Terms",
        remedy=f"write {each.__name__}()"
        if a_class
        else "import objectives: from gradistill.objectives import HardLabel",
    )


def refuse_kind(role: str, model: Any) -> None:
    """Raise TrainingError for a model whose problem_type objectives do not support, such as several scores."""
    if is_token_classifier(model):
        return
    config = getattr(model, "config", None)
    kind, labels = getattr(config, "problem_type", None), getattr(config, "num_labels", None)
    if kind is None or labels is None:
        return
    fitting = "regression" if labels == 1 else "single_label_classification"
    if kind != fitting and not (kind == "multi_label_classification" and labels > 1):
        raise TrainingError(
            f"The {role} has problem_type {kind!r} and {labels} label{'s' if labels > 1 else ''}, which "
            "DistillationTrainer does not support.",
            expected=f"{fitting!r} with {labels} label{'s' if labels > 1 else ''}",
            remedy="train it with Trainer, or correct config.problem_type if each row has one label",
        )


def refuse_other_pair(pair: Pair) -> None:
    """Raise TrainingError if student and teacher differ in kind: several labels a row or one, tokens or texts."""
    if pair.student.multi_label != pair.teacher.multi_label:
        owners = ("student", "teacher") if pair.student.multi_label else ("teacher", "student")
        raise TrainingError(
            f"The {owners[0]} has problem_type 'multi_label_classification', and the {owners[1]} does not.",
            expected="two models of one kind",
            remedy=f"correct config.problem_type of the {owners[1]}, or choose models of one task",
        )
    if pair.student.token_labels != pair.teacher.token_labels:
        owners = ("student", "teacher") if pair.student.token_labels else ("teacher", "student")
        raise TrainingError(
            f"The {owners[0]} labels tokens, and the {owners[1]} labels whole texts.",
            expected="two models of one kind",
            remedy="choose models of one task",
        )


def refuse_other_outputs(student: Any, teacher: Any, pair: Pair, terms: Iterable[Term]) -> None:
    """Raise TrainingError if student and teacher are the same object. Raise it also if a term compares outputs and the
    models' labels differ in number or in the order of their names."""
    if student is teacher:
        raise TrainingError(
            "`model` is the teacher itself, whose weights are kept.",
            expected="another model",
            remedy="pass student_from_teacher(teacher, layers) or copy.deepcopy(teacher)",
        )
    if not any(_compares_labels(term, pair) for term in terms):
        return
    count, others = pair.student.labels, pair.teacher.labels
    if count != others:
        raise TrainingError(
            f"The student has {count} outputs, and the teacher {others}.",
            expected="the same labels in the same order",
            remedy="load the student with the teacher's num_labels and id2label",
        )
    ours, theirs = ([*names_in(model.config).values()] for model in (student, teacher))
    ordered = [[name.casefold() for name in names] for names in (ours, theirs)]
    if len(ours) == count and ordered[0] != ordered[1] and sorted(ordered[0]) == sorted(ordered[1]):
        raise TrainingError(
            f"The outputs of student and teacher are in different orders: {some(ours)}; {some(theirs)}.",
            expected="the same labels in the same order: outputs are compared by position",
            remedy="set the student's config.id2label and label2id to the teacher's if its head is new, or reorder the "
            "rows of its head",
        )


def _compares_labels(term: Term, pair: Pair) -> bool:
    """Whether a term compares values with an entry for each label, or gradients of a label's logit."""
    one_label_more = replace(pair.teacher, labels=pair.teacher.labels + 1)
    return any(
        signal.second_order or signal.layout(pair.teacher) != signal.layout(one_label_more)
        for signal in term.objective.signals(pair, "teacher").values()
    )


def refuse_labels(batch: Batch, student: ModelFacts) -> None:
    """Raise TrainingError for labels that are not one class id, one score, or a flag for each of several labels."""
    gold: Tensor | None = batch.labels
    labels = student.labels
    if gold is None:
        raise TrainingError(
            "A batch has no labels.",
            expected="a column 'labels' in the training data",
            remedy="rename the label column to 'labels', or use gradistill.data.encode",
        )
    if student.multi_label:
        if gold.shape != (len(batch), labels) or not gold.is_floating_point():
            raise TrainingError(
                f"The labels of a batch are {str(gold.dtype).removeprefix('torch.')}s of the shape "
                f"{tuple(gold.shape)}, and the student has problem_type 'multi_label_classification'.",
                expected=f"a 0.0 or 1.0 for each of {labels} labels",
                remedy="create the rows with gradistill.data.encode, or write such lists",
            )
        return
    if student.token_labels:
        if gold.shape != batch.mask.shape or gold.is_floating_point():
            raise TrainingError(
                f"The labels of a batch are {str(gold.dtype).removeprefix('torch.')}s of the shape "
                f"{tuple(gold.shape)}, and the student labels tokens.",
                expected=f"a class id for each of the {batch.mask.shape[1]} tokens, -100 where there is none",
                remedy="create the rows with gradistill.data.encode",
            )
        return
    if gold.ndim > 1 and not (labels == 1 and gold.shape[1:] == (1,)):
        raise TrainingError(
            f"The labels of a batch have the shape {tuple(gold.shape)}: several labels a row.",
            expected="one class id a row" if labels > 1 else "one score a row",
            remedy="choose one label for each row, or set config.problem_type to multi_label_classification",
        )
    if labels > 1 and gold.is_floating_point():
        raise TrainingError(
            f"The labels of a batch are {str(gold.dtype).removeprefix('torch.')}s, and the student has {labels} "
            "classes.",
            expected="class ids, which are whole numbers",
            remedy="cast them, for example dataset.cast_column('labels', Value('int64'))",
        )


def refuse_strange_classes(batch: Batch, student: ModelFacts, terms: Iterable[Term]) -> None:
    """Raise TrainingError for labels that are no class id of the student, if a term reads labels."""
    gold = batch.labels
    if gold is None or gold.is_floating_point() or not any(map(_reads_labels, terms)):
        return
    if student.labels == 1:
        raise TrainingError(
            "The labels of a batch are whole numbers, and the student predicts one score.",
            expected="scores, which are floats",
            remedy="cast them, for example dataset.cast_column('labels', Value('float32'))",
        )
    strange = ((gold < 0) & (gold != UNLABELLED)) | (gold >= student.labels)
    if not strange.any():
        return
    row = int(strange.flatten(1).any(1).nonzero()[0]) if gold.ndim > 1 else int(strange.nonzero()[0])
    place = f"{row} of a batch" if batch.index is None else f"{int(batch.index[row])} of the training data"
    raise TrainingError(
        f"Row {place} has the label {int(gold[strange][0])}, and the student has {student.labels} classes.",
        expected=f"a class id from 0 to {student.labels - 1}, or {UNLABELLED} where there is no label",
        remedy=f"correct the labels, or write {UNLABELLED} for a missing label",
    )


def _reads_labels(term: Term) -> bool:
    return (term.objective.is_prediction_loss and not term.objective.needs_teacher) or (
        getattr(term.objective, "target", None) == "gold_loss"
    )


def refuse_missing_scores(batch: Batch, terms: Iterable[Term]) -> None:
    """Raise TrainingError for rows without a score or flags, if an objective differentiates the labels' loss."""
    gold = [term.name for term in terms if getattr(term.objective, "target", None) == "gold_loss"]
    if gold and batch.labels is not None and batch.labels.is_floating_point() and batch.labels.isnan().any():
        raise TrainingError(
            f"{gold[0]} differentiates the loss of the labels, and a row of a batch has none (NaN)",
            expected="a label in every row, or another target",
            remedy=f"leave such rows out, or give {gold[0]} the target log_odds and the view all",
        )


def _named(value: object) -> str:
    if isinstance(value, str | int | float | bool | None):
        return repr(value)
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def first_labels(rows: Any, count: int = 2) -> Sequence[Any] | None:
    """The labels of the first ``count`` rows, or None if they cannot be read by index."""
    try:
        return [rows[place]["labels"] for place in range(min(count, len(rows)))]
    except (TypeError, KeyError, IndexError, AttributeError, NotImplementedError):
        return None
