"""The probe: what is known about a model's inside, and hooks for its embedding output.

It finds, by looking at one forward pass instead of at class names, where the embedding output leaves
(``hidden_states[0]`` of transformers: after position and type embeddings, LayerNorm and dropout), how deep
and wide the model is, and which position its head reads. Hooks live in ``with`` blocks only.
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

MIXED = 1e-3
"""Of its largest logit: a change by padding that is no rounding, also where norms compute in float32."""


class BlockCall(NamedTuple):
    """The call of a module that returns a hidden state: the module's ``name``, and which of its ``calls`` in one
    forward pass, counted from 0, it is: some models have one module for all layers."""

    name: str
    number: int
    calls: int


@dataclass(frozen=True, kw_only=True)
class Probe(ModelFacts):
    """Facts about a model, and where its inside can be read: see ``find``.

    ``embedding`` is the name of the module that returns the embedding output, ``embedding_parameters`` the names of all
    parameters that it depends on, ``reads`` the position that stands for the text: the first token ([CLS]) or the last
    (decoders), ``trim`` what of the last block need be computed for that position only (None where the head reads
    several). ``passed_over`` is the token id that a head which reads the last token passes over, wherever it stands:
    that of padding. ``blocks`` are the calls that return the states after all layers but the last; none where one of
    them is not found.
    """

    embedding: str
    embedding_parameters: tuple[str, ...]
    reads: Reads
    trim: Trim | None
    passed_over: int | None = None
    blocks: tuple[BlockCall, ...] = ()

    @classmethod
    def find(cls, model: nn.Module) -> Probe:
        """Look at one forward pass of a sequence classifier. Raises ModelError for what has no such sites."""
        inner = unwrapped(model)
        batch = probe_batch(inner)
        with evaluating(inner), all_trainable(inner), torch.enable_grad():
            with attending(inner) as met:
                calls, outputs = traced(inner, batch)
            states = _hidden_states(inner, outputs)
            name = _producer(inner, calls, states[0])
            logits, mask = outputs.logits, batch["attention_mask"]
            seen = _alike_in_every_layer(met, len(states) - 1, mask.shape[1])
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
                passed_over=_passed_over(inner, batch) if reads == "last" else None,
                trim=None if tokens else find_trim(calls, logits, mask, reads),
                heads=met[0][0].shape[1] if seen else 0,
                attention_width=met[0][0].shape[1] * met[0][0].shape[3] if seen else 0,
                full_length=all(state.shape[1] == mask.shape[1] for state in states),
                replaceable_states=len(blocks) == len(states) - 2,
                blocks=blocks,
            )

    @contextmanager
    def tapped(self, model: nn.Module, replacement: Tensor | None = None) -> Iterator[list[Tensor]]:
        """Inside the block each forward pass appends its embedding output to the list that is handed out.

        With gradients enabled that tensor requires a gradient: where the parameters below are frozen it becomes a leaf
        of its own, and the model goes on with a copy, which it may change in place (XLM). ``replacement`` stands in for
        it instead, row for row.
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
        """Inside the block a forward pass of 2n rows puts states of its last n rows into its first n.

        ``places`` names by layer, from 1 to the last but one, the tokens whose state after it is replaced.
        """
        with ExitStack() as hooks:
            for layer, taken in places.items():
                block = self.blocks[layer - 1]
                module = unwrapped(model).get_submodule(block.name)
                hooks.callback(module.register_forward_hook(_interchange(block, taken)).remove)
            yield

    def trimmed(self, model: nn.Module, batch: Batch) -> AbstractContextManager[None]:
        """Inside the block one forward pass computes its last block for the position that the head reads.

        Not where blocks run again in the backward pass (activation checkpointing): the hooks would be gone.
        """
        inner = unwrapped(model)
        if self.trim is None or (inner.training and _runs_again(inner)):
            return nullcontext()
        return self.trim.applied(inner, self.text_position(batch))

    def verified(self, model: nn.Module, batch: Batch) -> Probe:
        """This probe; without ``trim``, or what of it fails, where trimmed and whole model differ on a real batch.

        Logits and the input gradient of some of its texts (``_specimens``) are compared, in eval mode and in the type
        of the weights, to the square root of its precision.
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
                # A variant that the trim does not know (NotImplementedError too), or shapes that do not fit.
                with suppress(RuntimeError, IndexError):
                    found = [probe._logits_and_gradient(inner, each) for each in batches]
                    if all(map(_alike, chain(*found), chain(*whole))):
                        return probe
        _LOG.warning("The last block of %s cannot be trimmed: it runs whole.", type(inner).__name__)
        return replace(self, trim=None)

    def _specimens(self, batch: Batch) -> list[Batch]:
        """What later batches may be, whatever the first one is: its shortest and its longest texts, padded; the longest
        alone, for which there is no mask; and that one read before its end, where the head passes over an id."""
        alone = _without_padding(batch.rows(batch.mask.sum(-1).argmax()[None]))
        found = [batch.rows(_extremes(batch.mask)), alone]
        ids = alone.inputs.get("input_ids")
        if self.passed_over is not None and ids is not None and ids.shape[1] > 1:
            ended = torch.cat([ids[:, :-1], torch.full_like(ids[:, -1:], self.passed_over)], 1)
            found.append(replace(alone, inputs={**alone.inputs, "input_ids": ended}))
        return found

    def _logits_and_gradient(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            with self.tapped(model) as taps, self.trimmed(model, batch):
                logits = model(**batch.inputs).logits
            weights = torch.arange(1, logits.shape[1] + 1, device=logits.device)
            (gradient,) = torch.autograd.grad((logits * weights).sum(), taps[-1])
        return logits.detach(), gradient

    def text_position(self, batch: Batch) -> Int[Tensor, " batch"]:
        """The position that stands for each text: its first real token, or the last that the head does not pass over.

        Heads of decoders look at token ids, not at the attention mask: an erased word, or the end of a text, may have
        the id of padding.
        """
        if self.reads == "first":
            return batch.mask.long().argmax(-1)
        read, ids = batch.mask, batch.inputs.get("input_ids")
        if self.passed_over is not None and ids is not None:
            read = read & (ids != self.passed_over)
        return (read * torch.arange(read.shape[1], device=read.device)).argmax(-1)


@dataclass
class ProbedModel:
    """A model and its probe. The first batch decides, once, whether the last block may be trimmed.

    ``model`` stays as it is; ``trim_last_block`` switches trimming off altogether.
    """

    model: nn.Module
    probe: Probe
    _verified: bool = field(default=False, repr=False)

    @classmethod
    def of(
        cls, model: nn.Module | ProbedModel, probe: Probe | None = None, *, trim_last_block: bool = True
    ) -> ProbedModel:
        """A model with its ``probe``, found here unless it is given; one that has its probe already is returned.

        Raises ModelError for a model that cannot be probed.
        """
        if isinstance(model, ProbedModel):
            return model
        probe = probe or Probe.find(model)
        return cls(model, probe if trim_last_block else replace(probe, trim=None))

    def verified(self, batch: Batch) -> Probe:
        """The probe, after trimming was compared with the whole model on the first batch that this was called with."""
        if not self._verified:
            self.probe, self._verified = self.probe.verified(self.model, batch), True
        return self.probe

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def _alike_in_every_layer(met: Sequence[Heads], layers: int, tokens: int) -> bool:
    """Whether there is one attention a layer, each over all tokens and as wide."""
    shapes = {tensor.shape for heads in met for tensor in heads}
    return len(met) == layers and len(shapes) == 1 and next(iter(shapes))[2] == tokens


def _extremes(mask: Bool[Tensor, "batch token"]) -> Int[Tensor, " row"]:
    """The two shortest and the two longest texts, or all where there are no more."""
    by_length = mask.sum(-1).argsort(stable=True)
    return by_length if len(by_length) <= 4 else torch.cat([by_length[:2], by_length[-2:]])


def _without_padding(batch: Batch) -> Batch:
    """A batch of one text, without what is not of it."""
    own, whole = batch.mask[0], batch.mask.shape
    cut = {k: v[:, own] if v.shape[:2] == whole else v for k, v in batch.inputs.items()}
    return Batch.of(cut, multi_label=batch.multi_label, token_labels=batch.token_labels)


def _runs_again(model: nn.Module) -> bool:
    """Whether activation checkpointing is on; it had another name before transformers 5.2x."""
    names = ("is_activation_checkpointing", "is_gradient_checkpointing")
    return next((getattr(model, name) for name in names if hasattr(type(model), name)), False)


def _warn_of_mixed_padding(model: nn.Module, batch: Mapping[str, Tensor]) -> None:
    """FNet and Funnel mix or pool places, those of padding too: a text's prediction is another beside longer texts."""
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
    # Where tokens are labelled, those of padding stand behind the text's own.
    own = padded[:, : alone.shape[1]] if padded.ndim > 2 else padded
    rounding = max(MIXED, torch.finfo(alone.dtype).eps ** 0.5)
    if (own - alone).abs().max() > rounding * alone.abs().max():
        _LOG.warning(
            "%s predicts by the padding too: the label of a text depends on the longest text of its batch",
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
    """The outermost module that makes the embedding output.

    Modules that only pass it through (dropout in eval mode, an identity in front of the attention) also return
    this very tensor, but they received it: they count only where nobody else made it (GPT-2's sum).
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
    """For each state but the first and the last the outermost call that makes it; none where one is not found."""
    found = []
    for state in states[1:-1]:
        made = [
            call for call in calls if call.output is state and all(a is not state for a in call.arguments)
        ]
        if not made:
            return ()
        of_module = [call for call in calls if call.name == made[-1].name]
        found.append(BlockCall(made[-1].name, of_module.index(made[-1]), len(of_module)))
    return tuple(found)


def _interchange(block: BlockCall, taken: Bool[Tensor, "row token"]) -> Callable[..., Any]:
    """A forward hook that replaces, in one call of a module, the states of ``taken`` tokens."""
    counted = count()

    def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        if next(counted) % block.calls != block.number:
            return None
        state = output[0] if isinstance(output, tuple) else output
        own, other = state.split(len(taken))
        changed = torch.cat([torch.where(taken.unsqueeze(-1), other, own), other])
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


def _passed_over(model: nn.Module, batch: Mapping[str, Tensor]) -> int | None:
    """The padding's id where the head looks for the last token by ids: with that id in the last place of a text without
    padding, it reads an earlier one."""
    pad: int | None = getattr(config_of(model), "pad_token_id", None)
    if pad is None:
        return None
    ids, mask = batch["input_ids"][:1].clone(), batch["attention_mask"][:1]
    ids[0, -1] = pad
    outputs = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    last_state = outputs.hidden_states[-1]
    (gradient,) = torch.autograd.grad(outputs.logits.sum(), last_state, allow_unused=True)
    return pad if gradient is not None and not gradient[0, -1].any() else None
