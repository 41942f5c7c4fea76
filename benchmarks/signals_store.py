"""What a store of teacher signals costs and saves, side by side in one run.

    python benchmarks/signals_store.py TEACHER DATA --task TASK [--rows 500] [--method gkd]

Prints the time of a step that reads the store against one with a constant in place of the teacher, the rate of building
against the bare forward pass and input gradient, the size by encoding, rows read a second in random order, and the
peak memory of building and of training at 1, 4 and 16 times the rows (each in a process of its own).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console

from gradistill.batch import Batch
from gradistill.commands.prepared_run import build_student
from gradistill.commands.signal_stores import StoreRows, plan_store
from gradistill.data import Collator, align_labels, encode, load_splits
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.loading import label_names, load_classifier, load_tokenizer, set_padding
from gradistill.models.probe import Probe
from gradistill.objectives import EpochProgress, Pair, Term
from gradistill.recipe import load_recipe
from gradistill.report.terminal import results_table
from gradistill.signals import SignalValues
from gradistill.signals.teacher import OnlineTeacher
from gradistill.store.build_plan import BuildPlan
from gradistill.store.columns import Encoding
from gradistill.store.reader import StoredTeacher
from gradistill.store.writer import build
from gradistill.training.step import Step, signals_of

ENCODINGS: tuple[Encoding, ...] = ("float32", "float16", "int8")
BATCH, STEPS, ROUNDS = 32, 30, 3


@dataclass(frozen=True)
class Bench:
    """A teacher, a student of half its depth, and rows."""

    tokenizer: Any
    teacher: OnlineTeacher
    student: Any
    terms: list[Term]
    rows: Dataset

    @classmethod
    def of(cls, given: argparse.Namespace, count: int) -> Bench:
        torch.manual_seed(0)
        tokenizer, (teacher, _) = load_tokenizer(given.teacher), load_classifier(given.teacher)
        set_padding(teacher, tokenizer)
        splits = align_labels(
            load_splits(given.data, task=given.task, splits=("train",)), label_names(teacher)
        )
        chosen = splits.rows["train"].shuffle(seed=0).select(range(count))
        recipe = load_recipe(given.method)
        terms = list(recipe.objectives.values())
        student = build_student(
            LoadedModel("teacher", "", teacher), tokenizer, replace_layers(recipe.student)
        ).model
        student.set_attn_implementation("eager")
        rows = encode(chosen, tokenizer, splits.task).dataset
        return cls(tokenizer, OnlineTeacher(teacher), student, terms, rows)

    @property
    def pair(self) -> Pair:
        return Pair(Probe.find(self.student), self.teacher.probe)

    def plan(self, folder: Path, encoding: Encoding) -> BuildPlan:
        asked = signals_of(self.terms, self.pair, "teacher")
        return plan_store(
            self.teacher,
            StoreRows(self.rows, self.tokenizer, 128),
            asked,
            folder=folder,
            encoding=encoding,
            about={},
        )

    def batches(self, count: int, seed: int = 0) -> list[Batch]:
        """Random rows of like length, as training groups them."""
        order = np.argsort(self.rows["length"][:], kind="stable")
        groups = [order[k : k + BATCH] for k in range(0, len(order) - BATCH + 1, BATCH)]
        picked = np.random.default_rng(seed).integers(0, len(groups), count)
        collate = Collator(self.tokenizer)
        return [Batch.of(collate([self.rows[int(row)] for row in groups[k]])) for k in picked]

    def step(self, source: Any, optimizer: torch.optim.Optimizer) -> Callable[[Batch], None]:
        step = Step(self.terms, self.pair, Probe.find(self.student), source)
        weights = {term.name: term.weight for term in self.terms}

        def run(batch: Batch) -> None:
            distances, _ = step.distances(self.student, batch, EpochProgress())
            torch.stack([weights[name] * d.mean() for name, d in distances.items()]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        return run


class Constant:
    """Stands in for a teacher: answers what it was told, at no cost."""

    def __init__(self) -> None:
        self.values: SignalValues = {}

    def __call__(self, batch: Batch, requests: Iterable[Any]) -> SignalValues:
        return self.values


def replace_layers(settings: Any) -> Any:
    return settings.model_copy(update={"layers": 3})


def opened(plan: BuildPlan) -> StoredTeacher:
    return StoredTeacher.open(plan.folder, plan.made_for, plan.columns, plan.rows["index"])


def timed(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


def of_steps(bench: Bench, plan: BuildPlan) -> dict[str, float]:
    """Seconds of a step with the store, with a constant and with the teacher; every batch by all three in turn."""
    store, constant = opened(plan), Constant()
    optimizer = torch.optim.AdamW([p for p in bench.student.parameters() if p.requires_grad], lr=1e-5)
    sources = {"store": store, "constant": constant, "teacher": bench.teacher}
    steps = {name: bench.step(source, optimizer) for name, source in sources.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for k, batch in enumerate(bench.batches(STEPS)):
        constant.values = store(batch, [column.signal for column in plan.columns])
        names = list(steps)
        for name in (*names[k % 3 :], *names[: k % 3]):
            times[name].append(timed(lambda name=name, batch=batch: steps[name](batch)))
    whole = np.asarray([times[name][2:] for name in steps])  # the first ones warm up
    ratios = whole[0] / whole[1]
    drawn = np.random.default_rng(0).integers(0, len(ratios), (2000, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
    medians = dict(zip(steps, np.median(whole, axis=1).tolist(), strict=True))
    return {**medians, "store / constant": float(np.median(ratios)), "low": float(low), "high": float(high)}


def of_build(bench: Bench, folder: Path) -> list[float]:
    """Rates of building as shares of that of the teacher alone, on the same batches, a round each."""
    collate, shares = Collator(bench.tokenizer), []
    for k in range(ROUNDS):
        plan = bench.plan(folder / f"round{k}", "int8")
        asked = [column.signal for column in plan.columns]
        spoken: list[Batch] = []

        def teacher(batch: Batch, requests: Any, spoken: list[Batch] = spoken) -> SignalValues:
            spoken.append(batch)
            return bench.teacher(batch, requests)

        whole = timed(lambda plan=plan, teacher=teacher: build(plan, teacher, collate))
        bare = timed(lambda spoken=spoken, asked=asked: [bench.teacher(batch, asked) for batch in spoken])
        shares.append(bare / whole)
    return shares


def of_sizes(bench: Bench, folder: Path) -> list[dict[str, Any]]:
    rows = []
    for encoding in ENCODINGS:
        plan = bench.plan(folder / encoding, encoding)
        build(plan, bench.teacher, Collator(bench.tokenizer))
        written = sum(file.stat().st_size for file in plan.folder.glob("*.arrow"))
        tokens = int(plan.lengths.sum())
        store, batches = opened(plan), bench.batches(40, seed=1)
        asked = [column.signal for column in plan.columns]
        seconds = timed(lambda store=store, asked=asked, batches=batches: [store(b, asked) for b in batches])
        rows.append(
            {
                "encoding": encoding,
                "bytes a token": f"{written / tokens:.0f}",
                "a dimension": f"{written / tokens / bench.pair.teacher.width:.3f}",
                "estimate off": f"{plan.size / written - 1:+.3%}",
                "rows read a second": f"{40 * BATCH / seconds:,.0f}",
            }
        )
    return rows


def memory(given: argparse.Namespace, count: int) -> dict[str, float]:
    """Peak memory in MB after building a store of so many rows, and after training from it (in a new process)."""
    bench = Bench.of(given, count)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading (Linux)
    plan = bench.plan(Path(given.memory), "int8")
    if not (Path(given.memory) / "manifest.json").exists():
        build(plan, bench.teacher, Collator(bench.tokenizer))
    else:
        optimizer = torch.optim.AdamW([p for p in bench.student.parameters() if p.requires_grad], lr=1e-5)
        run = bench.step(opened(plan), optimizer)
        for batch in bench.batches(STEPS):
            run(batch)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak
    return {"mb": int(peak[1]) * 1024 / 1e6}


def of_memory(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    rows = []
    for times in (1, 4, 16):
        count, found = given.rows * times, []
        for _ in ("build", "train"):
            command = [sys.executable, __file__, given.teacher, given.data, "--task", given.task, "--method",
                       given.method, "--rows", str(count), "--memory", str(folder / f"memory{times}")]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1])["mb"])
        rows.append({"rows": count, "build MB": f"{found[0]:.0f}", "train MB": f"{found[1]:.0f}"})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teacher")
    parser.add_argument("data")
    parser.add_argument("--task", required=True)
    parser.add_argument("--method", default="gkd")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        print(json.dumps(memory(given, given.rows)))
        return
    console, bench = Console(), Bench.of(given, given.rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.print(results_table(of_sizes(bench, folder), title="size and reading"))
        steps = of_steps(bench, bench.plan(folder / "int8", "int8"))
        console.print({key: round(value, 4) for key, value in steps.items()})
        console.print(
            "build rate / bare rate, by round:", [round(share, 3) for share in of_build(bench, folder)]
        )
        console.print(results_table(of_memory(given, folder), title="peak memory"))


if __name__ == "__main__":
    main()
