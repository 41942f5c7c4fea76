"""The probe: the only place that touches a model's inside.

It finds, by looking at one forward pass instead of at class names, where the embedding output leaves
(``hidden_states[0]`` of transformers: after position and type embeddings, LayerNorm and dropout), how deep
and wide the model is, and which position its head reads. Hooks live in ``with`` blocks only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from gradistill.errors import ModelError


@dataclass(frozen=True)
class Probe:
    """What was found: see ``find``. ``embedding`` is the name of the module that returns the embedding output,
    ``embedding_parameters`` the names of all parameters that it depends on, ``reads`` the position that stands
    for the text: the first token ([CLS]) or the last (decoders)."""

    embedding: str
    embedding_parameters: tuple[str, ...]
    layers: int
    width: int
    labels: int
    reads: Literal["first", "last"]

    @classmethod
    def find(cls, model: nn.Module) -> Probe:
        """Look at one forward pass of a sequence classifier. Raises ModelError for what has no such sites."""
        inner = unwrapped(model)
        batch = _specimen(inner)
        with _evaluating(inner), _thawed(inner), torch.enable_grad():
            calls, outputs = _traced(inner, batch)
            states = _hidden_states(inner, outputs)
            name = _producer(inner, calls, states[0])
            logits = outputs.logits
            return cls(
                embedding=name,
                embedding_parameters=_upstream_parameters(inner, states[0]),
                layers=len(states) - 1,
                width=states[0].shape[-1],
                labels=logits.shape[-1],
                reads=_position_read(logits, states[-1], batch["attention_mask"]),
            )

    @contextmanager
    def tapped(self, model: nn.Module, replacement: Tensor | None = None) -> Iterator[list[Tensor]]:
        """Inside the block each forward pass appends its embedding output to the list that is handed out.

        With gradients enabled that tensor requires a gradient: where the parameters below are frozen it
        becomes a leaf of its own. ``replacement`` stands in for it instead, row for row.
        """
        seen: list[Tensor] = []

        def hook(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
            tensor = output if replacement is None else replacement
            if torch.is_grad_enabled() and not tensor.requires_grad:
                tensor = tensor.detach().requires_grad_()
            seen.append(tensor)
            return tensor

        handle = unwrapped(model).get_submodule(self.embedding).register_forward_hook(hook)
        try:
            yield seen
        finally:
            handle.remove()

    def text_position(self, mask: Bool[Tensor, "batch token"]) -> Int[Tensor, " batch"]:
        """The position that stands for each text: its first or its last real token."""
        order = torch.arange(mask.shape[1], device=mask.device)
        if self.reads == "first":
            return mask.long().argmax(-1)
        return (mask * order).argmax(-1)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside ``torch.compile`` and distributed wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None) or (
            model.module if isinstance(model, nn.parallel.DistributedDataParallel) else None
        )
        if inner is None:
            return model
        model = inner


def config_of(model: nn.Module) -> Any:
    """The transformers configuration of a model, or a ModelError where there is none."""
    config = getattr(unwrapped(model), "config", None)
    if config is None:
        raise ModelError(
            f"a {type(model).__name__} came",
            expected="a transformers sequence classifier",
            remedy="load the model with AutoModelForSequenceClassification",
        )
    return config


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in was_training.items():
            module.training = training


@contextmanager
def _thawed(model: nn.Module) -> Iterator[None]:
    """Every parameter requires a gradient inside the block: what depends on what is read from gradients."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _specimen(model: nn.Module) -> dict[str, Tensor]:
    """Two texts of token ids that are nobody's padding, the second one padded where the model can pad."""
    config = config_of(model)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} is an encoder-decoder",
            expected="an encoder or a decoder with a sequence classification head",
            remedy="use a BERT-like encoder or a decoder such as Qwen or Llama",
        )
    device = next(model.parameters()).device
    pad = getattr(config, "pad_token_id", None)
    ids = torch.tensor([[k for k in range(2, 16) if k != pad][:6]], device=device) % config.vocab_size
    mask = torch.ones_like(ids)
    if pad is not None:
        ids, mask = ids.repeat(2, 1), mask.repeat(2, 1)
        ids[1, 4:], mask[1, 4:] = pad, 0
    return {"input_ids": ids, "attention_mask": mask}


def _traced(model: nn.Module, batch: dict[str, Tensor]) -> tuple[list[tuple[str, Any, Any]], Any]:
    """All module calls of one forward pass in order of return, as (name, arguments, output)."""
    calls: list[tuple[str, Any, Any]] = []
    handles = [
        module.register_forward_hook(
            lambda _module, args, kwargs, output, name=name: calls.append(
                (name, (*args, *kwargs.values()), output)
            ),
            with_kwargs=True,
        )
        for name, module in model.named_modules()
    ]
    try:
        outputs = model(**batch, output_hidden_states=True)
    finally:
        for handle in handles:
            handle.remove()
    return calls, outputs


def _hidden_states(model: nn.Module, outputs: Any) -> tuple[Tensor, ...]:
    states = getattr(outputs, "hidden_states", None)
    if not states or getattr(outputs, "logits", None) is None:
        raise ModelError(
            f"{type(model).__name__} returns no hidden states or no logits",
            expected="a sequence classifier that honours output_hidden_states",
            remedy="use one of the families listed in the documentation",
        )
    return tuple(states)


def _producer(model: nn.Module, calls: list[tuple[str, Any, Any]], embedding: Tensor) -> str:
    """The outermost module that makes the embedding output.

    Modules that only pass it through (dropout in eval mode, an identity in front of the attention) also return
    this very tensor, but they received it: they count only where nobody else made it (GPT-2's sum).
    """
    returned = [(name, args) for name, args, output in calls if output is embedding]
    made = [name for name, args in returned if not any(argument is embedding for argument in args)]
    passed = [name for name, _ in returned]
    if made:
        return made[-1]
    if passed:
        return passed[0]
    raise ModelError(
        f"no module of {type(model).__name__} returns hidden_states[0] as it is",
        expected="an embedding layer whose output the first block reads",
        remedy="use one of the families listed in the documentation",
    )


def _upstream_parameters(model: nn.Module, embedding: Tensor) -> tuple[str, ...]:
    """Names of the parameters that the embedding output depends on."""
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(
        embedding.sum(), list(parameters.values()), allow_unused=True, retain_graph=True
    )
    return tuple(name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None)


def _position_read(logits: Tensor, last_state: Tensor, mask: Tensor) -> Literal["first", "last"]:
    """``last`` where the head reads the last real token and no other; ``first`` for [CLS] and pooling heads."""
    if not (logits.requires_grad and last_state.requires_grad):
        return "first"
    (gradient,) = torch.autograd.grad(logits.sum(), last_state, allow_unused=True, retain_graph=True)
    if gradient is None or gradient.shape[1] != mask.shape[1]:
        return "first"
    row = gradient[0].abs().sum(-1)
    return "last" if row[-1] > 0 and not row[:-1].any() else "first"
