"""Texts that occur several times with different labels: no model can predict both."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from gradistill.data.overlap import shown_texts, texts_of
from gradistill.data.tasks import Task
from gradistill.printing import printable

MANY_CONTRADICTIONS = 0.01
"""The share of contradictory rows above which a message names them. Public tasks have up to .003."""


def contradictory_labels(rows: Dataset, task: Task, some: str = "rows") -> str | None:
    """A warning about rows with the same text, letter for letter, and different labels; None if they are few.

    It is None for a regression too, whose scores may differ. ``some`` is the name of the rows in the message. Rows are
    compared by hashes, which take 16 bytes a row.

    Example: ``contradictory_labels(splits.rows["train"], splits.task, "train rows")``
    """
    if task.labels is None or not len(rows):
        return None
    texts = np.fromiter(map(hash, texts_of(rows, task.text_columns)), np.int64, len(rows))
    labels = np.fromiter((hash(_comparable(label)) for label in rows["label"]), np.int64, len(rows))
    order = np.lexsort((labels, texts))
    same_text, same_label = (np.diff(values[order]) == 0 for values in (texts, labels))
    contradicted = np.unique(texts[order][1:][same_text & ~same_label])
    count = int(np.isin(texts, contradicted).sum())
    if count <= MANY_CONTRADICTIONS * len(rows):
        return None
    first, *others = np.flatnonzero(texts == texts[np.isin(texts, contradicted)][0]).tolist()
    other = next(k for k in others if labels[k] != labels[first])
    shown = shown_texts(rows[first], task.text_columns)
    named = " and ".join(f"'{_named(rows[k]['label'], task)}'" for k in (first, other))
    occurrences = "1 text occurs" if len(contradicted) == 1 else f"{len(contradicted)} texts occur"
    return (
        f"{count} of {len(rows)} {printable(some)} contradict another: {occurrences} with different labels, such as "
        f"'{shown}' with {named}. A model can be right about one of them at most: check these labels"
    )


def _comparable(label: object) -> object:
    return tuple(label) if isinstance(label, list | tuple) else label


def _named(label: object, task: Task) -> str:
    assert task.labels is not None
    if isinstance(label, list | tuple):
        names = [task.labels[int(k)] for k in label] if task.token_labels else _flagged(label, task.labels)
        return " ".join(names) or "none"
    return task.labels[label] if isinstance(label, int) else str(label)


def _flagged(flags: list[object] | tuple[object, ...], names: tuple[str, ...]) -> list[str]:
    return [name for name, flag in zip(names, flags, strict=True) if flag]
