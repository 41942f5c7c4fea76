"""Long commands killed at random moments, and disks that fill: does the same command end as if nothing had been?

    python benchmarks/faults.py OUTPUT [--kills 50] [--only finetune distill pretrain signals] [--disks 12]

Tiny models on the demo corpus, with dropout, a checkpoint every two steps and an evaluation every two. Each command
runs once undisturbed. Then it is killed (SIGKILL) at a moment drawn evenly over that time, and given again; and it runs
on small disks (tmpfs, needs root) that are full after so many kB, is given again once there is room, and must go on.
The end is compared byte for byte: weights, recipe, tokenizer, metrics but for their times, shards and manifests. A
reader looks at the folder at the moment of the kill: what stands there must be whole.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from measuring import FAULTS, markdown, publish
from safetensors import safe_open
from tiny import Tiny

from gradistill.cli import main as gradistill
from gradistill.signals import building

BUSY = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
ENDS = ("identical", "different", "refused", "traceback")
Run = Callable[[Path], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--disks", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=["finetune", "distill", "pretrain", "signals"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    commands = {name: run for name, run in prepared(given.output.resolve()).items() if name in given.only}
    rows, figures = [], {}
    for name, command in commands.items():
        folder = given.output.resolve() / name
        shutil.rmtree(folder, ignore_errors=True)
        start = time.perf_counter()
        whole = folder / "whole" / "run"  # every run has this name: the metrics tell it
        assert started(command(whole), folder / "whole.log").wait() == 0, f"see {folder}/whole.log"
        took, expected = time.perf_counter() - start, content(whole)
        moments = random.Random(f"{given.seed} {name}")
        kills = [killed(command, folder, k, moments.uniform(0, took), expected) for k in range(given.kills)]
        disks = [filled(command, folder, k, given.disks, expected) for k in range(given.disks)]
        figures[name] = {"seconds": round(took, 2), "kills": kills, "disks": disks}
        rows += [row(name, "killed", kills), row(name, "disk full", disks)]
        print(json.dumps(rows[-2:]), flush=True)
    text = f"{given.kills} kills and {given.disks} full disks a command\n\n{markdown(rows)}"
    publish(
        "faults", text, figures,
        command=f"python benchmarks/faults.py OUTPUT --kills {given.kills} --disks {given.disks}", page=FAULTS,
    )  # fmt: skip


def row(name: str, fault: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ends = Counter(entry["end"] for entry in found)
    return {
        "command": name,
        "fault": fault,
        "n": len(found),
        "hit before the end": sum(entry["hit"] for entry in found),
        "went on from a checkpoint or shard": sum(entry["went on"] for entry in found),
        **{end: ends[end] for end in ENDS},
        "half-written for a reader": sum(entry["torn"] for entry in found),
    }


def killed(command: Run, folder: Path, k: int, moment: float, expected: dict[str, str]) -> dict[str, Any]:
    """One run, killed at a moment and given again."""
    output, log = folder / f"kill-{k}" / "run", folder / f"kill-{k}.log"
    child = started(command(output), log)
    time.sleep(moment)
    child.kill()
    hit, torn = child.wait() == -signal.SIGKILL, not readable(output)
    return again(command, output, log, expected) | {"at": round(moment, 3), "hit": hit, "torn": torn}


def filled(command: Run, folder: Path, k: int, of: int, expected: dict[str, str]) -> dict[str, Any]:
    """One run on a disk with room for a part of what it writes at most, given again on one with room for all."""
    disk, log = folder / f"disk-{k}", folder / f"disk-{k}.log"
    disk.mkdir(parents=True)
    largest = 3 * sum(file.stat().st_size for file in (folder / "whole").rglob("*"))
    kilobytes = max(8, largest * (k + 1) // of // 1024)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)], check=True)
    try:
        code = started(command(disk / "run"), log).wait()
        torn, told = not readable(disk / "run"), "Traceback" not in log.read_text(encoding="utf-8")
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        found = again(command, disk / "run", log, expected)
        end = found["end"] if told and code in (0, 2) else "traceback"
        return found | {"kilobytes": kilobytes, "hit": code != 0, "torn": torn, "end": end}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def again(command: Run, output: Path, log: Path, expected: dict[str, str]) -> dict[str, Any]:
    """The same command once more: how it ends, and whether it found something to go on with."""
    if started(command(output), log).wait() == 2 and "finished run" in log.read_text(encoding="utf-8"):
        return {"end": "identical" if content(output) == expected else "different", "went on": False}
    said = log.read_text(encoding="utf-8").rpartition("### ")[2]
    if "Traceback" in said:
        return {"end": "traceback", "went on": False}
    if "error:" in said:
        return {"end": "refused", "went on": False}
    same = content(output) == expected
    return {"end": "identical" if same else "different", "went on": "going on from" in said}


class Child:
    """A process forked from this one, which has all libraries loaded, in a group of its own."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.number = os.fork()
        if self.number == 0:
            os.setsid()
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"### gradistill {' '.join(arguments)}\n")
                stream.flush()
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
            sys.argv = ["gradistill", *arguments]
            os.environ["GRADISTILL_CACHE"] = str(log.with_suffix(""))  # a run's own: its store is built anew
            building.SHARD_BYTES = 1 << 15  # so that these few rows fill some shards
            code = 1
            try:
                gradistill()
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.number, signal.SIGKILL)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])


def started(arguments: list[str], log: Path) -> Child:
    log.parent.mkdir(parents=True, exist_ok=True)
    return Child(arguments, log)


def content(folder: Path) -> dict[str, str]:
    """Checksums of all files but drafts; of metrics without their times."""
    found = {}
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        data = file.read_bytes()
        if file.name == "metrics.json":
            data = json.dumps({k: v for k, v in json.loads(data).items() if k != "timing"}).encode()
        if file.name != "README.md":  # it says the times as well
            found[file.name] = sha256(data).hexdigest()
    return found


def readable(folder: Path) -> bool:
    """Whether every finished-looking file of a folder is whole: JSON that parses, weights that open."""
    try:
        for file in folder.glob("*.json"):
            json.loads(file.read_text(encoding="utf-8"))
        for file in folder.glob("*.safetensors"):
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
    }  # fmt: skip
    return commands


if __name__ == "__main__":
    main()
