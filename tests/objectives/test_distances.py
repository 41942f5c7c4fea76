"""Every distance equals a naive loop in float64, to 1e-10: the only slack is the order of additions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gradistill.attribution.normalization import unit_maps
from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.objectives import AttributionMap, EpochProgress, ModelFacts, Pair, all_objectives
from objectives.loops import (
    GOLD,
    LENGTHS,
    NEAR,
    TOKENS,
    B,
    C,
    D,
    L,
    T,
    V,
    measured,
    pair_of,
    softmax,
    squares,
    unit,
)


def test_hard_label() -> None:
    student, _ = pair_of({"logits": (B, C)})
    expected = [
        -math.log(softmax(z)[y]) for z, y in zip(student["logits"].tolist(), GOLD.tolist(), strict=True)
    ]
    assert measured(all_objectives()["hard_label"](), student, {}) == pytest.approx(expected, **NEAR)


@pytest.mark.parametrize("divergence", ["kl", "soft_cross_entropy"])
@pytest.mark.parametrize("squared", [False, True])
def test_soft_label(divergence: str, squared: bool) -> None:
    student, teacher = pair_of({"logits": (B, C)})
    objective = all_objectives()["soft_label"](3.0, divergence=divergence, times_temperature_squared=squared)
    expected = []
    for z_s, z_t in zip(student["logits"].tolist(), teacher["logits"].tolist(), strict=True):
        p_s, p_t = softmax([z / 3 for z in z_s]), softmax([z / 3 for z in z_t])
        entropy = -sum(p * math.log(p) for p in p_t) if divergence == "kl" else 0.0
        cross = -sum(p * math.log(q) for p, q in zip(p_t, p_s, strict=True))
        expected.append((cross - entropy) * (9 if squared else 1))
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


def test_soft_label_anneals_to_one_and_survives_one_epoch() -> None:
    objective = all_objectives()["soft_label"](4.0, anneal=True)
    assert [objective.temperature_at(EpochProgress(e, 4)) for e in range(4)] == [4.0, 3.0, 2.0, 1.0]
    assert objective.temperature_at(EpochProgress(0, 1)) == 4.0
    student, teacher = pair_of({"logits": (B, C)})
    plain = all_objectives()["soft_label"](1.0)
    assert measured(objective, student, teacher, EpochProgress(3, 4)) == measured(plain, student, teacher)


def test_regression_distances() -> None:
    student, teacher = pair_of({"logits": (B, 1)})
    z_s, z_t = student["logits"][:, 0].tolist(), teacher["logits"][:, 0].tolist()
    hard = [(z - y) ** 2 for z, y in zip(z_s, GOLD.tolist(), strict=True)]
    soft = [((a - b) / 2) ** 2 for a, b in zip(z_s, z_t, strict=True)]
    assert measured(all_objectives()["hard_label"](), student, {}) == pytest.approx(hard, **NEAR)
    assert measured(all_objectives()["soft_label"](2.0), student, teacher) == pytest.approx(soft, **NEAR)


def test_patience() -> None:
    student, teacher = pair_of({"states": (B, L, D)})
    expected = [
        sum(squares(unit(s), unit(t)) for s, t in zip(*rows, strict=True)) / (L * D)
        for rows in zip(student["states"].tolist(), teacher["states"].tolist(), strict=True)
    ]
    assert measured(all_objectives()["patience"](), student, teacher) == pytest.approx(expected, **NEAR)


@pytest.mark.parametrize("average", ["tokens", "examples"])
@pytest.mark.parametrize("sites", [("embedding_output",), ("cls",), ("embedding_output", "cls")])
def test_gradient_alignment(average: str, sites: tuple[str, ...]) -> None:
    shapes = {"embedding_output": (B, V, T, D), "cls": (B, V, L, D)}
    student, teacher = pair_of({site: shapes[site] for site in sites})
    objective = all_objectives()["gradient_alignment"](sites=sites, average=average)
    expected = []
    for b in range(B):
        total = 0.0
        for site in sites:
            real = LENGTHS[b] if site == "embedding_output" else L
            apart = sum(
                squares(unit(student[site][b, v, i].tolist()), unit(teacher[site][b, v, i].tolist()))
                for v in range(V)
                for i in range(real)
            )
            total += apart / TOKENS if site == "embedding_output" and average == "tokens" else apart
        expected.append(total)
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


@pytest.mark.parametrize("average", ["tokens", "examples"])
@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("by", ["l1", "l2", "smooth_l1"])
def test_attribution_map(average: str, norm: int, by: str) -> None:
    student, teacher = pair_of({"scores": (B, V, T)})
    student, teacher = ({"scores": signals["scores"].abs()} for signals in (student, teacher))
    objective = all_objectives()["attribution_map"](norm=norm, distance_by=by, average=average)
    token = {
        "l1": abs,
        "l2": lambda x: x**2,
        "smooth_l1": lambda x: 0.5 * x**2 if abs(x) < 1 else abs(x) - 0.5,
    }[by]
    expected = []
    for b in range(B):
        summed = 0.0
        for v in range(V):
            a_s = unit(student["scores"][b, v, : LENGTHS[b]].tolist(), norm)
            a_t = unit(teacher["scores"][b, v, : LENGTHS[b]].tolist(), norm)
            summed += sum(token(x - y) for x, y in zip(a_t, a_s, strict=True))
        expected.append(summed / TOKENS if average == "tokens" else summed)
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


def test_token_average_is_the_average_over_all_real_tokens() -> None:
    student, teacher = pair_of({"scores": (B, V, T)})
    student, teacher = ({"scores": signals["scores"].abs()} for signals in (student, teacher))
    by_token = all_objectives()["attribution_map"](average="tokens")
    by_example = all_objectives()["attribution_map"](average="examples")
    averaged = sum(measured(by_token, student, teacher)) / B
    assert averaged == pytest.approx(sum(measured(by_example, student, teacher)) / sum(LENGTHS), **NEAR)


FACTS = ModelFacts(layers=3, width=16, labels=3)


@pytest.mark.parametrize(
    ("name", "fields", "student", "shared", "message"),
    [
        ("patience", {}, ModelFacts(3, 8, 3), True, "width 8 .student. and 16 .teacher."),
        ("patience", {}, ModelFacts(1, 16, 3), True, "1 layer.s. has no intermediate state"),
        ("patience", {"layer_map": (1, 9)}, FACTS, True, "layer map .1, 9."),
        ("gradient_alignment", {}, ModelFacts(3, 8, 3), True, "8 wide, the teacher 16"),
        ("gradient_alignment", {}, FACTS, False, "has its own embeddings"),
        ("gradient_alignment", {"sites": ("cls",)}, ModelFacts(1, 16, 3), True, "no intermediate state"),
        (
            "attribution_map",
            {"target": "label_nll"},
            ModelFacts(3, 16, 1),
            True,
            "label_nll.*in a regression",
        ),
        ("attribution_map", {"target": "gold_loss", "view": "all"}, FACTS, True, "set view: gold"),
    ],
)
def test_what_cannot_apply_is_refused_before_training(
    name: str, fields: dict, student: ModelFacts, shared: bool, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        all_objectives()[name](**fields).check(Pair(student, FACTS, shared))


@pytest.mark.parametrize("hardest", [None, 1])
@pytest.mark.parametrize("labels", [1, 3])
def test_coalition_matching_is_the_mean_over_copies(hardest: int | None, labels: int) -> None:
    student, teacher = pair_of({"copies": (B, 2, labels)})
    expected = []
    for ours, theirs in zip(student["copies"].tolist(), teacher["copies"].tolist(), strict=True):
        apart = []
        for a, b in zip(ours, theirs, strict=True):
            p, q = softmax([z / 2 for z in b]), softmax([z / 2 for z in a])
            kl = 4 * sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
            apart.append(kl if labels > 1 else (a[0] - b[0]) ** 2)
        expected.append(max(apart) if hardest else sum(apart) / 2)
    found = measured(all_objectives()["coalition_matching"](hardest=hardest), student, teacher)
    assert found == pytest.approx(expected, **NEAR)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"keep": (0.9, 0.1)}, "keep"),
        ({"keep": (0.1, 1.5)}, "keep"),
        ({"keep": (0.2, 0.5), "sizes": "shapley"}, "without a rate"),
        ({"hardest": 3}, "hardest is 3"),
    ],
)
def test_coalition_matching_refuses_what_cannot_be(settings: dict, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        all_objectives()["coalition_matching"](**settings).check(
            Pair(ModelFacts(3, 8, 3), ModelFacts(6, 8, 3))
        )


def test_means_over_words_are_of_the_whole_step() -> None:
    """Eight rows in one batch, and in two with fewer and more words: as ``average: tokens`` without raw texts."""
    objective = AttributionMap(average="tokens")
    generator = torch.Generator().manual_seed(0)
    numbers = torch.full((8, 10), -1)
    numbers[:4, :3], numbers[4:, :9] = torch.arange(3), torch.arange(9)
    read = torch.nn.functional.pad((numbers >= 0).float(), (0, 2))
    maps = [torch.rand(8, 2, 12, generator=generator) for _ in range(2)]
    step = {"words_per_example": torch.tensor(6.0), "tokens_per_example": torch.tensor(10.0)}

    def summed(rows: slice) -> Tensor:
        own = numbers[rows]
        columns = {"input_ids": torch.ones_like(own), "word_ids": own}
        student, teacher = ({"scores": each[rows], "words": read[rows]} for each in maps)
        return objective.distance(student, teacher, Batch.of(columns, **step), EpochProgress()).sum()

    whole = summed(slice(0, 8))
    torch.testing.assert_close(summed(slice(0, 4)) + summed(slice(4, 8)), whole)
    apart = [unit_maps(each, read.bool().unsqueeze(1), objective.norm) for each in maps]
    per_word = (apart[0] - apart[1]).square().sum() / read.sum()
    torch.testing.assert_close(whole / 8, per_word)
