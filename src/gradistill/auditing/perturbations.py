"""Perturbations of texts that keep the label: does the student still agree with its teacher?

Each is a function of a text and a random generator, so that a row is changed in the same way for every model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from datasets import Dataset

PREFIXES = ("To be clear, ", "For the record: ", "As I said, ", "Just to note: ")
PUNCTUATION = re.compile(r"[.,;:!?]+(?=\s|$)|[。、，；：！？]+")
"""Latin punctuation at the end of a word, and full-width punctuation (Chinese, Japanese) anywhere."""
ONE_WORD_IN = 6
"""One in this many words of four letters or more gets a typo, but at least one word."""


@dataclass(frozen=True)
class Perturbation:
    name: str
    description: str
    change: Callable[[str, Random], str]


def typos(text: str, random: Random) -> str:
    """Swap two neighbouring inner letters in one of six long words."""
    words = [match.span() for match in re.finditer(r"[^\W\d_]{4,}", text)]
    letters = list(text)
    for start, end in random.sample(words, max(1, len(words) // ONE_WORD_IN)) if words else ():
        place = random.randrange(start + 1, end - 2)
        letters[place : place + 2] = letters[place + 1], letters[place]
    return "".join(letters)


def upper_case(text: str, _: Random) -> str:
    return text.upper()


def no_punctuation(text: str, _: Random) -> str:
    """Remove full stops, commas and similar punctuation; a text of nothing else is not changed."""
    bare = re.sub(r"\s+", " ", PUNCTUATION.sub("", text)).strip()
    return bare or text


def neutral_prefix(text: str, random: Random) -> str:
    return random.choice(PREFIXES) + text


PERTURBATIONS = (
    Perturbation("typos", "two letters change places in one long word of six", typos),
    Perturbation("case", "all letters are capitals", upper_case),
    Perturbation("punctuation", "without full stops, commas and the like", no_punctuation),
    Perturbation("prefix", "a neutral phrase comes first", neutral_prefix),
)


def perturbed(rows: Dataset, columns: tuple[str, ...], perturbation: Perturbation, seed: int) -> Dataset:
    """The rows with perturbed texts, without rows that the perturbation does not change.

    The change of a row depends on its index and the seed only.
    """

    def changed(row: Any) -> dict[str, Any]:
        random = Random(f"{seed}/{perturbation.name}/{row['index']}")
        return {**row, **{name: perturbation.change(row[name], random) for name in columns}}

    new = [after for before in rows if (after := changed(before)) != before]
    return Dataset.from_dict(
        {name: [row[name] for row in new] for name in rows.column_names}, features=rows.features
    )
