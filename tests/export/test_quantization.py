"""INT8: rows of a table, layers that stay in float, and a search for the costliest ones."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from families import build
from gradistill.auditing.onnx_predictor import onnx_session
from gradistill.commands.export_choice import ExportChoice
from gradistill.commands.export_quantization import CALIBRATION_ROWS, QuantizationTexts
from gradistill.data import DataChoice, Task
from gradistill.export import onnx_export
from gradistill.export.layer_search import quantized_within
from gradistill.export.onnx_export import load_graph, save_graph, write_onnx
from gradistill.export.parity import made_batches, torch_logits
from gradistill.export.quantization import int8_rows, quantize, quantized_layers
from small import WORDS
from wordpiece import tokenizer

TOKENIZER = tokenizer(WORDS)
TABLE = "model.embeddings.tok_embeddings"
QUERY = "model.layers.0.attn.Wqkv"


@pytest.fixture(scope="module")
def modernbert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model = build("modernbert", num_hidden_layers=1, initializer_range=0.3)
    file = tmp_path_factory.mktemp("modernbert") / "model.onnx"
    write_onnx(model, TOKENIZER, file)
    return model, file


@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
def test_rows_are_kept_to_half_a_scale(values: list[list[float]]) -> None:
    table = np.array(values, np.float32)
    rows, scales = int8_rows(table)
    assert rows.dtype == np.int8
    for row, scale, wanted in zip(
        rows.astype(float), scales[:, 0].astype(float), table.astype(float), strict=True
    ):
        assert (np.abs(row * scale - wanted) <= scale * 0.5001 + 1e-30).all()
        assert (
            scale == pytest.approx(max(abs(wanted)) / 127, rel=1e-5)
            or not wanted.any()
            or max(abs(wanted)) < 1e-30
        )


def names_of(file: Path) -> set[str]:
    return {part.name for part in onnx.load(file).graph.initializer}


@pytest.mark.slow
def test_layers_in_float_stay_there(modernbert: tuple[Any, Path], tmp_path: Path) -> None:
    model, file = modernbert
    layers = quantized_layers(file)
    assert layers[TABLE] == 64 * 16
    assert layers[QUERY] == 3 * 16 * 16
    assert {"classifier", "head.dense"} <= layers.keys(), "Gemm counts as a product"
    quantize(file, tmp_path / "all.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "all.onnx").graph.node]
    assert kinds.count("MatMulInteger") == 6
    assert not any(name.endswith(f"{TABLE}.weight") for name in names_of(tmp_path / "all.onnx"))
    quantize(file, tmp_path / "some.onnx", in_float=[TABLE, "classifier", QUERY])
    kinds = [node.op_type for node in onnx.load(tmp_path / "some.onnx").graph.node]
    assert kinds.count("MatMulInteger") == 4
    assert any(name.endswith(f"{TABLE}.weight") for name in names_of(tmp_path / "some.onnx"))
    quantize(file, tmp_path / "none.onnx", in_float=list(layers))
    for batch in made_batches(model, TOKENIZER, 32, ["input_ids", "attention_mask"]).values():
        logits = onnx_session(tmp_path / "none.onnx").run(["logits"], batch)[0]
        assert logits == pytest.approx(torch_logits(model, batch), abs=1e-4)


@pytest.mark.slow
def test_the_costliest_layer_is_kept_in_float(modernbert: tuple[Any, Path], tmp_path: Path) -> None:
    """A stand-in for loyalty that only one layer decides: the search must find it, and keep no other."""
    decisive = f"{TABLE}.weight"

    def loyalty(file: Path) -> float:
        return 1.0 if any(name.endswith(decisive) for name in names_of(file)) else 0.9

    target = tmp_path / "model_quantized.onnx"
    found = quantized_within(modernbert[1], target, loyalty, lambda file: 1 - loyalty(file), 0.98)
    assert (found.in_float, found.loyalty) == ((TABLE,), 1.0)
    assert found.before == {"loyalty": 0.9, "bytes": pytest.approx(target.stat().st_size, rel=0.5)}
    assert found.tried[TABLE] == pytest.approx(0.1)
    assert max(saved for layer, saved in found.tried.items() if layer != TABLE) == 0
    assert quantized_within(modernbert[1], target, loyalty, loyalty, 0.8).before is None


@pytest.mark.slow
def test_weights_beyond_the_limit_of_protobuf_lie_beside(
    modernbert: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = modernbert[0]
    monkeypatch.setattr("gradistill.export.quantization.LARGEST", 100)
    save_graph(load_graph(modernbert[1]), tmp_path / "model.onnx", large=True)
    quantize(tmp_path / "model.onnx", tmp_path / "model_quantized.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.onnx", "model.onnx_data", "model_quantized.onnx", "model_quantized.onnx_data",
    }  # fmt: skip
    batch = made_batches(model, TOKENIZER, 32, ["input_ids", "attention_mask"])["a batch"]
    wanted = torch_logits(model, batch)
    for name, within in (("model.onnx", 1e-4), ("model_quantized.onnx", 0.5)):
        assert onnx_session(tmp_path / name).run(["logits"], batch)[0] == pytest.approx(wanted, abs=within)


def test_ranges_are_those_of_rows_as_the_model_reads_them() -> None:
    """Of pairs: single texts have no second token type, and are shorter."""
    rows: Any = SimpleNamespace(task=Task("x", ("a", "b"), ("no", "yes"), ("accuracy",), "accuracy"))
    table = [{"a": f"one {k}", "b": f"two {k}", "label": "no"} for k in range(150)]
    found = QuantizationTexts.read(ExportChoice(quantize="int8-static"), rows, DataChoice({"train": table}))
    assert len(found.calibration) == CALIBRATION_ROWS
    assert all(pair[0].split()[1] == pair[1].split()[1] for pair in found.calibration)
    assert len(found.counted) == 300
    alone = QuantizationTexts.read(
        ExportChoice(quantize="int8-static"), None, DataChoice(table, text_columns=("a",))
    )
    assert {len(texts) for texts in alone.calibration} == {1}
    assert QuantizationTexts.read(ExportChoice(), rows, DataChoice(table)) == QuantizationTexts([], [])


def test_log_levels_are_given_back() -> None:
    before = logging.root.manager.disable
    with onnx_export.quiet_libraries():
        assert logging.root.manager.disable == logging.WARNING
    assert logging.root.manager.disable == before
