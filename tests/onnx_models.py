"""Tiny classifiers exported to ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch


class _Logits(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def exported(model: Any, tokenizer: Any, folder: Path) -> Path:
    """The folder, with ``model.onnx``, ``config.json`` and tokenizer files. Skips the test where ONNX is missing."""
    pytest.importorskip("onnxruntime")
    ids = torch.tensor([[2, 7, 8, 9, 3], [2, 7, 3, 0, 0]])
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    axes = {name: {0: "rows", 1: "tokens"} for name in inputs}
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(  # by TorchScript: twenty times as quick as what `gradistill export` does
            _Logits(model).eval(), tuple(inputs.values()), str(folder / "model.onnx"), input_names=list(inputs),
            output_names=["logits"], dynamic_axes=axes, dynamo=False,
        )  # fmt: skip
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
