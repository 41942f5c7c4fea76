"""Perturbations: any text, the same change each time, and nothing but that change."""

from __future__ import annotations

from random import Random

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from gradistill.auditing.perturbations import PERTURBATIONS, PREFIXES, Perturbation, perturbed

BY_NAME = {p.name: p for p in PERTURBATIONS}


@given(st.text(), st.integers(0, 9))
@pytest.mark.parametrize("change", PERTURBATIONS, ids=lambda p: p.name)
def test_any_text_is_changed_in_the_same_way_twice(change: Perturbation, text: str, seed: int) -> None:
    found = change.change(text, Random(seed))
    assert found == change.change(text, Random(seed))
    if text.strip():
        assert found.strip()


@given(st.text())
def test_typos_move_letters_and_lose_none(text: str) -> None:
    found = BY_NAME["typos"].change(text, Random(0))
    assert sorted(found) == sorted(text)
    assert [len(word) for word in found.split()] == [len(word) for word in text.split()]


def test_examples() -> None:
    assert BY_NAME["punctuation"].change("Well, it works. 3.5 stars!", Random(0)) == "Well it works 3.5 stars"
    assert BY_NAME["punctuation"].change("とても良い、映画。3.5点！", Random(0)) == "とても良い映画3.5点"
    assert BY_NAME["punctuation"].change("!!!", Random(0)) == "!!!"
    assert BY_NAME["case"].change("Straße", Random(0)) == "STRASSE"
    assert BY_NAME["prefix"].change("it works", Random(0)).removesuffix("it works") in PREFIXES
    assert BY_NAME["typos"].change("a fine film", Random(0)) != "a fine film"


def test_rows_keep_their_labels_and_their_own_change() -> None:
    rows = Dataset.from_dict(
        {"a": ["lovely thing"] * 3, "b": ["dreadful thing"] * 3, "label": [0, 1, 0], "index": [4, 5, 6]}
    )
    whole = perturbed(rows, ("a", "b"), BY_NAME["typos"], 0)
    part = perturbed(rows.select([2]), ("a", "b"), BY_NAME["typos"], 0)
    assert whole[2] == part[0]
    assert whole["label"][:] == [0, 1, 0]
    assert all(row["a"] != "lovely thing" for row in whole)


def test_rows_that_stay_as_they_are_do_not_count() -> None:
    """Capitals change nothing in Japanese, and every row of it counted as one that a student had withstood."""
    rows = Dataset.from_dict({"a": ["映画", "a film", "FILM"], "label": [0, 1, 0], "index": [4, 5, 6]})
    assert perturbed(rows, ("a",), BY_NAME["case"], 0)["index"][:] == [5]
    none = perturbed(rows.select([0]), ("a",), BY_NAME["case"], 0)
    assert len(none) == 0
    assert none.features == rows.features
