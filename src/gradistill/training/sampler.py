"""The order of training rows, determined by the seed and the number of the epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler


class SeededByEpoch(Sampler[int]):
    """Wraps a sampler and gives it a new ``generator`` in each epoch, seeded by ``seed`` and the epoch's number.

    An epoch then has the same order in a run that resumes within it, in every process, and with any number of workers.
    """

    def __init__(self, sampler: Any, seed: int, epoch: Callable[[], int]) -> None:
        self.sampler, self.seed, self.epoch = sampler, seed, epoch

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        (drawn,) = np.random.SeedSequence((self.seed, self.epoch())).generate_state(1, np.uint64)
        self.sampler.generator = torch.Generator().manual_seed(int(drawn >> 1))
        return iter(self.sampler)
