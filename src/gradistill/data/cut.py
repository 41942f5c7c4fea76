"""How much of the texts a model does not read."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Cut:
    """How many of the ``rows`` texts are truncated at ``max_length``. ``longest`` is the greatest length, in tokens.

    ``words`` is the number of labelled words without a token: cut off, or of invisible characters. ``windowed`` is the
    number of texts that are read in several windows (``data.windows``).
    """

    max_length: int
    truncated: int = 0
    rows: int = 0
    longest: int = 0
    words: int = 0
    windowed: int = 0

    def __add__(self, other: Cut) -> Cut:
        longest = max(self.longest, other.longest)
        names = ("truncated", "rows", "words", "windowed")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Cut(self.max_length, longest=longest, **sums)

    @property
    def in_windows(self) -> Cut:
        """The same figures, with the truncated texts counted as read in windows."""
        return replace(self, truncated=0, windowed=self.truncated)

    def __str__(self) -> str:
        if self.windowed:
            return (
                f"{self.windowed} of {self.rows} texts have more than one window of {self.max_length} tokens "
                f"(the longest has {self.longest})"
            )
        unread = f"{self.words} words have no token and are left out" if self.words else ""
        cut = (
            f"{self.truncated} of {self.rows} texts are cut at {self.max_length} tokens "
            f"(the longest has {self.longest})"
        )
        return unread if unread and not self.truncated else f"{cut}; {unread}" if unread else cut

    def as_dict(self) -> dict[str, int]:
        """The dictionary that ``metrics.json`` holds as ``texts``."""
        more = {name: n for name in ("words", "windowed") if (n := getattr(self, name))}
        return {"cut": self.truncated, "rows": self.rows, "longest": self.longest, **more}
