"""Validation rows drawn from training rows with a seed: with the shares of the classes, and no text on both sides."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from datasets import Dataset

from gradistill.data.arrow_tables import as_dataset, table_of, with_column
from gradistill.data.overlap import normalised, texts_of
from gradistill.data.tasks import Task
from gradistill.errors import DataError


def divided(rows: Dataset, task: Task, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """The training and the validation rows, in the order of ``rows``, each numbered from 0.

    Rows with the same texts (whatever the letter case and white space) form a group and stay together. Of each class,
    ``share`` of the rows are drawn, as nearly as the groups allow; of every class with two groups or more, at least
    one. With several labels a row, or tags, a row's class is its rarest one. Raises DataError if one side would be
    empty.
    """
    generator = np.random.default_rng(seed)
    labels = _strata(rows, task)
    drawn = np.zeros(len(rows), dtype=bool)
    strata: dict[float, list[list[int]]] = {}
    for group in _groups(rows, task):
        strata.setdefault(labels[group[0]], []).append(group)
    for label in sorted(strata):
        drawn[_drawn(strata[label], share, generator)] = True
    if drawn.all() or not drawn.any():
        raise DataError(
            f"{len(rows)} rows cannot be divided: {int(drawn.sum())} of them would be for validation.",
            expected="two different texts or more of a class, and a share that is at least one of them",
            remedy="give more rows or a larger share, or files of your own for train and validation",
        )
    return _numbered(rows, ~drawn), _numbered(rows, drawn)


def _strata(rows: Dataset, task: Task) -> np.ndarray:
    """The class of each row; 0 for scores. With several labels a row, or tags, the rarest one, −1 for none."""
    if task.labels is None:
        return np.zeros(len(rows))
    if task.token_labels:
        counts = np.bincount(np.concatenate([[0], *rows["label"][:]]).astype(int))
        return np.array([min(tags, key=lambda tag: counts[tag], default=-1) for tags in rows["label"][:]])
    labels = np.asarray(rows["label"][:])
    if not task.multi_label:
        return labels
    flags = labels == 1  # a row without known labels has none
    counts = np.where(flags, flags.sum(axis=0), np.inf)
    return np.where(flags.any(axis=1), counts.argmin(axis=1), -1)


def _groups(rows: Dataset, task: Task) -> list[list[int]]:
    groups: dict[tuple[str, ...], list[int]] = {}
    for row, texts in enumerate(texts_of(rows, task.text_columns)):
        groups.setdefault(tuple(map(normalised, texts)), []).append(row)
    return list(groups.values())


def _drawn(groups: list[list[int]], share: float, generator: np.random.Generator) -> list[int]:
    target = max(1, round(share * sum(map(len, groups))))
    taken: list[int] = []
    for place in generator.permutation(len(groups))[1:]:  # one group stays for training
        if len(taken) + len(groups[place]) <= target:
            taken += groups[place]
    if not taken and len(groups) > 1:
        taken = min(groups, key=len)
    return taken


def _numbered(rows: Dataset, kept: np.ndarray) -> Dataset:
    chosen = as_dataset(table_of(rows).filter(pa.array(kept)))
    return with_column(chosen, "index", range(len(chosen)))
