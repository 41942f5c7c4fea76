"""Attention with a second derivative, and functions that run in place of a model's own attention.

The private parts of transformers' choice of an attention function are used here and nowhere else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gradistill.models.tracing import config_of, unwrapped

COMPARABLE = frozenset({
    "albert", "bert", "camembert", "distilbert", "electra", "eurobert", "gemma3_text", "gpt2", "llama", "mobilebert",
    "modernbert", "nomic_bert", "qwen2", "qwen3", "roberta", "xlm-roberta",
})  # fmt: skip
"""Types of models whose attention is known to be comparable: one in every layer, all of one width, through
transformers' AttentionInterface. ``_supports_attention_backend`` of a class shows the last condition only."""


def has_comparable_attention(config: PreTrainedConfig) -> bool:
    """Whether a configuration alone shows that a model's attention is comparable, before weights are loaded.

    For other types ``Probe.find`` examines the model.
    """
    return config.model_type in COMPARABLE


@contextmanager
def second_order_attention(model: nn.Module) -> Iterator[None]:
    """Eager attention inside the block; the model's own kind is restored after it.

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

Attention = Callable[..., Any]
"""A function of transformers' ``AttentionInterface``: ``(module, query, key, value, mask, **options)``."""

Interceptor = Callable[..., Any]
"""A function to run in its place: ``(attention, module, query, key, value, mask, **options)``, with the original."""

_PREFIX = "gradistill_"
_OWN: dict[str, str] = {}
"""The model's own kind of attention for each name that is registered here."""
_INTERCEPTORS: ContextVar[tuple[tuple[frozenset[nn.Module], Interceptor], ...]] = ContextVar(
    "interceptors", default=()
)
"""The modules of a model and the interceptor of their attention; a later one takes precedence."""


@contextmanager
def intercepted_attention(model: nn.Module, interceptor: Interceptor) -> Iterator[None]:
    """Inside the block every self-attention of the model calls ``interceptor`` in place of its own function.

    The model is set to a registered function that wraps its own kind of attention, with the same masks, and is set back
    after the block. Modules of other models, which may share the configuration, keep their own attention, and so do
    other threads. Models that have their own attention code and do not use transformers' ``AttentionInterface``
    (DeBERTa, Funnel) are not intercepted.

    Example::

        def counting(attention, *arguments, **options):
            calls.append(arguments[0])
            return attention(*arguments, **options)

        with intercepted_attention(model, counting):
            model(**batch)
    """
    inner: Any = unwrapped(model)
    before = config_of(model)._attn_implementation
    if before is None or not inner._can_set_attn_implementation():
        yield
        return
    token = _INTERCEPTORS.set((*_INTERCEPTORS.get(), (frozenset(inner.modules()), interceptor)))
    try:
        if before not in _OWN:
            inner.set_attn_implementation(_registered(before))
        yield
    finally:
        _INTERCEPTORS.reset(token)
        if before not in _OWN:
            inner.set_attn_implementation(before)


def _registered(own: str) -> str:
    """The name under which ``_intercepted`` is registered for the kind of attention ``own``, with the same masks."""
    name = _PREFIX + re.sub(r"\W", "_", own)  # a name with a slash would be looked for on the hub
    if name not in _OWN:
        _OWN[name] = own
        AttentionInterface.register(name, partial(_intercepted, own))
        if own in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[own])
    return name


def _intercepted(own: str, module: nn.Module, *arguments: Any, **options: Any) -> Any:
    """The attention that the module would choose by itself, wrapped in all of its interceptors."""
    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    attention: Attention = ALL_ATTENTION_FUNCTIONS.get_interface(own, eager)
    for modules, interceptor in _INTERCEPTORS.get():
        if module in modules:
            attention = partial(interceptor, attention)
    return attention(module, *arguments, **options)


def chooses_attention(module: nn.Module) -> bool:
    """Whether a module looks up its attention function in its configuration."""
    return hasattr(getattr(module, "config", None), "_attn_implementation")


@contextmanager
def attending(model: nn.Module) -> Iterator[list[Heads]]:
    """Inside the block each self-attention appends its queries, keys and values to the list, in order of call.

    These are the tensors that the scores are computed from, after rotary positions. The model computes the same as
    before. A model that cannot be intercepted (``intercepted_attention``) appends nothing.
    """
    heads: list[Heads] = []

    def noting(
        attention: Attention,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *rest: Any,
        **options: Any,
    ) -> Any:
        groups = query.shape[1] // key.shape[1]
        heads.append((query, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)))
        return attention(module, query, key, value, *rest, **options)

    with intercepted_attention(model, noting):
        yield heads
