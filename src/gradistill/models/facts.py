"""Facts about a model that objectives and stores need before it computes anything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelFacts:
    """Sizes of a sequence classifier. ``labels`` is 1 in a regression."""

    layers: int
    width: int
    labels: int
    heads: int = 0
    """Of its self-attention; 0 where queries, keys and values cannot be recorded."""
    attention_width: int = 0
    """Of the queries of all heads together."""
    full_length: bool = True
    """Whether every layer has a state for every token."""
    replaceable_states: bool = True
    """Whether the state after each layer but the last is what a module returns, and can be replaced there."""
