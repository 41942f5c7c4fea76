"""The last block trimmed to the one row that the head reads.

A classifier that reads one position (the first token of most encoders, the last of decoders) needs from its last block
the keys and values of all tokens, and everything else for that position only. The module calls to trim are found from
one forward pass: their output reaches the logits through that row alone, and depends on their input token by token.
Logits and gradients are those of the whole model (an aligned step of two layers costs 1.2 plain ones instead of
2.1: docs/performance.md). Models that pool over tokens have no such calls and stay whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gradistill.models.attention import Attention, chooses_attention, intercepted_attention
from gradistill.models.tracing import ModuleCall

Reads = Literal["first", "last"]
Positions = Int[Tensor, " batch"] | None
"""The row of each example that the head reads; None for the first row of all."""


@dataclass(frozen=True)
class Call:
    """The ``turn``-th call of a module in a forward pass, counted from 1 (ALBERT calls one block again and again)."""

    module: str
    turn: int


@dataclass(frozen=True)
class Trim:
    """The calls to trim to one row: those that work token by token (``rows``), and the last ``attention``."""

    reads: Reads
    rows: frozenset[Call]
    attention: Call | None

    @contextmanager
    def applied(self, model: nn.Module, positions: Positions) -> Iterator[None]:
        """Inside the block one forward pass computes its last block for the row at ``positions`` only.

        Everything after the last attention repeats that row, so only that row of the last hidden state is right.
        """
        work = _TrimState(positions if self.reads == "last" else None)
        with ExitStack() as hooks:
            for name in {call.module for call in self.rows}:
                turns = {call.turn for call in self.rows if call.module == name}
                module = model.get_submodule(name)
                before, after = partial(work.cut, name, turns), partial(work.repeated, name, turns)
                hooks.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(after).remove)
            if self.attention is not None:
                hooks.enter_context(_one_query(model, self.attention, work))
            yield


def find_trim(calls: Sequence[ModuleCall], logits: Tensor, mask: Tensor, reads: Reads) -> Trim | None:
    """The trim that the calls of one forward pass allow, given in order of return; None if nothing can be trimmed."""
    rows = _Rows(mask, reads)
    turns: Counter[str] = Counter()
    numbered: list[tuple[Call, ModuleCall]] = []
    for seen in calls:
        turns[seen.name] += 1
        numbered.append((Call(seen.name, turns[seen.name]), seen))
    unread = _read_in_one_row(numbered, logits, rows)
    local = {call for call, seen in unread if _token_by_token(seen, rows)}
    by_token = [entry for entry in unread if entry[0] in local]
    mixing = [entry for entry in unread if entry[0] not in local]
    outermost = frozenset(
        call for call, seen in by_token if not any(_inside(seen, outer) for _, outer in by_token)
    )
    innermost = [
        (call, seen)
        for call, seen in mixing
        if chooses_attention(seen.module) and not any(_inside(inner, seen) for _, inner in mixing)
    ]
    return Trim(reads, outermost, innermost[-1][0] if innermost else None) if outermost else None


@dataclass(frozen=True)
class _Rows:
    """The rows that the head reads, in a specimen batch."""

    mask: Tensor
    reads: Reads

    def fits(self, tensor: object) -> bool:
        """Whether a tensor has a row for each token. Some encoders (Funnel) shorten the text after its first token."""
        dimensions = 1 if self.reads == "first" else 2
        return (
            isinstance(tensor, Tensor)
            and tensor.ndim == 3
            and tensor.shape[:dimensions] == self.mask.shape[:dimensions]
        )

    def others_are_zero(self, gradient: Tensor) -> bool:
        others = gradient[:, 1:] if self.reads == "first" else gradient[~self._last]
        return not others.any()

    def of(self, output: Tensor) -> Tensor:
        return output[:, 0] if self.reads == "first" else output[self._last]

    @cached_property
    def _last(self) -> Bool[Tensor, "batch token"]:
        """A mask of the last real token of each text."""
        length = self.mask.shape[1]
        place = (self.mask * torch.arange(length, device=self.mask.device)).argmax(-1)
        return nn.functional.one_hot(place, length).bool()


def _read_in_one_row(
    numbered: Sequence[tuple[Call, ModuleCall]], logits: Tensor, rows: _Rows
) -> list[tuple[Call, ModuleCall]]:
    """The calls whose output, one row a token, reaches the logits through one row and no other."""
    candidates = [
        (call, seen) for call, seen in numbered if rows.fits(seen.output) and seen.output.requires_grad
    ]
    scalar = (logits * torch.arange(1, logits.shape[1] + 1, device=logits.device)).sum()
    outputs = [seen.output for _, seen in candidates]
    gradients = torch.autograd.grad(scalar, outputs, allow_unused=True, retain_graph=True)
    return [
        entry
        for entry, gradient in zip(candidates, gradients, strict=True)
        if gradient is not None and rows.of(gradient).any() and rows.others_are_zero(gradient)
    ]


def _token_by_token(seen: ModuleCall, rows: _Rows) -> bool:
    """Whether each row of a call's output depends only on the same row of its inputs. Runs the call again, alone."""
    tensors = [value for value in seen.arguments if isinstance(value, Tensor)]
    plain = all(value is None or isinstance(value, Tensor | bool | int | float) for value in seen.arguments)
    if seen.several or not plain or not tensors or not all(rows.fits(tensor) for tensor in tensors):
        return False
    dtype = next((weight.dtype for weight in seen.module.parameters()), tensors[0].dtype)  # outside autocast
    leaves = {id(tensor): tensor.detach().to(dtype).requires_grad_() for tensor in tensors}
    output = seen.module(
        *(leaves.get(id(value), value) for value in seen.given),
        **{key: leaves.get(id(value), value) for key, value in seen.named.items()},
    )
    gradients = torch.autograd.grad(rows.of(output).sum(), list(leaves.values()), allow_unused=True)
    return all(gradient is None or rows.others_are_zero(gradient) for gradient in gradients)


def _inside(inner: ModuleCall, outer: ModuleCall) -> bool:
    """Whether one call happened within another."""
    return inner is not outer and outer.start < inner.start and inner.end < outer.end


@dataclass
class _TrimState:
    """The state of one forward pass: how often each module was called, and the row that each repeated tensor holds."""

    positions: Positions
    turns: Counter[str] = field(default_factory=Counter)
    length: dict[str, int] = field(default_factory=dict)
    repeated_rows: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def row(self, tensor: Tensor) -> Float[Tensor, "batch 1 hidden"]:
        """The read row of ``(batch, token, hidden)``. For a repeated tensor it is the row that was repeated."""
        if id(tensor) in self.repeated_rows:
            return self.repeated_rows[id(tensor)][1]
        return selected(tensor, self.positions, 1)

    def cut(
        self,
        name: str,
        turns: set[int],
        _module: nn.Module,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """A forward pre-hook, with ``name`` and ``turns`` bound: it passes only the read row of each input."""
        self.turns[name] += 1
        if self.turns[name] not in turns:
            return None
        tensors = (value for value in (*arguments, *named.values()) if isinstance(value, Tensor))
        self.length[name] = next(tensors).shape[1]
        rows = tuple(self.row(value) if isinstance(value, Tensor) else value for value in arguments)
        return rows, {
            key: self.row(value) if isinstance(value, Tensor) else value for key, value in named.items()
        }

    def repeated(
        self, name: str, turns: set[int], _module: nn.Module, _arguments: Any, output: Any
    ) -> Tensor | None:
        """A forward hook, bound likewise: it repeats the row for every token, for the modules before the head."""
        if self.turns[name] not in turns:
            return None
        repeated = output.expand(-1, self.length[name], -1)
        self.repeated_rows[id(repeated)] = (repeated, output)
        return repeated


def selected(tensor: Tensor, positions: Positions, axis: int) -> Tensor:
    """The slice of length 1 along ``axis`` at each example's position."""
    if positions is None:
        return tensor.narrow(axis, 0, 1)
    index = positions.view(-1, *[1] * (tensor.ndim - 1))
    shape = list(tensor.shape)
    shape[axis] = 1
    return tensor.gather(axis, index.expand(shape))


def _one_query(model: nn.Module, call: Call, work: _TrimState) -> AbstractContextManager[None]:
    """Inside the block the attention of one call has one query."""
    name, target = f"{call.module}()", model.get_submodule(call.module)

    def one_query(attention: Attention, module: nn.Module, *arguments: Any, **options: Any) -> Any:
        work.turns[name] += module is target
        if module is target and work.turns[name] == call.turn:
            return one_query_attention(work.positions, module, *arguments, **options)
        return attention(module, *arguments, **options)

    return intercepted_attention(model, one_query)


def one_query_attention(
    positions: Positions,
    module: nn.Module,
    query: Float[Tensor, "batch head token part"],
    key: Float[Tensor, "batch key_head key part"],
    value: Float[Tensor, "batch key_head key value_part"],
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Float[Tensor, "batch token head value_part"], None]:
    """Attention of the one row that is read, repeated for all tokens.

    Without a mask, a row of a causal module attends to the keys up to its own, and a row of any other module to all
    keys. Raises NotImplementedError for variants that are not supported; these keep their own attention.
    """
    scaling: float | None = options.get("scaling")
    dropout: float = options.get("dropout", 0.0)
    for name in ("softcap", "position_bias", "s_aux", "cache"):
        if options.get(name) is not None:
            raise NotImplementedError(name)
    tokens = query.shape[2]
    query = selected(query, positions, 2)
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = _masked(scores, attention_mask, positions)
    elif positions is not None and _is_causal(module, options):
        later = torch.arange(scores.shape[-1], device=scores.device) > positions[:, None]
        scores = scores.masked_fill(later[:, None, None], torch.finfo(scores.dtype).min)
    wide = torch.promote_types(scores.dtype, torch.float32)
    shares = nn.functional.dropout(scores.softmax(-1, dtype=wide).to(value), dropout, module.training)
    return (shares @ value).transpose(1, 2).expand(-1, tokens, -1, -1), None


def _is_causal(module: nn.Module, options: Mapping[str, Any]) -> bool:
    """Whether attention is causal, as decided by transformers' fused kernel, which gets no mask without padding."""
    given: bool | None = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if given is None else given)


def _masked(scores: Tensor, mask: Tensor, positions: Positions) -> Tensor:
    if mask.shape[2] > 1:
        mask = selected(mask.expand(scores.shape[0], -1, -1, -1), positions, 2)
    mask = mask[..., : scores.shape[-1]]
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask
