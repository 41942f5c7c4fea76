"""A prompt around the texts of a row, as a model was fine-tuned with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

from gradistill.errors import RecipeError

MOST_TEXTS = 2
"""The most texts of a row."""
_KEPT_AS = "gradistill_prompt_template"


@dataclass(frozen=True)
class PromptedTeacher:
    """A classifier that reads each row in a prompt: ``template`` names the text columns in braces.

    ``model`` is a folder, a hub id, or a pair ``(model, tokenizer)``. Doubled braces are literal braces. Raises
    RecipeError for a template that names no column.

    Example: ``PromptedTeacher("runs/qwen", "Review: {text}\\nIs it good?")``
    """

    model: Any
    template: str

    def __post_init__(self) -> None:
        named_fields(self.template)


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt in pieces: ``literals`` before, between and after the texts, and in ``places`` the number of each text.

    Example: ``PromptTemplate.of("Review: {text}\\nIs it good?", ["text"])``
    """

    literals: tuple[str, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, template: str, columns: Sequence[str]) -> PromptTemplate:
        """Parse a template. Raises RecipeError unless it names each of the text columns once."""
        expected = " and ".join(f"{{{name}}}" for name in columns) + ", once each"
        named = named_fields(template, expected)
        if sorted(named) != sorted(columns):
            shown = ", ".join(f"{{{name}}}" for name in named)
            raise _bad_template(template, f"it holds {shown}", expected)
        literals, last = [], ""
        for literal, name, _, _ in Formatter().parse(template):
            last += literal
            if name is not None:
                literals.append(last)
                last = ""
        return cls((*literals, last), tuple(columns.index(name) for name in named))

    def filled(self, texts: Sequence[str]) -> tuple[str, list[tuple[int, int, int]]]:
        """The prompt of one row, and the start, end and number of each text in it."""
        prompt, spans = self.literals[0], []
        for place, literal in zip(self.places, self.literals[1:], strict=True):
            start = len(prompt)
            prompt += texts[place]
            spans.append((start, len(prompt), place))
            prompt += literal
        return prompt, spans

    def tokens(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """The number of tokens of the template without texts, special ones included."""
        return len(_encoded(tokenizer, [self.filled([""] * len(self.places))[0]])["input_ids"][0])


def named_fields(template: str, expected: str = "each text column in braces, once: {text}") -> list[str]:
    """The columns that a template names, in its order. Raises RecipeError for a template that no rows fit."""
    try:
        parts = [(name, spec or conversion) for _, name, spec, conversion in Formatter().parse(template)]
    except ValueError as error:
        raise _bad_template(template, str(error), expected) from error
    named = [name for name, _ in parts if name is not None]
    if any(form for name, form in parts if name is not None):
        raise _bad_template(template, "a field has a format", expected)
    if not named:
        raise _bad_template(template, "it holds no field", expected)
    if twice := [name for k, name in enumerate(named) if name in named[:k]]:
        raise _bad_template(template, f"it holds {{{twice[0]}}} twice", expected)
    if not all(named):
        raise _bad_template(template, "a field has no name", expected)
    if len(named) > MOST_TEXTS:
        raise _bad_template(template, f"it names {len(named)} columns", "one text column, or two of a pair")
    return named


class PromptEncoding(BatchEncoding):
    """Token ids of prompts. Offsets refer to the row's own texts, and tokens of the template count as special."""

    def __init__(self, data: dict[str, Any], segments: list[list[int | None]]) -> None:
        super().__init__(data)
        self.segments = segments

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """The number of each token's text; None for tokens of the template and special tokens."""
        return self.segments[batch_index]


def set_template(tokenizer: PreTrainedTokenizerBase, template: PromptTemplate) -> None:
    """Attach a template to a tokenizer. ``encode`` puts texts into it before the tokenizer reads them."""
    if not tokenizer.is_fast:
        raise RecipeError(
            f"a template needs the offsets of tokens, which {type(tokenizer).__name__} does not return",
            expected="a fast tokenizer",
            remedy="save the model with its tokenizer.json",
        )
    setattr(tokenizer, _KEPT_AS, template)


def template_of(tokenizer: PreTrainedTokenizerBase) -> PromptTemplate | None:
    """The template that a tokenizer's texts are put into, if any."""
    return getattr(tokenizer, _KEPT_AS, None)


def tokenized_prompts(
    tokenizer: PreTrainedTokenizerBase,
    template: PromptTemplate,
    columns: Sequence[Sequence[str]],
    max_length: int | None,
) -> PromptEncoding:
    """Token ids of each row's prompt, unpadded.

    A prompt that is too long loses tokens at the end of its texts, of the longer text first, and none of the template.
    """
    rows = list(zip(*columns, strict=True))
    filled = [template.filled(row) for row in rows]
    data = {
        name: list(values) for name, values in _encoded(tokenizer, [prompt for prompt, _ in filled]).items()
    }
    segments = [_placed(data, row, spans) for row, (_, spans) in enumerate(filled)]
    for row, texts in enumerate(rows):
        cut = list(texts)
        while max_length is not None and (over := len(data["input_ids"][row]) - max_length) > 0:
            _shorten(cut, data["offset_mapping"][row], segments[row], over)
            prompt, spans = template.filled(cut)
            for name, values in _encoded(tokenizer, [prompt]).items():
                data[name][row] = values[0]
            segments[row] = _placed(data, row, spans)
    return PromptEncoding(data, segments)


def _encoded(tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> Any:
    return tokenizer(
        prompts, truncation=False, padding=False, return_attention_mask=True, return_special_tokens_mask=True,
        return_offsets_mapping=True, verbose=False,
    )  # fmt: skip


def _placed(data: dict[str, Any], row: int, spans: list[tuple[int, int, int]]) -> list[int | None]:
    """The number of each token's text. Offsets are changed to those within this text.

    A token that touches both a text and the template belongs to the text.
    """
    segments, places, special = [], [], []
    for (start, end), was_special in zip(
        data["offset_mapping"][row], data["special_tokens_mask"][row], strict=True
    ):
        touched = [span for span in spans if not was_special and max(start, span[0]) < min(end, span[1])]
        segments.append(touched[0][2] if touched else None)
        first, last, _ = touched[0] if touched else (0, 0, 0)
        places.append((max(start, first) - first, min(end, last) - first) if touched else (0, 0))
        special.append(0 if touched else 1)
    data["offset_mapping"][row], data["special_tokens_mask"][row] = places, special
    return segments


def _shorten(
    texts: list[str], places: Sequence[tuple[int, int]], segments: Sequence[int | None], over: int
) -> None:
    """Remove ``over`` tokens, or fewer, from the end of the longer text."""
    counts = [sum(segment == number for segment in segments) for number in range(len(texts))]
    longest = counts.index(max(counts))
    rest = max((count for number, count in enumerate(counts) if number != longest), default=0)
    if counts[longest] <= 1:
        raise RecipeError(
            "the prompt leaves no room for the texts",
            expected="a template shorter than the text length",
            remedy="shorten the template",
        )
    dropped = min(over, max(1, counts[longest] - rest), counts[longest] - 1)
    starts = [place[0] for place, segment in zip(places, segments, strict=True) if segment == longest]
    kept = min(starts[-dropped], len(texts[longest]) - 1)
    texts[longest] = texts[longest][:kept].rstrip() or texts[longest][:kept]


def _bad_template(template: str, why: str, expected: str) -> RecipeError:
    return RecipeError(
        f"the template {template!r} cannot be used: {why}",
        expected=expected,
        remedy="name each text column in braces; a brace of the prompt itself is doubled: {{",
    )
