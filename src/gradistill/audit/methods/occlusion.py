"""Occlusion (Zeiler and Fergus 2014): what one token less does to the decision. It looks at answers alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradistill.signals.hearing import TARGET, Heard


@dataclass(frozen=True)
class Occlusion:
    """``|F(x) − F(x without token i)|``, the token's id replaced by the mask's: one forward pass a token."""

    name: ClassVar[str] = "occlusion"
    title: ClassVar[str] = "occlusion"
    source: ClassVar[str] = "Zeiler and Fergus 2014, arXiv 1311.2901"

    def __call__(self, heard: Heard) -> Float[Tensor, "batch token"]:
        mask = heard.batch.mask
        places, tokens = mask.nonzero(as_tuple=True)
        logits = heard.without(torch.nn.functional.one_hot(tokens, mask.shape[1]).bool(), places)
        at = heard.at
        whole = TARGET.values(heard.logits, at)[places, 0]
        without = TARGET.values(logits, None if at is None else at[places])[:, 0]
        scores = torch.zeros(mask.shape, dtype=whole.dtype, device=whole.device)
        scores[places, tokens] = (whole - without).abs()
        return scores
