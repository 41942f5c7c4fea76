"""A model's predictions for noisy copies of a text's embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradistill.signals.base import GRADIENTS
from gradistill.signals.drawn_logits import DrawnLogits
from gradistill.signals.forward_pass import ForwardPass, Needs


@dataclass(frozen=True)
class NoiseLogits(DrawnLogits):
    """Logits under noise on the embedding output E: ``E_i + σ · ‖E_i‖₂/√d · ξ_i``, ξ from N(0, I), d the width.

    ``sigma`` is the length of the noise relative to the token's embedding. Only real tokens get noise.
    """

    title: ClassVar[str] = "logits under noise"
    trains_on: ClassVar[str | None] = GRADIENTS  # to second order in the noise

    sigma: float = 0.1

    def needs(self) -> Needs:
        return Needs(embedding=True)

    def logits_of(self, forward: ForwardPass, sets: Sequence[int]) -> Float[Tensor, "batch copy label"]:
        noise = self.noise(forward, sets)
        rows, copies = noise.shape[:2]
        examples = torch.arange(rows, device=noise.device).repeat_interleave(copies)
        embedding = forward.embedding.unsqueeze(1)
        size = self.sigma * embedding.detach().norm(dim=-1, keepdim=True) / embedding.shape[-1] ** 0.5
        noisy = (embedding + size * noise.to(embedding)).flatten(0, 1)
        return forward.with_embeddings(noisy, examples).unflatten(0, (rows, copies))

    def noise(self, forward: ForwardPass, sets: Sequence[int]) -> Float[Tensor, "batch copy token hidden"]:
        """Numbers from N(0, 1) for the copies in ``sets``; 0 at padding."""
        ids, mask = forward.batch.inputs["input_ids"].cpu().numpy(), forward.batch.mask.cpu().numpy()
        width = forward.embedding.shape[-1]
        drawn = np.zeros((len(ids), len(sets) * self.copies, ids.shape[1], width), dtype=np.float32)
        for row, (of_row, real) in enumerate(zip(ids, mask, strict=True)):
            tokens = of_row[real]
            of_sets = [
                self.generator(tokens, number).standard_normal(
                    (self.copies, len(tokens), width), dtype=np.float32
                )
                for number in sets
            ]
            drawn[row][:, real] = np.concatenate(of_sets)
        return torch.from_numpy(drawn).to(forward.batch.mask.device)
