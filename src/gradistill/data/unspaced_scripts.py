"""Scripts that write no spaces between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese."""

from __future__ import annotations

import re
import unicodedata

UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
"""First and last code point of each block."""

CHARACTERS = "".join(f"{chr(low)}-{chr(high)}" for low, high in UNSPACED)
"""All characters of these blocks, for use within brackets of a regular expression."""
CHARACTER = re.compile(f"[{CHARACTERS}]")
MARKS = "\u0300-\u036f\u200b-\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef\u0e33\u0eb3\u3005" + "".join(
    chr(code)
    for low, high in UNSPACED
    if high < 0x3400
    for code in range(low, high + 1)
    if unicodedata.category(chr(code)) in ("Mn", "Mc")
)
"""Characters that belong to the one before them: accents, joiners, variation selectors, "am" of Thai and Lao, the mark
of repetition, and vowels above or below."""
STACKERS = "\u1039\u17d2"
"""Marks of Burmese and Khmer that put the next consonant below this one."""
