"""Bad inputs over all commands: does anything end in a traceback, hang, or touch a file that it must not touch?

    python benchmarks/bad_inputs.py [--cases 2000] [--seed 0] [--workers 2] [--only 17]

Each case starts from a command line that works (tiny models, a few rows), spoils one to three things (data, model
files, recipes, options, training arguments, the output folder, the environment) and runs the command in a process of
its own. A case fails if it

- prints a traceback, or ends by a signal;
- runs longer than the limit;
- ends with an exit code other than 0 (done) or 2 (refused); 1 is right for ``audit --fail-under`` and for a bench with
  a student that failed;
- refuses (exit 2) without one message that begins with ``error:`` or ``Usage:``, or leaves anything behind;
- changes a file outside its output folder and its cache;
- sends a control sequence to the terminal.

``--only K`` runs case K alone and shows what it prints. Results go to ``results/bad_inputs.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
import yaml

LIMIT = 120.0
"""Seconds for one case; a good one takes two."""

RESULTS = Path(__file__).parent / "results" / "bad_inputs.json"

HOSTILE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What no terminal may get; carriage returns are those of progress bars."""

TEXTS = (
    "", " ", "nan", "NULL", "0", "-1", "1e999", "true", "[1, 1, 0]", "['billing', 'urgent']",
    "{}", "=1+1", "a\x00b", "\x1b[2J\x1b]0;title\x07", "\u202eright to left", "x" * 100_000,
    "emoji 👨‍👩‍👧", "\ud83d", "line\nbreak", "tab\tcell", "quote \" inside", "semi;colon",
    "ünïcödé", "日本語のテキスト", "\ufeffbom", "[MASK] [SEP] [CLS]", "<script>", "%s {0}",
)  # fmt: skip
VALUES = (
    "", "0", "-1", "1", "3", "99999999999", "4294967296", "1e-9", "1e9", "nan", "inf", "-inf",
    "null", "true", "false", "yes", "[]", "[1,2]", "{}", "{a: 1}", "a", "kd", "sst2",
    "./nowhere", "/dev/null", "~", "..", "\u202e", "a,b", "a=b", "x" * 300, "é", "1,2,3",
    "uniform", "auto", "online", "[", "'", "&a", "*a", "!!python/object:os.system x",
)  # fmt: skip
OPTIONS = """
--teacher --student --model --data --output --method --task --student-layers --layer-map --recipe --set
--epochs --seed --max-train-rows --settings --label-column --text-columns --unlabelled --signals --encoding
--verify --texts --attribution --fail-under --label --steps --split --max-rows --rationale --challenge
--watch --examples --max-length --baseline --kind --validation-share --positive --label-map --search
--maximize --minutes --trials --device-map --augment
"""

PLACES = """
training.epochs training.seed training.max_length training.batch_size training.learning_rate
training.max_train_rows training.augment training.checkpoint_minutes student.layers student.width student.layer_map
student.embeddings student.dropout student.checkpoint compute.trim_last_block objectives training
training.arguments method x
"""


@dataclass
class Case:
    """One command line in a folder of its own; ``done`` names what was spoiled."""

    folder: Path
    rng: random.Random
    command: str = ""
    options: list[tuple[str, str]] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    @property
    def line(self) -> list[str]:
        typed = [part for option in self.options for part in option if part is not None]
        return [*self.command.split(), *typed, *self.loose]

    def value(self, option: str) -> str | None:
        return next((value for name, value in self.options if name == option), None)

    def put(self, option: str, value: str) -> None:
        self.options = [(n, v) for n, v in self.options if n != option or n == "--set"] + [(option, value)]

    def path(self, *names: str) -> Path:
        return self.folder.joinpath(*names)


def world(folder: Path) -> None:
    """What the good command lines name: models, data, a store, a recipe and a bench."""
    from gradistill.commands.store_signals import store_signals
    from gradistill.recipe import load_recipe
    from small import Small

    made = Small(folder / "made")
    for name, source in {
        "base": made.base,
        "teacher": made.teachers["two"],
        "data": made.tables["two"],
    }.items():
        shutil.copytree(source, folder / name)
    made.distilled("kd", "two", folder / "student", "training.epochs=1")
    store_signals(str(folder / "teacher"), made.choice("two"), folder / "store", load_recipe("kd"))
    (folder / "recipe.yaml").write_text("base: kd\ntraining: {epochs: 1, batch_size: 8}\n", encoding="utf-8")
    bench = {
        "data": ".", "tasks": {"data": {"train_rows": 8}}, "methods": ["kd", "finetune"], "seeds": [0], "layers": [1],
        "teacher": {"model": "base", "learning_rates": [0.01], "set": ["training.epochs=1"]},
        "set": ["training.epochs=1"],
    }  # fmt: skip
    (folder / "bench.yaml").write_text(yaml.safe_dump(bench), encoding="utf-8")
    shutil.rmtree(folder / "made")


def good(case: Case) -> None:
    at, columns = case.path, [("--label-column", "label"), ("--text-columns", "text")]
    teacher, data, output = (
        ("--teacher", str(at("teacher"))),
        ("--data", str(at("data"))),
        ("--output", str(at("out"))),
    )
    short = [("--epochs", "1"), ("--set", "training.batch_size=8")]
    lines: dict[str, tuple[list[tuple[str, str]], list[str]]] = {
        "finetune": ([("--model", str(at("base"))), data, output, *columns, *short], []),
        "distill": ([teacher, data, output, ("--method", case.rng.choice(["kd", "adkd", "gkd", "pkd", "ckd"])),
                     ("--student-layers", "1"), *columns, *short], []),
        "pretrain": ([teacher, ("--texts", str(at("data"))), output, ("--student-layers", "1"), *short], []),
        "signals": ([teacher, data, output, ("--method", "kd"), *columns], []),
        "signals show": ([], [str(at("store"))]),
        "audit": ([teacher, ("--student", str(at("student"))), data, output, *columns, ("--perturbed-rows", "2"),
                   ("--faithfulness-rows", "2")], []),
        "explain": ([("--model", str(at("teacher")))], ["the film was fine ."]),
        "bench": ([output], [str(at("bench.yaml"))]),
        "tune": ([teacher, data, output, ("--method", "kd"), ("--trials", "1"), ("--student-layers", "1"), *columns,
                  *short], []),
        "methods": ([], []),
        "tasks": ([], []),
    }  # fmt: skip
    weights = [4, 6, 2, 3, 2, 4, 3, 1, 1, 0.3, 0.3]
    case.command = case.rng.choices(list(lines), weights)[0]
    case.options, case.loose = (list(part) for part in lines[case.command])


def spoil_option(case: Case) -> None:
    how = case.rng.choice(["value", "value", "more", "drop", "twice", "unknown", "loose"])
    option = case.rng.choice(OPTIONS.split())
    if how == "value" and case.options:
        name, _ = case.rng.choice(case.options)
        case.put(name, case.rng.choice(VALUES))
    elif how == "drop" and case.options:
        case.options.remove(case.rng.choice(case.options))
    elif how == "twice" and case.options:
        case.options.append(case.rng.choice(case.options))
    elif how == "unknown":
        case.options.append(
            (f"--{case.rng.choice(['colour', 'teach', 'no-data', 'x'])}", case.rng.choice(VALUES))
        )
    elif how == "loose":
        case.loose.append(case.rng.choice(VALUES))
    else:
        case.options.append((option, case.rng.choice(VALUES)))


def spoil_setting(case: Case) -> None:
    from gradistill.objectives import all_objectives

    places = PLACES.split()
    for name, kind in all_objectives().items():
        places += [
            f"objectives.{name}.{key}"
            for key in (*kind.__dataclass_fields__, "weight", "every", "share", "start")
        ]
    case.options.append(("--set", f"{case.rng.choice(places)}={case.rng.choice(VALUES)}"))


def spoil_argument(case: Case) -> None:
    from transformers import TrainingArguments

    name = case.rng.choice(sorted(TrainingArguments.__dataclass_fields__))
    values = [
        *VALUES,
        "true",
        "false",
        "no",
        "steps",
        "epoch",
        "eval_loss",
        "adafactor",
        "cosine",
        "wandb",
        "0.5",
        "2",
        "[labels]",
    ]
    case.options.append(("--set", f"training.arguments.{name}={case.rng.choice(values)}"))


def _rows(file: Path) -> tuple[list[str], list[list[str]]]:
    with file.open(encoding="utf-8", newline="") as stream:
        header, *rows = list(csv.reader(stream))
    return header, rows


def spoil_cells(case: Case) -> None:
    file = case.path("data", case.rng.choice(["train.csv", "validation.csv"]))
    if not file.is_file():
        return
    header, rows = _rows(file)
    rng = case.rng
    at, values = rng.randrange(len(header)), rng.sample(TEXTS, 2)
    odd = rng.choice([*TEXTS[:20], *header, "label_text", "id"])
    for row in rng.sample(rows, min(len(rows), rng.choice([0, 0, 1, 4]))):
        row[at] = rng.choice(TEXTS)
    header, rows = rng.choice([
        (header, rows),
        ([*header[:at], odd, *header[at + 1 :]], rows),
        (header[:at] + header[at + 1 :], [row[:at] + row[at + 1 :] for row in rows]),
        (header, rows[: rng.choice([0, 1, 2])]),
        (header, [[row[0], rng.choice(values)] for row in rows]),
        ([*header, "label_text"], [[*row, f"class {row[-1]}"] for row in rows]),
        (["review_id", *header], [[f"R{k:04}", *row] for k, row in enumerate(rows)]),
        (header, rows[:1] * len(rows)),
    ])  # fmt: skip
    if rng.random() < 0.3:  # let the command infer the columns
        case.options = [(n, v) for n, v in case.options if n not in ("--label-column", "--text-columns")]
    with file.open("w", encoding="utf-8", errors="surrogatepass", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def damaged(rng: random.Random, content: bytes) -> bytes:
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(content))
        new = rng.choice(
            [b"", b"\0", b'"', b"\n", b",", b"\xff\xfe", b"\xed\xa0\x80", b"{", rng.randbytes(8)]
        )
        content = content[:at] + new + content[at + rng.randint(0, 40) :]
    return content


def spoil_file(case: Case) -> None:
    """The bytes, the kind or the place of a data file."""
    rng = case.rng
    file = case.path("data", rng.choice(["train.csv", "validation.csv"]))
    if not file.is_file():
        return
    content = file.read_bytes()
    file.unlink()
    ways: list[Callable[[], object]] = [
        lambda: None,
        lambda: file.write_bytes(damaged(rng, content)),
        lambda: file.write_bytes(b""),
        file.mkdir,
        lambda: os.mkfifo(file),
        lambda: file.symlink_to(file),
        lambda: file.symlink_to(rng.choice(["/dev/zero", "/dev/null", "/dev/urandom"])),
        lambda: file.write_text(content.decode("utf-8", "replace"), encoding="utf-16"),
        lambda: file.with_name(f"{file.name}.gz").write_bytes(content),
        lambda: [file.write_bytes(content), file.with_suffix(".jsonl").write_text('{"text": "a"}\n')],
        lambda: file.with_suffix(".parquet").write_bytes(content),
        lambda: file.with_suffix(".json").write_bytes(content),
    ]
    rng.choice(ways)()


def _changed(rng: random.Random, tree: Any) -> Any:
    if isinstance(tree, dict) and tree and rng.random() < 0.7:
        key = rng.choice(sorted(tree, key=str))
        if rng.random() < 0.2:
            return {k: v for k, v in tree.items() if k != key}
        return {**tree, key: _changed(rng, tree[key])}
    return rng.choice(
        [None, True, -1, 0, 10**12, 1.5, "x", [], {}, [1, "a"], {"a": {"b": 1}}, "\x1b[31m", "nan"]
    )


def spoil_model(case: Case) -> None:
    rng = case.rng
    folder = case.path(rng.choice(["base", "teacher", "student"]))
    file = rng.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    how = rng.choice(["gone", "damaged", "value", "index", "pickle", "nan", "adapter"])
    if how == "value" and file.suffix == ".json":
        try:
            tree = _changed(rng, json.loads(file.read_text(encoding="utf-8")))
        except ValueError:
            return
        file.write_text(json.dumps(tree), encoding="utf-8")
    elif how == "index":
        (folder / "model.safetensors").rename(folder / "weights.bin")
        index = {"weight_map": {"a": rng.choice(["weights.bin", "../other/x.safetensors", "/etc/passwd"])}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    elif how == "pickle":
        (folder / "model.safetensors").unlink(missing_ok=True)
        torch.save({"a": torch.ones(1)}, folder / "pytorch_model.bin")
    elif how == "nan":
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        name = rng.choice(sorted(weights))
        weights[name] = torch.full_like(weights[name], float("nan"))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    elif how == "adapter":
        (folder / "config.json").unlink(missing_ok=True)
        (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    elif how == "gone":
        file.unlink()
    else:
        file.write_bytes(damaged(rng, file.read_bytes()))


def spoil_yaml(case: Case) -> None:
    rng = case.rng
    file = case.path("bench.yaml" if case.command == "bench" else "recipe.yaml")
    text = file.read_text(encoding="utf-8")
    how = rng.choice(["value", "damaged", "anchors", "recursive", "twice", "deep", "other"])
    new = {
        "value": lambda: yaml.safe_dump(_changed(rng, yaml.safe_load(text))),
        "anchors": lambda: (
            "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}' if k else 'x'] * 9)}]\n" for k in range(9)) + text
        ),
        "recursive": lambda: "training: &t {arguments: *t}\n",
        "twice": lambda: text + text,
        "deep": lambda: "x: " + "[" * 3000 + "]" * 3000,
        "other": lambda: rng.choice(
            ["", "3", "- 1", "\t", "%YAML 9", "\x00", "a: b: c", "!!python/object:os.system x"]
        ),
    }
    content = damaged(rng, text.encode()) if how == "damaged" else new[how]().encode()
    file.write_bytes(content)
    if case.command != "bench":
        case.options = [(n, v) for n, v in case.options if n != "--method"] + [("--recipe", str(file))]


def spoil_output(case: Case) -> None:
    """The output folder: taken, odd, or one of the inputs."""
    rng, out = case.rng, case.path("out")
    how = rng.choice(
        [
            "file",
            "mine",
            "trainer",
            "recipe",
            "checkpoints",
            "teacher",
            "data",
            "inside",
            "long",
            "odd",
            "link",
            "dot",
        ]
    )
    if how == "file":
        out.write_text("mine", encoding="utf-8")
    elif how in ("mine", "trainer", "recipe", "checkpoints"):
        out.mkdir()
        if how == "trainer":
            (out / "checkpoints" / "checkpoint-500").mkdir(parents=True)
            for name in ("model.safetensors", "README.md", "checkpoints/checkpoint-500/optimizer.pt"):
                (out / name).write_text("mine", encoding="utf-8")
        elif how == "checkpoints":
            (out / "checkpoints").mkdir()
            (out / "notes.txt").write_text("mine", encoding="utf-8")
        else:
            (out / {"mine": "notes.txt", "recipe": "recipe.yaml"}[how]).write_text(
                "base: kd\n", encoding="utf-8"
            )
        if rng.random() < 0.5:
            case.loose.append("--overwrite")
    elif how == "link":
        out.symlink_to(case.path("nowhere") if rng.random() < 0.5 else out)
    else:
        place = {
            "teacher": case.path("teacher"), "data": case.path("data"), "inside": case.path("data", "run"),
            "dot": Path(),
            "long": case.path("n" * 300), "odd": case.path("a\x1b[2J\u202eb"),
        }[how]  # fmt: skip
        case.put("--output", str(place))
        if rng.random() < 0.3:
            case.loose.append("--overwrite")


def spoil_environment(case: Case) -> None:
    how = case.rng.choice(["cache file", "cache loop", "cache long", "ascii", "narrow", "home"])
    cache = case.path("odd-cache")
    if how == "cache file":
        cache.write_text("mine", encoding="utf-8")
    elif how == "cache loop":
        cache.symlink_to(cache)
    case.environment |= {
        "cache file": {"GRADISTILL_CACHE": str(cache)}, "cache loop": {"GRADISTILL_CACHE": str(cache)},
        "cache long": {"GRADISTILL_CACHE": str(case.path("c" * 300))}, "ascii": {"PYTHONIOENCODING": "ascii"},
        "narrow": {"COLUMNS": "12"}, "home": {"HOME": "/nonexistent"},
    }[how]  # fmt: skip


SPOILERS: dict[Callable[[Case], None], float] = {
    spoil_option: 4, spoil_setting: 3, spoil_argument: 4, spoil_cells: 4, spoil_file: 3, spoil_model: 3, spoil_yaml: 2,
    spoil_output: 3, spoil_environment: 1,
}  # fmt: skip


def prepared(number: int, seed: int, source: Path, folder: Path) -> Case:
    shutil.copytree(source, folder, symlinks=True)
    case = Case(folder, random.Random(f"{seed}/{number}"))
    good(case)
    for spoiler in case.rng.choices(list(SPOILERS), list(SPOILERS.values()), k=case.rng.choice([1, 1, 2, 3])):
        case.done.append(spoiler.__name__.removeprefix("spoil_"))
        with suppress(Exception):  # an earlier one may have taken away what this one spoils
            spoiler(case)
    if case.command == "tune" and case.value("--trials") is None:  # it would search for an hour, as it should
        case.put("--trials", "1")
    return case


def contents(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if path.is_dir() else "other"
    return found


def run(case: Case, terminal: Path) -> int:
    """The command in a child of this process, which has the libraries loaded; its exit code, or -1 at the limit."""
    child = os.fork()
    if not child:
        code = 1
        try:
            with terminal.open("wb") as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            encoding = case.environment.get("PYTHONIOENCODING", "utf-8")
            sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115
            os.environ |= {"GRADISTILL_CACHE": str(case.path("cache")), "COLUMNS": "100", **case.environment}
            os.chdir(case.path("work"))
            sys.argv = ["gradistill", *case.line]
            from gradistill.cli import main

            try:
                main()
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    until = monotonic() + LIMIT
    while monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


def faults(case: Case, code: int, printed: str, before: dict[str, str], after: dict[str, str]) -> list[str]:
    found = []
    if "Traceback (most recent call last)" in printed:
        found.append("traceback")
    if code == -1:
        found.append("hang")
    elif code not in (0, 2) and not (code == 1 and (case.value("--fail-under") or case.command == "bench")):
        found.append(f"exit code {code}")
    if code == 2 and not re.search(r"^(error: |Usage: )", printed, re.MULTILINE):
        found.append("no message")
    if HOSTILE.search(printed.replace("\x1b[A", "")):
        found.append("control sequence")
    output = case.value("--output")
    inside = os.path.relpath(
        os.path.realpath(case.path("work", output or "out")), os.path.realpath(case.folder)
    )
    changed = sorted({*before, *after} - {name for name in before if before[name] == after.get(name)})
    default = ("work/runs",) if case.command == "bench" and output is None else ()
    allowed = ("cache", "odd-cache", *(() if code == 2 else (inside, *default)))
    strange = [
        name
        for name in changed
        if not any(name == place or name.startswith(f"{place}/") for place in allowed)
    ]
    kept_outside = all(value == after.get(name) for name, value in before.items() if "mine" in name)
    if strange or not kept_outside:
        found.append(f"files changed: {', '.join(strange[:4])}")
    return found


def one(number: int, seed: int, source: Path, scratch: Path, show: bool = False) -> dict[str, Any]:
    folder, terminal = scratch / f"case-{number}", scratch / f"case-{number}.txt"
    case = prepared(number, seed, source, folder)
    (folder / "work").mkdir(exist_ok=True)
    before, start = contents(folder), monotonic()
    code = run(case, terminal)
    took, printed = monotonic() - start, terminal.read_bytes().decode("utf-8", "replace")
    found = faults(case, code, printed, before, contents(folder))
    if show:
        print(case.line, case.environment, printed, f"exit {code}", found, sep="\n")
    shutil.rmtree(folder, ignore_errors=True)
    terminal.unlink(missing_ok=True)
    return {
        "case": number, "command": case.command, "spoiled": case.done, "code": code, "seconds": round(took, 2),
        "faults": found, **({"line": case.line, "printed": printed[-3000:]} if found else {}),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, default=None)
    given = parser.parse_args()
    import gradistill.cli.app
    import gradistill.commands.audit
    import gradistill.commands.tune  # noqa: F401 (the children have it loaded)

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bad-inputs-") as scratch:
        source = Path(scratch) / "world"
        os.environ["GRADISTILL_CACHE"] = str(Path(scratch) / "cache")
        world(source)
        if given.only is not None:
            one(given.only, given.seed, source, Path(scratch), show=True)
            return
        numbers = range(given.first, given.first + given.cases)
        with ThreadPoolExecutor(given.workers) as pool:
            results = []
            for result in pool.map(lambda k: one(k, given.seed, source, Path(scratch)), numbers):
                results.append(result)
                if result["faults"]:
                    print(
                        f"case {result['case']}: {result['faults']} {' '.join(result['line'])}"[:400],
                        flush=True,
                    )
                if len(results) % 100 == 0:
                    print(f"{len(results)} of {given.cases}", flush=True)
    report(results, given.seed)


def report(results: list[dict[str, Any]], seed: int) -> None:
    codes = Counter(str(result["code"]) for result in results)
    spoiled = Counter(name for result in results for name in result["spoiled"])
    failed = [result for result in results if result["faults"]]
    kinds = Counter(fault.split(":")[0] for result in failed for fault in result["faults"])
    commands = Counter(result["command"] for result in results)
    summary = {
        "command": f"python benchmarks/bad_inputs.py --cases {len(results)} --seed {seed}", "cases": len(results),
        "exit_codes": dict(codes), "commands": dict(commands), "spoiled": dict(spoiled), "faults": dict(kinds),
        "slowest_s": max(result["seconds"] for result in results),
    }  # fmt: skip
    print(json.dumps(summary, indent=1))
    RESULTS.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    details = Path(tempfile.gettempdir()) / "bad_inputs_failed.jsonl"
    details.write_text("".join(json.dumps(result) + "\n" for result in failed), encoding="utf-8")
    print(f"{len(failed)} cases failed; details in {details}")


if __name__ == "__main__":
    main()
