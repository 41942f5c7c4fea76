"""Do the data and a model number their classes alike? If only the order differs, the data follow the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from datasets import Dataset

from gradistill.data.loading import Splits
from gradistill.errors import DataError

_NUMBERED = re.compile(r"(label[-_ ]?)?[+-]?\d+", re.IGNORECASE)


def align_labels(splits: Splits, id2label: Mapping[int, str], owner: str = "teacher") -> Splits:
    """The same rows with class ids in the order of a model's ``id2label``.

    Names that only count (``LABEL_0``, ``1``) on either side are compared by their number. The same names in
    another order (letter case, "-", "_" and blanks aside) renumber the data and the task's labels. ``owner``
    is what messages call the model. Raises DataError if the numbers or the names of the classes differ.
    """
    theirs = [id2label[key] for key in sorted(id2label, key=int)]
    task = splits.task
    if len(theirs) != task.num_labels:
        ours = (
            f"{task.num_labels} labels ({', '.join(task.labels)})" if task.labels else "scores (one output)"
        )
        raise DataError(
            f"The {owner} has {len(theirs)} outputs ({', '.join(theirs)}), the data have {ours}.",
            expected="as many outputs as the data have labels",
            remedy=f"take a {owner} of this task, or name the --task that the data are",
        )
    if task.labels is None or _only_count(task.labels) or _only_count(theirs):
        return splits
    plain, positions = [_plain(name) for name in task.labels], {_plain(x): i for i, x in enumerate(theirs)}
    if set(plain) != set(positions) or len(positions) < len(theirs):
        raise DataError(
            f"The {owner} and the data name their classes differently.\n"
            f"  {owner}: {', '.join(theirs)}\n  data: {', '.join(task.labels)}",
            expected="the same names, in any order",
            remedy=f"rename the labels in the data, or correct id2label in the {owner}'s config.json",
        )
    new_ids = np.array([positions[name] for name in plain])
    if (new_ids == np.arange(len(new_ids))).all():
        return splits
    ordered = tuple(task.labels[old] for old in np.argsort(new_ids))
    positive = int(new_ids[task.positive]) if task.positive < len(new_ids) else task.positive
    return replace(
        splits,
        task=replace(task, labels=ordered, positive=positive),
        rows={name: _renumbered(rows, new_ids) for name, rows in splits.rows.items()},
    )


def _only_count(names: Sequence[str]) -> bool:
    return all(_NUMBERED.fullmatch(name.strip()) for name in names)


def _plain(name: str) -> str:
    return re.sub(r"[-_\s]+", " ", name.casefold()).strip()


def _renumbered(rows: Dataset, new_ids: np.ndarray) -> Dataset:
    columns = {name: rows[name][:] for name in rows.column_names}
    ids = np.asarray(columns["label"])  # of a row without a label it is negative, and stays so
    columns["label"] = np.where(ids >= 0, new_ids[np.maximum(ids, 0)], ids).tolist()
    return Dataset.from_dict(columns, features=rows.features)
