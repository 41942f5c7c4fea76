"""Usual names of text columns and label columns."""

from __future__ import annotations

LABEL_COLUMNS = ("label", "labels", "gold_label", "target", "class", "score", "similarity")
TEXT_COLUMNS = frozenset({
    "text", "texts", "sentence", "sentence1", "sentence2", "question", "question1", "question2", "premise",
    "hypothesis", "review", "content", "body", "comment", "tweet", "message", "document", "utterance", "query",
    "title", "headline", "abstract", "passage", "context", "description", "post",
})  # fmt: skip
"""Names of text columns, even if they have few different values."""


def names_texts(name: str) -> bool:
    """Whether this is a usual name of a text column, in any letter case.

    Example: ``names_texts("Text")``
    """
    return name.strip().casefold() in TEXT_COLUMNS


def names_labels(name: str) -> bool:
    """Whether this is a usual name of a label column, in any letter case.

    Example: ``names_labels("Label")``
    """
    return name.strip().casefold() in LABEL_COLUMNS
