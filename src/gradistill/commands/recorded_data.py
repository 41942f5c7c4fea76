"""The data record of the run that trained a model: columns, and the positive class."""

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
"""The key of ``export.json`` with the data record of the student that was exported."""


def data_record(folder: str | Path) -> dict[str, Any]:
    """``text_columns``, ``label_column`` and ``positive`` class of the run that trained the model in a folder. For an
    exported model they are those of the student that was exported; empty without a record."""
    run, exported = record_of(folder), export_record(folder).get(TRAINED)
    data = run.get("data")
    record = (
        {**(data if isinstance(data, dict) else {}), "positive": run.get("positive")} if run else exported
    )
    kinds = {"text_columns": list, "label_column": str, "positive": str}
    record = record if isinstance(record, dict) else {}
    return {name: record[name] for name, kind in kinds.items() if isinstance(record.get(name), kind)}


def with_positive(splits: Splits, named: str | None, models: Sequence[str | Path] = ()) -> Splits:
    """The splits with the positive class that the user named, or else with the one that a run of ``models`` recorded.

    Raises DataError for a name that is no label, or for a task without two classes.
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
    """The splits that ``read`` returns. Unless columns are named, they are those that the first of ``models`` with a
    record was trained on.

    Inferred columns could be other ones: a pair for a model of one text. Columns are inferred only if no run recorded
    any, or if the data lack them. Any other fault of the data is an error.
    """
    records = [] if data.task is not None or data.text_columns is not None else map(data_record, models)
    trained = next((record for record in records if record.get("text_columns")), None)
    if trained is not None:
        label = data.label_column or (None if data.label_columns else trained.get("label_column"))
        try:
            return read(replace(data, text_columns=tuple(trained["text_columns"]), label_column=label))
        except DataError as error:
            if not any(isinstance(problem, MissingColumn) for problem in error.problems):
                raise
    return read(data)
