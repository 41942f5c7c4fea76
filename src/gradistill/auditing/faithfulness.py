"""Faithfulness: does a prediction change when the words with high scores are removed?

The area over the perturbation curve of an order of n words is ``AOPC = 1/n Σ_k f(x) − f(x without its first k words)``,
``f`` the probability of the explained label. Comprehensiveness removes words with high scores first, sufficiency words
with low scores first. The range of AOPC depends on the model. To compare two models, each value is therefore scaled
between the minimum and maximum over all orders of the row's words, to 0 to 1. This is NAOPC (Edin et al. 2025,
"Normalized AOPC", arXiv 2408.08137), with its two curves over all k and its beam search for both limits. The shares of
ERASER (DeYoung et al. 2020) are not used.

Deviations from the paper:

- The beam holds sets of words, each with its best order so far; the paper's beam holds orders. A set is predicted once,
  for both limits and both curves. A beam that holds every set finds the exact limits, as the paper's enumeration does.
- A second search goes backwards: it starts with all words removed and restores them one by one. If only several words
  together change a prediction, the first search misses that set; the second one can reach it (docs/audit.md).
- The two orders that are measured are candidates for both limits, so that every value is in 0..1.
- A row with more than ``UNITS`` words is cut into ``UNITS`` runs of neighbouring words, and each run is one unit.
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
"""Rows with fewer units than this get exact limits: seven units have 128 sets."""

UNITS = 8
"""Most units of a row: the cost of a search grows with the square of their number."""

BEAM = 2
"""Sets that a search keeps at each size."""

FIGURES = ("comprehensiveness", "sufficiency")

ScoresByWord = Sequence[Float[np.ndarray, " _"]]
"""One score for each word of each row; NaN for a word that the model does not read, which is never removed."""


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

    Both are 0..1. They are NaN if every order of the words has the same AOPC.

    Parameters:
        ``predictor``: the model that is explained.
        ``scores``: word scores of each row; words are removed from the largest to the smallest score.
        ``label_ids``: the label of each row that is explained; not used in a regression.
        ``copies_of``: returns a row's copies without the removed words.
        ``multi_label``: each logit is the log-odds of its own label.
        ``beam``: sets that the search for the limits keeps at each size, in rows with ``EXACT`` units or more.

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
        predicted = predict_by_row(predictor, kept, lambda row, own: copies_of(row, own)[1:])
        for place, sets in list(wanted.items()):
            if sets:
                label = int(label_ids[place])
                values = _drops(whole[place][0, 0], predicted[place][0], label, multi_label=multi_label)
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
    """Word scores from predictions alone: ``|F(x) − F(x without the word)|``, F the log-odds of the label."""
    kept = {row: ~np.eye(count, dtype=bool) for row, count in enumerate(words)}
    predicted = predict_by_row(predictor, kept, copies_of)
    return [
        np.abs(effects(logits, label_ids[row : row + 1], multi_label=multi_label)[0])
        for row, logits in predicted.items()
    ]


@dataclass(frozen=True)
class _Row:
    """One row: the unit of each word (−1 for words that are never removed), the ``order`` of its units by score, and
    the known ``drops`` of f by set of removed units. A set is an integer with one bit for each removed unit."""

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
        """A mask of the words that are kept when each of ``sets`` is removed."""
        removed = (np.array(sets)[:, None] >> np.arange(self.units)) & 1 == 1
        return (self.unit_of < 0) | ~removed[:, np.maximum(self.unit_of, 0)]

    def search(self, beam: int) -> Generator[list[int], None, tuple[float, float]]:
        """Yield sets whose drops the search needs before it continues. Returns both figures."""
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
    """The sets of the first unit of ``order``, of the first two, … of all."""
    sets, removed = [], 0
    for unit in order:
        removed |= 1 << unit
        sets.append(removed)
    return sets


@dataclass
class _Beam:
    """Sets of one size, each with the best sum of drops over the orders that lead to it. Best is the largest sum for
    ``sign`` 1, the smallest for −1 (sums are then negated). Units are removed one by one, or restored (``back``)."""

    sums: dict[int, float]
    sign: int
    back: bool = False

    def grown(self, units: int) -> dict[int, float]:
        """Every set that is one step away from a set of the beam, with the best sum of a path to it."""
        reached: dict[int, float] = {}
        for removed, total in self.sums.items():
            for unit in range(units):
                if bool(removed >> unit & 1) == self.back:
                    neighbour = removed ^ 1 << unit
                    reached[neighbour] = max(total, reached.get(neighbour, -np.inf))
        return reached

    def keep(self, grown: Mapping[int, float], drops: Mapping[int, float], width: int) -> None:
        """Keep the best ``width`` of the sets in ``grown``."""
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
