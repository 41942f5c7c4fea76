"""The audit as a whole: what it finds on built cases, what it writes, and what it refuses."""

from __future__ import annotations

import csv
import gc
import json
import tracemalloc
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from families import build
from gradistill.auditing import model_comparison
from gradistill.auditing.methods import method
from gradistill.auditing.methods.gradient_x_input import GradientXInput
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.auditing.shown_examples import chosen_examples
from gradistill.cli.app import app
from gradistill.cli.audit_command import parse_fail_under, steps_of
from gradistill.commands.audit import AuditChoice, audit, judged_again
from gradistill.commands.finetune import finetune
from gradistill.commands.recorded_data import read_as_trained
from gradistill.data import DataChoice, load_splits, read_splits
from gradistill.errors import DataError, GradistillError, RecipeError
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.recipe import load_recipe
from slow import slow
from small import KINDS, WORDS, audit_parts, logged, write_table
from wordpiece import tokenizer

FEW = audit_parts(faithfulness_rows=4, perturbed_rows=4, floor_rows=4)
QUICK = replace(FEW, faithfulness_rows=0, perturbed_rows=0, response_rows=60, shapley_rows=4)


def figures(found: dict[str, Any], student: int = 0) -> dict[str, Any]:
    return {name: e for group in found["students"][student]["figures"].values() for name, e in group.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_wholly_loyal_to_itself(kind: str, small: Any, tmp_path: Path) -> None:
    teacher = str(small.teachers[kind])
    found = audit(teacher, [teacher], small.choice(kind), tmp_path / "out", FEW)
    every = figures(found)
    loyal = ["prediction"] if kind == "score" else ["label", "probability"]
    for name in (*loyal, "saliency", "top_k_overlap", "cosine", "kendall_tau"):
        assert every[name]["value"] == pytest.approx(1), name
    for name in ("comprehensiveness", "sufficiency"):
        assert every[f"teacher_{name}"] == every[f"student_{name}"]
    for part in found["students"][0]["perturbations"]:
        assert part["n"] == 4
        assert part["figures"]["saliency"]["value"] == pytest.approx(1)
    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert written == json.loads(json.dumps(found))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        ".gradistill.json", "audit.html", "audit.json", "audit.md", "examples.jsonl",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [slow("two"), "three", slow("score")])
def test_expected_gradients_are_the_signed_agreement_along_paths_from_tokens(
    kind: str, small: Any, tmp_path: Path
) -> None:
    teacher, student = str(small.teachers[kind]), tmp_path / "student"
    small.distilled("kd", kind, student, "student.layers=1")
    of_paths = method("integrated_gradients", steps=24, baseline="tokens")
    choice = replace(FEW, max_rows=4, faithfulness_rows=0, perturbed_rows=0, floor_rows=0)
    along = figures(
        audit(teacher, [str(student)], small.choice(kind), tmp_path / "a", replace(choice, method=of_paths))
    )
    found = audit(
        teacher, [teacher, str(student)], small.choice(kind), tmp_path / "b",
        replace(choice, expected_gradients_rows=4, reference=str(student)),
    )  # fmt: skip
    itself, other = (figures(found, k)["expected_gradients"] for k in (0, 1))
    assert (itself["value"], itself["n"]) == (pytest.approx(1), 4)
    assert other["value"] == pytest.approx(along["signed"]["value"])
    assert other["reference"]["value"] == other["value"]
    assert "expected_gradients" not in along
    if kind != "three":  # a head and its negative turn each other's log-odds of two labels around
        assert itself["floor"] == pytest.approx(0, abs=1e-6)
    compared = {entry["figure"] for entry in found["comparisons"]}
    assert "expected_gradients" in compared
    assert ("prediction" in compared) == (kind == "score")
    assert (
        "attributes its predictions to words as its teacher with ρ = 1.00" in found["students"][0]["verdict"]
    )


def test_students_are_compared_with_the_reference_on_the_same_rows(small: Any, tmp_path: Path) -> None:
    """The reference is looked at on fewer rows than the students are: the rows of floors and of response."""
    teacher, student = str(small.teachers["two"]), tmp_path / "student"
    small.distilled("kd", "two", student, "student.layers=1")
    choice = audit_parts(
        max_rows=9, floor_rows=3, response_rows=2, reference=str(student), challenge="validation"
    )
    found = audit(teacher, [teacher, str(student)], small.choice("two"), tmp_path / "a", choice)
    itself, same = (student["figures"]["loyalty"] for student in found["students"])
    for name, rows in (("label", 3), ("probability", 3), ("response", 2)):
        of_itself, of_same = itself[name]["reference"], same[name]["reference"]
        assert of_itself["n"] == of_itself["difference"]["n"] == rows
        assert of_itself["difference"]["value"] == pytest.approx(1 - of_itself["value"])
        # the last bits of a prediction may depend on the other rows of its batch
        assert of_same["difference"]["value"] == pytest.approx(0, abs=1e-6)
        assert of_same["p"] == 1
    assert "difference" not in itself["kappa"]["reference"]
    groups = found["students"][0]["figures"]
    assert not any("reference" in entry for entry in groups["challenge"].values())  # not looked at there
    assert "the reference holds the weights of the student student" in found["warnings"]


@pytest.mark.slow
def test_depth_and_width_may_differ(small: Any, tmp_path: Path) -> None:
    names = {0: "negative", 1: "positive"}
    other = build(
        "bert", labels=2, hidden_size=32, num_hidden_layers=1, id2label=names, num_attention_heads=4
    )
    other.save_pretrained(tmp_path / "wide")
    tokenizer(WORDS).save_pretrained(tmp_path / "wide")
    teacher, choice = str(small.teachers["two"]), replace(FEW, max_rows=6, method=method("occlusion"))
    found = audit(teacher, [str(tmp_path / "wide")], small.choice("two"), tmp_path / "out", choice)
    student = found["students"][0]
    assert (student["hidden"], student["layers"], found["data"]["rows"]) == (32, 1, 6)
    assert found["attribution"]["method"] == "occlusion"
    assert -1 <= figures(found)["saliency"]["value"] < 1


@pytest.fixture(scope="module")
def bait(small: Any) -> tuple[Path, Path]:
    """Rows whose label one of two idle words gives away, and a student that learned that word alone."""
    folder = small.folder / "bait"
    rows = [
        {"text": f"the film was {('dull', 'great')[k // 2 % 2]} , {('very', 'one')[k % 2]} .",
         "label": ("negative", "positive")[k % 2]}
        for k in range(40)
    ]  # fmt: skip
    write_table(folder / "data" / "train.csv", rows)
    write_table(folder / "data" / "validation.csv", rows[:12])
    recipe = load_recipe(
        "finetune", changes=["training.epochs=10", "training.batch_size=4", "training.learning_rate=0.01"]
    )
    choice = DataChoice(str(folder / "data"), label_column="label", text_columns=("text",))
    finetune(str(small.base), choice, folder / "student", recipe)
    return folder / "student", folder / "data"


@pytest.mark.slow
def test_a_student_that_reads_only_the_shortcut_shows_it(
    bait: tuple[Path, Path], small: Any, tmp_path: Path
) -> None:
    student, data = bait
    choice = replace(FEW, faithfulness_rows=0, perturbed_rows=0, watched=("very", "ONE"))
    found = audit(
        str(small.teachers["two"]), [str(student)], DataChoice(str(data), label_column="label"),
        tmp_path / "out", choice,
    )  # fmt: skip
    every = figures(found)
    assert every["student_accuracy"]["value"] == 1
    assert every["label"]["value"] == pytest.approx(0.5)
    assert every["saliency"]["high"] < 0.8
    assert every["student_watched_share"]["low"] > every["teacher_watched_share"]["high"]


def test_an_audit_with_flips_gives_no_reason_for_none(bait: tuple[Path, Path], tmp_path: Path) -> None:
    """The word "very" alone decides, and any other word in its place turns the label."""

    def decides(texts: list[str]) -> list[list[float]]:
        return [[0.9, 0.1] if "very" in text.split() else [0.1, 0.9] for text in texts]

    decides.labels = ("negative", "positive")  # pyright: ignore[reportFunctionMemberAccess]
    choice = replace(FEW, faithfulness_rows=0, perturbed_rows=0, response_rows=12)
    rows = DataChoice(str(bait[1]), label_column="label", text_columns=("text",))
    found = audit(decides, [decides], rows, tmp_path / "out", choice)
    assert found["students"][0]["figures"]["loyalty"]["flips"]["value"] == 1.0
    assert not any(line.startswith("flips and kept labels are left out") for line in found["warnings"])


def test_what_shows_nothing_on_these_rows_is_named(tmp_path: Path) -> None:
    """Capitals left Chinese texts as they are, and watched words that no text has were left out without a word."""

    def decides(texts: list[str]) -> list[list[float]]:
        return [[0.9, 0.1] if "好" in text else [0.1, 0.9] for text in texts]

    decides.labels = ("bad", "good")  # pyright: ignore[reportFunctionMemberAccess]
    texts = {"电影很好": "good", "电影很坏": "bad", "film 很好": "good", "不太好看": "bad"}
    rows = [{"text": text, "label": label} for text, label in texts.items()]
    choice = replace(FEW, faithfulness_rows=0, watched=("电影", "actor", "FILM"))
    found = audit(decides, [decides], DataChoice({"validation": rows}), tmp_path / "out", choice)
    assert "perturbations that change no row are left out: punctuation" in found["warnings"]
    assert "no audited text has these watched words: actor" in found["warnings"]
    lacking = "watched words are left out: they need attributions, which none of these models has"
    assert lacking in found["warnings"]
    counts = {part["name"]: part["n"] for part in found["students"][0]["perturbations"]}
    assert counts == {"typos": 4, "case": 1, "prefix": 4}


@pytest.mark.slow
def test_rationales_challenge_and_two_students(bait: tuple[Path, Path], small: Any, tmp_path: Path) -> None:
    rows = [
        {"text": f"the film was very {word} .", "label": label, "why": [[4, 5]]}
        for word, label in (
            ("great", "positive"),
            ("dull", "negative"),
            ("fine", "positive"),
            ("poor", "negative"),
        )
    ]
    for split in ("validation", "challenge"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(lines)
    choice = AuditChoice(
        rationale="why", rationale_units="words", challenge="challenge", faithfulness_rows=3, perturbed_rows=0
    )
    data = DataChoice(str(tmp_path), label_column="label", text_columns=("text",))
    students = [str(small.teachers["two"]), str(bait[0])]
    found = audit(students[0], students, data, tmp_path / "out", choice)
    assert figures(found)["teacher_token_f1"] == figures(found)["student_token_f1"]
    challenge = found["students"][1]["figures"]["challenge"]
    label = found["students"][1]["figures"]["loyalty"]["label"]
    assert challenge["label"] == {name: label[name] for name in ("value", "low", "high", "n")}
    compared = {entry["figure"]: entry for entry in found["comparisons"]}
    assert {"label", "saliency", "student_token_f1"} <= compared.keys()
    assert compared["student_sufficiency"]["difference"]["n"] <= 3
    assert all(entry["p_corrected"] >= entry["p"] for entry in compared.values())
    example = json.loads((tmp_path / "out" / "examples.jsonl").read_text().splitlines()[0])
    assert [example["texts"][0][w["start"] : w["end"]] for w in example["words"]] == rows[0]["text"].split()
    for owner in ("teacher", 0, 1):
        shares = [w["teacher"] if owner == "teacher" else w["students"][owner] for w in example["words"]]
        assert sum(shares) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_examples_and_figures_do_not_depend_on_blocks(small: Any, tmp_path: Path, monkeypatch: Any) -> None:
    student = small.distilled("kd", "three", tmp_path / "student") and str(tmp_path / "student")
    found, by_drawn = [], replace(FEW, method=method("integrated_gradients", steps=6, baseline="tokens"))
    for block in (1000, 3):
        monkeypatch.setattr(model_comparison, "BLOCK", block)
        out = tmp_path / str(block)
        audit(str(small.teachers["three"]), [student], small.choice("three"), out, by_drawn)
        found.append(json.loads((out / "audit.json").read_text()))
    for name, value in figures(found[0]).items():
        assert figures(found[1])[name]["value"] == pytest.approx(value["value"], abs=1e-5), name
    assert found[0]["attribution"]["settings"]["baseline"] == "tokens"
    assert "baseline tokens" in (out / "audit.html").read_text()


def test_an_unknown_baseline_is_refused_before_models_are_loaded(tmp_path: Path) -> None:
    command = ["audit", "--teacher", "a", "--student", "b", "--data", "c", "--output", str(tmp_path / "out"),
               "--attribution", "integrated_gradients", "--baseline"]  # fmt: skip
    found = CliRunner().invoke(app, [*command, "pading"])
    assert "did you mean 'padding'" in str(found.exception), found.output
    assert "no folder a" in str(CliRunner().invoke(app, [*command, "padding"]).exception)


def test_limits_end_the_command_with_1(bait: tuple[Path, Path], small: Any, tmp_path: Path) -> None:
    command = [
        "audit", "--teacher", str(small.teachers["two"]), "--student", str(bait[0]), "--data", str(bait[1]),
        "--label-column", "label", "--faithfulness-rows", "0", "--perturbed-rows", "0", "--response-rows", "0",
        "--shapley-rows", "0", "--expected-gradients-rows", "0",
    ]  # fmt: skip
    passed = CliRunner().invoke(
        app, [*command, "--output", str(tmp_path / "a"), "--fail-under", "label_loyalty=0.4"]
    )
    assert passed.exit_code == 0, passed.output
    limits = "label_loyalty=0.95,saliency_loyalty=0.99,student_token_f1=0.1"
    failed = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "b"), "--fail-under", limits])
    assert failed.exit_code == 1, failed.output
    short = json.loads((tmp_path / "b" / "audit.json").read_text())["failed"]
    assert [entry["figure"] for entry in short] == ["label", "saliency", "student_token_f1"]
    assert short[2]["value"] is None  # there are no rationales, so the limit is not met
    again = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "b")])
    assert isinstance(again.exception, RecipeError)  # which the command line turns into exit code 2
    assert CliRunner().invoke(app, [*command, "--output", str(tmp_path / "b"), "--overwrite"]).exit_code == 0


def test_the_columns_are_those_of_the_students_run(small: Any, tmp_path: Path) -> None:
    """Inferred anew they would be a pair, and the student was trained on one text."""
    student, file = tmp_path / "student", tmp_path / "validation.csv"
    small.distilled("kd", "two", student)
    with (small.tables["two"] / "validation.csv").open() as source:
        rows = list(csv.DictReader(source))
    remarks = [f"a remark about row {k}, of {k % 4} more words" for k in range(len(rows))]
    write_table(file, [{"remark": remark, **row} for remark, row in zip(remarks, rows, strict=True)])
    assert read_splits(DataChoice(str(file)), ("validation",)).task.text_columns == ("remark", "text")
    quick = replace(QUICK, response_rows=0, shapley_rows=0, floor_rows=0)
    only = tmp_path / "only" / "validation.csv"
    write_table(
        only, [{"remark": remark, "label": row["label"]} for remark, row in zip(remarks, rows, strict=True)]
    )
    for number, (data, column) in enumerate(
        [
            (DataChoice(str(file)), "text"),
            (DataChoice(str(file), text_columns=("remark",)), "remark"),
            (DataChoice(str(only)), "remark"),
        ]
    ):
        lines = list[str]()
        with logged(lines):
            audit(str(small.teachers["two"]), [str(student)], data, tmp_path / str(number), quick)
        assert f"text: {column}" in lines


def test_a_fault_of_the_trained_columns_is_no_reason_for_others(small: Any, tmp_path: Path) -> None:
    """A blank label sent the audit to another column of labels, in silence."""
    student, file = tmp_path / "student", tmp_path / "validation.csv"
    small.distilled("kd", "two", student)
    with (small.tables["two"] / "validation.csv").open() as source:
        rows = list(csv.DictReader(source))

    def columns(some: list[dict[str, str]]) -> tuple[Any, ...]:
        write_table(file, some)
        read = partial(read_splits, splits=("validation",))
        splits = read_as_trained(DataChoice(str(file)), [student], read)
        return splits.task.text_columns, splits.label_column

    draft = ("positive", "negative")
    both = [
        {"first draft": draft[k % 2], **row, "remark": f"{row['text']} {k}"} for k, row in enumerate(rows)
    ]
    assert columns(both) == (("text",), "label")
    with pytest.raises(DataError, match=r"validation.csv, row 4, column 'label'"):
        columns([{**row, "label": "" if k == 2 else row["label"]} for k, row in enumerate(both)])


def test_values_of_a_column_are_measured_one_by_one(small: Any, tmp_path: Path) -> None:
    """The column is no text, though the columns of texts are found by themselves."""
    rows = [
        {"text": f"the film was {'very ' * (k % 5)}{word} .", "label": label,
         "region": ("north", "south", None)[k % 3]}
        for k, (word, label) in enumerate([("great", "positive"), ("dull", "negative")] * 12)
    ]  # fmt: skip
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    teacher = str(small.teachers["two"])
    quick = ["--faithfulness-rows", "0", "--perturbed-rows", "0", "--response-rows", "4"]
    done = CliRunner().invoke(
        app, ["audit", "--teacher", teacher, "--student", teacher, "--data", str(tmp_path / "data"), *quick,
              "--output", str(tmp_path / "out"), "--slice", "region"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    (column,) = found["students"][0]["by_column"]
    assert column["column"] == "region"
    assert {part["label"]: part["n"] for part in column["parts"]} == {"north": 8, "south": 8, "(no value)": 8}
    assert all(part["figures"]["label"]["value"] == 1 for part in column["parts"])
    with pytest.raises(DataError, match="column 'area': the column is missing"):
        audit(
            teacher,
            [teacher],
            DataChoice(str(tmp_path / "data")),
            tmp_path / "b",
            AuditChoice(slices=("area",)),
        )


def test_the_verdict_separates_a_loyal_student_from_one_that_is_not(
    bait: tuple[Path, Path], small: Any, tmp_path: Path
) -> None:
    teacher, data = bait
    choice = replace(QUICK, split="train")
    students = [str(teacher), str(small.teachers["two"])]
    found = audit(
        str(teacher), students, DataChoice(str(data), label_column="label"), tmp_path / "out", choice
    )
    itself, other = (student["assessment"] for student in found["students"])
    assert {check["outcome"] for check in itself["checks"]} == {"pass"}
    judged = {check["figure"]: check["outcome"] for check in other["checks"]}
    assert judged["kappa"] == judged["worst_class"] == "fail"
    assert other["outcome"] == found["assessment"]["outcome"] == "fail"
    pairs = found["students"][1]["confusion"]
    assert sum(pair["n"] for pair in pairs) == found["data"]["rows"] == 40
    others = sum(pair["n"] for pair in pairs if pair["teacher"] != pair["student"])
    assert sum(part["other"] for part in found["students"][1]["disagreements"]) == others == 20
    assert figures(found)["student_macro_f1"]["value"] == pytest.approx(1)
    assert figures(found)["kappa"]["n"] == 40


def test_what_does_not_fit_is_refused_before_any_work(small: Any, tmp_path: Path) -> None:
    two, three = str(small.teachers["two"]), str(small.teachers["three"])
    with pytest.raises(DataError, match="labels of the teacher and of .*three differ"):
        audit(two, [three], small.choice("two"), tmp_path / "a")
    with pytest.raises(RecipeError, match="did you mean 'label_loyalty'"):
        AuditChoice(limits={"label_loyality": 1.0})
    for limit, remedy in (
        (95, "give 0.95 for 95 %"),
        (1.0000001, "is 1.0000001"),
        (float("nan"), "nan"),
        ("0.9", "'0.9'"),
    ):
        with pytest.raises(RecipeError, match=remedy):
            AuditChoice(limits={"label_loyalty": limit})  # pyright: ignore[reportArgumentType]
    with pytest.raises(RecipeError, match="a limit for student_infidelity, of which less is better"):
        AuditChoice(limits={"student_infidelity": 0.5})
    assert AuditChoice(limits={"response_slope": 1.05, "label": 1}).limits["response_slope"] == 1.05
    with pytest.raises(GradistillError, match="nowhere"):
        audit(two, [two], small.choice("two"), tmp_path / "a", AuditChoice(split="nowhere"))
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("")
    with pytest.raises(RecipeError, match="no audit of ours: mine.txt"):
        audit(two, [two], small.choice("two"), tmp_path / "b")


def test_an_audit_that_is_judged_again_is_the_one_that_had_these_limits(small: Any, tmp_path: Path) -> None:
    two, data = str(small.teachers["two"]), small.choice("two")
    few = AuditChoice(
        faithfulness_rows=0, perturbed_rows=0, shapley_rows=0, expected_gradients_rows=0, floor_rows=2
    )
    judging = replace(few, limits={"label_loyalty": 1.0, "span": 0.5})
    audit(two, [two], data, tmp_path / "a", few)
    audit(two, [two], data, tmp_path / "b", judging)
    again = judged_again(tmp_path / "a", judging)
    found, wanted = (json.loads((tmp_path / name / "audit.json").read_text()) for name in "ab")
    assert [(part.pop("seconds"), part.pop("created")) for part in (found, wanted)]
    assert found == wanted
    assert again["failed"] == [
        {"student": again["students"][0]["name"], "figure": "span", "value": None, "limit": 0.5}
    ]
    assert "was not measured, its limit is" in (tmp_path / "a" / "audit.html").read_text()
    audit(two, [two], data, tmp_path / "a", few, overwrite=True)  # it is an audit of ours still


@pytest.mark.parametrize("given", ["label", "label_loyalty=", "=0.5", "label_loyalty=much", "a=nan"])
def test_limits_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(RecipeError, match="figure=number"):
        parse_fail_under(given)


def test_steps_and_limits_are_read() -> None:
    assert parse_fail_under(" label_loyalty = 0.95 , cosine=1 ") == {"label_loyalty": 0.95, "cosine": 1.0}
    assert (steps_of("auto"), steps_of("20")) == ("auto", 20)
    with pytest.raises(RecipeError, match="or auto"):
        steps_of("many")


def test_half_of_the_chosen_examples_disagree_most(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    rows = [
        {"index": k, "students": [{"disagreement": float(k * 7 % 100)}, {"disagreement": 0.0}]}
        for k in range(100)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = chosen_examples(file, 10, seed=0)
    assert [row["index"] for row in chosen] == sorted(row["index"] for row in chosen)
    most = {row["index"] for row in sorted(rows, key=lambda r: -r["students"][0]["disagreement"])[:5]}
    assert most <= {row["index"] for row in chosen}
    assert len(chosen) == 10
    assert len(chosen_examples(file, 1000)) == 100
    assert chosen_examples(file, 10, seed=0) == chosen


@pytest.mark.slow
def test_more_rows_need_no_more_memory(small: Any, monkeypatch: Any) -> None:
    """Beyond a few numbers a row: 120 rows against 40 in blocks of 20."""
    monkeypatch.setattr(model_comparison, "BLOCK", 20)
    model, _ = load_classifier(str(small.teachers["two"]))
    source = small.choice("two")
    splits = load_splits(source.source, splits=("train",), label_column="label", text_columns=("text",))
    predictor = ClassifierPredictor(model, load_tokenizer(str(small.teachers["two"])))
    comparison = model_comparison.ModelComparison(predictor, [predictor], splits.task, GradientXInput())

    def peak(rows: int) -> int:
        some = splits.rows["train"].select([k % 20 for k in range(rows)])
        tracemalloc.start()
        for _ in comparison.blocks(some):
            gc.collect()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(40)  # what is made once and kept
    most = min(peak(120), peak(120))  # a table of Python that grows meanwhile grows once
    assert most < 1.2 * peak(40) + 50_000  # a row kept whole takes a kilobyte or two


@pytest.mark.parametrize("kind", [slow("two"), slow("three"), "score"])
def test_response_loyalty_of_a_teacher_and_of_another(kind: str, small: Any, tmp_path: Path) -> None:
    teacher = str(small.teachers[kind])
    small.distilled("kd", kind, tmp_path / "student", "student.layers=1")
    students = [teacher, str(tmp_path / "student")]
    found = audit(teacher, students, small.choice(kind), tmp_path / "out", QUICK)
    for name in ("response", "response_masked"):
        itself, other = (figures(found, k)[name] for k in (0, 1))
        assert found["students"][1]["figures"]["loyalty"][name] == other
        assert itself.keys() == {"value", "low", "high", "n", "floor", "gain"}
        assert itself["value"] == pytest.approx(1)
        assert itself["gain"] == pytest.approx(1)
        assert itself["floor"] < 0.999, "a random head under the teacher's own blocks"
        assert other["low"] <= other["value"] <= other["high"]
        assert other["value"] < 0.9999
        assert other["gain"] == pytest.approx((other["value"] - other["floor"]) / (1 - other["floor"]))
        assert itself["n"] == other["n"] == 10  # texts of validation with four words or more
    assert figures(found)["response_slope"]["value"] == pytest.approx(1, abs=1e-4)
    assert ("response_labels" in figures(found)) == (kind != "score")
    assert found["schema"] == 5
    assert found["seconds"]["response loyalty"] > 0
    for table in (found["students"][0]["figures"], found["students"][1]["figures"]):
        floor = table["loyalty"]["response"]["floor"]
        assert f"floor {floor:z.3f}" in (tmp_path / "out" / "audit.md").read_text(encoding="utf-8")
        assert f'floor">{floor:z.3f}' in (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_limit_of_response_loyalty(bait: tuple[Path, Path], small: Any, tmp_path: Path) -> None:
    teacher, data = str(small.teachers["two"]), str(small.tables["two"])
    command = [
        "audit", "--teacher", teacher, "--data", data, "--label-column", "label", "--text-columns", "text",
        "--faithfulness-rows", "0", "--perturbed-rows", "0", "--shapley-rows", "0", "--expected-gradients-rows", "0",
    ]  # fmt: skip

    def ended(name: str, *more: str, student: str = teacher) -> Any:
        typed = [*command, "--student", student, "--output", str(tmp_path / name), *more]
        return CliRunner().invoke(app, typed, terminal_width=200)

    passed = ended(
        "a", "--response-rows", "5", "--fail-under", "response_loyalty=0.5,response_masked_loyalty=0.5"
    )
    assert passed.exit_code == 0, passed.output
    assert "floor" in passed.output
    written = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert figures(written)["response"]["n"] == 5
    assert ended("b", "--fail-under", "response_loyalty=1", student=str(bait[0])).exit_code == 1
    failed = json.loads((tmp_path / "b" / "audit.json").read_text())["failed"]
    assert [(entry["figure"], entry["limit"]) for entry in failed] == [("response", 1.0)]
    assert "below the limit 1.000" in (tmp_path / "b" / "audit.md").read_text(encoding="utf-8")
    without = ended("c", "--response-rows", "0", "--fail-under", "response_loyalty=0.5")
    assert without.exit_code == 1, "a figure that was not measured is below any limit"
    written = json.loads((tmp_path / "c" / "audit.json").read_text())
    assert not any(name.startswith("response") for name in figures(written))
    assert "response loyalty" not in written["seconds"]
    assert written["failed"][0]["value"] is None
