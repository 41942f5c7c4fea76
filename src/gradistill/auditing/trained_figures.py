"""Which figures favour a student, because its objectives train on what they measure: such a figure proves little alone.

It follows from the signals that the objectives share with a teacher (``Signal.trains_on``). That predictions of
unchanged texts agree is what every distillation trains on: figures of outputs have no mark.
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
from gradistill.recipe.schema import Recipe, term_of
from gradistill.recipe.strict_yaml import load_yaml
from gradistill.signals.base import CHANGED_WORDS, GRADIENTS

WORD_FIGURES = (
    "response", "response_masked", "response_partial", "response_slope", "response_labels", "flips", "flips_masked",
    "kept", "kept_masked", "shapley", "shapley_sign",
)  # fmt: skip
"""Figures on texts whose words are replaced."""

MAP_FIGURES = ("saliency", "signed", "signed_top", "top_k_overlap", "cosine", "kendall_tau")
"""Figures of the two models' attributions, by the audit's method."""

PATH_FIGURES = ("expected_gradients",)
"""Figures of Integrated Gradients, whatever the audit's method is."""

METHODS_OF = {
    CHANGED_WORDS: (Occlusion.name, Shapley.name),
    GRADIENTS: (GradientNorm.name, GradientXInput.name, SmoothGrad.name),
}
"""The attribution methods that rest on each."""

AUGMENT = "training.augment"
"""In the place of an objective, where a run added rows with changed words."""

COPIES = "changed copies (--unlabelled)"
"""The same, where they came as a file."""

EARLIER = "earlier_recipes"
"""Where a student's record has the recipes of the students that it started from, the last first."""

CHANGED_COPIES = "changed_copies"
"""Where a student's record has that rows of ``gradistill augment`` were among its unlabelled ones."""

TRAINED_ON, DAGGER = "trained_on", "†"
"""Where a figure in JSON has the objectives that train on it, and what shows that there are some."""

NOTE = f"{DAGGER}: the student was trained on what this figure measures, which favours it"


def trained_figures(recipe: Recipe, method: str = GradientXInput.name) -> dict[str, list[str]]:
    """Names of figures, each with the objectives that train on what it measures.

    Parameters:
        ``recipe``: the student's. An objective without weight does not count.
        ``method``: the name of the audit's attribution method.

    Example: ``trained_figures(load_recipe("rationale"))["saliency"]``
    """
    return _trained(recipe.objectives, method, AUGMENT if recipe.training.augment else None)


def trained_by_record(student: Mapping[str, Any], method: str = GradientXInput.name) -> dict[str, list[str]]:
    """The same of a student as a report has it: by its ``recipe``, ``earlier_recipes`` and ``changed_copies``, and by
    those of its ``models`` where several are one.

    Example: ``trained_by_record({"recipe": "objectives: {rationale: {weight: 1}}"})["saliency"]``
    """
    earlier, models = (
        found if isinstance(found := student.get(name), list) else () for name in (EARLIER, "models")
    )
    recipes = (recipe for recipe in (student.get("recipe"), *earlier) if isinstance(recipe, str))
    members = (trained_by_record(member, method) for member in models if isinstance(member, dict))
    copies = _trained({}, method, COPIES if student.get(CHANGED_COPIES) else None)
    return united(*(trained_by_recipe(recipe, method) for recipe in recipes), copies, *members)


def _trained(terms: Mapping[str, Term], method: str, rows: str | None) -> dict[str, list[str]]:
    """``rows``: what added rows with changed words, if something did."""
    words_by = {rows: _resting_on(CHANGED_WORDS, method)} if rows else {}
    by_objective = words_by | {
        name: {
            figure
            for signal in term.objective.signals(ANY_PAIR, "student").values()
            for figure in _resting_on(signal.trains_on, method, getattr(signal, "steps", 1))
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
    """The same of a recipe as a report has it, in YAML; nothing where there is none that can be read.

    An objective with fields that are not known here, of another version, counts by its defaults; one that is not known
    is left out.

    Example: ``trained_by_recipe("objectives: {rationale: {weight: 1}}")["saliency"]``
    """
    try:
        found = load_yaml(recipe or "")
    except ValueError:
        return {}
    written, training = (
        part if isinstance(part := (found.get(key) if isinstance(found, dict) else None), dict) else {}
        for key in ("objectives", "training")
    )
    terms = {
        str(name): term for name, fields in written.items() if fields and (term := _term(str(name), fields))
    }
    return _trained(terms, method, AUGMENT if training.get("augment") else None)


def united(*found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Several results of ``trained_figures`` as one.

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


def _resting_on(what: str | None, method: str, steps: int = 1) -> tuple[str, ...]:
    """The figures that rest on ``what``; maps where the method rests on it too. Integrated Gradients rest on the
    gradients of a whole path, of several ``steps``."""
    along_path = what == GRADIENTS and steps > 1
    maps = method in METHODS_OF.get(what or "", ()) or (along_path and method == IntegratedGradients.name)
    return WORD_FIGURES * (what == CHANGED_WORDS) + PATH_FIGURES * along_path + MAP_FIGURES * maps


def marked(figures: Mapping[str, Any], trained: Mapping[str, list[str]]) -> dict[str, Any]:
    """Figures as JSON has them, with the objectives that train on them.

    Example: ``marked({"response": {"value": 0.9}}, {"response": ["coalition_matching"]})``
    """
    return {
        name: {**figure, TRAINED_ON: trained[name]}
        if isinstance(figure, Mapping) and name in trained
        else figure
        for name, figure in figures.items()
    }


def marks_of(figures: Mapping[str, Any]) -> dict[str, list[str]]:
    """What ``marked`` wrote: names of figures, each with the objectives that train on it.

    Example: ``marks_of(json.loads(Path("runs/student/metrics.json").read_text())["loyalty"])``
    """
    return {
        name: entry[TRAINED_ON]
        for name, entry in figures.items()
        if isinstance(entry, Mapping) and TRAINED_ON in entry
    }


def marked_name(name: str, figure: Mapping[str, Any]) -> str:
    """The name of a figure, with the mark where it has one.

    Example: ``marked_name("response", {"value": 0.9, "trained_on": ["coalition_matching"]})``
    """
    return name + f" {DAGGER}" * bool(figure.get(TRAINED_ON))


def trained_note(figures: Iterable[Any]) -> str | None:
    """What the mark means, where one of the figures has it.

    Example: ``trained_note(metrics["loyalty"].values())``
    """
    return NOTE if any(isinstance(figure, Mapping) and figure.get(TRAINED_ON) for figure in figures) else None
