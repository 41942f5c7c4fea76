"""Long commands killed at random moments, and disks that fail: does the same command end as if nothing had been?

    python benchmarks/faults.py OUTPUT [--kills 50] [--writes 50] [--disks 6] [--only bench …]

Tiny models on the demo corpus, with dropout, a checkpoint every two steps and an evaluation every two. Each command
runs once undisturbed. Then it is killed (SIGKILL) at a moment drawn evenly over that time, every second time in its
last second, while it writes, moves and removes what it ends with; one of its writes fails, the input-output error (EIO)
and the full disk (ENOSPC) in turn, moments spread evenly over all writes (failing_writes.c, needs a C compiler); and it
runs on small disks (tmpfs, needs root) that are full after so many kB. The same command is then given again and must go
on. The end is compared byte for byte: weights, recipe, tokenizer, metrics but for their times, shards, manifests and a
bench's results, and all names in the folder: nothing may be left over. A reader looks at the folder after the fault:
what stands there must be whole. What --only leaves out, or is asked for 0 times, stays published as it was.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import yaml
from children import BEGUN, WRITES, Child, let_down
from measuring import FAULTS, markdown, measured_before, publish
from safetensors import safe_open
from tiny import Tiny

BUSY = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
COMMANDS = ("finetune", "distill", "pretrain", "signals", "bench", "predict")
PREDICTED = "predicted.csv"
CODES = {"bench": (0, 1, 2)}
"""A bench in which a student failed goes on to its end and says so by 1."""
ENDS = ("identical", "different", "refused", "traceback")
WENT_ON = re.compile(
    r"going on from|going on: \d+ of \d+ shards|[1-9]\d* of \d+ students finished|rows were predicted before"
)
DONE = re.compile(r"finished run|predicted\.csv exists")
"""The refusal of what was done when the command was killed."""
ENDING = (
    "checkpoints/finishing",
    "checkpoints/finished",
    "building.json",
    "results.jsonl",
    f"{PREDICTED}.unfinished/finished.json",
)
"""What stands in a folder when a run, a store or a bench has begun to end (a store is nothing but its end)."""
VARYING = {"README.md", "bench.json", "bench.html", "bench.md"}  # they say times
Run = Callable[[Path], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--writes", type=int, default=50)
    parser.add_argument("--disks", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[*COMMANDS])
    given = parser.parse_args()
    let_down(given.output.resolve())
    torch.set_num_threads(1)
    commands = {name: run for name, run in prepared(given.output.resolve()).items() if name in given.only}
    figures = dict(measured_before("faults"))
    for name, command in commands.items():
        found = measured(name, command, given)
        figures[name] = {**figures.get(name, {}), **{fault: cases for fault, cases in found.items() if cases}}
    rows = [row(name, fault, figures[name][fault]) for name in figures for fault in figures[name]]
    options = f"--kills {given.kills} --writes {given.writes} --disks {given.disks}"
    command = f"python benchmarks/faults.py OUTPUT {options}"
    publish("faults", markdown(rows), figures, command=command, page=FAULTS)


def measured(name: str, command: Run, given: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """One run undisturbed, then all the cases of each fault."""
    folder = given.output.resolve() / name
    shutil.rmtree(folder, ignore_errors=True)
    whole, log = folder / "whole" / "run", folder / "whole.log"  # every run is named so: the metrics tell it
    start = time.perf_counter()
    child = started(command(whole), log, FAIL_BELOW=f"{folder / 'whole'}/")
    ending = await_ending(child, whole)
    assert child.wait() == 0, f"see {log}"
    took, expected = time.perf_counter() - start, content(whole)
    last = min(1.0, took - (ending - start) if ending else took)
    moments = random.Random(f"{given.seed} {name}")
    return {
        "killed": [
            killed(command, folder, k, moments.uniform(0, last if k % 2 else took), expected)
            for k in range(given.kills)
        ],
        "a write fails": [
            failed(command, folder, k, at, expected) for k, at in enumerate(spread(log, given.writes))
        ],
        "disk full": [on_full_disk(command, folder, k, given.disks, expected) for k in range(given.disks)],
    }


def spread(log: Path, count: int) -> list[int]:
    """So many of the writes of an undisturbed run, the first and the last among them, or all."""
    of = max(
        int(line.removeprefix(WRITES)) for text in logs(log) for line in text.splitlines() if WRITES in line
    )
    return sorted({1 + round(k * (of - 1) / max(1, count - 1)) for k in range(count)})


def logs(log: Path) -> list[str]:
    """What a command printed, and the commands that it started."""
    files = [log, *sorted((log.with_suffix("") / "run").rglob("*.log"))]
    return [file.read_text(encoding="utf-8") for file in files]


def row(name: str, fault: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ends = Counter(entry["end"] for entry in found)
    return {
        "command": name,
        "fault": fault,
        "n": len(found),
        "of them in the last second": sum(entry.get("late", False) for entry in found),
        "hit before the end": sum(entry["hit"] for entry in found),
        "went on from a checkpoint or shard": sum(entry["went on"] and entry["hit"] for entry in found),
        **{end: ends[end] for end in ENDS},
        "half-written for a reader": sum(entry["torn"] for entry in found),
    }


def await_ending(child: Child, output: Path) -> float | None:
    """When a command began to write what it ends with; None where it was over before that was seen."""
    while child.poll() is None:
        if any((output / sign).exists() for sign in ENDING):
            return time.perf_counter()
        time.sleep(0.001)
    return None


def killed(command: Run, folder: Path, k: int, moment: float, expected: dict[str, str]) -> dict[str, Any]:
    """One run, killed at a moment and given again; every second one that long after it began to end."""
    output, log = folder / f"kill-{k}" / "run", folder / f"kill-{k}.log"
    child, late = started(command(output), log), bool(k % 2)
    if late:
        await_ending(child, output)
    time.sleep(moment)
    child.kill()
    hit, torn = child.wait() == -signal.SIGKILL, not readable(output)
    found = again(command, output, log, expected)
    return found | {"at": round(moment, 3), "late": late, "hit": hit, "torn": torn}


def failed(command: Run, folder: Path, k: int, at: int, expected: dict[str, str]) -> dict[str, Any]:
    """One run whose ``at``-th write fails, given again."""
    place, log, number = folder / f"write-{k}", folder / f"write-{k}.log", (errno.EIO, errno.ENOSPC)[k % 2]
    output = place / "run"
    fault = {"FAIL_BELOW": f"{place}/", "FAIL_AT": str(at), "FAIL_WITH": str(number)}
    code = started(command(output), log, **fault).wait()
    torn, told = not readable(output), not any("Traceback" in text for text in logs(log))
    found = again(command, output, log, expected)
    end = found["end"] if told and code in CODES.get(folder.name, (0, 2)) else "traceback"
    return found | {"at": at, "errno": errno.errorcode[number], "hit": code != 0, "torn": torn, "end": end}


def on_full_disk(command: Run, folder: Path, k: int, of: int, expected: dict[str, str]) -> dict[str, Any]:
    """One run on a disk with room for a part of what it writes at most, given again on one with room for all."""
    disk, log = folder / f"disk-{k}", folder / f"disk-{k}.log"
    disk.mkdir(parents=True)
    largest = 3 * sum(file.stat().st_size for file in (folder / "whole").rglob("*"))
    kilobytes = max(8, largest * (k + 1) // of // 1024)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)], check=True)
    try:
        code = started(command(disk / "run"), log).wait()
        torn, told = not readable(disk / "run"), not any("Traceback" in text for text in logs(log))
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        found = again(command, disk / "run", log, expected)
        end = found["end"] if told and code in CODES.get(folder.name, (0, 2)) else "traceback"
        return found | {"kilobytes": kilobytes, "hit": code != 0, "torn": torn, "end": end}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def again(command: Run, output: Path, log: Path, expected: dict[str, str]) -> dict[str, Any]:
    """The same command once more: how it ends, and whether it found something to go on with."""
    if started(command(output), log).wait() == 2 and DONE.search(log.read_text(encoding="utf-8")):
        return {"end": "identical" if content(output) == expected else "different", "went on": False}
    said = log.read_text(encoding="utf-8").rpartition(BEGUN)[2]
    if "Traceback" in said:
        return {"end": "traceback", "went on": False}
    if "error:" in said or "FAILED" in said:
        return {"end": "refused", "went on": False}
    same = content(output) == expected
    return {"end": "identical" if same else "different", "went on": bool(WENT_ON.search(said))}


def started(arguments: list[str], log: Path, **environment: str) -> Child:
    cache = str(log.with_suffix("") / "cache")  # a run's own: its store is built anew
    return Child(arguments, log, {"GRADISTILL_CACHE": cache, **environment})


def content(folder: Path) -> dict[str, str]:
    """All names, and checksums of all finished files; of metrics and results without their times."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".log")
    found = {"names": "\n".join(name for name in names if "cache" not in Path(name).parts)}
    for file in finished(folder):
        data = file.read_bytes()
        if file.name == "metrics.json":
            data = timeless(data)
        if file.name == "results.jsonl":
            data = b"".join(sorted(map(timeless, data.splitlines())))
        if file.name == ".gradistill.json":
            mark = json.loads(data)
            mark["files"] = {
                name: c for name, c in mark["files"].items() if name not in VARYING | {"metrics.json"}
            }
            data = json.dumps(mark).encode()
        elsewhere = (
            file.name == "manifest.json" and file.parent != folder
        )  # of a bench: where its teacher stands
        if file.name not in VARYING and not elsewhere:
            found[str(file.relative_to(folder))] = sha256(data).hexdigest()
    return found


def timeless(line: bytes) -> bytes:
    return json.dumps({k: v for k, v in json.loads(line).items() if k != "timing"}).encode()


def finished(folder: Path) -> list[Path]:
    """What stands in a folder as done: neither logs, nor checkpoints, nor a cache, nor drafts."""
    under_way = {"checkpoints", "cache"}
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".log")
    parts = {file: file.relative_to(folder).parts for file in files}
    drafts = {file for file, names in parts.items() if any(name.startswith(".gradistill-") for name in names)}
    return [file for file, names in parts.items() if file not in drafts and not under_way & set(names)]


def readable(folder: Path) -> bool:
    """Whether every finished-looking file of a folder is whole: JSON that parses, weights that open."""
    try:
        for file in finished(folder):
            if file.suffix in (".json", ".jsonl"):
                text = file.read_text(encoding="utf-8")
                for part in text.splitlines() if file.suffix == ".jsonl" else [text]:
                    json.loads(part)
            if file.suffix == ".safetensors":
                with safe_open(file, "pt") as weights:
                    for name in weights.keys():  # noqa: SIM118 (no mapping)
                        weights.get_tensor(name)
        return True
    except Exception:
        return False


def prepared(output: Path) -> dict[str, Run]:
    """Models and rows, and each command for an output folder."""
    os.environ["COLUMNS"] = "200"
    tiny = Tiny.at(output)
    busy = [f"training.arguments.{name}={value}" for name, value in BUSY.items()]
    fast = ["training.batch_size=16", "training.learning_rate=0.002", "training.epochs=2"]
    changes = [part for change in (*busy, *fast) for part in ("--set", change)]
    few = [part for change in (*busy[:2], *fast) for part in ("--set", change)]
    rows = ["--data", str(tiny.data), "--text-columns", "text", "--label-column", "label"]
    plan = {
        "tasks": {"reviews": {"data": str(tiny.data)}}, "methods": ["kd", "adkd"], "seeds": [0], "layers": [2],
        "set": fast, "teacher": {"model": str(tiny.base), "learning_rates": [0.002], "set": fast},
    }  # fmt: skip
    (output / "bench.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    commands: dict[str, Run] = {
        "finetune": lambda at: ["finetune", "--model", str(tiny.base), *rows, *changes, "--output", str(at)],
        "distill": lambda at: [
            "distill", "--teacher", str(tiny.teacher), *rows, "--method", "adkd", "--student-layers", "2", *changes,
            "--output", str(at),
        ],
        "pretrain": lambda at: [
            "pretrain", "--teacher", str(tiny.base), "--texts", str(tiny.data / "train.jsonl"), "--student-layers", "2",
            *few, "--text-columns", "text", "--output", str(at),
        ],
        "signals": lambda at: [
            "signals", "--teacher", str(tiny.teacher), *rows, "--method", "gkd", "--encoding", "float32",
            "--output", str(at),
        ],
        "predict": lambda at: [
            "predict", "--model", str(tiny.teacher), "--data", str(tiny.data / "train.jsonl"),
            "--output", str(at / PREDICTED),
        ],
        "bench": lambda at: ["bench", str(output / "bench.yaml"), "--jobs", "1", "--output", str(at)],
    }  # fmt: skip
    return commands


if __name__ == "__main__":
    main()
