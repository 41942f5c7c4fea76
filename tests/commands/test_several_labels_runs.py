"""Several labels a row through whole jobs: a teacher, students, an audit, an explanation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from gradistill.commands.audit import audit
from gradistill.commands.audit_choice import AuditChoice
from gradistill.commands.distill import distill
from gradistill.commands.explain import explain
from gradistill.commands.finetune import finetune
from gradistill.data import DataChoice
from gradistill.errors import DataError, GradistillError, TrainingError
from gradistill.models.facts import is_multi_label, thresholds_of
from gradistill.models.loading import load_classifier
from gradistill.recipe import load_recipe
from small import BAD, GOOD, audit_parts

LABELS = ("long", "negative", "positive")


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """A text has the label of each kind of opinion word in it, of both or of none, and ``long`` with many words."""
    found = []
    for k in range(first, first + count):
        words = ["the film was", *["very"] * (k % 4)]
        words += [GOOD[k % 3]] * (k % 2) + [BAD[k % 3]] * (k // 2 % 2) + ["."]
        labels = [name for name, there in zip(LABELS, (k % 4 == 3, k // 2 % 2, k % 2), strict=True) if there]
        found.append({"text": " ".join(words), "labels": labels})
    return found


DATA = {"train": rows(48), "validation": rows(16, 3), "test": rows(8, 7)}


@pytest.fixture(scope="module")
def runs(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    quick = ["training.epochs=6", "training.batch_size=8", "training.learning_rate=0.005"]
    finetune(str(small.base), DATA, folder / "teacher", load_recipe("finetune", changes=quick))
    return folder


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def student(runs: Path, method: str, *changes: str, data: Any = DATA) -> dict[str, Any]:
    quick = ("training.epochs=1", "training.batch_size=16", "student.layers=1", *changes)
    return distill(
        str(runs / "teacher"), data, runs / method, load_recipe(method, changes=quick), overwrite=True
    )


def test_a_teacher_has_its_own_metrics_and_thresholds(runs: Path) -> None:
    found = record(runs / "teacher")
    assert list(found["eval"]) == ["micro_f1", "macro_f1", "average_precision", "exact_match"]
    assert found["eval"]["micro_f1"] > 0.9
    assert found["test"]["micro_f1"] > 0.7
    model, _ = load_classifier(runs / "teacher")
    assert is_multi_label(model)
    assert found["thresholds"] == dict(zip(LABELS, thresholds_of(model).tolist(), strict=True))  # pyright: ignore
    card = (runs / "teacher" / "README.md").read_text(encoding="utf-8")
    assert "average\\_precision" in card or "average_precision" in card


def test_thresholds_may_stay_at_one_half(small: Any, tmp_path: Path) -> None:
    recipe = load_recipe("finetune", changes=["training.epochs=1", "training.thresholds=half"])
    found = finetune(str(small.base), DATA, tmp_path / "half", recipe)
    assert "thresholds" not in found
    assert thresholds_of(load_classifier(tmp_path / "half")[0]) is None


@pytest.mark.parametrize("method", ["coalition", "rationale"])
def test_a_student_is_as_loyal_as_counted(method: str, runs: Path) -> None:
    found = student(runs, method)
    loyalty = found["loyalty"]
    assert {"label", "exact_match", "probability", "response", "saliency"} <= loyalty.keys()
    assert loyalty["exact_match"]["value"] <= loyalty["label"]["value"] <= 1
    assert all(loyalty[name]["floor"] is not None for name in ("label", "exact_match", "probability"))
    assert list(found["eval"]) == list(found["teacher_eval"])
    assert loyalty["prediction"] is None


def test_rows_without_labels_and_changed_copies_learn_from_the_teacher(runs: Path) -> None:
    data = DataChoice(DATA, unlabelled=[{"text": row["text"]} for row in rows(8, 50)])
    found = student(runs, "kd", "training.augment=1", data=data)
    assert found["data"]["augmented"]


@pytest.fixture(scope="module")
def audited(runs: Path) -> dict[str, Any]:
    student(runs, "kd")
    choice = AuditChoice(
        response_rows=6, shapley_rows=4, faithfulness_rows=4, perturbed_rows=4, floor_rows=8, examples=4
    )
    return audit(runs / "teacher", [runs / "kd"], DATA, runs / "audit", choice)


def test_an_audit_has_loyalties_with_floors_and_a_table_of_labels(
    audited: dict[str, Any], runs: Path
) -> None:
    (found,) = audited["students"]
    loyalty = found["figures"]["loyalty"]
    assert {"label", "exact_match", "probability", "response", "shapley", "saliency"} <= loyalty.keys()
    assert "flips" not in loyalty
    assert any("flips are not measured" in warning for warning in audited["warnings"])
    assert {"floor", "gain"} <= loyalty["exact_match"].keys()
    lines = [json.loads(line) for line in (runs / "audit" / "examples.jsonl").read_text().splitlines()]
    table = {row["label"]: row for row in found["labels"]}
    assert list(table) == list(LABELS)
    for name in LABELS:
        assert table[name]["teacher"] == sum(name in line["teacher"]["label"].split(", ") for line in lines)
        assert table[name]["student"] == sum(
            name in line["students"][0]["label"].split(", ") for line in lines
        )
        assert table[name]["gold"] == sum(name in line["gold"].split(", ") for line in lines)
    teacher, student = (
        [name in given.split(", ") for given in labels for name in LABELS]
        for labels in (
            [line["teacher"]["label"] for line in lines],
            [line["students"][0]["label"] for line in lines],
        )
    )
    assert loyalty["kappa"]["value"] == pytest.approx(cohen_kappa_score(teacher, student))
    assert loyalty["exact_match"]["value"] == pytest.approx(
        np.mean([line["teacher"]["label"] == line["students"][0]["label"] for line in lines])
    )
    assert audited["metrics"]["teacher"]["micro_f1"] == pytest.approx(
        record(runs / "teacher")["eval"]["micro_f1"]
    )
    assert {part["label"] for part in found["by_label"]} <= set(LABELS)


def test_rows_without_labels_are_audited_too(runs: Path, tmp_path: Path, audited: dict[str, Any]) -> None:
    bare = {"validation": [{"text": row["text"]} for row in rows(16, 3)]}
    idle = audit_parts()
    found = audit(runs / "teacher", [runs / "kd"], bare, tmp_path / "audit", idle)
    same = [one["students"][0]["figures"]["loyalty"]["label"]["value"] for one in (found, audited)]
    assert same[0] == same[1]
    assert found["metrics"] == {}


def test_an_explanation_of_one_of_several_labels(runs: Path) -> None:
    found = explain(str(runs / "teacher"), ["the film was fine awful ."], label="negative")
    assert found.label == "negative"
    assert found.probabilities is not None
    assert sum(found.probabilities.values()) != pytest.approx(1)
    limits = json.loads((runs / "teacher" / "config.json").read_text())["thresholds"]
    above = [name for (name, p), t in zip(found.probabilities.items(), limits, strict=True) if p > t]
    assert (found.assigned, found.predicted) == (tuple(above), tuple(above))
    strongest = max(found.words, key=lambda word: word.score)
    assert strongest.text == "awful"


def test_models_and_data_of_another_kind_are_refused(runs: Path, small: Any, tmp_path: Path) -> None:
    with pytest.raises(GradistillError, match="one label a row, and the teacher predicts several"):
        audit(runs / "teacher", [small.teachers["three"]], DATA, tmp_path / "audit")
    single = {
        k: [{"text": row["text"], "label": LABELS[n % 3]} for n, row in enumerate(v)] for k, v in DATA.items()
    }
    with pytest.raises(DataError, match="The data have one label a row, and the teacher predicts any number"):
        student(runs, "kd", data=single)
    recipe = load_recipe("finetune", changes=["training.arguments.label_smoothing_factor=0.1"])
    with pytest.raises((GradistillError, TrainingError), match="nor to several labels a row"):
        finetune(str(small.base), DATA, tmp_path / "smooth", recipe)
