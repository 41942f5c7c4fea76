"""Distances of states, attention and explanations: each equals a naive loop in float64, to 1e-10."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch

from gradistill.errors import RecipeError
from gradistill.objectives import ModelFacts, Pair, all_objectives
from gradistill.training.lazy_terms import drawn_for
from objectives.loops import (
    BATCH,
    LENGTHS,
    NEAR,
    B,
    C,
    D,
    L,
    T,
    cosine,
    dot,
    measured,
    pair_of,
    softmax,
    squares,
    unit,
)

H, P = 2, 4
"""Heads and their width."""
Vector = list[float]


def angle(at: Vector, one: Vector, other: Vector) -> float:
    return cosine(
        [x - y for x, y in zip(one, at, strict=True)], [x - y for x, y in zip(other, at, strict=True)]
    )


def mean(values: Iterator[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def pairs(items: int) -> Iterator[tuple[int, int]]:
    return product(range(items), repeat=2)


def triplets(items: int, window: int) -> Iterator[tuple[int, int, int]]:
    """The middle and two others near it, all different."""
    for j, i, k in product(range(items), repeat=3):
        if len({i, j, k}) == 3 and max(abs(i - j), abs(k - j)) <= window:
            yield j, i, k


def related(
    ours: list[Vector], theirs: list[Vector], window: int, pair: Callable[[Vector, Vector], float]
) -> tuple[float, float]:
    """Mean squared differences of one set of items: of its pairs, and of its triplets."""
    n = len(ours)
    of_pairs = mean((pair(ours[i], ours[k]) - pair(theirs[i], theirs[k])) ** 2 for i, k in pairs(n))
    of_triplets = mean(
        (angle(ours[j], ours[i], ours[k]) - angle(theirs[j], theirs[i], theirs[k])) ** 2
        for j, i, k in triplets(n, window)
    )
    return of_pairs, of_triplets


def test_hidden_states() -> None:
    student, teacher = pair_of({"states": (B, L, T, D)})
    expected = [
        sum(
            mean(squares(s, t) / D for s, t in zip(ours[layer][:real], theirs[layer][:real], strict=True))
            for layer in range(L)
        )
        for ours, theirs, real in zip(
            student["states"].tolist(), teacher["states"].tolist(), LENGTHS, strict=True
        )
    ]
    assert measured(all_objectives()["hidden_states"](), student, teacher) == pytest.approx(expected, **NEAR)


def test_attention_scores() -> None:
    student, teacher = pair_of({"query": (B, L, T, H, P), "key": (B, L, T, H, P)})

    def score(signals: dict[str, Any], b: int, layer: int, h: int, i: int, k: int) -> float:
        return dot(
            signals["query"][b, layer, i, h].tolist(), signals["key"][b, layer, k, h].tolist()
        ) / math.sqrt(P)

    expected = [
        sum(
            mean(
                (score(student, b, layer, h, i, k) - score(teacher, b, layer, h, i, k)) ** 2
                for h in range(H)
                for i, k in pairs(real)
            )
            for layer in range(L)
        )
        for b, real in enumerate(LENGTHS)
    ]
    assert measured(all_objectives()["attention_scores"](), student, teacher) == pytest.approx(
        expected, **NEAR
    )


@pytest.mark.parametrize("heads", [None, 1, 4])
@pytest.mark.parametrize("relations", [("attention", "value"), ("query", "key", "value")])
def test_self_attention_relations(relations: tuple[str, ...], heads: int | None) -> None:
    student, teacher = pair_of(dict.fromkeys(("query", "key", "value"), (B, 1, T, H, P)))
    count, width = heads or H, H * P // (heads or H)
    sides = {"attention": ("query", "key")}

    def vector(signals: dict[str, Any], part: str, b: int, i: int, h: int) -> Vector:
        return signals[part][b, 0, i].flatten().tolist()[h * width : (h + 1) * width]

    def shares(signals: dict[str, Any], relation: str, b: int, i: int, h: int) -> Vector:
        left, right = sides.get(relation, (relation, relation))
        return softmax([
            dot(vector(signals, left, b, i, h), vector(signals, right, b, k, h)) / math.sqrt(width)
            for k in range(LENGTHS[b])
        ])  # fmt: skip

    def divergence(relation: str, b: int, i: int, h: int) -> float:
        p, q = (shares(signals, relation, b, i, h) for signals in (teacher, student))
        return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))

    expected = [
        sum(mean(divergence(r, b, i, h) for i in range(LENGTHS[b]) for h in range(count)) for r in relations)
        for b in range(B)
    ]
    objective = all_objectives()["self_attention_relations"](relations=relations, heads=heads)
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


def divergence(ours: list[Vector], theirs: list[Vector]) -> float:
    """The sum over items of the KL divergence of their softmaxed cosines with the others."""
    total = 0.0
    for i in range(len(ours)):
        others = [k for k in range(len(ours)) if k != i]
        expected, found = (softmax([cosine(of[i], of[k]) for k in others]) for of in (theirs, ours))
        total += sum(p * math.log(p / q) for p, q in zip(expected, found, strict=True))
    return total


def bends(ours: list[Vector], theirs: list[Vector], window: int) -> tuple[float, int]:
    """The sum of squared differences of angles, and the number of triplets, an item with itself included."""
    n, total, counted = len(ours), 0.0, 0
    for j in range(n):
        near = [i for i in range(n) if abs(i - j) <= window]
        for i, k in product(near, repeat=2):
            counted += 1
            if len({i, j, k}) == 3:
                total += (angle(ours[j], ours[i], ours[k]) - angle(theirs[j], theirs[i], theirs[k])) ** 2
    return total, counted


def by_text(student: dict[str, Any], teacher: dict[str, Any]) -> Iterator[tuple[list, list, int]]:
    """The states of each text in both models, ``[layer][token]``, and its number of real tokens."""
    for ours, theirs, real in zip(
        student["states"].tolist(), teacher["states"].tolist(), LENGTHS, strict=True
    ):
        yield [layer[:real] for layer in ours], [layer[:real] for layer in theirs], real


@pytest.mark.parametrize("window", [1, 2, 10])
def test_word_relations(window: int) -> None:
    student, teacher = pair_of({"states": (B, L, T, D)})
    expected = []
    for ours, theirs, real in by_text(student, teacher):
        layers = []
        for one, other in zip(ours, theirs, strict=True):
            bent, counted = bends(one, other, window)
            layers.append(divergence(one, other) / real**2 + 0.5 * bent / counted)
        expected.append(mean(iter(layers)))
    objective = all_objectives()["word_relations"](window=window, triplets=0.5)
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


def test_layer_relations() -> None:
    layers = 4
    student, teacher = pair_of({"states": (B, layers, T, D)})
    expected = []
    for ours, theirs, real in by_text(student, teacher):
        tokens = []
        for i in range(real):
            one, other = ([of[layer][i] for layer in range(layers)] for of in (ours, theirs))
            bent, counted = bends(one, other, layers)
            assert counted == layers**3
            tokens.append(divergence(one, other) / layers**2 + 0.5 * bent / counted)
        expected.append(mean(iter(tokens)))
    objective = all_objectives()["layer_relations"](triplets=0.5)
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


@pytest.mark.parametrize("window", [1, 2, 10])
def test_word_relations_by_squared_differences(window: int) -> None:
    student, teacher = pair_of({"states": (B, L, T, D)})
    expected = []
    for ours, theirs, _ in by_text(student, teacher):
        layers = [related(one, other, window, cosine) for one, other in zip(ours, theirs, strict=True)]
        expected.append(mean(p + 0.5 * t for p, t in layers))
    objective = all_objectives()["word_relations"](divergence="squared", window=window, triplets=0.5)
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


def test_layer_relations_by_squared_differences() -> None:
    layers = 4
    student, teacher = pair_of({"states": (B, layers, T, D)})
    expected = []
    for ours, theirs, real in by_text(student, teacher):
        tokens = [
            related(*([of[layer][i] for layer in range(layers)] for of in (ours, theirs)), layers, cosine)
            for i in range(real)
        ]
        expected.append(mean(p + 0.5 * t for p, t in tokens))
    objective = all_objectives()["layer_relations"](divergence="squared", triplets=0.5)
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


def pooled(states: list[Vector], size: int) -> list[Vector]:
    runs = [states[start : start + size] for start in range(0, len(states), size)]
    return [[sum(column) / len(run) for column in zip(*run, strict=True)] for run in runs]


@pytest.mark.parametrize("level", ["token", "span", "sample"])
def test_granular_relations_in_windows(level: str) -> None:
    """Of four layers the lower two hold tokens and spans, the upper two samples."""
    student, teacher = pair_of({"states": (B, 4, T, D)})

    def scaled(a: Vector, b: Vector) -> float:
        return dot(a, b) / D

    def items(signals: dict[str, Any], b: int, layer: int) -> list[Vector]:
        real = signals["states"][b, layer, : LENGTHS[b]].tolist()
        return pooled(real, {"token": 1, "span": 2, "sample": T}[level])

    expected = []
    for b in range(B):
        if level == "sample":
            of_pairs, of_triplets = [], []
            for layer in (2, 3):
                ours, theirs = (
                    [items(signals, k, layer)[0] for k in range(B)] for signals in (student, teacher)
                )
                of_pairs += [(scaled(ours[b], ours[k]) - scaled(theirs[b], theirs[k])) ** 2 for k in range(B)]
                of_triplets += [
                    (angle(ours[b], ours[i], ours[k]) - angle(theirs[b], theirs[i], theirs[k])) ** 2
                    for j, i, k in triplets(B, B) if j == b
                ]  # fmt: skip
            expected.append(mean(iter(of_pairs)) + 0.5 * mean(iter(of_triplets)))
        else:
            layers = [
                related(items(student, b, layer), items(teacher, b, layer), 2, scaled) for layer in (0, 1)
            ]
            expected.append(mean(p + 0.5 * t for p, t in layers))
    objective = all_objectives()["granular_relations"](
        definition="windowed", levels=(level,), span=2, window=2, triplets=0.5
    )
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


def smooth(a: float, b: float) -> float:
    apart = abs(a - b)
    return apart**2 / 2 if apart < 1 else apart - 0.5


def heads_of(vector: Vector, heads: int) -> list[Vector]:
    width = len(vector) // heads
    return [vector[h * width : (h + 1) * width] for h in range(heads)]


def lower_level(ours: list[Vector], theirs: list[Vector], heads: int, top: int) -> float:
    """The authors' token (or phrase) loss of one text in one layer, triplets at half weight."""
    n, width = len(ours), len(ours[0]) // heads

    def scores(of: list[Vector], i: int, k: int) -> list[float]:
        return [
            dot(a, b) / math.sqrt(width)
            for a, b in zip(heads_of(of[i], heads), heads_of(of[k], heads), strict=True)
        ]

    of_pairs = mean(
        mean((a - b) ** 2 for a, b in zip(scores(ours, i, k), scores(theirs, i, k), strict=True))
        for i, k in pairs(n)
    )
    shares = [[0.0] * n for _ in range(n)]
    for i in range(n):
        by_head = [softmax([scores(theirs, i, k)[h] for k in range(n)]) for h in range(heads)]
        shares[i] = [sum(head[k] for head in by_head) for k in range(n)]
    received = [sum(shares[i][k] for i in range(n)) for k in range(n)]
    of_triplets = []
    for j in sorted(range(n), key=lambda k: -received[k])[:top]:
        near = sorted((k for k in range(n) if k != j), key=lambda k: -shares[j][k])[:top]
        of_triplets += [
            smooth(angle(ours[j], ours[i], ours[k]), angle(theirs[j], theirs[i], theirs[k]))
            for i, k in product(near, repeat=2) if i != k
        ]  # fmt: skip
    return of_pairs + 0.5 * mean(iter(of_triplets))


@pytest.mark.parametrize(("level", "size"), [("token", 1), ("span", 2)])
@pytest.mark.parametrize("top", [2, 20])
def test_granular_relations_of_tokens_and_spans(level: str, size: int, top: int) -> None:
    """As the authors have them: the first two of four layers, summed; texts of fewer than three spans have none."""
    student, teacher = pair_of({"states": (B, 4, T, D)})
    expected = []
    for ours, theirs, _ in by_text(student, teacher):
        items = [[pooled(of[layer], size) for layer in (0, 1)] for of in (ours, theirs)]
        related_at_all = size == 1 or len(items[0][0]) >= 3
        expected.append(
            sum(lower_level(one, other, 2, top) for one, other in zip(*items, strict=True))
            if related_at_all
            else 0.0
        )
    assert expected[0] > 0
    objective = all_objectives()["granular_relations"](
        levels=(level,), span=2, top=top, relation_heads=2, triplets=0.5
    )
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


@pytest.mark.parametrize("layers", [4, 3, 2, 1])
def test_granular_relations_of_samples(layers: int) -> None:
    """As the authors have them: the layers above the second (the last one at least), summed, at weight 4."""
    heads = 2
    student, teacher = pair_of({"states": (B, layers, T, D)})
    texts = list(by_text(student, teacher))
    expected = []
    for b in range(B):
        total = 0.0
        for layer, h in product(range(min(2, layers - 1), layers), range(heads)):
            ours, theirs = (
                [heads_of(pooled(text[of][layer], T)[0], heads)[h] for text in texts] for of in (0, 1)
            )
            total += sum(
                smooth(angle(ours[b], ours[i], ours[k]), angle(theirs[b], theirs[i], theirs[k]))
                for i, k in product(range(B), repeat=2) if len({b, i, k}) == 3
            )  # fmt: skip
        expected.append(4 * total / (heads * B**2))
    objective = all_objectives()["granular_relations"](levels=("sample",), relation_heads=heads)
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


def test_relation_heads_divide_both_widths() -> None:
    from gradistill.objectives.granular_relations import _most_heads

    assert (_most_heads(768, 768), _most_heads(768, 312), _most_heads(384, 384), _most_heads(100, 30)) == (
        64,
        24,
        64,
        5,
    )


def test_angles_where_two_vectors_coincide_are_zero_and_differentiable() -> None:
    from gradistill.objectives.relations import angles

    vectors = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    found = angles(vectors, 2)
    (gradient,) = torch.autograd.grad(found.sum(), vectors)
    assert found.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("unit_rows", [False, True])
def test_jacobian_matching(unit_rows: bool) -> None:
    student, teacher = pair_of({"jacobian": (B, C, T, D)})
    expected = []
    for b in range(B):
        total = 0.0
        for c in range(C):
            rows = [
                signals["jacobian"][b, c, : LENGTHS[b]].flatten().tolist() for signals in (student, teacher)
            ]
            total += squares(*(unit(row) if unit_rows else row for row in rows))
        expected.append(total)
    objective = all_objectives()["jacobian_matching"](unit=unit_rows)
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


def test_rows_of_unit_length_are_never_projected() -> None:
    """A projection of unit length is not the sum on average: of many labels the distance was C times too small."""
    jacobian = all_objectives()["jacobian_matching"]
    assert [jacobian(unit=True)._differentiated(labels).view for labels in (4, 5)] == ["all", "sampled"]
    assert jacobian()._differentiated(5).view == "projected"
    facts = ModelFacts(3, 8, 3)
    with pytest.raises(RecipeError, match="unit and directions: projected"):
        jacobian(unit=True, directions="projected").check(Pair(facts, facts, True))


def test_projected_rows_are_the_full_distance_on_average() -> None:
    """Random signs s: the mean of ``‖Σ s_c (J_t,c − J_s,c)‖²`` over all of them is the sum over labels."""
    student, teacher = pair_of({"jacobian": (B, C, T, D)})
    whole = measured(all_objectives()["jacobian_matching"](), student, teacher)
    projected = all_objectives()["jacobian_matching"](directions="projected")
    found = torch.zeros(B, dtype=torch.float64)
    for signs in product((-1.0, 1.0), repeat=C):
        along = torch.tensor(signs, dtype=torch.float64)
        seen = [
            {"jacobian": torch.einsum("bctd,c->btd", signals["jacobian"], along).unsqueeze(1)}
            for signals in (student, teacher)
        ]
        found += torch.tensor(measured(projected, *seen), dtype=torch.float64) / 2**C
    assert found.tolist() == pytest.approx(whole, **NEAR)
    drawn = drawn_for(BATCH, C, 0)
    assert set(drawn.signs.flatten().tolist()) <= {-1.0, 1.0}
    assert drawn.signs.shape == (B, C)


FACTS = ModelFacts(3, 16, 3, 2, 16)


@pytest.mark.parametrize(
    ("name", "fields", "student", "shared", "message"),
    [
        ("hidden_states", {"projection": False}, ModelFacts(3, 8, 3, 2, 8), True, "projection: true"),
        ("hidden_states", {"layer_map": (1, 2)}, FACTS, True, "is for 3 layers"),
        ("attention_scores", {}, ModelFacts(3, 16, 3, 4, 16), True, "student has 4, the teacher 2"),
        ("attention_scores", {}, ModelFacts(3, 16, 3), True, "attention of the student cannot be recorded"),
        ("self_attention_relations", {}, ModelFacts(3, 16, 3, 4, 16), True, "student has 4, the teacher 2"),
        ("self_attention_relations", {"heads": 3}, FACTS, True, "3 relation heads do not divide"),
        (
            "self_attention_relations",
            {"teacher_layer": 4},
            FACTS,
            True,
            "has 3 layers, and teacher_layer is 4",
        ),
        ("jacobian_matching", {}, ModelFacts(3, 8, 3), True, "8 wide, the teacher 16"),
        ("jacobian_matching", {}, FACTS, False, "has its own embeddings"),
        ("granular_relations", {"relation_heads": 3}, FACTS, True, "set relation_heads to 4"),
        ("granular_relations", {"window": 2}, FACTS, True, "window has no effect with definition: authors"),
        (
            "granular_relations",
            {"definition": "windowed", "top": 3},
            FACTS,
            True,
            "top has no effect with definition: windowed",
        ),
        ("rationale", {}, FACTS, False, "has its own embeddings"),
        ("rationale", {"target": "gold_loss"}, FACTS, True, "set view: gold"),
        ("explanation_similarity", {"target": "gold_loss"}, FACTS, True, "set view: gold"),
    ],
)
def test_what_cannot_apply_is_refused(
    name: str, fields: dict[str, Any], student: ModelFacts, shared: bool, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        all_objectives()[name](**fields).check(Pair(student, FACTS, shared))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("hidden_states", {}),
        ("self_attention_relations", {"heads": 4}),
        ("word_relations", {}),
        ("layer_relations", {}),
        ("granular_relations", {}),
        ("explanation_similarity", {}),
        ("rationale", {"direction": 0.0}),
    ],
)
def test_other_widths_and_depths_are_taken(name: str, fields: dict[str, Any]) -> None:
    all_objectives()[name](**fields).check(Pair(ModelFacts(5, 8, 3, 1, 8), FACTS, False))
