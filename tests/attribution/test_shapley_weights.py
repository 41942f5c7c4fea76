"""Shapley values against the definition, closed forms and sampling by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from captum.attr import ShapleyValues, ShapleyValueSampling

from gradistill.attribution.shapley_weights import EXACT, shapley_design


def _game(players: int, seed: int = 0):
    """A value for every coalition, drawn at random."""
    table = np.random.default_rng(seed).normal(size=2**players)
    return lambda kept: float(table[int(np.dot(kept, 1 << np.arange(players)))])


def _by_definition(players: int, value: object) -> np.ndarray:
    total, orders = np.zeros(players), list(permutations(range(players)))
    for order in orders:
        kept = np.zeros(players, dtype=bool)
        for player in order:
            before = value(kept)  # pyright: ignore
            kept[player] = True
            total[player] += value(kept) - before  # pyright: ignore
    return total / len(orders)


@pytest.mark.parametrize("players", [1, 2, 3, 6])
def test_few_players_are_exact(players: int) -> None:
    value, design = _game(players), shapley_design(players)
    assert len(design.kept) == 2**players
    found = design.weights @ np.array([value(kept) for kept in design.kept])
    assert found == pytest.approx(_by_definition(players, value), abs=1e-12)


@pytest.mark.parametrize("players", [3, EXACT - 1, EXACT, 15])
def test_attributions_sum_to_the_whole_less_nothing(players: int) -> None:
    design = shapley_design(players, pairs=2, seed=5)
    values = np.random.default_rng(1).normal(size=len(design.kept))
    whole, nothing = design.kept.all(axis=1), ~design.kept.any(axis=1)
    assert (design.weights @ values).sum() == pytest.approx(values[whole][0] - values[nothing][0])


def test_sampled_values_of_an_additive_game_are_exact() -> None:
    gains = np.random.default_rng(2).normal(size=12)
    design = shapley_design(12, pairs=1)
    assert design.weights @ (design.kept @ gains) == pytest.approx(gains)


def test_antithetic_pairs_are_exact_for_pairwise_interactions() -> None:
    """In a permutation a player comes before another in exactly one of an order and its reverse."""
    generator = np.random.default_rng(3)
    pairs = np.triu(generator.normal(size=(10, 10)), k=1)
    design = shapley_design(10, pairs=1, seed=4)
    values = np.einsum("ci,ij,cj->c", design.kept, pairs, design.kept)
    assert design.weights @ values == pytest.approx((pairs.sum(0) + pairs.sum(1)) / 2)


def test_more_pairs_come_closer() -> None:
    value = _game(EXACT)
    exact = _by_definition_by_sizes(EXACT, value)

    def error(pairs: int) -> float:
        design = shapley_design(EXACT, pairs=pairs, seed=6)
        return float(np.abs(design.weights @ np.array([value(kept) for kept in design.kept]) - exact).mean())

    assert error(400) < 0.3 * error(4)


def _by_definition_by_sizes(players: int, value: object) -> np.ndarray:
    """The other form of the definition: a weighted sum over the coalitions without a player."""
    from math import factorial

    found = np.zeros(players)
    for number in range(2**players):
        kept = (number >> np.arange(players)) & 1 == 1
        for player in np.flatnonzero(~kept):
            size, more = int(kept.sum()), kept.copy()
            more[player] = True
            weight = factorial(size) * factorial(players - size - 1) / factorial(players)
            found[player] += weight * (value(more) - value(kept))  # pyright: ignore
    return found


def test_coalitions_belong_to_the_seed() -> None:
    one, same, other = (shapley_design(9, seed=seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert (one.kept == same.kept).all()
    assert one.kept.shape != other.kept.shape or (one.kept != other.kept).any()


def _network(features: torch.Tensor) -> torch.Tensor:
    """A function of 9 features that is not additive."""
    generator = torch.Generator().manual_seed(7)
    first, second = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((9, 6), (6,)))
    return torch.tanh(features.double() @ first) @ second


@pytest.mark.parametrize("players", [5, 9])
def test_captum_has_the_same_values_on_the_same_coalitions(players: int) -> None:
    whole, generator = torch.ones(1, players), np.random.default_rng(8)
    orders = [
        order for _ in range(3) for one in (generator.permutation(players),) for order in (one, one[::-1])
    ]

    def value(features: torch.Tensor) -> torch.Tensor:
        return _network(torch.nn.functional.pad(features, (0, 9 - players)))

    if players < EXACT:
        expected = ShapleyValues(value).attribute(whole, baselines=0)
    else:
        sampling = ShapleyValueSampling(value)
        sampling.permutation_generator = lambda *_: iter(order.tolist() for order in orders)
        expected = sampling.attribute(whole, baselines=0, n_samples=len(orders))
    design = shapley_design(players, pairs=3, seed=8)
    found = design.weights @ value(torch.as_tensor(design.kept).float()).numpy()
    assert found == pytest.approx(expected[0].numpy(), abs=1e-5)  # Captum attributes in float32
