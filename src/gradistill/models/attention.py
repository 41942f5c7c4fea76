"""Attention that has a second derivative."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from gradistill.models.tracing import config_of, unwrapped


@contextmanager
def second_order_attention(model: nn.Module) -> Iterator[None]:
    """Eager attention inside the block, the model's own kind again behind it.

    Fused kernels have no second derivative: on the CPU they raise without dropout and fall back silently with
    it. Eager attention and the MATH kernel cost the same there; eager is chosen because it is a property of
    this one model, not of everything that runs inside the block.
    """
    config, inner = config_of(model), unwrapped(model)
    before = config._attn_implementation
    if before == "eager":
        yield
        return
    inner.set_attn_implementation("eager")  # pyright: ignore[reportCallIssue]
    try:
        yield
    finally:
        inner.set_attn_implementation(before)  # pyright: ignore[reportCallIssue]
