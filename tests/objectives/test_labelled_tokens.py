"""A label for each word: every objective works or is refused by name; the distances equal naive loops in float64."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import transformers as tr

from computed import path_of, run_of
from families import FAMILIES, build, collated
from gradistill.attribution.quadrature import integrated_gradients
from gradistill.attribution.word_targets import WordTarget
from gradistill.batch import UNLABELLED, Batch
from gradistill.errors import RecipeError, TrainingError
from gradistill.models.attention import second_order_attention
from gradistill.models.probe import Probe, ProbedModel
from gradistill.objectives import (
    AttributionMap,
    EpochProgress,
    HardLabel,
    Pair,
    Rationale,
    SoftLabel,
    Term,
    all_objectives,
)
from gradistill.objectives.labelled_tokens import objectives_of_tokens, refuse_what_labels_no_tokens
from gradistill.signals import AttributionScores, compute_signals
from gradistill.signals.explained_words import drawn_places
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training.gradient_check import check_second_order
from gradistill.training.label_smoothing import SmoothedHardLabel
from gradistill.training.lazy_terms import drawn_for
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


def distances(objective: Any, family: str = "bert", **known: Any) -> tuple[torch.Tensor, Any]:
    step, student = step_of(objective, family)
    with second_order_attention(student):
        (values,) = step.distances(student, replace(batch(), **known), EpochProgress())[0].values()
        values.sum().backward()
    return values.detach(), student


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
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    else:
        with pytest.raises(
            RecipeError, match=rf"the objective {name} needs .*(?s:.)*hard_label, .*soft_label"
        ):
            step_of(objective)


def test_those_of_the_labels_and_of_every_tokens_states_can_be_used() -> None:
    some = {"hard_label", "soft_label", "attribution_map", "rationale", "self_attention_relations"}
    assert some <= {*objectives_of_tokens()}
    refused = {"coalition_matching", "gradient_alignment", "jacobian_matching", "patience"}
    assert not refused & {*objectives_of_tokens()}


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "qwen2"])
@pytest.mark.parametrize("objective", [SoftLabel(), Rationale(words=2)], ids=str)
def test_token_classifiers_of_several_families_learn(family: str, objective: Any) -> None:
    values, student = distances(objective, family)
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
        values = objective.distance(student, teacher, of_tokens, EpochProgress())
        torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)


def test_rows_of_a_single_token_are_no_regression() -> None:
    """Tokenizers of decoders add no token, so that a sentence of one word may have one token."""
    one = replace(
        Batch.of({"input_ids": torch.tensor([[5], [7]]), "attention_mask": torch.ones(2, 1, dtype=torch.long),
                  "labels": torch.tensor([[2], [0]]), "word_ids": torch.zeros(2, 1, dtype=torch.long)}),
        token_labels=True,
    )  # fmt: skip
    logits = logits_of(1)[:2, :1]
    found = HardLabel().distance({"logits": logits}, {}, one, EpochProgress())
    expected = [-logits[row, 0].log_softmax(-1)[label] for row, label in enumerate((2, 0))]
    torch.testing.assert_close(found, torch.stack(expected))


@cache
def unit_map_of(seed: int, row: int, place: int, label: int) -> torch.Tensor:
    """By its definition: ``‖E_i · ∂F/∂E_i‖`` of the label's log-odds at one token, at unit length over real tokens."""
    model, probe = copy.deepcopy(found(seed)[0]).double(), found(seed)[1]
    one = batch().rows(torch.tensor([row]))
    with torch.no_grad():
        embedding = model(**one.inputs, output_hidden_states=True).hidden_states[0]
    embedding.requires_grad_()
    logits = run_of(model, probe, one)(embedding, torch.tensor([0]))[0, place]
    others = torch.cat([logits[:label], logits[label + 1 :]])
    (logits[label] - others.exp().sum().log()).backward()
    assert embedding.grad is not None
    scores = (embedding.detach() * embedding.grad)[0].norm(dim=-1)[one.mask[0]]
    return scores / scores.norm()


@pytest.mark.parametrize("view", ["all", "teacher", "gold", "sampled"])
@pytest.mark.parametrize("kind", [AttributionMap, Rationale])
def test_maps_of_words_equal_a_naive_loop(kind: Any, view: str) -> None:
    """Of both words that are drawn of each row, all labels or one; the mean over the words."""
    objective = kind(
        view=view, words=2, **({"direction": 0.0, "target": "log_odds"} if kind is Rationale else {})
    )
    step, student = step_of(objective)
    student.double(), step.teacher.model.double()  # pyright: ignore[reportOptionalMemberAccess]
    draws = drawn_for(batch(), 3, 5, epoch=1)
    (values,) = step.distances(student, replace(batch(), drawn=draws), EpochProgress())[0].values()
    predicted = logits_of(2).argmax(-1)
    places = drawn_places(batch(), predicted, 2, [1]).tolist()
    expected = []
    for row, of_row in enumerate(places):
        words = [place for place in of_row if place]
        total = 0.0
        for place in words:
            tag = int(TAGS[row, place])
            chosen = {
                "all": [0, 1, 2], "teacher": [int(predicted[row, place])],
                "gold": [tag if tag >= 0 else int(predicted[row, place])], "sampled": [int(draws.label[row])],
            }[view]  # fmt: skip
            for label in chosen:
                ours, theirs = (unit_map_of(seed, row, place, label) for seed in (1, 2))
                total += float(sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True)))
        expected.append(total / len(words) * (3 if view == "sampled" else 1))
    assert [len([p for p in of_row if p]) for of_row in places] == [2, 2, 1]
    torch.testing.assert_close(
        values.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12
    )


def test_integrated_gradients_of_words_keep_to_their_tokens() -> None:
    """Three steps, signed: the same as along the path of a function that returns each word's logits alone."""
    model, probe = copy.deepcopy(found(2)[0]).double(), found(2)[1]
    target = WordTarget("log_odds", "all", words=1)
    wanted = AttributionScores(target, 3, "gauss_legendre", signed=True)
    scores = compute_signals(model, probe, batch(), [wanted], create_graph=False)[wanted]
    places = drawn_places(batch(), logits_of(2).argmax(-1), 1, [0])[:, 0]
    run = run_of(model, probe, batch())
    with torch.no_grad():
        embedding = model(**batch().inputs, output_hidden_states=True).hidden_states[0]
    path = path_of(
        lambda rows, examples: run(rows, examples)[torch.arange(len(rows)), places[examples]],
        embedding, target.plain, None,
    )  # fmt: skip
    naive = integrated_gradients(path, steps=3).sum(-1).masked_fill(~batch().mask.unsqueeze(1), 0.0)
    torch.testing.assert_close(scores, naive, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [AttributionMap, Rationale])
def test_maps_of_words_have_the_right_second_derivative(kind: Any) -> None:
    step, student = step_of(kind(view="teacher"))
    student.double(), step.teacher.model.double()  # pyright: ignore[reportOptionalMemberAccess]
    with second_order_attention(student):
        readings = check_second_order(student, step.student.probe, batch(), step.signals("student"))
    assert readings
    assert all(reading.agrees for reading in readings)


@pytest.mark.parametrize("kind", [AttributionMap, Rationale])
def test_padding_changes_no_map_of_a_word(kind: Any) -> None:
    pads = {"input_ids": 0, "attention_mask": 0, "labels": -100, "word_ids": -1}
    columns = {**collated(), "labels": TAGS, "word_ids": WORDS}
    wide = {
        key: torch.nn.functional.pad(value, (0, 3), value=pads[key]) if key in pads else value
        for key, value in columns.items()
    }
    step, student = step_of(kind(words=2))
    found = []
    for one in (columns, wide):
        with second_order_attention(student):
            found.append(step.distances(student, Batch.of(one), EpochProgress())[0][kind.name].detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)  # float32, as in test_contract.py


def test_settings_of_the_other_kind_of_labels_are_refused() -> None:
    texts = Probe.find(build("bert"))
    with pytest.raises(
        RecipeError, match=r"attribution_map.words is 2, and the models predict one label for a"
    ):
        AttributionMap(words=2).check(Pair(texts, texts))
    with pytest.raises(RecipeError, match=r"rationale.confidence is set, .* and here each word has a label"):
        step_of(Rationale(confidence=True))


def test_rows_with_a_label_are_counted_and_first_tokens_found() -> None:
    assert batch().labelled().tolist() == [True, True, False]
    assert batch().first_tokens.nonzero().tolist() == [[0, 1], [0, 3], [0, 4], [1, 1], [1, 2], [2, 1]]
    assert batch().rows(torch.tensor([1])).first_tokens.sum() == 2


def test_models_and_labels_of_another_kind_are_refused() -> None:
    facts, plain = found(1)[1], Probe.find(build("bert"))
    with pytest.raises(TrainingError, match="The teacher labels tokens, and the student labels whole texts"):
        refuse_other_pair(Pair(plain, facts))
    with pytest.raises(TrainingError, match=r"int64s of the shape \(3,\), and the student labels tokens"):
        refuse_labels(Batch.of(collated()), facts)
    refuse_labels(batch(), facts)
    assert UNLABELLED == -100
