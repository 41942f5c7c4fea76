"""Plausibility: do the tokens that a decision rests on lie in the passages that people marked?

The three measures of ERASER (DeYoung et al. 2020, section 4) on tokens. As many tokens count as found as are marked,
so that precision and recall, and with them F1, coincide; ERASER takes as many as a rationale has on average.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score

from gradistill.auditing.map_agreement import top
from gradistill.data.tokenization import TokenPlaces


def plausibility(scores: np.ndarray, marked: np.ndarray) -> dict[str, float]:
    """``token_f1``, ``iou`` (intersection over union) and ``auprc`` of one example; NaN where nothing, or all, is
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
    """Of the ``own`` tokens of a row, those that share a character with a span ``(start, end, text)``."""
    found = np.zeros(len(own), dtype=bool)
    for token, ((start, end), segment) in enumerate(zip(places.offsets, places.segments, strict=True)):
        found[token] = any(segment == text and start < last and first < end for first, last, text in spans)
    return found[own]
