"""From any text to text that is safe to show."""

from gradistill.data.words import printable

__all__ = ["printable"]
