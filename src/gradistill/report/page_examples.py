"""Examples as data inside the page: pieces of text with each model's share, in JSON that is never markup.

The text is cut here and not in the browser, because Python counts code points where JavaScript counts UTF-16 units:
an emoji would shift every word after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gradistill.printing import printable
from gradistill.report.number_text import finite

_PLAIN = frozenset("\n\t")
"""White space that the page shows as such; every other control character is written as an escape."""

_MARKUP = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}


def browser_data(examples: Sequence[Mapping[str, Any]], students: Sequence[str]) -> dict[str, Any]:
    """All that the page's script needs. A piece is a string, or of a word ``[text, teacher's share, [students']]``."""
    return {
        "students": [printable(name) for name in students],
        "examples": [_example(example, len(students)) for example in examples],
    }


def has_labels(examples: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the task is a classification, where "same label" means something."""
    return any(s.get("same_label") is not None for e in examples for s in e.get("students") or [])


def has_reasons(examples: Sequence[Mapping[str, Any]]) -> bool:
    """Whether words have shares in a decision: not where each word has a label of its own."""
    return any(word.get("teacher") is not None for e in examples for word in e.get("words") or [])


def embedded(value: Any) -> str:
    """The value as JSON for a ``<script type="application/json">``.

    Pure ASCII, so that line separators and lone surrogates come as escapes, and without ``<``, ``>`` and ``&``, so
    that nothing in it can end the element or open a comment. What is parsed back equals the value.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_MARKUP)  # these three stand in JSON only inside strings


def pieces(text: str, words: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The text cut into words with their shares and what stands between them; joined, it is the visible text."""
    parts: list[Any] = []
    shown, end = _visible_characters(text), 0
    for word in sorted(words, key=lambda word: (word["start"], word["end"])):
        start, stop = max(end, int(word["start"])), min(len(text), int(word["end"]))
        if start >= stop:
            continue  # an overlap or a span outside: the text itself must still come once and whole
        if start > end:
            parts.append("".join(shown[end:start]))
        shares = [_rounded(share) for share in word.get("students") or []]
        parts.append(["".join(shown[start:stop]), _rounded(word.get("teacher")), shares])
        end = stop
    if end < len(text):
        parts.append("".join(shown[end:]))
    return parts


def visible(text: str) -> str:
    """``printable``, save that line ends and tabs stay what they are; those of Windows are one line end."""
    return "".join(_visible_characters(text))


def _visible_characters(text: str) -> Sequence[str]:
    """What is shown for each character of a text."""
    if text.isprintable():
        return text
    return [
        "" if c == "\r" and text[k + 1 : k + 2] == "\n" else c if c in _PLAIN else printable(c)
        for k, c in enumerate(text)
    ]


def _example(example: Mapping[str, Any], students: int) -> dict[str, Any]:
    texts, words = list(example.get("texts") or []), list(example.get("words") or [])
    predictions = [*(example.get("students") or []), *({} for _ in range(students))]
    return {
        "index": example.get("index"),
        "gold": _text(example.get("gold")),
        "length": len(words),
        "texts": [
            pieces(text, [word for word in words if int(word.get("segment") or 0) == segment])
            for segment, text in enumerate(texts)
        ],
        "flip": flip_view(texts, example.get("flip")),
        "teacher": _prediction(example.get("teacher") or {}),
        "students": [
            _prediction(prediction)
            | {
                "agreement": _rounded(prediction.get("agreement")),
                "same": prediction.get("same_label"),
                "disagreement": _rounded(prediction.get("disagreement")),
            }
            for prediction in predictions[:students]
        ],
    }


def flip_view(texts: Sequence[str], flip: Any) -> dict[str, Any] | None:
    """An edit that turns the teacher, ready to be shown; None where there is none.

    ``before`` and ``after`` are the texts in pieces: a string, or ``[word]`` of a word that was replaced, or that
    replaces it. ``changes`` are the pairs of words, ``teacher`` and ``students`` the labels after the edit.
    """
    if not isinstance(flip, Mapping):
        return None
    replaced = sorted((int(s), int(a), int(b), str(new)) for s, a, b, new in flip.get("replaced") or [])
    before, after = [], []
    for segment, text in enumerate(texts):
        own = [(start, end, new) for number, start, end, new in replaced if number == segment]
        old, new, place = [], [], 0
        for start, end, word in own:
            between = visible(text[place:start])
            old += [between, [visible(text[start:end])]]
            new += [between, [visible(word)]]
            place = end
        before.append([*old, visible(text[place:])])
        after.append([*new, visible(text[place:])])
    changes = [
        [visible(texts[segment][start:end]), visible(new)]
        for segment, start, end, new in replaced
        if segment < len(texts)
    ]
    students = [_text(label) for label in flip.get("students") or []]
    return {"before": before, "after": after, "changes": changes, "form": _text(flip.get("form")),
            "teacher": _text(flip.get("teacher")), "students": students}  # fmt: skip


def _prediction(prediction: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "label": _text(prediction.get("label")),
        "confidence": _rounded(prediction.get("confidence")),
        "prediction": _rounded(prediction.get("prediction")),
    }


def _text(value: Any) -> str | None:
    return None if value is None else printable(str(value))


def _rounded(value: Any) -> float | None:
    """Four decimals are more than is shown; more would only make the file larger."""
    number = finite(value)
    return None if number is None else round(number, 4)
