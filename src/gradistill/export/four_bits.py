"""An embedding table in four bits a value, and in eight bits for frequent tokens.

A row is a scale times integers from −7 to 7. Of a few candidate scales the one with the least squared error is taken: a
scale from the largest value alone would be too coarse. For rows of frequent tokens, the rounding error is stored as a
second four-bit digit with its own scale, so these rows are as exact as in eight bits.

Only plain ONNX operators of opset 18 are used. Two numbers share a byte, the first half of a row in the low bits;
``BitwiseAnd`` and ``BitShift`` separate them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

FLOAT, INT32 = 1, 6
"""``onnx.TensorProto.FLOAT`` and ``INT32``."""

MIDDLE, LARGEST_CODE = 8, 7
SHARES = np.linspace(0.5, 1, 11, dtype=np.float32)
"""Candidates for the scale, as shares of the largest value."""


def is_token_table(node: Any, width: int) -> bool:
    """Whether a node looks up token ids in a table whose width allows four bits a value."""
    return node.input[1] == "input_ids" and width % 2 == 0


def packed_rows(
    table: Float[np.ndarray, "row width"],
) -> tuple[UInt8[np.ndarray, "row half"], Float[np.ndarray, "row 1"]]:
    """The rows of a table in four bits a value, two values a byte, and the scale of each row.

    Example: ``packed_rows(np.array([[7.0, -7.0]], np.float32))[0].tolist() == [[31]]``
    """
    largest = np.abs(table).max(axis=1, keepdims=True).astype(np.float32)
    best, scales = np.full(largest.shape, np.inf, np.float32), np.ones_like(largest)
    for share in SHARES:
        scale = np.where(largest > 0, largest * share / LARGEST_CODE, 1).astype(np.float32)
        error = ((_codes(table, scale) * scale - table) ** 2).sum(axis=1, keepdims=True)
        scales, best = np.where(error < best, scale, scales), np.minimum(error, best)
    codes = (_codes(table, scales) + MIDDLE).astype(np.uint8)
    half = table.shape[1] // 2
    return codes[:, :half] | (codes[:, half:] << 4), scales


def unpacked_rows(
    packed: UInt8[np.ndarray, "row half"], scales: np.ndarray
) -> Float[np.ndarray, "row width"]:
    """The table that ``packed_rows`` encodes."""
    codes = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) - MIDDLE
    return codes * scales


def lookup_nodes(
    graph: Any, node: Any, table: Float[np.ndarray, "row width"], frequent: Sequence[int]
) -> list[Any]:
    """The nodes that replace the lookup ``node``, a ``Gather``. Their tables are added to the graph."""
    onnx = import_module("onnx")
    make, name, out = onnx.helper.make_node, node.name, node.output[0]

    def stored(values: np.ndarray, suffix: str) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(values, f"{node.input[0]}{suffix}"))
        return f"{node.input[0]}{suffix}"

    def digit(values: np.ndarray, ids: str, to: str, which: str) -> list[Any]:
        packed, scales = packed_rows(values)
        mask, four, middle = (
            stored(np.array(value, kind), f"_{which}_{called}")
            for value, kind, called in (
                (15, np.uint8, "mask"), (4, np.uint8, "four"), (MIDDLE, np.float32, "middle"),
            )
        )  # fmt: skip
        rows, scale = stored(packed, f"_{which}_4"), stored(scales, f"_{which}_scale")
        at = f"{out}_{which}"
        return [
            make("Gather", [rows, ids], [f"{at}_packed"], name=f"{name}_{which}_packed", axis=0),
            make("Gather", [scale, ids], [f"{at}_scale"], name=f"{name}_{which}_scale", axis=0),
            make("BitwiseAnd", [f"{at}_packed", mask], [f"{at}_low"], name=f"{name}_{which}_low"),
            make("BitShift", [f"{at}_packed", four], [f"{at}_high"], name=f"{name}_{which}_high", direction="RIGHT"),
            make("Concat", [f"{at}_low", f"{at}_high"], [f"{at}_codes"], name=f"{name}_{which}_codes", axis=-1),
            make("Cast", [f"{at}_codes"], [f"{at}_float"], name=f"{name}_{which}_cast", to=FLOAT),
            make("Sub", [f"{at}_float", middle], [f"{at}_centred"], name=f"{name}_{which}_centred"),
            make("Mul", [f"{at}_centred", f"{at}_scale"], [to], name=f"{name}_{which}_scaled"),
        ]  # fmt: skip

    ids, chosen = node.input[1], np.asarray(sorted(frequent), np.int64)
    if not len(chosen):
        return digit(table, ids, out, "first")
    rest = table[chosen] - unpacked_rows(*packed_rows(table[chosen]))
    places = np.zeros(len(table), np.uint16)
    places[chosen] = np.arange(1, len(chosen) + 1)
    rest = np.concatenate([np.zeros((1, table.shape[1]), np.float32), rest])  # row 0: all other tokens
    return [
        *digit(table, ids, f"{out}_one", "first"),
        make("Gather", [stored(places, "_places"), ids], [f"{out}_short"], name=f"{name}_place", axis=0),
        make("Cast", [f"{out}_short"], [f"{out}_place"], name=f"{name}_place_cast", to=INT32),
        *digit(rest, f"{out}_place", f"{out}_two", "second"),
        make("Add", [f"{out}_one", f"{out}_two"], [out], name=f"{name}_both"),
    ]


def _codes(table: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(table / scales), -LARGEST_CODE, LARGEST_CODE)
