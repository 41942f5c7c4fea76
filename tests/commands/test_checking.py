"""What a run finds wrong before anybody trusts its figures: mixed classes, weak teachers, rows in two splits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.torch import load_file, save_file

from gradistill.commands.audit import audit
from gradistill.commands.data_warnings import unknown_token_warnings
from gradistill.commands.distill import distill
from gradistill.commands.finetune import finetune
from gradistill.commands.store_signals import store_signals
from gradistill.data import DataChoice, load_splits
from gradistill.data.overlap import normalised, overlap
from gradistill.errors import DataError, RecipeError
from gradistill.export.vocabulary import frequent_tokens
from gradistill.recipe import load_recipe
from small import GOOD, WORDS, audit_parts, logged, write_table
from wordpiece import tokenizer

FEW = audit_parts(examples=2)
UNFLIPPED = "flips and kept labels are left out"
WEAK = "WARNING: the teacher is no better than a constant prediction"


def changed(teacher: Path, at: Path, *, order: list[int] | None = None, **names: Any) -> str:
    """A copy of a teacher with its outputs in another order, or under other names."""
    shutil.copytree(teacher, at)
    if order is not None:
        weights = load_file(at / "model.safetensors")
        for key in ("classifier.weight", "classifier.bias"):
            weights[key] = weights[key][order].clone()
        save_file(weights, at / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((at / "config.json").read_text(encoding="utf-8"))
    labels = names.get("labels") or [
        config["id2label"][str(k)] for k in order or range(len(config["id2label"]))
    ]
    config |= {"id2label": dict(enumerate(labels)), "label2id": {label: k for k, label in enumerate(labels)}}
    (at / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(at)


@pytest.fixture(scope="module")
def good(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that is right on every validation row; the shared ones have hardly learnt anything."""
    at = tmp_path_factory.mktemp("good") / "teacher"
    changes = ["training.epochs=25", "training.learning_rate=0.002", "training.batch_size=4"]
    found = finetune(str(small.base), small.choice("two"), at, load_recipe("finetune", changes=changes))
    assert found["eval"]["accuracy"] == 1.0
    return at


def recipe(*changes: str) -> Any:
    return load_recipe("kd", changes=["training.epochs=1", "training.batch_size=8", *changes])


@pytest.mark.slow
def test_a_teacher_that_only_numbers_its_classes_is_refused_and_a_label_map_helps(
    small: Any, good: Path, tmp_path: Path
) -> None:
    """Its head is in another order than the alphabet: matched by place it would be wrong on every row."""
    teacher = changed(good, tmp_path / "t", order=[1, 0], labels=["LABEL_0", "LABEL_1"])
    data = small.choice("two")
    with pytest.raises(DataError, match=r"'LABEL_0' +'negative'\n +'LABEL_1' +'positive'"):
        distill(teacher, data, tmp_path / "run", recipe())
    assert not (tmp_path / "run").exists()
    right = DataChoice(
        data.source, label_column="label", text_columns=("text",),
        label_map={"positive": "LABEL_0", "negative": "LABEL_1"},
    )  # fmt: skip
    printed: list[str] = []
    with logged(printed):
        metrics = distill(teacher, right, tmp_path / "run", recipe())
    assert metrics["teacher_eval"]["accuracy"] == 1.0
    assert metrics["warnings"] == []
    assert not any(WEAK in line for line in printed)
    wrong = DataChoice(
        data.source, label_column="label", text_columns=("text",),
        label_map={"positive": "LABEL_1", "negative": "LABEL_0"},
    )  # fmt: skip
    for job in (
        lambda: distill(teacher, wrong, tmp_path / "wrong", recipe()),
        lambda: store_signals(teacher, wrong, tmp_path / "store", recipe()),
    ):
        printed.clear()
        with logged(printed):
            job()
        assert any(line.startswith(WEAK) for line in printed)
    kept = json.loads((tmp_path / "wrong" / "metrics.json").read_text(encoding="utf-8"))
    assert "accuracy is 0.000" in kept["warnings"][0]
    assert "no better than a constant" in (tmp_path / "wrong" / "README.md").read_text(encoding="utf-8")
    found = audit(teacher, [teacher], wrong, tmp_path / "audit", FEW)
    assert any("accuracy is 0.000" in warning for warning in found["warnings"])
    for page in ("audit.md", "audit.html"):
        assert "no better than a constant" in (tmp_path / "audit" / page).read_text(encoding="utf-8")


def test_fine_tuning_refuses_settings_of_a_student(small: Any, tmp_path: Path) -> None:
    recipe = load_recipe("finetune", changes=["student.layers=1"])
    with pytest.raises(RecipeError, match=r"student\.layers was given, and fine-tuning trains the model"):
        finetune(str(small.base), small.choice("two"), tmp_path / "out", recipe)


@pytest.mark.slow
def test_an_audit_without_flips_gives_the_reason(small: Any, good: Path, tmp_path: Path) -> None:
    """A teacher with the same answer whatever it reads: no change of words turns it."""
    always = Path(changed(good, tmp_path / "always"))
    weights = load_file(always / "model.safetensors")
    weights["classifier.weight"].zero_()
    weights["classifier.bias"].copy_(weights["classifier.bias"].new_tensor([3.0, -3.0]))
    save_file(weights, always / "model.safetensors", metadata={"format": "pt"})
    found = audit(
        str(always), [str(always)], small.choice("two"), tmp_path / "a", replace(FEW, response_rows=8)
    )
    assert "flips" not in found["students"][0]["figures"]["loyalty"]
    assert any(line.startswith(UNFLIPPED) for line in found["warnings"])


def test_a_regression_that_does_not_rise_with_the_scores_is_warned_of(small: Any, tmp_path: Path) -> None:
    teacher = small.teachers["score"]
    negated = tmp_path / "negated"
    shutil.copytree(teacher, negated)
    weights = load_file(negated / "model.safetensors")
    weights = {k: -v if k.startswith("classifier.") else v for k, v in weights.items()}
    save_file(weights, negated / "model.safetensors", metadata={"format": "pt"})
    good = audit(str(teacher), [str(teacher)], small.choice("score"), tmp_path / "a", FEW)
    bad = audit(str(negated), [str(teacher)], small.choice("score"), tmp_path / "b", FEW)
    assert good["metrics"]["teacher"]["spearman"] == pytest.approx(-bad["metrics"]["teacher"]["spearman"])
    weak = ["teacher is no better than a constant" in " ".join(found["warnings"]) for found in (good, bad)]
    assert sorted(weak) == [False, True]


def test_a_student_that_has_learnt_nothing_is_warned_of(small: Any, good: Path, tmp_path: Path) -> None:
    """It gives every label the other's name; its teacher is right on all rows."""
    useless = changed(good, tmp_path / "useless", order=[1, 0], labels=["negative", "positive"])
    found = audit(str(good), [useless], small.choice("two"), tmp_path / "audit", FEW)
    assert found["doubts"] == []
    assert [w for w in found["warnings"] if "constant prediction" in w] == [
        "the student 'useless' is no better than a constant prediction: its accuracy is 0.000, and 'negative' for "
        "every row gives 0.500. Check the labels and the data, or train it for longer"
    ]
    assert found["metrics"]["useless"]["accuracy"] == 0.0
    assert found["constant_metrics"]["accuracy"] == 0.5
    page = (tmp_path / "audit" / "audit.md").read_text(encoding="utf-8")
    assert "| constant prediction | 0.500 |" in page
    for rows, warned in (
        (20, ["the reference, on the 20 rows that it is compared on, is no better"]),
        (19, []),
    ):
        referred = replace(FEW, split="train", floor_rows=rows, reference=str(useless))
        found = audit(str(good), [str(good)], small.choice("two"), tmp_path / f"referred{rows}", referred)
        assert [w.partition(" than")[0] for w in found["warnings"] if "constant prediction" in w] == warned


def test_a_student_with_the_same_labels_in_another_order_is_audited_by_name(
    small: Any, good: Path, tmp_path: Path
) -> None:
    teacher = str(good)
    turned = changed(good, tmp_path / "turned", order=[1, 0])
    found = audit(teacher, [turned], small.choice("two"), tmp_path / "audit", FEW)
    loyalty = found["students"][0]["figures"]["loyalty"]
    assert loyalty["label"]["value"] == 1.0
    assert loyalty["saliency"]["value"] == pytest.approx(1.0)
    other = changed(good, tmp_path / "other", labels=["negative", "neutral"])
    with pytest.raises(DataError, match="teacher: negative, positive\n  .*other: negative, neutral"):
        audit(teacher, [other], small.choice("two"), tmp_path / "second", FEW)
    assert not (tmp_path / "second").exists()


def frauds(folder: Path) -> Path:
    """Seven frauds in thirty rows, with nothing in the text that tells them apart."""
    for split, count in (("train", 30), ("validation", 30)):
        rows = [
            {"text": f"the film was a {GOOD[k % 3]} one", "label": "fraud" if k < 7 else "ok"}
            for k in range(count)
        ]
        write_table(folder / f"{split}.csv", rows)
    return folder


@pytest.mark.parametrize("kind", ["text", "pair", "words"])
def test_texts_that_the_tokenizer_does_not_know_are_warned_of(kind: str) -> None:
    def warnings(word: str) -> list[str]:
        columns: dict[str, Any] = {"text": f"the film {word}", "label": "fine"}
        if kind == "pair":
            columns = {"a": f"the film {word} one", "b": "the film was one", "label": "fine"}
        if kind == "words":
            columns = {"tokens": ["the", "film", word], "tags": ["O", "B-x", "O"]}
        rows = [columns, {**columns, **({} if kind == "words" else {"label": "dull"})}]
        how: Any = {} if kind == "words" else {"text_columns": [*columns][:-1]}
        return [
            *unknown_token_warnings(load_splits({"train": rows}, splits=("train",), **how), tokenizer(WORDS))
        ]

    assert warnings("was") == []
    (found,) = warnings("配送")
    share = {"text": "50%", "pair": "22%", "words": "50%"}[kind]
    assert f"has no token for {share} of the training texts" in found
    assert "'the film 配送" in found


def test_a_long_text_is_no_warning_of_the_tokenizer(caplog: pytest.LogCaptureFixture) -> None:
    """transformers warned of indexing errors, where every text was yet to be cut."""
    pieces, rows = tokenizer(WORDS), [{"text": "the film " * 40, "label": k} for k in (0, 1)]
    pieces.model_max_length = 20
    splits = load_splits({"train": rows}, splits=("train",))
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_warning()
    transformers.logging.enable_propagation()
    try:
        assert [*unknown_token_warnings(splits, pieces)] == []
        frequent_tokens(pieces, [row["text"] for row in rows], 10)
    finally:
        transformers.logging.disable_propagation()
        transformers.logging.set_verbosity(verbosity)
    assert not [record for record in caplog.records if record.name.startswith("transformers")]


def test_f1_is_of_the_rarer_class_and_named_everywhere(small: Any, tmp_path: Path) -> None:
    data = DataChoice(str(frauds(tmp_path / "data")), text_columns=("text",))
    printed: list[str] = []
    changes = ["training.epochs=1", "training.learning_rate=0.001"]
    with logged(printed):
        metrics = finetune(str(small.base), data, tmp_path / "t", load_recipe("finetune", changes=changes))
    assert "f1 (fraud)" in "\n".join(printed)
    assert metrics["eval"]["accuracy"] == pytest.approx(23 / 30)  # it never finds a fraud
    assert metrics["eval"]["f1"] == 0.0
    assert metrics["positive"] == "fraud"
    assert "| f1 (fraud) | 0.000 |" in (tmp_path / "t" / "README.md").read_text(encoding="utf-8")
    assert "accuracy is 0.767, and 'ok' for every row gives 0.767" in " ".join(metrics["warnings"])


def test_the_positive_class_can_be_chosen_and_stays_with_the_run(small: Any, tmp_path: Path) -> None:
    data = str(frauds(tmp_path / "data"))
    chosen = DataChoice(data, text_columns=("text",), positive="OK")
    changes = ["training.epochs=1", "training.learning_rate=0.001"]
    teacher = tmp_path / "t"
    metrics = finetune(str(small.base), chosen, teacher, load_recipe("finetune", changes=changes))
    assert metrics["positive"] == "ok"
    assert metrics["eval"]["f1"] == pytest.approx(2 * 23 / (30 + 23))
    plain = DataChoice(data, text_columns=("text",))
    assert distill(str(teacher), plain, tmp_path / "s", recipe())["positive"] == "ok"
    found = audit(str(teacher), [str(tmp_path / "s")], plain, tmp_path / "a", FEW)
    assert found["data"]["positive"] == "ok"
    assert found["metrics"]["teacher"]["f1"] == pytest.approx(2 * 23 / (30 + 23))
    assert "f1 (ok)" in (tmp_path / "a" / "audit.md").read_text(encoding="utf-8")
    assert "F1 (ok)" in (tmp_path / "a" / "audit.html").read_text(encoding="utf-8")
    with pytest.raises(DataError, match="no label 'frauds' to be positive.(.|\n)*did you mean 'fraud'"):
        finetune(
            str(small.base), DataChoice(data, positive="frauds"), tmp_path / "n", load_recipe("finetune"),
        )  # fmt: skip
    assert not (tmp_path / "n").exists()


def test_f1_of_three_classes_is_macro_f1_also_where_a_recipe_selects_by_f1(
    small: Any, tmp_path: Path
) -> None:
    printed: list[str] = []
    selecting = "training.arguments.metric_for_best_model=f1"
    with logged(printed):
        metrics = small.distilled("kd", "three", tmp_path / "run", selecting)
    assert list(metrics["eval"]) == ["accuracy", "macro_f1"]
    assert metrics["positive"] is None
    assert any("with 3 classes this is macro_f1" in line for line in printed)


def test_rows_that_are_training_rows_are_counted_and_reported(small: Any, tmp_path: Path) -> None:
    train = [{"text": f"the film was {'very ' * k}fine .", "label": ("no", "yes")[k % 2]} for k in range(12)]
    validation = [
        *train[:2],
        {"text": "THE  film was Very very fine!", "label": "no"},
        *({"text": f"a {'dull ' * k}one", "label": ("no", "yes")[k % 2]} for k in range(1, 6)),
    ]
    write_table(tmp_path / "data" / "train.csv", train)
    write_table(tmp_path / "data" / "validation.csv", validation)
    data = DataChoice(str(tmp_path / "data"), text_columns=("text",))
    printed: list[str] = []
    changes = ["training.epochs=1"]
    with logged(printed):
        metrics = finetune(str(small.base), data, tmp_path / "t", load_recipe("finetune", changes=changes))
    expected = {"rows": 8, "exact": 2, "normalised": 3, "example": {"row": 0, "training_row": 0}}
    assert metrics["overlap"] == expected
    line = "overlap: 3 of 8 validation rows are training rows too (2 of them letter for letter), such as 'the film"
    assert any(line in text for text in printed)
    assert "3 of its 8 rows are training rows too" in (tmp_path / "t" / "README.md").read_text(
        encoding="utf-8"
    )
    printed.clear()
    with logged(printed):
        found = audit(str(tmp_path / "t"), [str(tmp_path / "t")], data, tmp_path / "a", FEW)
    assert found["overlap"] == expected
    assert any(line in text for text in printed)
    assert "3 of its 8 rows are training rows too" in (tmp_path / "a" / "audit.md").read_text(
        encoding="utf-8"
    )


def test_an_overlap_of_pairs_needs_both_texts() -> None:
    """Against a count by hand on random rows."""
    chance = np.random.default_rng(0)

    def rows(count: int) -> list[tuple[str, ...]]:
        words = np.array(["Red", "red ", "blue!", "green"])
        return [tuple(map(str, words[chance.integers(0, 4, 2)])) for _ in range(count)]

    wanted, pairs = rows(40), rows(5)
    loose = [tuple(map(normalised, pair)) for pair in pairs]
    found = overlap(wanted, pairs)
    assert found["exact"] == sum(pair in pairs for pair in wanted)
    assert found["normalised"] == sum(tuple(map(normalised, pair)) in loose for pair in wanted)
    assert 0 < found["exact"] < found["normalised"] < 40
    shown = next(k for k, pair in enumerate(wanted) if tuple(map(normalised, pair)) in loose)
    own = pairs if wanted[shown] in pairs else loose
    place = own.index(wanted[shown] if own is pairs else tuple(map(normalised, wanted[shown])))
    assert found["example"] == {"row": shown, "training_row": place}
    assert overlap([("🙂",)], [("🙁",)])["normalised"] == 0  # no letters: compared as they are
