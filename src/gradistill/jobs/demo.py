"""The demonstration: does a student learn a shortcut that its teacher does not use?

A teacher learns clean reviews; three students are distilled from it on the same reviews with a neutral weekday that
agrees with the label most of the time. On the challenge split the weekday always points elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Group, RenderableType
from transformers import PreTrainedTokenizerBase

from gradistill.audit import Answers, compare, loyalty
from gradistill.data import Collator, Task, compute_metrics, encode, load_splits
from gradistill.data.corpus import Review, make_corpus, write_corpus
from gradistill.jobs.runs import DataChoice, Say, distill, finetune
from gradistill.models.loading import PACKAGED, load_classifier, load_tokenizer, packaged_model
from gradistill.recipe import Recipe, load_recipe
from gradistill.report.terminal import results_table

METHODS = ("kd", "gkd", "adkd")
RATE = 0.9
STUDENT_LAYERS = 3


@dataclass(frozen=True)
class _Test:
    """The rows that models are measured on, encoded alike: the clean ones and the challenge."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    rows: Mapping[str, Any]
    reviews: Mapping[str, Sequence[Review]]


def demo(output: Path, *, seed: int = 0, quick: bool = False, say: Say = print) -> RenderableType:
    """Fine-tune, distil three times, measure; returns the table. Runs that are there already are used again."""
    packaged_model()  # a missing extra is said before any work
    size, smaller = (150, 60) if quick else (1500, 400)
    corpus = make_corpus(train=size, validation=smaller, test=smaller, seed=seed, shortcut_rate=RATE)
    clean, shortcut = output / "corpus" / "clean", output / "corpus" / "shortcut"
    write_corpus({name: corpus[name] for name in ("train", "validation", "test", "challenge")}, clean)
    write_corpus({name: corpus[f"{name}_shortcut"] for name in ("train", "validation")}, shortcut)
    recipe = load_recipe(
        "finetune", changes=[f"training.seed={seed}", "training.epochs=3", "training.learning_rate=1e-4"]
    )
    teacher = _once(
        output / "teacher", lambda at: finetune(PACKAGED, _choice(clean), at, recipe, overwrite=True, say=say)
    )
    students = {}
    for method in METHODS:
        say(f"\n{method}: {STUDENT_LAYERS} layers, on reviews with the shortcut")
        students[method] = _once(
            output / method,
            lambda at, method=method: distill(
                str(teacher), _choice(shortcut), at, _recipe(method, seed), overwrite=True, say=say
            ),
        )
    return _table(teacher, students, _test(teacher, clean, corpus), seed)


def _recipe(method: str, seed: int) -> Recipe:
    return load_recipe(
        method,
        changes=[
            f"training.seed={seed}",
            "training.epochs=2",
            "training.learning_rate=1e-4",
            f"student.layers={STUDENT_LAYERS}",
        ],
    )


def _choice(folder: Path) -> DataChoice:
    return DataChoice(str(folder), label_column="label", text_columns=("text",))


def _once(folder: Path, run: Any) -> Path:
    if not (folder / "metrics.json").is_file():
        run(folder)
    return folder


def _test(teacher: Path, clean: Path, corpus: Mapping[str, Sequence[Review]]) -> _Test:
    tokenizer = load_tokenizer(teacher)
    splits = load_splits(
        clean, splits=("train", "test", "challenge"), label_column="label", text_columns=("text",)
    )
    rows = {name: encode(splits.rows[name], tokenizer, splits.task).dataset for name in ("test", "challenge")}
    return _Test(splits.task, tokenizer, rows, {name: corpus[name] for name in rows})


def _table(teacher: Path, students: Mapping[str, Path], test: _Test, seed: int) -> RenderableType:
    rows = [_row("teacher", teacher, teacher, test)]
    rows += [_row(method, folder, teacher, test) for method, folder in students.items()]
    n = len(test.rows["test"])
    note = (
        f"Seed {seed}, n = {n} unseen reviews a split; intervals stand in metrics.json of each run. accuracy and "
        "loyalties: clean reviews. challenge and shortcut share: the same reviews with the weekday of another label; "
        f"weekday and label agreed in {RATE:.0%} of the students' training rows, and never for the teacher. shortcut "
        "share: of the attribution (gradient × input) to the teacher's label, on the weekday. Time: one text at a time."
    )
    return Group(results_table(rows, title="gradistill demo", note=note))


def _row(name: str, folder: Path, teacher: Path, test: _Test) -> dict[str, object]:
    model, _ = load_classifier(folder)
    reference, _ = load_classifier(teacher)
    collate = Collator(test.tokenizer)
    answers: dict[str, tuple[Answers, Answers]] = {
        split: compare(model, reference, rows, collate) for split, rows in test.rows.items()
    }
    accuracy = {
        split: compute_metrics(test.task, answers[split][0].logits, np.asarray(rows["labels"][:]))["accuracy"]
        for split, rows in test.rows.items()
    }
    loyal = loyalty(*answers["test"]).as_dict()
    return {
        "model": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "accuracy": accuracy["test"],
        "challenge": accuracy["challenge"],
        **{f"{kind} loyalty": loyal[kind]["value"] for kind in ("label", "probability", "saliency")},
        "shortcut share": shortcut_share(answers["challenge"][0], test.reviews["challenge"], test.tokenizer),
        "ms a text": _milliseconds(model, test, collate),
    }


def shortcut_share(answers: Answers, reviews: Sequence[Review], tokenizer: PreTrainedTokenizerBase) -> float:
    """Mean share of the attribution that falls on tokens which overlap the shortcut's characters."""
    shares = []
    for scores, review in zip(answers.maps, reviews, strict=True):
        offsets = tokenizer(review.text, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        marked = [
            any(start < stop and first < end for first, stop in review.shortcut)
            for start, end in offsets[: len(scores)]
        ]
        shares.append(scores[marked].sum() / max(scores.sum(), np.finfo(np.float32).tiny))
    return float(np.mean(shares))


def _milliseconds(model: torch.nn.Module, test: _Test, collate: Collator, rows: int = 64) -> float:
    """Median wall time of a forward pass over a single text."""
    times = []
    with torch.inference_mode():
        for k in range(rows):
            batch = collate([test.rows["test"][k % len(test.rows["test"])]])
            start = perf_counter()
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            times.append(perf_counter() - start)
    return 1000 * float(np.median(times))
