"""From any text to text that is safe to show."""

from gradistill.printing import printable

__all__ = ["printable"]
