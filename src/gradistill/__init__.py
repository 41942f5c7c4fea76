"""gradistill: distil a fine-tuned transformer into a small one that decides for the same reasons.

The public names are listed once, in ``__init__.pyi``. They load on first use, so importing the package is cheap.
"""

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gradistill.printing import show_log_lines


def _homes() -> dict[str, str]:
    """The module of each public name; the stub has one line ``from MODULE import NAME as NAME`` for each."""
    stub = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    words = [line.split() for line in stub.splitlines() if line.startswith("from ")]
    return {name: module for _, module, _, name, *_ in words}


_HOMES = _homes()
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = version("gradistill")
show_log_lines()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradistill' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
