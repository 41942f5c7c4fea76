"""The commands as functions, each readable from top to bottom."""

from collections.abc import Callable

Say = Callable[[str], object]
"""Where a job tells how it goes on, line by line."""
