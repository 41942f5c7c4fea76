"""What the run that trained a model recorded of its data: columns, and the positive class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradistill.commands.run_folder import export_record, record_of
from gradistill.data import DataChoice, Splits
from gradistill.data.tasks import label_key
from gradistill.errors import DataError, MissingColumn

TRAINED = "trained"
"""The part of ``export.json`` that holds it of the exported model."""


def data_record(folder: str | Path) -> dict[str, Any]:
    """``text_columns`` and ``label_column`` of the run that trained a folder's model, and its ``positive`` class. Of an
    exported model those of the model that it was made from; empty where none are recorded."""
    run, exported = record_of(folder), export_record(folder).get(TRAINED)
    data = run.get("data")
    found = {**(data if isinstance(data, dict) else {}), "positive": run.get("positive")} if run else exported
    kinds = {"text_columns": list, "label_column": str, "positive": str}
    found = found if isinstance(found, dict) else {}
    return {name: found[name] for name, kind in kinds.items() if isinstance(found.get(name), kind)}


def with_positive(splits: Splits, named: str | None, models: Sequence[str | Path] = ()) -> Splits:
    """The splits with the positive class that the user named, or else that of the run that made one of ``models``.

    Raises DataError for a name that is no label, or a task without two classes.
    """
    if named is not None:
        return replace(splits, task=splits.task.with_positive(named))
    for label in filter(None, (data_record(model).get("positive") for model in models)):
        if label_key(label) in map(label_key, splits.task.labels or ()) and splits.task.positive_label:
            return replace(splits, task=splits.task.with_positive(label))
    return splits


def read_as_trained(
    data: DataChoice, models: Sequence[str | Path], read: Callable[[DataChoice], Splits]
) -> Splits:
    """The splits that ``read`` makes, by the columns that the run of the first of ``models`` recorded, where nobody
    named any.

    To infer them anew might give a model of one text the two of a pair. They are inferred where no run recorded any, or
    the data have none of that name; any other fault of the data is an error.
    """
    records = [] if data.task is not None or data.text_columns is not None else map(data_record, models)
    found = next((record for record in records if record.get("text_columns")), None)
    if found is not None:
        label = data.label_column or (None if data.label_columns else found.get("label_column"))
        try:
            return read(replace(data, text_columns=tuple(found["text_columns"]), label_column=label))
        except DataError as error:
            if not any(isinstance(problem, MissingColumn) for problem in error.problems):
                raise
    return read(data)
