"""Occlusion (Zeiler and Fergus 2014): the effect of masking one token on the prediction. It needs predictions only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradistill.signals.explained import EXPLAINED_TARGET
from gradistill.signals.forward_pass import ForwardPass


@dataclass(frozen=True)
class Occlusion:
    """``|F(x) − F(x without token i)|``, the token's id replaced by the mask token's: one forward pass for each token.

    ``signed`` returns the difference without the absolute value.
    """

    name: ClassVar[str] = "occlusion"
    title: ClassVar[str] = "occlusion"
    source: ClassVar[str] = "Zeiler and Fergus 2014, arXiv 1311.2901"

    def __call__(self, forward: ForwardPass) -> Float[Tensor, "batch token"]:
        return self.signed(forward).abs()

    def signed(self, forward: ForwardPass) -> Float[Tensor, "batch token"]:
        """``F(x) − F(x without token i)``: positive if the token supports the label."""
        mask = forward.batch.mask
        places, tokens = mask.nonzero(as_tuple=True)
        logits = forward.erase(torch.nn.functional.one_hot(tokens, mask.shape[1]).bool(), places)
        label_ids = forward.label_ids[EXPLAINED_TARGET]
        whole = forward.values(EXPLAINED_TARGET).detach()[places, 0]
        labels = None if label_ids is None else label_ids[places]
        without = forward.values_of(EXPLAINED_TARGET, logits, labels)[:, 0]
        scores = torch.zeros(mask.shape, dtype=whole.dtype, device=whole.device)
        scores[places, tokens] = whole - without
        return scores
