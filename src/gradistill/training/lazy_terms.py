"""Random draws and optimizer corrections for terms that run on some steps or some rows only."""

from __future__ import annotations

import numpy as np
import torch
from torch.optim import Optimizer

from gradistill.batch import Batch, RandomDraws


def drawn_for(batch: Batch, labels: int, *numbers: int, epoch: int = 0) -> RandomDraws:
    """The random draws of a batch, seeded by ``numbers`` (0 or more): seed, process, step, accumulated batch."""
    chance = np.random.default_rng(numbers)
    place, label = chance.permutation(len(batch)), chance.integers(labels, size=len(batch))
    signs = chance.choice((-1.0, 1.0), size=(len(batch), labels)).astype(np.float32)
    tensors = (torch.from_numpy(drawn).to(batch.mask.device) for drawn in (place, label, signs))
    return RandomDraws(*tensors, epoch=epoch)


def correct_for_lazy_terms(optimizer: Optimizer, every: int) -> None:
    """Multiply learning rates by c and raise Adam's betas to the power c = k/(k + 1); k is the largest ``every``.

    Karras et al. 2020 (StyleGAN2, arXiv 1912.04958), appendix B. They run the lazy term in an update of its own, and
    correct for k + 1 updates in place of k. Here it is part of every k-th update, and the number of updates does not
    change: the same factors only compensate for the larger step there. Optimizers without betas (not Adam) are not
    changed.
    """
    share = every / (every + 1)
    for group in optimizer.param_groups:
        if every > 1 and "betas" in group:
            group["lr"] *= share
            group["betas"] = tuple(beta**share for beta in group["betas"])
