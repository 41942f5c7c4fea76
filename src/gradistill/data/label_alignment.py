"""Alignment of the classes of the data with a model's outputs: by name, or as the user pairs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from datasets import Dataset, List

from gradistill.data.arrow_tables import with_column
from gradistill.data.label_matching import Match, match_names, match_numbers, numbers_of, shortened
from gradistill.data.splits import Splits
from gradistill.data.tasks import Task, label_key
from gradistill.errors import DataError, nearest

_SHOWN = 20


def align_labels(
    splits: Splits,
    id2label: Mapping[int, str],
    owner: str = "teacher",
    label_map: Mapping[str, str] | None = None,
) -> Splits:
    """The same rows with class ids in the order of a model's outputs.

    Classes are matched by name, whatever the letter case, punctuation and order, or by clear short forms (``NEG``).
    Class ids (0, 1, …) in the data are the model's own numbers. If a model only numbers its outputs (``LABEL_0``), the
    source's order of the classes is used where it has one (known tasks, class ids, a ``Task``), with a remark.

    Parameters:
        ``splits``: rows as ``load_splits`` returns them.
        ``id2label``: the model's name of each output, ``model.config.id2label``.
        ``owner``: the name of the model in messages.
        ``label_map``: the model's output for each class of the data, a name or a number. Classes that are not in it
            are matched by name.

    Raises DataError, with both lists, where it is not certain which class is which, or the numbers of classes differ.

    Example: ``align_labels(load_splits("DATA/mrpc"), teacher.config.id2label)``
    """
    theirs = [id2label[key] for key in sorted(id2label, key=int)]
    task = splits.task
    if len(theirs) != task.num_labels:
        raise _other_count(task, theirs, owner)
    if task.labels is None:
        if label_map:
            raise DataError(
                "A label map was given, but the data have scores.", remedy="leave --label-map out"
            )
        return splits
    if label_map:
        match = Match(_mapped(task.labels, theirs, label_map, owner))
    else:
        match = _matched_classes(splits, theirs, owner)
    remarks = (*splits.remarks, match.note) if match.note else splits.remarks
    if match.is_identity:
        return replace(splits, remarks=remarks) if match.note else splits
    new_ids = np.array(match.positions)
    ordered = tuple(task.labels[old] for old in np.argsort(new_ids))
    positive = int(new_ids[task.positive]) if task.positive < len(new_ids) else task.positive
    return replace(
        splits,
        task=replace(task, labels=ordered, positive=positive),
        rows={name: _renumbered(rows, new_ids) for name, rows in splits.rows.items()},
        remarks=remarks,
    )


def _matched_classes(splits: Splits, theirs: Sequence[str], owner: str) -> Match:
    ours = splits.task.labels or ()
    if (match := match_names(ours, theirs)) is not None:
        return match
    positions = list(range(len(theirs)))
    if numbers_of(ours) == positions:  # class ids
        if (match := match_numbers(positions, numbers_of(theirs))) is not None:
            return match
        pairs = ", ".join(f"{mine} = {name}" for mine, name in zip(ours, theirs, strict=True))
        return Match(
            tuple(positions), f"class ids of the data are taken for the {owner}'s: {shortened(pairs)}"
        )
    if numbers_of(theirs) is not None and numbers_of(ours) is None and not splits.alphabetical:
        pairs = ", ".join(f"{name} = {mine}" for mine, name in zip(ours, theirs, strict=True))
        order_source = f"the task {splits.task.name}" if not splits.inferred else "the data set"
        note = f"the {owner} only numbers its classes; the order of {order_source} is assumed: {shortened(pairs)}"
        return Match(tuple(positions), note)
    raise _other_names(ours, theirs, owner, {})


def _mapped(
    ours: Sequence[str], theirs: Sequence[str], label_map: Mapping[str, str], owner: str
) -> tuple[int, ...]:
    """The output of each class of the data: by the label map, or by name for classes that it leaves out."""
    names = {label_key(name): place for place, name in enumerate(ours)}
    outputs = {label_key(name): place for place, name in enumerate(theirs)}
    outputs = {str(place): place for place in range(len(theirs))} | outputs
    positions: dict[int, int] = {}
    for mine, output in label_map.items():
        if (place := names.get(label_key(mine))) is None:
            raise _unknown(f"the data have no label {mine!r}", mine, ours)
        if (position := outputs.get(label_key(output))) is None:
            raise _unknown(f"the {owner} has no output {output!r}", output, theirs)
        if position in positions.values():
            raise DataError(
                f"--label-map: the output {output!r} is named twice.",
                expected="another output of the model for each label of the data",
                remedy=f"correct the pair {mine}={output}",
            )
        positions[place] = position
    rest = [place for place in range(len(ours)) if place not in positions]
    free = [position for position in range(len(theirs)) if position not in positions.values()]
    match = (
        match_names([ours[place] for place in rest], [theirs[position] for position in free])
        if rest
        else None
    )
    if rest and (match is None or len(rest) != len(free)):
        what = {ours[place]: theirs[position] for place, position in positions.items()}
        raise _other_names(ours, theirs, owner, what)
    if match is not None:
        positions |= {place: free[position] for place, position in zip(rest, match.positions, strict=True)}
    return tuple(positions[place] for place in range(len(ours)))


def _unknown(what: str, name: str, known: Sequence[str]) -> DataError:
    return DataError(
        f"--label-map: {what}.",
        expected='pairs of a label of the data and an output of the model: "refund=LABEL_2,login=LABEL_0"',
        remedy=nearest(name, known),
    )


def _other_count(task: Task, theirs: Sequence[str], owner: str) -> DataError:
    ours = (
        f"{task.num_labels} labels ({shortened(', '.join(task.labels))})"
        if task.labels
        else "scores (one output)"
    )
    if (len(theirs) == 1) != (task.labels is None):
        of_owner = (
            "one output, a score"
            if len(theirs) == 1
            else f"{len(theirs)} classes ({shortened(', '.join(theirs))})"
        )
        return DataError(
            f"The {owner} has {of_owner}, the data have {ours}.",
            expected="both of one kind: classes, or scores",
            remedy=f"take a {owner} of this task, or choose the kind of the data with --kind",
        )
    return DataError(
        f"The {owner} has {len(theirs)} outputs ({shortened(', '.join(theirs))}), the data have {ours}.",
        expected=f"as many outputs as the data have labels, or labels named like outputs of the {owner}",
        remedy=f"take a {owner} of this task, name the --task that the data are, or pair the labels with --label-map",
    )


def _other_names(
    ours: Sequence[str], theirs: Sequence[str], owner: str, known: Mapping[str, str]
) -> DataError:
    """The error with both lists side by side, and the option to fill in."""
    left = [owner, *map(repr, theirs[:_SHOWN])]
    width = max(map(len, left))
    right = ["data", *map(repr, ours[:_SHOWN])]
    lines = [f"  {a:<{width}}  {b}" for a, b in zip(left, right, strict=True)]
    if len(ours) > _SHOWN:
        lines.append(f"  … and {len(ours) - _SHOWN} more")
    option = ",".join(f"{name}={known.get(name, '…')}" for name in ours[:_SHOWN])
    return DataError(
        f"It is not certain which class of the data is which output of the {owner}:\n" + "\n".join(lines),
        expected="the same names in any order, or class ids (0, 1, …) in the data",
        remedy=f'pair them: --label-map "{option}" (label_map= in Python), '
        f"or correct id2label in the {owner}'s config.json",
    )


def _renumbered(rows: Dataset, new_ids: np.ndarray) -> Dataset:
    labels = rows["label"][:]
    if isinstance(rows.features["label"], List) and rows.features["label"].length == -1:  # tags
        return with_column(rows, "label", [new_ids[tags].tolist() for tags in labels])
    ids = np.asarray(labels)  # negative for a row without a label; these stay
    if ids.ndim == 2:  # a flag for each label: the columns are reordered
        return with_column(rows, "label", ids[:, np.argsort(new_ids)].tolist())
    return with_column(rows, "label", np.where(ids >= 0, new_ids[np.maximum(ids, 0)], ids))
