"""Which objectives can compare a student with a teacher that reads raw texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gradistill.errors import RecipeError
from gradistill.objectives import all_objectives
from gradistill.objectives.base import ANY_PAIR, Objective, Pair
from gradistill.objectives.term import Term
from gradistill.signals import Signal


def check_cross_tokenizer_objectives(terms: Iterable[Term], pair: Pair) -> None:
    """Raise RecipeError for an objective whose signals a teacher that reads raw texts does not have.

    The message lists the objectives that can be used. A pair with one tokenizer passes. The decision follows from the
    objective's signals (``Signal.cross_tokenizer``, ``Signal.of_outputs``).
    """
    if not pair.on_raw_texts:
        return
    for term in terms:
        if lacking := signals_lacking(term.objective, pair):
            names = " and ".join(dict.fromkeys(signal.title for signal in lacking))
            owner = (
                f"only the teacher's outputs are known, and they have no {names}"
                if pair.teacher.outputs_only
                else f"teacher and student have different tokenizers, between which {names} cannot be compared"
            )
            hint = term.objective.cross_tokenizer_setting
            hint = f"; {term.name} with {hint}" if hint and not pair.teacher.outputs_only else ""
            raise RecipeError(
                f"the objective {term.name}: {owner}",
                expected=f"objectives among {', '.join(cross_tokenizer_objectives(pair))}{hint}",
                remedy="choose a method that uses only these (gradistill methods), drop the objective "
                f"(--set objectives.{term.name}=null), or take a student with the tokenizer of a live teacher",
            )


def cross_tokenizer_objectives(pair: Pair) -> list[str]:
    """The names of the objectives that can be used with this pair, with their default settings."""
    kinds = all_objectives()
    return [name for name, kind in kinds.items() if not signals_lacking(kind(), pair)]


def signals_lacking(objective: Objective, pair: Pair) -> list[Signal]:
    """The teacher's signals that an objective needs and that this teacher does not have."""
    outputs_only = pair.teacher.outputs_only
    example_pair = replace(  # depths and layer maps do not matter
        ANY_PAIR,
        student=replace(ANY_PAIR.student, labels=pair.student.labels, multi_label=pair.student.multi_label),
        teacher=replace(
            ANY_PAIR.teacher, labels=pair.student.labels, reads_raw_texts=True, outputs_only=outputs_only
        ),
    )
    needed = objective.signals(example_pair, "teacher").values()
    return [
        signal for signal in needed if not (signal.of_outputs if outputs_only else signal.cross_tokenizer)
    ]
