"""Paths and objects: every command takes both, gives the same figures, and leaves what it was given as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from commands.wrong_types import write_refusals
from gradistill.commands.audit import audit
from gradistill.commands.distill import distill
from gradistill.commands.explain import explain
from gradistill.commands.finetune import finetune
from gradistill.commands.pretrain import pretrain
from gradistill.commands.store_signals import store_signals
from gradistill.data import DataChoice, Task
from gradistill.errors import DataError, GradistillError, ModelError, RecipeError
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.models.model_source import model_name, on_disk
from gradistill.recipe import load_recipe
from gradistill.store.fingerprint import model_hash
from slow import slow
from small import audit_parts, logged, texts

SHORT = ["training.epochs=1", "training.batch_size=8"]
NO_FAITH = audit_parts(faithfulness_rows=2, perturbed_rows=2)
SPLITS = {"train": texts("two", 20), "validation": texts("two", 10)}
DATASETS = DatasetDict({split: Dataset.from_list(rows) for split, rows in SPLITS.items()})


@pytest.fixture(scope="module")
def loaded(small: Any) -> tuple[Any, Any]:
    teacher = small.teachers["two"]
    return load_classifier(teacher)[0], load_tokenizer(teacher)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No store exists yet, which is when paths were written into one."""
    monkeypatch.setenv("GRADISTILL_CACHE", str(tmp_path / "cache"))


def figures(metrics: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(metrics[key] for key in ("eval", "teacher_eval", "loyalty", "inputs"))


@pytest.mark.usefixtures("empty_cache")
def test_distill_takes_paths_objects_and_loaded_models(
    small: Any, loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    before = model_hash(loaded[0])
    recipe = load_recipe("adkd", changes=SHORT)
    teacher, data = small.teachers["two"], small.tables["two"]
    runs = {
        "text": (str(teacher), str(data)), "paths": (teacher, DataChoice(data)), "objects": (loaded, SPLITS),
        "data sets": (loaded, DataChoice(DATASETS)),
    }  # fmt: skip
    found = {}
    for name, (model, rows) in runs.items():
        found[name] = distill(model, rows, tmp_path / name, recipe)
        json.loads((tmp_path / name / "metrics.json").read_text())
    weights = {(tmp_path / name / "model.safetensors").read_bytes() for name in runs}
    assert len(weights) == 1
    assert all(figures(metrics) == figures(found["text"]) for metrics in found.values())
    assert found["objects"]["task"] == "data"
    assert found["paths"]["task"] == "two"
    assert model_hash(loaded[0]) == before
    assert len(list((tmp_path / "cache").glob("*/manifest.json"))) == 1  # found by content, not by name


def test_finetune_takes_a_loaded_model_and_gives_it_a_head(
    small: Any, loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    recipe = load_recipe("finetune", changes=SHORT)
    scores = {split: texts("score", 10) for split in SPLITS}
    metrics = finetune(loaded, DataChoice(scores, label_column="label"), tmp_path / "run", recipe)
    assert "spearman" in metrics["eval"]
    assert loaded[0].config.num_labels == 2
    assert load_classifier(tmp_path / "run")[0].config.num_labels == 1


@pytest.mark.slow
@pytest.mark.usefixtures("empty_cache")
def test_audit_explain_signals_and_pretrain_take_them_too(
    small: Any, loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    teacher, data = small.teachers["two"], small.tables["two"]
    recipe = load_recipe("kd", changes=SHORT)
    stores = [store_signals(m, d, tmp_path / k, recipe)
              for k, (m, d) in {"paths": (teacher, data), "objects": (loaded, SPLITS)}.items()]  # fmt: skip
    hashes = [json.loads((at / "manifest.json").read_text())["made_for"] for at in stores]
    assert hashes[0] == hashes[1]
    audits = [
        audit(m, [m], d, tmp_path / f"audit {k}", NO_FAITH)
        for k, (m, d) in {"paths": (teacher, data), "objects": (loaded, SPLITS["validation"])}.items()
    ]
    assert audits[0]["students"][0]["figures"] == audits[1]["students"][0]["figures"]
    both = audit(loaded, [loaded, loaded], DATASETS, tmp_path / "both", NO_FAITH)
    assert len({student["name"] for student in both["students"]}) == 2
    text = ["the film was very great ."]
    assert explain(teacher, text).words == explain(loaded, text).words
    pretraining = load_recipe("pretrain", changes=[*SHORT, "student.layers=1"])
    lines = [{"text": f"the film was very {word} ."} for word in ("great", "poor", "dull", "fine")]
    given = [pretrain(m, lines, tmp_path / f"pre {k}", pretraining)["held_out"]
             for k, m in enumerate((teacher, loaded))]  # fmt: skip
    assert given[0] == given[1]


def test_a_run_on_objects_that_was_stopped_goes_on(
    loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradistill.commands import training_run

    recipe = load_recipe("kd", changes=["training.epochs=2", "training.batch_size=8"])
    heard: list[str] = []

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "close_run", stopped)
        with pytest.raises(KeyboardInterrupt):
            distill(loaded, SPLITS, tmp_path / "run", recipe)
    other = {**SPLITS, "train": SPLITS["train"][:-1]}
    with pytest.raises(RecipeError, match="train: "):
        distill(loaded, other, tmp_path / "run", recipe)
    with logged(heard):
        distill(loaded, DATASETS, tmp_path / "run", recipe)
    assert any("checkpoint-" in line for line in heard)


@pytest.mark.slow
def test_wrong_types_get_one_message_that_names_them(small: Any, tmp_path: Path, forked: Any) -> None:
    """In a process of its own: in this one beartype would be faster."""
    folders = (small.teachers["two"], small.tables["two"], tmp_path / "run", tmp_path / "found.json")
    process = forked.Process(target=write_refusals, args=tuple(map(str, folders)))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert len(found) == 7 * 7 + 5 * 2 + 1
    named = {
        "int": "an int", "None": "a NoneType", "bytes": "a bytes", "model": "without its tokenizer",
        "swapped": "Backend, Bert", "single": "a tuple of Bert", "Linear": "a Linear",
    }  # fmt: skip
    for command, about, given, kind, message in found:
        if command == "students":
            assert "put the student into a list" in message
        elif about == "data":
            assert (kind, f"of the type {'int' if given == 'int' else 'NoneType'}" in message) == (
                "DataError",
                True,
            )
        else:
            assert kind == "ModelError"
            assert named[given] in message
            assert "(model, tokenizer)" in message
    assert not (tmp_path / "run").exists()


def test_a_loaded_model_is_refused_as_one_on_disk_is(loaded: tuple[Any, Any], small: Any) -> None:
    base = load_classifier(small.base, new_head=True)[0].base_model
    with pytest.raises(ModelError, match="lacks weights of a Bert"):
        explain((base, loaded[1]), ["a text"])


def test_a_saved_model_goes_away_again(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    with on_disk(loaded) as folder:
        assert (Path(folder) / "model.safetensors").is_file()
    assert not Path(folder).exists()
    with on_disk(tmp_path) as folder:
        assert folder == str(tmp_path)
    assert model_name(loaded)


def test_a_test_split_is_evaluated_at_the_end(small: Any, loaded: tuple[Any, Any], tmp_path: Path) -> None:
    recipe = load_recipe("kd", changes=SHORT)
    wrong = [{**row, "label": {"positive": "negative", "negative": "positive"}[row["label"]]}
             for row in SPLITS["validation"]]  # fmt: skip
    plain = distill(loaded, SPLITS, tmp_path / "plain", recipe)
    tested = distill(loaded, {**SPLITS, "test": wrong}, tmp_path / "tested", recipe)
    assert (plain["test"], plain["teacher_test"]) == (None, None)
    assert tested["eval"] == plain["eval"]  # selection is what it was
    for owner in ("", "teacher_"):
        assert tested[f"{owner}test"]["accuracy"] == pytest.approx(1 - tested[f"{owner}eval"]["accuracy"])
    assert "On the test split" in (tmp_path / "tested" / "README.md").read_text()
    assert "test split" not in (tmp_path / "plain" / "README.md").read_text()


@pytest.mark.parametrize("labels", [None, "", -1])
def test_a_test_split_without_labels_is_left_out_with_a_line(labels: Any, small: Any, tmp_path: Path) -> None:
    heard: list[str] = []
    bare = [{"text": row["text"]} | ({} if labels is None else {"label": labels}) for row in SPLITS["train"]]
    with logged(heard):
        metrics = finetune(
            small.base, DataChoice({**SPLITS, "test": bare}, label_column="label"), tmp_path / "run",
            load_recipe("finetune", changes=SHORT)
        )  # fmt: skip
    assert metrics["test"] is None
    assert "test: 20 rows without labels, which are left out" in "\n".join(heard)


def test_a_broken_row_of_the_test_split_is_refused_before_any_work(small: Any, tmp_path: Path) -> None:
    broken = {**SPLITS, "test": [{"text": "fine", "label": "maybe"}, *SPLITS["validation"]]}
    with pytest.raises(DataError, match="the split 'test', row 1, column 'label': unknown label 'maybe'"):
        finetune(small.base, broken, tmp_path / "run", load_recipe("finetune"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        slow("score", "blank"),
        ("three", "no column"),
        *(slow(kind, "no column") for kind in ("two", "score")),
    ],
)
def test_a_split_without_labels_is_audited(kind: str, labels: str, small: Any, tmp_path: Path) -> None:
    heard: list[str] = []
    teacher = small.teachers[kind]
    rows = [{k: v for k, v in row.items() if k != "label"} for row in texts(kind, 12)]
    if labels == "blank":
        rows = [{**row, "label": None} for row in rows]
    columns = (
        None if kind == "two" else ("text", "other")
    )  # few different words may be labels, which must be settled
    data = DataChoice(rows, text_columns=columns if labels == "no column" else None)
    with logged(heard):
        found = audit(teacher, [teacher], data, tmp_path / "out", NO_FAITH)
    whole = DataChoice(texts(kind, 12), text_columns=columns)
    full = audit(teacher, [teacher], whole, tmp_path / "full", NO_FAITH)
    every, labelled = found["students"][0]["figures"], full["students"][0]["figures"]
    assert "quality" not in every
    assert every == {group: figures for group, figures in labelled.items() if group != "quality"}
    assert "no labels: accuracy and other figures that need them are left out" in "\n".join(heard)
    assert found["data"]["labels"].startswith("none")
    assert "gold" not in (tmp_path / "out" / "audit.md").read_text()
    examples = [json.loads(line) for line in (tmp_path / "out" / "examples.jsonl").read_text().splitlines()]
    assert {example["gold"] for example in examples} == {None}


def test_a_label_column_that_was_named_must_be_there(small: Any, tmp_path: Path) -> None:
    rows = [{"text": row["text"]} for row in texts("two", 4)]
    with pytest.raises(GradistillError, match="gold"):
        audit(
            small.teachers["two"],
            [small.teachers["two"]],
            DataChoice(rows, label_column="gold"),
            tmp_path / "o",
        )


@pytest.mark.parametrize("words", [("positive", "negative"), ("good", "bad")])
def test_labels_by_an_unusual_name_are_not_read_as_texts(
    words: tuple[str, str], small: Any, tmp_path: Path
) -> None:
    rows = [{"text": row["text"], "opinion": words[k % 2]} for k, row in enumerate(texts("two", 12))]
    tasks = [None, Task("mine", ("text",), ("negative", "positive"), ("accuracy",), "accuracy")]
    for task in tasks if words[0] == "positive" else tasks[:1]:
        with pytest.raises(DataError, match="'opinion' may be the label"):
            audit(
                small.teachers["two"],
                [small.teachers["two"]],
                DataChoice(rows, task),
                tmp_path / "out",
            )
    assert not (tmp_path / "out").exists()
