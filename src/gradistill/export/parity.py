"""Check that an ONNX model computes the same logits as its PyTorch model, on generated token ids and rows of the data.

The tolerance is 1e-4 for rows whose logits are at most 1 in size, and else 1e-4 of the row's largest logit: float32 has
seven digits, whatever the size. Labels must be equal unless the two largest logits of the PyTorch model differ by less
than twice the tolerance, where rounding decides. Multi-label classifiers need no such check: a logit further from its
threshold than the tolerance stays on its side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradistill.data.collator import padding_side
from gradistill.errors import ModelError, first_line

TOLERANCE = 1e-4
MADE_ROWS = 5

Columns = Mapping[str, np.ndarray]
Logits = Float[np.ndarray, "row label"]


def made_batches(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, names: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """Batches of random token ids, by name: one token, one row of full length, a padded batch, and pairs if the model
    has token types."""
    draw = np.random.default_rng(0)
    shapes = {
        "one token": (1, 1),
        "full length": (1, max_length),
        "a batch": (MADE_ROWS, min(max_length, 40)),
    }
    if "token_type_ids" in names:
        shapes["pairs"] = (2, min(max_length, 24))
    padding = tokenizer.pad_token_id
    table: Any = model.get_input_embeddings()
    vocabulary = table.weight.shape[0]
    usable = np.setdiff1d(np.arange(min(vocabulary, len(tokenizer))), tokenizer.all_special_ids)
    batches = {}
    for name, (rows, tokens) in shapes.items():
        ids = draw.choice(usable, (rows, tokens))
        lengths = np.maximum(tokens - np.arange(rows) * tokens // rows, 1)
        place = np.arange(tokens)[None]
        left = padding_side(tokenizer) == "left"
        mask = place >= tokens - lengths[:, None] if left else place < lengths[:, None]
        types = (place >= tokens // 2) * mask if name == "pairs" else np.zeros_like(ids)
        every = {
            "input_ids": np.where(mask, ids, ids if padding is None else padding),
            "attention_mask": mask,
            "token_type_ids": types,
        }
        batches[name] = {column: every[column].astype(np.int64) for column in names}
    return batches


def torch_logits(model: PreTrainedModel, columns: Columns) -> Logits:
    """The logits of a PyTorch classifier on the CPU for one batch."""
    with torch.no_grad():
        return model(**{name: torch.from_numpy(values) for name, values in columns.items()}).logits.numpy()


def check_batches(
    model: PreTrainedModel, run: Callable[[Columns], Logits], batches: Mapping[str, Columns]
) -> dict[str, Any]:
    """Compare both models on generated batches; returns the same figures as ``compared``, over all batches.

    Raises ModelError if the models differ, or if the ONNX model fails.
    """
    totals: dict[str, Any] = {"rows": 0, "largest_difference": 0.0}
    for name, columns in batches.items():
        try:
            logits = run(columns)
        except Exception as error:
            raise _broken(f"it fails on {name}: {first_line(error)}") from error
        part = compared(logits, torch_logits(model, columns), name)
        totals["rows"] += part["rows"]
        totals["largest_difference"] = max(totals["largest_difference"], part["largest_difference"])
    return {"batches": list(batches), **totals}


def compared(onnx: np.ndarray, torch: np.ndarray, where: str, texts: Sequence[str] = ()) -> dict[str, Any]:
    """The difference of two models' logits for the same rows: ``rows`` and ``largest_difference``.

    ``where`` is the name of the rows in an error, and ``texts`` are their texts. Raises ModelError if a logit differs
    by more than the tolerance, or if a label differs.

    Example: ``compared(onnx_logits, torch_logits, "the data")["largest_difference"] < 1e-4``
    """
    if onnx.shape != torch.shape:
        raise _broken(
            f"on {where} it returns logits of shape {onnx.shape}, and the PyTorch model {torch.shape}"
        )
    onnx, torch = onnx.astype(np.float64), torch.astype(np.float64)
    allowed = TOLERANCE * np.maximum(np.abs(torch).max(axis=1), 1)
    difference = np.abs(onnx - torch).max(axis=1)
    far = ~(difference <= allowed)  # NaN counts
    if torch.shape[1] > 1:
        ordered = np.sort(torch, axis=1)
        clear = ordered[:, -1] - ordered[:, -2] > 2 * allowed
        far |= clear & (onnx.argmax(axis=1) != torch.argmax(axis=1))
    if far.any():
        row = int(np.flatnonzero(far)[np.argmax(difference[far])])
        text = f", {texts[row][:60]!r}" if texts else ""
        raise _broken(
            f"on {where}, row {row}{text}, its logits are {_shown(onnx[row])}, and those of the PyTorch model "
            f"{_shown(torch[row])}; {int(far.sum())} of {len(far)} rows differ"
        )
    return {"rows": len(onnx), "largest_difference": float(difference.max(initial=0.0))}


def _shown(logits: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.5f}" for value in logits[:6]) + (", …]" if len(logits) > 6 else "]")


def _broken(what: str) -> ModelError:
    return ModelError(
        f"the ONNX model does not compute what the PyTorch model computes: {what}",
        expected=f"logits within {TOLERANCE} (of the largest logit, if that is above 1), and the same labels",
        remedy="no file was written; report the model family, or distil into a student of another one",
    )
