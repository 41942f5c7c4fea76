"""Attention: a kind that has a second derivative, and what meets in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, Token
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

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


Heads = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values of one attention, each ``(batch, head, token, part)``."""

_LISTENING = "gradistill_listening"
_HEARD: ContextVar[tuple[list[Heads], str]] = ContextVar("heard")


@contextmanager
def attending(model: nn.Module) -> Iterator[list[Heads]]:
    """Inside the block each self-attention appends its queries, keys and values to the list, in order of call.

    They are those that meet in the scores, after rotary positions. What is computed stays the same. A model whose
    attention is its own code, beside transformers' ``AttentionInterface`` (DeBERTa, Funnel), appends nothing.
    """
    heard: list[Heads] = []
    with ExitStack() as hooks:
        for module in _choosing(unwrapped(model)):
            hooks.enter_context(lent_attention(module, _LISTENING, lambda own: _HEARD.set((heard, own))))
        yield heard


def chooses_attention(module: nn.Module) -> bool:
    """Whether it looks its attention function up in its configuration."""
    return hasattr(getattr(module, "config", None), "_attn_implementation")


def _choosing(model: nn.Module) -> list[nn.Module]:
    """The innermost modules that can."""
    able = [module for module in model.modules() if chooses_attention(module)]
    return [m for m in able if not any(chooses_attention(inside) for inside in list(m.modules())[1:])]


@contextmanager
def lent_attention(module: nn.Module, name: str, begin: Callable[[str], Token[Any] | None]) -> Iterator[None]:
    """While ``module`` runs, its configuration names another function of the ``AttentionInterface``.

    ``begin`` hears which it names otherwise, at each call, and sets a context variable for that function, which is
    reset behind the call; with None the call keeps its own.
    """
    config: Any = module.config
    saved: list[tuple[str, Token[Any]]] = []

    def before(_module: nn.Module, _arguments: Any) -> None:
        own = config._attn_implementation
        if (token := begin(own)) is not None:
            saved.append((own, token))
            config._attn_implementation = name

    def after(_module: nn.Module, _arguments: Any, _output: Any) -> None:
        if saved:
            config._attn_implementation, token = saved.pop()
            token.var.reset(token)

    with ExitStack() as hooks:
        hooks.callback(module.register_forward_pre_hook(before).remove)
        hooks.callback(module.register_forward_hook(after, always_call=True).remove)
        yield


def listening_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> Any:
    """The attention that the module would have chosen, and a note of what met in it (``AttentionInterface``)."""
    heard, implementation = _HEARD.get()
    groups = query.shape[1] // key.shape[1]
    heard.append((query, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)))
    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    attention: Any = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager)
    return attention(module, query, key, value, attention_mask, **options)


AttentionInterface.register(_LISTENING, listening_attention)
