"""The columns of a store: one for each signal, with its shape and encoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gradistill.models.facts import ModelFacts
from gradistill.signals.base import Signal

Encoding = Literal["float32", "float16", "int8"]

_FACTOR = np.dtype(np.float32)


@dataclass(frozen=True)
class Column:
    """The values of one signal: an array of ``shape`` for each example, or for each token where ``per_token`` is set.

    ``encoding`` is the stored type. Below float32, each vector (the last axis) is divided by its largest absolute
    value, which is stored with it as a float32, so that direction and length are both kept.
    """

    signal: Signal
    shape: tuple[int, ...]
    per_token: bool
    encoding: Encoding

    @property
    def name(self) -> str:
        return self.signal.column_name

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "shape": list(self.shape),
            "per": "token" if self.per_token else "example",
            "encoding": self.encoding,
        }


def item_bytes(signal: Mapping[str, Any]) -> int:
    """Bytes of one example, or of one token, of a column (``Column.as_dict``). The last axis is a vector."""
    shape, encoding = signal["shape"], signal["encoding"]
    numbers = int(np.prod(shape))
    factors = 0 if encoding == "float32" else numbers // shape[-1]
    return numbers * np.dtype(encoding).itemsize + factors * _FACTOR.itemsize


def columns_for(signals: Iterable[Signal], model: ModelFacts, encoding: Encoding) -> tuple[Column, ...]:
    """One column for each distinct signal. Vectors use ``encoding``; logits and scores are small and stay float32."""
    columns = []
    for signal in dict.fromkeys(signal.stored_as() for signal in signals):
        layout = signal.layout(model)
        columns.append(
            Column(signal, layout.shape, layout.per_token, encoding if layout.vectors else "float32")
        )
    return tuple(columns)


def packed(values: np.ndarray, encoding: Encoding) -> bytes:
    """The encoded bytes of float32 values whose last axis is a vector."""
    if encoding == "float32":
        return np.ascontiguousarray(values, dtype="<f4").tobytes()
    factors = np.abs(values).max(-1, keepdims=True).astype(np.float32)
    unit = np.divide(values, factors, out=np.zeros_like(values), where=factors > 0)
    narrow = unit.astype("<f2") if encoding == "float16" else np.rint(unit * 127).astype(np.int8)
    return np.ascontiguousarray(factors, dtype="<f4").tobytes() + np.ascontiguousarray(narrow).tobytes()


def unpacked(raw: memoryview | bytes, shape: tuple[int, ...], encoding: Encoding) -> np.ndarray:
    """The values that ``packed`` encoded, as float32."""
    if encoding == "float32":
        return np.frombuffer(raw, dtype="<f4").reshape(shape)
    vectors = int(np.prod(shape[:-1]))
    factors = np.frombuffer(raw, dtype="<f4", count=vectors).reshape(*shape[:-1], 1)
    dtype, full = ("<f2", 1.0) if encoding == "float16" else (np.int8, 127.0)
    narrow = np.frombuffer(raw, dtype=dtype, offset=vectors * _FACTOR.itemsize).reshape(shape)
    return narrow.astype(np.float32) * (factors / np.float32(full))
