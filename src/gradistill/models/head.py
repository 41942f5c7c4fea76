"""What a classification head predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig


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


def names_in(config: PreTrainedConfig) -> dict[int, str]:
    """``label_names`` of the model that a configuration describes."""
    names = {int(k): str(name) for k, name in (config.id2label or {}).items()}
    return dict(sorted(names.items()))


def some(names: Sequence[str], shown: int = 4) -> str:
    """The first of several names, and how many more there are."""
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
