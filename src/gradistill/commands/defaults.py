"""What holds where nobody names anything else. Nothing heavy is imported, so that ``--help`` is quick."""

from __future__ import annotations

import json
from pathlib import Path

DEFAULT_METHOD = "coalition_minilm"
"""Of a student whose method is not named: over five tasks the best means of metric and response."""
OUTPUTS_METHOD = "coalition"
"""The same where attention of teacher and student cannot be compared: it learns from outputs alone."""
TOKEN_METHOD = "kd"
"""The same of a student that tags words, which no changed copies and no attributions are defined for."""
PROJECT_FILE = "gradistill.yaml"
"""What ``gradistill init`` writes and ``gradistill run`` reads."""


def tags_words(model: str | None) -> bool:
    """Whether the configuration in a folder is that of a token classifier; what is no folder is taken for another."""
    try:
        config = json.loads((Path(model or "") / "config.json").read_text(encoding="utf-8"))
        return any(str(name).endswith("ForTokenClassification") for name in config["architectures"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
