"""Embeddings in four bits: what a byte holds, what frequent tokens keep, and what onnxruntime makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from gradistill.auditing.onnx_predictor import onnx_session
from gradistill.errors import ModelError
from gradistill.export.four_bits import packed_rows, unpacked_rows
from gradistill.export.quantization import Quantization, quantize, quantized_layers

IDS = np.array([[3, 5, 63], [0, 3, 3]])


@pytest.fixture(scope="module")
def looked_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A graph that looks rows up and multiplies them, and its table."""
    table = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    table[:, 0] *= 6
    table[0] = 0
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Gather", ["table", "input_ids"], ["rows"], name="words"),
        make("MatMul", ["rows", "eye"], ["logits"], name="same"),
    ]
    stored = [
        onnx.numpy_helper.from_array(v, k)
        for k, v in (("table", table), ("eye", np.eye(16, dtype=np.float32)))
    ]
    graph = onnx.helper.make_graph(
        nodes, "lookup", [info("input_ids", 7, ["batch", "sequence"])], [info("logits", 1, ["batch", "sequence", 16])],
        stored,
    )  # fmt: skip
    file = tmp_path_factory.mktemp("lookup") / "model.onnx"
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), file
    )
    return file, table


def test_two_values_share_a_byte() -> None:
    packed, scales = packed_rows(np.array([[7.0, 1, 0, -7], [0, 0, 0, 0]], np.float32))
    assert packed.tolist() == [[15 + 16 * 8, 9 + 16 * 1], [136, 136]]
    assert scales[0] == pytest.approx(1)
    assert unpacked_rows(packed, scales).tolist() == [[7, 1, 0, -7], [0, 0, 0, 0]]


def test_the_scale_is_no_worse_than_that_of_the_largest_value(looked_up: tuple[Path, np.ndarray]) -> None:
    table = looked_up[1]
    plain = np.abs(table).max(axis=1, keepdims=True) / 7
    plain[plain == 0] = 1
    ours, theirs = unpacked_rows(*packed_rows(table)), np.rint(table / plain) * plain
    errors = [((of - table) ** 2).sum(axis=1) for of in (ours, theirs)]
    assert (errors[0] <= errors[1] + 1e-6).all()
    assert errors[0].sum() < errors[1].sum()


def test_the_graph_looks_the_same_rows_up(looked_up: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    file, table = looked_up
    assert quantized_layers(file)["words"] == table.size
    found = {}
    for name, frequent in (("none", []), ("some", [63, 3])):
        target = tmp_path / f"{name}.onnx"
        quantize(file, target, in_float=["same"], how=Quantization(frequent))
        found[name] = onnx_session(target).run(["logits"], {"input_ids": IDS})[0]
        left = [
            (part.name, part.dims) for part in onnx.load(target).graph.initializer if part.name == "table"
        ]
        assert left == []
    wanted = unpacked_rows(*packed_rows(table))
    assert found["none"] == pytest.approx(wanted[IDS], abs=1e-5)
    rare, often = IDS == 5, np.isin(IDS, [63, 3])
    assert found["some"][rare] == pytest.approx(wanted[IDS[rare]], abs=1e-5)
    far = [np.abs(values[often] - table[IDS[often]]).max() for values in found.values()]
    assert far[1] < far[0] / 8
    assert far[1] < np.abs(table).max() / 98


def test_a_table_may_be_in_float_where_others_have_four_bits(
    looked_up: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    """The search of layers tries each in float."""
    quantize(looked_up[0], tmp_path / "float.onnx", in_float=["words", "same"], how=Quantization([]))
    found = onnx_session(tmp_path / "float.onnx").run(["logits"], {"input_ids": IDS})[0]
    assert found == pytest.approx(looked_up[1][IDS], abs=1e-5)


def test_a_table_that_other_ids_look_up_is_refused(
    looked_up: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    graph = onnx.load(looked_up[0])
    graph.graph.input[0].name = graph.graph.node[0].input[1] = "position_ids"
    onnx.save(graph, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="looked up by input_ids"):
        quantize(tmp_path / "other.onnx", tmp_path / "target.onnx", how=Quantization([]))


def test_ranges_of_calibration_rows_are_in_the_graph(
    looked_up: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    file, table = looked_up
    quantize(file, tmp_path / "static.onnx", how=Quantization(calibration=[{"input_ids": IDS}]))
    kinds = [node.op_type for node in onnx.load(tmp_path / "static.onnx").graph.node]
    assert "QuantizeLinear" in kinds
    assert "DynamicQuantizeLinear" not in kinds
    logits = onnx_session(tmp_path / "static.onnx").run(["logits"], {"input_ids": IDS})[0]
    assert logits == pytest.approx(table[IDS], abs=float(np.ptp(table[IDS])) / 100)
