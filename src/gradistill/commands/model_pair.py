"""The models of one command, loaded and probed once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from gradistill.models.loaded_model import LoadedModel
from gradistill.objectives import ModelFacts, Pair
from gradistill.objectives.low_precision_teacher import refuse_low_precision_gradients
from gradistill.recipe import Recipe
from gradistill.signals import Signal
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training.step import signals_of
from gradistill.training.trainer import online_teacher


@dataclass(frozen=True)
class ModelPair:
    """A student and its teacher, if there is one, for a recipe.

    ``shared_embeddings``: whether the student's embedding layer is a copy of the teacher's. ``teacher_facts`` are those
    of a teacher that reads raw texts (``answer_sources``); ``teacher`` is None then.
    """

    student: LoadedModel
    teacher: LoadedModel | None
    recipe: Recipe
    shared_embeddings: bool = True
    teacher_facts: ModelFacts | None = None

    @classmethod
    def of(cls, student: LoadedModel, teacher: LoadedModel, recipe: Recipe) -> ModelPair:
        """A pair whose student was built from the teacher as the recipe describes (``prepared_run.build_student``)."""
        made_otherwise = recipe.student.checkpoint or recipe.student.width is not None
        own_embeddings = bool(made_otherwise) and recipe.student.embeddings == "own"
        return cls(student, teacher, recipe, not own_embeddings)

    @cached_property
    def online(self) -> OnlineTeacher | None:
        """The teacher as a source of signals. It is put into eval mode, and its parameters need no gradients."""
        if self.teacher is None:
            return None
        return online_teacher(self.teacher.model, self.recipe.compute, self.teacher.probe)

    @property
    def facts(self) -> Pair | None:
        """The facts about both models that objectives are checked against; None without a teacher."""
        if self.teacher_facts is not None:
            return Pair(self.student.probe, self.teacher_facts, shared_embeddings=False)
        if self.teacher is None:
            return None
        return Pair(self.student.probe, self.teacher.probe, self.shared_embeddings)

    def required_signals(self) -> tuple[Signal, ...]:
        """The teacher signals that the objectives need. Raises RecipeError if an objective cannot apply to the pair."""
        pair, terms = self.facts, list(self.recipe.objectives.values())
        assert pair is not None
        for term in terms:
            term.objective.check(pair)
        if self.teacher is not None:
            refuse_low_precision_gradients(terms, pair, self.teacher.model)
        return signals_of(terms, pair, "teacher")

    def readers(self) -> Iterator[tuple[str, LoadedModel]]:
        """The models by role, the student first."""
        yield "student", self.student
        if self.teacher is not None:
            yield "teacher", self.teacher
