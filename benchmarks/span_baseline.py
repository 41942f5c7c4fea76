"""Words with a tag each: span F1 of a teacher and of its students, their loyalties, and the agreement of their maps.

    python benchmarks/span_baseline.py DATA OUTPUT [--seeds 0] [--students finetune kd adkd]

DATA is a folder with train and validation rows of words with tags. The teacher is MiniLM of 6 layers, a student its
3 layers, each trained on all rows; adkd has maps of the teacher's tag of one word a row. Figures are of the validation
rows. ``maps``: the mean cosine of the unit maps of both models, of the teacher's tag of 2 words a row, 200 rows, in
float32; its floor is that of the student under random heads. Finished models are left alone. The lines go to
results/span_baseline.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import markdown, publish

from gradistill import StoreChoice, distill, finetune, load_recipe
from gradistill.attribution.normalization import unit_maps
from gradistill.attribution.word_targets import WordTarget
from gradistill.auditing.model_comparison import FLOOR_SEEDS
from gradistill.batch import Batch
from gradistill.data import Collator, encode, load_splits
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.models.probe import Probe
from gradistill.models.random_head import randomised_head
from gradistill.signals import AttributionScores, Logits, compute_signals

SETTINGS = ["learning_rate=2e-4", "batch_size=32", "epochs=3", "arguments.bf16=true"]
MAPS = {"view": "teacher"}
OBJECTIVES = {"adkd": "attribution_map", "rationale": "rationale"}
WORDS, ROWS, AT_ONCE = 2, 200, 50


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--students", nargs="+", default=["finetune", "kd", "adkd"])
    given = parser.parse_args()
    teacher = given.output / "teacher"
    if not (teacher / "metrics.json").is_file():
        finetune("minilm-l6", str(given.data), teacher, _recipe("finetune", 0))
    found = [{"model": "teacher, 6 layers", "seed": 0, **_quality(teacher)}]
    for seed in given.seeds:
        for method in given.students:
            student = given.output / f"{method}_{seed}"
            if not (student / "metrics.json").is_file():
                recipe = _recipe(method, seed, "student.layers=3")
                where = StoreChoice("online" if method in OBJECTIVES else "auto")  # no store for one student
                distill(str(teacher), str(given.data), student, recipe, signals=where)
            found.append({"model": method, "seed": seed, **_quality(student), **_loyalties(student)})
            found[-1]["maps"] = _agreement(teacher, student, given.data)
            print(found[-1], flush=True)
    publish("span_baseline", _table(found), found, command="python benchmarks/span_baseline.py DATA OUTPUT")


def _recipe(method: str, seed: int, *changes: str) -> Any:
    of_maps = [f"objectives.{OBJECTIVES[method]}.{k}={v}" for k, v in MAPS.items() if method in OBJECTIVES]
    settings = [f"training.{setting}" for setting in (*SETTINGS, f"seed={seed}")]
    return load_recipe(method, changes=[*settings, *of_maps, *changes])


def _record(model: Path) -> dict[str, Any]:
    return json.loads((model / "metrics.json").read_text(encoding="utf-8"))


def _quality(model: Path) -> dict[str, float]:
    return {name: round(value, 3) for name, value in _record(model)["eval"].items()}


def _loyalties(model: Path) -> dict[str, Any]:
    found = _record(model)["loyalty"]
    return {
        name: {key: round(found[name][key], 3) for key in ("value", "low", "high", "floor")}
        for name in ("label", "probability", "span")
    }


def _agreement(teacher: Path, student: Path, data: Path) -> dict[str, float]:
    """The mean cosine of the maps of words, and its floor."""
    tokenizer = load_tokenizer(teacher)
    theirs, _ = load_classifier(teacher, tokens=True)
    ours, _ = load_classifier(student, tokens=True)
    splits = load_splits(str(data))
    rows = splits.rows["validation"].shuffle(seed=0).select(range(ROWS))
    encoded = encode(rows, tokenizer, splits.task, max_length=128).dataset
    collate = Collator(tokenizer)
    batches = [
        Batch.of(collate([encoded[k] for k in range(start, min(start + AT_ONCE, len(encoded)))]))
        for start in range(0, len(encoded), AT_ONCE)
    ]
    scores, logits = AttributionScores(WordTarget("log_odds", "teacher", WORDS)), Logits()
    taught = []
    for k, batch in enumerate(batches):
        values = compute_signals(theirs, Probe.find(theirs), batch, [scores, logits], create_graph=False)
        batches[k] = replace(batch, teacher_labels=values[logits].argmax(-1), token_labels=True)
        taught.append(values[scores])

    def cosine() -> float:
        total = 0.0
        for batch, of_teacher in zip(batches, taught, strict=True):
            own = compute_signals(ours, Probe.find(ours), batch, [scores], create_graph=False)[scores]
            mask = batch.mask.unsqueeze(1)
            alike = (unit_maps(own, mask) * unit_maps(of_teacher, mask)).sum(-1)
            total += float(batch.over_explained(alike, WORDS).sum())
        return total / len(encoded)

    value, floors = cosine(), []
    for seed in FLOOR_SEEDS:
        with randomised_head(ours, seed):
            floors.append(cosine())
    return {"value": round(value, 3), "floor": round(sum(floors) / len(floors), 3)}


def _table(found: list[dict[str, Any]]) -> str:
    def shown(figure: Any) -> str:
        return f"{figure['value']:.3f} ({figure['floor']:.3f})" if figure else ""

    lines = [
        {
            "model": line["model"], "seed": line["seed"], "span F1": line["span_f1"],
            **{name: shown(line.get(name)) for name in ("span", "label", "probability", "maps")},
        }
        for line in found
    ]  # fmt: skip
    return markdown(lines)


if __name__ == "__main__":
    main()
