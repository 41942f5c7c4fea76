"""One whole export through the command line: its files, its figures, its card, and an audit of it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

import gradistill
from families import build
from gradistill.auditing.onnx_predictor import OnnxPredictor
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.commands import export as command
from gradistill.commands import export_cost
from gradistill.commands.export_choice import ExportChoice
from gradistill.commands.recorded_data import data_record, read_as_trained, with_positive
from gradistill.data import DataChoice, read_splits
from gradistill.data.changed_copies import Copy
from gradistill.errors import ModelError, RecipeError
from gradistill.export.onnx_export import OPSET
from gradistill.export.peak_memory import peak_memory_mb
from gradistill.models.facts import set_thresholds
from small import WORDS, audit_parts
from typed_command import exit_code
from wordpiece import tokenizer

FILES = {
    "README.md", "config.json", "export.json", "onnx/model.onnx", "onnx/model_quantized.onnx",
    "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip
COPIES = [Copy(("the film was very fine .",)), Copy(("dull",))]


@pytest.fixture(scope="module")
def exported(small: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, str]:
    """An export with INT8 below one of its limits: folder, exit code, what was printed."""
    import contextlib
    import io

    output = tmp_path_factory.mktemp("export") / "out"
    typed = (
        "export", "--student", small.teachers["two"], "--teacher", small.teachers["two"], "--data",
        small.tables["two"], "--label-column", "label", "--text-columns", "text", "--quantize", "int8",
        "--fail-under", "label_loyalty=0.5,teacher_probability_loyalty=1", "--output", output,
    )  # fmt: skip
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("COLUMNS", "80")
        patch.setattr(
            export_cost, "peak_memory_mb", lambda *_: 1.0
        )  # four processes, three of them with torch
        code = exit_code(patch, typed)
    return output, code, printed.getvalue()


def test_the_folder_is_whole_and_names_no_path(exported: tuple[Path, Any, str], small: Any) -> None:
    folder = exported[0]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found - {".gradistill.json"} == FILES
    for name in found:
        content = (folder / name).read_bytes()
        for path in (str(small.folder), str(Path(gradistill.__file__).parent), sys.prefix):
            assert path.encode() not in content, name


def test_the_graph_has_named_axes(exported: tuple[Path, Any, str]) -> None:
    graph = onnx.load(exported[0] / "onnx" / "model.onnx")
    assert graph.opset_import[0].version == OPSET
    axes = {
        part.name: [d.dim_param or d.dim_value for d in part.type.tensor_type.shape.dim]
        for part in (*graph.graph.input, *graph.graph.output)
    }
    both = ["batch", "sequence"]
    assert axes == {"input_ids": both, "attention_mask": both, "logits": ["batch", 2]}


def test_what_others_load(exported: tuple[Path, Any, str], small: Any) -> None:
    folder = exported[0]
    assert AutoConfig.from_pretrained(folder).id2label == {0: "negative", 1: "positive"}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == json.loads((folder / "export.json").read_text())["max_length"]
    special = json.loads((folder / "special_tokens_map.json").read_text())
    assert special["cls_token"] == tokenizer.cls_token == "[CLS]"


def test_both_graphs_predict_as_the_student(exported: tuple[Path, Any, str], small: Any) -> None:
    model, tokenizer = (
        gradistill.load_classifier(small.teachers["two"])[0],
        gradistill.load_tokenizer(exported[0]),
    )
    wanted = ClassifierPredictor(model, tokenizer).logits(COPIES)
    whole = OnnxPredictor.load(exported[0] / "onnx" / "model.onnx")
    assert whole.logits(COPIES) == pytest.approx(wanted, abs=1e-4)
    small_one = OnnxPredictor.load(exported[0])
    assert small_one.file == exported[0] / "onnx" / "model_quantized.onnx"
    assert small_one.labels == ("negative", "positive")
    far = np.abs(small_one.logits(COPIES) - wanted).max()
    assert 1e-5 < far < 0.5


def test_the_lines_of_the_card_run_without_torch(exported: tuple[Path, Any, str]) -> None:
    card = (exported[0] / "README.md").read_text()
    (block,) = re.findall(r"(?s)```python\n(.*?)```", card)
    program = f"{block}\nimport sys\nassert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=exported[0], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    names = eval(done.stdout)
    texts = [Copy(("a fine film",)), Copy(("a dull one",))]
    known = OnnxPredictor.load(exported[0])
    assert names == [(known.labels or ())[k] for k in known.logits(texts)[0].argmax(axis=1)]


def test_limits_give_the_exit_code(exported: tuple[Path, Any, str]) -> None:
    folder, code, printed = exported
    assert code == 1
    found = json.loads((folder / "export.json").read_text())
    (failed,) = found["failed"]
    assert re.fullmatch(r"teacher_probability_loyalty of int8: 0\.9\d+, below 1", failed)
    assert "FAILED: teacher_probability_loyalty" in printed
    tables = printed[printed.index("size") :].splitlines()
    assert max(len(line) for line in tables if not line.startswith("written to")) <= 80


def test_a_costed_model_is_timed_at_its_own_length() -> None:
    """A teacher that reads a prompt needs more tokens than its student."""
    words = tokenizer(WORDS)
    costed = [
        export_cost.CostedModel("teacher", words, 9, build("bert")),
        export_cost.CostedModel("student", words, 5, build("bert")),
    ]
    lengths = [model.timed([(" ".join(WORDS[:20]),)]).batches[1][0]["input_ids"].shape[1] for model in costed]
    assert lengths == [9, 5]


def test_figures_and_costs(exported: tuple[Path, Any, str]) -> None:
    found = json.loads((exported[0] / "export.json").read_text())
    assert found["parity"]["data"]["rows"] == 10
    assert found["parity"]["made"]["batches"] == ["one token", "full length", "a batch"]
    assert found["loyalty"]["student"]["int8"].keys() == {"label", "probability", "response"}
    assert found["loyalty"]["teacher"].keys() == {"student", "onnx", "int8"}
    assert found["metrics"]["int8"]["accuracy"]["n"] == 10
    costs = found["costs"]
    assert list(costs) == ["teacher", "student", "onnx", "int8"]
    assert costs["int8"]["bytes"] == (exported[0] / "onnx" / "model_quantized.onnx").stat().st_size
    assert costs["student"]["embeddings"] < costs["student"]["parameters"]
    assert all(cost["cores"]["1"]["p50_ms"] <= cost["cores"]["1"]["p95_ms"] for cost in costs.values())
    assert costs["teacher"]["cores"]["1"]["times"] == 1
    assert [cost["peak_mb"] for cost in costs.values()] == [1.0] * 4


def test_an_onnx_model_needs_no_torch_in_memory(exported: tuple[Path, Any, str]) -> None:
    ids = np.full((2, 5), 7)
    found = peak_memory_mb(
        exported[0] / "onnx" / "model.onnx", {"input_ids": ids, "attention_mask": ids // ids}
    )
    assert found is not None
    assert 20 < found < 200
    assert peak_memory_mb(exported[0] / "nowhere.onnx", {}) is None


def test_an_audit_takes_the_folder_and_the_file(
    exported: tuple[Path, Any, str], small: Any, tmp_path: Path
) -> None:
    parts = audit_parts(response_rows=2, costs=True, floor_rows=200)
    students = [str(exported[0]), str(exported[0] / "onnx" / "model.onnx")]
    found = gradistill.audit(str(small.teachers["two"]), students, small.choice("two"), tmp_path / "a", parts)
    files = [student["file"] for student in found["students"]]
    assert files == ["model_quantized.onnx", "model.onnx"]
    names = [student["name"] for student in found["students"]]
    assert list(found["costs"]) == ["teacher", *names]
    speed = found["costs"]["teacher"]["cores"]["1"]
    assert speed["p95_ms"] >= speed["p50_ms"] > 0
    assert speed["times"] == 1
    assert found["costs"]["teacher"]["embeddings"] > 0
    table, page = ((tmp_path / "a" / name).read_text(encoding="utf-8") for name in ("audit.md", "audit.html"))
    assert re.search(r"\| model \| MB \| times smaller \|.*\n\|---.*\n\| teacher \| 0\.\d \| 1\.0", table)
    assert "Speed of the models" in page


def test_an_export_knows_the_columns_and_the_positive_class_of_the_run(small: Any, tmp_path: Path) -> None:
    """Inferred anew the columns would be a pair, and F1 of an audit that of the other class."""
    student, output, file = tmp_path / "student", tmp_path / "out", tmp_path / "validation.jsonl"
    small.distilled("kd", "two", student)
    run = json.loads((student / "metrics.json").read_text())
    assert run["positive"] == "positive"
    (student / "metrics.json").write_text(json.dumps(run | {"positive": "negative"}))
    with (small.tables["two"] / "validation.csv").open() as source:
        rows = [{"remark": f"one of {k % 4} remarks", **row} for k, row in enumerate(csv.DictReader(source))]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert gradistill.load_splits(str(file), splits=("validation",)).task.text_columns == ("remark", "text")

    def export(model: Path, output: Path) -> dict[str, Any]:
        choice = ExportChoice(timing=False, response_rows=0)
        return gradistill.export_model(str(model), output, choice, data=str(file))

    found = export(student, output)
    assert found["trained"] == {"text_columns": ["text"], "label_column": "label", "positive": "negative"}
    assert found["data"]["positive"] == "negative"
    assert not found["data"]["pairs"]
    assert gradistill.load_predictor(str(output)).text_columns == ("text",)
    gradistill.predict(str(output), file, tmp_path / "predicted.csv")
    splits = read_as_trained(
        DataChoice(str(file)), [output / "none", output], partial(read_splits, splits=("validation",))
    )
    assert splits.task.text_columns == ("text",)
    assert with_positive(splits, None, [output]).task.positive_label == "negative"
    for damaged in ('{"trained": 3}', '{"trained": {"text_columns": "text", "positive": 1}}'):
        (output / "export.json").write_text(damaged)
        assert data_record(output) == {}


def test_nothing_is_left_where_the_graph_computes_something_else(
    exported: tuple[Path, Any, str], small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_another_model(model: Any, tokenizer: Any, file: Path) -> Any:
        file.parent.mkdir()
        shutil.copy(exported[0] / "onnx" / "model.onnx", file)
        return {"inputs": ["input_ids", "attention_mask"]}

    monkeypatch.setattr(command, "write_onnx", of_another_model)
    model = gradistill.load_classifier(small.teachers["two"])[0]
    model.classifier.bias.data += 0.01
    student = (model, gradistill.load_tokenizer(small.teachers["two"]))
    with pytest.raises(ModelError, match=r"(?s)on one token, row 0, its logits are \[.*1 of 1 rows differ"):
        gradistill.export_model(student, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choice": ExportChoice(limits={"label_loyalty": 0.9})}, "a limit was given, and no data"),
        ({"teacher": "anything"}, "a teacher was given, and no data"),
        ({"choice": ExportChoice(limits={"teacher_label_loyalty": 0.9}), "data": "x"}, "and no teacher"),
    ],
)
def test_options_that_would_do_nothing(
    options: dict[str, Any], message: str, small: Any, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        gradistill.export_model(str(small.teachers["two"]), tmp_path / "out", **options)


def test_choices_that_cannot_be() -> None:
    for fields, message in (
        ({"quantize": "int4"}, "quantize is 'int4'"),
        ({"limits": {"lable_loyalty": 1.0}}, "did you mean 'label_loyalty'"),
        ({"limits": {"teacher_label": 1.01}}, "the limit of teacher_label is 1.01"),
        ({"least_loyalty": 2.0}, "least_loyalty of ExportChoice is 2.0"),
        ({"embedding_bits": 2}, "embedding_bits is 2"),
        ({"embedding_bits": 4}, "nothing is quantised"),
        ({"vocabulary_size": 9}, "no texts whose tokens stay"),
    ):
        with pytest.raises(RecipeError, match=message):
            ExportChoice(**fields)


def test_an_option_of_data_without_data(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ("export", "--student", small.teachers["two"], "--task", "sst2", "--output", tmp_path / "out")
    assert exit_code(monkeypatch, typed) == 2
    assert "--task was given, and no --data" in "".join(capsys.readouterr())


def test_without_the_packages_the_extra_is_named(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        ModelError, match=r"(?s)needs onnxscript, which is.*pip install 'gradistill\[export\]'"
    ):
        gradistill.export_model(str(small.teachers["two"]), tmp_path / "out")


@pytest.mark.slow
def test_without_rows_parity_is_checked_on_made_ids_alone(tmp_path: Path) -> None:
    build("bert", num_hidden_layers=1).save_pretrained(tmp_path / "model")
    tokenizer(WORDS).save_pretrained(tmp_path / "model")
    found = gradistill.export_model(tmp_path / "model", tmp_path / "export", ExportChoice(timing=False))
    assert {*found["parity"]} == {"made"}
    assert "generated rows." in (tmp_path / "export" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_two_factors_of_the_embeddings_stay_apart_in_the_graph(small: Any, tmp_path: Path) -> None:
    """The run's folder is a plain model of transformers, and that of its export computes the same."""
    small.distilled("kd", "two", tmp_path / "student", "student.embedding_rank=4")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    table = model.get_input_embeddings().weight.detach().numpy()
    assert np.linalg.matrix_rank(table, tol=1e-5) == model.config.embedding_rank == 4
    choice = ExportChoice(quantize="int8", timing=False, embedding_bits=4, response_rows=0, least_loyalty=0.0)
    found = gradistill.export_model(tmp_path / "student", tmp_path / "out", choice, data=small.choice("two"))
    assert found["parity"]["data"]["largest_difference"] < 1e-4
    stored = onnx.load(tmp_path / "out" / "onnx" / "model.onnx").graph.initializer
    shapes = {part.name.split(".embeddings.")[-1]: tuple(part.dims) for part in stored}
    assert shapes["word_embeddings.factor.weight"] == (len(table), 4)
    assert "word_embeddings.weight" not in shapes
    assert found["int8"]["embedding_bits"] == 4


LABELS = ("long", "negative", "positive")
ROWS = [
    {
        "text": f"the film was {'very ' * (k % 4)}{('dull', 'fine')[k % 2]} .",
        "labels": [LABELS[1 + k % 2], *(["long"] if k % 4 == 3 else [])],
    }
    for k in range(10)
]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A model of several labels a row with thresholds far apart, and its export with INT8: both folders, figures."""
    folder = tmp_path_factory.mktemp("several")
    model = build("bert", num_hidden_layers=1, initializer_range=0.5, id2label=dict(enumerate(LABELS)))
    model.config.problem_type = "multi_label_classification"
    tokens = tokenizer(WORDS)
    logits = ClassifierPredictor(model, tokens).logits([Copy((row["text"],)) for row in ROWS])[0]
    set_thresholds(model, 1 / (1 + np.exp(-np.quantile(logits, 0.45, axis=0))))
    model.save_pretrained(folder / "model")
    tokens.save_pretrained(folder / "model")
    choice = ExportChoice(quantize="int8", timing=False, response_rows=4, least_loyalty=0.5)
    found = gradistill.export_model(folder / "model", folder / "out", choice, data={"validation": ROWS})
    return folder / "model", folder / "out", found


def test_several_labels_a_row_are_exported_with_their_thresholds(
    several: tuple[Path, Path, dict[str, Any]],
) -> None:
    model, output, found = several
    figures = found["loyalty"]["student"]["onnx"]
    for name in ("label", "exact_match", "probability"):
        assert figures[name]["value"] == pytest.approx(1, abs=1e-3), name
    assert found["loyalty"]["student"]["int8"].keys() == {"label", "exact_match", "probability", "response"}
    assert found["metrics"]["int8"].keys() == {"micro_f1", "macro_f1", "average_precision", "exact_match"}
    texts = [row["text"] for row in ROWS]
    whole, smaller, plain = (
        gradistill.load_predictor(source) for source in (output / "onnx" / "model.onnx", output, model)
    )
    assert whole.multi_label
    assert smaller.multi_label
    assert whole.predict(texts) == plain.predict(texts)
    assert whole(texts) == pytest.approx(plain(texts), abs=1e-4)
    chosen: Any = plain.predict(texts)
    assert {len(labels) for labels in chosen} != {1}, "thresholds that decide something"
    assert chosen != [[LABELS[k] for k in np.flatnonzero(row > 0.5)] for row in plain(texts)]
    other: Any = smaller.predict(texts)
    same = [[(name in a) == (name in b) for name in LABELS] for a, b in zip(chosen, other, strict=True)]
    assert found["loyalty"]["student"]["int8"]["label"]["value"] == pytest.approx(np.mean(same))


@pytest.mark.slow
def test_an_audit_compares_several_labels_with_the_graph(
    several: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The labels of the graph stand in another order, and its thresholds with them."""
    model, output, _ = several
    parts = audit_parts(response_rows=3, floor_rows=200)
    turned = shutil.copytree(output, tmp_path / "turned")
    config = json.loads((turned / "config.json").read_text())
    graph = onnx.load(turned / "onnx" / "model.onnx")
    output_name = graph.graph.output[0].name
    for node in graph.graph.node:
        node.output[:] = ["plain" if name == output_name else name for name in node.output]
    order = onnx.numpy_helper.from_array(np.array([2, 0, 1]), "order")
    graph.graph.initializer.append(order)
    graph.graph.node.append(onnx.helper.make_node("Gather", ["plain", "order"], [output_name], axis=1))
    onnx.save(graph, turned / "onnx" / "model.onnx")
    (turned / "onnx" / "model_quantized.onnx").unlink()
    config["id2label"] = {str(k): LABELS[old] for k, old in enumerate((2, 0, 1))}
    config["label2id"] = {name: int(k) for k, name in config["id2label"].items()}
    config["thresholds"] = [config["thresholds"][old] for old in (2, 0, 1)]
    (turned / "config.json").write_text(json.dumps(config))
    found = gradistill.audit(str(model), [str(turned)], {"validation": ROWS}, tmp_path / "audit", parts)
    loyalty = found["students"][0]["figures"]["loyalty"]
    for name in ("label", "exact_match", "response"):
        assert loyalty[name]["value"] == pytest.approx(1, abs=1e-3), name
    assert found["metrics"]["turned"] == pytest.approx(found["metrics"]["teacher"])


def test_the_card_of_several_labels_lists_those_above_their_thresholds(
    several: tuple[Path, Path, dict[str, Any]],
) -> None:
    _, output, _ = several
    (block,) = re.findall(r"(?s)```python\n(.*?)```", (output / "README.md").read_text())
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=output, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout) == gradistill.load_predictor(output).predict(["a fine film", "a dull one"])


def test_models_of_one_label_and_of_several_are_not_compared(
    several: tuple[Path, Path, dict[str, Any]], small: Any, tmp_path: Path
) -> None:
    """Log-probabilities of a function would be read as log-odds."""
    model, output, _ = several
    with pytest.raises(ModelError, match="predicts one label a row"):
        gradistill.export_model(
            model,
            tmp_path / "out",
            data={"validation": ROWS},
            teacher=lambda texts: [[0.2, 0.3, 0.5]] * len(texts),
        )
    with pytest.raises(
        ModelError, match="predicts several labels a row, and the teacher predicts one label a row"
    ):
        gradistill.audit(str(small.teachers["two"]), [str(output)], small.choice("two"), tmp_path / "audit")


@pytest.mark.parametrize(("int8", "warned"), [(0.31, True), (0.64, False), (None, False)])
def test_reasons_that_int8_loses_are_a_warning(int8: float | None, warned: bool) -> None:
    student = {"response": {"value": 0.66, "low": 0.61, "high": 0.7}}
    loyalty = {"teacher": {"student": student, "int8": {"response": {"value": int8}}}}
    found = command._lost_reasons(loyalty)
    assert any("0.310, the student's 0.660 (0.610 to 0.700)" in text for text in found) is warned
    assert len(found) == warned
    assert command._lost_reasons({}) == command._lost_reasons({"teacher": {"student": {}}}) == []
