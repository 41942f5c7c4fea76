"""How much of the range between the exact limits of faithfulness a beam search misses, by its width (docs/audit.md).

All sets of up to ``UNITS`` units of each text are predicted once. The search then runs on these values.

    python benchmarks/beam_width.py MODEL DATA --rows 8
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from gradistill.auditing.faithfulness import UNITS, faithfulness
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.data import load_splits
from gradistill.data.changed_copies import Copy, masked_copies
from gradistill.data.raw_words import row_texts
from gradistill.models.loading import load_classifier, load_tokenizer

WIDTHS = (1, 2, 3, 5, 10)


class Recorded:
    """A predictor of one text from the logits of all sets of its units; it counts what it is asked."""

    has_head, can_mask = False, True

    def __init__(self, predictor: ClassifierPredictor, texts: tuple[str, ...], units: np.ndarray) -> None:
        count = int(units.max()) + 1
        sets = (np.arange(2**count)[:, None] >> np.arange(count)) & 1 == 1
        self.first = np.unique(units, return_index=True)[1]
        self.logits_of = predictor.logits([Copy(texts, own[units]) for own in sets])[0]
        self.asked = 0

    def logits(self, copies: list[Copy], *, heads: tuple[int, ...] = ()) -> np.ndarray:
        self.asked += len(copies)
        kept = [np.ones(len(self.first), bool) if c.kept is None else c.kept[self.first] for c in copies]
        return self.logits_of[[int((1 << np.flatnonzero(own)).sum()) for own in kept]][None]


def limits(recorded: Recorded, texts: tuple[str, ...], words: int, beam: int) -> tuple[float, float, int]:
    """Least and most, on a scale on which two random orders keep their places, and the predictions."""
    recorded.asked = 0
    scores = np.random.default_rng(0).random(words)
    label = np.array([int(recorded.logits_of[-1].argmax())])
    found = faithfulness(recorded, [scores], label, lambda _, kept: masked_copies(texts, kept), beam=beam)
    first, last = (float(found[name][0]) for name in ("comprehensiveness", "sufficiency"))
    scale = 1 / (first - last)
    return -last * scale, (1 - last) * scale, recorded.asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--rows", type=int, default=8)
    given = parser.parse_args()
    predictor = ClassifierPredictor(load_classifier(given.model)[0], load_tokenizer(given.model))
    splits = load_splits(given.data, splits=("validation",))
    missed: dict[int, list[tuple[float, float, int]]] = {width: [] for width in WIDTHS}
    for texts in row_texts(splits.rows["validation"].select(range(given.rows)), splits.task):
        words = sum(len(text.split()) for text in texts)
        runs = np.array_split(np.arange(words), min(words, UNITS))
        recorded = Recorded(predictor, texts, np.repeat(np.arange(len(runs)), list(map(len, runs))))
        low, high, _ = limits(recorded, texts, words, 2**UNITS)
        for width in WIDTHS:
            least, most, asked = limits(recorded, texts, words, width)
            spread = high - low  # its sign is that of the scale
            missed[width].append(((least - low) / spread, (high - most) / spread, asked))
    for width, of_width in missed.items():
        least, most, asked = np.mean(of_width, axis=0)
        print(
            json.dumps(
                {"beam": width, "least": round(least, 4), "most": round(most, 4), "predictions": round(asked)}
            )
        )


if __name__ == "__main__":
    main()
