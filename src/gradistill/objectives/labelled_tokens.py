"""Which objectives are defined for token classification."""

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
    """Raise RecipeError for an objective that needs the one label of a whole text, if the pair labels tokens.

    The message lists the objectives that can be used. An objective is accepted if each of its signals is defined for
    tokens (``Signal.of_tokens``) or differentiates a ``WordTarget``.
    """
    if pair.student.token_labels:
        refuse_objectives_of_texts(terms)


def refuse_objectives_of_texts(terms: Iterable[Term]) -> None:
    """Raise RecipeError for an objective that needs the one label of a whole text. No models are needed.

    Example: ``refuse_objectives_of_texts(load_recipe("kd").objectives.values())``
    """
    for term in terms:
        if lacking := _lacking(term.objective):
            names = " and ".join(dict.fromkeys(signal.title for signal in lacking))
            raise RecipeError(
                f"the objective {term.name} needs {names}, which are defined for the one label of a text, and here "
                "every word has a label",
                expected=f"objectives among {', '.join(objectives_of_tokens())}",
                remedy="choose a method that uses only these, such as --method kd, or drop the objective "
                f"(--set objectives.{term.name}=null)",
            )


def objectives_of_tokens() -> list[str]:
    """The names of the objectives that can be used in token classification, with their default settings."""
    return [name for name, kind in all_objectives().items() if not _lacking(kind())]


def _lacking(objective: Objective) -> list[Signal]:
    """The objective's signals that are not defined for token classification."""
    wanted = objective.signals(_ANY_TOKENS, "student").values()
    return [signal for signal in wanted if not (signal.of_tokens or _of_words(signal))]


def _of_words(signal: Signal) -> bool:
    return isinstance(signal, TargetSignal) and isinstance(signal.target, WordTarget)
