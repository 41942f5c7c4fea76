"""Numbers that a user gives in Python: what is no number of its kind is refused where it is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gradistill import AuditChoice, DataChoice, ExportChoice
from gradistill.auditing.methods import IntegratedGradients
from gradistill.auditing.methods.shapley import Shapley
from gradistill.auditing.methods.smoothgrad import SmoothGrad
from gradistill.errors import RecipeError, check_number, check_one_of, check_whole_numbers

WRONG = [
    *((AuditChoice, name, -1) for name in ("seed", "faithfulness_rows", "response_rows", "floor_rows", "examples")),
    *((AuditChoice, name, 0) for name in ("max_rows", "max_length", "beam", "shapley_pairs")),
    *((ExportChoice, name, -1) for name in ("seed", "response_rows", "max_rows", "vocabulary_size")),
    (IntegratedGradients, "steps", 0),
    (IntegratedGradients, "draws", 0),
    (IntegratedGradients, "seed", -1),
    *((IntegratedGradients, "tolerance", wrong) for wrong in (0.0, -0.1, float("nan"))),
    (Shapley, "pairs", 0),
    (Shapley, "seed", -1),
    (SmoothGrad, "samples", 0),
    *((SmoothGrad, "noise", wrong) for wrong in (-0.1, float("inf"))),
    (DataChoice, "validation_seed", -1),
    *((DataChoice, "validation_share", wrong) for wrong in (0.0, 1.0, float("nan"))),
    *((ExportChoice, "least_loyalty", wrong) for wrong in (-0.1, 1.1, float("nan"))),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "wrong"), WRONG)
def test_a_wrong_number_is_refused_where_it_is_given(kind: Any, name: str, wrong: Any) -> None:
    needed = {"source": "folder"} if kind is DataChoice else {}
    with pytest.raises(RecipeError) as refused:
        kind(**needed, **{name: wrong})
    assert name in str(refused.value)
    assert str(wrong) in str(refused.value)
    assert "Expected: " in str(refused.value)


@pytest.mark.parametrize("wrong", [None, "60", 6.5, True, -1])
def test_what_is_no_whole_number_is_refused(wrong: Any) -> None:
    choice = SimpleNamespace(rows=wrong)  # fields of a dataclass are checked in these tests before it can
    with pytest.raises(RecipeError, match=f"rows of SimpleNamespace is {wrong!r}"):
        check_whole_numbers(choice, rows=0)


@pytest.mark.parametrize("wrong", [None, "0.5", True, float("nan"), 0, 1, 2])
def test_what_is_no_number_between_the_ends_is_refused(wrong: Any) -> None:
    with pytest.raises(RecipeError) as refused:
        check_number(SimpleNamespace(share=wrong), "share", above=0.0, below=1.0)
    assert f"share of SimpleNamespace is {wrong!r}" in str(refused.value)
    assert "Expected: a number above 0 and below 1" in str(refused.value)


@pytest.mark.parametrize("wrong", [None, "word", "Words", 1])
def test_what_is_not_one_of_the_known_values_is_refused(wrong: Any) -> None:
    with pytest.raises(RecipeError, match=r"units is .*\n.*characters or words"):
        check_one_of(SimpleNamespace(units=wrong), "units", ("characters", "words"))


def test_the_ends_themselves_pass_where_they_may() -> None:
    for share in (0, 1, 0.5):
        check_number(SimpleNamespace(share=share), "share", least=0.0, most=1.0)


def test_whole_numbers_and_none_by_default_pass() -> None:
    check_whole_numbers(AuditChoice(max_rows=None, max_length=None), max_rows=1, max_length=1, seed=0)
    assert IntegratedGradients("auto").steps == "auto"


@pytest.mark.parametrize("watched", [("monday", " "), "monday", (3,)])
def test_watched_words_are_words(watched: Any) -> None:
    with pytest.raises(RecipeError, match="watched is"):
        AuditChoice(watched=watched)
