"""Files of a teacher's answers: what they hold, which rows they are for, and what is refused, with the row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradistill.data.probabilities import LEAST
from gradistill.data.tasks import inferred_task
from gradistill.data.teacher_answers import AnswerFile, row_id
from gradistill.errors import DataError

TASK = inferred_task(("text",), ("no", "yes"), "")
SCORES = inferred_task(("text",), None, "")
SEVERAL = inferred_task(("text",), ("no", "yes"), "", multi_label=True)
TEXTS = [("a",), ("b",)]


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize(
    ("rows", "task", "logits"),
    [
        (({"logit_no": 1.5, "logit_yes": -2}, {"logit_no": 0, "logit_yes": 3}), TASK, [[1.5, -2], [0, 3]]),
        (({"probability_no": 0.25, "probability_yes": 0.75},), TASK, [[np.log(0.25), np.log(0.75)]]),
        (({"votes_no": 3, "votes_yes": 0},), TASK, [[0, np.log(LEAST)]]),
        (
            ({"predicted_label": "Yes"}, {"predicted_label": "no"}),
            TASK,
            [[np.log(LEAST), 0], [0, np.log(LEAST)]],
        ),
        (({"predicted_score": 2.5},), SCORES, [[2.5]]),
        (({"probability_no": 0.5, "probability_yes": 0.75},), SEVERAL, [[0, np.log(3)]]),
    ],
)
def test_what_a_file_holds_becomes_logits(rows: Any, task: Any, logits: Any, tmp_path: Path) -> None:
    found = AnswerFile.read(jsonl(tmp_path, *rows)).answers(task).logits
    np.testing.assert_allclose(found, logits, rtol=1e-15)


def test_all_formats_hold_the_same(tmp_path: Path) -> None:
    rows = [{"text": "a", "probability_no": 0.25, "probability_yes": 0.75}]
    csv, parquet = tmp_path / "answers.csv", tmp_path / "answers.parquet"
    csv.write_text("text,probability_no,probability_yes\na,0.25,0.75\n")
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    found = [AnswerFile.read(f).answers(TASK).logits for f in (jsonl(tmp_path, *rows), csv, parquet)]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("rows", "task", "message"),
    [
        (({"probability_no": 0.5, "probability_yes": 0.6},), TASK, "row 1, .*0.5, 0.6 do not sum to 1"),
        (({"probability_no": 0.5, "probability_yes": 0.5}, {"probability_no": -0.5, "probability_yes": 1.5}), TASK,
         "row 2, .*are outside 0 to 1"),
        (({"probability_no": 0.5, "probability_yes": None},), TASK, "row 1, column 'probability_yes': no answer"),
        (({"probability_no": "much", "probability_yes": 0.5},), TASK, "'much' is no number"),
        (({"logit_no": "inf", "logit_yes": 0.5},), TASK, "is not finite"),
        (({"votes_no": 0, "votes_yes": 0},), TASK, "row 1.*hold no vote"),
        (({"votes_no": -1, "votes_yes": 2},), TASK, "are below 0"),
        (({"label": "perhaps"},), TASK, "'perhaps' is none of the labels no, yes"),
        (({"label": "yes"},), SCORES, "holds labels, and the data have scores"),
        (({"predicted_score": 1},), TASK, "holds scores, and the data have one label a row"),
        (({"votes_no": 1, "votes_yes": 1},), SEVERAL, "holds votes, and the data have several labels"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused_with_its_row(
    rows: Any, task: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"(?s){message}"):
        AnswerFile.read(jsonl(tmp_path, *rows)).answers(task)


def test_a_file_without_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)no column of answers: text.*probability_<label>"):
        AnswerFile.read(jsonl(tmp_path, {"text": "a"}))
    with pytest.raises(DataError, match="no file of answers"):
        AnswerFile.read(tmp_path / "answers.xlsx")
    with pytest.raises(DataError, match="cannot be read"):
        AnswerFile.read(tmp_path / "missing.csv")


def test_rows_are_found_by_id_by_texts_or_by_order(tmp_path: Path) -> None:
    def places(*rows: dict[str, Any], total: int = 2) -> Any:
        answers = AnswerFile.read(
            jsonl(
                tmp_path, *({**row, "label": label} for row, label in zip(rows, ("no", "yes"), strict=False))
            )
        ).answers(TASK)
        return answers.of_rows("train", [0, 1], TEXTS, TASK, total=total)

    ids = [{"id": row_id("train", k, texts)} for k, texts in enumerate(TEXTS)]
    assert places(ids[1], ids[0]) == ([1, 0], "by id")
    assert places({"id": row_id("train", 1, ("other",))}, ids[0]) == ([1, None], "by id")
    assert places({"text": "b"}, {"text": "a"}) == ([1, 0], "by their texts")
    assert places({"text": "b"}) == ([None, 0], "by their texts")
    assert places({"id": "17"}, {"id": "18"}) == ([0, 1], "by their order")  # a column of the user's own
    with pytest.raises(DataError, match="holds 2 answers, and there are 3 train rows"):
        places({}, {}, total=3)
    with pytest.raises(DataError, match=r"row 2, column 'text': another answer than in row 1"):
        places({"text": "a"}, {"text": "a"})
