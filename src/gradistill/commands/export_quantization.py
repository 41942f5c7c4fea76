"""The INT8 model of an export: how its graph is quantised, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gradistill.auditing.onnx_predictor import QUANTIZED, OnnxPredictor, onnx_session
from gradistill.commands.export_choice import ExportChoice, needs_texts
from gradistill.commands.export_cost import model_inputs
from gradistill.commands.export_figures import ExportRows, loyalty_of, row_logits
from gradistill.data import DataChoice
from gradistill.data.raw_words import Texts, row_texts
from gradistill.data.unlabelled_texts import load_texts, read_unlabelled
from gradistill.errors import DataError, RecipeError
from gradistill.export.layer_search import quantized_within
from gradistill.export.quantization import REDUCED_RANGE, Quantization, quantize
from gradistill.export.vocabulary import frequent_tokens

SEARCH_ROWS = 200
"""Rows on which each layer alone is tried in float."""

FREQUENT = 1000
"""Tokens whose embeddings keep eight bits where others have four: nine of ten tokens of English are among them."""

CALIBRATION_ROWS = 100
"""Texts whose activations set the ranges of static quantisation."""


@dataclass(frozen=True)
class QuantizationTexts:
    """The texts whose tokens are ``counted``, and those that set ranges of activations (``calibration``)."""

    counted: Sequence[str]
    calibration: Sequence[Texts]

    @classmethod
    def read(
        cls, choice: ExportChoice, rows: ExportRows | None, data: DataChoice | None
    ) -> QuantizationTexts:
        """Raises RecipeError where texts are needed and there are none to be had."""
        counted = _counted(choice, rows, data)
        return cls(counted, _calibration(choice, rows, data, counted))


def _counted(choice: ExportChoice, rows: ExportRows | None, data: DataChoice | None) -> list[str]:
    """The texts whose tokens are counted: those of ``trim_vocabulary``, or else the training rows of the data; none
    where nothing asks for them."""
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
    return load_texts([source], text_columns=columns, training=True)["text"][:]


def _calibration(
    choice: ExportChoice, rows: ExportRows | None, data: DataChoice | None, counted: Sequence[str]
) -> list[Texts]:
    """The texts whose activations set the ranges of static quantisation, drawn by the seed: training rows as the model
    reads them, of a model of pairs both texts; without data some of the ``counted`` texts."""
    if choice.quantize != "int8-static":
        return []
    every: list[Texts] = [(text,) for text in counted]
    if rows is not None and data is not None and len(rows.task.text_columns) > 1:
        with suppress(DataError):  # of data without training rows the counted texts are all that there is
            read = read_unlabelled(data.source, rows.task, split="train", skip_incomplete=True)
            every = row_texts(read.rows, rows.task)
    drawn = np.random.default_rng(choice.seed).permutation(len(every))[:CALIBRATION_ROWS]
    return [every[int(k)] for k in drawn]


def quantized_export(
    source: OnnxPredictor,
    rows: ExportRows | None,
    choice: ExportChoice,
    texts: QuantizationTexts,
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


def _quantization(source: OnnxPredictor, choice: ExportChoice, texts: QuantizationTexts) -> Quantization:
    frequent = batches = None
    if choice.embedding_bits == 4:
        frequent = frequent_tokens(source.tokenizer, texts.counted, FREQUENT)
    if choice.quantize == "int8-static":
        names = [given.name for given in source.session.get_inputs()]
        batches = []
        for read in texts.calibration:
            columns = model_inputs([read], source.tokenizer, source.max_length)
            batches.append({name: columns[name] for name in names})
    return Quantization(frequent, batches)


def _of_file(predictor: OnnxPredictor, file: Path) -> OnnxPredictor:
    """The predictor with another graph."""
    return replace(predictor, session=onnx_session(file), file=file)
