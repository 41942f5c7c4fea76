"""An ONNX model as a predictor, so that the deployed model can be audited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from gradistill.auditing.predictor import (
    OnProgress,
    checked_logits,
    in_order,
    refused_heads,
)
from gradistill.data import Collator
from gradistill.data.batching import in_row_order
from gradistill.data.changed_copies import Copy
from gradistill.data.text_reader import encoded_copies
from gradistill.errors import ModelError, first_line
from gradistill.models.facts import has_several_labels, thresholds_in
from gradistill.models.loading import load_config, load_tokenizer, names_in, settle_label_ids
from gradistill.package_versions import installing

MODEL, QUANTIZED = "model.onnx", "model_quantized.onnx"
GRAPHS = "onnx"
"""The folder of an export that holds its graphs, as transformers.js expects."""


@dataclass(frozen=True)
class OnnxPredictor:
    """A sequence classifier in ONNX with its tokenizer; it computes on the CPU. Create it with ``OnnxPredictor.load``.

    ``session`` is an ``onnxruntime.InferenceSession`` of ``file``. ``labels`` are the names of its outputs, None for a
    score (regression). ``order``: for each returned label the index of the model's output; by default outputs keep
    their order. ``multi_label``: each output is one label's log-odds. ``saved_thresholds``: the probability above which
    each label is predicted (default ½), in the file's order.
    """

    session: Any
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...] | None = None
    max_length: int = 128
    order: tuple[int, ...] | None = None
    on_progress: OnProgress = lambda done: None
    file: Path | None = None
    multi_label: bool = False
    saved_thresholds: np.ndarray | None = None

    has_head = False

    @classmethod
    def load(cls, source: str | Path) -> OnnxPredictor:
        """Load the model that ``onnx_file`` finds, with the tokenizer files and the ``config.json`` of its folder.

        ``source`` is a folder or an ``.onnx`` file. Raises ModelError if a part is missing or cannot be read, or if
        onnxruntime is not installed.

        Example: ``OnnxPredictor.load("exported").logits([Copy(("a fine film",))])[0]``
        """
        file = onnx_file(source)
        if file is None:
            raise ModelError(
                f"{source} holds no .onnx file", expected=f"a folder with {MODEL}", remedy="check the path"
            )
        folder = model_folder_of(file)
        tokenizer, config = load_tokenizer(folder), load_config(folder)
        settle_label_ids(folder, config)
        labels = tuple(names_in(config).values())
        regression = config.problem_type == "regression" or len(labels) == 1
        multi_label = has_several_labels(config)
        if multi_label and len(labels) == 1:
            raise ModelError(
                f"{source} has one label, and its problem_type is multi_label_classification",
                expected="two labels or more",
                remedy="correct problem_type or id2label in config.json",
            )
        return cls(
            onnx_session(file), tokenizer, None if regression else labels, file=file, multi_label=multi_label,
            saved_thresholds=thresholds_in(config),
        )  # fmt: skip

    @property
    def can_mask(self) -> bool:
        return bool(self.tokenizer.is_fast)

    @property
    def thresholds(self) -> np.ndarray | None:
        """The threshold of each returned label's probability, with several labels a row; None for ½."""
        if self.saved_thresholds is None or self.order is None:
            return self.saved_thresholds
        return self.saved_thresholds[list(self.order)]

    def logits(
        self, copies: Sequence[Copy], *, heads: Sequence[int] = ()
    ) -> Float[np.ndarray, "head copy label"]:
        """See ``Predictor``. Raises ModelError for logits that are not finite or have another shape."""
        refused_heads(heads, "an ONNX model")
        types = {given.name: _type_of(given.type) for given in self.session.get_inputs()}
        output = _output_name([given.name for given in self.session.get_outputs()])
        logits = in_row_order(
            lambda some: self._run(output, _inputs(some.columns, types)),
            encoded_copies(copies, self.tokenizer, self.max_length),
            Collator(self.tokenizer),
            torch.device("cpu"),
            on_progress=self.on_progress,
        )
        return in_order(checked_logits(logits, self.labels, "the ONNX model", copies), self.order)[None]

    def _run(self, output: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        try:
            return self.session.run([output], inputs)[0]
        except Exception as error:
            tokens = inputs["input_ids"].shape if "input_ids" in inputs else "?"
            raise ModelError(
                f"The ONNX model fails on token ids of shape {tokens}: {first_line(error)}",
                expected="a model that accepts any number of rows and tokens",
                remedy="export the model with dynamic axes, or set a smaller max_length",
            ) from error


def onnx_file(source: str | Path) -> Path | None:
    """The ``.onnx`` file of a path; None for a folder with PyTorch weights, or without any model.

    The path of an ``.onnx`` file is returned as it is. In a folder it is ``model.onnx``, or the only ``.onnx`` file. An
    export has its graphs in the folder ``onnx``. There ``model_quantized.onnx`` precedes ``model.onnx``, as in
    transformers.js: a quantised model is meant to be run.

    Raises ModelError for several files of which none has one of these names.
    """
    path = Path(source)
    if path.suffix == ".onnx" and path.is_file():
        return path
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return None
    return _graph_in(path, (MODEL,)) or _graph_in(path / GRAPHS, (QUANTIZED, MODEL))


def graph_files(file: Path) -> list[Path]:
    """An ONNX file, and the files with its external weights in the same folder."""
    return sorted(file.parent.glob(f"{file.name}*"))


def model_folder_of(file: Path) -> Path:
    """The folder with ``config.json`` and the tokenizer of an ONNX file: the file's folder, or the folder above it."""
    above = file.absolute().parent.parent
    return (
        above if file.absolute().parent.name == GRAPHS and (above / "config.json").is_file() else file.parent
    )


def _graph_in(folder: Path, names: Sequence[str]) -> Path | None:
    files = sorted(folder.glob("*.onnx"))
    for name in names:
        if folder / name in files:
            return folder / name
    if len(files) > 1:
        raise ModelError(
            f"{folder} holds several ONNX models: {', '.join(file.name for file in files)}",
            expected=f"a single ONNX file, or one that is called {MODEL}",
            remedy=f"pass the path of the file, or rename the right one to {MODEL}",
        )
    return files[0] if files else None


def onnx_session(file: Path, threads: int | None = None) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU with ``threads`` threads (default: torch's number of threads).

    Raises ModelError if onnxruntime is not installed, or cannot load the file.
    """
    try:
        runtime = import_module("onnxruntime")
    except ImportError as error:
        raise ModelError(
            f"{file} is an ONNX model, and onnxruntime is not installed",
            expected="the package onnxruntime",
            remedy=installing("onnx"),
        ) from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"{file} cannot be loaded: {first_line(error)}",
            expected="a model that onnxruntime can run",
            remedy="export it again",
        ) from error


def _type_of(name: str) -> Any:
    return np.int32 if "int32" in name else np.int64


def _output_name(names: Sequence[str]) -> str:
    return "logits" if "logits" in names else names[0]


def _inputs(columns: Any, wanted: dict[str, Any]) -> dict[str, np.ndarray]:
    if missing := sorted(wanted.keys() - columns.keys()):
        raise ModelError(
            f"The ONNX model reads {', '.join(missing)}, which its tokenizer does not return.",
            expected=f"inputs among {', '.join(sorted(columns))}",
            remedy="export the model with the inputs of its tokenizer",
        )
    return {name: columns[name].numpy().astype(kind) for name, kind in wanted.items()}
