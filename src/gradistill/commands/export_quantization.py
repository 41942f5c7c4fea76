"""The INT8 model of an export: how its graph is quantised, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gradistill.auditing.onnx_predictor import QUANTIZED, OnnxPredictor, onnx_session
from gradistill.commands.export_choice import ExportChoice, needs_texts
from gradistill.commands.export_cost import model_inputs
from gradistill.commands.export_figures import ExportRows, loyalty_of, row_logits
from gradistill.data import DataChoice
from gradistill.data.unlabelled_texts import load_texts
from gradistill.errors import RecipeError
from gradistill.export.layer_search import quantized_within
from gradistill.export.quantization import REDUCED_RANGE, Quantization, quantize
from gradistill.export.vocabulary import frequent_tokens

SEARCH_ROWS = 200
"""Rows on which each layer alone is tried in float."""

FREQUENT = 1000
"""Tokens whose embeddings keep eight bits where others have four: nine of ten tokens of English are among them."""

CALIBRATION_ROWS = 100
"""Texts whose activations set the ranges of static quantisation."""


def counted_texts(choice: ExportChoice, rows: ExportRows | None, data: DataChoice | None) -> list[str]:
    """The texts whose tokens are counted: those of ``trim_vocabulary``, or else the training rows of the data; none
    where nothing asks for them. Raises RecipeError where there are none to be had."""
    if not needs_texts(choice):
        return []
    source = choice.trim_vocabulary if choice.trim_vocabulary is not None else data and data.source
    if source is None:
        raise RecipeError(
            "embeddings in four bits and static quantisation need texts, and none were named",
            expected="data with training rows, or texts",
            remedy="give --data, or --trim-vocabulary TEXTS",
        )
    columns = rows.task.text_columns if rows is not None else data.columns if data is not None else None
    return load_texts([source], text_columns=columns)["text"][:]


def quantized_export(
    source: OnnxPredictor,
    rows: ExportRows | None,
    choice: ExportChoice,
    texts: Sequence[str],
    logits: dict[str, np.ndarray],
) -> tuple[OnnxPredictor, dict[str, Any]]:
    """Write the INT8 model of a graph beside it; returns it, and what ``export.json`` holds of it.

    With ``rows``, as many layers are in float as the limit needs, and the ``logits`` of the rows are kept as ``int8``;
    those of the model that the graph was made from are there as ``source``.
    """
    file = source.file
    assert file is not None
    target, how = file.with_name(QUANTIZED), _quantization(source, choice, texts)
    found: dict[str, Any] = {
        "weights": "int8, a scale a channel", "embeddings": "int8, a scale a row", "embedding_bits": 8,
        "activations": "while it runs" if how.calibration is None else f"ranges of {len(how.calibration)} texts",
        "reduce_range": REDUCED_RANGE, "layers": None,
    }  # fmt: skip
    if rows is None:
        quantize(file, target, how=how)
        found["embedding_bits"] = choice.embedding_bits
    else:
        wanted, sample, task = logits["source"], rows.copies[:SEARCH_ROWS], rows.task

        def difference(made: Path) -> float:
            return float(np.abs(_of_file(source, made).logits(sample)[0] - wanted[: len(sample)]).mean())

        def loyal(made: Path) -> float:  # the last file that is asked for is the one that stays
            logits["int8"] = row_logits(_of_file(source, made), rows)
            return loyalty_of(logits["int8"], wanted, task, source.thresholds)

        layers = quantized_within(file, target, loyal, difference, choice.least_loyalty, how)
        found |= {"layers": layers.as_dict(), "embedding_bits": layers.embedding_bits}
    if found["embedding_bits"] == 4 and how.frequent is not None:
        kept = len(how.frequent)
        found["embeddings"] = f"4 bits, a scale a row; 8 bits for the {kept:,} most frequent tokens"
    return _of_file(source, target), found


def _quantization(source: OnnxPredictor, choice: ExportChoice, texts: Sequence[str]) -> Quantization:
    frequent = batches = None
    if choice.embedding_bits == 4:
        frequent = frequent_tokens(source.tokenizer, texts, FREQUENT)
    if choice.quantize == "int8-static":
        drawn = np.random.default_rng(choice.seed).permutation(len(texts))[:CALIBRATION_ROWS]
        names = [given.name for given in source.session.get_inputs()]
        batches = []
        for k in drawn:
            columns = model_inputs([(texts[int(k)],)], source.tokenizer, source.max_length)
            batches.append({name: columns[name] for name in names})
    return Quantization(frequent, batches)


def _of_file(predictor: OnnxPredictor, file: Path) -> OnnxPredictor:
    """The predictor with another graph."""
    return replace(predictor, session=onnx_session(file), file=file)
