"""Every field of every objective does something: no key of a recipe is there for nothing."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pytest
import torch

from families import build, collated
from gradistill.batch import Batch
from gradistill.models.probe import Probe
from gradistill.objectives import EpochProgress, Objective, Pair, all_objectives
from gradistill.signals import (
    AttentionVectors,
    AttributionScores,
    ClsGradient,
    ClsStates,
    CopyLogits,
    CounterfactualLogits,
    CounterfactualTokens,
    EditedLogits,
    InputGradient,
    InterchangeLogits,
    Logits,
    NoiseLogits,
    States,
)

OF_WORDS: dict[str, Any] = {"each word": "has a label"}
"""In the place of settings: the field has a meaning for such models alone."""

CHANGES: dict[str, list[tuple[dict[str, Any], str, Any]]] = {
    "hard_label": [],
    "soft_label": [
        ({}, "temperature", 2.0),
        ({}, "divergence", "soft_cross_entropy"),
        ({"temperature": 2.0}, "times_temperature_squared", True),
        ({"temperature": 2.0}, "anneal", True),
    ],
    "coalition_matching": [
        ({}, "copies", 3),
        ({}, "sets", 2),
        ({}, "keep", (0.5, 0.95)),
        ({}, "sizes", "shapley"),
        ({}, "replacement", "mask"),
        ({}, "hardest", 1),
        ({}, "temperature", 1.0),
        ({}, "seed", 1),
    ],
    "counterfactual_effects": [
        ({}, "effect", 1.0),
        ({}, "replacement", "tokens"),
        ({}, "margin", 0.0),
        ({}, "temperature", 1.0),
        ({}, "seed", 1),
    ],
    "interchange": [
        ({}, "copies", 3),
        ({}, "sets", 2),
        ({}, "layer_map", "first"),
        ({}, "temperature", 1.0),
        ({}, "seed", 1),
    ],
    "noise_matching": [
        ({}, "copies", 3),
        ({}, "sets", 2),
        ({}, "sigma", 0.3),
        ({}, "temperature", 1.0),
        ({}, "seed", 1),
    ],
    "patience": [({}, "layer_map", (1,))],
    "hidden_states": [
        ({}, "layer_map", "first"),
        ({}, "embeddings", False),
        ({}, "projection", False),
    ],
    "attention_scores": [({}, "layer_map", "first")],
    "self_attention_relations": [
        ({}, "relations", ("value",)),
        ({}, "heads", 4),
        ({}, "teacher_layer", 1),
    ],
    "word_relations": [
        ({}, "layer_map", "first"),
        ({}, "embeddings", False),
        ({}, "divergence", "squared"),
        ({}, "window", 1),
        ({}, "triplets", 0.5),
    ],
    "layer_relations": [
        ({}, "layer_map", "first"),
        ({}, "divergence", "squared"),
        ({}, "triplets", 0.5),
    ],
    "granular_relations": [
        ({}, "layer_map", "first"),
        ({}, "definition", "windowed"),
        ({}, "levels", ("span",)),
        ({}, "span", 2),
        ({}, "triplets", 0.5),
        ({}, "relation_heads", 2),
        ({}, "top", 2),
        ({"levels": ("token",)}, "token_layers", 1),
        ({}, "sample_weight", 1.0),
        ({"definition": "windowed"}, "window", 1),
        ({"definition": "windowed"}, "samples_from", 0.0),
    ],
    "jacobian_matching": [({}, "directions", "projected"), ({}, "unit", True)],
    "explanation_similarity": [
        ({}, "target", "confidence"),
        ({}, "view", "all"),
        ({}, "explanation", "magnitude"),
    ],
    "rationale": [
        ({}, "target", "margin"),
        ({}, "view", "teacher"),
        ({}, "magnitude", 2.0),
        ({}, "direction", 2.0),
        ({}, "sign", 1.0),
        ({}, "steps", 2),
        ({"unit": "token"}, "focus", True),
        ({}, "unit", "token"),
        ({}, "confidence", True),
        (OF_WORDS, "words", 2),
    ],
    "gradient_alignment": [
        ({}, "target", "confidence"),
        ({}, "view", "teacher"),
        ({}, "sites", ("embedding_output", "cls")),
        ({"sites": ("cls",)}, "layer_map", (1,)),
        ({}, "average", "examples"),
    ],
    "attribution_map": [
        ({}, "target", "confidence"),
        ({}, "view", "teacher"),
        ({}, "steps", 2),
        ({}, "rule", "gauss_legendre"),
        ({}, "keep", 0.5),
        ({}, "norm", 1),
        ({}, "distance_by", "l1"),
        ({}, "average", "tokens"),
        (OF_WORDS, "words", 2),
    ],
}


@pytest.mark.parametrize("name", all_objectives())
def test_every_field_is_used(name: str) -> None:
    """Each field, changed, changes what is asked of a model, or the distance."""
    kind = all_objectives()[name]
    assert {field for _, field, _ in CHANGES[name]} == {field.name for field in dataclasses.fields(kind)}
    for given, field, value in CHANGES[name]:
        own, of_words = (given, False) if given is not OF_WORDS else ({}, True)
        before, after = (_fingerprint(kind(**own, **changed), of_words) for changed in ({}, {field: value}))
        assert before != after, f"{name}.{field} = {value!r} does nothing"


def _fingerprint(objective: Objective, of_words: bool) -> tuple[object, ...]:
    pair = Pair(*(dataclasses.replace(_probe(layers), token_labels=of_words) for layers in (2, 4)))
    asked = tuple(tuple(objective.signals(pair, role).items()) for role in ("student", "teacher"))
    torch.manual_seed(0)
    signals = [{key: torch.rand(_shape(request)) for key, request in role} for role in asked]
    found = objective.distance(signals[0], signals[1], Batch.of(collated()), EpochProgress(1, 3))
    return (*asked, str(objective.projections(pair)), *(round(x, 6) for x in found.tolist()))


@cache
def _probe(layers: int) -> Probe:
    return Probe.find(build("bert", num_hidden_layers=layers))


def _shape(request: Any) -> tuple[int, ...]:
    layers = len(getattr(request, "layers", ()))
    return {
        Logits: (3, 3), ClsStates: (3, layers, 4), InputGradient: (3, 1, 7, 4), ClsGradient: (3, 1, layers, 4),
        AttributionScores: (3, 1, 7), States: (3, layers, 7, 4), AttentionVectors: (3, layers, 7, 2, 4),
        CopyLogits: (3, 2, 3), NoiseLogits: (3, 2, 3), InterchangeLogits: (3, 2, 3),
        CounterfactualLogits: (3, 3), EditedLogits: (3, 3), CounterfactualTokens: (3, 1, 7),
    }[type(request)]  # fmt: skip
