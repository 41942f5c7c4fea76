"""Shapley values from predictions alone: the coalitions to predict, and the linear map from values to attributions.

Below ``EXACT`` players all coalitions are enumerated. Otherwise permutations are sampled in antithetic pairs, each with
its reverse (Mitchell et al. 2022, "Sampling permutations for Shapley value estimation", JMLR 23). The coalitions depend
on the number of players and the seed only, so that two models are compared on the same coalitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from jaxtyping import Bool, Float

EXACT = 8
"""Fewest players for which permutations are sampled; seven players have 128 coalitions."""


@dataclass(frozen=True)
class ShapleyDesign:
    """``kept``: the coalitions whose values are needed. ``weights``: attributions are ``weights @ values``.

    Attributions sum exactly to the value of the full coalition minus the value of the empty one.

    Example::

        design = shapley_design(5)
        attributions = design.weights @ np.array([value(kept) for kept in design.kept])
    """

    kept: Bool[np.ndarray, "coalition player"]
    weights: Float[np.ndarray, "player coalition"]


def shapley_design(players: int, *, pairs: int = 4, seed: int | tuple[int, ...] = 0) -> ShapleyDesign:
    """The coalitions of ``players``, and the weights that map their values to Shapley values.

    Parameters:
        ``players``: the number of players, such as the words of a text.
        ``pairs``: pairs of permutations, for ``EXACT`` players or more: at most ``2 · pairs · (players − 1) + 2``
            coalitions.
        ``seed``: random seed of the permutations.
    """
    if players < EXACT:
        return _exact(players)
    generator = np.random.default_rng(seed)
    orders = [order for _ in range(pairs) for order in _antithetic(generator.permutation(players))]
    places: dict[bytes, int] = {}
    steps: list[tuple[int, int, int]] = []  # player, the coalition with it, the one without
    for order in orders:
        kept = np.zeros(players, dtype=bool)
        before = places.setdefault(kept.tobytes(), len(places))
        for player in order.tolist():
            kept[player] = True
            after = places.setdefault(kept.tobytes(), len(places))
            steps.append((player, after, before))
            before = after
    weights = np.zeros((players, len(places)))
    for player, after, before in steps:
        weights[player, after] += 1 / len(orders)
        weights[player, before] -= 1 / len(orders)
    return ShapleyDesign(np.stack([np.frombuffer(key, dtype=bool) for key in places]), weights)


def _antithetic(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return order, order[::-1]


def _exact(players: int) -> ShapleyDesign:
    """All coalitions. A player's gain when it joins a coalition of size k has the weight ``k! (n−k−1)! / n!``."""
    numbers = np.arange(2**players)
    kept = (numbers[:, None] >> np.arange(players)) & 1 == 1
    sizes = kept.sum(axis=1)
    weights = np.zeros((players, len(numbers)))
    for player in range(players):
        inside, size = kept[:, player], sizes - kept[:, player]
        share = np.array([1 / (players * comb(players - 1, k)) for k in size])
        weights[player] = np.where(inside, share, -share)
    return ShapleyDesign(kept, weights)
