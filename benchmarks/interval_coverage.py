"""How often the interval of a macro F1 holds the true value, with few and with many rows a class.

    python benchmarks/interval_coverage.py [--samples 200]

No model and no data: rows are drawn with gold classes that are equally frequent, and predictions that are right with a
probability of the class (.6 to 1 over the classes) and any other class otherwise. The true value is that of 1,000,000
rows. Each sample gets two intervals of the same resamples: their percentiles, and what an audit shows
(``metric_estimates``: the basic interval where resamples are biased). The table goes to docs/audit.md.
"""

from __future__ import annotations

import argparse

import numpy as np
from measuring import PAGE, markdown, publish

from gradistill.auditing.metric_intervals import RESAMPLES
from gradistill.auditing.predicted_labels import macro_f1
from gradistill.auditing.statistics import bootstrap_statistic, wilson_share

SETTINGS = [(4, 100), (4, 1000), (20, 200), (77, 300), (77, 1500), (150, 500), (150, 3000)]
"""Classes and rows."""
TRUTH = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=200)
    samples = parser.parse_args().samples
    found = [_coverage(classes, rows, samples) for classes, rows in SETTINGS]
    table = [
        {
            "classes": figure["classes"],
            "rows": figure["rows"],
            "percentiles": _shown(figure["percentiles"]),
            "ours": _shown(figure["ours"]),
        }
        for figure in found
    ]
    command = f"python benchmarks/interval_coverage.py --samples {samples}"
    publish("interval_coverage", markdown(table), found, command=command, page=PAGE.with_name("audit.md"))


def _coverage(classes: int, rows: int, samples: int) -> dict[str, object]:
    draw = np.random.default_rng(classes * 10_000 + rows)
    accuracy = np.linspace(0.6, 1.0, classes)
    gold, predicted = _rows(draw, accuracy, TRUTH)
    truth = macro_f1(predicted[None], gold[None])[0]
    held = {"percentiles": list[bool](), "ours": list[bool]()}
    for seed in range(samples):
        gold, predicted = _rows(draw, accuracy, rows)
        for name, within in (("percentiles", None), ("ours", (0.0, 1.0))):
            interval = bootstrap_statistic(
                macro_f1, predicted, gold, resamples=RESAMPLES, seed=seed, within=within
            )
            held[name].append(interval.low <= truth <= interval.high)
    shares = {name: wilson_share(np.array(values)).as_dict() for name, values in held.items()}
    return {"classes": classes, "rows": rows, **shares}


def _rows(draw: np.random.Generator, accuracy: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gold and predicted classes, as floats."""
    classes = len(accuracy)
    gold = draw.integers(classes, size=count)
    other = (gold + draw.integers(1, classes, size=count)) % classes
    predicted = np.where(draw.random(count) < accuracy[gold], gold, other)
    return gold.astype(float), predicted.astype(float)


def _shown(share: dict[str, float]) -> str:
    return f"{share['value']:.2f} ({share['low']:.2f} to {share['high']:.2f})"


if __name__ == "__main__":
    main()
