"""Examples of an audit for the report: texts, predictions, and words with their shares of each model's map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from gradistill.auditing.model_outputs import ModelOutputs
from gradistill.auditing.per_example import Columns, confidence
from gradistill.auditing.predictions import Predictions
from gradistill.auditing.word_maps import TokenizedText, shared_units
from gradistill.batch import UNLABELLED
from gradistill.data import Task
from gradistill.data.raw_words import word_places


def example_of(
    row: dict[str, Any], k: int, task: Task, models: Sequence[ModelOutputs], columns: Sequence[Columns]
) -> dict[str, Any]:
    """The example of ``row``, the k-th row of the ``models``' outputs (teacher first) and of the students' ``columns``.
    docs/audit.md lists its fields."""
    teacher, *students = models
    texts = [row[name] for name in task.text_columns]
    return {
        "index": row["index"],
        "gold": _shown(row["label"], task.labels),
        "texts": texts,
        "teacher": _prediction_of(teacher.predictions, k, task.labels),
        "students": [
            {**_prediction_of(student.predictions, k, task.labels), **_agreement_of(of_student, k)}
            for student, of_student in zip(students, columns, strict=True)
        ],
        "words": _words_of(texts, k, models),
    }


def _words_of(texts: Sequence[str], k: int, models: Sequence[ModelOutputs]) -> list[dict[str, Any]]:
    """The words of an example with their shares of each model's map, the teacher first. None for models without a map.

    Models with one tokenizer share its words. Others share units of the raw text (``shared_units``).
    """
    if all(outputs.in_words and outputs.model.tokenizer is models[0].model.tokenizer for outputs in models):
        scored = [outputs.reads[k].words(outputs.predictions.maps[k]) for outputs in models]
        spans = [(word.segment, word.start, word.end) for word in scored[0]]
        shares = [[word.score for word in of_model] for of_model in scored]
    else:
        readers = [outputs for outputs in models if outputs.in_words]
        places = word_places(tuple(texts))
        first = shared_units([outputs.reads[k] for outputs in readers]) if readers else np.arange(len(places))
        last = np.append(first[1:], len(places)) - 1
        spans = [(*places[start][:2], places[end][2]) for start, end in zip(first, last, strict=True)]
        shares = [
            _unit_shares(outputs.reads[k], outputs.predictions.maps[k], first)
            if outputs.in_words
            else [None] * len(spans)
            for outputs in models
        ]
    rounded = [[None if share is None else round(share, 4) for share in of_model] for of_model in shares]
    return [
        {"segment": segment, "start": start, "end": end, "teacher": rounded[0][n],
         "students": [of_model[n] for of_model in rounded[1:]]}
        for n, (segment, start, end) in enumerate(spans)
    ]  # fmt: skip


def _unit_shares(read: TokenizedText, scores: np.ndarray, first: np.ndarray) -> list[float | None]:
    """Each unit's share of the sum of scores. Units start at the words ``first``; None for one not read whole."""
    units = read.units(scores, first)
    total = float(np.nansum(units)) or 1.0
    return [None if np.isnan(value) else float(value) / total for value in units]


def _joined_names(names: Sequence[str], flags: Sequence[Any]) -> str:
    """The names of a row's labels, joined for display."""
    return ", ".join(name for name, flag in zip(names, flags, strict=True) if flag) or "(no label)"


def _shown(label: Any, names: Sequence[str] | None) -> str | None:
    if isinstance(label, list):
        return None if any(flag != flag for flag in label) else _joined_names(names or (), label)
    if label == UNLABELLED or label != label:
        return None
    return names[int(label)] if names else f"{label:.3g}"


def _prediction_of(predictions: Predictions, k: int, names: Sequence[str] | None) -> dict[str, Any]:
    if names is None:
        return {"label": None, "confidence": None, "prediction": round(float(predictions.logits[k, 0]), 4)}
    if predictions.multi_label:
        sure = float(expit(predictions.logits[k].max()))
        shown = _joined_names(names, predictions.flags[k].tolist())
        return {"label": shown, "confidence": round(sure, 4), "prediction": None}
    sure = float(confidence(predictions.logits[k : k + 1])[0])
    return {"label": names[int(predictions.labels[k])], "confidence": round(sure, 4), "prediction": None}


def _agreement_of(columns: Columns, k: int) -> dict[str, Any]:
    """The example's agreement. ``disagreement`` sorts examples by label, then by probabilities and saliency."""
    rho = float(columns["saliency"][k]) if "saliency" in columns else float("nan")
    reasons = (1 - rho) / 2 if np.isfinite(rho) else 0.0
    same = bool(columns["label"][k]) if "label" in columns else None
    same = bool(columns["exact_match"][k]) if "exact_match" in columns else same
    if same is None:
        distance = abs(float(columns["student_prediction"][k] - columns["teacher_prediction"][k]))
    else:
        distance = 2.0 * (not same) + 1 - float(columns["probability"][k])
    agreement = round(rho, 4) if np.isfinite(rho) else None
    return {"agreement": agreement, "same_label": same, "disagreement": round(distance + reasons, 4)}
