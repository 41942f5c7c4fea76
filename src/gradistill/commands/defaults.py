"""Default values. No large library is imported, so that ``--help`` is quick."""

from __future__ import annotations

import json
from pathlib import Path

DEFAULT_METHOD = "coalition_minilm"
"""The default method: over five tasks the best means of metric and response."""
OUTPUTS_METHOD = "coalition"
"""The default where attention of teacher and student cannot be compared: it needs outputs only."""
TOKEN_METHOD = "kd"
"""The default for token classifiers, for which changed copies and attributions are not defined."""
PROJECT_FILE = "gradistill.yaml"
"""The file that ``gradistill init`` writes and ``gradistill run`` reads."""


def tags_words(model: str | None) -> bool:
    """Whether the configuration in a folder is that of a token classifier; False for anything but a folder."""
    try:
        config = json.loads((Path(model or "") / "config.json").read_text(encoding="utf-8"))
        return any(str(name).endswith("ForTokenClassification") for name in config["architectures"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
