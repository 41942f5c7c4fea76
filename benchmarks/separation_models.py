"""The models of docs/yardstick.md: a teacher of all training rows of a task, and students of known closeness to it.

    python benchmarks/separation_models.py DATA OUTPUT [TASK ...] [--bf16]

DATA holds one folder a task with train.csv and validation.csv. For each task OUTPUT/TASK gets

    teacher          MiniLM, 6 layers, fine-tuned on all rows (20,000 of sst2)
    second           the same with another seed
    longer           the teacher after 50 more steps
    bits_8 … bits_2  the teacher with matrices rounded to so many bits, symmetrically, a scale for each output
    layers_5         a student of 5 of its 6 layers, by kd, on 2,500 rows
    kd rationale minilm adkd coalition coalition_rationale      students of 3 layers, on 2,500 rows
    coalition_minilm                                       the same: minilm with the copies of coalition
    counterfactual_effects interchange noise_matching           the same: kd with the objective of this name
    adkd_sampled jacobian    of banking77 alone, the same: ways to look at 77 labels (adkd looks at the teacher's)
    cut              every second layer of the teacher under the teacher's head, not trained
    random_head      the same under a random head
    random           the same shape with random weights

Other folders beside these are measured too, such as the students of earlier runs on all rows.

The first model of every task comes before the second of any, and the most informative come first. Finished folders
are left alone and an unfinished run goes on, so the script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, set_seed

from gradistill import load_classifier, load_tokenizer, student_from_teacher
from gradistill.models.random_head import randomised_head

METHODS = ("kd", "rationale", "minilm", "adkd", "coalition", "coalition_minilm", "coalition_rationale")
ADDED = {"coalition_minilm": ("minilm", "coalition_matching")}
"""Students of a method and one more objective."""
BESIDE_KD = ("counterfactual_effects", "interchange", "noise_matching")
BITS = (8, 6, 5, 4, 3, 2)
STUDENT_LAYERS, STUDENT_ROWS, STUDENT_EPOCHS = 3, 2500, 4
TEACHER_EPOCHS = {"mrpc": 4, "stsb": 3, "snli": 2, "banking77": 4, "sst2": 2}
TEACHER_ROWS = {"sst2": 20_000}

COLUMNS = {"banking77": ["--label-column", "category", "--text-columns", "text"]}
"""How the rows of a task that gradistill does not know are read."""

MANY_LABELS = {"banking77": {"adkd_sampled": "adkd", "jacobian": "jacobian"}}
"""Students of a task with many labels, and their methods."""

CHANGES = {
    ("banking77", "adkd_sampled"): "objectives.attribution_map.view=sampled",
    ("banking77", "adkd"): "objectives.attribution_map.view=teacher",
    ("banking77", "rationale"): "objectives.rationale.view=teacher",
    ("banking77", "coalition_rationale"): "objectives.rationale.view=teacher",
}
"""All 77 views of a row would take 76 inner gradients."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("tasks", nargs="*", default=list(TEACHER_EPOCHS))
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16")
    given = parser.parse_args()
    making = [_make(given.data, given.output / task, task, bf16=given.bf16) for task in given.tasks]
    for _ in zip_longest(*making):
        pass


def _make(data: Path, output: Path, task: str, *, bf16: bool) -> Iterator[None]:
    """Make the models of a task; each ``yield`` stands after one of them."""
    teacher, epochs = output / "teacher", TEACHER_EPOCHS[task]
    named = COLUMNS.get(task, ["--task", task])

    def run(folder: Path, *command: str, rate: str = "2e-4", epochs: int = 1) -> None:
        if not (folder / "metrics.json").is_file():
            changes = ["training.batch_size=32", f"training.learning_rate={rate}"]
            changes += ["training.arguments.bf16=true"] if bf16 else []
            subprocess.run(
                ["gradistill", *command, "--data", str(data / task), *named, "--output", str(folder),
                 "--settings", "default", "--epochs", str(epochs),
                 *(part for change in changes for part in ("--set", change))],
                check=True,
            )  # fmt: skip

    def distil(name: str, method: str, layers: int, objective: str | None = None) -> None:
        change = f"objectives.{objective}.weight=1" if objective else CHANGES.get((task, name))
        run(output / name, "distill", "--teacher", str(teacher), "--method", method, "--signals", "online",
            "--student-layers", str(layers), "--max-train-rows", str(STUDENT_ROWS),
            *(("--set", change) if change else ()), epochs=STUDENT_EPOCHS)  # fmt: skip

    base = ["finetune", "--model", "minilm-l6"]
    if rows := TEACHER_ROWS.get(task):
        base += ["--max-train-rows", str(rows)]
    run(teacher, *base, "--seed", "0", rate="1e-4", epochs=epochs)
    yield
    untrained(teacher, output)
    distil("kd", "kd", STUDENT_LAYERS)
    yield
    run(output / "second", *base, "--seed", "1", rate="1e-4", epochs=epochs)
    yield
    run(output / "longer", "distill", "--teacher", str(teacher), "--student", str(teacher), "--method", "finetune",
        "--max-train-rows", "1600", rate="5e-5")  # fmt: skip
    yield
    distil("layers_5", "kd", 5)
    yield
    for method in METHODS:
        base_method, *objective = ADDED.get(method, (method,))
        distil(method, base_method, STUDENT_LAYERS, *objective)
        yield
    for name, method in MANY_LABELS.get(task, {}).items():
        distil(name, method, STUDENT_LAYERS)
        yield
    for objective in BESIDE_KD:
        distil(objective, "kd", STUDENT_LAYERS, objective)
        yield


def untrained(teacher: Path, output: Path) -> None:
    """All students that no step trains."""
    model = load_classifier(teacher)[0]
    for bits in BITS:
        _save(_rounded(load_classifier(teacher)[0], bits), teacher, output / f"bits_{bits}")
    cut = student_from_teacher(model, STUDENT_LAYERS)
    _save(cut, teacher, output / "cut")
    with randomised_head(cut, seed=1000):  # a seed that the floor of an audit does not draw
        _save(cut, teacher, output / "random_head")
    set_seed(0)
    _save(type(cut)(cut.config), teacher, output / "random")


def _rounded(model: PreTrainedModel, bits: int) -> PreTrainedModel:
    most = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                scale = module.weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / most
                module.weight.copy_((module.weight / scale).round().clamp(-most, most) * scale)
    return model


def _save(model: PreTrainedModel, teacher: Path, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        model.save_pretrained(folder)
        load_tokenizer(teacher).save_pretrained(folder)


if __name__ == "__main__":
    main()
