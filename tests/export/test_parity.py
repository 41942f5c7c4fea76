"""When logits count as the same, and that families compute in ONNX what they compute in PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from families import build
from gradistill.auditing.onnx_predictor import onnx_session
from gradistill.errors import ModelError
from gradistill.export.onnx_export import write_onnx
from gradistill.export.parity import check_batches, compared, made_batches
from small import WORDS
from wordpiece import tokenizer

ROW = np.array([[1.0, -1.0, 0.5]])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ROW + 0.9e-4, ROW),
        (ROW * 1e4 + 0.9, ROW * 1e4),
        (np.array([[1.0, 1.00005]]), np.array([[1.00005, 1.0]])),
    ],
    ids=["near", "near for their size", "rounding decides the label"],
)
def test_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    found = compared(ours, theirs, "made rows")
    assert found == {"rows": 1, "largest_difference": pytest.approx(np.abs(ours - theirs).max())}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ROW + 1.1e-4, ROW),
        (ROW * 1e4 + 1.1, ROW * 1e4),
        (np.array([[np.nan, 1.0]]), np.array([[0.0, 1.0]])),
        (ROW[:, :2], ROW),
    ],
    ids=["far", "far for their size", "NaN", "other shape"],
)
def test_different(ours: np.ndarray, theirs: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"does not compute(?s:.*)on the data"):
        compared(ours, theirs, "the data")


def test_the_error_shows_the_worst_row() -> None:
    ours = np.zeros((3, 2)) + np.array([[0], [0.1], [0.2]])
    with pytest.raises(ModelError, match=r"row 2, 'c', its logits are \[0.20000.*2 of 3 rows differ"):
        compared(ours, np.zeros((3, 2)), "the data", ["a", "b", "c"])


def test_made_batches_hold_what_is_special() -> None:
    tokens = tokenizer(WORDS)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    found = made_batches(build("bert"), tokens, 20, names)
    assert found["one token"]["input_ids"].shape == (1, 1)
    assert found["full length"]["attention_mask"].tolist() == [[1] * 20]
    lengths = found["a batch"]["attention_mask"].sum(axis=1)
    assert len(set(lengths.tolist())) == len(lengths), "rows of different length"
    assert (
        found["a batch"]["input_ids"][found["a batch"]["attention_mask"] == 0] == tokens.pad_token_id
    ).all()
    assert set(found["pairs"]["token_type_ids"].ravel().tolist()) == {0, 1}
    tokens.padding_side = "left"
    shorter = made_batches(build("bert"), tokens, 20, names)["a batch"]["attention_mask"][-1].tolist()
    assert shorter == sorted(shorter, reverse=True), "padded on the right, as texts are"


@pytest.mark.slow
def test_a_decoder_computes_the_same(tmp_path: Path) -> None:
    """All families: benchmarks/export_families.py."""
    model, tokens = build("qwen2", num_hidden_layers=1, initializer_range=0.3), tokenizer(WORDS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = model.config._attn_implementation, model.config.use_cache
    facts = write_onnx(model, tokens, tmp_path / "model.onnx")
    assert facts["inputs"] == ["input_ids", "attention_mask"]
    session = onnx_session(tmp_path / "model.onnx")
    batches = made_batches(model, tokens, 60, facts["inputs"])
    found = check_batches(model, lambda columns: session.run(["logits"], dict(columns))[0], batches)
    assert 0 < found["largest_difference"] < 1e-4
    assert (model.config._attn_implementation, model.config.use_cache) == settings
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
