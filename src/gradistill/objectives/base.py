"""What an objective is: signals of two models, and one distance per example.

An objective is one frozen dataclass in one file of this folder. ``signals`` names the signals that it needs of a model
in either role; ``distance`` returns how far the student's are from the teacher's: one value per example, no weight,
no average, no schedule, no scaling of drawn views. Its fields are its YAML keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, dataclass_transform

import pydantic
from jaxtyping import Float
from pydantic import ConfigDict
from torch import Tensor

from gradistill.batch import Batch
from gradistill.models.facts import ModelFacts
from gradistill.models.layer_map import LayerMap, Layers, intermediate_pairs, layer_pairs
from gradistill.signals import Signal

ObjectiveT = TypeVar("ObjectiveT", bound="Objective")
Role = Literal["student", "teacher"]
Site = Literal["embedding_output", "cls"]
Signals = Mapping[str, Tensor]
"""Signals of one model and one batch, by the names under which an objective asked for them."""


@dataclass(frozen=True)
class Pair:
    """A student and its teacher. ``shared_embeddings``: one embedding layer, copied from teacher to student."""

    student: ModelFacts
    teacher: ModelFacts
    shared_embeddings: bool = True

    @property
    def on_raw_texts(self) -> bool:
        """Whether the two read different tokens, so that they are compared by whole texts and their words."""
        return self.teacher.reads_raw_texts

    @property
    def regression(self) -> bool:
        return self.student.labels == 1 and not self.student.multi_label

    def layers(self, layer_map: LayerMap, role: Role, *, intermediate: bool = False) -> Layers:
        """The layers of one model that are compared with those of the other: all of the student's, or all but its
        last. Raises RecipeError for a map that cannot be."""
        pairs = intermediate_pairs if intermediate else layer_pairs
        students, teachers = pairs(layer_map, self.student.layers, self.teacher.layers)
        return students if role == "student" else teachers


class _AnyPair(Pair):
    """A pair of which the layer maps do not matter: to find out which kinds of signals an objective asks for."""

    def layers(self, layer_map: LayerMap, role: Role, *, intermediate: bool = False) -> Layers:
        return (1,)


ANY_PAIR = _AnyPair(ModelFacts(3, 16, 2, 2, 16), ModelFacts(6, 16, 2, 2, 16))


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
    answers: ClassVar[bool] = False
    """Whether it is about the student's answers to the texts, and so goes first (``training/answers_first.py``)."""
    cross_tokenizer_setting: ClassVar[str] = ""
    """The setting with which it compares models that read different tokens, where its own default cannot."""

    @property
    def second_order(self) -> bool:
        """Whether its distance differentiates a gradient of the student."""
        return any(signal.second_order for signal in self.signals(ANY_PAIR, "student").values())

    @property
    def needs_teacher(self) -> bool:
        """Whether it compares with anything of a teacher."""
        return bool(self.signals(ANY_PAIR, "teacher"))

    def check(self, pair: Pair) -> None:  # noqa: B027  (most objectives apply to every pair)
        """Raise RecipeError, before training, where the method cannot apply to this pair of models."""

    def projections(self, pair: Pair) -> dict[str, tuple[int, int]]:
        """Widths from and to of the learned linear maps through which the student's signals of these names go.

        They belong to the training: ``distance`` sees what comes out of them, and the student is saved without.
        """
        return {}

    @abstractmethod
    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        """The signals that ``distance`` will look up, by name."""

    @abstractmethod
    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, moment: Moment
    ) -> Float[Tensor, " batch"]:
        """One value per example. Nothing of the teacher carries a gradient."""


@dataclass_transform(frozen_default=True, field_specifiers=(pydantic.Field,))
def objective(cls: type[ObjectiveT]) -> type[ObjectiveT]:
    """Make an objective: a frozen dataclass whose fields are validated and whose unknown fields are refused."""
    validated: Any = pydantic.dataclasses.dataclass(
        frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False)
    )(cls)
    return validated
