"""Plausibility: do the tokens with the highest scores lie in the passages that people annotated?

These are the three measures of ERASER (DeYoung et al. 2020, section 4) on tokens. The number of top tokens equals the
number of annotated tokens, so precision, recall and F1 coincide; ERASER takes the average length of a rationale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score

from gradistill.auditing.map_agreement import top
from gradistill.data.tokenization import TokenPlaces


def plausibility(scores: np.ndarray, marked: np.ndarray) -> dict[str, float]:
    """``token_f1``, ``iou`` (intersection over union) and ``auprc`` of one example; NaN if no token or every token is
    marked."""
    count, size = int(marked.sum()), len(marked)
    if not 0 < count < size:
        return {"token_f1": np.nan, "iou": np.nan, "auprc": np.nan}
    shared = int(marked[top(scores, count)].sum())
    return {
        "token_f1": shared / count,
        "iou": shared / (2 * count - shared),
        "auprc": float(average_precision_score(marked, scores)),
    }


def marked_tokens(places: TokenPlaces, spans: Sequence[Sequence[int]], own: np.ndarray) -> np.ndarray:
    """A mask of those ``own`` tokens of a row that share a character with a span ``(start, end, text)``."""
    marked = np.zeros(len(own), dtype=bool)
    for token, ((start, end), segment) in enumerate(zip(places.offsets, places.segments, strict=True)):
        marked[token] = any(segment == text and start < last and first < end for first, last, text in spans)
    return marked[own]
