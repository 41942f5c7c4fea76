"""What --search understands, and what is searched when nobody says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradistill.commands.search_space import SearchField, changes_of, default_space, parse_search_field
from gradistill.errors import RecipeError
from gradistill.recipe import load_recipe

numbers = st.floats(1e-6, 1e6, allow_subnormal=False).map(lambda x: float(f"{x:.4g}"))


@given(low=numbers, high=numbers, log=st.booleans())
def test_a_range_is_read_back_as_it_is_written(low: float, high: float, log: bool) -> None:
    text = f"training.learning_rate={low!r}..{high!r}{':log' if log else ''}"
    if low < high:
        assert parse_search_field(text) == SearchField("training.learning_rate", low, high, log)
    else:
        with pytest.raises(RecipeError, match="--search"):
            parse_search_field(text)


@given(
    st.text(max_size=30) | st.builds("a={}".format, st.text(alphabet=".,:=[]{}e0123-nif\x1b", max_size=12))
)
def test_any_text_is_a_search_or_an_error_of_ours(text: str) -> None:
    try:
        found = parse_search_field(text)
    except RecipeError as error:
        assert "--search" in str(error)
    else:
        assert found.field
        assert found.low < found.high or len(found.choices) > 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.epochs=1..4", SearchField("training.epochs", 1.0, 4.0, whole=True)),
        ("a.b=.5..2", SearchField("a.b", 0.5, 2.0)),
        (
            "objectives.rationale.unit=text,token",
            SearchField("objectives.rationale.unit", choices=("text", "token")),
        ),
        (
            "objectives.rationale.focus=true,false",
            SearchField("objectives.rationale.focus", choices=(True, False)),
        ),
    ],
)
def test_ranges_of_whole_numbers_and_choices(text: str, expected: SearchField) -> None:
    assert parse_search_field(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a=",
        "=1..2",
        "a=1",
        "a=2..1",
        "a=0..1:log",
        "a=-1..1:log",
        "a=x..y",
        "a=b,b",
        "a=nan..1",
        "a=0..inf",
        "a=\x1b",
        "a=[b,c",
        "a={b: 1},2",
        "a=2001-02-30,1",
    ],
)
def test_what_cannot_be_searched_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--search"):
        parse_search_field(text)


def test_by_default_the_learning_rate_and_what_weighs_beside_the_labels() -> None:
    found = {one.field: one for one in default_space(load_recipe("adkd"))}
    assert set(found) == {
        "training.learning_rate", "objectives.soft_label.weight", "objectives.attribution_map.weight",
    }  # fmt: skip
    assert all(one.log and one.high == pytest.approx(100 * one.low) for one in found.values())


@pytest.mark.parametrize("value", [1e-5, 0.1, 3, True, "text", None])
def test_values_arrive_in_the_recipe_as_they_are(value: Any) -> None:
    from gradistill.recipe.recipe_files import parsed_change

    (change,) = changes_of([SearchField("a.b")], {"a.b": value})
    assert parsed_change(change) == {"a": {"b": value}}
