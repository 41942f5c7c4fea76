"""Write the texts that a teacher must predict for a recipe into a file, to be answered elsewhere."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from datasets import concatenate_datasets

from gradistill.commands.answer_sources import RowsToAnswer, facts_of_outputs
from gradistill.commands.data_warnings import log_splits, refuse_words
from gradistill.commands.prepared_run import unlabelled_rows
from gradistill.commands.raw_text_run import copy_words
from gradistill.commands.task_run import labelled_rows
from gradistill.commands.teacher_prompt import refuse_prompt
from gradistill.data import DataChoice, Task, read_splits
from gradistill.data.changed_copies import as_texts
from gradistill.data.data_source import Source
from gradistill.data.raw_words import Texts, row_texts
from gradistill.data.teacher_answers import ID, row_id
from gradistill.errors import RecipeError
from gradistill.io import path_of, system_reason, write_whole
from gradistill.objectives import Pair
from gradistill.objectives.cross_tokenizer import check_cross_tokenizer_objectives
from gradistill.recipe import Recipe
from gradistill.signals import WordCopyLogits
from gradistill.training.step import signals_of

logger = logging.getLogger(__name__)


def write_texts(data: DataChoice | Source, output: str | Path, recipe: Recipe) -> dict[str, int]:
    """Write every text that ``distill`` needs an answer to, one JSON object a line: ``id`` and the columns of the text.

    These are the training rows, their changed copies for the recipe's objectives, and the validation rows (for
    loyalty). ``TeacherAnswers`` takes a file with these ids and columns of answers, for the same data, recipe and
    settings. In copies ``[MASK]`` stands for a hidden word; other copies have words of the data instead.

    Parameters:
        ``data``: a ``DataChoice``, or what its ``source`` may be.
        ``output``: a file that ends in ``.jsonl``.
        ``recipe``: a recipe whose objectives need outputs only.

    Returns the number of texts of each kind. Raises RecipeError for objectives that need more than outputs.

    Example: ``write_texts("DATA/mrpc", "texts.jsonl", load_recipe("coalition"))["copies"]``
    """
    file = path_of(output)
    _refuse_output(file)
    refuse_prompt(recipe, "--write-texts")
    choice = DataChoice.of(data)
    splits = read_splits(choice)
    refuse_words(splits.task, "--write-texts")
    log_splits(splits)
    facts = facts_of_outputs(splits.task)
    pair = Pair(facts, facts, shared_embeddings=False)
    terms = list(recipe.objectives.values())
    check_cross_tokenizer_objectives(terms, pair)
    if recipe.training.augment:
        raise RecipeError(
            "--augment needs a model as teacher, whose embeddings decide which words are near",
            expected="no --augment",
            remedy="write copies to a file (gradistill augment), and give it as --unlabelled",
        )
    rows = labelled_rows(splits, recipe.training)
    if (more := unlabelled_rows(choice, recipe, splits)) is not None:
        rows = concatenate_datasets([rows, more.rows])
    rows_to_answer = RowsToAnswer(rows, splits.task, copy_words(splits.rows["train"], splits.task))
    signals = [s for s in signals_of(terms, pair, "teacher") if isinstance(s, WordCopyLogits)]
    counts = {"train": len(rows), "copies": 0, "validation": len(splits.rows["validation"])}
    lines = []
    for row, texts in zip(rows_to_answer.numbers, rows_to_answer.texts, strict=True):
        lines.append(_line(row_id("train", row, texts), texts, splits.task))
    for signal in signals:
        for row, number, copy in rows_to_answer.copies(signal):
            texts = as_texts(copy)
            lines.append(_line(row_id("train", row, texts, number), texts, splits.task))
            counts["copies"] += 1
    validation = splits.rows["validation"]
    for row, texts in zip(validation["index"][:], row_texts(validation, splits.task), strict=True):
        lines.append(_line(row_id("validation", int(row), texts), texts, splits.task))
    try:
        write_whole(file, "".join(lines).encode())
    except OSError as error:
        raise RecipeError(f"{file} cannot be written: {system_reason(error)}") from error
    return counts


def _line(name: str, texts: Texts, task: Task) -> str:
    columns = dict(zip(task.text_columns, texts, strict=True))
    return json.dumps({ID: name, **columns}, ensure_ascii=False) + "\n"


def _refuse_output(file: Path) -> None:
    if not file.name.endswith(".jsonl"):
        raise RecipeError(f"--write-texts {file}", expected="a file that ends in .jsonl", remedy="name one")
    if file.exists():
        raise RecipeError(
            f"{file} is there already", expected="a new file", remedy="choose another name, or delete it"
        )
