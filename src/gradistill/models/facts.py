"""Facts about a model that objectives and stores need before it computes anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MULTI_LABEL = "multi_label_classification"
"""The ``problem_type`` of transformers for any number of labels a row."""

TOKEN_CLASSIFIER = "ForTokenClassification"
"""The end of the class names of transformers' token classifiers."""


@dataclass(frozen=True)
class ModelFacts:
    """Sizes of a classifier of texts, or of their tokens. ``labels`` is 1 in a regression."""

    layers: int
    width: int
    labels: int
    heads: int = 0
    """Heads of the self-attention; 0 if queries, keys and values cannot be recorded."""
    attention_width: int = 0
    """Width of the queries of all heads together."""
    full_length: bool = True
    """Whether every layer has a state for every token."""
    multi_label: bool = False
    """Whether each label is a separate yes or no, by transformers' ``problem_type``."""
    token_labels: bool = False
    """Whether it has logits for every token: a token classifier."""
    replaceable_states: bool = True
    """Whether the state after each layer but the last is the output of a module, and can be replaced there."""
    reads_raw_texts: bool = False
    """For a teacher: whether it reads the raw texts itself, with another tokenizer than the student or with none."""
    outputs_only: bool = False
    """For such a teacher: whether only its outputs are available."""


def is_multi_label(model: Any) -> bool:
    """Whether a model of transformers predicts any number of labels a row: its logits are log-odds, one a label."""
    return has_several_labels(getattr(model, "config", None))


def has_several_labels(config: Any) -> bool:
    """Whether a configuration describes a model with any number of labels a row."""
    return getattr(config, "problem_type", None) == MULTI_LABEL


def is_token_classifier(model: Any) -> bool:
    """Whether a model of transformers labels the tokens of a text: its logits are ``(batch, token, label)``."""
    return type(model).__name__.endswith(TOKEN_CLASSIFIER)


def thresholds_of(model: Any) -> np.ndarray | None:
    """The thresholds of the labels' probabilities that a model of several labels a row was saved with; None for ½."""
    return thresholds_in(getattr(model, "config", None))


def thresholds_in(config: Any) -> np.ndarray | None:
    """The thresholds that a configuration holds; None for ½."""
    thresholds = getattr(config, "thresholds", None)
    return (
        None if thresholds is None or not has_several_labels(config) else np.asarray(thresholds, np.float64)
    )


def set_thresholds(model: Any, thresholds: np.ndarray | None) -> None:
    """Write the threshold of each label into a model's configuration, which is saved with it; None means ½."""
    model.config.thresholds = None if thresholds is None else thresholds.tolist()
