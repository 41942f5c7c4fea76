"""Which columns of a file a model is to read, and the sound rows before a faulty one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradistill.data.chunk_texts import choose_text_columns, first_rows, sound_parts
from gradistill.data.row_stream import RowStream
from gradistill.data.table import Table
from gradistill.errors import DataError

LONG = [f"a fine film of the year {k}, with words enough" for k in range(6)]
OTHERS = {"subject": [f"{text} too" for text in LONG], "url": [f"https://a.example/{k}" for k in range(6)]}


def table(columns: dict[str, list[Any]]) -> Table:
    return Table("rows.jsonl", columns, range(1, 7))


@pytest.mark.parametrize(
    ("columns", "recorded", "chosen"),
    [
        ({"text": LONG, **OTHERS}, ("sentence",), ("text",)),
        ({"text": LONG, "n": [1, None, "x", 2, 3, 4]}, ("sentence",), ("text",)),
        ({"a": LONG}, ("sentence",), ("a",)),
        ({"premise": LONG, "hypothesis": OTHERS["subject"], "note": LONG[::-1]}, ("a", "b"), ("premise", "hypothesis")),
    ],
)  # fmt: skip
def test_as_many_columns_as_the_model_reads(
    columns: dict[str, list[Any]], recorded: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    assert choose_text_columns(table(columns), None, recorded, ()) == chosen


def test_another_number_of_texts_is_refused_with_the_columns() -> None:
    columns = {"review": LONG, "body": OTHERS["subject"]}
    with pytest.raises(
        DataError, match=r"2 columns of text \(review, body\), and the model reads 1 column: sentence"
    ):
        choose_text_columns(table(columns), None, ("sentence",), ())
    with pytest.raises(DataError) as refused:
        choose_text_columns(table({"n": [1, 2, 3, 4, 5, 6]}), None, None, ())
    assert "label ''" not in str(refused.value)


def test_the_rows_before_a_faulty_one_are_sound() -> None:
    stream = RowStream(
        Path("stdin"), ".txt", line_columns=("a", "b"), given=iter(["1 a\tb", "one", "2 a\tb"])
    )
    (chunk,) = stream.chunks(10)
    parts = sound_parts(chunk, ("a", "b"))
    assert len(next(parts)) == 1
    with pytest.raises(DataError, match="row 2"):
        next(parts)
    assert first_rows(RowStream(Path("x"), ".txt", line_columns=("a",), given=iter(["b"]))).columns == {
        "a": ["b"]
    }
