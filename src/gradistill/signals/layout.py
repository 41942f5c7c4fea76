"""What a store holds: for each request its columns, their shapes, and how their numbers are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from gradistill.objectives._contract import (
    AttentionVectors,
    AttributionScores,
    ClsGradient,
    ClsStates,
    Gradients,
    InputGradient,
    Logits,
    ModelFacts,
    Request,
    States,
)

Encoding = Literal["float32", "float16", "int8"]

_FACTOR = np.dtype(np.float32)


@dataclass(frozen=True)
class Column:
    """One request's numbers. An example has ``shape`` of them, or a token has, where ``per_token`` is set.

    ``encoding`` is how they are written. Narrower than float32, each vector (the last axis) is divided by its
    largest absolute value, which stands beside it as a float32: its direction and its length both stay.
    """

    request: Request
    shape: tuple[int, ...]
    per_token: bool
    encoding: Encoding

    @property
    def name(self) -> str:
        fields = asdict(self.request)
        target = fields.pop("target", {})
        parts = [type(self.request).__name__, *target.values(), *fields.values()]
        return "/".join("-".join(map(str, p)) if isinstance(p, tuple) else str(p) for p in parts)

    @property
    def item_bytes(self) -> int:
        """Bytes of one example, or of one token."""
        return bytes_of(self.shape, self.encoding)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "shape": list(self.shape),
            "per": "token" if self.per_token else "example",
            "encoding": self.encoding,
        }


def bytes_of(shape: Sequence[int], encoding: Encoding) -> int:
    """Bytes of numbers of a shape, whose last axis is a vector."""
    numbers = int(np.prod(shape))
    factors = 0 if encoding == "float32" else numbers // shape[-1]
    return numbers * np.dtype(encoding).itemsize + factors * _FACTOR.itemsize


def columns_for(requests: Sequence[Request], facts: ModelFacts, encoding: Encoding) -> tuple[Column, ...]:
    """A column a distinct request. Vectors take ``encoding``; logits and scores are few and stay float32."""
    return tuple(_column(request, facts, encoding) for request in dict.fromkeys(map(kept_as, requests)))


def kept_as(request: Request) -> Request:
    """The request whose column answers this one: a label that is drawn later can be any, so all views are kept."""
    if isinstance(request, Gradients):
        return replace(request, target=request.target.whole)
    return request


def _column(request: Request, facts: ModelFacts, encoding: Encoding) -> Column:
    match request:
        case Logits():
            return Column(request, (facts.labels,), False, "float32")
        case ClsStates(layers):
            return Column(request, (len(layers), facts.width), False, encoding)
        case States(layers):
            return Column(request, (len(layers), facts.width), True, encoding)
        case AttentionVectors(_, layers):
            return Column(
                request,
                (len(layers), facts.heads, facts.attention_width // max(facts.heads, 1)),
                True,
                encoding,
            )
        case InputGradient(target):
            return Column(request, (target.views(facts.labels), facts.width), True, encoding)
        case ClsGradient(target, layers):
            return Column(request, (target.views(facts.labels), len(layers), facts.width), False, encoding)
        case AttributionScores(target):
            return Column(request, (target.views(facts.labels),), True, "float32")


def packed(values: np.ndarray, encoding: Encoding) -> bytes:
    """The bytes of float32 values whose last axis is a vector."""
    if encoding == "float32":
        return np.ascontiguousarray(values, dtype="<f4").tobytes()
    factors = np.abs(values).max(-1, keepdims=True).astype(np.float32)
    unit = np.divide(values, factors, out=np.zeros_like(values), where=factors > 0)
    narrow = unit.astype("<f2") if encoding == "float16" else np.rint(unit * 127).astype(np.int8)
    return np.ascontiguousarray(factors, dtype="<f4").tobytes() + np.ascontiguousarray(narrow).tobytes()


def unpacked(raw: memoryview | bytes, shape: tuple[int, ...], encoding: Encoding) -> np.ndarray:
    """The values of ``packed``, as float32."""
    if encoding == "float32":
        return np.frombuffer(raw, dtype="<f4").reshape(shape)
    vectors = int(np.prod(shape[:-1]))
    factors = np.frombuffer(raw, dtype="<f4", count=vectors).reshape(*shape[:-1], 1)
    dtype, full = ("<f2", 1.0) if encoding == "float16" else (np.int8, 127.0)
    narrow = np.frombuffer(raw, dtype=dtype, offset=vectors * _FACTOR.itemsize).reshape(shape)
    return narrow.astype(np.float32) * (factors / np.float32(full))
