"""Changed copies of rows: what changes and what never does, against naive loops over the texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from gradistill.batch import UNLABELLED
from gradistill.data import get_task
from gradistill.data.checked_rows import prepared
from gradistill.data.transfer_rows import DELETE, REPLACE, TransferRows, replaceable_words, transfer_rows
from hostile import HOSTILE

ONE, PAIR, SCORE = get_task("sst2"), get_task("mrpc"), get_task("stsb")
NEAR = {"good": ("great", "fine"), "film": ("movie",), "Good": ("great",), "wörter": ("Straße",), "İ": ("x",)}
TEXTS = st.one_of(
    st.lists(
        st.sampled_from(["good", "film", "a", "(Good)", "wörter,", "!", "İ", "。", "😀", "x-1"]), max_size=6
    )
    .filter(any)
    .map(" ".join),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip),
    st.sampled_from([text for text in HOSTILE if "\ud800" not in text]),
)


def table(task: Any, *texts: Sequence[str], numbers: Sequence[int] | None = None) -> Dataset:
    """Rows of a prepared split; ``numbers`` choose some of them."""
    columns: dict[str, list[Any]] = {name: list(t) for name, t in zip(task.text_columns, texts, strict=True)}
    rows = prepared({**columns, "label": [0] * len(texts[0])}, task)
    return rows if numbers is None else rows.select(numbers)


def copies(found: TransferRows) -> dict[tuple[int, int], tuple[str, ...]]:
    """The texts by the row's number and the copy's."""
    texts = zip(*(found.texts[name].to_pylist() for name in found.texts.column_names), strict=True)
    return dict(zip(zip(found.sources, found.copies, strict=True), texts, strict=True))


def plain(texts: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(text.casefold().split()) for text in texts)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=40)
def test_every_copy_is_new_and_counted(pairs: list[tuple[str, str]], seed: int, paired: bool) -> None:
    task = PAIR if paired else ONE
    originals = pairs if paired else [pair[:1] for pair in pairs]
    rows = table(task, *zip(*originals, strict=True))
    found = transfer_rows(rows, task, NEAR, times=4, seed=seed)
    made = [plain(texts) for texts in copies(found).values()]
    assert len(set(made)) == len(made)
    assert not {*made} & {plain(texts) for texts in originals}
    assert all(text.strip() for texts in copies(found).values() for text in texts)
    assert len(found) + sum(found.left_out.values()) == 4 * len(rows)
    counts = found.counts()
    assert counts["rows"] == sum(counts["changes"].values()) == len(found)
    assert copies(transfer_rows(rows, task, NEAR, times=4, seed=seed)) == copies(found)
    fewer = copies(transfer_rows(rows, task, NEAR, times=2, seed=seed))
    assert fewer == {key: texts for key, texts in copies(found).items() if key[1] <= 2}


@given(st.lists(TEXTS, min_size=2, max_size=6, unique_by=str.casefold), st.data())
@settings(max_examples=25)
def test_other_rows_change_no_copy(texts: list[str], data: st.DataObject) -> None:
    """Only which copies are duplicates depends on them."""
    some = data.draw(st.lists(st.sampled_from(range(len(texts))), min_size=1, unique=True).map(sorted))
    whole = copies(transfer_rows(table(ONE, texts), ONE, NEAR, times=3))
    part = copies(transfer_rows(table(ONE, texts, numbers=some), ONE, NEAR, times=3))
    assert all(whole[key] == part[key] for key in whole.keys() & part.keys())
    assert {key for key in whole if key[0] in some} <= part.keys()


def explained(original: str, copy: str, near: Mapping[str, Sequence[str]]) -> bool:
    """Whether a copy is its text with words taken away and others replaced by near ones."""
    words, left = original.split(), copy.split()

    def fits(place: int, rest: int) -> bool:
        if rest == len(left):
            return True
        if place == len(words):
            return False
        same = left[rest] == words[place] or left[rest] in near.get(words[place], ())
        return (same and fits(place + 1, rest + 1)) or fits(place + 1, rest)

    return fits(0, 0)


def test_words_are_replaced_by_near_ones_or_deleted() -> None:
    text = "the good film was a very good one and the other film was not"
    found = transfer_rows(table(ONE, [text]), ONE, NEAR, times=200)
    made = [texts[0] for texts in copies(found).values()]
    assert len(made) > 50
    assert all(explained(text, copy, NEAR) for copy in made)
    assert {word for copy in made for word in copy.split()} - set(text.split()) == {"great", "fine", "movie"}
    assert all("  " not in copy and copy == copy.strip() for copy in made)


def test_rates() -> None:
    """Of many words as many are replaced and deleted as the rates say: the mean of a uniform draw, and a constant."""
    text = " ".join(f"w{k}" for k in range(200))
    near = {f"w{k}": (f"v{k}",) for k in range(200)}
    found = transfer_rows(table(ONE, [text]), ONE, near, times=300)
    total = 200 * 300
    assert found.words["replaced"] / total == pytest.approx(sum(REPLACE) / 2, abs=0.02)
    assert found.words["deleted"] / total == pytest.approx(DELETE, abs=0.005)
    shown = [sum(word.startswith("v") for word in texts[0].split()) for texts in copies(found).values()]
    assert sum(shown) == found.words["replaced"]


def test_punctuation_capitals_and_white_space_stay() -> None:
    near = {"Good": ("great",), "GOOD": ("great",), "good": ("Fine",), "film's": ("never",)}
    text = '  "Good"\tGOOD,\n(good) film\u2019s …'
    found = transfer_rows(table(ONE, [text]), ONE, near, times=60)
    made = [texts[0] for texts in copies(found).values()]
    whole = [copy for copy in made if len(copy.split()) == 5]
    allowed = [{'"Good"', '"Great"'}, {"GOOD,", "GREAT,"}, {"(good)", "(Fine)"}, {"film\u2019s"}, {"…"}]
    assert whole
    for copy in whole:
        assert all(word in words for word, words in zip(copy.split(), allowed, strict=True))
        assert copy.startswith('  "')
        assert "\t" in copy
        assert ",\n(" in copy
    assert replaceable_words(table(ONE, [text]), ONE) == {"Good", "GOOD", "good", "film\u2019s"}


def test_pairs_are_swapped_and_paired_anew() -> None:
    first, second = [f"first {k} good film" for k in range(40)], [f"second {k} good film" for k in range(40)]
    found = transfer_rows(table(PAIR, first, second), PAIR, NEAR, times=10)
    by_change: dict[str, list[tuple[int, tuple[str, ...]]]] = {"words": [], "swap": [], "re-pair": []}
    for change, ((row, _), texts) in zip(found.changes, copies(found).items(), strict=True):
        by_change[change].append((row, texts))
    assert all(texts == (second[row], first[row]) for row, texts in by_change["swap"])
    assert all(
        texts[0] == first[row] and texts[1] in second and texts[1] != second[row]
        for row, texts in by_change["re-pair"]
    )
    assert len({row for row, _ in by_change["swap"]}) == len(by_change["swap"])
    assert 15 < len(by_change["swap"]) < 40
    assert 20 < len(by_change["re-pair"]) < 80
    assert len({texts[1] for _, texts in by_change["re-pair"]}) > 20


def test_a_single_text_is_neither_swapped_nor_paired() -> None:
    found = transfer_rows(table(ONE, ["good film"] * 1), ONE, NEAR, times=20)
    assert set(found.changes) == {"words"}


def test_texts_that_cannot_change_are_left_out_and_counted() -> None:
    rows = table(ONE, ["unknown", "!?", "\u200b", "没"])
    found = transfer_rows(rows, ONE, NEAR, times=3)
    assert len(found) == 0
    assert found.left_out["unchanged"] + found.left_out["empty"] == 12
    assert found.left_out["duplicate"] == 0
    assert "0 changed copies of 4 rows" in found.describe(4)
    assert len(found.rows(ONE, first_index=4)) == 0


def test_one_word_has_as_many_copies_as_near_words() -> None:
    found = transfer_rows(table(ONE, ["good"]), ONE, NEAR, times=10)
    assert sorted(texts[0] for texts in copies(found).values()) == ["fine", "great"]
    assert sum(found.left_out.values()) == 8


def test_duplicates_of_rows_and_of_copies_with_lower_numbers_are_left_out() -> None:
    """Two rows of one word each have the same copies; that of the lower number stays, and of those the first row's."""
    rows = table(ONE, ["good", "good .", "great"])
    found = transfer_rows(rows, ONE, {"good": ("great", "fine"), "great": ("fine",)}, times=6)
    made = copies(found)
    texts = [plain(t) for t in made.values()]
    assert plain(["great"]) not in texts
    assert texts.count(plain(["fine"])) == 1
    assert found.left_out["duplicate"] >= 2
    kept = next(key for key, t in made.items() if plain(t) == plain(["fine"]))
    others = [
        copy
        for number in (0, 1, 2)
        for (_, copy), t in copies(
            transfer_rows(
                rows.select([number]), ONE, {"good": ("great", "fine"), "great": ("fine",)}, times=6
            )
        ).items()
        if plain(t) == plain(["fine"])
    ]
    assert kept[1] == min(others)


@pytest.mark.parametrize("task", [ONE, PAIR, SCORE], ids=lambda task: task.name)
def test_they_have_no_label_and_stand_behind_other_rows(task: Any) -> None:
    from datasets import concatenate_datasets

    rows = table(task, *[["good film", "film good"]] * len(task.text_columns))
    found = transfer_rows(rows, task, NEAR, times=2).rows(task, first_index=2)
    both = concatenate_datasets([rows, found])
    labels = both["label"][2:]
    assert labels
    assert all(math.isnan(label) if task is SCORE else label == UNLABELLED for label in labels)
    assert both["index"][:] == list(range(len(both)))
    assert both.features == rows.features
