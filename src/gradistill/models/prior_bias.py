"""The initial bias of a new head for several labels a row: the frequency of each label."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

logger = logging.getLogger(__name__)


def start_at_prior(model: nn.Module, shares: Sequence[float], rows: int) -> None:
    """Set the bias of the output layer to the log-odds of each label's ``shares`` of the ``rows`` to train on.

    With a bias of 0 every label starts at ½. The first steps then only learn how rare labels are. Their gradients are
    so large that Adam takes tiny steps for hundreds of steps afterwards. Source: Lin et al. 2017 (arXiv 1708.02002,
    section 4.1), there for detection. A head without a bias stays as it is.

    Example: ``start_at_prior(model, flags.mean(axis=0), len(flags))``
    """
    heads = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == len(shares) and module.bias is not None
    ]
    if not heads:
        logger.debug("The head has no bias, so it cannot start at the frequency of each label.")
        return
    rare = 0.5 / max(rows, 1)  # half a row: keeps log-odds finite for a label of no row, or of all
    clipped = np.clip(np.asarray(shares, np.float64), rare, 1 - rare)
    log_odds = torch.as_tensor(np.log(clipped / (1 - clipped)))
    with torch.no_grad():
        heads[-1].bias.copy_(log_odds.to(heads[-1].bias))
