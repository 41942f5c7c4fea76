"""Attributions of many texts beside Captum's: at equal nodes, at equal accuracy, and in memory.

    python benchmarks/attribution.py MODEL DATA --task TASK [--rows 96] [--rounds 3] [--output FILE.json]

Both explain the log-odds of the predicted label at the embedding output, with a zero baseline, in float32, of the first
rows of the validation split. Captum gets them as they come, 32 at a time, padded to the longest, and the
``internal_batch_size`` that serves it best of those tried. The two take turns; a ratio is the median over rounds, with
its range. Prints Markdown. At equal accuracy means: a residual of at most 1 % of |F(E) − F(0)| on 95 % of the rows.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerGradientXActivation
from datasets import Dataset
from torch import Tensor

from gradistill.attribution.targets import Target
from gradistill.data import Collator, encode, load_splits
from gradistill.models.loading import load_classifier, load_tokenizer, set_padding
from gradistill.models.probe import Probe
from gradistill.signals.attributing import attribute
from gradistill.signals.speak import from_embeddings
from gradistill.types import Batch

TOLERANCE, SHARE = 0.01, 0.95
NODES = (20, 50)
SEARCHED = (20, 50, 100, 200, 400, 800, 1600)
GROUPS = (32, 64, 128, 256)
MEASURED_MEMORY = (20, 50, 200)
LOG_ODDS = Target("log_odds", "gold")
Maps = dict[int, Tensor]
"""Attributions ``(token, hidden)`` of the real tokens by the row's place."""


@dataclass(frozen=True)
class Bench:
    model: Any
    probe: Probe
    rows: Dataset
    collate: Collator
    labels: list[int]

    @classmethod
    def of(cls, given: argparse.Namespace) -> Bench:
        tokenizer, (model, _) = load_tokenizer(given.model), load_classifier(given.model)
        set_padding(model, tokenizer)
        splits = load_splits(given.data, task=given.task, splits=("validation",))
        rows = encode(splits.rows["validation"].select(range(given.rows)), tokenizer, splits.task).dataset
        collate = Collator(tokenizer)
        with torch.no_grad():
            logits = [model.eval()(**Batch.of(collate([row])).inputs).logits for row in rows]
        return cls(model, Probe.find(model), rows, collate, torch.cat(logits).argmax(-1).tolist())

    def batches(self) -> Iterator[tuple[range, Batch, Tensor]]:
        """As Captum gets them."""
        for start in range(0, len(self.rows), 32):
            places = range(start, min(start + 32, len(self.rows)))
            batch = Batch.of(self.collate([self.rows[place] for place in places]))
            yield places, batch, torch.tensor([self.labels[place] for place in places])

    def ours(self, **options: Any) -> Maps:
        done = attribute(self.model, self.rows, self.collate, labels=self.labels, **options)
        return {one.place: one.attributions for one in done}

    def captums_gradient_x_input(self) -> Maps:
        def run(_: Tensor, batch: Batch, at: Tensor) -> Tensor:
            return LOG_ODDS.values(self.model(**batch.inputs).logits, at)[:, 0]

        layer = self.model.get_submodule(self.probe.embedding)
        method = LayerGradientXActivation(run, layer)
        found: Maps = {}
        for places, batch, at in self.batches():
            maps = method.attribute(batch.inputs["input_ids"], additional_forward_args=(batch, at))
            found |= unpadded(places, batch, maps)
        return found

    def captums_integrated(self, steps: int, group: int) -> Maps:
        def run(embedding: Tensor, mask: Tensor, ids: Tensor, at: Tensor) -> Tensor:
            batch = Batch({"input_ids": ids, "attention_mask": mask}, mask.bool())
            return LOG_ODDS.values(from_embeddings(self.model, self.probe, batch, embedding, 1), at)[:, 0]

        found: Maps = {}
        for places, batch, at in self.batches():
            with torch.no_grad(), self.probe.tapped(self.model) as taps:
                self.model(**batch.inputs)
            maps = IntegratedGradients(run).attribute(
                taps[0],
                torch.zeros_like(taps[0]),
                additional_forward_args=(batch.inputs["attention_mask"], batch.inputs["input_ids"], at),
                n_steps=steps,
                method="gausslegendre",
                internal_batch_size=group,
            )
            found |= unpadded(places, batch, maps)
        return found

    def share_within(self, steps: int) -> float:
        """Of the rows that so many Gauss–Legendre steps bring under the tolerance; the nodes are Captum's."""
        done = attribute(self.model, self.rows, self.collate, labels=self.labels, steps=steps)
        return float(np.mean([abs(one.residual) <= TOLERANCE for one in done]))


def unpadded(places: range, batch: Batch, maps: Tensor) -> Maps:
    return {place: maps[k].detach()[batch.mask[k]] for k, place in enumerate(places)}


def timed(run: Callable[[], Maps]) -> tuple[float, Maps]:
    start = perf_counter()
    found = run()
    return perf_counter() - start, found


def beside(name: str, ours: Callable[[], Maps], captums: Callable[[], Maps], rounds: int) -> dict[str, Any]:
    """Texts a second of both and their ratio, in alternating rounds, and how far the results are apart."""
    seconds: list[tuple[float, float]] = []
    for k in range(rounds):
        turns = [timed(run) for run in ((ours, captums) if k % 2 else (captums, ours))]
        (us, our_maps), (them, their_maps) = turns if k % 2 else turns[::-1]
        seconds.append((us, them))
    apart = [float((our_maps[k] - their_maps[k]).norm() / their_maps[k].norm()) for k in their_maps]
    ratios = [them / us for us, them in seconds]
    return {
        "what": name,
        "ours texts/s": len(our_maps) / median(us for us, _ in seconds),
        "captum texts/s": len(our_maps) / median(them for _, them in seconds),
        "ratio": median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "apart median": median(apart),
        "apart largest": max(apart),
    }


def at_equal_nodes(bench: Bench, group: int, rounds: int) -> list[dict[str, Any]]:
    found = [
        beside(
            "gradient x input",
            lambda: bench.ours(method="gradient_x_input"),
            bench.captums_gradient_x_input,
            rounds,
        )
    ]
    for steps in NODES:
        found.append(
            beside(
                f"IG, {steps} nodes",
                lambda steps=steps: bench.ours(steps=steps),
                lambda steps=steps: bench.captums_integrated(steps, group),
                rounds,
            )
        )
    return found


def at_equal_accuracy(bench: Bench, group: int, rounds: int) -> dict[str, Any]:
    shares = {}
    for steps in SEARCHED:
        shares[steps] = bench.share_within(steps)
        if shares[steps] >= SHARE:
            break
    enough = max(shares)
    done = list(attribute(bench.model, bench.rows, bench.collate, labels=bench.labels))
    taken = [one.nodes for one in done]
    return {
        **beside(
            f"IG to 1 %, Captum's {enough} nodes",
            bench.ours,
            lambda: bench.captums_integrated(enough, group),
            rounds,
        ),
        "captum: share of rows within 1 %": shares,
        "ours: share of rows within 1 %": float(np.mean([abs(one.residual) <= TOLERANCE for one in done])),
        "ours: nodes": {"mean": float(np.mean(taken)), "median": median(taken), "largest": max(taken)},
    }


def best_group(bench: Bench) -> tuple[int, dict[int, float]]:
    """Captum's fastest ``internal_batch_size``, of each the better of two runs."""
    seconds = {
        group: min(timed(lambda group=group: bench.captums_integrated(20, group))[0] for _ in range(2))
        for group in GROUPS
    }
    return min(seconds, key=lambda group: seconds[group]), seconds


def peak_mb(bench: Bench, who: str, steps: str, group: int) -> float:
    """Peak memory beyond what stood there before, in MB (Linux; in a process of its own)."""
    status = Path("/proc/self/status")
    before = resident(status.read_text(), "VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    if who == "captum":
        bench.captums_integrated(int(steps), group)
    else:
        bench.ours(steps=steps if steps == "auto" else int(steps))
    return resident(status.read_text(), "VmHWM") - before


def resident(status: str, name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024 / 1e6


def memory(given: argparse.Namespace, group: int) -> list[dict[str, Any]]:
    rows = []
    for who, settings in (("captum", MEASURED_MEMORY), ("ours", (*MEASURED_MEMORY, "auto"))):
        for steps in settings:
            command = [sys.executable, __file__, given.model, given.data, "--task", given.task, "--rows", "32",
                       "--memory", who, str(steps), str(group)]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"who": who, "steps": steps, "peak MB": json.loads(done.stdout.splitlines()[-1])})
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.1e}" if 0 < value < 0.01 else f"{value:,.2f}"

    head = [name for name, value in rows[0].items() if not isinstance(value, dict)]
    lines = [head, ["---"] * len(head), *([cell(row[name]) for name in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--task", required=True)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    bench = Bench.of(given)
    if given.memory:
        who, steps, group = given.memory
        print(json.dumps(peak_mb(bench, who, steps, int(group))))
        return
    group, tried = best_group(bench)
    print(f"{given.rows} rows, {torch.get_num_threads()} threads; seconds of Captum's IG(20) by")
    print(f"internal_batch_size { ({k: round(s, 1) for k, s in tried.items()}) }, so {group}\n")
    nodes = at_equal_nodes(bench, group, given.rounds)
    print(markdown(nodes), flush=True)
    accuracy = at_equal_accuracy(bench, group, given.rounds)
    print(markdown([accuracy]), {k: v for k, v in accuracy.items() if isinstance(v, dict)}, "\n", flush=True)
    peaks = memory(given, group)
    print(markdown(peaks))
    if given.output:
        found = {"rows": given.rows, "group": group, "nodes": nodes, "accuracy": accuracy, "memory": peaks}
        given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
