"""Which figures favour a student, because its objectives train on what they measure."""

from __future__ import annotations

import pytest

from gradistill.auditing.trained_figures import (
    MAP_FIGURES,
    WORD_FIGURES,
    title_with_dagger,
    trained_by_recipe,
    trained_figures,
    with_trained_on,
)
from gradistill.objectives import Term, all_objectives
from gradistill.recipe import load_recipe
from gradistill.recipe.recipe_files import shipped_methods
from gradistill.signals.base import CHANGED_WORDS, GRADIENTS

GRADIENT, PATH = "gradient_x_input", "integrated_gradients"
WITH_COPIES = {"coalition", "coalition_minilm", "coalition_rationale"}
WITH_GRADIENTS = {
    "adkd", "coalition_rationale", "e2kd", "gkd", "gkd_cls", "jacobian", "rationale", "rationale_states",
}  # fmt: skip
OF_OBJECTIVES = {
    CHANGED_WORDS: {"coalition_matching", "counterfactual_effects"},
    GRADIENTS: {
        "attribution_map", "explanation_similarity", "gradient_alignment", "jacobian_matching", "noise_matching",
        "rationale",
    },
}  # fmt: skip


def trained(method: str, *changes: str, maps_by: str = GRADIENT) -> dict[str, list[str]]:
    recipe = load_recipe(method, changes=changes)
    found = trained_figures(recipe, maps_by)
    assert trained_by_recipe(recipe.as_yaml(), maps_by) == found
    return found


@pytest.mark.parametrize("method", shipped_methods())
def test_methods_with_copies_train_on_changed_words_and_those_with_gradients_on_maps(method: str) -> None:
    expected = {*WORD_FIGURES} if method in WITH_COPIES else set()
    expected |= {*MAP_FIGURES} if method in WITH_GRADIENTS else set()
    assert {*trained(method)} == expected


@pytest.mark.parametrize("name", all_objectives())
def test_every_objective_is_judged(name: str) -> None:
    """An objective that comes anew has to be put in its place here."""
    only = {"objectives": {name: Term(all_objectives()[name]())}}
    found = {*trained_figures(load_recipe("kd").model_copy(update=only))}
    assert (found >= {*WORD_FIGURES}) is (name in OF_OBJECTIVES[CHANGED_WORDS])
    assert (found >= {*MAP_FIGURES}) is (name in OF_OBJECTIVES[GRADIENTS])


@pytest.mark.parametrize(
    ("method", "changes", "maps_by", "maps"),
    [
        ("adkd", (), PATH, False),
        ("adkd", ("objectives.attribution_map.steps=4",), PATH, True),
        ("adkd", ("objectives.attribution_map.steps=4",), GRADIENT, True),
        ("rationale", (), PATH, False),
        ("rationale", (), "occlusion", False),
        ("coalition", (), "occlusion", True),
        ("coalition", (), "shapley", True),
        ("coalition", (), PATH, False),
        ("kd", ("training.augment=2",), "occlusion", True),
        ("kd", ("training.augment=2",), GRADIENT, False),
        ("rationale", (), "smoothgrad", True),
        ("rationale", (), "a method of a user", False),
    ],
)
def test_maps_count_where_the_method_of_the_audit_is_what_was_trained_on(
    method: str, changes: tuple[str, ...], maps_by: str, maps: bool
) -> None:
    assert ({*MAP_FIGURES} <= {*trained(method, *changes, maps_by=maps_by)}) is maps


@pytest.mark.parametrize("maps_by", [PATH, GRADIENT, "occlusion"])
def test_expected_gradients_count_where_whole_paths_were_trained_on(maps_by: str) -> None:
    for method, changes, counts in (
        ("adkd", (), False),
        ("adkd", ("objectives.attribution_map.steps=4",), True),
        ("rationale", (), False),
        ("coalition_minilm", (), False),
    ):
        assert ("expected_gradients" in trained(method, *changes, maps_by=maps_by)) is counts, method


def test_a_figure_names_all_that_train_on_it() -> None:
    assert trained("coalition_rationale")["response"] == ["coalition_matching"]
    assert trained("coalition_rationale")["saliency"] == ["rationale"]
    assert trained("coalition", "training.augment=2")["response"] == [
        "training.augment",
        "coalition_matching",
    ]
    assert trained("kd", "training.augment=2").keys() == {*WORD_FIGURES}


def test_an_objective_without_weight_does_not_count() -> None:
    assert trained("coalition", "objectives.coalition_matching.weight=0") == {}


def test_fields_of_another_version_leave_the_mark() -> None:
    text = "objectives: {coalition_matching: {newer: 3}, a_users_own: {weight: 1}}"
    assert trained_by_recipe(text)["response"] == ["coalition_matching"]


@pytest.mark.parametrize(
    "text",
    [None, "", "objectives", "objectives: []", "objectives: {}", "objectives: {a: {weight: 1}}", "training: 3",
     "{", "objectives: {coalition_matching: null}", "{1: 2, null: [3]}"],
)  # fmt: skip
def test_a_recipe_that_is_none_marks_nothing(text: str | None) -> None:
    assert trained_by_recipe(text) == {}


def test_what_is_no_figure_stays_as_it_is() -> None:
    figures = {"response": None, "saliency": {"value": 0.5}, "note": "a text"}
    assert with_trained_on(figures, {"response": ["x"], "note": ["x"]}) == figures
    assert title_with_dagger("saliency", {"value": 0.5}) == "saliency"
