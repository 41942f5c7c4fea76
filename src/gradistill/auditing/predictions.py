"""A model's predictions for encoded rows: logits, and the saliency maps that loyalty compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from gradistill.attribution.gradients import widened
from gradistill.auditing.methods import Method, draws_tokens, token_scores
from gradistill.auditing.methods.gradient_x_input import GradientXInput
from gradistill.data.batching import Collate, RowBatch, Rows, check_labels, in_row_order, row_batches
from gradistill.data.multilabel_metrics import assigned
from gradistill.models.eval_mode import frozen_eval
from gradistill.models.facts import is_multi_label, thresholds_of
from gradistill.models.probe import ProbedModel
from gradistill.models.teacher_loading import is_low_precision
from gradistill.signals.explained import explained_pass, refuse_labelled_tokens


@dataclass(frozen=True)
class Predictions:
    """The predictions of one model: ``logits``, ``(row, label)``, and ``maps`` of token scores, one for each row.

    Maps have no special tokens and no padding; without maps the tuple is empty. ``signed``: the same maps with negative
    scores for tokens that oppose the label; empty if the method has no signs. ``multi_label``: each logit is one
    label's log-odds. ``thresholds``: the probability above which each label is predicted (½ by default).
    """

    logits: np.ndarray
    maps: tuple[np.ndarray, ...] = ()
    signed: tuple[np.ndarray, ...] = ()
    multi_label: bool = False
    thresholds: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """The predicted label of each row (0 in a regression); with several labels a row, the most probable one."""
        return self.logits.argmax(-1)

    @property
    def flags(self) -> np.ndarray:
        """With several labels a row: a mask ``(row, label)`` of the predicted labels."""
        return assigned(self.logits, self.thresholds)


def predict_rows(
    model: nn.Module | ProbedModel,
    rows: Dataset,
    collate: Collate,
    *,
    labels: np.ndarray | None = None,
    method: Method = GradientXInput(),  # noqa: B008 (frozen)
    on_progress: Callable[[int], object] = lambda done: None,
) -> Predictions:
    """A model's predictions for encoded rows, in their order, with a map of token scores for each row.

    The model computes in eval mode; its state is restored. Rows of similar lengths share a forward pass. A model in
    lower precision than float32 has no maps.

    Parameters:
        ``model``: a sequence classifier, or one that is already probed.
        ``rows``: as ``encode`` returns them, with ``special_tokens_mask``.
        ``collate``: a ``Collator``, or another function from rows to a padded batch.
        ``labels``: the label to explain for each row; by default the predicted label.
        ``method``: the attribution method (``auditing.methods``).
        ``on_progress``: is called with the number of rows done.

    Raises ModelError for a token classifier, and GradistillError for no rows, or for labels that do not match the rows.

    Example: ``teacher = predict_rows(model, rows, Collator(tokenizer))``
    """
    network = model.model if isinstance(model, ProbedModel) else model
    refuse_labelled_tokens(network)
    check_labels(labels, rows)
    if is_low_precision(network):
        result = predict_logits(network, rows, collate, on_progress=on_progress)
        return Predictions(result, multi_label=is_multi_label(network), thresholds=thresholds_of(network))
    logits: list[Any] = [None] * len(rows)
    maps: list[Any] = [None] * len(rows)
    signed: list[Any] = [None] * len(rows)
    probed = ProbedModel.of(model)
    with frozen_eval(probed.model):
        for row_batch in row_batches(rows, collate, probed.device, labels=labels, draws=draws_tokens(method)):
            forward = explained_pass(probed, row_batch.batch)
            scores, signed_scores = token_scores(method, forward)
            predicted, text_tokens = forward.logits.detach().cpu().numpy(), row_batch.own_tokens
            for result, values in ((maps, scores), (signed, signed_scores)):
                if values is not None:
                    for k, place in enumerate(row_batch.places):
                        result[place] = values[k].detach().cpu()[text_tokens[k]].numpy()
            for k, place in enumerate(row_batch.places):
                logits[place] = predicted[k]
            on_progress(len(row_batch.places))
    signed_maps = () if signed[0] is None else tuple(signed)
    multi_label = probed.probe.multi_label
    return Predictions(np.stack(logits), tuple(maps), signed_maps, multi_label, thresholds_of(probed.model))


def predict_logits(
    model: nn.Module,
    rows: Rows,
    collate: Collate,
    *,
    on_progress: Callable[[int], object] = lambda done: None,
) -> np.ndarray:
    """The logits ``(row, label)`` of encoded rows, in their order, without attributions.

    They are float32, or float64 for a float64 model. The model's state is restored.
    """

    def logits(some: RowBatch) -> np.ndarray:
        return widened(model(**some.batch.inputs).logits).cpu().numpy()

    device = next(model.parameters()).device
    with frozen_eval(model), torch.no_grad():
        return in_row_order(logits, rows, collate, device, on_progress=on_progress)
