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
    """Raise RecipeError for an objective on signals that such a teacher does not have, with those that can be used.

    A pair that reads the same tokens passes. What an objective can do follows from its signals
    (``Signal.cross_tokenizer``, ``Signal.of_outputs``).
    """
    if not pair.on_raw_texts:
        return
    for term in terms:
        if lacking := signals_lacking(term.objective, pair):
            names = " and ".join(dict.fromkeys(signal.title for signal in lacking))
            owner = (
                f"the teacher is known by its outputs alone, which have no {names}"
                if pair.teacher.outputs_only
                else f"teacher and student read different tokens, between which {names} cannot be compared"
            )
            hint = term.objective.cross_tokenizer_setting
            hint = f"; {term.name} with {hint}" if hint and not pair.teacher.outputs_only else ""
            raise RecipeError(
                f"the objective {term.name}: {owner}",
                expected=f"some of {', '.join(cross_tokenizer_objectives(pair))}{hint}",
                remedy="choose a method of these (gradistill methods), drop the objective "
                f"(--set objectives.{term.name}=null), or take a student with the tokens of a live teacher",
            )


def cross_tokenizer_objectives(pair: Pair) -> list[str]:
    """The names of the objectives that can be used between these two, in their default form."""
    kinds = all_objectives()
    return [name for name, kind in kinds.items() if not signals_lacking(kind(), pair)]


def signals_lacking(objective: Objective, pair: Pair) -> list[Signal]:
    """The signals that an objective wants of the teacher, and that it does not have for this student."""
    alone = pair.teacher.outputs_only
    some = replace(  # depths and layer maps do not matter
        ANY_PAIR,
        student=replace(ANY_PAIR.student, labels=pair.student.labels, multi_label=pair.student.multi_label),
        teacher=replace(
            ANY_PAIR.teacher, labels=pair.student.labels, reads_raw_texts=True, outputs_only=alone
        ),
    )
    wanted = objective.signals(some, "teacher").values()
    return [signal for signal in wanted if not (signal.of_outputs if alone else signal.cross_tokenizer)]
