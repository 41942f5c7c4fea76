"""Docstrings of gradistill as mkdocstrings reads them: names of parameters without their quotes."""

from __future__ import annotations

import re
from typing import Any

import griffe

PARAMETER = re.compile(r"^(\s+)``(\w+)``(?:, ``\w+``)*: ", re.MULTILINE)


class PlainNames(griffe.Extension):
    """``Parameters:`` sections name each parameter in double backticks, which the parser takes for a part of it."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring:
            text = PARAMETER.sub(r"\1\2: ", obj.docstring.value)
            obj.docstring.value = text.replace("Example::", "Example:")
