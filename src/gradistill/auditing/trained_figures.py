"""Marks figures that favour a student because its objectives train on what they measure. Alone they prove little.

The marks follow from the signals of the student's objectives (``Signal.trains_on``). Every distillation trains on the
agreement of predictions for unchanged texts, so figures of outputs are not marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gradistill.auditing.methods import GradientXInput, IntegratedGradients
from gradistill.auditing.methods.gradient_norm import GradientNorm
from gradistill.auditing.methods.occlusion import Occlusion
from gradistill.auditing.methods.shapley import Shapley
from gradistill.auditing.methods.smoothgrad import SmoothGrad
from gradistill.errors import RecipeError
from gradistill.objectives import Term, all_objectives
from gradistill.objectives.base import ANY_PAIR
from gradistill.recipe.schema import Recipe, recipe_part, term_of
from gradistill.recipe.strict_yaml import load_yaml
from gradistill.signals.base import CHANGED_WORDS, GRADIENTS

WORD_FIGURES = (
    "response", "response_masked", "response_partial", "response_slope", "response_labels", "flips", "flips_masked",
    "kept", "kept_masked", "shapley", "shapley_sign",
)  # fmt: skip
"""Figures that are measured on texts with replaced words."""

MAP_FIGURES = ("saliency", "signed", "signed_top", "top_k_overlap", "cosine", "kendall_tau")
"""Figures of the two models' attributions by the audit's method."""

PATH_FIGURES = ("expected_gradients",)
"""Figures of Integrated Gradients, for every method of the audit."""

METHODS_OF = {
    CHANGED_WORDS: (Occlusion.name, Shapley.name),
    GRADIENTS: (GradientNorm.name, GradientXInput.name, SmoothGrad.name),
}
"""For each kind of audit figure, the attribution methods that measure it."""

AUGMENT = "training.augment"
"""Stands for an objective if a run added rows with changed words."""

COPIES = "changed copies (--unlabelled)"
"""Stands for an objective if rows with changed words were added from a file."""

EARLIER = "earlier_recipes"
"""Key of a student's record: the recipes of the students that it started from, the last one first."""

CHANGED_COPIES = "changed_copies"
"""Key of a student's record: whether its unlabelled rows include rows of ``gradistill augment``."""

TRAINED_ON, DAGGER = "trained_on", "†"
"""The key of a figure in JSON with the objectives that train on it, and the sign that shows this."""

NOTE = f"{DAGGER}: the student was trained on what this figure measures, which favours it"


def trained_figures(recipe: Recipe, method: str = GradientXInput.name) -> dict[str, list[str]]:
    """The figures that a recipe trains on: by name of a figure, the objectives that train on what it measures.

    Parameters:
        ``recipe``: the student's recipe. Objectives with weight 0 do not count.
        ``method``: the name of the audit's attribution method.

    Example: ``trained_figures(load_recipe("rationale"))["saliency"]``
    """
    return _trained(recipe.objectives, method, AUGMENT if recipe.training.augment else None)


def trained_by_record(student: Mapping[str, Any], method: str = GradientXInput.name) -> dict[str, list[str]]:
    """The figures that a student was trained on (``trained_figures``), from its record in a report.

    It reads ``recipe``, ``earlier_recipes`` and ``changed_copies``, also of its ``models`` if the student combines
    several.

    Example: ``trained_by_record({"recipe": "objectives: {rationale: {weight: 1}}"})["saliency"]``
    """
    earlier, models = (
        listed if isinstance(listed := student.get(name), list) else () for name in (EARLIER, "models")
    )
    recipes = (recipe for recipe in (student.get("recipe"), *earlier) if isinstance(recipe, str))
    members = (trained_by_record(member, method) for member in models if isinstance(member, dict))
    copies = _trained({}, method, COPIES if student.get(CHANGED_COPIES) else None)
    return united(*(trained_by_recipe(recipe, method) for recipe in recipes), copies, *members)


def _trained(terms: Mapping[str, Term], method: str, rows: str | None) -> dict[str, list[str]]:
    """The figures that terms train on. ``rows`` names what added rows with changed words, if anything did."""
    words_by = {rows: _figures_measuring(CHANGED_WORDS, method)} if rows else {}
    by_objective = words_by | {
        name: {
            figure
            for signal in term.objective.signals(ANY_PAIR, "student").values()
            for figure in _figures_measuring(signal.trains_on, method, getattr(signal, "steps", 1))
        }
        for name, term in terms.items()
        if term.weight
    }
    return {
        figure: owners
        for figure in (*WORD_FIGURES, *PATH_FIGURES, *MAP_FIGURES)
        if (owners := [name for name, figures in by_objective.items() if figure in figures])
    }


def trained_by_recipe(recipe: str | None, method: str = GradientXInput.name) -> dict[str, list[str]]:
    """The figures that a recipe in YAML trains on (``trained_figures``); empty if it cannot be read.

    An objective with unknown fields, from another version, counts with its default settings. Unknown objectives are
    left out.

    Example: ``trained_by_recipe("objectives: {rationale: {weight: 1}}")["saliency"]``
    """
    try:
        loaded = load_yaml(recipe or "")
    except ValueError:
        return {}
    written, training = (recipe_part(loaded, part) for part in ("objectives", "training"))
    terms = {
        str(name): term for name, fields in written.items() if fields and (term := _term(str(name), fields))
    }
    return _trained(terms, method, AUGMENT if training.get("augment") else None)


def united(*found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Several results of ``trained_figures``, merged.

    Example: ``united({"response": ["coalition_matching"]}, {"saliency": ["rationale"]})``
    """
    figures = dict.fromkeys(figure for one in found for figure in one)
    return {f: list(dict.fromkeys(name for one in found for name in one.get(f, ()))) for f in figures}


def _term(name: str, fields: Any) -> Term | None:
    try:
        return term_of(name, fields)
    except RecipeError:
        known = all_objectives()
        return Term(known[name]()) if name in known else None


def _figures_measuring(what: str | None, method: str, steps: int = 1) -> tuple[str, ...]:
    """The figures that measure ``what`` a signal trains on. Figures of maps are among them if the audit's ``method``
    measures it too. Integrated Gradients measure gradients along a path, which takes several ``steps``."""
    along_path = what == GRADIENTS and steps > 1
    maps = method in METHODS_OF.get(what or "", ()) or (along_path and method == IntegratedGradients.name)
    return WORD_FIGURES * (what == CHANGED_WORDS) + PATH_FIGURES * along_path + MAP_FIGURES * maps


def with_trained_on(figures: Mapping[str, Any], trained: Mapping[str, list[str]]) -> dict[str, Any]:
    """Figures in their JSON form, with the objectives that train on them.

    Example: ``with_trained_on({"response": {"value": 0.9}}, {"response": ["coalition_matching"]})``
    """
    return {
        name: {**figure, TRAINED_ON: trained[name]}
        if isinstance(figure, Mapping) and name in trained
        else figure
        for name, figure in figures.items()
    }


def trained_on_of(figures: Mapping[str, Any]) -> dict[str, list[str]]:
    """What ``with_trained_on`` added: by name of a figure, the objectives that train on it.

    Example: ``trained_on_of(json.loads(Path("runs/student/metrics.json").read_text())["loyalty"])``
    """
    return {
        name: entry[TRAINED_ON]
        for name, entry in figures.items()
        if isinstance(entry, Mapping) and TRAINED_ON in entry
    }


def title_with_dagger(name: str, figure: Mapping[str, Any]) -> str:
    """The name of a figure, with a † if the student was trained on it.

    Example: ``title_with_dagger("response", {"value": 0.9, "trained_on": ["coalition_matching"]})``
    """
    return name + f" {DAGGER}" * bool(figure.get(TRAINED_ON))


def trained_note(figures: Iterable[Any]) -> str | None:
    """The footnote that explains the †, or None if no figure has one.

    Example: ``trained_note(metrics["loyalty"].values())``
    """
    return NOTE if any(isinstance(figure, Mapping) and figure.get(TRAINED_ON) for figure in figures) else None
