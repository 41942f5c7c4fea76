"""The naive way to distil several labels a row: one class a row, its first label, and a softmax over the classes.

    python benchmarks/softmax_baseline.py DATA OUTPUT [--seeds 0 1 2]

DATA is a folder with train and validation rows as JSON lines (text, labels). Teacher and student are made as in
suite_labels.yaml, by finetune and kd. What they predict is judged by the figures of several labels, on the validation
rows as the suite does it, in two forms: the one most probable label, and every label whose probability is above a
threshold of its own, chosen on the same rows as the suite's are. Finished models are left alone. The figures go to
results/softmax_baseline.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from measuring import publish
from scipy.special import logit

from gradistill import distill, finetune, load_predictor, load_recipe
from gradistill.data.multilabel_metrics import MULTI_LABEL_METRICS, above, choose_thresholds

SETTINGS = ["batch_size=32", "epochs=3", "max_length=40", "arguments.bf16=true"]
ROWS = {"teacher": 8000, "student": 4000}
RATES = {"teacher": 1e-4, "student": 2e-4}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    rows = {split: _rows(given.data / f"{split}.jsonl") for split in ("train", "validation")}
    data = {split: [_one_label(row) for row in rows[split]] for split in rows}

    teacher = given.output / "teacher"
    if not (teacher / "metrics.json").is_file():
        finetune("minilm-l6", data, teacher, _recipe("finetune", "teacher", 0))
    found = [{"model": "teacher", **_figures(teacher, rows["validation"])}]
    for seed in given.seeds:
        student = given.output / f"kd_{seed}"
        if not (student / "metrics.json").is_file():
            distill(str(teacher), data, student, _recipe("kd", "student", seed))
        found.append({"model": "kd", "seed": seed, **_figures(student, rows["validation"])})
    text = "\n".join(str(line) for line in found)
    publish("softmax_baseline", text, found, command="python benchmarks/softmax_baseline.py DATA OUTPUT")


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _one_label(row: dict[str, Any]) -> dict[str, Any]:
    return {"text": row["text"], "label": row["labels"][0]}


def _recipe(method: str, role: str, seed: int) -> Any:
    changes = [f"training.{setting}" for setting in SETTINGS]
    changes += [f"training.seed={seed}", f"training.max_train_rows={ROWS[role]}"]
    changes.append(f"training.learning_rate={RATES[role]}")
    return load_recipe(method, changes=[*changes, *(["student.layers=3"] if role == "student" else [])])


def _figures(model: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of several labels of both forms, of a model of one label a row."""
    predictor = load_predictor(str(model))
    probabilities = np.asarray(predictor([row["text"] for row in rows]), np.float64)
    names = list(predictor.labels)
    gold = np.array([[name in row["labels"] for name in names] for row in rows])
    forms = {
        "top label": np.eye(len(names), dtype=bool)[probabilities.argmax(axis=1)],
        "thresholds": above(probabilities, choose_thresholds(logit(probabilities), gold.astype(float))),
    }
    figures = {
        form: {
            name: round(metric(gold, predicted, probabilities), 4)
            for name, metric in MULTI_LABEL_METRICS.items()
        }
        for form, predicted in forms.items()
    }
    return {**figures, "n": len(rows)}


if __name__ == "__main__":
    main()
