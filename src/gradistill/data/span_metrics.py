"""Spans of tags, and the metrics of words with a tag each: span precision, recall and F1, and token accuracy.

A span is defined as in seqeval and the script ``conlleval`` of CoNLL-2000. It begins at ``B-x``, or at ``I-x`` after
``O`` or another type, and goes on while ``I-x`` of its type follows. Predicted tags need not be well-formed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

OUTSIDE = "O"
SPAN_F1 = "span_f1"
TOKEN_METRICS = (SPAN_F1, "span_precision", "span_recall", "accuracy")
"""The metrics of words with a tag each; ``accuracy`` is over words."""

TagRows = Sequence[np.ndarray] | np.ndarray
"""Tag ids: an array a row, or one array ``(row, word)``."""


class Span(NamedTuple):
    """The words from ``start`` to ``end`` (exclusive), of one ``kind``."""

    kind: str
    start: int
    end: int


def find_spans(tags: Sequence[str]) -> list[Span]:
    """The spans of the tags of one row, in order.

    Example: ``find_spans(["B-person", "I-person", "O", "I-place"])``
    """
    spans: list[Span] = []
    kind, start = "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, tag_kind = tag.partition("-")
        if kind and (prefix != "I" or tag_kind != kind):
            spans.append(Span(kind, start, place))
            kind = ""
        if prefix != OUTSIDE and not kind:
            kind, start = tag_kind, place
    return spans


def span_counts(names: Sequence[str], predicted: TagRows, tags: TagRows) -> Int[np.ndarray, "row 3"]:
    """For each row the number of spans in both, in ``predicted``, and in ``tags``.

    Parameters:
        ``names``: the tag of each id.
        ``predicted``: an array of tag ids a row.
        ``tags``: the tag ids to compare with, in the same form.

    Example: ``span_counts(("O", "B-x", "I-x"), [np.array([1, 2])], [np.array([1, 0])])``
    """
    counts = np.zeros((len(tags), 3), dtype=np.int64)
    for row, both in enumerate(zip(predicted, tags, strict=True)):
        ours, theirs = (set(find_spans([names[int(k)] for k in ids])) for ids in both)
        counts[row] = len(ours & theirs), len(ours), len(theirs)
    return counts


def token_metrics(names: Sequence[str], predicted: TagRows, tags: TagRows) -> dict[str, float]:
    """Span F1, precision and recall over all rows (micro), and the share of words with the right tag.

    Parameters as in ``span_counts``. Negative ids in ``tags`` are words without a tag, which are left out. Without any
    span on one side, the figures of that side are 0, as in seqeval.

    Example: ``token_metrics(("O", "B-x", "I-x"), [np.array([1, 2])], [np.array([1, 0])])["span_f1"]``
    """
    known = [ids >= 0 for ids in tags]
    ours = [ids[k] for ids, k in zip(predicted, known, strict=True)]
    theirs = [ids[k] for ids, k in zip(tags, known, strict=True)]
    both, predictions, gold = span_counts(names, ours, theirs).sum(axis=0).tolist()
    right = sum(int((a == b).sum()) for a, b in zip(ours, theirs, strict=True))
    return {
        SPAN_F1: 2 * both / max(predictions + gold, 1),
        "span_precision": both / max(predictions, 1),
        "span_recall": both / max(gold, 1),
        "accuracy": right / max(sum(map(len, theirs)), 1),
    }


def no_span_warning(metrics: Mapping[str, float], owner: str) -> str | None:
    """A warning about a model that finds none of the tagged spans; None if it finds one."""
    problem = "its span F1 is 0, as that of 'O' for every word. Check the tags and the data"
    return f"the {owner} finds none of the tagged spans: {problem}" if metrics[SPAN_F1] == 0 else None
