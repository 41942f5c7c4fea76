"""How many tokens should share a forward pass that nothing is learned from: speed and memory of audits and predictions.

    python benchmarks/batch_tokens.py MODEL DATA TASK [--rows 300] [--rounds 3]

Each number of tokens takes its turn in every round: plain predictions, and predictions with gradient × input, of the
first rows of the validation split. The ratio is that to the largest number. Peak memory is of a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from functools import partial
from typing import Any

from measuring import alternating, markdown, peak_rss_mb, publish, ratio, shown

from gradistill import DataChoice, load_classifier, load_tokenizer
from gradistill.auditing.predictions import predict_logits, predict_rows
from gradistill.data import Collator, batching, encode, read_splits

TOKENS = (8192, 4096, 2048, 1024, 512, 256)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("model", "data", "task"):
        parser.add_argument(name)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", type=int, help="print the peak memory of this number of tokens")
    given = parser.parse_args()
    predict = {"predictions": predict_logits, "with gradient × input": predict_rows}
    model, rows, collate = prepared(given)
    if given.memory_of:
        batching.ON_CPU = given.memory_of
        predict_rows(model, rows, collate)
        print(round(peak_rss_mb()))
        return

    def timed(tokens: int, run: Any) -> float:
        batching.ON_CPU = tokens
        start = time.perf_counter()
        run(model, rows, collate)
        return time.perf_counter() - start

    found = [{"tokens": tokens, "peak MB": memory(tokens)} for tokens in TOKENS]
    for name, run in predict.items():
        seconds = alternating({str(t): partial(timed, t, run) for t in TOKENS}, given.rounds)
        for row in found:
            row[f"{name}, times as fast"] = shown(ratio(seconds[str(TOKENS[0])], seconds[str(row["tokens"])]))
    command = f"python benchmarks/batch_tokens.py MODEL DATA {given.task} --rows {given.rows} --rounds {given.rounds}"
    publish("batch_tokens", markdown(found), found, command=command)


def prepared(given: argparse.Namespace) -> tuple[Any, Any, Collator]:
    splits = read_splits(DataChoice(given.data, task=given.task), ("validation",))
    rows = splits.rows["validation"]
    tokenizer = load_tokenizer(given.model)
    some = rows.select(range(min(given.rows, len(rows))))
    encoded = encode(some, tokenizer, splits.task, max_length=128).dataset
    return load_classifier(given.model)[0], encoded, Collator(tokenizer)


def memory(tokens: int) -> int:
    """Peak memory in MB of a process that predicts with attributions."""
    done = subprocess.run(
        [sys.executable, *sys.argv, "--memory-of", str(tokens)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
