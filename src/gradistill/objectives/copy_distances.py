"""How far two models' predictions of changed copies are apart."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def copy_distances(
    student: Float[Tensor, "batch copy label"], teacher: Float[Tensor, "batch copy label"], temperature: float
) -> Float[Tensor, "batch copy"]:
    """``τ² · KL(p_t ‖ p_s)`` at a temperature, from logits; of a regression's predictions the squared error."""
    if student.shape[-1] == 1:
        return (student - teacher).square().sum(-1)
    log_p, log_q = ((logits / temperature).log_softmax(-1) for logits in (teacher, student))
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)
