"""Attributions of many texts beside Captum's: at equal nodes, at equal accuracy, and in memory.

    python benchmarks/attribution.py MODEL DATA --task TASK [--rows 96] [--rounds 3] [--timed-rows 32]
        [--gradient-rows 256]

Both explain the log-odds of the predicted label at the embedding output, with a zero baseline, in float32, of the first
rows of the validation split. Captum gets them as they come, 32 at a time, padded to the longest, and the
``internal_batch_size`` that serves it best of those tried; its model is transformers' own, untrimmed. The two take
turns; a ratio is the median over rounds, with its range. Equal accuracy means a residual of at most 1 % of
|F(E) − F(0)| on 95 % of the rows: Captum's steps are the fewest of those tried that reach it (its nodes and ours
are the same, so ours say which), and the times are those of the first ``--timed-rows``. Gradient × input, which is over
in a moment, is asked of ``--gradient-rows``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerGradientXActivation
from datasets import Dataset
from measuring import alternating, markdown, publish, ratio, shown
from torch import Tensor

from gradistill.attribution.targets import Target
from gradistill.auditing.attributions import attribute
from gradistill.auditing.methods import method
from gradistill.batch import Batch
from gradistill.data import Collator, encode, load_splits
from gradistill.models.loading import load_classifier, load_tokenizer, set_padding
from gradistill.models.probe import Probe

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
        count = max(given.rows, given.gradient_rows)
        rows = encode(splits.rows["validation"].select(range(count)), tokenizer, splits.task).dataset
        collate = Collator(tokenizer)
        with torch.no_grad():
            logits = [model.eval()(**Batch.of(collate([row])).inputs).logits for row in rows]
        return cls(model, Probe.find(model), rows, collate, torch.cat(logits).argmax(-1).tolist())

    def first(self, count: int) -> Bench:
        return replace(self, rows=self.rows.select(range(count)), labels=self.labels[:count])

    def batches(self) -> Iterator[tuple[range, Batch, Tensor]]:
        """As Captum gets them."""
        for start in range(0, len(self.rows), 32):
            places = range(start, min(start + 32, len(self.rows)))
            batch = Batch.of(self.collate([self.rows[place] for place in places]))
            yield places, batch, torch.tensor([self.labels[place] for place in places])

    def ours(self, name: str = "integrated_gradients", **options: Any) -> Maps:
        options = options or ({"steps": "auto", "baseline": "zero"} if name == "integrated_gradients" else {})
        done = attribute(
            self.model, self.rows, self.collate, labels=self.labels, method=method(name, **options)
        )
        return {one.place: one.attributions for one in done}

    def captums_gradient_x_input(self) -> Maps:
        def run(_: Tensor, batch: Batch, at: Tensor) -> Tensor:
            return LOG_ODDS.values(self.model(**batch.inputs).logits, at)[:, 0]

        layer = self.model.get_submodule(self.probe.embedding)
        theirs = LayerGradientXActivation(run, layer)
        found: Maps = {}
        for places, batch, at in self.batches():
            maps = theirs.attribute(batch.inputs["input_ids"], additional_forward_args=(batch, at))
            found |= unpadded(places, batch, maps)
        return found

    def captums_integrated(self, steps: int, group: int) -> Maps:
        def run(embedding: Tensor, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
            with self.probe.tapped(self.model, replacement=embedding):
                logits = self.model(input_ids=ids, attention_mask=mask).logits
            return LOG_ODDS.values(logits, at)[:, 0]

        found: Maps = {}
        for places, batch, at in self.batches():
            with torch.no_grad(), self.probe.tapped(self.model) as taps:
                self.model(**batch.inputs)
            maps = IntegratedGradients(run).attribute(
                taps[0],
                torch.zeros_like(taps[0]),
                additional_forward_args=(batch.inputs["input_ids"], batch.inputs["attention_mask"], at),
                n_steps=steps,
                method="gausslegendre",
                internal_batch_size=group,
            )
            found |= unpadded(places, batch, maps)
        return found

    def share_within(self, steps: int) -> float:
        """Of the rows that so many Gauss–Legendre steps bring under the tolerance; the nodes are Captum's."""
        in_steps = method("integrated_gradients", steps=steps, baseline="zero")
        done = attribute(self.model, self.rows, self.collate, labels=self.labels, method=in_steps)
        return float(np.mean([abs(one.residual) <= TOLERANCE for one in done]))


def unpadded(places: range, batch: Batch, maps: Tensor) -> Maps:
    return {place: maps[k].detach()[batch.mask[k]] for k, place in enumerate(places)}


def timed(run: Callable[[], Maps]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


def beside(ours: Callable[[], Maps], captums: Callable[[], Maps], rounds: int) -> dict[str, Any]:
    """Texts a second of both, how many times faster ours is, and how far the results are apart."""
    mine, theirs = ours(), captums()
    apart = [float((mine[k] - theirs[k]).norm() / theirs[k].norm()) for k in theirs]
    seconds = alternating({"ours": lambda: timed(ours), "captum": lambda: timed(captums)}, rounds)
    return {
        "rows": len(mine),
        **{f"{who} texts/s": round(len(mine) / median(taken), 2) for who, taken in seconds.items()},
        "times faster": ratio(seconds["captum"], seconds["ours"]),
        "apart": {"median": median(apart), "largest": max(apart)},
    }


def at_equal_nodes(bench: Bench, many: Bench, group: int, rounds: int) -> dict[str, dict[str, Any]]:
    found = {
        "gradient × input": beside(
            lambda: many.ours("gradient_x_input"), many.captums_gradient_x_input, rounds
        )
    }
    for steps in NODES:
        found[f"IG, {steps} nodes"] = beside(
            lambda steps=steps: bench.ours(steps=steps),
            lambda steps=steps: bench.captums_integrated(steps, group),
            rounds,
        )
    return found


def at_equal_accuracy(bench: Bench, group: int, rounds: int, timed_rows: int) -> dict[str, Any]:
    shares: dict[int, float] = {}
    for steps in SEARCHED:
        shares[steps] = bench.share_within(steps)
        if shares[steps] >= SHARE:
            break
    enough, some = max(shares), bench.first(timed_rows)
    done = list(attribute(bench.model, bench.rows, bench.collate, labels=bench.labels))
    taken = [one.nodes for one in done]
    return {
        **beside(some.ours, lambda: some.captums_integrated(enough, group), rounds),
        "captum nodes": enough,
        "captum share of rows within 1 %": shares,
        "ours share of rows within 1 %": float(np.mean([abs(one.residual) <= TOLERANCE for one in done])),
        "ours nodes": {"mean": float(np.mean(taken)), "median": median(taken), "largest": max(taken)},
    }


def best_group(bench: Bench) -> tuple[int, dict[int, float]]:
    """Captum's fastest ``internal_batch_size``, and the median seconds of each for IG of 20 nodes."""
    asked = {
        str(group): lambda group=group: timed(lambda: bench.captums_integrated(20, group)) for group in GROUPS
    }
    seconds = {int(group): median(taken) for group, taken in alternating(asked, 2).items()}
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
                       "--gradient-rows", "32", "--memory", who, str(steps), str(group)]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(
                {"who": who, "steps": steps, "peak MB": round(json.loads(done.stdout.splitlines()[-1]))}
            )
    return rows


def row(what: str, found: dict[str, Any]) -> dict[str, Any]:
    cells = {
        name: value for name, value in found.items() if name in ("rows", "ours texts/s", "captum texts/s")
    }
    apart = f"{found['apart']['largest']:.1e}"
    return {"what": what, **cells, "times faster": shown(found["times faster"]), "largest distance": apart}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--task", required=True)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timed-rows", type=int, default=32)
    parser.add_argument("--gradient-rows", type=int, default=256)
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    many = Bench.of(given)
    bench = many.first(given.rows)
    if given.memory:
        who, steps, group = given.memory
        print(json.dumps(peak_mb(bench, who, steps, int(group))))
        return
    found = {"rows": given.rows, **figures(bench, many, given)}
    options = (
        f"--task {given.task} --rows {given.rows} --rounds {given.rounds} --timed-rows {given.timed_rows} "
        f"--gradient-rows {given.gradient_rows}"
    )
    publish(
        "attribution", page(found), found, command=f"python benchmarks/attribution.py MODEL DATA {options}"
    )


def figures(bench: Bench, many: Bench, given: argparse.Namespace) -> dict[str, Any]:
    group, seconds = best_group(bench)
    return {
        "captum's seconds for 20 nodes by internal_batch_size": seconds,
        "group": group,
        "nodes": at_equal_nodes(bench, many, group, given.rounds),
        "accuracy": at_equal_accuracy(bench, group, given.rounds, given.timed_rows),
        "memory": memory(given, group),
    }


def page(found: dict[str, Any]) -> str:
    """The three tables, and what equal accuracy took."""
    accuracy, nodes = found["accuracy"], found["accuracy"]["ours nodes"]
    ours = accuracy["ours share of rows within 1 %"]
    rows = [row(what, beside) for what, beside in found["nodes"].items()]
    rows.append(row(f"IG to 1 %: ours adaptive, Captum {accuracy['captum nodes']} nodes", accuracy))
    shares = ", ".join(
        f"{steps}: {share:.1%}" for steps, share in accuracy["captum share of rows within 1 %"].items()
    )
    return "\n\n".join(
        (
            markdown(rows),
            f"Rows within 1 % of completeness, of {found['rows']}: ours {ours:.1%} with {nodes['mean']:.0f} nodes a "
            f"row on average (median {nodes['median']:.0f}, largest {nodes['largest']}); Gauss–Legendre by nodes: "
            f"{shares}. Captum's internal_batch_size: {found['group']}.",
            markdown(found["memory"]),
        )
    )


if __name__ == "__main__":
    main()
