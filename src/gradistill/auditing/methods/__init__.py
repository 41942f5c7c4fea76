"""Attribution methods, one file each: how much a prediction depends on each token, as a score of 0 or more.

A method is a frozen dataclass with a ``title``, a ``source`` and a call that takes the forward pass of one batch
(``signals.explained.explained_pass``) and returns scores ``(batch, token)``. An audit uses one method for all models.
"""

from gradistill.auditing.methods.base import (
    Method,
    SignedMethod,
    WithAttributions,
    all_methods,
    draws_by_seed,
    draws_tokens,
    method,
    token_scores,
)
from gradistill.auditing.methods.gradient_x_input import GradientXInput
from gradistill.auditing.methods.integrated_gradients import IntegratedGradients

__all__ = [
    "GradientXInput",
    "IntegratedGradients",
    "Method",
    "SignedMethod",
    "WithAttributions",
    "all_methods",
    "draws_by_seed",
    "draws_tokens",
    "method",
    "token_scores",
]
