"""One label of each row explained: what explanations, audits and attributions of many rows differentiate."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.errors import GradistillError, ModelError
from gradistill.models.probe import ProbedModel
from gradistill.signals.forward_pass import ForwardPass, Needs

EXPLAINED_TARGET = Target("log_odds", "teacher")
"""The log-odds of the batch's ``teacher_labels``, else of the label that the model predicts; the prediction in a
regression."""


def explained_pass(model: ProbedModel, batch: Batch) -> ForwardPass:
    """A forward pass that ``EXPLAINED_TARGET`` can be differentiated on. To be used inside ``frozen_eval(model)``.

    Raises ModelError for a model that labels tokens, and GradistillError for labels that it does not have.
    """
    facts, given = model.probe, batch.teacher_labels
    if facts.token_labels:
        raise ModelError(
            f"{type(model.model).__name__} labels tokens, and one label of each row is to be explained",
            expected="a sequence classifier",
            remedy="use gradistill explain or gradistill audit, which explain the labels of words",
        )
    if given is not None and len(strange := given[(given < 0) | (given >= facts.labels)]):
        raise GradistillError(
            f"A label to explain is {int(strange[0])}, and the model has {facts.labels}.",
            expected=f"class ids from 0 to {facts.labels - 1}",
        )
    with torch.enable_grad():
        return ForwardPass.run(model.model, model.verified(batch), batch, Needs(targets=(EXPLAINED_TARGET,)))


def explained_labels(forward: ForwardPass) -> Int[Tensor, " batch"]:
    """The label of each row that ``EXPLAINED_TARGET`` is of; 0 in a regression."""
    if (given := forward.batch.teacher_labels) is not None:
        return given
    return forward.logits.detach().argmax(-1)
