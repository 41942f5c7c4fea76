"""The order of training rows, which an epoch's number and a seed decide, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler


class SeededByEpoch(Sampler[int]):
    """A ``sampler`` that draws from a ``generator``, given a new one for each epoch.

    So an epoch has the same order in a run that goes on within it, in every process, and with any number of workers.
    """

    def __init__(self, sampler: Any, seed: int, epoch: Callable[[], int]) -> None:
        self.sampler, self.seed, self.epoch = sampler, seed, epoch

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        (drawn,) = np.random.SeedSequence((self.seed, self.epoch())).generate_state(1, np.uint64)
        self.sampler.generator = torch.Generator().manual_seed(int(drawn >> 1))
        return iter(self.sampler)
