"""The settings of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradistill.commands.figure_limits import check_limits
from gradistill.data.data_source import Source
from gradistill.errors import RecipeError, check_number, check_one_of, check_whole_numbers

QUANTIZATIONS = ("int8", "int8-static")

LOYALTIES = ("label", "exact_match", "probability", "prediction", "response")
"""Figures of an exported model, compared with the student that was exported. ``exact_match`` is for multi-label
classifiers."""

TO_TEACHER = "teacher_"
"""The prefix of the same figures, compared with the teacher."""


@dataclass(frozen=True)
class ExportChoice:
    """What an export writes and measures.

    ``quantize`` is ``int8``, ``int8-static`` or None. ``split`` names the rows to compare on, at most ``max_rows`` of
    them, drawn by ``seed``. ``response_rows`` rows are drawn for response loyalty. Texts are cut at ``max_length``
    tokens, by default as the student was trained. ``least_loyalty`` is the label loyalty to the unquantised student
    (the correlation in a regression) below which layers are kept in float. ``limits`` are those of ``--fail-under``.
    ``timing``: whether models are timed and their memory is measured.

    ``trim_vocabulary`` names texts (a file, a folder with training rows, an object): tokens that do not occur in them
    are removed, except single characters. With a ``vocabulary_size`` that many tokens are kept. ``embedding_bits`` is
    8 or 4. With 4, only frequent tokens keep 8 bits: those of these texts, or else of the training rows. The same texts
    calibrate ``int8-static``.

    Raises RecipeError for invalid values.

    Example: ``ExportChoice(quantize="int8", limits={"label_loyalty": 0.98})``
    """

    quantize: str | None = None
    split: str = "validation"
    max_rows: int | None = 1000
    max_length: int | None = None
    response_rows: int = 60
    least_loyalty: float = 0.98
    limits: Mapping[str, float] = field(default_factory=dict)
    timing: bool = True
    trim_vocabulary: Source = None
    vocabulary_size: int | None = None
    embedding_bits: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole_numbers(self, max_rows=1, max_length=1, vocabulary_size=1, response_rows=0, seed=0)
        if self.quantize is not None:
            check_one_of(self, "quantize", QUANTIZATIONS)
        check_one_of(self, "embedding_bits", (4, 8))
        if self.embedding_bits == 4 and self.quantize is None:
            raise RecipeError(
                "embedding_bits is 4, and nothing is quantised",
                expected="an INT8 model",
                remedy="give --quantize int8, or leave it out",
            )
        if self.vocabulary_size is not None and self.trim_vocabulary is None:
            raise RecipeError(
                "a vocabulary size was given, and no texts whose tokens stay",
                expected="texts, such as the training data",
                remedy="give --trim-vocabulary TEXTS, or leave it out",
            )
        check_number(self, "least_loyalty", least=0.0, most=1.0)
        check_limits(
            self.limits, [f"{part}{name}" for part in ("", TO_TEACHER) for name in LOYALTIES], owner="export"
        )


def needs_texts(choice: ExportChoice) -> bool:
    """Whether the export counts tokens of texts, or calibrates on them."""
    return (
        choice.trim_vocabulary is not None
        or choice.embedding_bits == 4
        or choice.quantize == QUANTIZATIONS[1]
    )
