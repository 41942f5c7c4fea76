"""Hashes of models and data against hashlib and sha256sum's definition, recipes without what is private."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict

from gradistill.commands.audit import audit
from gradistill.commands.content_hashes import weights_hash
from gradistill.commands.identity import data_files, model_identity
from gradistill.data import get_task
from gradistill.models.loading import load_classifier
from small import audit_parts


def of_bytes(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_model_is_identified_by_its_file_and_by_what_is_in_memory(small: Any) -> None:
    folder = small.teachers["two"]
    model, _ = load_classifier(str(folder))
    found = model_identity(model, str(folder))
    assert found["sha256"] == of_bytes(folder / "model.safetensors")
    assert "method: finetune" in found["recipe"]
    assert str(small.folder) not in found["recipe"]
    with torch.no_grad():
        model.classifier.bias += 1
    changed = model_identity(model, "")
    assert changed["fingerprint"] != found["fingerprint"]
    assert (changed["sha256"], changed["recipe"]) == (None, None)


def test_a_recipe_that_cannot_be_read_is_left_out(small: Any, tmp_path: Path) -> None:
    model, _ = load_classifier(str(small.teachers["two"]))
    (tmp_path / "recipe.yaml").write_text("- no: mapping\n- [")
    assert model_identity(model, str(tmp_path))["recipe"] is None


def test_the_file_of_the_split_is_hashed(tmp_path: Path) -> None:
    task = get_task("sst2")
    for name in ("train.csv", "dev.tsv", "notes.md"):
        (tmp_path / name).write_text(f"content of {name}")
    dev = {"name": "dev.tsv", "sha256": of_bytes(tmp_path / "dev.tsv")}
    assert data_files(str(tmp_path), "validation", task) == [dev]
    assert data_files(tmp_path / "dev.tsv", "validation", task) == [dev]
    assert data_files(str(tmp_path), "test", task) == []
    assert data_files("owner/name", "validation", task) == []
    assert data_files([{"text": "a"}], "validation", task) == []


def test_the_files_of_a_split_are_those_that_it_is_read_from(tmp_path: Path) -> None:
    shards = [f"train-0000{k}-of-00002.jsonl" for k in range(2)]
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for name in (*shards, "test-00000-of-00001.jsonl"):
        (tmp_path / "hub" / "data" / name).write_text('{"text": "a", "label": 0}\n')
    assert [file["name"] for file in data_files(str(tmp_path / "hub"), "train", None)] == shards
    one = Dataset.from_dict({"text": ["a"], "label": [0]})
    one.save_to_disk(tmp_path / "one")
    DatasetDict({"train": one, "dev": one}).save_to_disk(tmp_path / "two")
    for place, split in (("one", "train"), ("two", "train"), ("two", "validation")):
        (found,) = data_files(tmp_path / place, split, None)
        assert found["name"] == "data-00000-of-00001.arrow"


def test_an_onnx_model_is_known_by_its_graph_and_its_weights(tmp_path: Path) -> None:
    graphs = tmp_path / "onnx"
    graphs.mkdir()
    marks = []
    for name, content in (("model.onnx", b"graph"), ("model.onnx.data", b"one"), ("model.onnx.data", b"two")):
        (graphs / name).write_bytes(content)
        marks.append(weights_hash(str(tmp_path)))
    assert len({*marks, "owner/name"}) == 4
    assert weights_hash(str(graphs / "model.onnx")) == marks[-1]
    assert weights_hash("owner/name") == "owner/name"


def test_an_audit_records_what_it_compared_and_why(small: Any, tmp_path: Path) -> None:
    teacher, data = str(small.teachers["two"]), small.choice("two")
    choice = audit_parts(reason="It is <slow>.", floor_rows=200)
    audit(teacher, [teacher], data, tmp_path / "out", choice)
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["teacher"]["sha256"] == found["students"][0]["sha256"]
    assert found["data"]["files"][0]["sha256"] == of_bytes(small.tables["two"] / "validation.csv")
    assert found["reason"] == "It is <slow>."
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "It is &lt;slow&gt;." in page
    assert found["teacher"]["sha256"] in page
    assert str(small.folder) not in page
