"""The forward pass behind explanations, audits and attributions: it explains one label of each row."""

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
"""The log-odds of the batch's ``teacher_labels``, or without these of the predicted label; in a regression the
prediction."""


def refuse_labelled_tokens(model: nn.Module) -> None:
    """Raise ModelError for a token classifier: its rows have no single label."""
    if is_token_classifier(unwrapped(model)):
        raise ModelError(
            f"{type(model).__name__} labels tokens, and an explanation is of one label of each row",
            expected="a sequence classifier",
            remedy="choose a classifier of whole texts: explanations of token classifiers are not available",
        )


def explained_pass(model: ProbedModel, batch: Batch) -> ForwardPass:
    """Run a forward pass on which ``EXPLAINED_TARGET`` can be differentiated. Use it inside ``frozen_eval(model)``.

    Raises ModelError for a token classifier, and GradistillError for ``teacher_labels`` that the model does not have.
    """
    labels, given = model.probe.labels, batch.teacher_labels
    refuse_labelled_tokens(model.model)
    if given is not None and len(strange := given[(given < 0) | (given >= labels)]):
        raise GradistillError(
            f"The label to explain is {int(strange[0])}, and the model has {labels} labels.",
            expected=f"class ids from 0 to {labels - 1}",
        )
    with torch.enable_grad():
        return ForwardPass.run(model.model, model.verified(batch), batch, Needs(targets=(EXPLAINED_TARGET,)))


def explained_labels(forward: ForwardPass) -> Int[Tensor, " batch"]:
    """The label of each row that ``EXPLAINED_TARGET`` explains; 0 in a regression."""
    if (given := forward.batch.teacher_labels) is not None:
        return given
    return forward.logits.detach().argmax(-1)
