"""A prompt around the texts: whose token is whose, and what is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from byte_level import byte_level
from gradistill.data import Task, encode
from gradistill.data.changed_copies import Copy
from gradistill.data.prompt_template import PromptTemplate, set_template, template_of
from gradistill.data.text_reader import encoded_copies
from gradistill.data.tokenization import token_places
from gradistill.errors import RecipeError

TASK = Task("own", ("text", "other"), ("no", "yes"), ("accuracy",), "accuracy")
ROWS = Dataset.from_list([{"text": "the film was fine", "other": 'a "dull" one', "label": 0, "index": 0}])
PROMPT = 'Second: "{other}" {{first}}: {text}\nIs it good?'


@pytest.fixture
def tokenizer() -> Any:
    found = byte_level()
    set_template(found, PromptTemplate.of(PROMPT, TASK.text_columns))
    return found


def shown(tokenizer: Any, ids: list[int]) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(ids)).replace("Ġ", " ").replace("Ċ", "\n")


def test_words_are_found_inside_the_prompt(tokenizer: Any) -> None:
    row = encode(ROWS, tokenizer, TASK, max_length=200, words=tokenizer).dataset[0]
    whole = 'Second: "a "dull" one" {first}: the film was fine\nIs it good?'
    assert row["input_ids"] == byte_level()(whole)["input_ids"]
    (places,) = token_places(ROWS, tokenizer, TASK, max_length=200)
    texts = (ROWS[0]["text"], ROWS[0]["other"])
    read: dict[int, str] = {}
    for word, special, segment, (start, end) in zip(
        row["word_ids"], row["special_tokens_mask"], places.segments, places.offsets, strict=True
    ):
        assert special == (segment is None)
        if segment is None:
            assert word == -1
        elif word >= 0:
            read[word] = read.get(word, "") + texts[segment][start:end]
    assert [read[k].strip() for k in sorted(read)] == ["the", "film", "was", "fine", "a", '"dull"', "one"]


def test_long_texts_are_cut_and_the_prompt_is_not(tokenizer: Any) -> None:
    long = Dataset.from_list([{**ROWS[0], "text": "the film was fine " * 30}])
    encoded = encode(long, tokenizer, TASK, max_length=80, words=tokenizer)
    row = encoded.dataset[0]
    assert encoded.truncated == 1
    assert len(row["input_ids"]) <= 80 < encoded.longest
    prompt = shown(tokenizer, row["input_ids"])
    assert prompt.startswith('<s> Second: "a "dull" one" {first}: the film')
    assert prompt.endswith("fine\nIs it good?</s>") or prompt.endswith("\nIs it good?</s>")
    (cut,) = encoded_copies([Copy((long[0]["text"], long[0]["other"]))], tokenizer, 80)
    assert cut["input_ids"] == row["input_ids"]
    assert {120, 121, 122} <= {*row["word_ids"]}  # the second text is whole
    with pytest.raises(RecipeError, match="special ones or of the prompt"):
        encode(long, tokenizer, TASK, max_length=20)


def test_a_hidden_word_is_hidden_in_the_prompt(tokenizer: Any) -> None:
    kept = np.ones(7, dtype=bool)
    kept[1] = False
    (masked,) = encoded_copies([Copy(("the film was fine", 'a "dull" one'), kept)], tokenizer, 200)
    whole = shown(tokenizer, masked["input_ids"])
    assert whole == '<s> Second: "a "dull" one" {first}: the<mask> was fine\nIs it good?</s>'


def test_templates_that_do_not_fit_are_refused() -> None:
    for template, message in (
        ("Is it good?", "it holds no field"),
        ("{text} {other} {text}", r"it holds \{text\} twice"),
        ("{text}", r"(?s)it holds \{text\}.*\{text\} and \{other\}, once each"),
        ("{text} {label} {other}", "label"),
        ("{text:>9} {other}", "a field has a format"),
        ("{text!r} {other}", "a field has a format"),
        ("{text", "cannot be used"),
        ("{} {other}", "a field has no name"),
        ("{text} {other} {more}", "it names 3 columns"),
    ):
        with pytest.raises(RecipeError, match=message):
            PromptTemplate.of(template, TASK.text_columns)
    assert template_of(byte_level()) is None
