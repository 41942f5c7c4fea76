"""Predictions of the test rows in the format of the GLUE leaderboard.

There is one folder for each method and depth, with one file for each task. Its columns ``index`` and ``prediction`` are
separated by a tab, in the rows' order. Predictions are label names for the inference tasks, numbers for the others, and
scores for STS-B (sample submission of gluebenchmark.com). The student is the best of its seeds on validation rows. The
diagnostic set (AX) is not written.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradistill.auditing import predict_logits
from gradistill.bench.plan import BenchPlan, Cell, cells
from gradistill.bench.task_setup import Rows, TaskWithTeacher
from gradistill.commands.text_lengths import task_length
from gradistill.data import Collator, Cut, Splits, Task, align_labels, encode, load_unlabelled
from gradistill.errors import GradistillError
from gradistill.io import write_whole
from gradistill.models.input_limits import check_readable
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.loading import label_names, load_classifier, load_tokenizer
from gradistill.printing import log_filter

logger = logging.getLogger(__name__)

FILES = {
    "cola": {"test": "CoLA.tsv"},
    "sst2": {"test": "SST-2.tsv"},
    "mrpc": {"test": "MRPC.tsv"},
    "stsb": {"test": "STS-B.tsv"},
    "qqp": {"test": "QQP.tsv"},
    "mnli": {"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
    "qnli": {"test": "QNLI.tsv"},
    "rte": {"test": "RTE.tsv"},
    "wnli": {"test": "WNLI.tsv"},
}
"""The leaderboard's files by task and split."""
BY_NAME = ("mnli", "qnli", "rte")
"""Tasks whose labels are written by name."""


def write_submissions(
    plan: BenchPlan, tasks: Mapping[str, TaskWithTeacher], lines: Sequence[Mapping[str, Any]], output: Path
) -> None:
    """Write the test predictions of the best student of each method, task by task.

    A task whose test rows cannot be loaded is left out, with a line in the log.
    """
    for name, task in tasks.items():
        read_task = task.rows.task  # an inferred task may have the name of a known one
        known = plan.tasks[name].task or (read_task.name if read_task.source.startswith("glue/") else "")
        for split, file in FILES.get(known, {}).items():
            try:
                rows = load_unlabelled(str(plan.tasks[name].data), task.rows.task, split=split)
            except GradistillError as error:
                logger.info(f"{name}: no predictions for {file}: {error}")
                continue
            for cell in _best(plan, [line for line in lines if line["task"] == name]):
                method = cell.folder.name.rpartition("-")[0]
                folder = output / "predictions" / f"{cell.layers}-layers" / method
                logits, cut = student_logits(output / cell.folder, rows, task.rows)
                if cut.truncated:
                    logger.info(f"{name}, {split}: {cut}")
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(folder / file, submission(task.rows.task, logits).encode())


def submission(task: Task, logits: np.ndarray) -> str:
    """The text of a leaderboard file. ``logits`` are ``(examples, labels)``, in the order of the task's labels."""
    if task.labels is None:
        predictions = [f"{score:.3f}" for score in logits.reshape(len(logits))]
    else:
        label_ids = logits.argmax(-1).tolist()
        predictions = [task.labels[k] if task.name in BY_NAME else str(k) for k in label_ids]
    return "index\tprediction\n" + "".join(f"{row}\t{text}\n" for row, text in enumerate(predictions))


def _best(plan: BenchPlan, lines: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """For each method and depth, the cell of the seed with the best selecting metric; the first of equal ones."""
    score = {(e["task"], e["layers"], e["method"], e["seed"]): e["eval"][e["select"]] for e in lines}
    best: dict[tuple[int, str], Cell] = {}
    for cell in cells(plan):
        if cell.key in score:
            group = cell.layers, cell.method
            if group not in best or score[cell.key] > score[best[group].key]:
                best[group] = cell
    return list(best.values())


def student_logits(student: Path, rows: Any, read: Rows) -> tuple[np.ndarray, Cut]:
    """A finished student's logits in the order of the task's labels, and the number of cut texts. Texts are cut as in
    its training. The student's own outputs are in the order of its teacher's."""
    task = read.task
    tokenizer, (model, _) = load_tokenizer(student), load_classifier(student)
    with log_filter(lambda record: False):
        length = task_length(None, tokenizer, [LoadedModel("student", str(student), model)])
    encoded = encode(rows, tokenizer, task, max_length=length)
    check_readable(model, encoded.dataset, tokenizer, owner="student")
    logits = predict_logits(model, encoded.dataset, Collator(tokenizer))
    if task.labels is None:
        return logits, encoded.cut
    known = Splits(task, inferred=False, rows={})
    outputs = align_labels(known, label_names(model), "student", read.choice.label_map).task.labels or ()
    return logits[:, [outputs.index(name) for name in task.labels]], encoded.cut
