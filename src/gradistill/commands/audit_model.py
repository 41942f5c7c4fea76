"""A model of an audit: its predictor, labels, tokenizer and prompt."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradistill.auditing.function_predictor import FunctionPredictor
from gradistill.auditing.label_predictor import LabelPredictor, no_and_yes
from gradistill.auditing.mean_predictor import MeanPredictor
from gradistill.auditing.onnx_predictor import OnnxPredictor, model_folder_of, onnx_file
from gradistill.auditing.predictor import ClassifierPredictor, OnProgress, Predictor
from gradistill.auditing.several_predictors import SeveralPredictors
from gradistill.auditing.windowed_predictor import WindowedPredictor
from gradistill.commands.given_models import (
    AnyModel,
    OneModel,
    check_several,
    is_function,
    is_several,
    refuse_prompt_of,
    source_name,
)
from gradistill.commands.text_lengths import (
    DEFAULT_LENGTH,
    OnnxModel,
    TextModel,
    task_length,
    trained_windows,
)
from gradistill.data.label_matching import Match, match_names, match_numbers, numbers_of
from gradistill.data.prompt_template import PromptedTeacher, PromptTemplate, set_template
from gradistill.data.windows import Windows
from gradistill.errors import DataError, ModelError, RecipeError
from gradistill.models.device_map import placed
from gradistill.models.facts import (
    MULTI_LABEL,
    is_token_classifier,
    set_thresholds,
    thresholds_of,
)
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.loading import (
    label_names,
    load_classifier,
    load_config,
    load_tokenizer,
    refuse_other_tasks,
    set_padding,
)
from gradistill.models.model_source import model_folder
from gradistill.models.teacher_loading import AS_IT_IS, TeacherLoading, is_low_precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AuditModel:
    """One model of an audit; ``owner`` is its name in messages.

    ``labels`` are the names of its outputs: None for a score (a regression), ``()`` if only the data name them.
    ``predictor`` reads texts with the model's own tokenizer. ``reader`` holds a PyTorch classifier, None for others.
    ``template`` is the prompt around its texts (``reading``). ``members`` are the models of a mean or of a set with one
    model a label. ``folder`` is then that of the first member that has one.
    """

    owner: str
    name: str
    folder: str
    labels: tuple[str, ...] | None
    predictor: ClassifierPredictor | OnnxPredictor | FunctionPredictor | MeanPredictor | LabelPredictor
    reader: LoadedModel | None = None
    template: str | None = None
    members: tuple[AuditModel, ...] = ()

    @classmethod
    def load(
        cls,
        source: AnyModel,
        owner: str,
        name: str,
        *,
        tokens: bool = False,
        loading: TeacherLoading = AS_IT_IS,
    ) -> AuditModel:
        """Load a classifier, or with ``tokens`` also a token classifier, by the settings in ``loading``.

        Raises ModelError for a model that cannot be loaded.
        """
        given: Any = source
        if is_several(given):
            loading.refuse("a set of several models")
            if isinstance(given, dict):
                return cls._by_label(given, owner, name)
            return cls._mean(given, owner, name)
        if isinstance(given, PromptedTeacher):
            refuse_prompt_of(given.model)
            return replace(cls.load(given.model, owner, name, loading=loading), template=given.template)
        if is_function(given):
            loading.refuse("a function")
            labels = getattr(given, "labels", ())
            known = None if labels is None else tuple(map(str, labels))
            return cls(owner, name, "", known, FunctionPredictor(given, known))
        folder = model_folder(given)
        if not isinstance(given, tuple) and (file := onnx_file(folder)) is not None:
            loading.refuse("an ONNX model")
            home = model_folder_of(file)
            onnx = OnnxPredictor.load(file)
            refuse_other_tasks(folder, load_config(home))
            logger.info(f"{owner}: {file.name} of {home.name or home}")
            return cls(owner, name, str(home), onnx.labels, onnx)
        tokenizer = load_tokenizer(given)
        model, _ = load_classifier(given, loading=loading, tokens=tokens)
        device: Any = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        placed(model, device)
        set_padding(model, tokenizer)
        names = tuple(label_names(model).values())
        known = names if len(names) > 1 else None
        predictor = ClassifierPredictor(model, tokenizer)
        # A model in bfloat16 gives no gradients. No figure of token classifiers needs them.
        without_gradients = is_low_precision(model) and not is_token_classifier(model)
        reader = None if without_gradients else LoadedModel(owner, folder, model)
        return cls(owner, name, folder, known, predictor, reader)

    @classmethod
    def _mean(cls, given: Sequence[OneModel], owner: str, name: str) -> AuditModel:
        """The mean of several models, with the labels of the first model that names any. Raises RecipeError for
        anything but a list of several models, and DataError for different labels."""
        check_several(given)
        models = [cls.load(each, f"{owner} {source_name(each)}", source_name(each)) for each in given]
        classifiers = [model for model in models if not isinstance(model.predictor, FunctionPredictor)]
        several = any(model.multi_label for model in classifiers)
        for model in classifiers[1:]:
            if model.multi_label != classifiers[0].multi_label:
                raise other_kind(model, classifiers[0])
        first = next((model for model in models if model.labels != ()), models[0])
        for model in models:
            if model.labels == () and first.labels:
                raise RecipeError(
                    f"the {model.owner} is a function without labels, and the {first.owner} has "
                    f"{', '.join(first.labels)}",
                    expected="names of its columns, to be paired with those of other models",
                    remedy=f"give the function an attribute labels: {model.name}.labels = (…)",
                )
            model.refuse_other_labels(first.labels, first.owner)
        members = tuple(model.of_several_labels() if several else model for model in models)
        kind = "multi_label" if several else "scores" if first.labels is None else "classes"
        predictor = MeanPredictor(tuple(model.predictor for model in members), kind)
        return cls._of_members(owner, name, first.labels, predictor, members)

    @classmethod
    def _by_label(cls, given: Mapping[str, OneModel], owner: str, name: str) -> AuditModel:
        """A set with one yes-no model for each label. Raises RecipeError for fewer than two labels, and DataError for
        a model that does not predict yes or no."""
        if len(given) < 2:
            raise RecipeError(
                f"a model was given for the label {', '.join(given) or '(none)'} alone",
                expected="one for each of two labels or more",
                remedy="name the others: --teacher LABEL=FOLDER",
            )
        members = []
        for label, each in given.items():
            model = cls.load(each, f"{owner} of {label}", source_name(each))
            members.append(model.ordered(no_and_yes(label, model.labels, model.owner)))
        predictor = LabelPredictor(tuple(model.predictor for model in members))
        return cls._of_members(owner, name, tuple(given), predictor, tuple(members))

    @classmethod
    def _of_members(
        cls,
        owner: str,
        name: str,
        labels: tuple[str, ...] | None,
        predictor: MeanPredictor | LabelPredictor,
        members: tuple[AuditModel, ...],
    ) -> AuditModel:
        """Several models as one, with the folder of the first member that has one, and the prompt that all share."""
        folder = next((model.folder for model in members if model.folder), "")
        templates = {model.template for model in members}
        template = templates.pop() if len(templates) == 1 else None
        return cls(owner, name, folder, labels, predictor, template=template, members=members)

    def of_several_labels(self) -> AuditModel:
        """The model as a multi-label classifier: a function then returns an independent probability a label."""
        if isinstance(self.predictor, FunctionPredictor):
            return replace(self, predictor=replace(self.predictor, multi_label=True))
        return self

    @property
    def model(self) -> PreTrainedModel | None:
        """The PyTorch classifier; None for other models."""
        return None if self.reader is None else self.reader.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The model's tokenizer; None for a function, which reads raw texts, and for several models."""
        if isinstance(self.predictor, FunctionPredictor | SeveralPredictors):
            return None
        return self.predictor.tokenizer

    @property
    def text_model(self) -> TextModel:
        """The model as ``commands.text_lengths`` takes it, to find how many tokens it reads."""
        if self.reader is not None:
            return self.reader
        if isinstance(self.predictor, ClassifierPredictor):  # in bfloat16
            return LoadedModel(self.owner, self.folder, cast(Any, self.predictor.model))
        return OnnxModel(self.owner, self.folder)

    @property
    def multi_label(self) -> bool:
        """Whether the model is a multi-label classifier."""
        return self.predictor.multi_label

    @property
    def token_labels(self) -> bool:
        """Whether the model is a token classifier."""
        return is_token_classifier(self.model)

    @property
    def kind(self) -> str:
        """The kind of model, with an article, for messages."""
        kinds = {
            ClassifierPredictor: "a PyTorch model" if self.reader else "a PyTorch model in bfloat16",
            OnnxPredictor: "an ONNX model",
            FunctionPredictor: "a function",
            MeanPredictor: "the mean of several models",
            LabelPredictor: "a set of models, one a label",
        }
        return kinds[type(self.predictor)]

    def refuse_unknown_tokens(self, largest: int) -> None:
        """Raise ModelError where the ``largest`` id of a text has no row in the embedding matrix."""
        known = None if self.reader is None else self.reader.limits.tokens
        if known is not None and largest >= known:
            raise ModelError(
                f"The tokenizer makes the token id {largest}, and the embedding matrix of {self.name} has "
                f"{known} rows.",
                expected="the tokenizer that the model was trained with",
                remedy="save that tokenizer in the folder of the model",
            )

    def predicting(
        self, max_length: int, on_progress: OnProgress, windows: Windows | None = None
    ) -> Predictor:
        """The predictor for texts cut at ``max_length`` tokens, or read in ``windows``. A function reads whole texts,
        and each of several models the length that it was trained with."""
        if isinstance(self.predictor, FunctionPredictor | SeveralPredictors):
            return replace(self.predictor, on_progress=on_progress)
        shared = {"max_length": max_length, "on_progress": on_progress}
        if isinstance(self.predictor, ClassifierPredictor) and self.reader is not None:
            cutting = replace(self.predictor, classifier=self.reader.probed, **shared)
        else:
            cutting = replace(self.predictor, **shared)
        return cutting if windows is None else WindowedPredictor(cutting, windows)

    def reading(self, columns: Sequence[str], *, multi_label: bool = False) -> AuditModel:
        """The model, prepared for rows with these text columns: its prompt is set, and the members' predictors too.

        Raises RecipeError for a prompt that does not name these columns.
        """
        if self.template is not None and self.tokenizer is not None:
            set_template(self.tokenizer, PromptTemplate.of(self.template, columns))
        if not isinstance(self.predictor, SeveralPredictors):
            return self.of_several_labels() if multi_label else self
        each = multi_label and isinstance(self.predictor, MeanPredictor)
        members = tuple(member.reading(columns, multi_label=each) for member in self.members)
        predictors = tuple(member._as_trained(windows=len(columns) == 1) for member in members)
        if isinstance(self.predictor, LabelPredictor):
            return replace(self, members=members, predictor=replace(self.predictor, predictors=predictors))
        kind = "multi_label" if multi_label else self.predictor.kind
        return replace(
            self, members=members, predictor=replace(self.predictor, predictors=predictors, kind=kind)
        )

    def _as_trained(self, *, windows: bool) -> Predictor:
        """The predictor with the text length, and optionally the windows, that the model was trained with."""
        length = text_length([self], None)
        return self.predicting(length, lambda done: None, trained_windows(self.folder) if windows else None)

    def refuse_other_labels(self, labels: tuple[str, ...] | None, reference: str) -> Match:
        """The position of each of ``labels`` among the model's outputs. Raises DataError for other labels."""
        match = self._match(labels)
        if match is None:
            shown = [", ".join(names) if names else "a score" for names in (labels, self.labels)]
            raise DataError(
                f"The labels of the {reference} and of {self.name} differ.\n"
                f"  {reference}: {shown[0]}\n  {self.name}: {shown[1]}",
                expected="the same names, in any order",
                remedy="take two models of one task, or correct id2label in config.json",
            )
        return match

    def ordered(self, labels: tuple[str, ...] | None) -> AuditModel:
        """The model with its outputs in the order of ``labels``. A PyTorch model is changed in place; it was loaded for
        this object alone. Raises DataError for other labels."""
        match = self.refuse_other_labels(labels, "teacher")
        if isinstance(self.predictor, LabelPredictor):
            return replace(self, labels=labels, members=tuple(self.members[k] for k in match.positions))
        if self.members:
            return replace(
                self, labels=labels, members=tuple(member.ordered(labels) for member in self.members)
            )
        if match.is_identity and self.labels != ():
            return self
        order = None if match.is_identity else match.positions
        if isinstance(self.predictor, FunctionPredictor):
            names = labels if self.labels == () else self.labels
            return replace(self, labels=labels, predictor=replace(self.predictor, labels=names, order=order))
        if isinstance(self.predictor, OnnxPredictor):
            return replace(self, predictor=replace(self.predictor, order=order))
        if isinstance(self.predictor, ClassifierPredictor) and order is not None:
            _reorder(cast(Any, self.predictor.model), order)
        return replace(self, labels=labels)

    def _match(self, labels: tuple[str, ...] | None) -> Match | None:
        if labels is None or not self.labels:
            same = self.labels == labels or self.labels == ()
            return Match(tuple(range(len(labels or (0,))))) if same else None
        if len(labels) != len(self.labels):
            return None
        return match_names(labels, self.labels) or match_numbers(numbers_of(labels), numbers_of(self.labels))


def text_length(models: Sequence[AuditModel], wanted: int | None) -> int:
    """The largest number of tokens of a text, for all of these models (``task_length``). Models without a tokenizer do
    not count: a function reads whole texts, and each of several models the length that it was trained with."""
    readers = [model for model in models if model.tokenizer is not None]
    if not readers:
        return wanted or DEFAULT_LENGTH
    first: Any = readers[0].tokenizer
    return task_length(wanted, first, [model.text_model for model in readers])


def other_kind(model: AuditModel, teacher: AuditModel) -> ModelError:
    """The error for a pair of models of which only one is a multi-label classifier."""
    kinds = (
        ("one label a row", "several labels a row")
        if teacher.multi_label
        else ("several labels a row", "one label a row")
    )
    return ModelError(
        f"{model.name} predicts {kinds[0]}, and the {teacher.owner} predicts {kinds[1]}.",
        expected=f"models of one kind: with the problem_type {MULTI_LABEL} in config.json, or without it",
        remedy="take models of the same task",
    )


def _reorder(model: PreTrainedModel, order: Sequence[int]) -> None:
    """Change a model so that it returns its outputs in another order."""

    def reordered(_model: Any, _inputs: Any, outputs: Any) -> Any:
        outputs["logits"] = outputs["logits"][..., list(order)]
        return outputs

    if (limits := thresholds_of(model)) is not None:
        set_thresholds(model, limits[list(order)])
    model.register_forward_hook(reordered)
