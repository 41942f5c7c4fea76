"""Which figures of an audit separate students that learnt the teacher's reasons from students that cannot have.

    python benchmarks/separation.py measure MODELS DATA TASK ...     (a line a student into results/separation.jsonl)
    python benchmarks/separation.py show                             (docs/yardstick.md, docs/results/yardstick.md)

MODELS is what separation_models.py wrote. The finished students of a task are audited some at a time, and a teacher
of another seed (``second``) beside them as one of them: its figures are the reference. After the audits comes the
same response figure in other forms: which words stay, how many copies, masks or other words, log-odds or probability.
Students with a line are left out, so ``measure`` can be repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from measuring import PAGE, RESULTS, YARDSTICK, json_lines, markdown, publish
from scipy.special import softmax
from scipy.stats import spearmanr
from separation_models import BITS, METHODS

from gradistill import AuditChoice, DataChoice, audit, load_classifier, load_tokenizer
from gradistill.auditing.predictor import ClassifierPredictor, predict_by_row
from gradistill.auditing.response import effect_agreement, log_odds
from gradistill.data import read_splits
from gradistill.data.changed_copies import (
    COARSE,
    FINE,
    draw_coalitions,
    draw_words,
    masked_copies,
    substituted_copies,
)  # fmt: skip
from gradistill.data.raw_words import count_words, word_pool

LINES = RESULTS / "separation.jsonl"
OVERVIEW, METHOD_PAGE = PAGE.with_name("yardstick.md"), PAGE.with_name("coalition_matching.md")
COMPARED = (
    ("metric", ()),
    ("labels (stsb: r of the predictions)", ("label", "prediction")),
    ("response", ("response",)),
    ("Shapley", ("shapley",)),
    ("gradient × input", ("saliency",)),
)
CHOICE = AuditChoice(max_rows=300, response_rows=60, shapley_rows=30, faithfulness_rows=0, perturbed_rows=0)
VARIANT_ROWS, MOST_COPIES, AT_ONCE = 40, 64, 4
UNTRAINED, UPPER = ("random", "random_head", "cut"), ("longer", "bits_8")
FIVE = "layers_5"
HEADLINE = ("response", "response_masked", "flips", "flips_masked", "kept", "shapley", "shapley_sign", "saliency",
            "top_k_overlap", "cosine", "label", "probability", "prediction")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("models", type=Path)
    measuring.add_argument("data", type=Path)
    measuring.add_argument("tasks", nargs="+")
    measuring.set_defaults(run=lambda given: measure(given.models, given.data, given.tasks))
    showing = commands.add_parser("show")
    showing.set_defaults(run=lambda given: show(lines()))
    given = parser.parse_args()
    given.run(given)


def lines() -> list[dict[str, Any]]:
    return json_lines(LINES)


def add_line(line: Mapping[str, Any]) -> None:
    with LINES.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def measure(models: Path, data: Path, tasks: Sequence[str]) -> None:
    """Audits of all tasks, some students at a time and the most informative first; then the other forms."""
    for task in tasks:
        teacher, choice = models / task / "teacher", data_of(data, task)
        new = [name for name in _made(models, task) if name not in _of(lines(), task)]
        for start in range(0, len(new), AT_ONCE):
            folders = [str(models / task / name) for name in new[start : start + AT_ONCE]]
            found = audit(str(teacher), folders, choice, models / task / "audit", CHOICE, overwrite=True)
            add_audit(task, found)
    for task in tasks:
        teacher, choice = models / task / "teacher", data_of(data, task)
        known = {line["student"] for line in lines() if line["task"] == task and "variants" in line}
        if new := [name for name in _made(models, task) if name not in known]:
            for name, values in variants_of(teacher, [models / task / name for name in new], choice):
                add_line({"task": task, "student": name, "variants": values})


def _made(models: Path, task: str) -> list[str]:
    """The finished students of a task."""
    there = {file.parent.name for file in (models / task).glob("*/model.safetensors")} - {"teacher"}
    first = [
        "random_head",
        "kd",
        "rationale",
        "coalition",
        "cut",
        "bits_8",
        "coalition_rationale",
        "random",
        "minilm",
    ]
    return [*filter(there.__contains__, first), *sorted(there - {*first})]


def add_audit(task: str, found: Mapping[str, Any]) -> None:
    """A line for each student of an audit."""
    for student in found["students"]:
        metrics = {owner: found["metrics"].get(owner) for owner in ("teacher", student["name"])}
        add_line({"task": task, "student": student["name"], "metrics": metrics[student["name"]],
                  "teacher": metrics["teacher"], "figures": student["figures"]})  # fmt: skip


def data_of(data: Path, task: str) -> DataChoice:
    if task == "banking77":
        return DataChoice(str(data / task), label_column="category", text_columns=("text",))
    return DataChoice(str(data / task), task=task)


def variants_of(
    teacher: Path, students: Sequence[Path], choice: DataChoice
) -> Iterator[tuple[str, dict[str, float]]]:
    """For each student the response figure under each name of ``_designs``, number of copies and target."""
    splits = read_splits(choice, ("validation",))
    rows = splits.rows["validation"].shuffle(seed=0).select(range(VARIANT_ROWS))
    texts = list(zip(*(rows[name][:] for name in splits.task.text_columns), strict=True))
    pool = word_pool(texts)
    tokenizer = load_tokenizer(str(teacher))

    def logits(folder: Path) -> dict[str, np.ndarray]:
        predictor = ClassifierPredictor(load_classifier(str(folder))[0], tokenizer)
        found = {}
        for design, kept in _designs([count_words(row) for row in texts]).items():
            for form in ("words", "masks"):
                own = kept if (design, form) == ("coarse", "words") else [each[:16] for each in kept]

                def copies(row: int, of_row: np.ndarray, form: str = form) -> Any:
                    if form == "masks":
                        return masked_copies(texts[row], of_row)
                    return substituted_copies(texts[row], of_row, draw_words(pool, of_row.shape, 0, row))  # pyright: ignore

                by_row = predict_by_row(predictor, dict(enumerate(own)), copies)
                found[f"{design} {form}"] = np.stack([by_row[row][0] for row in range(len(texts))])
        return found

    reference = logits(teacher)
    for folder in students:
        yield folder.name, _responses(logits(folder), reference)


def _designs(words: Sequence[int]) -> dict[str, list[np.ndarray]]:
    """Which words stay: U(.1, .9), U(.5, .95), and sizes of the Shapley kernel."""
    return {
        "coarse": draw_coalitions(words, copies=MOST_COPIES, keep=COARSE),
        "fine": draw_coalitions(words, copies=16, keep=FINE),
        "kernel": [_kernel(count, row) for row, count in enumerate(words)],
    }


def _kernel(words: int, row: int, copies: int = 16) -> np.ndarray:
    generator = np.random.default_rng([0, row, 2])
    if words < 2:
        return np.zeros((copies, words), dtype=bool)
    sizes = np.arange(1, words)
    weights = 1 / (sizes * (words - sizes))
    drawn = generator.choice(sizes, size=copies, p=weights / weights.sum())
    return np.stack([generator.permutation(words) < size for size in drawn])


def _responses(student: Mapping[str, np.ndarray], teacher: Mapping[str, np.ndarray]) -> dict[str, float]:
    found = {}
    for name, theirs in teacher.items():
        ours, labels = student[name], theirs[:, 0].argmax(-1)
        for copies in (8, 16, 64) if name == "coarse words" else (16,):
            some = [z[:, : copies + 1] for z in (ours, theirs)]
            a, b = (log_odds(z, labels) for z in some)
            found[f"{name} {copies}"] = _mean_agreement(a, b)
            if name == "coarse words" and copies == 16 and theirs.shape[-1] > 1:
                p, q = (
                    np.take_along_axis(softmax(z, axis=-1), labels[:, None, None], axis=-1)[..., 0]
                    for z in some
                )
                found[f"{name} {copies} probability"] = _mean_agreement(p, q)
    return found


def _mean_agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.nanmean(effect_agreement(ours[:, 1:] - ours[:, :1], theirs[:, 1:] - theirs[:, :1])))


def show(found: Sequence[Mapping[str, Any]]) -> None:
    """The tables of both pages of the yardstick, and one of docs/coalition_matching.md."""
    tasks = list(dict.fromkeys(line["task"] for line in found))
    variants = variant_ranks(found, tasks)
    parts = {
        "separation": "\n\n".join(_models_table(task, _of(found, task)) for task in tasks),
        "separation_fitness": markdown(fitness(found, tasks)),
        **({"separation_variants": markdown(variants)} if variants else {}),
        "separation_ranks": markdown(figure_ranks(found, tasks)),
    }
    command = "python benchmarks/separation.py show"
    for name, text in parts.items():
        page = OVERVIEW if name == "separation_fitness" else YARDSTICK
        publish(name, text, _summary(found, name), command=command, page=page)
    tables = "\n\n".join(_method_table(found, tasks, title, name) for title, name in COMPARED)
    publish("separation_methods", tables, _summary(found, "methods"), command=command, page=METHOD_PAGE)


def _method_table(
    found: Sequence[Mapping[str, Any]], tasks: Sequence[str], title: str, figure: tuple[str, ...]
) -> str:
    """A figure of each method by task, with the mean over the tasks that all these methods have."""
    lines = {task: _of(found, task) for task in tasks}
    students = [name for name in (*METHODS, "second") if any(name in own for own in lines.values())]
    common = [task for task in tasks if all(name in lines[task] for name in students)]
    without = ", ".join(task for task in tasks if task not in common)
    mean_of = f"mean without {without}" if without else "mean"
    rows = []
    for name in students:
        values = {task: _value(lines[task][name], figure) for task in tasks if name in lines[task]}
        mean = f"{np.mean([values[task] for task in common]):.3f}" if common else "–"
        shown = {task: f"{values[task]:.3f}" if task in values else "–" for task in tasks}
        rows.append({title: "second teacher" if name == "second" else f"`{name}`", **shown, mean_of: mean})
    return markdown(rows)


def _value(line: Mapping[str, Any], figures: tuple[str, ...]) -> float:
    """The first of the figures that the line has; without figures the task's metric."""
    if not figures:
        return float(next(iter(line["metrics"].values())))
    return float(next(entry["value"] for name in figures if (entry := _figure(line, name))))


def _summary(found: Sequence[Mapping[str, Any]], name: str) -> Any:
    """The raw lines stand in separation.jsonl; only how many there are is written beside each table."""
    return {"lines": len(found), "of": name}


def _of(found: Sequence[Mapping[str, Any]], task: str) -> dict[str, Mapping[str, Any]]:
    return {line["student"]: line for line in found if line["task"] == task and "figures" in line}


def _figure(line: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    for group in ("loyalty", "agreement"):
        entry = line["figures"].get(group, {}).get(name)
        if entry and entry.get("value") is not None:
            return entry
    return None


COLUMNS = (
    "label",
    "probability",
    "prediction",
    "response",
    "response_masked",
    "flips",
    "kept",
    "shapley",
    "saliency",
)


def _models_table(task: str, lines: Mapping[str, Mapping[str, Any]]) -> str:
    order = [
        "random",
        "random_head",
        "cut",
        *(f"bits_{bits}" for bits in reversed(BITS[1:])),
        *METHODS,
        "second",
        FIVE,
        *UPPER,
    ]
    named = [*filter(lines.__contains__, order), *(name for name in lines if name not in order)]
    shown = [c for c in COLUMNS if any(_figure(lines[name], c) for name in named)]
    rows = []
    for name in named:
        metrics = lines[name]["metrics"] or {}
        first = next(iter(metrics), None)
        rows.append({
            task: f"`{name}`", first or "metric": f"{metrics[first]:.3f}" if first else "–",
            **{c: _cell(_figure(lines[name], c)) for c in shown},
        })  # fmt: skip
    return markdown(rows)


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "–"
    between = "" if entry.get("low") is None else f" ({entry['low']:.2f} to {entry['high']:.2f})"
    floor = "" if entry.get("floor") is None else f", floor {entry['floor']:.2f}"
    return f"{entry['value']:.2f}{between}{floor}"


def fitness(found: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[dict[str, str]]:
    """For each figure on how many tasks it passes each test of a headline."""
    rows = []
    for name in HEADLINE:
        passed: dict[str, list[bool]] = {}
        for task in tasks:
            entries = {k: e for k, line in _of(found, task).items() if (e := _figure(line, name))}
            low = [entries[name] for name in UNTRAINED if name in entries]
            high = [entries[name] for name in entries if _is_trained(name)]
            if not low or not high:
                continue
            tests = {
                "a random head under .25": entries.get("random_head", {}).get("value", 0) < 0.25,
                "untrained apart from trained": max(_end(e, "high") for e in low)
                < min(_end(e, "low") for e in high),
                "8 bits and 50 more steps over .9": all(
                    entries[k]["value"] > 0.9 for k in UPPER if k in entries
                ),
                "bits in order": _in_order(
                    [entries[f"bits_{b}"]["value"] for b in BITS if f"bits_{b}" in entries]
                ),
            }
            if FIVE in entries:
                tests["5 layers over .9"] = entries[FIVE]["value"] > 0.9
            if "second" in entries:
                tests["second teacher apart from untrained"] = max(_end(e, "high") for e in low) < _end(
                    entries["second"], "low"
                )
            for test, result in tests.items():
                passed.setdefault(test, []).append(result)
        if passed:
            rows.append({"figure": name} | {test: f"{sum(of)} of {len(of)}" for test, of in passed.items()})
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name, "–") for name in names} for row in rows]


def _is_trained(student: str) -> bool:
    """Whether a method trained it; those of earlier runs saw all rows."""
    return student.removesuffix("_all_rows") in METHODS


def _end(entry: Mapping[str, Any], name: str) -> float:
    return entry["value"] if entry.get(name) is None else entry[name]


def _in_order(values: Sequence[float]) -> bool:
    return all(a >= b - 0.02 for a, b in pairwise(values))


def variant_ranks(found: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[dict[str, str]]:
    """Rank correlation over the students of a task of each variant with the headline, and the range of its values."""
    names = list(dict.fromkeys(name for line in found for name in line.get("variants", ())))
    rows = []
    for name in names:
        ranks, cut, trained = [], [], []
        for task in tasks:
            lines = [line for line in found if line["task"] == task and name in line.get("variants", {})]
            if len(lines) > 3:
                pair = [[line["variants"][n] for line in lines] for n in ("coarse words 16", name)]
                ranks.append(float(spearmanr(*pair)[0]))
                cut += [line["variants"][name] for line in lines if line["student"] == "random_head"]
                trained += [line["variants"][name] for line in lines if _is_trained(line["student"])]
        if ranks:
            rows.append({
                "words that stay, form, copies, target": name,
                "rank correlation with the headline: mean, lowest": f"{np.mean(ranks):.3f}, {min(ranks):.3f}",
                "random head": _range(cut), "trained students": _range(trained),
            })  # fmt: skip
    return rows


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}" if values else "–"


def figure_ranks(found: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[dict[str, str]]:
    """Rank correlations of the figures over the students of each task, the mean over tasks."""
    pairs: dict[tuple[str, str], list[float]] = {}
    for task in tasks:
        lines = list(_of(found, task).values())
        for a, b in combinations(HEADLINE, 2):
            both = [
                (x["value"], y["value"])
                for line in lines
                if (x := _figure(line, a)) and (y := _figure(line, b))
            ]
            if len(both) > 5:
                pairs.setdefault((a, b), []).append(float(spearmanr(*zip(*both, strict=True))[0]))
    rows = []
    for a in HEADLINE[:-1]:
        own = {b: f"{np.mean(pairs[a, b]):.2f}" if (a, b) in pairs else "" for b in HEADLINE[1:]}
        rows.append({"": a, **own})
    return rows


if __name__ == "__main__":
    main()
