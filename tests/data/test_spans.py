"""Marked passages: what is read, what is refused with its place, and tokens back to characters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gradistill.data import encode, load_splits
from gradistill.data.tokenization import token_places
from gradistill.errors import DataError, RecipeError
from wordpiece import tokenizer

TEXT = "a fine film, truly"


def written(folder: Path, cells: list[Any]) -> Path:
    rows = [{"text": TEXT, "label": ("no", "yes")[k % 2], "why": cell} for k, cell in enumerate(cells)]
    file = folder / "validation.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def loaded(folder: Path, **options: Any) -> Any:
    named = {"label_column": "label", "text_columns": ("text",), "span_column": "why"}
    return load_splits(folder, splits=("validation",), **{**named, **options}).rows["validation"]


def test_spans_come_in_characters(tmp_path: Path) -> None:
    cells = [[[2, 6]], [[2, 6], [13, 18]], [], "[[0, 1, 0]]", None, ""]
    spans = loaded(written(tmp_path, cells))["spans"][:]
    assert spans == [[[2, 6, 0]], [[2, 6, 0], [13, 18, 0]], [], [[0, 1, 0]], [], []]


def test_words_become_characters(tmp_path: Path) -> None:
    spans = loaded(written(tmp_path, [[[1, 2]], [[1, 4]]]), span_units="words")["spans"][:]
    assert [[TEXT[a:b] for a, b, _ in row] for row in spans] == [["fine"], ["fine film, truly"]]


@pytest.mark.parametrize(
    "cell", [[[6, 2]], [[0, 99]], [[-1, 2]], [[0, 1, 1]], [[0]], [["a", "b"]], "[[", 7, {"a": 1}, [[0, 1, 0, 0]], [3]]
)  # fmt: skip
def test_a_bad_cell_is_named_with_its_row(cell: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation.jsonl, row 2, column 'why'.*marks no passage"):
        loaded(written(tmp_path, [[[0, 1]], cell]))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the column is missing; did you mean 'why'"):
        loaded(written(tmp_path, [[[0, 1]], []]), span_column="whi")


@pytest.mark.parametrize("length", [5, 8, 128])
def test_places_are_those_of_the_encoded_tokens(length: int, tmp_path: Path) -> None:
    pair = [{"a": "the brown fox of the fox", "b": "The fox", "label": k % 2} for k in range(3)]
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pair))
    splits = load_splits(tmp_path, splits=("validation",), label_column="label", text_columns=("a", "b"))
    pieces, rows = tokenizer(), splits.rows["validation"]
    encoded = encode(rows, pieces, splits.task, max_length=length).dataset
    for row, text, places in zip(encoded, pair, token_places(rows, pieces, splits.task, max_length=length),
                                 strict=True):  # fmt: skip
        assert len(places.offsets) == row["length"]
        assert [segment is None for segment in places.segments] == [
            bool(x) for x in row["special_tokens_mask"]
        ]
        for token, (start, end), segment in zip(
            row["input_ids"], places.offsets, places.segments, strict=True
        ):
            if segment is not None:
                printed = (text["a"], text["b"])[segment][start:end]
                assert printed.lower() == pieces.convert_ids_to_tokens(token).lower()


def test_a_tokenizer_without_offsets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = load_splits(written(tmp_path, [[], []]), splits=("validation",), text_columns=("text",))
    pieces = tokenizer()
    monkeypatch.setattr(type(pieces), "is_fast", False)
    with pytest.raises(RecipeError, match="fast tokenizer"):
        token_places(splits.rows["validation"], pieces, splits.task)
