"""Faithfulness: does a decision change when the words that it rests on are taken away?

The area over the perturbation curve of an order of n words is ``AOPC = 1/n Σ_k f(x) − f(x without its first k words)``,
``f`` the probability of the explained label. Comprehensiveness takes words with high scores first, sufficiency those
with low scores first. How large an AOPC can get at all depends on the model. Two models may therefore only be compared
after each value is set between the least and the most that any order of the row's words reaches: 0 to 1. This is NAOPC
(Edin et al. 2025, "Normalized AOPC", arXiv 2408.08137), with its two curves over all k and its beam search for both
limits. The shares of ERASER (DeYoung et al. 2020) are not used.

Deviations from the paper:

- The beam holds sets of words, each with its best order so far; the paper's holds orders. A set is predicted once, for
  both limits and both curves. A beam that holds every set finds the exact limits, as the paper's enumeration does.
- A second search goes backwards: all words are away, and come back one by one. Where only several words together turn
  a decision, the first search misses that set, and the second one starts from it (docs/audit.md).
- The judged orders are candidates for both limits, so that no value leaves 0..1.
- A row with more than ``UNITS`` words is cut into as many runs of neighbouring words, and each run is one unit.
- The explained label is the teacher's for both models, and in a regression ``f(x) − f(…)`` is the absolute change of
  the prediction.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, softmax

from gradistill.auditing.per_example import Columns
from gradistill.auditing.predictor import CopiesOf, Predictor, predict_by_row
from gradistill.auditing.response import effects
from gradistill.auditing.statistics import EQUAL
from gradistill.data.raw_words import Kept

EXACT = 8
"""A row of fewer units than this has its exact limits: seven units have 128 sets."""

UNITS = 8
"""Units of a row at most: a search costs the square of their number."""

BEAM = 2
"""Sets that a search keeps at each size."""

FIGURES = ("comprehensiveness", "sufficiency")

ScoresByWord = Sequence[Float[np.ndarray, " _"]]
"""One score a word of each row; NaN for a word that the model does not read, which is never taken away."""


def faithfulness(
    predictor: Predictor,
    scores: ScoresByWord,
    label_ids: Int[np.ndarray, " row"],
    copies_of: CopiesOf,
    *,
    beam: int = BEAM,
    multi_label: bool = False,
) -> Columns:
    """Normalised ``comprehensiveness`` (more is better) and ``sufficiency`` (less is better) of each row.

    Both are 0..1. They are NaN where no order of the words changes anything: every order has the same AOPC.

    Parameters:
        ``predictor``: the model that is explained.
        ``scores``: of the words of each row; the largest first is the order that is judged.
        ``label_ids``: the label of each row that is explained; not used in a regression.
        ``copies_of``: how words are taken away.
        ``multi_label``: each logit is the log-odds of a label of its own.
        ``beam``: sets that the search for the limits keeps at each size, of rows with ``EXACT`` units or more.

    Example::

        copies_of = lambda row, kept: masked_copies(texts[row], kept)
        faithfulness(predictor, scores, labels, copies_of)["comprehensiveness"]
    """
    rows = [_Row.of(own) for own in scores]
    nothing: dict[int, Kept] = {
        place: np.ones((0, len(own.unit_of)), dtype=bool) for place, own in enumerate(rows)
    }
    whole = predict_by_row(predictor, nothing, copies_of)
    searches = {place: own.search(beam) for place, own in enumerate(rows) if own.units > 1}
    columns = {name: np.full(len(rows), np.nan) for name in FIGURES}
    wanted = {place: next(search) for place, search in searches.items()}
    while wanted:
        kept = {place: rows[place].kept(sets) for place, sets in wanted.items() if sets}
        found = predict_by_row(predictor, kept, lambda row, own: copies_of(row, own)[1:])
        for place, sets in list(wanted.items()):
            if sets:
                label = int(label_ids[place])
                values = _drops(whole[place][0, 0], found[place][0], label, multi_label=multi_label)
                rows[place].drops.update(zip(sets, values.tolist(), strict=True))
            try:
                wanted[place] = next(searches[place])
            except StopIteration as done:
                del wanted[place]
                for name, value in zip(FIGURES, done.value, strict=True):
                    columns[name][place] = value
    return columns


def word_occlusion(
    predictor: Predictor,
    words: Sequence[int],
    label_ids: Int[np.ndarray, " row"],
    copies_of: CopiesOf,
    *,
    multi_label: bool = False,
) -> list[Float[np.ndarray, " _"]]:
    """``|F(x) − F(x without the word)|`` of each word, F the log-odds of the label: scores from predictions alone."""
    kept = {row: ~np.eye(count, dtype=bool) for row, count in enumerate(words)}
    found = predict_by_row(predictor, kept, copies_of)
    return [
        np.abs(effects(logits, label_ids[row : row + 1], multi_label=multi_label)[0])
        for row, logits in found.items()
    ]


@dataclass(frozen=True)
class _Row:
    """One row: the unit of each word (−1 for words that stay), the ``order`` of its units that is judged, and the
    ``drops`` of the sets of units that are known. A set is a number with one bit a unit that is taken away."""

    unit_of: Int[np.ndarray, " word"]
    order: list[int]
    drops: dict[int, float] = field(default_factory=lambda: {0: 0.0})

    @classmethod
    def of(cls, scores: Float[np.ndarray, " word"]) -> _Row:
        read = np.flatnonzero(~np.isnan(scores))
        runs = np.array_split(read, min(len(read), UNITS)) if len(read) else []
        unit_of = np.full(len(scores), -1)
        for unit, run in enumerate(runs):
            unit_of[run] = unit
        totals = np.array([scores[run].sum() for run in runs])
        return cls(unit_of, np.argsort(-totals, kind="stable").tolist())

    @property
    def units(self) -> int:
        return len(self.order)

    def kept(self, sets: Sequence[int]) -> Kept:
        """The words that stay when these sets go."""
        gone = (np.array(sets)[:, None] >> np.arange(self.units)) & 1 == 1
        return (self.unit_of < 0) | ~gone[:, np.maximum(self.unit_of, 0)]

    def search(self, beam: int) -> Generator[list[int], None, tuple[float, float]]:
        """Yields sets whose drops must be known before it goes on; returns the figures."""
        judged = (self.order, self.order[::-1])
        yield self._unknown(removed for order in judged for removed in _nested(order))
        high_first, low_first = (sum(self.drops[removed] for removed in _nested(order)) for order in judged)
        width = beam if self.units >= EXACT else 2**self.units
        every = 2**self.units - 1
        beams = [_Beam({0: 0.0}, sign) for sign in (1, -1)]
        if self.units >= EXACT:
            beams += [_Beam({every: sign * self.drops[every]}, sign, back=True) for sign in (1, -1)]
        for _ in range(self.units):
            grown = [of_one.grown(self.units) for of_one in beams]
            yield self._unknown(removed for sums in grown for removed in sums)
            for of_one, sums in zip(beams, grown, strict=True):
                of_one.keep(sums, self.drops, width)
        sums = [high_first, low_first, *(of_one.sign * max(of_one.sums.values()) for of_one in beams)]
        low, high = min(sums), max(sums)
        if high - low <= EQUAL * self.units:
            return float("nan"), float("nan")
        return (high_first - low) / (high - low), (low_first - low) / (high - low)

    def _unknown(self, sets: Iterable[int]) -> list[int]:
        return [removed for removed in dict.fromkeys(sets) if removed not in self.drops]


def _nested(order: Sequence[int]) -> list[int]:
    """The sets that an order takes away: its first unit, its first two, … all."""
    found, removed = [], 0
    for unit in order:
        removed |= 1 << unit
        found.append(removed)
    return found


@dataclass
class _Beam:
    """Some sets of one size, each with the best sum of drops of any order that leads to it: of the most for ``sign`` 1,
    of the least for −1, where sums have their signs turned. Words go one by one, or come ``back`` from nothing."""

    sums: dict[int, float]
    sign: int
    back: bool = False

    def grown(self, units: int) -> dict[int, float]:
        """Every set that is one step away from one of the beam, with the best sum that leads there."""
        found: dict[int, float] = {}
        for removed, total in self.sums.items():
            for unit in range(units):
                if bool(removed >> unit & 1) == self.back:
                    there = removed ^ 1 << unit
                    found[there] = max(total, found.get(there, -np.inf))
        return found

    def keep(self, grown: Mapping[int, float], drops: Mapping[int, float], width: int) -> None:
        """Go on with the best of the sets that were reached."""
        sums = [(removed, total + self.sign * drops[removed]) for removed, total in grown.items()]
        self.sums = dict(sorted(sums, key=lambda entry: -entry[1])[:width])


def _drops(
    whole: Float[np.ndarray, " label"],
    logits: Float[np.ndarray, "set label"],
    label_id: int,
    *,
    multi_label: bool,
) -> Float[np.ndarray, " set"]:
    if multi_label:
        return expit(whole[label_id]) - expit(logits[:, label_id])
    if logits.shape[-1] == 1:
        return np.abs(whole[0] - logits[:, 0])
    return softmax(whole)[label_id] - softmax(logits, axis=-1)[:, label_id]
