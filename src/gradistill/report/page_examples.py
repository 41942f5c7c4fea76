"""Examples as data in the page: pieces of text with each model's share of the attribution, as JSON without markup.

Texts are cut into pieces here and not in the browser: Python counts code points, and JavaScript counts UTF-16 units, so
an emoji would shift every word after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gradistill.printing import printable
from gradistill.report.number_text import finite

_PLAIN = frozenset("\n\t")
"""White space that is shown unchanged; every other control character is shown as an escape."""

_MARKUP = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}


def browser_data(examples: Sequence[Mapping[str, Any]], students: Sequence[str]) -> dict[str, Any]:
    """The data for the page's script. A piece is a string, or for a word ``[text, teacher's share, [students']]``."""
    return {
        "students": [printable(name) for name in students],
        "examples": [_example(example, len(students)) for example in examples],
    }


def has_labels(examples: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the examples have labels to compare, as in a classification."""
    return any(s.get("same_label") is not None for e in examples for s in e.get("students") or [])


def has_reasons(examples: Sequence[Mapping[str, Any]]) -> bool:
    """Whether words have attributions. In token classification, where each word has its own label, they do not."""
    return any(word.get("teacher") is not None for e in examples for word in e.get("words") or [])


def embedded(value: Any) -> str:
    """The value as JSON for a ``<script type="application/json">``.

    It is pure ASCII, so line separators and lone surrogates are escapes. It is without ``<``, ``>`` and ``&``, so it
    cannot end the element or open a comment. Parsing it gives the same value.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_MARKUP)  # JSON has these three characters only inside strings


def pieces(text: str, words: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The text in pieces: words with their shares, and the strings between them. Joined they are the visible text."""
    parts: list[Any] = []
    shown, end = _visible_characters(text), 0
    for word in sorted(words, key=lambda word: (word["start"], word["end"])):
        start, stop = max(end, int(word["start"])), min(len(text), int(word["end"]))
        if start >= stop:
            continue  # an overlap, or a span outside of the text: each character must occur exactly once
        if start > end:
            parts.append("".join(shown[end:start]))
        shares = [_rounded(share) for share in word.get("students") or []]
        parts.append(["".join(shown[start:stop]), _rounded(word.get("teacher")), shares])
        end = stop
    if end < len(text):
        parts.append("".join(shown[end:]))
    return parts


def visible(text: str) -> str:
    """``printable`` text with its line ends and tabs; a Windows line end becomes one line end."""
    return "".join(_visible_characters(text))


def _visible_characters(text: str) -> Sequence[str]:
    """The shown form of each character of a text."""
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
    """An edit that changes the teacher's label, as data for the page; None without one.

    ``before`` and ``after`` are the texts in pieces: a string, or ``[word]`` for a replaced word or its replacement.
    ``changes`` are the pairs of words. ``teacher`` and ``students`` are the labels after the edit.
    """
    if not isinstance(flip, Mapping):
        return None
    replaced = sorted((int(s), int(a), int(b), str(new)) for s, a, b, new in flip.get("replaced") or [])
    before, after = [], []
    for segment, text in enumerate(texts):
        edits = [(start, end, new) for number, start, end, new in replaced if number == segment]
        old, new, place = [], [], 0
        for start, end, word in edits:
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
    """The value with four decimals, more than is shown: further digits would only make the file larger."""
    number = finite(value)
    return None if number is None else round(number, 4)
