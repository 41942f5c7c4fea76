"""What a classification head predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from gradistill.models.random_head import head_parameters, output_matrix


@dataclass(frozen=True)
class Head:
    """What the classification head must predict: label names, or None for one score (regression).

    ``multi_label``: any number of the labels for a row. ``token_labels``: one for each token.
    """

    labels: tuple[str, ...] | None
    multi_label: bool = False
    token_labels: bool = False

    def config_fields(self) -> dict[str, Any]:
        if self.labels is None:
            return {"num_labels": 1, "problem_type": "regression"}
        return {
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: k for k, label in enumerate(self.labels)},
            "problem_type": None
            if self.token_labels  # transformers has no word for it
            else "multi_label_classification"
            if self.multi_label
            else "single_label_classification",
        }


def keep_outputs(model: PreTrainedModel, before: Sequence[str], now: Sequence[str]) -> None:
    """Reorder the outputs of a head whose labels are the same ``now`` as ``before``, but in another order.

    Each label keeps its own weights. Nothing changes for other labels. A token classifier's labels are those of tokens.
    Names are compared without letter case.
    """
    places = {name.casefold(): place for place, name in enumerate(before)}
    order = [places.get(name.casefold(), -1) for name in now]
    if len(places) < len(before) or sorted(order) != list(range(len(before))) or order == sorted(order):
        return
    name = output_matrix(head_parameters(model), len(before)).rpartition(".")[0]
    for parameter in model.get_submodule(name).parameters(recurse=False):
        if len(parameter) == len(before):
            parameter.data = parameter.data[order].clone()


def names_in(config: PreTrainedConfig) -> dict[int, str]:
    """The names of a model's outputs by their number, in order, from its configuration."""
    names = {int(k): str(name) for k, name in (config.id2label or {}).items()}
    return dict(sorted(names.items()))


def some(names: Sequence[str], shown: int = 4) -> str:
    """The first of several names, and how many more there are."""
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
