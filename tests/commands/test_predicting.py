"""``gradistill predict`` and ``load_predictor``: the model's own predictions, beside rows that stay as they are."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import expit, softmax
from tokenizers import normalizers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import gradistill
from gradistill.commands import predict as module
from gradistill.commands.predict import predict
from gradistill.commands.text_predictor import TextPredictor, load_predictor
from gradistill.commands.unfinished_predictions import UnfinishedPredictions, folder_of
from gradistill.data.multilabel_metrics import assigned
from gradistill.errors import DataError, GradistillError, ModelError, RecipeError
from gradistill.models.loading import load_classifier, load_tokenizer
from slow import slow
from small import NAMES, logged, texts
from typed_command import exit_code

KILLS, CHUNK = 4, 4
TABLE = np.random.default_rng(0).normal(size=(99, 3)).astype(np.float32)
AWKWARD = ['the "film" was fine', "the film,\nwas; a\r\nvery poor one", " a\tgreat film ", "film \u2028 été"]


def witness(folder: Path, columns: list[list[str]], max_length: int = 128) -> np.ndarray:
    """One row after the other, by nothing but transformers and torch."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    with torch.no_grad():
        for row in zip(*columns, strict=True):
            logits = model(
                **tokenizer(*row, truncation=True, max_length=max_length, return_tensors="pt")
            ).logits[0]
            rows.append((logits if len(logits) == 1 else logits.softmax(-1)).numpy())
    return np.stack(rows)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """What another program reads of it."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line]
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("written", [".csv", ".jsonl", ".parquet"])
def test_rows_stay_and_predictions_are_the_models_own(
    ending: str, written: str, small: Any, tmp_path: Path
) -> None:
    rows = [{"id": str(k), "text": text} for k, text in enumerate(AWKWARD * 2)]
    data, output = write(tmp_path / f"rows{ending}", rows), tmp_path / f"out{written}"
    found = predict(str(small.teachers["two"]), data, output)
    assert (found["rows"], found["computed"], found["cut"]) == (8, 8, 0)
    expected = witness(small.teachers["two"], [[row["text"] for row in rows]])
    for row, out, own in zip(rows, read(output), expected, strict=True):
        assert list(out) == [
            *row,
            "predicted_label",
            "probability_negative",
            "probability_positive",
            "text_cut",
        ]
        assert {name: out[name] for name in row} == row
        probabilities = [float(out[f"probability_{name}"]) for name in ("negative", "positive")]
        assert probabilities == pytest.approx(own, abs=1e-6)  # float32, and sums in another order
        assert out["predicted_label"] == ("negative", "positive")[int(own.argmax())]
        assert str(out["text_cut"]).lower() == "false"


def test_a_predictor_of_pairs_gives_the_numbers_of_the_file(small: Any, tmp_path: Path) -> None:
    rows, folder = texts("three", 12), small.teachers["three"]
    predictor = gradistill.load_predictor(str(folder))
    labels = predictor.labels
    assert labels == tuple(sorted(NAMES["three"] or ()))
    assert predictor.text_columns == ("text", "other")
    pairs = [(row["text"], row["other"]) for row in rows]
    probabilities = predictor(pairs)
    assert probabilities.dtype == np.float32
    assert probabilities == pytest.approx(
        witness(folder, list(map(list, zip(*pairs, strict=True)))), abs=1e-6
    )
    assert predictor.predict(pairs[:2]) == [labels[k] for k in probabilities[:2].argmax(-1)]
    assert predictor([]).shape == (0, 3)
    predict(str(folder), write(tmp_path / "rows.parquet", rows), tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert np.array_equal(np.stack([table[f"probability_{name}"] for name in labels], 1), probabilities)


def test_a_regression_has_scores(small: Any, tmp_path: Path) -> None:
    rows, folder = texts("score", 6), small.teachers["score"]
    predict(str(folder), write(tmp_path / "rows.csv", rows), tmp_path / "out.jsonl")
    out = read(tmp_path / "out.jsonl")
    assert list(out[0]) == ["text", "other", "label", "predicted_score", "text_cut"]
    expected = witness(folder, [[row[name] for row in rows] for name in ("text", "other")])
    assert [row["predicted_score"] for row in out] == pytest.approx(expected[:, 0], abs=1e-5)
    predictor = load_predictor(str(folder))
    assert predictor.labels is None
    assert predictor([("the film", "a fine one")]).shape == (1, 1)
    assert isinstance(predictor.predict([("the film", "a fine one")])[0], float)


def onnx_folder(small: Any, folder: Path, *, pooled: bool) -> Path:
    """The mean of rows of a table, or without ``pooled`` the rows themselves, as logits of three labels."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder.mkdir()
    shape = ["rows", 3] if pooled else ["rows", "tokens", 3]
    ids = onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["rows", "tokens"])
    out = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)
    table = onnx.numpy_helper.from_array(TABLE, "table")
    nodes = [onnx.helper.make_node("Gather", ["table", "input_ids"], ["found" if pooled else "logits"])]
    if pooled:
        axis = onnx.numpy_helper.from_array(np.array([1]), "axis")
        nodes += [onnx.helper.make_node("ReduceMean", ["found", "axis"], ["logits"], keepdims=0)]
    graph = onnx.helper.make_graph(nodes, "mean", [ids], [out], [table, axis] if pooled else [table])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(made, folder / "model.onnx")
    load_tokenizer(str(small.base)).save_pretrained(folder)
    load_classifier(str(small.teachers["three"]))[0].config.save_pretrained(folder)
    return folder


def test_an_onnx_folder_predicts_too(small: Any, tmp_path: Path) -> None:
    folder = onnx_folder(small, tmp_path / "onnx", pooled=True)
    rows = [{"text": "a fine film"}, {"text": "the poor film"}, {"text": "one film was"}]  # of one length
    predict(str(folder), write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl")
    ids = np.array(load_tokenizer(str(folder))([row["text"] for row in rows])["input_ids"])
    expected = softmax(TABLE[ids].mean(1), axis=-1)
    labels = load_predictor(str(folder)).labels or ()
    out = [[row[f"probability_{label}"] for label in labels] for row in read(tmp_path / "out.jsonl")]
    assert np.array(out) == pytest.approx(expected, abs=1e-6)


def test_an_onnx_model_that_is_no_classifier_is_refused(small: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"returned an array of shape \(1, 10, 3\)"):
        load_predictor(str(onnx_folder(small, tmp_path / "onnx", pooled=False)))


def test_lines_of_json_keep_their_characters(small: Any, tmp_path: Path) -> None:
    lines = [
        '{"n":1.10, "text" :"a film" }',
        '{"text": "caf\\u00e9", "o": {"b": [1e3]}}',
        '{"text": "x", "n": NaN}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    predict(str(small.teachers["two"]), tmp_path / "rows.jsonl", tmp_path / "out.jsonl")
    for line, out in zip(lines, (tmp_path / "out.jsonl").read_text().splitlines(), strict=True):
        assert out.startswith(line[:-1].rstrip() + ', "predicted_label": "')


def test_the_delimiter_and_quotes_of_a_file_stay(small: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b'text;n\nfine film;3,5\n"a; film";1,0\n')
    (tmp_path / "rows.tsv").write_bytes(b'text\tn\n"fine" film\t3\npoor film\t1\n')
    for name in ("rows.csv", "rows.tsv"):
        predict(str(small.teachers["two"]), tmp_path / name, tmp_path / f"out.{name}", text_columns="text")
    assert (tmp_path / "out.rows.csv").read_bytes().splitlines()[2].startswith(b'"a; film";1,0;')
    assert (tmp_path / "out.rows.tsv").read_bytes().splitlines()[1].startswith(b'"fine" film\t3\t')


def test_a_first_line_that_reads_like_a_text_is_a_warning(small: Any, tmp_path: Path) -> None:
    path, lines = tmp_path / "rows.csv", list[str]()
    for first, warned in (("that was a waste of time", True), ("What did you like about it?", False)):
        path.write_text(f"{first}\na fine film\na poor film\n")
        with logged(lines):
            predict(str(small.teachers["two"]), path, tmp_path / "out.csv", overwrite=True)
        assert ("the first line was taken for names" in "\n".join(lines)) == warned
        lines.clear()


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.csv.gz"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_byte_order_mark_and_ends_of_lines_stay(
    small: Any, tmp_path: Path, name: str, mark: bytes, end: bytes
) -> None:
    between = b"\t" if name.endswith(".tsv") else b";"
    data = mark + end.join([between.join([b"text", b"n"]), between.join(["schön".encode(), b"3"]), b""])
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    out = tmp_path / f"out.{name.removesuffix('.gz')}"
    predict(str(small.teachers["two"]), tmp_path / name, out, text_columns="text")
    written = out.read_bytes()
    assert written.startswith(mark + b"text" + between)
    assert written.count(b"\xef\xbb\xbf") == (1 if mark else 0)
    assert written.endswith(end)
    lines = written.split(end)
    assert (len(lines), lines[1].startswith("schön".encode() + between)) == (3, True)
    assert not any(byte in line for line in lines for byte in (b"\r", b"\n"))


def test_texts_that_are_cut_or_blank_are_marked_and_counted(small: Any, tmp_path: Path) -> None:
    rows = [{"text": "a film"}, {"text": "the film was very very very fine ."}, {"text": "\u200b"}]
    lines: list[str] = []
    with logged(lines):
        found = predict(
            str(small.teachers["two"]), write(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl", max_length=6
        )
    assert found["cut"] == 1
    assert [row["text_cut"] for row in read(tmp_path / "b.jsonl")] == [False, True, False]
    warnings = [line for line in lines if line.startswith("WARNING")]
    assert warnings[0] == (
        "WARNING: 1 of 3 texts are cut at 6 tokens (the longest has 10); the column text_cut marks them"
    )
    assert "the first is row 3" in warnings[1]
    own = witness(small.teachers["two"], [[row["text"] for row in rows]], 6)
    assert [row["probability_negative"] for row in read(tmp_path / "b.jsonl")] == pytest.approx(
        own[:, 0], abs=1e-6
    )
    with pytest.raises(RecipeError, match="leaves no room"):
        predict(str(small.teachers["two"]), tmp_path / "a.jsonl", tmp_path / "c.jsonl", max_length=2)


@pytest.mark.parametrize("kind", ["two", "three", "score"])
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_rows_without_a_text_keep_their_place_and_have_no_prediction(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, ending: str
) -> None:
    texts = ["a fine film", "", "a poor film", "  ", "fine", "a film"]
    rows = [{"text": text, "other": "poor"} for text in texts]
    if ending != ".csv":
        rows[1]["text"] = None  # pyright: ignore
    columns = ["text"] if kind == "two" else ["text", "other"]
    monkeypatch.setattr("gradistill.commands.predict.CHUNK_ROWS", 2)  # the second chunk and others
    out, lines = tmp_path / f"out{ending}", list[str]()
    with logged(lines):
        found = predict(
            str(small.teachers[kind]), write(tmp_path / f"a{ending}", rows), out, text_columns=columns
        )
    assert (found["incomplete"], found["computed"]) == (2, 4)
    assert "2 of 6 rows lack a text and have no prediction; the first is row" in "\n".join(lines)
    written = read(out)
    added = [name for name in written[0] if name not in ("text", "other")]
    assert added[-1] == "text_cut"
    for row, text in zip(written, texts, strict=True):
        empty = [row[name] in (None, "") for name in added]
        assert all(empty) if not text.strip() else not any(empty)
    full = [row for row in rows if row["text"] and row["text"].strip()]
    predict(str(small.teachers[kind]), write(tmp_path / f"b{ending}", full), tmp_path / f"full{ending}",
            text_columns=columns)  # fmt: skip
    there = [row for row, text in zip(written, texts, strict=True) if text.strip()]
    for row, alone in zip(there, read(tmp_path / f"full{ending}"), strict=True):
        for name in added:
            assert row[name] == alone[name] or float(row[name]) == pytest.approx(float(alone[name]), abs=1e-6)


def refused(small: Any, data: Path, output: Path, **options: Any) -> str:
    kind = options.pop("kind", "two")
    model = options.pop("model", str(small.teachers[kind]))
    with pytest.raises(GradistillError) as error:
        predict(model, data, output, **options)
    assert error.value.remedy
    assert not folder_of(output).exists()
    return str(error.value)


def test_what_is_refused(small: Any, tmp_path: Path) -> None:
    good = write(tmp_path / "good.csv", [{"text": "a fine film"}, {"text": "a poor film"}])
    out = tmp_path / "out.csv"
    taken = write(tmp_path / "taken.csv", [{"text": "a film", "probability_negative": "1", "text_cut": "no"}])
    assert "probability_negative, text_cut" in refused(small, taken, out)
    assert "out.json is of a kind that is not written" in refused(small, good, tmp_path / "out.json")
    assert "is of a kind that is not read" in refused(small, write(tmp_path / "a.xml", [{"text": "a"}]), out)
    assert "is the file of the data" in refused(small, good, good, overwrite=True)
    assert "There is no file" in refused(small, tmp_path / "none.csv", out)
    assert "is a folder" in refused(small, tmp_path, out)
    assert "lacks weights" in refused(small, good, out, model=str(small.base))
    assert "1 text a row, and the model was trained on 2" in refused(
        small, good, out, kind="three", text_columns=["text"]
    )
    assert "no row has a text (text)" in refused(
        small, write(tmp_path / "blank.csv", [{"text": "", "n": "1"}, {"text": " ", "n": "2"}]), out,
        text_columns="text",
    )  # fmt: skip
    out.write_text("mine")
    assert "exists" in refused(small, good, out)
    assert out.read_text() == "mine"
    assert predict(str(small.teachers["two"]), good, out, overwrite=True)["rows"] == 2
    assert len(read(out)) == 2


def test_texts_of_a_call_are_checked(small: Any) -> None:
    predictor = load_predictor(str(small.teachers["two"]))
    for given, message in (
        ("a film", "put a single text into a list"),
        (["a film", " "], "Text 1 .*: the text is empty"),
        ([("a", "b"), "c"], "Text 1 .* of another kind"),
        ([("a", "b")], "2 texts a row, and the model was trained on 1"),
        ([("a", "b", "c")], "of the type tuple"),
    ):
        with pytest.raises(DataError, match=f"(?s){message}"):
            predictor(given)  # pyright: ignore


def test_an_audit_takes_a_predictor_for_a_function(small: Any) -> None:
    from gradistill.commands.audit_model import AuditModel

    predictor = load_predictor(str(small.teachers["two"]))
    audited = AuditModel.load(predictor, "student", "a predictor")
    assert audited.labels == predictor.labels


def test_lines_of_a_pipe_become_json_lines(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any
) -> None:
    def piped(given: bytes, output: object, *more: object, kind: str = "two") -> tuple[int, list[Any], str]:
        (tmp_path / "given").write_bytes(given)
        with (tmp_path / "given").open(encoding="ascii") as stream:  # its encoding is not the terminal's
            monkeypatch.setattr(sys, "stdin", stream)
            model = str(small.teachers[kind])
            code = exit_code(
                monkeypatch, ("predict", "--model", model, "--data", "-", "--output", output, *more)
            )
        out, err = capfdbinary.readouterr()
        lines = out.splitlines() if output == "-" else []  # stdout holds nothing else then
        return code, [json.loads(line) for line in lines], err.decode()

    code, out, err = piped("a fine film\r\né 'poor'\tone\n".encode(), "-")
    assert code == 0
    assert [row["text"] for row in out] == ["a fine film", "é 'poor'\tone"]
    assert list(out[0])[1:3] == ["predicted_label", "probability_negative"]
    assert "2 rows in" in err
    code, out, _ = piped(b"a film\ta fine one\n", "-", "--quiet", kind="three")
    assert (out[0]["text"], out[0]["other"]) == ("a film", "a fine one")
    for given, message in ((b"a\n\xff", "row 2: not UTF-8"),):
        code, _, err = piped(given, "-")
        assert code == 2
        assert message in err
    code, out, err = piped(b"a\n\nb\n", "-")  # as many lines as came
    assert code == 0
    assert [row["text"] for row in out] == ["a", "", "b"]
    assert [row["predicted_label"] is None for row in out] == [False, True, False]
    assert "1 of 3 rows lack a text and have no prediction; the first is row 2" in err
    code, out, err = piped(b"a\tb\n\nb\t\na\tc\n", "-", kind="three")
    assert code == 0
    assert [row["predicted_label"] is None for row in out] == [False, True, True, False]
    code, _, _ = piped(b"a film\n", tmp_path / "lines.parquet")
    assert code == 0
    assert read(tmp_path / "lines.parquet")[0]["text"] == "a film"
    assert not folder_of(tmp_path / "lines.parquet").exists()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", CHUNK)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("ending", [".csv", slow(".parquet")])
def test_killed_at_any_moment_it_goes_on_and_writes_the_same_bytes(
    ending: str, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of its own, a fork of this one that has the model loaded, with a real SIGKILL. Its moment is counted in
    chunks that were predicted: a clock alone would kill too early, or too late, where the machine is busy."""
    model, data = str(small.teachers["two"]), write(tmp_path / "rows.csv", texts("two", 60))
    predictor = load_predictor(model)
    monkeypatch.setattr(module, "load_predictor", lambda *_, **__: predictor)
    predicted, chunks = TextPredictor.predicted, [0]

    def counted(*arguments: Any, **named: Any) -> Any:
        chunks[0] += 1
        return predicted(*arguments, **named)

    monkeypatch.setattr(TextPredictor, "predicted", counted)

    def noting(pipe: int) -> Any:
        return lambda *given, **named: (os.write(pipe, b"."), predicted(*given, **named))[1]

    start = time.perf_counter()
    predict(model, data, tmp_path / f"whole{ending}")
    took, whole = time.perf_counter() - start, (tmp_path / f"whole{ending}").read_bytes()
    chance, kills, went_on, all_chunks = random.Random(0), 0, 0, chunks[0]
    assert all_chunks > 5
    while kills < KILLS or (went_on < 2 and kills < 5 * KILLS):
        k, kills = kills, kills + 1
        output = tmp_path / f"out{k}{ending}"
        reading, writing = os.pipe()
        if (process := os.fork()) == 0:
            os.close(reading)
            monkeypatch.setattr(TextPredictor, "predicted", noting(writing))
            try:
                predict(model, data, output)
            finally:
                os._exit(0)
        os.close(writing)
        for _ in range(chance.randint(0, all_chunks)):
            os.read(reading, 1)  # nothing more comes of a process that has ended
        time.sleep(chance.uniform(0, 2) * took / all_chunks)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(reading)
        assert not output.exists() or output.read_bytes() == whole  # never a part of it
        if output.exists() and folder_of(output).exists() and not [*folder_of(output).glob("*.json")]:
            with pytest.raises(RecipeError, match="exists"):  # it was finished, and all but removed
                predict(model, data, output)
        elif not output.exists() or folder_of(output).exists():
            found = predict(model, data, output)
            went_on += 0 < found["computed"] < 60
        assert output.read_bytes() == whole
        assert not folder_of(output).exists()
    assert went_on >= 2
    assert len(list(tmp_path.iterdir())) == kills + 2  # nothing else is left


class _KilledError(BaseException):
    """A kill: nothing of the package catches it."""


@pytest.fixture
def begun(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None
) -> tuple[Path, Path]:
    """Data and output of a prediction that ended after three of five chunks."""
    data, output = write(tmp_path / "rows.csv", texts("two", 20)), tmp_path / "out.csv"
    predicted, calls = TextPredictor.predicted, [0]

    def stopping(self: TextPredictor, some: Any, *more: Any) -> Any:
        calls[0] += len(some) == CHUNK
        if calls[0] > 3:
            raise _KilledError
        return predicted(self, some, *more)

    with monkeypatch.context() as patch:
        patch.setattr(TextPredictor, "predicted", stopping)
        with pytest.raises(_KilledError):
            predict(str(small.teachers["two"]), data, output)
    assert folder_of(output).is_dir()
    return data, output


def test_it_goes_on_after_the_last_whole_chunk(small: Any, begun: tuple[Path, Path]) -> None:
    assert predict(str(small.teachers["two"]), *begun)["computed"] == 8


def test_a_damaged_chunk_is_computed_again(small: Any, begun: tuple[Path, Path]) -> None:
    chunk = sorted(folder_of(begun[1]).glob("chunk-*"))[1]
    chunk.write_bytes(chunk.read_bytes()[:-3])
    lines: list[str] = []
    with logged(lines):
        assert predict(str(small.teachers["two"]), *begun)["computed"] == 12
    assert any("is damaged and computed again" in line for line in lines)


@pytest.mark.parametrize("changed", ["data", "model", "max_length", "tokenizer"])
def test_what_changed_starts_anew_and_is_named(
    changed: str, small: Any, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    data, output = begun
    model, options = str(small.teachers["two"]), {}
    if changed == "data":
        data.write_text(data.read_text().replace("film", "one"))
    elif changed == "max_length":
        options["max_length"] = 20
    elif changed == "tokenizer":  # its vocabulary stays
        reader = load_tokenizer(model)
        reader.backend_tokenizer.normalizer = normalizers.Replace("film", "dull")
        model = str(shutil.copytree(model, tmp_path / "other"))
        reader.save_pretrained(model)
    else:
        classifier, _ = load_classifier(model)
        with torch.no_grad():
            next(classifier.parameters()).add_(1)
        model = str(tmp_path / "other")
        classifier.save_pretrained(model)
        load_tokenizer(str(small.teachers["two"])).save_pretrained(model)
    lines: list[str] = []
    with logged(lines):
        found = predict(model, data, output, text_columns="text", **({"max_length": 32} | options))
    assert found["computed"] == 20
    assert any("are computed again, because something changed" in line and changed in line for line in lines)
    predict(model, data, tmp_path / "whole.csv", text_columns="text", **({"max_length": 32} | options))
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_kill_after_the_output_is_in_place_is_tidied(
    small: Any, begun: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Any) -> None:
        raise _KilledError

    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedPredictions, "remove", killed)
        with pytest.raises(_KilledError):
            predict(str(small.teachers["two"]), *begun)
    whole = begun[1].read_bytes()
    assert predict(str(small.teachers["two"]), *begun) | {"seconds": 0} == {
        "rows": 20, "computed": 0, "cut": 0, "seconds": 0
    }  # fmt: skip
    assert begun[1].read_bytes() == whole
    assert not folder_of(begun[1]).exists()


def test_a_kill_after_the_output_of_a_pipe_is_in_place_hides_no_other_rows(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows which rows an earlier pipe held."""
    model, output = str(small.teachers["two"]), tmp_path / "out.csv"

    def killed(self: Any) -> None:
        raise _KilledError

    def piped(text: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    piped(b"a film\n")
    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedPredictions, "remove", killed)
        with pytest.raises(_KilledError):
            predict(model, "-", output)
    piped(b"a poor film\n")
    with pytest.raises(RecipeError, match="exists"):
        predict(model, "-", output)
    piped(b"a poor film\n")
    assert predict(model, "-", output, overwrite=True)["rows"] == 1
    assert read(output)[0]["text"] == "a poor film"
    assert not folder_of(output).exists()


def test_two_at_once_and_a_folder_of_others_are_refused(small: Any, begun: tuple[Path, Path]) -> None:
    from gradistill.io import locked

    with locked(folder_of(begun[1])), pytest.raises(RecipeError, match="another process is at work"):
        predict(str(small.teachers["two"]), *begun)
    other = begun[1].with_name("other.csv")
    folder_of(other).mkdir()
    (folder_of(other) / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeError, match="thesis.txt"):
        predict(str(small.teachers["two"]), begun[0], other)
    assert (folder_of(other) / "thesis.txt").read_text() == "mine"


def test_data_that_change_meanwhile_are_refused(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None
) -> None:
    data = write(tmp_path / "rows.csv", texts("two", 20))
    predicted = TextPredictor.predicted

    def meddled(self: TextPredictor, some: Any, *more: Any) -> Any:
        if len(some) == CHUNK:
            os.utime(data, (1, 1))
        return predicted(self, some, *more)

    monkeypatch.setattr(TextPredictor, "predicted", meddled)
    with pytest.raises(DataError, match="was changed while it was read"):
        predict(str(small.teachers["two"]), data, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_packed_files_and_lines_of_text_are_read(small: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("a fine film\na poor film\n")
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(b"text,n\na fine film,1\na poor film,2\n"))
    for name in ("rows.txt", "rows.csv.gz"):
        predict(str(small.teachers["two"]), tmp_path / name, tmp_path / f"{name}.csv")
        assert [row["text"] for row in read(tmp_path / f"{name}.csv")] == ["a fine film", "a poor film"]


@pytest.mark.parametrize("thresholds", [None, [0.0, 1.0, 0.5]])
def test_several_labels_a_row(thresholds: list[float] | None, small: Any, tmp_path: Path) -> None:
    """Against the sigmoid of the model's own logits; the file's column is a list that the readers of data take."""
    model, _ = load_classifier(small.teachers["three"])
    tokenizer = load_tokenizer(small.teachers["three"])
    model.config.problem_type, model.config.thresholds = "multi_label_classification", thresholds
    pairs = [("a fine film", "a dull one"), ("poor", "very fine")]
    predictor = load_predictor((model, tokenizer))
    values, names = predictor(pairs), predictor.labels or ()
    encoded = tokenizer(*map(list, zip(*pairs, strict=True)), return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = model.eval()(**encoded).logits.sigmoid().numpy()
    assert values == pytest.approx(expected, abs=1e-6)
    limits = np.array([0.5, 0.5, 0.5] if thresholds is None else thresholds)
    chosen = [[name for name, p, t in zip(names, row, limits, strict=True) if p > t] for row in expected]
    assert predictor.predict(pairs) == chosen
    rows = [{"text": a, "other": b} for a, b in pairs]
    predict(
        (model, tokenizer),
        write(tmp_path / "in.csv", rows),
        tmp_path / "out.csv",
        text_columns=["text", "other"],
    )
    out = read(tmp_path / "out.csv")
    assert [json.loads(row["predicted_labels"]) for row in out] == chosen
    assert "predicted_label" not in out[0]


def test_labels_whose_thresholds_are_nearly_1_are_those_of_the_metrics(small: Any, tmp_path: Path) -> None:
    """A sure model's probabilities differ by less than float32 can."""
    model, _ = load_classifier(small.teachers["three"])
    model.config.problem_type = "multi_label_classification"
    tokenizer = load_tokenizer(small.teachers["three"])
    pairs = [("a fine film", "a dull one"), ("poor", "very fine"), ("dull", "fine"), ("very fine", "a film")]
    with torch.no_grad():
        encoded = tokenizer(*map(list, zip(*pairs, strict=True)), return_tensors="pt", padding=True)
        model.classifier.bias += 24 - model.eval()(**encoded).logits.max(dim=0).values  # 1 − 4e-11
        logits = model(**encoded).logits.numpy()
    thresholds = np.sort(expit(logits.astype(np.float64)), axis=0)[1:3].mean(axis=0)
    model.config.thresholds = thresholds.tolist()
    expected = assigned(logits, thresholds)
    assert (expected.sum(axis=0) == 2).all()
    predictor = load_predictor((model, tokenizer))
    assert predictor.predict(pairs) == [
        [name for name, chosen in zip(predictor.labels or (), row, strict=True) if chosen] for row in expected
    ]
    rows = write(tmp_path / "in.csv", [{"text": a, "other": b} for a, b in pairs])
    predict((model, tokenizer), rows, tmp_path / "out.csv", text_columns=["text", "other"])
    out = [json.loads(row["predicted_labels"]) for row in read(tmp_path / "out.csv")]
    assert out == predictor.predict(pairs)
