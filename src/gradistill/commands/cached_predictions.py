"""A cache of a teacher's predictions for validation rows, with which all its students are compared."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save
from transformers import PreTrainedTokenizerBase

from gradistill.auditing import Predictions, predict_rows
from gradistill.commands.signal_stores import cache_folder
from gradistill.data import Collator
from gradistill.io import digest, system_reason, write_whole
from gradistill.models.facts import is_multi_label, thresholds_of
from gradistill.models.probe import ProbedModel
from gradistill.package_versions import package_versions

logger = logging.getLogger(__name__)

_FORMAT = 2
_CHECKSUM = "sha256"


def cached_predictions(
    probed: ProbedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    hashes: Mapping[str, str],
    on_progress: Callable[[int], object],
) -> Predictions:
    """A teacher's ``predict_rows``, from the cache if it predicted the same rows on the same type of device before.

    ``hashes`` are those of the ``teacher``, the ``tokenizer`` and the ``rows``, from the run. A file with a wrong
    checksum is computed again, and a file that cannot be written is skipped. Both are logged.
    """
    teacher = probed.model
    purpose = {
        "format": _FORMAT,
        **hashes,
        "device": next(teacher.parameters()).device.type,
        "versions": package_versions("gradistill", "torch", "transformers"),
    }
    file = cache_folder() / "answers" / f"{digest(purpose)[:24]}.safetensors"
    try:
        kept = replace(
            _read(file, len(rows), purpose),
            multi_label=is_multi_label(teacher),
            thresholds=thresholds_of(teacher),
        )
        logger.debug(f"the teacher's predictions: from {file}")
        on_progress(len(rows))
        return kept
    except FileNotFoundError:
        pass
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        logger.info(
            f"the teacher's cached predictions cannot be used and are computed again: {file}: {error}"
        )
    predictions = predict_rows(probed, rows, Collator(tokenizer), on_progress=on_progress)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = _tensors(predictions)
        write_whole(file, save(tensors, metadata={_CHECKSUM: _checksum(tensors, purpose)}))
    except OSError as error:
        logger.info(f"the teacher's predictions are not kept for the next student: {system_reason(error)}")
    return predictions


def _tensors(predictions: Predictions) -> dict[str, np.ndarray]:
    lengths = np.array([len(scores) for scores in predictions.maps], dtype=np.int64)
    scores = np.concatenate(predictions.maps) if predictions.maps else np.zeros(0, dtype=np.float32)
    return {"logits": np.ascontiguousarray(predictions.logits), "scores": scores, "lengths": lengths}


def _checksum(tensors: Mapping[str, np.ndarray], purpose: Mapping[str, Any]) -> str:
    """A hash of the arrays and of what they were computed for, so that a renamed file does not fit."""
    checksum = hashlib.sha256(digest(purpose).encode())
    for name, array in sorted(tensors.items()):
        checksum.update(f"{name} {array.dtype.str} {array.shape}".encode())
        checksum.update(np.ascontiguousarray(array).tobytes())
    return checksum.hexdigest()


def _read(file: Path, rows: int, purpose: Mapping[str, Any]) -> Predictions:
    """The predictions in a file. Raises FileNotFoundError without a file, and other errors for a damaged one."""
    tensors = load(file.read_bytes())
    with safe_open(file, "np") as opened:
        written = (opened.metadata() or {}).get(_CHECKSUM)
    if written != _checksum(tensors, purpose):
        raise ValueError("its checksum does not fit its content")
    maps = np.split(tensors["scores"], tensors["lengths"].cumsum()[:-1])
    if not len(maps) == len(tensors["logits"]) == rows or tensors["lengths"].sum() != len(tensors["scores"]):
        raise ValueError(f"it is not about {rows} rows")
    return Predictions(tensors["logits"], tuple(maps))
