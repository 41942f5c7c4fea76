"""Refuses objectives that need gradients of a teacher in low precision (float16, bfloat16)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from gradistill.errors import RecipeError
from gradistill.models.teacher_loading import narrow_dtype
from gradistill.objectives.base import Pair
from gradistill.objectives.term import Term


def refuse_low_precision_gradients(terms: Iterable[Term], pair: Pair, teacher: nn.Module) -> None:
    """Raise RecipeError for an objective that needs gradients of a teacher which computes in low precision."""
    dtype = narrow_dtype(teacher)
    for term in terms if dtype is not None else ():
        signals = term.objective.signals(pair, "teacher").values()
        if wanted := [signal for signal in signals if signal.needs().targets]:
            names = " and ".join(dict.fromkeys(signal.title for signal in wanted))
            raise RecipeError(
                f"the objective {term.name} needs {names} of the teacher, which computes in "
                f"{str(dtype).removeprefix('torch.')}: too coarse for gradients",
                expected="a teacher in float32, or a method of outputs and states, such as kd or coalition",
                remedy="leave --teacher-dtype out (--device-map spreads large weights), or choose --method kd; in "
                "Python load the teacher in float32",
            )
