"""Hashes that identify models and data by content, not by path: what a stage or a search was made from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from gradistill.auditing.onnx_predictor import graph_files, onnx_file
from gradistill.data.data_choice import DataChoice
from gradistill.data.split_sources import files_of
from gradistill.io import checksum_of, digest
from gradistill.models.adapters import Adapter, adapter_files, is_adapter

LABELLED_SPLITS = ("train", "validation", "test")
UNLABELLED_SPLITS = ("unlabelled",)


def weights_hash(model: str) -> str:
    """A hash of a model's weights files, in a folder or an ONNX file. A hub id stands for itself.

    The hash of an adapter includes its base model.

    Example: ``weights_hash("runs/teacher")``
    """
    if is_adapter(model):
        return "+".join([*adapter_files(model), weights_hash(Adapter.read(model).base)])
    graph = onnx_file(model)
    files = sorted(Path(model).glob("*.safetensors")) if graph is None else graph_files(graph)
    return "+".join(map(checksum_of, files)) or model


def config_and_tokenizer_hash(model: str) -> str | None:
    """A hash of the configuration and tokenizer files in a model's folder: label names, thresholds, tokenization. None
    if there are no such files."""
    files = [Path(model) / name for name in ("config.json", "tokenizer.json", "tokenizer_config.json")]
    hashes = {file.name: checksum_of(file) for file in files if file.is_file()}
    return digest(hashes) if hashes else None


def content_hash(model: str) -> str:
    """A hash of a model's weights, configuration and tokenizer. A hub id stands for itself.

    Example: ``content_hash("runs/teacher")``
    """
    return digest([weights_hash(model), config_and_tokenizer_hash(model)])


def meaning_name(role: str) -> str:
    """The name of the ``config_and_tokenizer_hash`` of a model in this role, in records and in messages about changes.

    Example: ``meaning_name("teacher")``
    """
    return f"labels, sizes or tokenizer of the {role}"


def file_hashes(place: Path, splits: Iterable[str] = LABELLED_SPLITS) -> dict[str, str]:
    """The hashes of the files that these splits of a folder are read from, or of one file, by name. Other files of the
    folder do not count, such as the output of a run in it. A path that does not exist is a hub id."""
    if place.is_file():
        return {place.name: checksum_of(place)}
    if not place.is_dir():
        return {str(place): "hub"}
    files = {file for split in splits for file in files_of(str(place), split, None)}
    return {file.relative_to(place).as_posix(): checksum_of(file) for file in sorted(files)}


def reading_options(choice: DataChoice) -> dict[str, Any]:
    """The options for reading rows: the fields of ``choice`` that are set, without its sources.

    Example: ``reading_options(DataChoice("tickets.csv", validation_share=0.1))``
    """
    how = {f.name: getattr(choice, f.name) for f in fields(choice) if f.name not in ("source", "unlabelled")}
    written: dict[str, Any] = json.loads(json.dumps(how))  # as in a JSON file: tuples become lists
    options = {name: value for name, value in written.items() if value is not None}
    if not choice.skip_incomplete:  # earlier versions did not have this field
        del options["skip_incomplete"]
    return options
