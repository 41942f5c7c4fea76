"""How much of response loyalty is the number of words that are replaced, and what is left without it.

    python benchmarks/partial_response.py BENCHES DATA TASK ...

BENCHES/TASK is the output of suite_full.yaml for one task, with its models; DATA/TASK holds its rows. All models of a
task react to the same 16 copies of each of 100 validation texts. The untrained student is every second layer of the
teacher under its own head.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from measuring import YARDSTICK, markdown, publish
from separation import data_of
from transformers import PreTrainedModel

from gradistill import load_classifier, load_tokenizer
from gradistill.auditing.per_example import estimates
from gradistill.auditing.predictor import ClassifierPredictor, predict_by_row
from gradistill.auditing.response import MIN_WORDS, beyond_count, effects, response_columns
from gradistill.data import read_splits
from gradistill.data.changed_copies import draw_coalitions, draw_words, substituted_copies
from gradistill.data.raw_words import Kept, count_words, word_pool
from gradistill.models.student import student_from_teacher

TEXTS, LAYERS = 100, 3
STUDENTS = ("kd", "minilm", "rationale", "coalition", "second-teacher")
FIGURES = ("response", "response_partial")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benches", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("tasks", nargs="+")
    given = parser.parse_args()
    found = {task: measured(given.benches / task / task, given.data, task) for task in given.tasks}
    command = f"python benchmarks/partial_response.py BENCHES DATA {' '.join(given.tasks)}"
    publish("partial_response", markdown(rows_of(found)), found, command=command, page=YARDSTICK)


def measured(bench: Path, data: Path, task: str) -> dict[str, Any]:
    """Each model's figures, and the share of the variance of the teacher's effects that the count of words explains."""
    splits = read_splits(data_of(data, task), splits=("train", "validation"))
    rows = splits.rows["validation"].shuffle(seed=0)
    every = zip(*(rows[name][:] for name in splits.task.text_columns), strict=True)
    texts = list(islice((text for text in every if count_words(text) >= MIN_WORDS), TEXTS))
    pool, words = word_pool(texts), [count_words(text) for text in texts]
    kept = draw_coalitions(words, seed=0)
    removed_share = 1 - np.stack([own.mean(axis=1) for own in kept])

    def copies_of(row: int, own: Kept) -> list[Any]:
        return substituted_copies(texts[row], own, draw_words(pool, (len(own), own.shape[1]), 0, row))

    def logits(model: PreTrainedModel) -> np.ndarray:
        predictor = ClassifierPredictor(model.eval(), tokenizer)
        return np.stack([*predict_by_row(predictor, dict(enumerate(kept)), copies_of).values()], axis=1)[0]

    folder = next((bench / "teachers").glob("*/config.json")).parent
    teacher, tokenizer = load_classifier(str(folder))[0], load_tokenizer(folder)
    taught = logits(teacher)
    models = {"untrained": student_from_teacher(deepcopy(teacher), LAYERS)}
    for name in STUDENTS:
        student = next(path for path in (bench / f"{LAYERS}-layers").glob(f"{name}-[01]") if path.is_dir())
        models[name] = load_classifier(str(student))[0]
    found: dict[str, Any] = {"explained": explained(effects(taught, taught[:, 0].argmax(-1)), removed_share)}
    for name, model in models.items():
        columns = response_columns(logits(model), taught, words, removed_share=removed_share)
        figures = estimates(columns, FIGURES)
        found[name] = {key: e.as_dict() for group in figures.values() for key, e in group.items()}
    return found


def explained(effects: np.ndarray, removed_share: np.ndarray) -> float:
    """The mean over texts of the share of the variance that a line over the words that are removed_share explains."""
    left = (beyond_count(effects, removed_share) ** 2).sum(axis=1)
    return float(np.mean(1 - left / ((effects - effects.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)))


def rows_of(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """A row a model: each task's response, and behind the stroke what is left without the number of words."""
    first = {"model": "*explained by the number of words*"} | {
        t: f"{of['explained']:.2f}" for t, of in found.items()
    }
    rows = [first]
    for name in ("untrained", *STUDENTS):
        cells = {
            t: " / ".join(f"{of[name][figure]['value']:.2f}" for figure in FIGURES) for t, of in found.items()
        }
        rows.append({"model": name.replace("-", " ")} | cells)
    return rows


if __name__ == "__main__":
    main()
