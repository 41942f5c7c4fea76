"""Which objectives have a meaning where each token of a text has a label."""

from __future__ import annotations

from collections.abc import Iterable

from gradistill.errors import RecipeError
from gradistill.objectives import all_objectives
from gradistill.objectives.base import ANY_PAIR, Objective, Pair
from gradistill.objectives.term import Term


def refuse_what_labels_no_tokens(terms: Iterable[Term], pair: Pair) -> None:
    """Raise RecipeError for an objective on signals of a whole text's label, with those that can be used.

    A pair that labels whole texts passes. What an objective can do follows from its signals (``Signal.of_tokens``).
    """
    if not pair.student.token_labels:
        return
    for term in terms:
        lacking = [s for s in term.objective.signals(ANY_PAIR, "student").values() if not s.of_tokens]
        if lacking:
            names = " and ".join(dict.fromkeys(signal.title for signal in lacking))
            raise RecipeError(
                f"the objective {term.name} is of {names}, which belong to the one label of a text, and here every "
                "word has a label",
                expected=f"some of {', '.join(objectives_of_tokens())}",
                remedy=f"choose a method of these, such as --method kd, or drop it (--set objectives.{term.name}=null)",
            )


def objectives_of_tokens() -> list[str]:
    """The names of the objectives that can be used where each token has a label, in their default form."""
    return [name for name, kind in all_objectives().items() if _of_tokens(kind())]


def _of_tokens(objective: Objective) -> bool:
    return all(signal.of_tokens for signal in objective.signals(ANY_PAIR, "student").values())
