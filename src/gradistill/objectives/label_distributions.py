"""Distances of two models' predictions: distributions over labels, several labels a row, or regression scores."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Divergence = Literal["kl", "soft_cross_entropy"]
Predicted = Float[Tensor, "*row label"]
"""Logits of one model."""


def over_labels(values: Float[Tensor, "*row label"]) -> Float[Tensor, "*row"]:
    """The mean over the labels of a row with several labels, as in transformers' loss. The distance of the joint
    distributions would be the sum, C times as large."""
    return values.mean(-1)


def divergence(
    student: Predicted,
    teacher: Float[Tensor, "*_ _"],
    *,
    multi_label: bool = False,
    by: Divergence = "kl",
) -> Float[Tensor, "*row"]:
    """``KL(p_t ‖ p_s)`` or ``−Σ p_t log p_s`` of logits, with equal gradients; for scores the squared error.

    The distributions are softmaxes. With ``multi_label`` each label is a Bernoulli variable ``σ(z)``, and the distances
    of the labels are averaged (``over_labels``). One column without ``multi_label`` holds scores.
    """
    if multi_label:
        p = teacher.sigmoid()
        cross = functional.softplus(student) - p * student
        entropy = functional.softplus(teacher) - p * teacher if by == "kl" else 0.0
        return over_labels(cross - entropy)
    if student.shape[-1] == 1:
        return (student - teacher).square().sum(-1)
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    compared = log_q if by == "soft_cross_entropy" else log_q - log_p
    return -(log_p.exp() * compared).sum(-1)


def copy_distances(
    student: Float[Tensor, "batch copy label"],
    teacher: Float[Tensor, "batch copy label"],
    temperature: float,
    *,
    multi_label: bool = False,
) -> Float[Tensor, "batch copy"]:
    """``τ² · KL(p_t ‖ p_s)`` of logits at ``temperature``; in a regression the squared error of predictions."""
    if student.shape[-1] == 1 and not multi_label:
        return divergence(student, teacher)
    return temperature**2 * divergence(student / temperature, teacher / temperature, multi_label=multi_label)
