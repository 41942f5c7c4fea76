"""Predictions of several models for the same rows: their logits, and the saliency maps that loyalty compares."""

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
from gradistill.models.teacher_loading import is_narrow
from gradistill.signals.explained import explained_pass, refuse_labelled_tokens


@dataclass(frozen=True)
class Predictions:
    """The predictions of one model, row by row: logits ``(rows, label)`` and a map of token scores for each row,
    special tokens and padding taken out; empty where no map was made. ``signed`` are the same maps with scores below 0
    for what opposes the label; empty where the method has no direction. ``multi_label``: each logit is the log-odds of
    a label of its own, which is predicted above its one of ``thresholds`` (½ by default)."""

    logits: np.ndarray
    maps: tuple[np.ndarray, ...] = ()
    signed: tuple[np.ndarray, ...] = ()
    multi_label: bool = False
    thresholds: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """The predicted label of each row (0 in a regression); of several the one with the highest probability."""
        return self.logits.argmax(-1)

    @property
    def flags(self) -> np.ndarray:
        """Which labels are predicted, ``(row, label)`` of truth values, where a row may have several."""
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
    """The predictions of a model for encoded rows, in their order, and a map of token scores for each.

    The model computes in eval mode and is left as it was. Rows of like length share a forward pass. A model in a
    type narrower than float32 has no maps.

    Parameters:
        ``model``: a sequence classifier; with its probe, where that is known already.
        ``rows``: as ``encode`` returns them, with ``special_tokens_mask``.
        ``collate``: a ``Collator``, or another function from rows to a padded batch.
        ``labels``: the label to explain, one per row; by default the one that the model predicts.
        ``method``: how a prediction is explained (``auditing.methods``).
        ``on_progress``: is called with the number of rows done.

    Raises ModelError for a model that labels tokens, and GradistillError for no rows, or labels that are not those of
    the rows.

    Example: ``teacher = predict_rows(model, rows, Collator(tokenizer))``
    """
    network = model.model if isinstance(model, ProbedModel) else model
    refuse_labelled_tokens(network)
    check_labels(labels, rows)
    if is_narrow(network):
        found = predict_logits(network, rows, collate, on_progress=on_progress)
        return Predictions(found, multi_label=is_multi_label(network), thresholds=thresholds_of(network))
    logits: list[Any] = [None] * len(rows)
    maps: list[Any] = [None] * len(rows)
    signed: list[Any] = [None] * len(rows)
    probed = ProbedModel.of(model)
    with frozen_eval(probed.model):
        for some in row_batches(rows, collate, probed.device, labels=labels, draws=draws_tokens(method)):
            forward = explained_pass(probed, some.batch)
            scores, directed = token_scores(method, forward)
            predicted, own = forward.logits.detach().cpu().numpy(), some.own_tokens
            for found, values in ((maps, scores), (signed, directed)):
                if values is not None:
                    for k, place in enumerate(some.places):
                        found[place] = values[k].detach().cpu()[own[k]].numpy()
            for k, place in enumerate(some.places):
                logits[place] = predicted[k]
            on_progress(len(some.places))
    directed_maps = () if signed[0] is None else tuple(signed)
    several = probed.probe.multi_label
    return Predictions(np.stack(logits), tuple(maps), directed_maps, several, thresholds_of(probed.model))


def predict_logits(
    model: nn.Module,
    rows: Rows,
    collate: Collate,
    *,
    on_progress: Callable[[int], object] = lambda done: None,
) -> np.ndarray:
    """The logits ``(rows, label)`` of encoded rows, in their order, without attributions; the model stays as it was.

    They are float32, or float64 for a model of that type.
    """

    def logits(some: RowBatch) -> np.ndarray:
        return widened(model(**some.batch.inputs).logits).cpu().numpy()

    device = next(model.parameters()).device
    with frozen_eval(model), torch.no_grad():
        return in_row_order(logits, rows, collate, device, on_progress=on_progress)
