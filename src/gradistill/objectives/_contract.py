"""The contract between objectives and the rest: what is asked of a model, and one distance per example.

An objective is one frozen dataclass in one file of this folder. It says by ``requests`` which signals it
needs of a model in either role, and by ``distance`` how far what the student said is from what the
teacher said: one value per example, no weight, no average, no schedule. Its fields are its YAML keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, dataclass_transform

import pydantic
from jaxtyping import Float
from pydantic import ConfigDict
from torch import Tensor

from gradistill.attribution.integrated import Rule
from gradistill.attribution.targets import Target
from gradistill.models.layers import LayerMap, Layers, intermediate_pairs, layer_pairs
from gradistill.types import Batch

Role = Literal["student", "teacher"]
Site = Literal["embedding_output", "cls"]
Part = Literal["query", "key", "value"]


@dataclass(frozen=True)
class Logits:
    """``(batch, label)`` logits in float32 or wider."""


@dataclass(frozen=True)
class ClsStates:
    """``(batch, layer, hidden)``: hidden states of ``layers`` at the position that stands for the text."""

    layers: tuple[int, ...]


@dataclass(frozen=True)
class States:
    """``(batch, layer, token, hidden)``: hidden states of ``layers``; 0 is the embedding output."""

    layers: tuple[int, ...]


@dataclass(frozen=True)
class AttentionVectors:
    """``(batch, layer, token, head, part)``: queries, keys or values of the self-attention of ``layers``, as they meet
    in the scores (after rotary positions; key heads that queries share, repeated)."""

    part: Part
    layers: tuple[int, ...]


@dataclass(frozen=True)
class InputGradient:
    """``∇ target`` at the embedding output, ``(batch, view, token, hidden)``."""

    target: Target


@dataclass(frozen=True)
class ClsGradient:
    """``∇ target`` at the [CLS] position of the states after ``layers``, ``(batch, view, layer, hidden)``."""

    target: Target
    layers: tuple[int, ...]


@dataclass(frozen=True)
class AttributionScores:
    """Token scores of Integrated Gradients, ``(batch, view, token)``; one right Riemann step: gradient × input.

    ``keep`` is the share of each token's attribution entries that enter its score, a norm. ``signed`` scores are
    sums of all entries instead.
    """

    target: Target
    steps: int = 1
    rule: Rule = "right_riemann"
    keep: float = 1.0
    signed: bool = False


OfLayers = ClsStates | States | AttentionVectors
"""Requests that a forward pass answers by what stands between its layers."""

Gradients = InputGradient | ClsGradient | AttributionScores
"""Requests that differentiate a target."""

Request = Logits | OfLayers | Gradients
Signals = Mapping[str, Tensor]
"""What one model says about one batch, by the names under which an objective asked for it."""


@dataclass(frozen=True)
class ModelFacts:
    """What an objective may want to know of a model before it speaks."""

    layers: int
    width: int
    labels: int
    heads: int = 0
    """Of its self-attention; 0 where that cannot be looked into."""
    attention_width: int = 0
    """Of the queries of all heads together."""
    full_length: bool = True
    """Whether every layer has a state for every token."""


@dataclass(frozen=True)
class Pair:
    """A student and its teacher. ``shared_embeddings``: one embedding layer, copied from teacher to student."""

    student: ModelFacts
    teacher: ModelFacts
    shared_embeddings: bool = True

    @property
    def regression(self) -> bool:
        return self.student.labels == 1

    def layers(self, layer_map: LayerMap, role: Role, *, intermediate: bool = False) -> Layers:
        """The layers of one of the two that stand beside those of the other: all of the student's, or all but its
        last. Raises RecipeError for a map that cannot be."""
        pairs = intermediate_pairs if intermediate else layer_pairs
        students, teachers = pairs(layer_map, self.student.layers, self.teacher.layers)
        return students if role == "student" else teachers


@dataclass(frozen=True)
class Moment:
    """How far training is: ``epoch`` counted from 0, of ``epochs`` in all."""

    epoch: int = 0
    epochs: int = 1


class Objective(ABC):
    """See the module's text. ``source`` names the paper; ``title`` is what people call the method."""

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]

    @property
    def second_order(self) -> bool:
        """Whether its distance differentiates a gradient of the student."""
        return False

    @property
    def needs_teacher(self) -> bool:
        return True

    def check(self, pair: Pair) -> None:  # noqa: B027  (most objectives apply to every pair)
        """Raise RecipeError, before training, where the method cannot apply to this pair of models."""

    def projections(self, pair: Pair) -> dict[str, tuple[int, int]]:
        """Widths from and to of the learned linear maps through which the student's signals of these names go.

        They belong to the training: ``distance`` sees what comes out of them, and the student is saved without.
        """
        return {}

    @abstractmethod
    def requests(self, pair: Pair, role: Role) -> dict[str, Request]:
        """The signals that ``distance`` will look up, by name."""

    @abstractmethod
    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, moment: Moment
    ) -> Float[Tensor, " batch"]:
        """One value per example. Nothing of the teacher carries a gradient."""


@dataclass_transform(frozen_default=True, field_specifiers=(pydantic.Field,))
def objective(cls: type[Any]) -> type[Any]:
    """Make an objective: a frozen dataclass whose fields are validated and whose unknown fields are refused."""
    return pydantic.dataclasses.dataclass(
        frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False)
    )(cls)
