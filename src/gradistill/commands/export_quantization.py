"""The INT8 model of an export: quantise the graph, and keep layers in float where loyalty needs it."""

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
"""Rows on which the difference in logits is measured while layers are tried in float."""

FREQUENT = 1000
"""The number of frequent tokens that keep 8 bits with 4-bit embeddings: they cover nine of ten tokens in English."""

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
        """Read the texts. Raises RecipeError if texts are needed and none are given."""
        counted = _counted(choice, rows, data)
        return cls(counted, _calibration(choice, rows, data, counted))


def _counted(choice: ExportChoice, rows: ExportRows | None, data: DataChoice | None) -> list[str]:
    """The texts whose tokens are counted: those of ``trim_vocabulary``, or else the training rows of the data. Empty if
    the export needs no texts."""
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
    """The texts whose activations set the ranges of static quantisation, drawn by the seed. They are training pairs for
    a model of pairs, and otherwise some of the ``counted`` texts."""
    if choice.quantize != "int8-static":
        return []
    every: list[Texts] = [(text,) for text in counted]
    if rows is not None and data is not None and len(rows.task.text_columns) > 1:
        with suppress(DataError):  # data without training rows: the counted texts are used
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
    """Write the INT8 model of a graph into the same folder; returns it, and its entry of ``export.json``.

    With ``rows``, as many layers stay in float as the limit needs. ``logits["source"]`` are the float model's logits of
    the rows; ``logits["int8"]`` is set to those of the INT8 model.
    """
    file = source.file
    assert file is not None
    target, how = file.with_name(QUANTIZED), _quantization(source, choice, texts)
    entry: dict[str, Any] = {
        "weights": "int8, a scale a channel", "embeddings": "int8, a scale a row", "embedding_bits": 8,
        "activations": "while it runs" if how.calibration is None else f"ranges of {len(how.calibration)} texts",
        "reduce_range": REDUCED_RANGE, "layers": None,
    }  # fmt: skip
    if rows is None:
        quantize(file, target, how=how)
        entry["embedding_bits"] = choice.embedding_bits
    else:
        wanted, sample, task = logits["source"], rows.copies[:SEARCH_ROWS], rows.task

        def difference(made: Path) -> float:
            return float(np.abs(_of_file(source, made).logits(sample)[0] - wanted[: len(sample)]).mean())

        def loyal(made: Path) -> float:  # the last file that is measured is the one that is kept
            logits["int8"] = row_logits(_of_file(source, made), rows)
            return loyalty_of(logits["int8"], wanted, task, source.thresholds)

        layers = quantized_within(file, target, loyal, difference, choice.least_loyalty, how)
        entry |= {"layers": layers.as_dict(), "embedding_bits": layers.embedding_bits}
    if entry["embedding_bits"] == 4 and how.frequent is not None:
        kept = len(how.frequent)
        entry["embeddings"] = f"4 bits, a scale a row; 8 bits for the {kept:,} most frequent tokens"
    return _of_file(source, target), entry


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
