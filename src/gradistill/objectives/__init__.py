"""Objectives: one distance between two models' signals each, one file each.

``from gradistill.objectives import HardLabel, SoftLabel, Term``. A new objective is a file, a line here, and its test.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from gradistill.models.facts import ModelFacts
from gradistill.objectives.attention_scores import AttentionScores
from gradistill.objectives.attribution_map import AttributionMap
from gradistill.objectives.base import EpochProgress, Objective, Pair
from gradistill.objectives.coalition_matching import CoalitionMatching
from gradistill.objectives.counterfactual_effects import CounterfactualEffects
from gradistill.objectives.explanation_similarity import ExplanationSimilarity
from gradistill.objectives.gradient_alignment import GradientAlignment
from gradistill.objectives.granular_relations import GranularRelations
from gradistill.objectives.hard_label import HardLabel
from gradistill.objectives.hidden_states import HiddenStates
from gradistill.objectives.interchange import Interchange
from gradistill.objectives.jacobian_matching import JacobianMatching
from gradistill.objectives.layer_relations import LayerRelations
from gradistill.objectives.noise_matching import NoiseMatching
from gradistill.objectives.patience import Patience
from gradistill.objectives.rationale import Rationale
from gradistill.objectives.self_attention_relations import SelfAttentionRelations
from gradistill.objectives.soft_label import SoftLabel
from gradistill.objectives.term import Term
from gradistill.objectives.word_relations import WordRelations

__all__ = [
    "AttentionScores",
    "AttributionMap",
    "CoalitionMatching",
    "CounterfactualEffects",
    "EpochProgress",
    "ExplanationSimilarity",
    "GradientAlignment",
    "GranularRelations",
    "HardLabel",
    "HiddenStates",
    "Interchange",
    "JacobianMatching",
    "LayerRelations",
    "ModelFacts",
    "NoiseMatching",
    "Objective",
    "Pair",
    "Patience",
    "Rationale",
    "SelfAttentionRelations",
    "SoftLabel",
    "Term",
    "WordRelations",
    "all_objectives",
]


@cache
def all_objectives() -> Mapping[str, type[Objective]]:
    """The objectives of this package by the name that recipes give them, in alphabetical order.

    Example: ``all_objectives()["soft_label"] is SoftLabel``
    """
    kinds = (globals()[name] for name in __all__)
    found = {
        kind.name: kind
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, Objective) and kind is not Objective
    }
    return dict(sorted(found.items()))
