"""A teacher's answers about validation rows, kept in the cache: all its students are compared with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from datasets import Dataset
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import nn
from transformers import PreTrainedTokenizerBase

from gradistill.audit import Answers, ask
from gradistill.data import Collator
from gradistill.jobs import Say
from gradistill.jobs.signals import cache_folder
from gradistill.signals.files import write_whole
from gradistill.signals.fingerprint import digest

_FORMAT = 1


def remembered_answers(
    teacher: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    hashes: Mapping[str, str],
    say: Say,
    on_progress: Callable[[int], object],
) -> Answers:
    """What ``ask`` gives, from the cache where the same teacher was asked about the same rows on such a device.

    ``hashes`` are those of the ``teacher``, the ``tokenizer`` and the ``rows``, which the run has made already. A file
    that cannot be read is asked for again, and one that cannot be written is done without.
    """
    purpose = {
        "format": _FORMAT,
        **hashes,
        "device": next(teacher.parameters()).device.type,
        "versions": {name: version(name) for name in ("gradistill", "torch", "transformers")},
    }
    file = cache_folder() / "answers" / f"{digest(purpose)[:24]}.safetensors"
    if (kept := _read(file, len(rows))) is not None:
        on_progress(len(rows))
        return kept
    answers = ask(teacher, rows, Collator(tokenizer), on_progress=on_progress)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, save(_tensors(answers)))
    except OSError as error:
        say(f"the teacher's answers are not kept for the next student: {error.strerror}")
    return answers


def _tensors(answers: Answers) -> dict[str, np.ndarray]:
    lengths = np.array([len(scores) for scores in answers.maps], dtype=np.int64)
    scores = np.concatenate(answers.maps) if answers.maps else np.zeros(0, dtype=np.float32)
    return {"logits": np.ascontiguousarray(answers.logits), "scores": scores, "lengths": lengths}


def _read(file: Path, rows: int) -> Answers | None:
    try:
        found = load_file(file)
        maps = np.split(found["scores"], found["lengths"].cumsum()[:-1])
        fits = len(maps) == len(found["logits"]) == rows and found["lengths"].sum() == len(found["scores"])
        return Answers(found["logits"], tuple(maps)) if fits else None
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
