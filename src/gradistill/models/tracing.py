"""Traces of one forward pass of a model, in blocks that leave the model unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from transformers import PreTrainedModel

from gradistill.errors import ModelError


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside ``torch.compile`` and distributed wrappers, in any order."""
    while not isinstance(model, PreTrainedModel):  # asking accelerate costs a walk over the modules
        inner = extract_model_from_parallel(model, keep_torch_compile=False)
        if inner is model:
            break
        model = inner
    return model


def config_of(model: nn.Module) -> Any:
    """The transformers configuration of a model. Raises ModelError if there is none."""
    config = getattr(unwrapped(model), "config", None)
    if config is None:
        raise ModelError(
            f"The model is a {type(model).__name__}.",
            expected="a transformers sequence classifier",
            remedy="load the model with AutoModelForSequenceClassification",
        )
    return config


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in was_training.items():
            module.training = training


@contextmanager
def without_autocast(model: nn.Module) -> Iterator[None]:
    """Inside the block the model computes in the type of its weights, even if accelerate made it run in bf16."""
    wrapped: Any = vars(model).get("forward")
    forward: Any = vars(model).get("_original_forward")
    if forward is not None:  # the method before accelerate wrapped it
        model.forward = forward
    try:
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            yield
    finally:
        if forward is not None:
            model.forward = wrapped


@contextmanager
def all_trainable(model: nn.Module) -> Iterator[None]:
    """Every parameter requires a gradient inside the block: dependences between tensors are read from gradients."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def probe_batch(model: nn.Module) -> dict[str, Tensor]:
    """Two texts of token ids other than padding. The second one is padded if the model can pad."""
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


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """One module call of a forward pass: its inputs, its output, and its ``start`` and ``end`` in order of events."""

    name: str
    module: nn.Module
    given: tuple[Any, ...]
    named: dict[str, Any]
    output: Any
    several: bool
    """Whether the call returned a tuple, of which ``output`` is the first item."""
    start: int
    end: int

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (*self.given, *self.named.values())


@dataclass
class _Recorder:
    """Records the calls of a forward pass as they return."""

    calls: list[ModuleCall] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    clock: Iterator[int] = field(default_factory=count)

    def enter(self, _module: nn.Module, _arguments: Any) -> None:
        self.begun.append(next(self.clock))

    def leave(self, name: str, module: nn.Module, given: Any, named: Any, output: Any) -> None:
        several = isinstance(output, tuple)
        first = output[0] if several and output else output
        self.calls.append(
            ModuleCall(name, module, given, named, first, several, self.begun.pop(), next(self.clock))
        )


def traced(model: nn.Module, batch: dict[str, Tensor]) -> tuple[list[ModuleCall], Any]:
    """All module calls of one forward pass in order of return, and the model's outputs."""
    recorder = _Recorder()
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            leave = partial(recorder.leave, name)
            hooks.callback(module.register_forward_pre_hook(recorder.enter).remove)
            hooks.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        outputs = model(**batch, output_hidden_states=True)
    return recorder.calls, outputs
