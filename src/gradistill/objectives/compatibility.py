"""Checks that vectors of two models can be compared: they lie in one space, or belong to the same tokens."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from gradistill.attribution.targets import Target
from gradistill.attribution.word_targets import WordTarget
from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.models.facts import ModelFacts
from gradistill.objectives.base import Pair, Signals


def refuse_other_widths(name: str, pair: Pair) -> None:
    """Raise RecipeError where the models' vectors have different lengths."""
    if pair.student.width != pair.teacher.width:
        raise RecipeError(
            f"{name} compares directions in one space, and the student is "
            f"{pair.student.width} wide, the teacher {pair.teacher.width}",
            expected="equal widths",
            remedy="use a student as wide as the teacher, or attribution_map, which needs no equal width",
        )


def refuse_shortened(name: str, pair: Pair) -> None:
    """Raise RecipeError where a model has no state for every token in every layer."""
    if not (pair.student.full_length and pair.teacher.full_length):
        raise RecipeError(
            f"{name} compares states token by token, and one of the models shortens the sequence between its layers",
            expected="a state for every token in every layer",
            remedy="use a method without them (kd, pkd, adkd), or another architecture than Funnel",
        )


def refuse_other_inputs(name: str, pair: Pair) -> None:
    """Raise RecipeError where the models' embedding outputs do not lie in one space."""
    refuse_other_widths(name, pair)
    if not pair.shared_embeddings:
        raise RecipeError(
            f"{name} needs one input space, and the student has its own embeddings",
            expected="student.embeddings: frozen (Gradient KD's setting) or copied",
            remedy="set student.embeddings to frozen, or use attribution_map",
        )


def target_of(target: Target, model: ModelFacts, words: int) -> Target:
    """``target``, or for a token classifier the ``WordTarget`` of ``words`` words of each text."""
    return WordTarget(target.kind, target.view, words) if model.token_labels else target


def refuse_words(name: str, words: int, pair: Pair) -> None:
    """Raise RecipeError where ``words`` is above 1 and the models predict one label for a whole text."""
    if words > 1 and not pair.student.token_labels:
        raise RecipeError(
            f"{name}.words is {words}, and the models predict one label for a text, not one for each word",
            expected="words: 1, or models that label tokens",
            remedy=f"leave {name}.words out",
        )


def comparable_places(student: Signals, teacher: Signals, batch: Batch) -> Bool[Tensor, "batch place"]:
    """A mask of the places at which two maps are compared: real tokens, or words that both models read whole."""
    if "words" not in student:
        return batch.mask
    return (student["words"] > 0) & (teacher["words"] > 0)
