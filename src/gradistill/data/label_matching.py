"""Names of classes: matches of the data's names with a model's outputs, also for data that lack some classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gradistill.data.cell_checks import letters_of
from gradistill.data.tasks import label_key

_NUMBERED = re.compile(r"(?:label[-_ ]?)?([+-]?\d+)", re.IGNORECASE)
_SHORTEST = 3
"""The fewest letters of a shortened name: NEG for negative."""


@dataclass(frozen=True)
class Match:
    """``positions[k]`` is the index of the model's output for the data's class k; ``note`` is what was assumed."""

    positions: tuple[int, ...]
    note: str = ""

    @property
    def is_identity(self) -> bool:
        return self.positions == tuple(range(len(self.positions)))


@dataclass(frozen=True)
class Outputs:
    """The ``names`` of a model's outputs. Rows that are read for the model may lack some of its classes.

    ``label_map`` gives the output for each class that has another name in the data. With ``labelled`` a split without
    labels is refused; otherwise it is read too.
    """

    names: tuple[str, ...]
    label_map: Mapping[str, str] = field(default_factory=dict)
    labelled: bool = False

    @property
    def score(self) -> bool:
        """Whether the one output is a score, as in a regression."""
        return len(self.names) == 1

    def completed(self, labels: Sequence[str]) -> tuple[str, ...] | None:
        """The names of all classes, as the data write them where they have them; None if a label has no output.

        Labels that lack no class keep their order. Class ids (0, 2) do not name a class: in a model with more classes
        it is not certain which outputs they are.

        Example: ``Outputs(("neg", "neutral", "pos")).completed(["POS"])``
        """
        renamed = {self._place(output): name for name, output in self.label_map.items()}
        known = [renamed.get(place, name) for place, name in enumerate(self.names)]
        for key in _SPELLINGS:
            ours, theirs = {key(name): name for name in labels}, [key(name) for name in known]
            if len(ours) == len(labels) and len({*theirs}) == len(theirs) and ours.keys() <= {*theirs}:
                if len(labels) == len(known):
                    return tuple(labels)
                return tuple(ours.get(spelled, name) for spelled, name in zip(theirs, known, strict=True))
        if len(labels) < len(known) and (places := _short_form_places(labels, known)):
            written = dict(zip(places, labels, strict=True))
            return tuple(written.get(place, name) for place, name in enumerate(known))
        return None

    def _place(self, output: str) -> int | None:
        keys = {str(place): place for place in range(len(self.names))}
        keys |= {label_key(name): place for place, name in enumerate(self.names)}
        return keys.get(label_key(output))


def match_names(ours: Sequence[str], theirs: Sequence[str]) -> Match | None:
    """The position in ``theirs`` of each of ``ours``, by name alone; None unless every name has one partner."""
    for key in _SPELLINGS:
        places = {key(name): place for place, name in enumerate(theirs)}
        names = [key(name) for name in ours]
        if len(places) == len(theirs) and len(set(names)) == len(names) and set(names) == set(places):
            return Match(tuple(places[name] for name in names))
    return _by_short_forms(ours, theirs)


def spelled_alike(one: str, other: str) -> bool:
    """Whether two names are equal, whatever their letter case, punctuation and spaces."""
    return any(key(one) == key(other) != "" for key in _SPELLINGS)


def numbers_of(names: Sequence[str]) -> list[int] | None:
    """The numbers of names that only count (``LABEL_0``, ``1``); None for others."""
    matches = [_NUMBERED.fullmatch(name.strip()) for name in names]
    return [int(match[1]) for match in matches if match] if all(matches) else None


def match_numbers(ours: Sequence[int] | None, theirs: Sequence[int] | None) -> Match | None:
    """The position in ``theirs`` of each of ``ours``; None unless both only number classes, by the same numbers."""
    if ours is None or theirs is None or sorted(ours) != sorted(theirs) or len(set(ours)) < len(ours):
        return None
    return Match(tuple(theirs.index(number) for number in ours))


_SIGN = re.compile(r"(?<!\S)-(?=\w)|(?<=\w)-(?!\S)")
"""A hyphen that is a sign, as in -1 and A-, but not as in not-entailed."""


def _signed(name: str) -> str:
    return _SIGN.sub("\N{MINUS SIGN}", name.casefold())


def _letters(name: str) -> str:
    return "".join(letters_of(_signed(name), "+#\N{MINUS SIGN}").split())


_SPELLINGS: tuple[Callable[[str], str], ...] = (
    label_key,
    lambda name: re.sub(r"[-_\s]+", " ", _signed(name)).strip(),
    _letters,
)
"""Two names match if one of these functions makes them equal; the strictest is first. Signs count: A+ is not A-."""


def _by_short_forms(ours: Sequence[str], theirs: Sequence[str]) -> Match | None:
    """The match of each name with its only short or long form on the other side."""
    positions = _short_form_places(ours, theirs) if len(ours) == len(theirs) else None
    if positions is None:
        return None
    pairs = ", ".join(f"{name} = {theirs[place]}" for name, place in zip(ours, positions, strict=True))
    return Match(tuple(positions), f"classes are matched by the beginning of their names: {shortened(pairs)}")


def _short_form_places(ours: Sequence[str], theirs: Sequence[str]) -> list[int] | None:
    """The position in ``theirs`` of the only name that begins with each of ``ours``, or that it begins with.

    None unless every name has one, and no two the same. Example: POS and positive.
    """
    mine, others = list(map(_letters, ours)), list(map(_letters, theirs))
    positions = []
    for name in mine:
        fits = [
            place
            for place, other in enumerate(others)
            if min(len(name), len(other)) >= _SHORTEST and (name.startswith(other) or other.startswith(name))
        ]
        if len(fits) != 1 or numbers_of([name]) is not None:
            return None
        positions += fits
    return positions if len(set(positions)) == len(ours) else None


def shortened(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
