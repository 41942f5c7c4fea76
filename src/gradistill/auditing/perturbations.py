"""Changes of a text that keep its label: does the student go on agreeing with its teacher?

Each is a function of a text and a generator, so that a row is changed in the same way for every model.
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
"""Latin marks at the end of a word, and wide ones, as Chinese and Japanese have them, anywhere."""
ONE_WORD_IN = 6
"""Words of four letters or more of which one gets a typo, but at least one."""


@dataclass(frozen=True)
class Perturbation:
    name: str
    description: str
    change: Callable[[str, Random], str]


def typos(text: str, random: Random) -> str:
    """Two neighbouring inner letters change places in one long word of six."""
    words = [found.span() for found in re.finditer(r"[^\W\d_]{4,}", text)]
    letters = list(text)
    for start, end in random.sample(words, max(1, len(words) // ONE_WORD_IN)) if words else ():
        at = random.randrange(start + 1, end - 2)
        letters[at : at + 2] = letters[at + 1], letters[at]
    return "".join(letters)


def upper_case(text: str, _: Random) -> str:
    return text.upper()


def no_punctuation(text: str, _: Random) -> str:
    """Without full stops, commas and the like; a text of nothing else stays."""
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
    """The rows with changed texts, without those that the change leaves as they are.

    A row's change depends on its index and the seed only.
    """

    def changed(row: Any) -> dict[str, Any]:
        random = Random(f"{seed}/{perturbation.name}/{row['index']}")
        return {**row, **{name: perturbation.change(row[name], random) for name in columns}}

    new = [after for before in rows if (after := changed(before)) != before]
    return Dataset.from_dict(
        {name: [row[name] for row in new] for name in rows.column_names}, features=rows.features
    )
