"""Signals of chance, and the naive loops in float64 that distances are held against.

``NEAR``: 1e-10, the only slack is the order of additions.
"""

from __future__ import annotations

import math

import torch

from gradistill.batch import Batch
from gradistill.objectives import EpochProgress

B, V, T, D, C, L = 3, 2, 5, 4, 3, 2
LENGTHS = (5, 3, 2)
MASK = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
GOLD = torch.tensor([2, 0, 1])
BATCH = Batch({"input_ids": MASK.long(), "attention_mask": MASK.long()}, MASK, GOLD)
TOKENS = sum(LENGTHS) / B
NEAR = {"rel": 0, "abs": 1e-10}


def pair_of(signals: dict[str, tuple[int, ...]]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    student = {k: torch.randn(shape, dtype=torch.float64) for k, shape in signals.items()}
    return student, {k: torch.randn(shape, dtype=torch.float64) for k, shape in signals.items()}


def measured(
    objective: object, student: dict, teacher: dict, progress: EpochProgress | None = None
) -> list[float]:
    return objective.distance(student, teacher, BATCH, progress or EpochProgress()).tolist()


def softmax(z: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in z)
    return [math.exp(x) / total for x in z]


def unit(x: list[float], p: float = 2) -> list[float]:
    norm = sum(abs(v) ** p for v in x) ** (1 / p)
    return [v / norm for v in x]


def squares(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine(a: list[float], b: list[float]) -> float:
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))
