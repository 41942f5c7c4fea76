"""How memory, disk and start-up grow with rows: building a store, training from it, auditing.

    python benchmarks/scale.py DATA OUTPUT [--rows 1000 10000 100000]

DATA/sst2 holds train.csv; its sentences are repeated, each time with another number at the end. Teacher and student are
tiny (2 layers and 1, width 64) and know nothing: what is measured is what rows cost, not what a model costs. Every
figure is that of a whole command in a process of its own. Memory is the most that it held for itself (RssAnon, looked
at every .1 s): the files that it maps, such as the rows, are the kernel's to drop. ``start`` is a distillation's time
without its training: reading, splitting into tokens, checks, evaluation. OUTPUT keeps what was measured, so that more
rows can be added later.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import torch
from measuring import markdown, publish
from transformers import BertConfig, BertForSequenceClassification

from gradistill.models.loading import load_tokenizer
from gradistill.models.packaged import PACKAGED

FEW = 500
"""Rows of the split that a command does not measure."""
AUDITED = [
    "--faithfulness-rows=5",
    "--perturbed-rows=20",
    "--response-rows=10",
    "--shapley-rows=0",
    "--expected-gradients-rows=0",
    "--floor-rows=50",
]
PAGE = Path(__file__).parents[1] / "docs" / "several_machines.md"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    given = parser.parse_args()
    with (given.data / "sst2" / "train.csv").open(encoding="utf-8", newline="") as file:
        known = [(row["sentence"], row["label"]) for row in csv.DictReader(file)]
    teacher = given.output / "teacher"
    make_teacher(teacher)
    kept = given.output / "scale.json"
    cells = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else []
    for rows in given.rows:
        if any(cell["rows"] == rows for cell in cells):
            continue
        cells.append(measured(given.output / str(rows), teacher, known, rows))
        cells.sort(key=lambda cell: cell["rows"])
        kept.write_text(json.dumps(cells, indent=1), encoding="utf-8")
        shutil.rmtree(given.output / str(rows))
    counts = " ".join(str(cell["rows"]) for cell in cells)
    command = f"python benchmarks/scale.py DATA OUTPUT --rows {counts}"
    publish("scale", markdown([shown(cell) for cell in cells]), cells, command=command, page=PAGE)


def make_teacher(folder: Path) -> None:
    if (folder / "config.json").is_file():
        return
    tokenizer: Any = load_tokenizer(PACKAGED)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=128, id2label={0: "0", 1: "1"}, label2id={"0": 0, "1": 1},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measured(folder: Path, teacher: Path, known: Sequence[tuple[str, str]], rows: int) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    write_rows(folder / "many", known, train=rows, validation=FEW)
    write_rows(folder / "audited", known, train=FEW, validation=rows)
    data, store, student = ["--data", str(folder / "many")], folder / "store", folder / "student"
    both = ["--teacher", str(teacher)]
    length = "--set=training.max_length=64"
    method = [length, "--method", "adkd", "--student-layers", "1", "--settings", "default", "--epochs", "1"]
    found: dict[str, Any] = {"rows": rows}
    found["store"] = command("signals", *both, *data, length, "--method", "adkd", "--output", str(store))
    found["store"]["bytes"] = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    found["train"] = command(
        "distill", *both, *data, *method, "--signals", str(store), "--output", str(student)
    )
    timing = json.loads((student / "metrics.json").read_text(encoding="utf-8"))["timing"]
    found["train"]["start"] = found["train"]["seconds"] - timing["train_s"]
    found["audit"] = command(
        "audit", *both, "--student", str(student), "--data", str(folder / "audited"), *AUDITED,
        "--output", str(folder / "audit"),
    )  # fmt: skip
    return found


def write_rows(folder: Path, known: Sequence[tuple[str, str]], **splits: int) -> None:
    folder.mkdir(parents=True)
    for split, count in splits.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence", "label"])
            writer.writerows(itertools.islice(repeated(known, split), count))


def repeated(known: Sequence[tuple[str, str]], split: str) -> Iterator[tuple[str, str]]:
    for turn in itertools.count():
        for text, label in known:
            yield f"{text} {split} {turn}", label


def command(*arguments: str) -> dict[str, float]:
    """What a command of gradistill took: seconds, CPU seconds, MB of memory of its own, and resident MB with files."""
    start, own = perf_counter(), 0.0
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "gradistill", *arguments], stdout=printed, stderr=subprocess.STDOUT
        )
        while True:
            own = max(own, memory_of(process.pid))
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            sleep(0.1)
        printed.seek(0)
        if code := os.waitstatus_to_exitcode(status):
            sys.exit(f"{' '.join(arguments)} ended with {code}\n{printed.read().decode()}")
    return {
        "seconds": perf_counter() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "MB": own,
        "resident MB": usage.ru_maxrss * 1024 / 1e6,
    }


def memory_of(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.search(r"RssAnon:\s*(\d+) kB", status)  # none while it ends
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def shown(cell: dict[str, Any]) -> dict[str, str]:
    store, train, audit = cell["store"], cell["train"], cell["audit"]
    return {
        "rows": f"{cell['rows']:,}",
        "store, MB of memory": f"{store['MB']:,.0f}",
        "store, bytes a row": f"{store['bytes'] / cell['rows']:,.0f}",
        "training, MB": f"{train['MB']:,.0f}",
        "start, CPU s": f"{train['start'] / train['seconds'] * train['cpu']:,.0f}",
        "audit, MB": f"{audit['MB']:,.0f}",
        "audit, CPU s": f"{audit['cpu']:,.0f}",
    }


if __name__ == "__main__":
    main()
