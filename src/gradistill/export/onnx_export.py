"""A PyTorch classifier as an ONNX graph: token ids in, logits out, any number of rows and tokens.

``torch.onnx.export(dynamo=True)`` traces the model with ``torch.export``. The graph is then prepared for publication:
nodes are named by their modules, and stack traces, which hold paths of this machine, are removed. Attention is traced
in its plain form (``eager``): onnxruntime runs it about a tenth faster than torch's translation of ``sdpa``. Parity is
checked against the model with its own attention.
"""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradistill.errors import ModelError
from gradistill.models.attention import second_order_attention

OPSET = 18
"""The opset of the graph: the lowest that torch writes without conversion, so most runtimes can read it."""

OUTPUT = "logits"
AXES = {0: "batch", 1: "sequence"}

LARGEST = 1_900_000_000
"""Bytes of weights above which they are written into a separate file: protobuf ends at 2 GiB."""

_SCOPES = "pkg.torch.onnx.name_scopes"
_OF_WRAPPER = "model."


class _LogitsOnly(nn.Module):
    """A classifier with its inputs in a fixed order, and logits as its only output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **more).logits


def input_names(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The inputs of the graph: the tokenizer's outputs that the model reads."""
    read = signature(model.forward).parameters
    types = "token_type_ids"
    return (
        "input_ids",
        "attention_mask",
        *([types] if types in tokenizer.model_input_names and types in read else []),
    )


def write_onnx(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, file: Path) -> dict[str, Any]:
    """Write a classifier as an ONNX file with dynamic axes ``batch`` and ``sequence``.

    Parameters:
        ``model``: a sequence classifier on the CPU, in eval mode; it is traced, and not changed.
        ``tokenizer``: the model's tokenizer, which decides the inputs of the graph.
        ``file``: the file to write. Weights above ``LARGEST`` bytes are written next to it, as ``NAME_data``.

    Returns opset, inputs and output. Raises ModelError for a model that cannot be exported, with the reason.

    Example: ``write_onnx(model, tokenizer, Path("export/onnx/model.onnx"))["opset"]``
    """
    names = input_names(model, tokenizer)
    kind = type(model).__name__
    with quiet_libraries(), torch.no_grad(), _without_cache(model), second_order_attention(model):
        try:
            program: Any = torch.onnx.export(
                _LogitsOnly(model).eval(), (), kwargs=_example(model, names), input_names=list(names),
                output_names=[OUTPUT], dynamic_shapes={name: dict(AXES) for name in names}, dynamo=True,
                opset_version=OPSET, verbose=False,
            )  # fmt: skip
        except Exception as error:
            raise _refused(kind, _reason(error)) from error
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.draft")
        large = weight_bytes(model) > LARGEST
        program.save(str(draft), external_data=large)
        graph = load_graph(draft)
    draft.unlink()
    draft.with_name(f"{draft.name}.data").unlink(missing_ok=True)
    if fixed := _fixed_axes(graph, names):
        raise _refused(kind, f"torch.export fixes {fixed}")
    _publishable(graph)
    save_graph(graph, file, large=large)
    return {"opset": OPSET, "inputs": list(names), "output": OUTPUT, "axes": list(AXES.values())}


def load_graph(file: Path) -> Any:
    """The ``onnx.ModelProto`` in a file, with external weights."""
    return import_module("onnx").load(str(file))


def save_graph(graph: Any, file: Path, *, large: bool) -> None:
    """Write a graph. The weights of a ``large`` one go into a second file, named as transformers.js expects."""
    more = {"save_as_external_data": True, "location": f"{file.name}_data"} if large else {}
    import_module("onnx").save(graph, str(file), **more)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, each counted once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide warnings and log lines of the exporters: the results that matter are checked here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _without_cache(model: PreTrainedModel) -> Iterator[None]:
    """Switch off ``use_cache``, with which decoders return keys and values for the next token."""
    before = getattr(model.config, "use_cache", None)
    if before is None:
        yield
        return
    model.config.use_cache = False
    try:
        yield
    finally:
        model.config.use_cache = before


def _example(model: PreTrainedModel, names: Sequence[str]) -> dict[str, Tensor]:
    """Example inputs: two rows of different length, because the exporter treats sizes of 1 as constants."""
    padding = int(model.config.pad_token_id or 0)
    ids = torch.arange(18).reshape(2, 9) % 7 + 1
    ids[ids == padding] += 7
    mask = torch.ones_like(ids)
    ids[1, 6:], mask[1, 6:] = padding, 0
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: every[name] for name in names}


def _fixed_axes(graph: Any, names: Sequence[str]) -> str:
    """The input axes that the exporter fixed to one size, in words; blank if both axes are dynamic."""
    shapes = {given.name: given.type.tensor_type.shape.dim for given in graph.graph.input}
    axes = [axis for k, axis in AXES.items() if not shapes[names[0]][k].dim_param]
    return " and ".join(
        {"batch": "the number of rows", "sequence": "the number of tokens"}[axis] for axis in axes
    )


def _publishable(graph: Any) -> None:
    """Name nodes by their modules, and remove debug data."""
    taken: dict[str, int] = {}
    for node in graph.graph.node:
        if node.op_type in ("MatMul", "Gemm", "Gather") and (name := _module_of(node)):
            taken[name] = taken.get(name, 0) + 1
            node.name = name if taken[name] == 1 else f"{name}#{taken[name]}"
        del node.metadata_props[:]
        node.doc_string = ""
    for part in (graph.graph, *graph.functions, *graph.graph.value_info, *graph.graph.initializer):
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    for part in (*graph.graph.input, *graph.graph.output):
        del part.metadata_props[:]
    del graph.metadata_props[:]


def _module_of(node: Any) -> str:
    """The module that a node comes from, by its name in ``named_modules``."""
    scopes = next((part.value for part in node.metadata_props if part.key == _SCOPES), "[]")
    try:
        modules = [str(scope) for scope in ast.literal_eval(scopes)][:-1]
    except (ValueError, SyntaxError):
        return ""
    return modules[-1].removeprefix(_OF_WRAPPER) if modules else ""


def _reason(error: BaseException) -> str:
    """The most specific line of the cause of the exporter's error."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip(" -") for line in str(cause).splitlines() if line.strip(" -")]
    specific = [
        line for line in lines if "static shape" in line
    ] or lines  # torch.export has found an axis to be constant
    return specific[0] if specific else type(cause).__name__


def _refused(kind: str, reason: str) -> ModelError:
    return ModelError(
        f"{kind} cannot be exported to ONNX: {reason}",
        expected="a model whose graph takes any number of rows and tokens",
        remedy="distil into a student of another family; docs/export.md lists those that can be exported",
    )
