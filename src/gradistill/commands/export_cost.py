"""Costs of the models of an export or an audit: size, parameters, latency, throughput, memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from gradistill.auditing.function_predictor import FunctionPredictor
from gradistill.auditing.label_predictor import LabelPredictor
from gradistill.auditing.mean_predictor import MeanPredictor
from gradistill.auditing.onnx_predictor import OnnxPredictor
from gradistill.batch import NOT_MODEL_INPUTS
from gradistill.commands.audit_model import AuditModel
from gradistill.commands.audit_models import AuditModels
from gradistill.data import Collator
from gradistill.data.changed_copies import Copy
from gradistill.data.raw_words import Texts
from gradistill.data.text_reader import encoded_copies
from gradistill.export.cost import (
    BATCH,
    SINGLE,
    TimedModel,
    core_counts,
    file_bytes,
    onnx_runner,
    parameter_counts,
    timed,
    torch_runner,
)
from gradistill.export.onnx_export import weight_bytes
from gradistill.export.peak_memory import peak_memory_mb
from gradistill.models.device_map import is_spread
from gradistill.models.loading import without_file_bars

logger = logging.getLogger(__name__)

TIMED_ROWS = {SINGLE: 100, BATCH: 320}
"""The number of rows that are timed, by batch size."""


@dataclass(frozen=True)
class CostedModel:
    """A model to measure: a PyTorch classifier (``model``), or an ONNX ``file``. It reads ``max_length`` tokens."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    model: Any = None
    file: Path | None = None

    @classmethod
    def of(cls, name: str, given: AuditModel, max_length: int) -> CostedModel | None:
        """The costed model of a loaded model, moved to the CPU. None for a function, which has no size here, for
        several models, and for one that is spread over devices."""
        predictor = given.predictor
        if isinstance(predictor, FunctionPredictor | MeanPredictor | LabelPredictor):
            return None
        if isinstance(predictor, OnnxPredictor):
            return cls(name, predictor.tokenizer, max_length, file=predictor.file)
        # A model in narrow numbers has no gradients here, so that only its predictor holds it.
        model: Any = predictor.model if given.model is None else given.model
        if is_spread(model):
            return None
        return cls(name, predictor.tokenizer, max_length, model.to("cpu").eval())

    def size(self) -> dict[str, Any]:
        """``bytes`` on disk, and ``parameters`` and ``embeddings`` of a PyTorch model."""
        if self.file is not None:
            return {"bytes": file_bytes(self.file)}
        return {"bytes": weight_bytes(self.model), **parameter_counts(self.model)}

    def timed(self, texts: Sequence[Texts]) -> TimedModel:
        """The model and its batches of these texts, ready to be timed."""
        runner = torch_runner(self.model.eval()) if self.file is None else onnx_runner(self.file)
        texts_by_size = {size: texts[:most] for size, most in TIMED_ROWS.items()}
        batches = {
            size: [
                model_inputs(part[k : k + size], self.tokenizer, self.max_length)
                for k in range(0, max(len(part) - size, 0) + 1, size)
            ]
            for size, part in texts_by_size.items()
        }
        return TimedModel(self.name, runner, batches)

    def memory(self, columns: Mapping[str, np.ndarray]) -> float | None:
        """Peak memory in MB of a process that predicts one batch."""
        if self.file is not None:
            return peak_memory_mb(self.file, columns)
        with TemporaryDirectory(prefix="gradistill-") as folder:
            with without_file_bars():
                self.model.save_pretrained(folder)
            return peak_memory_mb(Path(folder), columns)


def measured_costs(
    models: Sequence[CostedModel], texts: Sequence[Texts], *, memory: bool = True
) -> dict[str, Any]:
    """The costs of each model, by name; ``times`` compares a model with the first one.

    Without ``texts`` only sizes are measured. ``memory``: also measure peak memory, in one process a model, which takes
    seconds.
    """
    costs: dict[str, Any] = {model.name: model.size() for model in models}
    if not texts or not models:
        return costs
    measured = [model.timed(texts) for model in models]
    for cores in core_counts():
        on = "1 core" if cores == 1 else f"{cores} cores"
        logger.info(f"timing {len(models)} models on {min(len(texts), TIMED_ROWS[BATCH])} rows, with {on}")
        for name, figures in timed(measured, cores).items():
            costs[name].setdefault("cores", {})[str(cores)] = figures
    for model, ready in zip(models, measured, strict=True) if memory else ():
        costs[model.name]["peak_mb"] = model.memory(ready.batches[BATCH][0])
    return costs


def audit_costs(models: AuditModels, texts: Sequence[Texts], max_length: int) -> dict[str, Any]:
    """The costs of the models of an audit on the CPU (``CostedModel.of``)."""
    named = (("teacher", models.teacher), *zip(models.names, models.students, strict=True))
    costed = [measured for name, model in named if (measured := CostedModel.of(name, model, max_length))]
    return measured_costs(costed, texts, memory=False)


def model_inputs(
    texts: Sequence[Texts], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, np.ndarray]:
    """A padded batch of texts as arrays, by the names of a model's inputs."""
    encoded = encoded_copies([Copy(some) for some in texts], tokenizer, max_length)
    columns = Collator(tokenizer)(encoded)
    return {name: values.numpy() for name, values in columns.items() if name not in NOT_MODEL_INPUTS}
