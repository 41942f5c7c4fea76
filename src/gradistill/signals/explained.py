"""One label of each row explained: what explanations, audits and attributions of many rows differentiate."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor, nn

from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.errors import GradistillError, ModelError
from gradistill.models.facts import is_token_classifier
from gradistill.models.probe import ProbedModel
from gradistill.models.tracing import unwrapped
from gradistill.signals.forward_pass import ForwardPass, Needs

EXPLAINED_TARGET = Target("log_odds", "teacher")
"""The log-odds of the batch's ``teacher_labels``, else of the label that the model predicts; the prediction in a
regression."""


def refuse_labelled_tokens(model: nn.Module) -> None:
    """Raise ModelError for a model that labels tokens: it has no one label of a row."""
    if is_token_classifier(unwrapped(model)):
        raise ModelError(
            f"{type(model).__name__} labels tokens, and one label of each row is to be explained",
            expected="a sequence classifier",
            remedy="choose a classifier of whole texts: there are no explanations of words with a label each",
        )


def explained_pass(model: ProbedModel, batch: Batch) -> ForwardPass:
    """A forward pass that ``EXPLAINED_TARGET`` can be differentiated on. To be used inside ``frozen_eval(model)``.

    Raises ModelError for a model that labels tokens, and GradistillError for labels that it does not have.
    """
    labels, given = model.probe.labels, batch.teacher_labels
    refuse_labelled_tokens(model.model)
    if given is not None and len(strange := given[(given < 0) | (given >= labels)]):
        raise GradistillError(
            f"A label to explain is {int(strange[0])}, and the model has {labels}.",
            expected=f"class ids from 0 to {labels - 1}",
        )
    with torch.enable_grad():
        return ForwardPass.run(model.model, model.verified(batch), batch, Needs(targets=(EXPLAINED_TARGET,)))


def explained_labels(forward: ForwardPass) -> Int[Tensor, " batch"]:
    """The label of each row that ``EXPLAINED_TARGET`` is of; 0 in a regression."""
    if (given := forward.batch.teacher_labels) is not None:
        return given
    return forward.logits.detach().argmax(-1)
