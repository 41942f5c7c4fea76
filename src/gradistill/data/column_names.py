"""What columns of texts and of labels are usually called."""

from __future__ import annotations

LABEL_COLUMNS = ("label", "labels", "gold_label", "target", "class", "score", "similarity")
TEXT_COLUMNS = frozenset({
    "text", "texts", "sentence", "sentence1", "sentence2", "question", "question1", "question2", "premise",
    "hypothesis", "review", "content", "body", "comment", "tweet", "message", "document", "utterance", "query",
    "title", "headline", "abstract", "passage", "context", "description", "post",
})  # fmt: skip
"""Names of text columns, even if their values are few."""


def names_texts(name: str) -> bool:
    """Whether columns of texts are often called so, in any letter case.

    Example: ``names_texts("Text")``
    """
    return name.strip().casefold() in TEXT_COLUMNS


def names_labels(name: str) -> bool:
    """Whether columns of labels are often called so, in any letter case.

    Example: ``names_labels("Label")``
    """
    return name.strip().casefold() in LABEL_COLUMNS
