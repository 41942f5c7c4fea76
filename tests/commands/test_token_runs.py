"""Words with a tag each through whole jobs: a teacher, students."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from gradistill.commands.audit import audit
from gradistill.commands.audit_choice import AuditChoice
from gradistill.commands.augment import augment
from gradistill.commands.distill import distill
from gradistill.commands.finetune import finetune
from gradistill.commands.predict import predict
from gradistill.commands.signal_stores import StoreChoice
from gradistill.commands.store_signals import store_signals
from gradistill.commands.text_predictor import load_predictor
from gradistill.commands.token_predictor import TokenPredictor
from gradistill.data import DataChoice
from gradistill.data.span_metrics import token_metrics
from gradistill.errors import DataError, GradistillError, ModelError, RecipeError
from gradistill.models.loading import load_classifier
from gradistill.recipe import load_recipe
from small import BAD, GOOD, WORDS, logged

NAMES = ("O", "B-bad", "I-bad", "B-good", "I-good")


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Opinion words are spans, of one word or of two."""
    found = []
    for k in range(first, first + count):
        words, tags = ["the", "film", "was", *["very"] * (k % 3)], ["O"] * (3 + k % 3)
        for kind, opinions, there in (("good", GOOD, k % 2), ("bad", BAD, k // 2 % 2)):
            if there:
                words += [opinions[k % 3], *[opinions[(k + 1) % 3]] * (k % 2)]
                tags += [f"B-{kind}", *[f"I-{kind}"] * (k % 2)]
        found.append({"tokens": [*words, "."], "tags": [*tags, "O"]})
    return found


DATA = {"train": rows(48), "validation": rows(16, 3), "test": rows(8, 7)}


@pytest.fixture(scope="module")
def runs(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ``teacher`` and its student ``kd``."""
    folder = tmp_path_factory.mktemp("tokens")
    quick = ["training.epochs=10", "training.batch_size=8", "training.learning_rate=0.02"]
    finetune(str(small.base), DATA, folder / "teacher", load_recipe("finetune", changes=quick))
    student(folder, "kd")
    return folder


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def student(runs: Path, name: str, method: str = "kd", *changes: str, **options: Any) -> dict[str, Any]:
    quick = ("training.epochs=2", "training.batch_size=16", "student.layers=2", *changes)
    data = options.pop("data", DATA)
    return distill(str(runs / "teacher"), data, runs / name, load_recipe(method, changes=quick), **options)


def test_a_teacher_has_metrics_of_spans_and_words(runs: Path) -> None:
    found = record(runs / "teacher")
    assert list(found["eval"]) == ["span_f1", "span_precision", "span_recall", "accuracy"]
    assert found["eval"]["span_f1"] > 0.6
    assert found["test"]["span_f1"] > 0.4
    model, _ = load_classifier(runs / "teacher", tokens=True)
    assert type(model).__name__ == "BertForTokenClassification"
    assert tuple(model.config.id2label.values()) == NAMES


def test_a_student_has_loyalties_of_words_and_spans_with_floors(runs: Path) -> None:
    found = record(runs / "kd")
    loyal = found["loyalty"]
    for name in ("label", "probability", "span"):
        assert loyal[name]["n"] == 16  # rows are resampled, not words
        assert loyal[name]["low"] <= loyal[name]["value"] <= loyal[name]["high"]
        assert loyal[name]["floor"] is not None
    assert loyal["response"] is None
    assert loyal["saliency"] is None
    assert found["test"]["span_f1"] >= 0
    assert "teacher_test" in found
    card = (runs / "kd" / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: token-classification" in card
    assert "AutoModelForTokenClassification.from_pretrained" in card
    assert "F1 of the student's spans against the teacher's" in card


@pytest.mark.slow
def test_a_store_and_the_live_teacher_give_the_same_student(runs: Path) -> None:
    """With maps of words too, of other words in each epoch."""
    of_maps = ("objectives.attribution_map.view=sampled", "objectives.attribution_map.words=2")
    student(runs, "adkd", "adkd", *of_maps)
    student(runs, "online", "adkd", *of_maps, signals=StoreChoice("online"))
    kd, *weights = (
        load_classifier(runs / name, tokens=True)[0].state_dict() for name in ("kd", "adkd", "online")
    )
    apart, by_maps = (
        max(float((weights[0][key] - other[key]).abs().max()) for key in kd) for other in (weights[1], kd)
    )
    # A store is computed in other batches, so scores differ in their last digits.
    assert apart < 0.1 * by_maps


def test_methods_without_meaning_are_refused_by_name(runs: Path) -> None:
    with pytest.raises(RecipeError, match="similarity needs .* every word has a label(?s:.)*attribution_map"):
        student(runs, "e2kd", "e2kd")
    with pytest.raises(RecipeError, match=r"rationale.confidence is set, .* and here each word has a label"):
        student(runs, "e2kd", "rationale", "objectives.rationale.confidence=true")
    assert not (runs / "e2kd").exists()
    with pytest.raises(RecipeError, match="a tag for each word"):
        student(runs, "unlabelled", data=DataChoice(DATA, unlabelled=[{"tokens": ["a"]}]))


def test_a_store_on_disk_serves_a_student(runs: Path, tmp_path: Path) -> None:
    store_signals(str(runs / "teacher"), DATA, tmp_path / "store", load_recipe("kd"))
    found = student(runs, "stored", signals=StoreChoice(str(tmp_path / "store")))
    assert found["loyalty"]["span"] == record(runs / "kd")["loyalty"]["span"]


def test_jobs_that_do_not_read_words_refuse_them(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match="gradistill augment cannot be used: the task 'data' has a tag for each word"
    ):
        augment(DataChoice(DATA), tmp_path / "copies.jsonl")
    assert not (tmp_path / "copies.jsonl").exists()


def test_models_of_another_kind_are_refused(runs: Path, small: Any) -> None:
    with pytest.raises(
        DataError, match="The data have a tag for each word, and the teacher predicts one label"
    ):
        distill(str(small.teachers["two"]), DATA, runs / "no", load_recipe("kd"))
    with pytest.raises(
        DataError, match="The data have one label for a text, and the teacher predicts a tag for each"
    ):
        distill(str(runs / "teacher"), small.choice("two"), runs / "no", load_recipe("kd"))
    with pytest.raises(ModelError, match="BertForTokenClassification: it labels the tokens of a text"):
        load_classifier(runs / "teacher")


@pytest.fixture(scope="module")
def audited(runs: Path) -> dict[str, Any]:
    return audit(runs / "teacher", [runs / "kd"], DATA, runs / "audit", AuditChoice(examples=10))


def test_an_audit_has_figures_of_words_and_spans(runs: Path, audited: dict[str, Any]) -> None:
    (found,) = audited["students"]
    loyal, quality = found["figures"]["loyalty"], found["figures"]["quality"]
    assert list(loyal) == ["label", "probability", "span"]
    assert all(entry["n"] == 16 and entry["floor"] is not None for entry in loyal.values())
    assert loyal["label"]["value"] > loyal["label"]["floor"]
    own = record(runs / "kd")
    assert loyal["span"]["value"] == pytest.approx(own["loyalty"]["span"]["value"])
    assert quality["student_span_f1"]["value"] == pytest.approx(own["eval"]["span_f1"])
    assert audited["metrics"]["kd"] == pytest.approx(own["eval"])
    assert audited["metrics"]["teacher"] == pytest.approx(record(runs / "teacher")["eval"])
    assert sum(pair["n"] for pair in found["confusion"]) == 107  # words
    assert {part["label"] for part in found["by_label"]} <= set(NAMES)
    checks = {check["figure"] for check in found["assessment"]["checks"]}
    assert "span" in checks
    assert not {"kappa", "response", "prediction"} & checks
    assert any("words have a label each" in warning for warning in audited["warnings"])


def test_the_page_shows_spans_in_place_of_labels(runs: Path, audited: dict[str, Any]) -> None:
    page = (runs / "audit" / "audit.html").read_text(encoding="utf-8")
    assert "Span loyalty (F1)" in page
    assert 'value="alike"' in page
    assert 'value="reasons"' not in page, "words with a label each have none"
    examples = [
        json.loads(line) for line in (runs / "audit" / "examples.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(examples) == 16
    first = examples[0]
    assert first["texts"] == [" ".join(DATA["validation"][0]["tokens"])]
    assert first["gold"] == "great fine (good); poor dull (bad)" or "(good)" in first["gold"]
    apart = [example["students"][0]["disagreement"] for example in examples]
    assert max(apart) > min(apart)


def test_an_audit_reads_rows_without_tags_and_refuses_parts_of_one_label(runs: Path, small: Any) -> None:
    bare = {"validation": [{"tokens": row["tokens"]} for row in DATA["validation"]]}
    found = audit(runs / "teacher", [runs / "kd"], bare, runs / "bare")
    assert "quality" not in found["students"][0]["figures"]
    assert found["students"][0]["figures"]["loyalty"]["span"]["n"] == 16
    with pytest.raises(RecipeError, match="cascade cannot be measured where each word has a label"):
        audit(runs / "teacher", [runs / "kd"], DATA, runs / "no", AuditChoice(cascade=True))
    with pytest.raises(ModelError, match="labels the words of a text, and the student"):
        audit(runs / "teacher", [small.teachers["two"]], DATA, runs / "no")


def test_a_reference_or_a_student_that_finds_nothing_is_warned_of(runs: Path, tmp_path: Path) -> None:
    """On the training rows: a reference of fewer than 20 rows is not judged."""
    shutil.copytree(runs / "teacher", tmp_path / "silent")
    model, _ = load_classifier(runs / "teacher", tokens=True)
    model.classifier.weight.data.zero_()
    model.classifier.bias.data = torch.eye(len(NAMES))[0]
    model.save_pretrained(tmp_path / "silent")
    choice = AuditChoice(split="train", reference=str(tmp_path / "silent"))
    found = audit(runs / "teacher", [runs / "kd"], DATA, tmp_path / "audit", choice)
    span = found["students"][0]["figures"]["loyalty"]["span"]
    assert span["reference"]["value"] == 0
    apart = span["reference"]["difference"]
    assert (apart["value"], apart["n"]) == (pytest.approx(span["value"]), 48)
    assert (
        "agreement with the teacher, compared with the reference's"
        in found["students"][0]["assessment"]["reference"]
    )
    owner = "the reference, on the 48 rows that it is compared on, finds none of the tagged spans: its span F1 is 0"
    assert [warning for warning in found["warnings"] if owner in warning]
    quiet = audit(runs / "teacher", [tmp_path / "silent"], DATA, tmp_path / "quiet")
    assert [
        warning
        for warning in quiet["warnings"]
        if "student 'silent' finds none of the tagged spans" in warning
    ]
    plain = {"validation": [row for row in DATA["validation"] if {*row["tags"]} == {"O"}]}
    assert plain["validation"]
    none = audit(tmp_path / "silent", [tmp_path / "silent"], plain, tmp_path / "plain")
    assert not [
        warning for warning in none["warnings"] if "finds none of the tagged spans" in warning
    ]  # there is none to find


def test_predictions_are_tags_and_spans(runs: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "words.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps({"id": k, **row}) + "\n" for k, row in enumerate(DATA["validation"])))
    assert predict(str(runs / "teacher"), file, output)["rows"] == 16
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    predictor = load_predictor(str(runs / "teacher"))
    assert isinstance(predictor, TokenPredictor)
    words = [row["tokens"] for row in DATA["validation"]]
    assert [row["predicted_tags"] for row in found] == predictor(words) == predictor.predict(words)
    gold = [[NAMES.index(tag) for tag in row["tags"]] for row in DATA["validation"]]
    ours = [np.array([NAMES.index(tag) for tag in row["predicted_tags"]]) for row in found]
    scores = token_metrics(NAMES, ours, [np.array(row) for row in gold])
    assert scores == pytest.approx(record(runs / "teacher")["eval"])
    assert [row["predicted_spans"] for row in found] == predictor.spans(words)
    first = next(row for row in found if row["predicted_spans"])
    span = first["predicted_spans"][0]
    assert span["text"] == " ".join(first["tokens"][span["start"] : span["end"]])
    assert first["predicted_tags"][span["start"]][2:] == span["kind"]


def test_rows_without_words_keep_their_place_and_have_no_tags(runs: Path, tmp_path: Path) -> None:
    words = [["the", "film"], [], ["fine", "."], None, ["a"]]
    file, output, lines = tmp_path / "words.jsonl", tmp_path / "out.jsonl", list[str]()
    file.write_text("".join(json.dumps({"tokens": row}) + "\n" for row in words))
    with logged(lines):
        found = predict(str(runs / "teacher"), file, output, text_columns="tokens")
    assert (found["rows"], found["incomplete"]) == (5, 2)
    assert "2 of 5 rows lack words and have no prediction; the first is row 2" in "\n".join(lines)
    written = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["tokens"] for row in written] == words
    predictor = load_predictor(str(runs / "teacher"))
    assert [row["predicted_tags"] for row in written if row["tokens"]] == predictor(  # pyright: ignore
        [row for row in words if row]
    )
    assert all(
        row["predicted_tags"] is row["predicted_spans"] is None for row in written if not row["tokens"]
    )
    file.write_text('{"tokens": []}\n{"tokens": null}\n')
    with pytest.raises(DataError, match="no column of lists of words|no row has words"):
        predict(str(runs / "teacher"), file, tmp_path / "none.jsonl", text_columns="tokens")


def test_words_that_are_not_read_have_no_tag(runs: Path) -> None:
    predictor = load_predictor(str(runs / "teacher"), max_length=5)
    assert isinstance(predictor, TokenPredictor)
    (tags,) = predictor([["the", "film", "was", "fine", "."]])
    assert tags[3:] == [None, None]
    assert None not in tags[:3]
    assert predictor([]) == []
    with pytest.raises(DataError, match=r"Row 0 \(from 0\): word 2: the text is empty"):
        predictor([["a", " "]])


def test_files_without_words_or_for_lists_are_refused(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"tokens": ["a", " "]}) + "\n")
    with pytest.raises(DataError, match="rows that cannot be used(?s:.)*word 2: the text is empty"):
        predict(str(runs / "teacher"), file, tmp_path / "out.jsonl")
    with pytest.raises(RecipeError, match="a kind that holds no lists of tags"):
        predict(str(runs / "teacher"), file, tmp_path / "out.csv")
    assert not (tmp_path / "out.jsonl").exists()


def test_faults_are_named_wherever_a_file_has_only_bad_lines(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradistill.commands.token_predictor.CHUNK_ROWS", 2)
    good, other = json.dumps({"tokens": ["a", "film"]}), json.dumps({"words of": ["a"]})
    file = tmp_path / "rows.jsonl"
    for lines, fault in (
        (["{", "{", good, good], r"rows.jsonl, row 1: .*\n.*row 2: "),
        ([good, good, "{", "{"], r"rows.jsonl, row 3: .*\n.*row 4: "),
        (["{", "{"], r"row 1: .*\n.*row 2: "),
    ):
        file.write_text("\n".join(lines))
        with pytest.raises(DataError, match=fault):
            predict(str(runs / "teacher"), file, tmp_path / "out.jsonl")
    for k, lines in enumerate(([good, good, other, other], [other, other, good, good])):
        file.write_text("\n".join(lines))  # a chunk whose rows all lack words
        assert predict(str(runs / "teacher"), file, tmp_path / f"out{k}.jsonl")["incomplete"] == 2


def test_rows_that_are_cut_and_words_that_are_not_read_are_counted(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"tokens": ["the"] * n}) for n in (2, 5, 9)))
    found = predict(str(runs / "teacher"), file, tmp_path / "out.jsonl", max_length=5)
    assert (found["cut"], found["unread_words"]) == (2, 2 + 6)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["tokens_claen"], r"column 'tokens_claen': the column is missing; did you mean 'tokens_clean'\?"),
        (["tokens", "nothere"], "the columns tokens and nothere were named"),
        ("doc.wrods", r"did you mean 'doc.words'\?"),
        ("text", "row 1, column 'text': 'a film' where a list of words belongs"),
    ],
)
def test_a_named_column_that_cannot_be_read_is_refused(
    named: Any, message: str, runs: Path, tmp_path: Path
) -> None:
    row = {"tokens": ["a"], "tokens_clean": ["b"], "doc": {"words": ["fine", "film"]}, "text": "a film"}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(GradistillError, match=message):
        predict(str(runs / "teacher"), file, tmp_path / "out.jsonl", text_columns=named)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_dotted_name_leads_to_words_inside_of_objects(ending: str, runs: Path, tmp_path: Path) -> None:
    file, rows = tmp_path / f"rows{ending}", [{"doc": {"words": ["fine", "film"]}}, {"doc": {"words": None}}]
    if ending == ".parquet":
        Dataset.from_list(rows).to_parquet(file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = predict(str(runs / "teacher"), file, tmp_path / "out.jsonl", text_columns="doc.words")
    assert (found["rows"], found["incomplete"]) == (2, 1)
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    predictor: Any = load_predictor(str(runs / "teacher"))
    assert first["predicted_tags"] == predictor([["fine", "film"]])[0]
    assert second["predicted_tags"] is None


def test_rows_without_any_token_have_no_tags(runs: Path, tmp_path: Path) -> None:
    """A file with one row of invisible words is predicted, as one with such a text is."""
    predictor: Any = load_predictor(str(runs / "teacher"))
    words = [["\u200b"], ["the", "film"], ["\u200b", "\u200b"], ["\u200b", "fine"]]
    alone = predictor([["the", "film"], ["fine"]])
    assert predictor(words) == [[None], alone[0], [None, None], [None, alone[1][0]]]
    assert predictor(words[:1]) == [[None]]
    assert predictor.spans(words[:1]) == [[]]
    file, lines = tmp_path / "rows.jsonl", list[str]()
    file.write_text("".join(json.dumps({"tokens": row}) + "\n" for row in words))
    with logged(lines):
        found = predict(str(runs / "teacher"), file, tmp_path / "out.jsonl")
    assert (found["rows"], found["cut"], found["unread_words"]) == (4, 3, 4)
    assert "no token stands for 4 words" in "\n".join(lines)


def changed_teacher(runs: Path, folder: Path, change: Callable[[Any], object]) -> Any:
    """The predictor of a copy of the teacher whose model was changed."""
    shutil.copytree(runs / "teacher", folder)
    model, _ = load_classifier(runs / "teacher", tokens=True)
    change(model)
    model.save_pretrained(folder)
    return load_predictor(str(folder))


def test_a_tokenizer_with_more_ids_than_the_model_is_refused_before_work(runs: Path, tmp_path: Path) -> None:
    """When it is loaded, where the ids of a short text show it; or else before the model reads such a word."""
    largest = WORDS.index("one")
    predictor = changed_teacher(
        runs, tmp_path / "small", lambda model: model.resize_token_embeddings(largest)
    )
    with pytest.raises(
        ModelError, match=rf"token id {largest}, and the embedding matrix of \S+ has {largest} rows"
    ):
        predictor([["the"], ["a", "one"]])
    with pytest.raises(ModelError, match=r"and the embedding matrix of \S+ has 5 rows"):
        changed_teacher(runs, tmp_path / "tiny", lambda model: model.resize_token_embeddings(5))


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("O", "bad", "good", "B-x", "I-x"), "'bad'. This is no tag of BIO2"),
        (("O", "B-x", "I-x", "E-x", "S-x"), "'E-x'. This is BIOES"),
        (tuple(f"LABEL_{k}" for k in range(5)), "'LABEL_0'. This is no tag of BIO2"),
    ],
)
def test_tags_of_another_scheme_have_no_spans(
    names: tuple[str, ...], fault: str, runs: Path, tmp_path: Path
) -> None:
    def renamed(model: Any) -> None:
        model.config.id2label = dict(enumerate(names))

    predictor = changed_teacher(runs, tmp_path / "other", renamed)
    words = [["the", "film", "was", "fine"], ["dull"]]
    teacher: Any = load_predictor(str(runs / "teacher"))
    assert predictor(words) == [[names[NAMES.index(tag)] for tag in row] for row in teacher(words)]
    with pytest.raises(ModelError, match=f"spans of .*other: it predicts the tag {fault}"):
        predictor.spans(words)
    file, lines = tmp_path / "rows.jsonl", list[str]()
    file.write_text("".join(json.dumps({"tokens": row}) + "\n" for row in words))
    with logged(lines):
        predict(str(tmp_path / "other"), file, tmp_path / "out.jsonl")
    warnings = [line for line in lines if "predicted_spans is null in every row" in line]
    assert len(warnings) == 1
    assert fault in warnings[0]
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [row["predicted_tags"] for row in written] == predictor(words)
    assert [row["predicted_spans"] for row in written] == [None, None]


def test_logits_that_are_not_finite_are_refused(runs: Path, tmp_path: Path) -> None:
    """The row named is the first of those at fault, whatever the lengths of the rows."""

    def broken(model: Any) -> None:
        model.get_input_embeddings().weight.data[WORDS.index("film")] = 3e38

    predictor = changed_teacher(runs, tmp_path / "broken", broken)
    assert predictor([["the", "fine"]]) == load_predictor(str(runs / "teacher"))([["the", "fine"]])
    with pytest.raises(ModelError, match="NaN or infinite values for the text 'film'"):
        predictor([["the", "fine"], ["film"], ["the", "film", "was", "fine"]])


def test_lines_of_predictions_are_json_and_keep_their_characters(runs: Path, tmp_path: Path) -> None:
    line = '{"tokens":["\\u0066ine"],   "x": 1.50, "big": 12345678901234567890123, "e": 1E3}'
    file, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    file.write_text(line + "\n")
    predict(str(runs / "teacher"), file, output)
    assert output.read_text(encoding="utf-8").startswith(line[:-1] + ', "predicted_tags": ["')
    Dataset.from_list([{"tokens": ["fine"], "x": float("nan"), "y": [float("inf"), 1.0]}]).to_parquet(
        tmp_path / "rows.parquet"
    )
    predict(str(runs / "teacher"), tmp_path / "rows.parquet", output, overwrite=True)
    found = json.loads(output.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (found["x"], found["y"]) == (None, [None, 1.0])
