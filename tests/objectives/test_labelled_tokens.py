"""A label for each word: every objective works or is refused by name; the distances equal naive loops in float64."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import transformers as tr

from families import FAMILIES, build, collated
from gradistill.batch import UNLABELLED, Batch
from gradistill.errors import RecipeError, TrainingError
from gradistill.models.probe import Probe, ProbedModel
from gradistill.objectives import HardLabel, Moment, Pair, SoftLabel, Term, all_objectives
from gradistill.objectives.labelled_tokens import objectives_of_tokens, refuse_what_labels_no_tokens
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training.label_smoothing import SmoothedHardLabel
from gradistill.training.step import Step
from gradistill.training.trainer_checks import refuse_labels, refuse_other_pair

WORDS = torch.tensor([[-1, 0, 0, 1, 2, 2, -1], [-1, 0, 1, 1, -1, -1, -1], [-1, 0, -1, -1, -1, -1, -1]])
TAGS = torch.tensor([
    [-100, 1, -100, 0, 2, -100, -100], [-100, 0, -100, -100, -100, -100, -100], [-100] * 7,
])  # fmt: skip
"""Of the second row one word has no tag, of the third none has."""


def batch() -> Batch:
    return Batch.of({**collated(), "labels": TAGS, "word_ids": WORDS})


@cache
def found(seed: int, family: str = "bert") -> tuple[Any, Probe]:
    config = FAMILIES[family][0](**{**FAMILIES[family][1], "num_labels": 3, "initializer_range": 0.2})
    torch.manual_seed(seed)
    model = tr.AutoModelForTokenClassification.from_config(config).eval()
    return model, Probe.find(model)


def step_of(objective: Any, family: str = "bert") -> tuple[Step, Any]:
    (student, own), (teacher, theirs) = found(1, family), found(2, family)
    student, pair = copy.deepcopy(student), Pair(own, theirs)
    refuse_what_labels_no_tokens([Term(objective)], pair)
    objective.check(pair)
    online = OnlineTeacher(ProbedModel(copy.deepcopy(teacher), theirs))
    return Step([Term(objective)], pair, ProbedModel(student, own), online), student


def distances(objective: Any, family: str = "bert") -> tuple[torch.Tensor, Any]:
    step, student = step_of(objective, family)
    (values,) = step.distances(student, batch(), Moment())[0].values()
    return values, student


def test_the_probe_knows_token_classifiers() -> None:
    probe = found(1)[1]
    assert (probe.token_labels, probe.labels, probe.trim) == (True, 3, None)
    assert not Probe.find(build("bert")).token_labels


@pytest.mark.parametrize("name", all_objectives())
def test_every_objective_works_or_is_refused_with_those_that_do(name: str) -> None:
    objective = all_objectives()[name]()
    if name in objectives_of_tokens():
        values, student = distances(objective)
        assert values.shape == (3,)
        assert bool(values.isfinite().all())
        values.sum().backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    else:
        with pytest.raises(
            RecipeError, match=rf"the objective {name} is of .*(?s:.)*hard_label, .*soft_label"
        ):
            step_of(objective)


def test_those_of_the_labels_and_of_every_tokens_states_can_be_used() -> None:
    assert {"hard_label", "soft_label", "hidden_states", "self_attention_relations"} <= {
        *objectives_of_tokens()
    }
    refused = {"attribution_map", "rationale", "coalition_matching", "gradient_alignment", "patience"}
    assert not refused & {*objectives_of_tokens()}


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "qwen2"])
def test_token_classifiers_of_several_families_learn(family: str) -> None:
    values, student = distances(SoftLabel(), family)
    values.sum().backward()
    assert values[:2].min() > 0
    assert next(p for n, p in student.named_parameters() if "embed" in n).grad.abs().sum() > 0


def logits_of(seed: int) -> torch.Tensor:
    model = copy.deepcopy(found(seed)[0]).double()
    with torch.no_grad():
        return model(**batch().inputs).logits


def test_distances_equal_naive_loops() -> None:
    ours, theirs, temperature = logits_of(1), logits_of(2), 2.0
    first = [[1, 3, 4], [1, 2], [1]]
    soft, hard, smoothed = [], [], []
    for row, places in enumerate(first):
        of_words = []
        for place in places:
            p = (theirs[row, place] / temperature).softmax(-1)
            q = (ours[row, place] / temperature).softmax(-1)
            of_words.append(sum(a * (a.log() - b.log()) for a, b in zip(p, q, strict=True)))
        soft.append(temperature**2 * sum(of_words) / len(of_words))
        of_labels = [
            -ours[row, place].log_softmax(-1)[TAGS[row, place]] for place in places if TAGS[row, place] >= 0
        ]
        spread = [-ours[row, place].log_softmax(-1).mean() for place in places if TAGS[row, place] >= 0]
        hard.append(sum(of_labels) / max(len(of_labels), 1))
        smoothed.append(0.9 * hard[-1] + 0.1 * sum(spread) / max(len(spread), 1))
    known = torch.tensor(
        2 / 3
    ).double()  # counted in float32; the mean over examples is that over rows with a label
    of_tokens = replace(batch(), token_labels=True)
    student, teacher = {"logits": ours}, {"logits": theirs}
    for objective, expected in (
        (SoftLabel(temperature=temperature, times_temperature_squared=True), torch.stack(soft)),
        (HardLabel(), torch.stack([torch.as_tensor(x).double() for x in hard]) / known),
        (
            SmoothedHardLabel(smoothing=0.1),
            torch.stack([torch.as_tensor(x).double() for x in smoothed]) / known,
        ),
    ):
        values = objective.distance(student, teacher, of_tokens, Moment())
        torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)


def test_rows_with_a_label_are_counted_and_first_tokens_found() -> None:
    assert batch().labelled().tolist() == [True, True, False]
    assert batch().first_tokens.nonzero().tolist() == [[0, 1], [0, 3], [0, 4], [1, 1], [1, 2], [2, 1]]
    assert batch().rows(torch.tensor([1])).first_tokens.sum() == 2


def test_models_and_labels_of_another_kind_are_refused() -> None:
    facts, plain = found(1)[1], Probe.find(build("bert"))
    with pytest.raises(
        TrainingError, match="The teacher labels the tokens of a text, and the student whole texts"
    ):
        refuse_other_pair(Pair(plain, facts))
    with pytest.raises(TrainingError, match=r"int64s of the shape \(3,\), and the student labels the tokens"):
        refuse_labels(Batch.of(collated()), facts)
    refuse_labels(batch(), facts)
    assert UNLABELLED == -100
