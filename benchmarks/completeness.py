"""How far Integrated Gradients miss completeness on a fine-tuned model, by baseline and number of steps.

    python benchmarks/completeness.py MODEL DATA [--task TASK] [--rows 20]

Prints one row for each baseline and number of Gauss–Legendre steps: how many of the rows leave a residual under
1e-3 of |F(E) − F(baseline)|, and the median and largest residual. The rows are the first of the validation split.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.progress import track

from gradistill.commands.explain import explain
from gradistill.data import load_splits
from gradistill.models.loading import load_classifier, load_tokenizer, set_padding
from gradistill.report.terminal import results_table

STEPS = (50, 100, 200, None)
"""None: as many as ``gradistill explain`` takes when nobody says how many."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--task")
    parser.add_argument("--rows", type=int, default=20)
    given = parser.parse_args()
    splits = load_splits(given.data, task=given.task, splits=("validation",))
    rows = splits.rows["validation"]
    texts = [[row[column] for column in splits.task.text_columns] for row in rows.select(range(given.rows))]
    tokenizer = load_tokenizer(given.model)
    model, _ = load_classifier(given.model)
    set_padding(model, tokenizer)
    model.eval().requires_grad_(False)
    table = []
    for baseline in ("padding", "zero"):
        for steps in track(STEPS, description=f"{baseline} baseline"):
            found = np.abs(
                [explain((model, tokenizer), text, steps=steps, baseline=baseline).residual for text in texts]
            )
            table.append(
                {
                    "baseline": baseline,
                    "steps": steps or "as needed",
                    "under 1e-3": f"{int((found < 1e-3).sum())} of {len(found)}",
                    "median": f"{np.median(found):.1e}",
                    "largest": f"{found.max():.1e}",
                }
            )
    Console().print(results_table(table, title=f"completeness residual, {given.model}"))


if __name__ == "__main__":
    main()
