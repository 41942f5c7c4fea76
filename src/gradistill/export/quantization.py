"""Quantise an ONNX graph to INT8: weights in eight bits, and activations while the graph runs (dynamic quantisation) or
with ranges from calibration rows (static quantisation).

Products with constant weights go through ``onnxruntime.quantization.quantize_dynamic``, one scale a channel. Its form
for embeddings (``Gather``) has one scale for the whole table, which the longest vector sets. Here each row of a table
has its own scale (absolute maximum / 127, no zero point): ``Gather`` of int8 rows, ``Cast``, ``Mul`` by the scale. That
costs four bytes a row and uses plain ONNX operators only. The token embeddings may have four bits a value
(``four_bits``).

Attention scores (products of two activations) stay in float: ``MatMulConstBOnly``. Shape inference beforehand
(``quant_pre_process``) is for static quantisation: the exporter has folded constants already.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from gradistill.errors import ModelError
from gradistill.export.four_bits import FLOAT, is_token_table, lookup_nodes
from gradistill.export.onnx_export import LARGEST, load_graph, quiet_libraries, save_graph

REDUCED_RANGE = True
"""Weights of products use seven of the eight bits. Processors without VNNI add pairs of products in 16 bits, which
eight bits would overflow: the same file would give other predictions there (onnxruntime issue 5849)."""


@dataclass(frozen=True)
class Quantization:
    """How a graph is quantised.

    ``frequent``: ids of tokens whose embeddings have eight bits a value, while others have four; None: all have eight.
    ``calibration``: batches whose activations set the ranges of static quantisation (QDQ); None: dynamic quantisation.
    """

    frequent: Sequence[int] | None = None
    calibration: Sequence[Mapping[str, np.ndarray]] | None = None


PLAIN = Quantization()


def quantized_layers(file: Path) -> dict[str, int]:
    """The layers that ``quantize`` can put into INT8: the number of parameters of each node with constant weights, by
    name."""
    graph = load_graph(file).graph
    sizes = {part.name: int(np.prod(part.dims)) for part in graph.initializer if part.data_type == FLOAT}
    parameters = {}
    for node in graph.node:
        weight = node.input[0] if _is_embedding(node, graph) else node.input[1] if _is_product(node) else ""
        if weight in sizes:
            parameters[node.name] = sizes[weight]
    return parameters


def quantize(
    source: Path, target: Path, *, in_float: Collection[str] = (), how: Quantization = PLAIN
) -> None:
    """Write the INT8 form of an ONNX file.

    Parameters:
        ``source``: a file that ``write_onnx`` wrote.
        ``target``: the file to write.
        ``in_float``: names of nodes (``quantized_layers``) that stay in float32.
        ``how``: dynamic or static, and the bits of embeddings.

    Example: ``quantize(Path("onnx/model.onnx"), Path("onnx/model_quantized.onnx"))``
    """
    runtime: Any = import_module("onnxruntime.quantization")
    large = sum(path.stat().st_size for path in source.parent.glob(f"{source.name}*")) > LARGEST
    excluded = [
        name for layer in in_float for name in (layer, f"{layer}_MatMul")
    ]  # Gemm becomes MatMul and Add
    shared: dict[str, Any] = {
        "per_channel": True, "reduce_range": REDUCED_RANGE, "weight_type": runtime.QuantType.QInt8,
        "nodes_to_exclude": excluded, "use_external_data_format": large, "extra_options": {"MatMulConstBOnly": True},
    }  # fmt: skip
    with quiet_libraries():
        if how.calibration is None:
            runtime.quantize_dynamic(str(source), str(target), op_types_to_quantize=["MatMul"], **shared)
        else:
            runtime.quantize_static(
                str(source), str(target), _reader(runtime, how.calibration), quant_format=runtime.QuantFormat.QDQ,
                op_types_to_quantize=["MatMul", "Gemm"], **shared,
            )  # fmt: skip
    graph = load_graph(target)
    _quantize_embeddings(graph.graph, frozenset(in_float), how.frequent)
    for beside in target.parent.glob(f"{target.name}?data"):
        beside.unlink()
    save_graph(graph, target, large=large)


def _is_product(node: Any) -> bool:
    return node.op_type in ("MatMul", "Gemm")


def _is_embedding(node: Any, graph: Any) -> bool:
    """Whether a node looks up rows of a float table."""
    axis = next((part.i for part in node.attribute if part.name == "axis"), 0)
    if node.op_type != "Gather" or axis != 0:
        return False
    table = next((part for part in graph.initializer if part.name == node.input[0]), None)
    return table is not None and len(table.dims) == 2 and table.data_type == FLOAT


def _reader(runtime: Any, batches: Sequence[Mapping[str, np.ndarray]]) -> Any:
    """The calibration reader of onnxruntime, which returns one batch after the other."""
    left = iter(batches)

    class Reader(runtime.CalibrationDataReader):
        def get_next(self) -> Any:
            return next(left, None)

    return Reader()


def _quantize_embeddings(graph: Any, in_float: Collection[str], frequent: Sequence[int] | None) -> None:
    """Replace each lookup in a float table by lookups of quantised rows and their scales."""
    of_tokens = False
    onnx = import_module("onnx")
    make, tables = onnx.helper.make_node, dict[str, tuple[str, str]]()
    nodes = []
    for node in graph.node:
        if not _is_embedding(node, graph):
            nodes.append(node)
            continue
        name, ids, out = node.input[0], node.input[1], node.output[0]
        table = next(part for part in graph.initializer if part.name == name)
        of_tokens |= is_token_table(node, table.dims[1])
        if node.name in in_float:
            nodes.append(node)
            continue
        if frequent is not None and is_token_table(node, table.dims[1]):
            tables[name] = ("", "")
            nodes += lookup_nodes(graph, node, onnx.numpy_helper.to_array(table), frequent)
            continue
        if name not in tables:
            tables[name] = _add_rows(
                graph, name, onnx.numpy_helper.to_array(table), onnx.numpy_helper.from_array
            )
        rows, scales = tables[name]
        nodes += [
            make("Gather", [rows, ids], [f"{out}_int8"], name=f"{node.name}_int8", axis=0),
            make("Gather", [scales, ids], [f"{out}_row_scale"], name=f"{node.name}_row_scale", axis=0),
            make("Cast", [f"{out}_int8"], [f"{out}_float"], name=f"{node.name}_cast", to=FLOAT),
            make("Mul", [f"{out}_float", f"{out}_row_scale"], [out], name=f"{node.name}_scaled"),
        ]
    if frequent is not None and not of_tokens:
        raise ModelError(
            "no embedding table of even width is looked up by input_ids itself, so none can have four bits a value",
            expected="a family such as BERT",
            remedy="leave --embedding-bits out",
        )
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    for name in tables:
        if name not in used:
            graph.initializer.remove(next(part for part in graph.initializer if part.name == name))


def _add_rows(graph: Any, name: str, table: np.ndarray, from_array: Any) -> tuple[str, str]:
    """Add the int8 rows of a table and their scales; returns the names of both."""
    rows, scales = int8_rows(table)
    graph.initializer.extend([from_array(rows, f"{name}_int8"), from_array(scales, f"{name}_row_scale")])
    return f"{name}_int8", f"{name}_row_scale"


def int8_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a table as int8 ``(row, width)``, and the scale of each row ``(row, 1)``. Their product differs from
    the table by at most half a scale. A row of zeros has the scale 1.

    Example: ``int8_rows(np.array([[1.0, -0.5]], np.float32))[0].tolist() == [[127, -64]]``
    """
    scales = np.abs(table).max(axis=1, keepdims=True).astype(np.float32) / np.float32(127)
    scales[scales == 0] = 1
    return np.clip(np.rint(table / scales), -127, 127).astype(np.int8), scales
