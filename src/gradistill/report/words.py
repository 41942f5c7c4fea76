"""From any text to text that is safe to show."""

from __future__ import annotations

import unicodedata

from gradistill.data.words import JOINERS


def printable(text: str) -> str:
    """The text with everything that a terminal or a reader could be misled by written as a Python escape.

    Controls (ANSI escapes, carriage returns, line ends, C1), bidirectional and other format characters, lone
    surrogates, private and unassigned code points become ``\\x1b``, ``\\u202e`` and so on. Not markup-safe:
    hand the result to ``rich.text.Text``, or escape it.
    """
    return "".join(
        c if c in JOINERS or unicodedata.category(c) not in _HIDDEN else c.encode("unicode_escape").decode()
        for c in text
    )


_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
