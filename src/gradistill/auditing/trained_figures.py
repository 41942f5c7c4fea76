"""Which figures favour a student, because its objectives train on what they measure: such a figure proves little alone.

Training follows from the signals that objectives share with a teacher. Predictions of texts with words replaced are
what figures on changed words compare, on texts that are changed alike. Gradients are what maps of gradients rest on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gradistill.auditing.methods import GradientXInput, IntegratedGradients
from gradistill.auditing.methods.gradient_norm import GradientNorm
from gradistill.auditing.methods.occlusion import Occlusion
from gradistill.auditing.methods.shapley import Shapley
from gradistill.auditing.methods.smoothgrad import SmoothGrad
from gradistill.objectives.base import ANY_PAIR, Objective
from gradistill.signals import ClsGradient, Signal

WORD_FIGURES = (
    "response", "response_masked", "response_partial", "response_slope", "response_labels", "flips", "flips_masked",
    "kept", "kept_masked", "shapley", "shapley_sign",
)  # fmt: skip
"""Figures on texts whose words are replaced."""

MAP_FIGURES = ("saliency", "signed", "signed_top", "top_k_overlap", "cosine", "kendall_tau")
"""Figures of the two models' attributions, by the audit's method."""

BY_WORDS = (Occlusion.name, Shapley.name)
"""Attribution methods that replace words or tokens."""

BY_GRADIENT = (GradientNorm.name, GradientXInput.name, SmoothGrad.name)
"""Attribution methods that rest on gradients at the input."""

KEY, MARK = "trained_on", "†"
"""Where a figure in JSON has the objectives that train on it, and what shows that there are some."""

NOTE = f"{MARK}: the student was trained on what this figure measures, which favours it"


def trained_figures(
    objectives: Mapping[str, Objective], method: str, *, augmented: bool = False
) -> dict[str, list[str]]:
    """Names of figures, each with the objectives that train on what it measures.

    Parameters:
        ``objectives``: those of the student, by their names in its recipe.
        ``method``: the name of the audit's attribution method.
        ``augmented``: whether rows with changed words were added (``training.augment``).

    Example: ``trained_figures({"rationale": Rationale()}, "gradient_x_input")["saliency"]``
    """
    found = {figure: ["augment"] for figure in WORD_FIGURES if augmented}
    for name, objective in objectives.items():
        signals = objective.signals(ANY_PAIR, "student").values()
        for figure in dict.fromkeys(figure for signal in signals for figure in _favoured(signal, method)):
            found.setdefault(figure, []).append(name)
    return found


def marked(figures: Mapping[str, Any], trained: Mapping[str, list[str]]) -> dict[str, Any]:
    """Figures as JSON has them, with the objectives that train on them.

    Example: ``marked({"response": {"value": 0.9}}, {"response": ["coalition_matching"]})``
    """
    return {
        name: {**figure, KEY: trained[name]} if isinstance(figure, Mapping) and name in trained else figure
        for name, figure in figures.items()
    }


def marked_name(name: str, figure: Mapping[str, Any]) -> str:
    """The name of a figure, with the mark where it has one.

    Example: ``marked_name("response", {"value": 0.9, "trained_on": ["coalition_matching"]})``
    """
    return name + f" {MARK}" * bool(figure.get(KEY))


def trained_note(figures: Iterable[Any]) -> str | None:
    """What the mark means, where one of the figures has it.

    Example: ``trained_note(metrics["loyalty"].values())``
    """
    return NOTE if any(isinstance(figure, Mapping) and figure.get(KEY) for figure in figures) else None


def _favoured(signal: Signal, method: str) -> tuple[str, ...]:
    """The figures on which a student of this signal trains."""
    by_words, by_gradient = signal.replaces_words, signal.second_order and not isinstance(signal, ClsGradient)
    by_path = by_gradient and getattr(signal, "steps", 1) > 1
    maps = (
        (by_words and method in BY_WORDS)
        or (by_gradient and method in BY_GRADIENT)
        or (by_path and method == IntegratedGradients.name)
    )
    return WORD_FIGURES * by_words + MAP_FIGURES * maps
