"""Explaining one prediction: signed Integrated Gradients, word by word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradistill.attribution.adaptive_quadrature import integrated_to_tolerance
from gradistill.attribution.quadrature import IntegrationResult, integrated_in_steps
from gradistill.auditing.onnx_predictor import onnx_file
from gradistill.batch import Batch
from gradistill.commands.run_folder import record_of
from gradistill.commands.text_lengths import LoadedModel, task_length
from gradistill.data.collator import Collator
from gradistill.data.multilabel_metrics import assigned
from gradistill.data.word_scores import words_from_pieces
from gradistill.errors import DataError, ModelError, RecipeError
from gradistill.models.eval_mode import frozen_eval
from gradistill.models.facts import is_multi_label, thresholds_of
from gradistill.models.input_limits import check_readable
from gradistill.models.loading import label_names, load_classifier, load_tokenizer, set_padding
from gradistill.models.model_source import ModelSource, model_folder, model_name
from gradistill.models.probe import ProbedModel
from gradistill.printing import log_filter
from gradistill.report.terminal import Explanation
from gradistill.signals.baselines import IN_ONE_TEXT, Baseline, baseline_embeddings, check_baseline
from gradistill.signals.explained import EXPLAINED, explained_labels, explained_pass

TOLERANCE, MAX_NODES = 1e-3, 400
"""Completeness residual, as a share of ``|F(E) − F(baseline)|``, that needs no more nodes, and where to stop trying."""


def explain(
    model: ModelSource,
    texts: str | Sequence[str],
    *,
    label: str | None = None,
    steps: int | None = None,
    baseline: Baseline = "padding",
    max_length: int | None = None,
) -> Explanation:
    """Which words support the predicted label, by Integrated Gradients of its log-odds.

    In a regression they support a higher prediction; of several labels a row the top one is explained. A fine-tuned
    encoder may change its prediction within a narrow stretch of the path, from zero more than from padding; without
    ``steps`` nodes gather there, 400 at most, until the scores miss completeness by no more than a thousandth.

    Parameters:
        ``model``: a folder, a hub id, or a pair ``(model, tokenizer)``, which stays as it is.
        ``texts``: one text, or the two of a pair.
        ``label``: another label to explain.
        ``steps``: of Gauss–Legendre; by default as many as needed.
        ``baseline``: where the path starts: the same text with ``padding`` or the ``mask`` token in place of its
            words, or ``zero`` embeddings.
        ``max_length``: tokens read at most; by default as the model was trained (``commands.text_lengths``).

    Raises DataError for another number of texts, ModelError for an ONNX model, and RecipeError for a label that the
    model does not have.

    Example: ``explain("runs/student", ["The company rose 3 %.", "Shares fell."]).words``
    """
    texts = [texts] if isinstance(texts, str) else texts
    _refuse_empty(texts)
    check_baseline(baseline, IN_ONE_TEXT)
    folder = model_folder(model)
    if folder and onnx_file(folder) is not None:
        raise ModelError(
            f"{folder} is an ONNX model, which has no gradients",
            expected="a PyTorch model to explain",
            remedy="name the run's folder that it was exported from",
        )
    _refuse_other_number(folder, len(texts))
    tokenizer = load_tokenizer(model)
    classifier, _ = load_classifier(model)
    set_padding(classifier, tokenizer)
    name = model_folder(model) or model_name(model)
    with log_filter(lambda record: False):
        length = task_length(max_length, tokenizer, [LoadedModel("model", name, classifier)])
    encoding, offsets, whole = _encoded(tokenizer, texts, length)
    columns = {key: encoding[key].tolist() for key in ("input_ids", "token_type_ids") if key in encoding}
    check_readable(classifier, Dataset.from_dict(columns), tokenizer)
    batch = Batch.of(encoding, mask_token_id=Collator(tokenizer).mask_token_id)
    special = encoding["special_tokens_mask"][0]
    with frozen_eval(classifier):
        found, logits, at = _attributed(classifier, batch, baseline, label, steps)
    rule = "adaptive Simpson nodes" if steps is None else "Gauss–Legendre steps"
    regression = len(logits) == 1
    names = list(label_names(classifier).values())
    probabilities = logits.sigmoid() if is_multi_label(classifier) else logits.softmax(-1)
    return Explanation(
        model=name,
        texts=tuple(texts),
        words=words_from_pieces(
            tuple(texts) if len(texts) == 2 else texts[0],
            offsets,
            found.attributions[0].sum(-1).tolist(),
            special.tolist(),
            sequence_ids=encoding.sequence_ids(0) if len(texts) == 2 else None,
        ),
        label="prediction" if regression else names[at],
        probabilities=None if regression else dict(zip(names, probabilities.tolist(), strict=True)),
        prediction=logits.item() if regression else None,
        target="prediction" if regression else "log_odds",
        method=f"integrated gradients, {int(found.nodes)} {rule}, {baseline} baseline",
        residual=float(found.residuals),
        cut=(length, whole) if whole > length else None,
        assigned=_assigned(classifier, names, logits),
    )


def _assigned(model: PreTrainedModel, names: Sequence[str], logits: Tensor) -> tuple[str, ...] | None:
    """The labels that a model of several labels a row predicts; None of other models."""
    if not is_multi_label(model):
        return None
    flags = assigned(logits.numpy(force=True)[None], thresholds_of(model))[0]
    return tuple(name for name, flag in zip(names, flags, strict=True) if flag)


def _refuse_other_number(folder: str, count: int) -> None:
    """Where the model's own run recorded what it reads."""
    columns = record_of(folder).get("data", {}).get("text_columns")
    if columns and len(columns) != count:
        raise DataError(
            f"{count} text{'s were' if count > 1 else ' was'} given, and {folder} was trained on {len(columns)} a row: "
            f"{', '.join(columns)}.",
            expected=f"{len(columns)} text{'s' if len(columns) > 1 else ''}",
            remedy='give each text in quotation marks: gradistill explain --model M "first" "second"',
        )


def _refuse_empty(texts: Sequence[str]) -> None:
    if not 1 <= len(texts) <= 2:
        raise DataError(
            f"There are {len(texts)} texts.", expected="one text, or two", remedy="quote each text"
        )
    if not all(text.strip() for text in texts):
        raise DataError("A text is empty.", expected="one text with words, or two", remedy="write the text")


def _encoded(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> tuple[Any, list[tuple[int, int]], int]:
    """Token ids as tensors, the characters that each token stands for, and how many tokens the whole text has."""
    encode: Any = tokenizer
    whole = len(encode(*texts, truncation=False, verbose=False)["input_ids"])
    encoding = encode(
        *texts,
        truncation=True,
        max_length=max_length,
        return_tensors="pt",
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    return encoding, [(start, end) for start, end in encoding.pop("offset_mapping")[0].tolist()], whole


def _attributed(
    model: PreTrainedModel, batch: Batch, baseline: Baseline, label: str | None, steps: int | None
) -> tuple[IntegrationResult, Tensor, int]:
    """The attributions of the one text, logits ``(label,)``, and the explained label."""
    probed = ProbedModel.of(model)
    if label is not None:
        batch = replace(batch, teacher_labels=torch.tensor([_named_label(model, label)]))
    forward = explained_pass(probed, batch)
    (start,) = baseline_embeddings(forward, baseline, draws=1, seed=0)
    path = forward.path(EXPLAINED, start)
    if steps is None:
        integrated = integrated_to_tolerance(path, tolerance=TOLERANCE, max_nodes=MAX_NODES)
    else:
        integrated = integrated_in_steps(path, steps=steps)
    return integrated, forward.logits[0].detach(), int(explained_labels(forward))


def _named_label(model: PreTrainedModel, label: str) -> int:
    by_name = {name.casefold(): k for k, name in label_names(model).items()}
    if label.casefold() not in by_name:
        raise RecipeError(
            f"the model has no label {label!r}",
            expected=f"one of {', '.join(label_names(model).values())}",
            remedy="name one of these, or leave --label out",
        )
    return by_name[label.casefold()]
