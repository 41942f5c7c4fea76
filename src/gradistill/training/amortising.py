"""What changes in training where terms do not run at every step."""

from __future__ import annotations

from torch.optim import Optimizer


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
