"""What an objective is: signals of two models, and one distance per example.

An objective is one frozen dataclass in one file of this folder. ``signals`` names the signals that it needs of a model
in either role. ``distance`` compares the student's signals with the teacher's and returns one value per example. It
applies no weight, average or schedule, and does not scale drawn views. The fields are the YAML keys.
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
"""Signals of one model and one batch, by the names that ``Objective.signals`` gives them."""


@dataclass(frozen=True)
class Pair:
    """A student and its teacher. ``shared_embeddings``: one embedding layer, copied from teacher to student."""

    student: ModelFacts
    teacher: ModelFacts
    shared_embeddings: bool = True

    @property
    def on_raw_texts(self) -> bool:
        """Whether the models have different tokenizers, so that they are compared by texts and words, not tokens."""
        return self.teacher.reads_raw_texts

    @property
    def regression(self) -> bool:
        return self.student.labels == 1 and not self.student.multi_label

    def layers(self, layer_map: LayerMap, role: Role, *, intermediate: bool = False) -> Layers:
        """The layers of the model in this role that are compared, in the student's order. ``intermediate`` leaves out
        the student's last layer. Raises RecipeError for an impossible map."""
        pairs = intermediate_pairs if intermediate else layer_pairs
        students, teachers = pairs(layer_map, self.student.layers, self.teacher.layers)
        return students if role == "student" else teachers


class _AnyPair(Pair):
    """A pair that accepts every layer map, for finding out which kinds of signals an objective needs."""

    def layers(self, layer_map: LayerMap, role: Role, *, intermediate: bool = False) -> Layers:
        return (1,)


ANY_PAIR = _AnyPair(ModelFacts(3, 16, 2, 2, 16), ModelFacts(6, 16, 2, 2, 16))


@dataclass(frozen=True)
class EpochProgress:
    """Progress of training: ``epoch``, counted from 0, out of ``epochs``."""

    epoch: int = 0
    epochs: int = 1


class Objective(ABC):
    """Base class of objectives (see the module's text). ``source`` is the paper, ``title`` the method's usual name."""

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    is_prediction_loss: ClassVar[bool] = False
    """Whether this is a loss of the student's predictions. Such losses have priority in
    ``training/answers_first.py``."""
    cross_tokenizer_setting: ClassVar[str] = ""
    """The setting that makes the objective fit models with different tokenizers, where its defaults do not."""

    @property
    def second_order(self) -> bool:
        """Whether ``distance`` depends on a gradient of the student, so that training differentiates it again."""
        return any(signal.second_order for signal in self.signals(ANY_PAIR, "student").values())

    @property
    def needs_teacher(self) -> bool:
        """Whether ``distance`` uses any signal of the teacher."""
        return bool(self.signals(ANY_PAIR, "teacher"))

    def check(self, pair: Pair) -> None:  # noqa: B027  (most objectives apply to every pair)
        """Raise RecipeError, before training, where the method cannot apply to this pair of models."""

    def projections(self, pair: Pair) -> dict[str, tuple[int, int]]:
        """Input and output widths of learned linear maps, by the name of the student's signal that each is applied to.

        ``distance`` gets the projected signals. The maps exist in training only: the saved student has none.
        """
        return {}

    @abstractmethod
    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        """The signals of the model in this role that ``distance`` needs, by name."""

    @abstractmethod
    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        """One value per example. The teacher's signals carry no gradient."""


@dataclass_transform(frozen_default=True, field_specifiers=(pydantic.Field,))
def objective(cls: type[ObjectiveT]) -> type[ObjectiveT]:
    """Class decorator: a frozen dataclass that validates its fields and refuses unknown ones."""
    validated: Any = pydantic.dataclasses.dataclass(
        frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False)
    )(cls)
    return validated
