"""Which objectives have a meaning where each token of a text has a label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gradistill.attribution.word_targets import WordTarget
from gradistill.errors import RecipeError
from gradistill.objectives import all_objectives
from gradistill.objectives.base import ANY_PAIR, Objective, Pair
from gradistill.objectives.term import Term
from gradistill.signals import Signal, TargetSignal

_ANY_TOKENS = replace(
    ANY_PAIR,
    student=replace(ANY_PAIR.student, token_labels=True),
    teacher=replace(ANY_PAIR.teacher, token_labels=True),
)


def refuse_what_labels_no_tokens(terms: Iterable[Term], pair: Pair) -> None:
    """Raise RecipeError for an objective on signals of a whole text's label, with those that can be used.

    A pair that labels whole texts passes. What an objective can do follows from its signals: those of tokens
    (``Signal.of_tokens``), and those that differentiate a ``WordTarget``.
    """
    if pair.student.token_labels:
        refuse_objectives_of_texts(terms)


def refuse_objectives_of_texts(terms: Iterable[Term]) -> None:
    """The same before there are models: raise RecipeError for an objective on signals of a whole text's label.

    Example: ``refuse_objectives_of_texts(load_recipe("kd").objectives.values())``
    """
    for term in terms:
        if lacking := _lacking(term.objective):
            names = " and ".join(dict.fromkeys(signal.title for signal in lacking))
            raise RecipeError(
                f"the objective {term.name} is of {names}, which belong to the one label of a text, and here every "
                "word has a label",
                expected=f"some of {', '.join(objectives_of_tokens())}",
                remedy=f"choose a method of these, such as --method kd, or drop it (--set objectives.{term.name}=null)",
            )


def objectives_of_tokens() -> list[str]:
    """The names of the objectives that can be used where each token has a label, in their default form."""
    return [name for name, kind in all_objectives().items() if not _lacking(kind())]


def _lacking(objective: Objective) -> list[Signal]:
    """The signals that belong to a whole text's label."""
    wanted = objective.signals(_ANY_TOKENS, "student").values()
    return [signal for signal in wanted if not (signal.of_tokens or _of_words(signal))]


def _of_words(signal: Signal) -> bool:
    return isinstance(signal, TargetSignal) and isinstance(signal.target, WordTarget)
