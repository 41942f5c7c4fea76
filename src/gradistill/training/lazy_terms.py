"""What training needs where terms run on some of the steps, or on some of the rows."""

from __future__ import annotations

import numpy as np
import torch
from torch.optim import Optimizer

from gradistill.batch import Batch, RandomDraws


def drawn_for(batch: Batch, labels: int, *numbers: int, epoch: int = 0) -> RandomDraws:
    """The same draws for the same numbers, which are not negative: seed, process, step, accumulated batch."""
    chance = np.random.default_rng(numbers)
    place, label = chance.permutation(len(batch)), chance.integers(labels, size=len(batch))
    signs = chance.choice((-1.0, 1.0), size=(len(batch), labels)).astype(np.float32)
    tensors = (torch.from_numpy(drawn).to(batch.mask.device) for drawn in (place, label, signs))
    return RandomDraws(*tensors, epoch=epoch)


def correct_for_lazy_terms(optimizer: Optimizer, every: int) -> None:
    """Learning rates times c and Adam's betas to the power c = k/(k + 1), for the largest ``every`` k of all terms.

    Karras et al. 2020 (StyleGAN2, arXiv 1912.04958), appendix B. They take the lazy term in an update of its own, and
    correct for k + 1 updates where there were k. Here it is part of every k-th update and the number of updates
    stays: the same factors make up for nothing but the larger step there. An optimizer without betas (no Adam) is
    left as it is.
    """
    share = every / (every + 1)
    for group in optimizer.param_groups:
        if every > 1 and "betas" in group:
            group["lr"] *= share
            group["betas"] = tuple(beta**share for beta in group["betas"])
