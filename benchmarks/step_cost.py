"""What a step of each recipe costs, in steps of plain cross-entropy: time, counted FLOPs, and the arithmetic.

    python benchmarks/step_cost.py [--lengths 16 64 128 256] [--depths 2 3 6] [--precisions float32 bf16] [--rounds 3]

The reference is the unmodified student in transformers' own Trainer. Recipes run in DistillationTrainer, their teacher
(the packaged model, 6 layers × 384, with a new head) answers from a store. In every round each trains a few steps
on the same 1024 random tokens; times run from the end of a step to the end of the next, so that data loading, clipping
and the optimizer are in. ``whole`` is the last block untrimmed. A cell takes about a minute on two cores;
cells that stand in results/step_cost.json are not measured again.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from arithmetic import Encoder
from datasets import Dataset
from measuring import alternating, markdown, measured_before, publish, ratio, shown
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer, TrainerCallback, TrainingArguments

from gradistill.data import Collator
from gradistill.models.loading import Head, load_classifier, load_tokenizer
from gradistill.models.packaged import PACKAGED
from gradistill.models.probe import Probe
from gradistill.models.student import student_from_teacher
from gradistill.objectives import Pair
from gradistill.recipe import ComputeSettings, load_recipe
from gradistill.signals import Logits
from gradistill.signals.teacher import OnlineTeacher
from gradistill.store.build_plan import BuildPlan
from gradistill.store.columns import columns_for
from gradistill.store.reader import StoredTeacher
from gradistill.store.writer import build
from gradistill.training.step import Term, signals_of
from gradistill.training.trainer import DistillationTrainer

RECIPES = ("finetune", "kd", "pkd", "gkd", "gkd_cls", "adkd")
ALIGNED = ("gkd", "gkd_cls", "adkd")
CORE = ("kd", "gkd", "adkd")
"""The recipes of every cell; all of them run at the depth and length of WHOLE_LIST."""
WHOLE_LIST = (3, 64)
TOKENS = 1024  # of a batch
COMMAND = "python benchmarks/step_cost.py --fresh"
STEPS = 3  # the first one starts the clock


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(perf_counter())


class Bench:
    """A teacher, its store over random rows of one length, and the trainers that are compared on them."""

    def __init__(
        self, folder: Path, layers: int, length: int, labels: int, precision: str,
        *, batch: int | None = None, examples: int | None = None, recipes: Sequence[str] = RECIPES,
        others: Sequence[Term] = (),
    ) -> None:  # fmt: skip
        torch.manual_seed(0)
        names = tuple(f"label {k}" for k in range(labels))
        self.teacher = teacher_of(names, layers)
        self.online = OnlineTeacher(self.teacher)
        self.layers, self.length, self.labels = layers, length, labels
        self.batch = batch or TOKENS // length
        self.rows = random_rows(examples or self.batch * STEPS, length, labels)
        self.collate = Collator(load_tokenizer(PACKAGED))
        self.folder, self.precision, self.recipes, self.others = folder, precision, recipes, others
        self.store = self._store()

    def student(self) -> Any:
        return student_from_teacher(self.teacher, self.layers)

    def terms(self, recipe: str) -> list[Term]:
        objectives = load_recipe(recipe).objectives.values()
        return [Term(entry.objective, entry.weight) for entry in objectives]

    def _store(self) -> StoredTeacher:
        pair = Pair(Probe.find(self.student()), self.online.probe)
        terms = [*(term for recipe in self.recipes for term in self.terms(recipe)), *self.others]
        asked = signals_of(terms, pair, "teacher")
        columns = columns_for((Logits(), *asked), self.online.probe, "int8")
        made_for = {"signals": [column.as_dict() for column in columns]}
        plan = BuildPlan(self.folder, self.rows, columns, made_for, {"encoding": "int8"})
        build(plan, self.online, self.collate)
        return StoredTeacher.open(self.folder, made_for, columns, self.rows["index"])

    def arguments(self) -> TrainingArguments:
        return TrainingArguments(
            output_dir=str(self.folder / "run"), per_device_train_batch_size=self.batch, max_steps=STEPS,
            bf16=self.precision == "bf16", use_cpu=not torch.accelerator.is_available(), report_to="none",
            save_strategy="no", disable_tqdm=True, logging_strategy="no", learning_rate=1e-5,
            dataloader_pin_memory=False, remove_unused_columns=False,
        )  # fmt: skip

    def plain(self) -> Trainer:
        def collate(features: Any) -> dict[str, Any]:
            return {
                k: v
                for k, v in self.collate(features).items()
                if k in ("input_ids", "attention_mask", "labels")
            }

        return Trainer(self.student(), self.arguments(), collate, self.rows)

    def distilling(
        self,
        recipe: str,
        *,
        whole: bool = False,
        terms: Sequence[Term] = (),
        compute: ComputeSettings = ComputeSettings(),  # noqa: B008 (frozen)
    ) -> DistillationTrainer:
        """By the recipe's own terms, or by others."""
        student = self.student()
        if load_recipe(recipe).student.embeddings == "frozen":
            for name in self.online.probe.embedding_parameters:
                student.get_parameter(name).requires_grad_(False)
        trainer = DistillationTrainer(
            student, self.arguments(), self.collate, self.rows, teacher=self.store,
            objectives=terms or self.terms(recipe), teacher_facts=self.online.probe,
            compute=compute,
        )  # fmt: skip
        if whole:
            student = trainer.step.student
            student.probe = replace(student.probe, trim=None)
        return trainer

    def encoder(self) -> Encoder:
        config = self.teacher.config
        size = (config.hidden_size, config.intermediate_size)
        return Encoder(self.layers, *size, self.labels, self.batch, self.length)


def teacher_of(labels: tuple[str, ...], layers: int) -> Any:
    """The packaged model; for a student that is deeper, its layers again and again."""
    teacher, _ = load_classifier(PACKAGED, head=Head(labels), new_head=True)
    blocks = teacher.bert.encoder.layer
    found = list(blocks)
    blocks.extend(copy.deepcopy(found[k % len(found)]) for k in range(len(found), layers))
    teacher.config.num_hidden_layers = len(blocks)
    return teacher


def random_rows(count: int, length: int, labels: int) -> Dataset:
    ids = torch.randint(1000, 30000, (count, length), generator=torch.Generator().manual_seed(0)).tolist()
    ones = [[1] * length for _ in ids]
    of_labels = [k % labels for k in range(count)]
    special = [[1, *[0] * (length - 2), 1]] * count
    columns = {"input_ids": ids, "attention_mask": ones, "special_tokens_mask": special, "labels": of_labels}
    return Dataset.from_dict({**columns, "index": list(range(count)), "length": [length] * count})


def timed(trainer: Trainer) -> Callable[[], float]:
    """Seconds of a step, the mean of the steps behind the first in the trainer's own loop."""
    clock = Clock()
    trainer.add_callback(clock)

    def run() -> float:
        clock.ends.clear()
        trainer.train()
        return (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)

    return run


def counted(trainer: Trainer) -> int:
    """Floating-point operations of one training step, without checks at the start.

    Embeddings are thawed for it: the counter cannot look at gradients that end in a leaf.
    """
    trainer.model.requires_grad_(True)  # pyright: ignore[reportOptionalMemberAccess]
    trainer.args.max_steps = 1
    with FlopCounterMode(display=False) as counter:
        trainer.train()
    trainer.args.max_steps = STEPS
    return counter.get_total_flops()


def inner_gradients(recipe: str, labels: int) -> int:
    return {"adkd": max(labels - 1, 1)}.get(recipe, 1) if recipe in ALIGNED else 0


def measured(layers: int, length: int, precision: str, rounds: int, labels: int = 2) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder) / "store", layers, length, labels, precision)
        trainers: dict[tuple[str, bool], Trainer] = {("plain", True): bench.plain()}
        for recipe in RECIPES if (layers, length) == WHOLE_LIST else CORE:
            trainers[recipe, False] = bench.distilling(recipe)
            if recipe in ALIGNED:
                trainers[recipe, True] = bench.distilling(recipe, whole=True)
        asked = {f"{recipe}|{whole}": timed(trainer) for (recipe, whole), trainer in trainers.items()}
        seconds = alternating(asked, rounds)
        flops = {key: counted(trainer) for key, trainer in trainers.items()}
    encoder, plain = bench.encoder(), ("plain", True)
    return [
        {
            "recipe": recipe, "last_block": "whole" if whole else "trimmed", "labels": labels, "layers": layers,
            "tokens": length, "rows": bench.batch, "precision": precision,
            "plain_s": ratio(seconds["plain|True"], [1.0] * rounds),
            "time": ratio(seconds[f"{recipe}|{whole}"], seconds["plain|True"]),
            "flops": round(flops[recipe, whole] / flops[plain], 4),
            "arithmetic": round(
                encoder.step_flops(inner_gradients(recipe, labels), trimmed=not whole) / encoder.step_flops(), 4
            ),
        }
        for recipe, whole in trainers if recipe != "plain"
    ]  # fmt: skip


def row(cell: dict[str, Any]) -> dict[str, Any]:
    return {
        "precision": cell["precision"], "layers": cell["layers"], "tokens": cell["tokens"], "rows": cell["rows"],
        "recipe": cell["recipe"], "last block": cell["last_block"], "plain step, s": f"{cell['plain_s']['median']:.3f}",
        "time": shown(cell["time"]), "FLOPs": f"{cell['flops']:.3f}", "arithmetic": f"{cell['arithmetic']:.3f}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 64, 128, 256])
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 3, 6])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bf16"])
    parser.add_argument("--fresh", action="store_true", help="forget the cells that were measured before")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cells = [] if given.fresh else measured_before("step_cost")
    done = {(cell["precision"], cell["layers"], cell["tokens"]) for cell in cells}
    wanted = itertools.product(given.precisions, given.depths, given.lengths)
    for precision, layers, length in wanted:
        if (precision, layers, length) not in done:
            cells += measured(layers, length, precision, given.rounds)
            cells.sort(key=lambda cell: (cell["precision"] != "float32", cell["layers"], cell["tokens"]))
            publish("step_cost", markdown([row(cell) for cell in cells]), cells, command=COMMAND)


if __name__ == "__main__":
    main()
