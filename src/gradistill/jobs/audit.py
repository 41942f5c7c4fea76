"""The audit: does a student decide as its teacher does, and for the same reasons? Figures, examples, a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradistill.audit.choosing import chosen_examples
from gradistill.audit.columns import GROUPS, Columns, joined
from gradistill.audit.examining import Examiner
from gradistill.audit.methods import Method
from gradistill.audit.methods.gradient_x_input import GradientXInput
from gradistill.audit.perturbations import PERTURBATIONS, perturbed
from gradistill.audit.summing import Audited, Changed, summed_up
from gradistill.data import Splits, align_labels, load_splits
from gradistill.data.labels import match_names, numbers_of
from gradistill.data.overlap import overlap_line
from gradistill.data.tasks import metrics_of
from gradistill.errors import DataError, RecipeError, nearest
from gradistill.jobs import Say
from gradistill.jobs.account import described, versions
from gradistill.jobs.checking import overlap_with_training, teacher_warning, with_positive
from gradistill.jobs.runs import DataChoice
from gradistill.models.loading import label_names, load_classifier, load_tokenizer, set_padding
from gradistill.models.tokenizers import check_same_tokens
from gradistill.printing import progress_bars, write
from gradistill.report.markdown import audit_table
from gradistill.report.page import audit_page
from gradistill.signals.files import write_whole

PAGE, FIGURES, TABLE, EXAMPLES = "audit.html", "audit.json", "audit.md", "examples.jsonl"


@dataclass(frozen=True)
class AuditChoice:
    """What is looked at. ``rationale`` is a column of spans (``data.spans``), in ``rationale_units``.

    Faithfulness and perturbations ask the models many times a text: they look at ``faithfulness_rows`` and
    ``perturbed_rows`` rows, drawn by ``seed``. The page shows ``examples`` of the examples, half of them those on which
    the models disagree most.
    """

    split: str = "validation"
    method: Method = GradientXInput()  # noqa: RUF009 (frozen)
    max_rows: int | None = None
    max_length: int = 128
    rationale: str | None = None
    rationale_units: str = "characters"
    challenge: str | None = None
    watched: tuple[str, ...] = ()
    faithfulness_rows: int = 50
    perturbed_rows: int = 200
    examples: int = 400
    limits: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


def audit(
    teacher: str,
    students: Sequence[str],
    data: DataChoice,
    output: str | Path,
    choice: AuditChoice = AuditChoice(),
    *,
    overwrite: bool = False,
    say: Say = write,
) -> dict[str, Any]:
    """Compare students with their teacher on data neither was fitted to; returns what ``audit.json`` holds.

    ``output`` gets ``audit.html``, ``audit.json``, ``audit.md`` and ``examples.jsonl``. Any classifiers over the same
    labels and tokens can be compared. Raises GradistillError for what does not fit together.
    """
    output = Path(output)
    _refuse_full(output, overwrite)
    _refuse_unknown_limits(choice.limits)
    seconds: dict[str, float] = {}
    with _timed(seconds, "loading"):
        models = _Models.load(teacher, students)
        splits = with_positive(_rows(data, choice, models), data.positive, [teacher, *students])
    say(splits.describe())
    overlap = overlap_with_training(splits, choice.split, data.source)
    rows, columns = splits.rows[choice.split], splits.task.text_columns
    if line := overlap_line(overlap, choice.split, rows, columns):
        say(line)
    output.mkdir(parents=True, exist_ok=True)
    audited = _examined(models, splits, choice, output, seconds)
    about = {
        "data": {"task": splits.task.name, "split": choice.split, "rows": len(rows),
                 "source": Path(data.source).name, "positive": splits.task.positive_label},
        "teacher": described(models.teacher, teacher),
        "students": [described(model, name) for model, name in zip(models.students, students, strict=True)],
        "settings": _settings(choice),
        "versions": versions(),
        "seconds": {part: round(taken, 2) for part, taken in seconds.items()},
    }  # fmt: skip
    found = summed_up(audited, about, choice.method, splits.task, choice.limits, seed=choice.seed)
    found |= {"overlap": overlap, **_task_metrics(audited, splits), "warnings": list(splits.warnings)}
    found["warnings"] += _doubts(audited, splits)
    examples = chosen_examples(output / EXAMPLES, choice.examples, seed=choice.seed)
    write_whole(output / PAGE, audit_page(found, examples).encode("utf-8", "backslashreplace"))
    write_whole(output / TABLE, audit_table(found).encode("utf-8", "backslashreplace"))
    write_whole(output / FIGURES, (json.dumps(found, indent=2, allow_nan=False) + "\n").encode())
    return found


def _task_metrics(audited: Audited, splits: Splits) -> dict[str, Any]:
    """The task's own metrics of every model, on the rows that have a label."""
    models = {"teacher": _predicted(audited, 0, "teacher")}
    models |= {name: _predicted(audited, k, "student") for k, name in enumerate(audited.names)}
    gold = audited.columns[0]["gold"]
    known = np.isfinite(gold) if splits.task.labels is None else gold >= 0
    if not known.any():
        return {"metrics": {}}
    return {"metrics": {name: metrics_of(splits.task, p[known], gold[known]) for name, p in models.items()}}


def _predicted(audited: Audited, k: int, role: str) -> np.ndarray:
    columns = audited.columns[k]
    return columns[f"{role}_label"] if f"{role}_label" in columns else columns[f"{role}_prediction"]


def _doubts(audited: Audited, splits: Splits) -> list[str]:
    warning = teacher_warning(splits.task, _predicted(audited, 0, "teacher"), audited.columns[0]["gold"])
    return [warning] if warning else []


@dataclass(frozen=True)
class _Models:
    teacher: PreTrainedModel
    students: list[PreTrainedModel]
    names: list[str]
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, teacher: str, students: Sequence[str]) -> _Models:
        tokenizer = load_tokenizer(teacher)
        for student in students:
            check_same_tokens(load_tokenizer(student), tokenizer)
        loaded = [load_classifier(name)[0] for name in (teacher, *students)]
        for model, name in zip(loaded[1:], students, strict=True):
            _in_order(loaded[0], model, name)
        device: Any = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        for model in loaded:
            model.to(device)
            set_padding(model, tokenizer)
        return cls(loaded[0], loaded[1:], _names(students), tokenizer)


def _names(students: Sequence[str]) -> list[str]:
    """The last part of each path; the whole of it where two end alike."""
    short = [Path(name).name for name in students]
    return [name if short.count(name) == 1 else full for name, full in zip(short, students, strict=True)]


def _in_order(teacher: PreTrainedModel, student: PreTrainedModel, name: str) -> None:
    """Have the student give its outputs in the teacher's order. Raises DataError for other labels."""
    ours, theirs = list(label_names(teacher).values()), list(label_names(student).values())
    match = match_names(ours, theirs) if len(ours) == len(theirs) else None
    counted = len(ours) == len(theirs) and numbers_of(ours) is not None and numbers_of(theirs) is not None
    if match is None and not counted:
        raise DataError(
            f"The labels of the teacher and of {name} differ.\n"
            f"  teacher: {', '.join(ours)}\n  {name}: {', '.join(theirs)}",
            expected="the same names, in any order",
            remedy="take two models of one task, or correct id2label in config.json",
        )
    if match is not None and not match.is_identity:
        order = list(match.positions)

        def reordered(_model: Any, _inputs: Any, outputs: Any) -> Any:
            outputs["logits"] = outputs["logits"][:, order]
            return outputs

        student.register_forward_hook(reordered)


def _rows(data: DataChoice, choice: AuditChoice, models: _Models) -> Splits:
    """The splits that are looked at, with class ids in the teacher's order."""
    wanted = (choice.split, *((choice.challenge,) if choice.challenge else ()))
    units: Any = choice.rationale_units
    splits = load_splits(
        data.source, task=data.task, splits=wanted, label_column=data.label_column,
        text_columns=data.text_columns, span_column=choice.rationale, span_units=units,
    )  # fmt: skip
    splits = align_labels(splits, label_names(models.teacher), label_map=data.label_map)
    rows = {name: _drawn(rows, choice.max_rows, choice.seed) for name, rows in splits.rows.items()}
    return replace(splits, rows=rows)


def _drawn(rows: Dataset, count: int | None, seed: int) -> Dataset:
    if count is None or count >= len(rows):
        return rows
    return rows.shuffle(seed=seed).select(range(count))


def _examined(
    models: _Models, splits: Splits, choice: AuditChoice, output: Path, seconds: dict[str, float]
) -> Audited:
    rows, asked = splits.rows[choice.split], len(models.students) + 1
    some = _drawn(rows, choice.perturbed_rows, choice.seed)
    few = _drawn(rows, choice.faithfulness_rows, choice.seed)
    challenge = splits.rows[choice.challenge] if choice.challenge else None
    with progress_bars() as progress:

        def bar(name: str, count: int) -> Examiner:
            task = progress.add_task(name, total=count * asked)
            return Examiner(
                models.teacher, models.students, models.tokenizer, splits.task, choice.method, choice.max_length,
                choice.watched, lambda done: progress.advance(task, done),
            )  # fmt: skip

        with _timed(seconds, "answers and attributions"):
            columns = _all_blocks(bar("answers and attributions", len(rows)), rows, output)
        with _timed(seconds, "faithfulness"):
            faithful = bar("faithfulness", len(few)).faithfulness(few) if len(few) else None
        changed = None
        if challenge:
            with _timed(seconds, "challenge"):
                changed = bar("challenge", len(challenge)).agreement(challenge)
        with _timed(seconds, "perturbations"):
            perturbations = [
                Changed(p.name, p.description, bar(p.name, len(some)).agreement(
                    perturbed(some, splits.task.text_columns, p, choice.seed)))
                for p in PERTURBATIONS if len(some)
            ]  # fmt: skip
    return Audited(models.names, columns, faithful, changed, perturbations)


def _all_blocks(examiner: Examiner, rows: Dataset, output: Path) -> list[Columns]:
    """The columns of each student; every example goes to a file as soon as it is there."""
    parts: list[list[Columns]] = []
    draft = output / f".{EXAMPLES}"
    with draft.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        for block in examiner.blocks(rows):
            parts.append(block.columns)
            stream.writelines(json.dumps(example) + "\n" for example in block.examples)
    draft.replace(output / EXAMPLES)
    return [joined(of_one) for of_one in zip(*parts, strict=True)]


def _settings(choice: AuditChoice) -> dict[str, Any]:
    named = {
        "split": choice.split, "seed": choice.seed, "max_length": choice.max_length, "rationale": choice.rationale,
        "challenge": choice.challenge, "watched words": ", ".join(choice.watched) or None,
        "rows for faithfulness": choice.faithfulness_rows, "rows for perturbations": choice.perturbed_rows,
    }  # fmt: skip
    return {name: value for name, value in named.items() if value is not None}


def _refuse_full(output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise RecipeError(
            f"{output} is a file", expected="a folder for the audit", remedy="choose another --output"
        )
    strange = sorted(
        {path.name for path in output.glob("*")} - {PAGE, FIGURES, TABLE, EXAMPLES, f".{EXAMPLES}"}
    )
    if strange:
        raise RecipeError(
            f"{output} holds files that are no audit of ours: {', '.join(strange[:5])}",
            expected="a new or empty folder",
            remedy="choose another --output",
        )
    if (output / FIGURES).exists() and not overwrite:
        raise RecipeError(
            f"{output} holds a finished audit",
            expected="a new folder",
            remedy="choose another --output, or give --overwrite to replace it",
        )


def _refuse_unknown_limits(limits: Mapping[str, float]) -> None:
    known = [name for names in GROUPS.values() for name in names]
    for name in limits:
        if name not in known:
            raise RecipeError(
                f"a limit for {name!r}", expected="a figure of the audit", remedy=nearest(name, known)
            )


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[part] = perf_counter() - start
