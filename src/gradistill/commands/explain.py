"""Explain one prediction: signed Integrated Gradients, word by word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradistill.attribution.adaptive_quadrature import integrated_to_tolerance
from gradistill.attribution.quadrature import IntegrationResult, integrated_in_steps
from gradistill.auditing.onnx_predictor import onnx_file
from gradistill.batch import Batch
from gradistill.commands.recorded_data import data_record
from gradistill.commands.text_lengths import task_length
from gradistill.data.cell_checks import shown, text_fault
from gradistill.data.collator import Collator
from gradistill.data.multilabel_metrics import assigned
from gradistill.data.tokenization import refuse_no_room
from gradistill.data.word_scores import WordScore, words_from_pieces
from gradistill.errors import DataError, ModelError, RecipeError, check_type
from gradistill.models.eval_mode import frozen_eval
from gradistill.models.facts import is_multi_label, thresholds_of
from gradistill.models.input_limits import check_readable
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.loading import label_names, load_classifier, load_tokenizer, set_padding
from gradistill.models.model_source import ModelSource, model_folder, model_name
from gradistill.models.probe import ProbedModel
from gradistill.printing import log_filter
from gradistill.report.terminal import Explanation
from gradistill.signals.baselines import IN_ONE_TEXT, Baseline, baseline_embeddings, check_baseline
from gradistill.signals.explained import EXPLAINED_TARGET, explained_labels, explained_pass

TOLERANCE, MAX_NODES = 1e-3, 400
"""The completeness residual, as a share of ``|F(E) − F(baseline)|``, at which no nodes are added; and their limit."""


def explain(
    model: ModelSource,
    texts: str | Sequence[str],
    *,
    label: str | None = None,
    steps: int | None = None,
    baseline: Baseline = "padding",
    max_length: int | None = None,
) -> Explanation:
    """The words that support the predicted label, by Integrated Gradients of its log-odds.

    In a regression words support a higher prediction. For a multi-label classifier the top label is explained. A
    fine-tuned encoder may change its prediction within a narrow part of the path, from a zero baseline more than from
    padding. Without ``steps`` nodes are added there, at most 400, until the relative completeness residual is at most
    a thousandth.

    Parameters:
        ``model``: a folder, a hub id, or a pair ``(model, tokenizer)``, which stays as it is.
        ``texts``: one text, or the two of a pair.
        ``label``: another label to explain.
        ``steps``: Gauss–Legendre steps; by default nodes are added as needed.
        ``baseline``: where the path starts: the same text with ``padding`` or the ``mask`` token in place of its
            words, or ``zero`` embeddings.
        ``max_length``: the most tokens to read; by default as the model was trained (``commands.text_lengths``).

    Raises DataError for another number of texts, ModelError for an ONNX model, and RecipeError for a label that the
    model does not have, and a ``max_length`` without room for a word.

    Example: ``explain("runs/student", ["The company rose 3 %.", "Shares fell."]).words``
    """
    texts = [texts] if isinstance(texts, str) else texts
    _check_texts(texts)
    check_baseline(baseline, IN_ONE_TEXT)
    _refuse_onnx(model_folder(model))
    _refuse_other_number(model_folder(model), len(texts))
    tokenizer = load_tokenizer(model)
    classifier, _ = load_classifier(model)
    set_padding(classifier, tokenizer)
    name = model_folder(model) or model_name(model)
    with log_filter(lambda record: False):
        length = task_length(max_length, tokenizer, [LoadedModel("model", name, classifier)])
    refuse_no_room(tokenizer, len(texts), length)
    read = _ReadText.of(texts, tokenizer, length)
    check_readable(classifier, read.rows, tokenizer)
    batch = Batch.of(read.encoding, mask_token_id=Collator(tokenizer).mask_token_id)
    with frozen_eval(classifier):
        attributed, logits, explained_label = _attributed(classifier, batch, baseline, label, steps)
    rule = "adaptive Simpson nodes" if steps is None else "Gauss–Legendre steps"
    return Explanation(
        model=name,
        texts=tuple(texts),
        words=read.words(attributed.attributions[0].sum(-1)),
        method=f"integrated gradients, {int(attributed.nodes)} {rule}, {baseline} baseline",
        residual=float(attributed.residuals),
        cut=(length, read.whole) if read.whole > length else None,
        **_predicted(classifier, logits, explained_label),
    )


@dataclass(frozen=True)
class _ReadText:
    """An encoded text or pair: token ids as tensors, the character offsets of each token, and the number of tokens of
    the whole text."""

    texts: Sequence[str]
    encoding: Any
    offsets: list[tuple[int, int]]
    whole: int

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> _ReadText:
        encode: Any = tokenizer
        for text in texts:
            if not encode(text, add_special_tokens=False)["input_ids"]:
                raise DataError(
                    f"The tokenizer makes no token of the text {shown(text)}.",
                    expected="a text with words that it reads",
                )
        whole = len(encode(*texts, truncation=False, verbose=False)["input_ids"])
        encoding = encode(
            *texts,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        offsets = [(start, end) for start, end in encoding.pop("offset_mapping")[0].tolist()]
        return cls(texts, encoding, offsets, whole)

    @property
    def rows(self) -> Dataset:
        """The model's inputs, as a dataset with one row."""
        names = ("input_ids", "token_type_ids")
        return Dataset.from_dict(
            {name: self.encoding[name].tolist() for name in names if name in self.encoding}
        )

    def words(self, scores: Float[Tensor, " token"]) -> list[WordScore]:
        """The words with the sums of their tokens' scores."""
        pair = len(self.texts) == 2
        return words_from_pieces(
            tuple(self.texts) if pair else self.texts[0],
            self.offsets,
            scores.tolist(),
            self.encoding["special_tokens_mask"][0].tolist(),
            sequence_ids=self.encoding.sequence_ids(0) if pair else None,
        )


def _predicted(model: PreTrainedModel, logits: Tensor, at: int) -> dict[str, Any]:
    """The fields of an ``Explanation`` about the prediction. ``at`` is the explained label."""
    names = list(label_names(model).values())
    fields: dict[str, Any] = {"assigned": _assigned(model, names, logits)}
    if len(logits) == 1:
        scores = {"label": "prediction", "target": "prediction", "prediction": logits.item()}
        return fields | scores | {"probabilities": None}
    probabilities = logits.sigmoid() if is_multi_label(model) else logits.softmax(-1)
    by_name = dict(zip(names, probabilities.tolist(), strict=True))
    return fields | {"label": names[at], "target": "log_odds", "prediction": None, "probabilities": by_name}


def _assigned(model: PreTrainedModel, names: Sequence[str], logits: Tensor) -> tuple[str, ...] | None:
    """The labels that a multi-label classifier predicts; None for other models."""
    if not is_multi_label(model):
        return None
    flags = assigned(logits.numpy(force=True)[None], thresholds_of(model))[0]
    return tuple(name for name, flag in zip(names, flags, strict=True) if flag)


def _refuse_onnx(folder: str) -> None:
    if folder and onnx_file(folder) is not None:
        raise ModelError(
            f"{folder} is an ONNX model, which has no gradients",
            expected="a PyTorch model to explain",
            remedy="name the run's folder that it was exported from",
        )


def _refuse_other_number(folder: str, count: int) -> None:
    """Raise DataError for another number of texts than the model's own run recorded."""
    columns = data_record(folder).get("text_columns")
    if columns and len(columns) != count:
        raise DataError(
            f"{count} text{'s were' if count > 1 else ' was'} given, and {folder} was trained on {len(columns)} a row: "
            f"{', '.join(columns)}.",
            expected=f"{len(columns)} text{'s' if len(columns) > 1 else ''}",
            remedy='give each text in quotation marks: gradistill explain --model M "first" "second"',
        )


def _check_texts(texts: Sequence[str]) -> None:
    wanted = "a text, or a list of one or two"
    check_type("texts", texts, (list, tuple), wanted)
    for text in texts:
        check_type("a text", text, str, wanted)
    if not 1 <= len(texts) <= 2:
        raise DataError(
            f"There are {len(texts)} texts.", expected="one text, or two", remedy="quote each text"
        )
    for text in texts:
        if fault := text_fault(text):
            raise DataError(
                f"The text {shown(text)} cannot be explained: {fault}.",
                expected="one text with words, or two",
                remedy="correct the text",
            )


def _attributed(
    model: PreTrainedModel, batch: Batch, baseline: Baseline, label: str | None, steps: int | None
) -> tuple[IntegrationResult, Tensor, int]:
    """The attributions of the one text, logits ``(label,)``, and the explained label."""
    probed = ProbedModel.of(model)
    if label is not None:
        batch = replace(batch, teacher_labels=torch.tensor([_named_label(model, label)]))
    forward = explained_pass(probed, batch)
    (start,) = baseline_embeddings(forward, baseline, draws=1, seed=0)
    path = forward.path(EXPLAINED_TARGET, start)
    if steps is None:
        integrated = integrated_to_tolerance(path, tolerance=TOLERANCE, max_nodes=MAX_NODES)
    else:
        integrated = integrated_in_steps(path, steps=steps)
    return integrated, forward.logits[0].detach(), int(explained_labels(forward))


def _named_label(model: PreTrainedModel, label: str) -> int:
    exact = {name: k for k, name in label_names(model).items()}
    if label in exact:
        return exact[label]
    by_name = {name.casefold(): k for name, k in exact.items()}
    if label.casefold() not in by_name:
        raise RecipeError(
            f"the model has no label {label!r}",
            expected=f"one of {', '.join(label_names(model).values())}",
            remedy="name one of these, or leave --label out",
        )
    return by_name[label.casefold()]
