"""The probe: facts about a model's layers, and hooks for its embedding output.

From one forward pass, and not from class names, it finds the module that returns the embedding output
(``hidden_states[0]`` of transformers: after position and type embeddings, LayerNorm and dropout), the depth
and width of the model, and the position that its head reads. Hooks exist in ``with`` blocks only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from gradistill.batch import Batch
from gradistill.errors import ModelError
from gradistill.models.attention import Heads, attending
from gradistill.models.facts import ModelFacts, is_multi_label, is_token_classifier
from gradistill.models.last_block import Reads, Trim, find_trim
from gradistill.models.tracing import (
    ModuleCall,
    all_trainable,
    config_of,
    evaluating,
    probe_batch,
    traced,
    unwrapped,
    without_autocast,
)

_LOG = logging.getLogger(__name__)

PADDING_TOLERANCE = 1e-3
"""A larger change by padding, relative to the largest logit, is no rounding, even if norms compute in float32."""


class BlockCall(NamedTuple):
    """The call of a module that returns a hidden state.

    ``number`` is its number, from 0, among the ``calls`` of the module in one forward pass: some models have one module
    for all layers.
    """

    name: str
    number: int
    calls: int


@dataclass(frozen=True, kw_only=True)
class Probe(ModelFacts):
    """Facts about a model, and the modules where its states can be read: see ``find``.

    ``embedding`` is the name of the module that returns the embedding output, ``embedding_parameters`` the names of all
    parameters that it depends on. ``reads`` is the position that represents the text: the first token ([CLS]) or the
    last (decoders). ``trim`` is the part of the last block that is computed for that position only (None if the head
    reads several). ``skipped_pad_id`` is the token id that a head which reads the last token skips at any position:
    that of padding. ``blocks`` are the calls that return the states after all layers but the last; empty if one of them
    is not found.
    """

    embedding: str
    embedding_parameters: tuple[str, ...]
    reads: Reads
    trim: Trim | None
    skipped_pad_id: int | None = None
    blocks: tuple[BlockCall, ...] = ()

    @classmethod
    def find(cls, model: nn.Module) -> Probe:
        """Probe a sequence classifier with one forward pass. Raises ModelError for a model without such modules."""
        inner = unwrapped(model)
        batch = probe_batch(inner)
        with evaluating(inner), all_trainable(inner), torch.enable_grad():
            with attending(inner) as recorded:
                calls, outputs = traced(inner, batch)
            states = _hidden_states(inner, outputs)
            name = _producer(inner, calls, states[0])
            logits, mask = outputs.logits, batch["attention_mask"]
            seen = _alike_in_every_layer(recorded, len(states) - 1, mask.shape[1])
            blocks = _block_calls(calls, states)
            _warn_of_mixed_padding(inner, batch)
            tokens = is_token_classifier(inner)  # every token is read
            reads = "first" if tokens else _position_read(logits, states[-1], mask)
            return cls(
                embedding=name,
                embedding_parameters=_upstream_parameters(inner, states[0]),
                layers=len(states) - 1,
                width=states[0].shape[-1],
                labels=logits.shape[-1],
                multi_label=is_multi_label(inner),
                token_labels=tokens,
                reads=reads,
                skipped_pad_id=_skipped_pad_id(inner, batch) if reads == "last" else None,
                trim=None if tokens else find_trim(calls, logits, mask, reads),
                heads=recorded[0][0].shape[1] if seen else 0,
                attention_width=recorded[0][0].shape[1] * recorded[0][0].shape[3] if seen else 0,
                full_length=all(state.shape[1] == mask.shape[1] for state in states),
                replaceable_states=len(blocks) == len(states) - 2,
                blocks=blocks,
            )

    @contextmanager
    def tapped(self, model: nn.Module, replacement: Tensor | None = None) -> Iterator[list[Tensor]]:
        """Inside the block each forward pass appends its embedding output to the list of the ``with`` statement.

        With gradients enabled that tensor requires a gradient. If the parameters below it are frozen, it becomes a
        leaf, and the model goes on with a copy, which it may change in place (XLM). A ``replacement`` is used instead
        of the embedding output, row for row.
        """
        seen: list[Tensor] = []

        def hook(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
            tensor = output if replacement is None else replacement
            frozen = torch.is_grad_enabled() and not tensor.requires_grad
            if frozen:
                tensor = tensor.detach().requires_grad_()
            seen.append(tensor)
            return tensor.clone() if frozen else tensor

        handle = unwrapped(model).get_submodule(self.embedding).register_forward_hook(hook)
        try:
            yield seen
        finally:
            handle.remove()

    @contextmanager
    def interchanged(
        self, model: nn.Module, places: Mapping[int, Bool[Tensor, "row token"]]
    ) -> Iterator[None]:
        """Inside the block a forward pass of 2n rows replaces states of its first n rows by those of its last n.

        ``places`` maps a layer, from 1 to the last but one, to the tokens whose state after it is replaced.
        """
        with ExitStack() as hooks:
            for layer, taken in places.items():
                block = self.blocks[layer - 1]
                module = unwrapped(model).get_submodule(block.name)
                hooks.callback(module.register_forward_hook(_interchange(block, taken)).remove)
            yield

    def trimmed(self, model: nn.Module, batch: Batch) -> AbstractContextManager[None]:
        """Inside the block one forward pass computes its last block for the position that the head reads.

        Nothing is trimmed if blocks run again in the backward pass (activation checkpointing), without the hooks.
        """
        inner = unwrapped(model)
        if self.trim is None or (inner.training and _runs_again(inner)):
            return nullcontext()
        return self.trim.applied(inner, self.text_position(batch))

    def verified(self, model: nn.Module, batch: Batch) -> Probe:
        """This probe, reduced to the part of ``trim`` with which trimmed and whole model agree on a real batch.

        Logits and the input gradient of some of its texts (``_specimens``) are compared, in eval mode and in the type
        of the weights. The tolerance is the square root of its precision.
        """
        inner = unwrapped(model)
        if self.trim is None:
            return self
        plain = replace(self, trim=None)
        first, *made = self._specimens(batch)
        with evaluating(inner), without_autocast(inner):
            batches, whole = [first], [plain._logits_and_gradient(inner, first)]
            for each in made:
                with suppress(RuntimeError, IndexError):  # a text that the model itself cannot read
                    whole.append(plain._logits_and_gradient(inner, each))
                    batches.append(each)
            for trim in dict.fromkeys((self.trim, replace(self.trim, attention=None))):
                probe = replace(self, trim=trim)
                # A variant that the trim does not support (NotImplementedError too), or shapes that do not fit.
                with suppress(RuntimeError, IndexError):
                    results = [probe._logits_and_gradient(inner, each) for each in batches]
                    if all(map(_alike, chain(*results), chain(*whole))):
                        return probe
        _LOG.warning("The last block of %s cannot be trimmed: it runs whole.", type(inner).__name__)
        return replace(self, trim=None)

    def _specimens(self, batch: Batch) -> list[Batch]:
        """Batches that cover the cases of later ones: the shortest and longest texts of ``batch``, padded; the longest
        text alone, which needs no mask; and that text with a skipped id at its end, if the head skips one."""
        alone = _without_padding(batch.rows(batch.mask.sum(-1).argmax()[None]))
        specimens = [batch.rows(_extremes(batch.mask)), alone]
        ids = alone.inputs.get("input_ids")
        if self.skipped_pad_id is not None and ids is not None and ids.shape[1] > 1:
            ended = torch.cat([ids[:, :-1], torch.full_like(ids[:, -1:], self.skipped_pad_id)], 1)
            specimens.append(replace(alone, inputs={**alone.inputs, "input_ids": ended}))
        return specimens

    def _logits_and_gradient(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            with self.tapped(model) as taps, self.trimmed(model, batch):
                logits = model(**batch.inputs).logits
            weights = torch.arange(1, logits.shape[1] + 1, device=logits.device)
            (gradient,) = torch.autograd.grad((logits * weights).sum(), taps[-1])
        return logits.detach(), gradient

    def text_position(self, batch: Batch) -> Int[Tensor, " batch"]:
        """The position that represents each text: its first real token, or the last that the head does not skip.

        Heads of decoders use token ids, not the attention mask: an erased word, or the end of a text, may have the id
        of padding.
        """
        if self.reads == "first":
            return batch.mask.long().argmax(-1)
        read, ids = batch.mask, batch.inputs.get("input_ids")
        if self.skipped_pad_id is not None and ids is not None:
            read = read & (ids != self.skipped_pad_id)
        return (read * torch.arange(read.shape[1], device=read.device)).argmax(-1)


@dataclass
class ProbedModel:
    """A model and its probe. The first batch decides, once, whether the last block may be trimmed.

    ``model`` is not changed. ``trim_last_block=False`` (in ``of``) switches trimming off.
    """

    model: nn.Module
    probe: Probe
    _verified: bool = field(default=False, repr=False)

    @classmethod
    def of(
        cls, model: nn.Module | ProbedModel, probe: Probe | None = None, *, trim_last_block: bool = True
    ) -> ProbedModel:
        """A model with its ``probe``, which is found here unless it is given. A ProbedModel is returned unchanged.

        Raises ModelError for a model that cannot be probed.
        """
        if isinstance(model, ProbedModel):
            return model
        probe = probe or Probe.find(model)
        return cls(model, probe if trim_last_block else replace(probe, trim=None))

    def verified(self, batch: Batch) -> Probe:
        """The probe. The first call compares the trimmed with the whole model on its batch."""
        if not self._verified:
            self.probe, self._verified = self.probe.verified(self.model, batch), True
        return self.probe

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def _alike_in_every_layer(met: Sequence[Heads], layers: int, tokens: int) -> bool:
    """Whether there is one attention for each layer, all over all tokens and of one width."""
    shapes = {tensor.shape for heads in met for tensor in heads}
    return len(met) == layers and len(shapes) == 1 and next(iter(shapes))[2] == tokens


def _extremes(mask: Bool[Tensor, "batch token"]) -> Int[Tensor, " row"]:
    """The two shortest and the two longest texts, or all where there are no more."""
    by_length = mask.sum(-1).argsort(stable=True)
    return by_length if len(by_length) <= 4 else torch.cat([by_length[:2], by_length[-2:]])


def _without_padding(batch: Batch) -> Batch:
    """A batch of one text, without its padding."""
    real, whole = batch.mask[0], batch.mask.shape
    cut = {k: v[:, real] if v.shape[:2] == whole else v for k, v in batch.inputs.items()}
    return Batch.of(cut, multi_label=batch.multi_label, token_labels=batch.token_labels)


def _runs_again(model: nn.Module) -> bool:
    """Whether activation checkpointing is on; it had another name before transformers 5.2x."""
    names = ("is_activation_checkpointing", "is_gradient_checkpointing")
    return next((getattr(model, name) for name in names if hasattr(type(model), name)), False)


def _warn_of_mixed_padding(model: nn.Module, batch: Mapping[str, Tensor]) -> None:
    """Warn of models whose predictions depend on padding: FNet and Funnel mix or pool all positions of a batch."""
    config, text = config_of(model), {name: tensor[:1] for name, tensor in batch.items()}
    pad, length = getattr(config, "pad_token_id", None), text["input_ids"].shape[1]
    most = getattr(config, "max_position_embeddings", None) or 2 * length
    if pad is None or (more := min(length, most - length)) < 1:
        return  # it reads no padding, or none fits
    longer = {
        name: nn.functional.pad(tensor, (0, more), value=pad if name == "input_ids" else 0)
        for name, tensor in text.items()
    }
    try:
        with torch.no_grad():
            alone, padded = (model(**each).logits for each in (text, longer))
    except (RuntimeError, IndexError):  # positions that the configuration does not count
        return
    # A token classifier's logits have those of padding after those of the text.
    unpadded = padded[:, : alone.shape[1]] if padded.ndim > 2 else padded
    rounding = max(PADDING_TOLERANCE, torch.finfo(alone.dtype).eps ** 0.5)
    if (unpadded - alone).abs().max() > rounding * alone.abs().max():
        _LOG.warning(
            "%s also reads padding: the label of a text depends on the longest text of its batch",
            type(model).__name__,
        )


def _alike(trimmed: Tensor, whole: Tensor) -> bool:
    precision = torch.finfo(whole.dtype).eps ** 0.5
    return bool((trimmed - whole).abs().max() <= precision * whole.abs().max())


def _hidden_states(model: nn.Module, outputs: Any) -> tuple[Tensor, ...]:
    states = getattr(outputs, "hidden_states", None)
    if not states or getattr(outputs, "logits", None) is None:
        raise ModelError(
            f"{type(model).__name__} returns no hidden states or no logits",
            expected="a sequence classifier that honours output_hidden_states",
            remedy="use one of the families listed in the documentation",
        )
    return tuple(states)


def _producer(model: nn.Module, calls: Sequence[ModuleCall], embedding: Tensor) -> str:
    """The outermost module that computes the embedding output.

    Modules that only pass it through (dropout in eval mode, an identity before the attention) also return this very
    tensor, but they received it. They count only if no other module computed it (GPT-2's sum).
    """
    returned = [seen for seen in calls if not seen.several and seen.output is embedding]
    made = [s.name for s in returned if not any(argument is embedding for argument in s.arguments)]
    if made:
        return made[-1]
    if returned:
        return returned[0].name
    raise ModelError(
        f"no module of {type(model).__name__} returns hidden_states[0] as it is",
        expected="an embedding layer whose output the first block reads",
        remedy="use one of the families listed in the documentation",
    )


def _block_calls(calls: Sequence[ModuleCall], states: Sequence[Tensor]) -> tuple[BlockCall, ...]:
    """For each state but the first and the last, the outermost call that computes it; empty if one is not found."""
    blocks = []
    for state in states[1:-1]:
        made = [
            call for call in calls if call.output is state and all(a is not state for a in call.arguments)
        ]
        if not made:
            return ()
        of_module = [call for call in calls if call.name == made[-1].name]
        blocks.append(BlockCall(made[-1].name, of_module.index(made[-1]), len(of_module)))
    return tuple(blocks)


def _interchange(block: BlockCall, taken: Bool[Tensor, "row token"]) -> Callable[..., Any]:
    """A forward hook that replaces, in one call of a module, the states of ``taken`` tokens."""
    counted = count()

    def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        if next(counted) % block.calls != block.number:
            return None
        state = output[0] if isinstance(output, tuple) else output
        replaced, other = state.split(len(taken))
        changed = torch.cat([torch.where(taken.unsqueeze(-1), other, replaced), other])
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook


def _upstream_parameters(model: nn.Module, embedding: Tensor) -> tuple[str, ...]:
    """Names of the parameters that the embedding output depends on."""
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(
        embedding.sum(), list(parameters.values()), allow_unused=True, retain_graph=True
    )
    return tuple(name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None)


def _position_read(logits: Tensor, last_state: Tensor, mask: Tensor) -> Reads:
    """``last`` where the head reads the last real token and no other; ``first`` for [CLS] and pooling heads."""
    if not (logits.requires_grad and last_state.requires_grad):
        return "first"
    (gradient,) = torch.autograd.grad(logits.sum(), last_state, allow_unused=True, retain_graph=True)
    if gradient is None or gradient.shape[1] != mask.shape[1]:
        return "first"
    row = gradient[0].abs().sum(-1)
    return "last" if row[-1] > 0 and not row[:-1].any() else "first"


def _skipped_pad_id(model: nn.Module, batch: Mapping[str, Tensor]) -> int | None:
    """The id of padding if the head looks for the last token by ids; None otherwise.

    Such a head reads an earlier token if the last one of a text without padding has that id.
    """
    pad: int | None = getattr(config_of(model), "pad_token_id", None)
    if pad is None:
        return None
    ids, mask = batch["input_ids"][:1].clone(), batch["attention_mask"][:1]
    ids[0, -1] = pad
    outputs = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    last_state = outputs.hidden_states[-1]
    (gradient,) = torch.autograd.grad(outputs.logits.sum(), last_state, allow_unused=True)
    return pad if gradient is not None and not gradient[0, -1].any() else None
