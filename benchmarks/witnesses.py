"""The audit's figures beside independent code: Shapley values by shap, kappa by scikit-learn, Wilson by statsmodels.

    pip install shap statsmodels
    python benchmarks/witnesses.py MODEL DATA TASK

MODEL is a classifier of the task. Shapley values are those of the log-odds of its label, words that are out replaced by
drawn ones: on 10 validation rows of 4 to 7 words, exactly, and on 10 of 8 to 10, by our permutations; shap is exact.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import shap
from measuring import YARDSTICK, markdown, publish
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.proportion import proportion_confint

from gradistill import DataChoice, load_classifier, load_tokenizer
from gradistill.attribution.shapley_weights import EXACT, shapley_design
from gradistill.auditing.predicted_labels import kappa
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.auditing.response import log_odds
from gradistill.auditing.statistics import wilson_share
from gradistill.data import read_splits
from gradistill.data.changed_copies import draw_words, substituted_copies
from gradistill.data.raw_words import Texts, count_words, word_pool

ROWS, MOST_WORDS, PAIRS = 10, 10, 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("task")
    given = parser.parse_args()
    predictor = ClassifierPredictor(load_classifier(given.model)[0], load_tokenizer(given.model))
    splits = read_splits(DataChoice(str(given.data / given.task), task=given.task), ("validation",))
    rows = splits.rows["validation"].shuffle(seed=0)
    texts = list(zip(*(rows[name][:1000] for name in splits.task.text_columns), strict=True))
    short = [row for row in texts if 4 <= count_words(row) < EXACT][:ROWS]
    long = [row for row in texts if EXACT <= count_words(row) <= MOST_WORDS][:ROWS]
    pool = word_pool(texts)
    found = [
        {"figure": f"Shapley values, {kind}", "by": "shap", **shapley(predictor, some, pool)}
        for kind, some in (
            (f"texts of 4 to {EXACT - 1} words", short),
            (f"texts of {EXACT} to {MOST_WORDS} words, {PAIRS} pairs of permutations", long),
        )
        if some
    ] + [
        {"figure": "kappa of 200 drawn tables", "by": "scikit-learn", **kappas()},
        {"figure": "Wilson's interval, all shares of 1 to 60", "by": "statsmodels", **intervals()},
    ]
    command = f"python benchmarks/witnesses.py MODEL DATA {given.task}"
    publish("witnesses", markdown(found), found, command=command, page=YARDSTICK)


def shapley(predictor: ClassifierPredictor, texts: list[Texts], pool: list[str]) -> dict[str, str]:
    """The largest difference of a value from shap's, and the lowest rank correlation of a text."""
    apart, ranks, sizes = [], [], []
    for row, text in enumerate(texts):
        others, words = draw_words(pool, (1, count_words(text)), 0, row)[0], count_words(text)
        label = int(predictor.logits(substituted_copies(text, np.zeros((0, words), bool), []))[0, 0].argmax())

        def values(
            kept: np.ndarray, text: Texts = text, others: list[str] = others, label: int = label
        ) -> Any:
            copies = substituted_copies(text, kept.astype(bool), [others] * len(kept))
            logits = predictor.logits(copies)[0]
            return log_odds(logits[None], np.array([label]))[0, 1:]

        design = shapley_design(words, pairs=PAIRS, seed=0)
        ours = design.weights @ values(design.kept)
        theirs = shap.explainers.Exact(values, np.zeros((1, words)))(np.ones((1, words)))
        own = np.asarray(theirs.values)[0]
        apart.append(float(np.abs(ours - own).max()))
        ranks.append(float(spearmanr(ours, own)[0]))
        sizes.append(float(np.abs(own).max()))
    return {
        "n": f"{len(texts)} texts",
        "largest difference": f"{max(apart):.1e} (largest value {max(sizes):.2f})",
        "lowest rank correlation": f"{min(ranks):.4f}",
    }


def kappas() -> dict[str, str]:
    generator, apart = np.random.default_rng(0), []
    for _ in range(200):
        labels = generator.integers(1, 6)
        a, b = generator.integers(labels + 1, size=(2, generator.integers(20, 300)))
        apart.append(
            abs(float(kappa(a[None].astype(float), b[None].astype(float))[0]) - cohen_kappa_score(a, b))
        )
    return {"n": "200", "largest difference": f"{max(apart):.1e}", "lowest rank correlation": "–"}


def intervals() -> dict[str, str]:
    apart = []
    for n in range(1, 61):
        for hits in range(n + 1):
            found = wilson_share(np.arange(n) < hits)
            low, high = proportion_confint(hits, n, method="wilson")
            apart.append(max(abs(found.low - low), abs(found.high - high)))
    return {"n": str(len(apart)), "largest difference": f"{max(apart):.1e}", "lowest rank correlation": "–"}


if __name__ == "__main__":
    main()
