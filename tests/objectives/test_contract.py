"""The contract, for every objective × architecture family × attention × dropout."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch.nn.utils.stateless import _reparametrize_module

from families import FAMILIES, HIDDEN_ATTENTION, build, collated
from gradistill.attribution.normalization import unit_maps
from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.models.attention import second_order_attention
from gradistill.models.probe import Probe, ProbedModel
from gradistill.objectives import EpochProgress, Objective, Pair, Term, all_objectives
from gradistill.signals import AttributionScores, compute_signals
from gradistill.signals.counterfactual import edited_ids_of
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training.lazy_terms import drawn_for
from gradistill.training.projections import projections_for
from gradistill.training.step import Step
from slow import slow

EVERY: dict[str, Objective] = {
    **{name: kind() for name, kind in all_objectives().items()},
    "gradient_alignment_cls": all_objectives()["gradient_alignment"](
        sites=("embedding_output", "cls"), view="teacher"
    ),
    "attribution_map_ig": all_objectives()["attribution_map"](steps=3, keep=0.5),
    "attribution_map_gold": all_objectives()["attribution_map"](
        target="gold_loss", view="gold", average="tokens"
    ),
    "attribution_map_sampled": all_objectives()["attribution_map"](view="sampled"),
    "gradient_alignment_sampled": all_objectives()["gradient_alignment"](
        sites=("embedding_output", "cls"), view="sampled"
    ),
    "self_attention_relations_v1": all_objectives()["self_attention_relations"](
        relations=("attention", "value")
    ),
    "self_attention_relations_heads": all_objectives()["self_attention_relations"](heads=4),
    "coalition_matching_hardest": all_objectives()["coalition_matching"](
        copies=3, hardest=1, sizes="shapley", replacement="mask"
    ),
    "counterfactual_effects_tokens": all_objectives()["counterfactual_effects"](
        replacement="tokens", effect=1.0
    ),
    "jacobian_matching_projected": all_objectives()["jacobian_matching"](directions="projected"),
    "rationale_whole": all_objectives()["rationale"](
        target="margin", view="all", unit="token", sign=1.0, focus=True, confidence=True
    ),
}


OF_EVERY_TOKEN = {"hidden_states", "interchange", "word_relations", "layer_relations", "granular_relations"}
"""Objectives on the states of all tokens; Funnel shortens the text."""


def batch_of(collated: Any) -> Batch:
    """With what stands in for words: objectives on changed copies need it, and no other looks at it."""
    special = {"special_tokens_mask": torch.zeros_like(collated["input_ids"])}
    return Batch.of(special | collated, mask_token_id=3, token_pool=torch.arange(5, 64))


def applies(name: str, family: str) -> bool:
    if name.startswith(("attention_scores", "self_attention")):
        return family not in HIDDEN_ATTENTION
    return not (name in OF_EVERY_TOKEN and family == "funnel")


OF_PREDICTIONS_ALONE = {"coalition_matching", "noise_matching", "counterfactual_effects", "interchange"}
"""Objectives on several predictions of a model, of whose inside they see nothing."""

SOME = ("bert", "deberta_v2", "modernbert", "qwen3")
ON_FIRST_AND_LAST = [*((name, "bert") for name in EVERY), *(slow(name, "qwen3") for name in EVERY)]
"""Every objective, and a family that reads the first token or one that reads the last."""


def on_families(*names: str) -> Any:
    """Parametrised over every objective and those of the families that it applies to; settings of one over some."""
    return pytest.mark.parametrize(
        ("name", "family"),
        [
            (name, family)
            for name in names or EVERY
            for family in (FAMILIES if name in {*all_objectives()} - OF_PREDICTIONS_ALONE else SOME)
            if applies(name, family)
        ],
    )


@pytest.mark.parametrize("family", sorted(HIDDEN_ATTENTION))
@pytest.mark.parametrize("name", ["attention_scores", "self_attention_relations"])
def test_attention_that_cannot_be_looked_into_is_refused(name: str, family: str) -> None:
    with pytest.raises(RecipeError, match="cannot be recorded"):
        step_of(EVERY[name], family)


@cache
def looked_into(family: str, labels: int, attention: str | None, seed: int) -> tuple[Any, Probe]:
    """Looking into a model takes longer than most tests here: it is done once."""
    model = build(family, labels=labels, seed=seed, attention=attention)
    return model, Probe.find(model)


@pytest.mark.parametrize("name", sorted(OF_EVERY_TOKEN))
def test_states_of_shortened_texts_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="shortens the sequence"):
        step_of(EVERY[name], "funnel")


def step_of(
    objective: Objective, family: str, labels: int = 3, attention: str | None = None
) -> tuple[Step, Any, Any]:
    """The step, and a student and a teacher that a test may do with as it likes."""
    pairs = [looked_into(family, labels, attention, seed) for seed in (1, 2)]
    student, teacher = (copy.deepcopy(model) for model, _ in pairs)
    probes = [probe for _, probe in pairs]
    pair = Pair(probes[0], probes[1])
    objective.check(pair)
    return Step([Term(objective)], pair, *probed_step(student, teacher, probes)), student, teacher


def probed_step(student: Any, teacher: Any, probes: list[Probe]) -> tuple[ProbedModel, OnlineTeacher]:
    return ProbedModel(student, probes[0]), OnlineTeacher(ProbedModel(teacher, probes[1]))


def silent_matrices(model: Any) -> list[str]:
    """Trainable weight matrices that feel nothing: the second-order path is cut there. (Sinusoids are fixed.)"""
    return [
        name
        for name, p in model.named_parameters()
        if p.ndim == 2 and name.endswith(".weight") and "embed" not in name
        if p.grad is None or not p.grad.any()
    ]


@on_families("rationale")
def test_default_attention_gives_the_gradients_of_eager_attention(name: str, family: str) -> None:
    """Of one label and of all: the attention does not know what is made of the gradients."""
    found = []
    for attention in (None, "eager"):
        step, student, teacher = step_of(EVERY[name], family, attention=attention)
        student.double(), teacher.double()
        with second_order_attention(student):
            distances(step, student, batch_of(collated())).sum().backward()
        found.append({n: p.grad for n, p in student.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for key, gradient in found[0].items():
        # float64, but for norms and softmaxes that some families compute in float32
        torch.testing.assert_close(gradient, found[1][key], rtol=1e-3, atol=1e-5)


def with_draws(batch: Batch, step: Step) -> Batch:
    return replace(batch, drawn=drawn_for(batch, step.pair.student.labels, 0))


def distances(step: Step, student: Any, batch: Batch) -> torch.Tensor:
    (found,) = step.distances(student, with_draws(batch, step), EpochProgress())[0].values()
    return found


@on_families()
def test_per_example_finite_and_never_into_the_teacher(name: str, family: str) -> None:
    """With the family's default attention, which the trainer makes differentiable twice."""
    finite_per_example(name, family, attention=None, dropout=True)


@pytest.mark.parametrize(("name", "family"), ON_FIRST_AND_LAST)
def test_the_same_with_eager_attention_from_the_start(name: str, family: str) -> None:
    finite_per_example(name, family, attention="eager", dropout=False)


def finite_per_example(name: str, family: str, *, attention: str | None, dropout: bool) -> None:
    step, student, teacher = step_of(EVERY[name], family, attention=attention)
    student.train(dropout)
    with second_order_attention(student):
        found = distances(step, student, batch_of(collated()))
        assert found.shape == (3,)
        found.sum().backward()
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    if EVERY[name].second_order:
        assert not silent_matrices(student)
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize(("name", "family"), ON_FIRST_AND_LAST)
def test_padding_changes_nothing(name: str, family: str) -> None:
    step, student, _ = step_of(EVERY[name], family)
    narrow, wide = collated(tokens=7), collated(tokens=7)
    for key, filler in (("input_ids", 0), ("attention_mask", 0)):
        wide[key] = torch.nn.functional.pad(wide[key], (0, 4), value=filler)
    found = [distances(step, student, batch_of(batch)).detach() for batch in (narrow, wide)]
    # float32: masked attention adds terms of the order of 1e-7
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["soft_label", "attribution_map", "hidden_states", "self_attention_relations_heads", "word_relations",
     "layer_relations", "granular_relations", "explanation_similarity", "rationale_narrow"],
)  # fmt: skip
def test_a_student_of_another_width_and_depth_learns(name: str) -> None:
    """Half as wide, and deeper than its teacher."""
    narrow = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 16, "num_hidden_layers": 4}
    objective = (EVERY | {"rationale_narrow": all_objectives()["rationale"](direction=0.0)})[name]
    student, teacher = build("bert", seed=1, **narrow), build("bert", seed=2)
    probe, online = Probe.find(student), OnlineTeacher(teacher)
    pair, terms = Pair(probe, online.probe, shared_embeddings=False), [Term(objective)]
    objective.check(pair)
    step = Step(terms, pair, ProbedModel(student, probe), online, projections=projections_for(terms, pair))
    with second_order_attention(student):
        distances(step, student, batch_of(collated())).sum().backward()
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert any(gradient.any() for gradient in gradients)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("labels", [1, slow(2), 3])
def test_zero_on_identical_signals(name: str, labels: int) -> None:
    objective = EVERY[name]
    step, student, _ = step_of(objective, "bert", labels)
    batch = with_draws(batch_of(collated(labels)), step)
    if name == "hard_label":
        certain = (
            torch.nn.functional.one_hot(batch.labels, labels) * 1e4 if labels > 1 else batch.labels[:, None]
        )
        signals = {"logits": certain.float()}
    else:
        signals = {}
        for role in ("teacher", "student"):
            requests = objective.signals(step.pair, role)
            answers = compute_signals(
                student, step.student.probe, batch, requests.values(), create_graph=False
            )
            batch = replace(batch, edited_ids=edited_ids_of(answers, batch))
            signals |= {key: answers[request] for key, request in requests.items()}
    assert objective.distance(signals, signals, batch, EpochProgress()).abs().max() < 1e-6


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("attribution_map", "gradient_alignment") else slow(name)
        for name, kind in all_objectives().items()
        if kind().second_order
    ],
)
def test_gradgradcheck_on_a_tiny_bert(name: str) -> None:
    """Every objective on gradients, through a whole model, in float64, with respect to the embedding output."""
    step, student, teacher = step_of(EVERY[name], "bert")
    student, teacher = student.double(), teacher.double()
    small = {key: value[:1, :4] if value.ndim > 1 else value[:1] for key, value in collated().items()}
    batch = batch_of(small)
    parameters = [
        student.bert.encoder.layer[0].attention.self.query.bias,
        student.bert.encoder.layer[2].output.LayerNorm.weight,
        student.classifier.bias,
    ]

    names = [next(n for n, p in student.named_parameters() if p is q) for q in parameters]

    def of_parameters(*values: torch.Tensor) -> torch.Tensor:
        with _reparametrize_module(student, dict(zip(names, values, strict=True))):
            return distances(step, student, batch)

    with second_order_attention(student):
        inputs = tuple(p.detach().clone().requires_grad_() for p in parameters)
        whole = name == "rationale"  # which has both kinds of distances; others along one direction drawn
        assert torch.autograd.gradcheck(of_parameters, inputs, fast_mode=not whole)
        assert torch.autograd.gradgradcheck(of_parameters, inputs, fast_mode=True)


def test_targets_give_one_map() -> None:
    """log-odds, −log p and confidence: one map and one direction, where p is not saturated (METHODS.md 1.2)."""
    model = build("bert", labels=3, initializer_range=0.2).double()
    batch, probe = batch_of(collated()), Probe.find(model)
    targets = [Target(kind, "all") for kind in ("log_odds", "label_nll", "confidence")]
    signals = compute_signals(
        model, probe, batch, [AttributionScores(target) for target in targets], create_graph=False
    )
    maps = [unit_maps(signals[AttributionScores(target)], batch.mask.unsqueeze(1)) for target in targets]
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(maps[0], maps[2], rtol=1e-9, atol=1e-12)


def test_log_odds_maps_stay_right_where_the_others_are_lost() -> None:
    """A confident head in float32 against float64: the log-odds map holds to 1e-3, −log p's is gone."""
    batch = batch_of(collated(2))
    maps = {}
    for dtype in (torch.float32, torch.float64):
        model = build("bert", labels=2, initializer_range=0.2).to(dtype)
        with torch.no_grad():
            model.classifier.weight.mul_(1000)
        for kind in ("log_odds", "label_nll"):
            request = AttributionScores(Target(kind, "teacher"))
            signals = compute_signals(model, Probe.find(model), batch, [request], create_graph=False)
            maps[kind, dtype] = unit_maps(signals[request], batch.mask.unsqueeze(1)).double()
    truth = maps["log_odds", torch.float64]
    assert (maps["log_odds", torch.float32] - truth).abs().max() < 1e-3
    assert (maps["label_nll", torch.float32] - truth).abs().max() > 0.1
