"""What plain English forbids: sentences of more than 25 words, lines over 100 columns, words to avoid.

``python tests/prose.py [FILES]`` prints them, without FILES those of all pages.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MOST_WORDS, WIDTH = 25, 100
AVOIDED = re.compile(
    r"\b(says?|said|saying|tells?|told|hears?|heard|speaks?|spoke|spoken|remembers?|remembered|unasked|beside|"
    r"are there|takes no notice)\b",
    re.IGNORECASE,
)
"""Models and programs compute; they do not speak. The rest has a plainer word."""
SENTENCE = re.compile(r"(?<=[.!?:])\s+(?=[A-Z0-9α-ω(\"]|gradistill|onnxruntime|accelerate|e²KD)")


def faults(text: str) -> dict[str, list[str]]:
    """The sentences, lines and words that break the rules. Fences, tables and generated sections do not count."""
    prose = _prose(text)
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:[-*] |\d+\. |#))", prose)
    sentences = [s for p in paragraphs for s in SENTENCE.split(_plain(p))]
    return {
        "sentences": [s for s in sentences if len(s.split()) > MOST_WORDS],
        "lines": [line for line in prose.splitlines() if len(line) > WIDTH and " " in line[:WIDTH].strip()],
        "words": AVOIDED.findall(_plain(prose)),
    }


def _prose(text: str) -> str:
    text = re.sub(r"(?ms)^<!-- (\w+) -->$.*?^<!-- end of \1 -->$", "", text)
    text = re.sub(r"(?ms)^\s*```.*?^\s*```$", "", text)
    text = re.sub(r"(?ms)^\$\$.*?^\$\$$", "", text)
    return "\n".join(
        line for line in text.splitlines() if not line.lstrip().startswith(("|", "<", ":::", "!["))
    )


def _plain(text: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "Code", text.replace("*", ""))
    return re.sub(r"^\s*(?:-|\d+\.|#+)\s+", "", text, flags=re.MULTILINE)


def main() -> None:
    root = Path(__file__).parents[1]
    pages = [Path(word) for word in sys.argv[1:]] or [
        *(root / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *sorted((root / "docs").rglob("*.md")),
    ]
    for page in pages:
        for kind, found in faults(page.read_text(encoding="utf-8")).items():
            for one in found:
                print(f"{page}: {kind}: {one}")


if __name__ == "__main__":
    main()
