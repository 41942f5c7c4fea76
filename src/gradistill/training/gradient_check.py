"""The start-up check: is the second-order gradient present and correct?

Training without the second-order part of a gradient objective is the worst failure because it is silent. Before the
first step, second-order gradients are compared on a few rows with central finite differences of the training code.
The comparison covers a few matrices one by one, and all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial

import torch
from torch import Tensor, nn

from gradistill.attribution.targets import DRAWN
from gradistill.batch import Batch
from gradistill.errors import ModelError, TrainingError, first_line
from gradistill.models.probe import Probe
from gradistill.models.tracing import unwrapped
from gradistill.signals import Logits, Signal, TargetSignal, compute_signals
from gradistill.training.finite_differences import (
    TOLERANCE,
    DerivativeComparison,
    MatrixGradient,
    compared_alone,
    compared_together,
)

WITHOUT_FLOAT64 = ("mps",)
"""Device types without float64."""

_REMEDY = (
    "train without torch.compile, with eager attention (attn_implementation='eager'), and without custom autograd "
    "functions, no_grad or frozen parts between the embedding output and the logits"
)


def check_second_order(
    model: nn.Module,
    probe: Probe,
    batch: Batch,
    signals: Sequence[Signal],
) -> list[DerivativeComparison]:
    """Compare second-order gradients with finite differences. Raises TrainingError if they differ or autograd fails.

    The model computes in float64 on copies of its tensors, on the CPU if its device has no float64. Dropout draws the
    same masks each time. A fixed random projection of every gradient signal is differentiated, so that the check works
    for a student that equals its teacher. Returns the comparisons.
    """
    wanted, device = _at_fixed_labels(signals), _checked_on(batch.mask.device)
    with _in_float64(model, device), _one_random_state(device) as rewind:
        matrices = _matrices(model, probe)
        projected = _projection(model, probe, _in_double(_padding_last(batch), device), wanted, rewind)
        try:
            gradients = torch.autograd.grad(projected(), list(matrices.values()), allow_unused=True)
        except (RuntimeError, NotImplementedError, ModelError) as error:
            raise TrainingError(
                f"the student has no second derivative: {first_line(error)}",
                expected="a model that can be differentiated twice",
                remedy=_REMEDY,
            ) from error
        matrix_gradients = {
            name: MatrixGradient(name, weight, torch.zeros_like(weight) if gradient is None else gradient)
            for (name, weight), gradient in zip(matrices.items(), gradients, strict=True)
        }
        readings = [
            reading
            for name in _spread(list(matrix_gradients))
            for reading in compared_alone(matrix_gradients[name], projected)
        ]
        disagreeing = [
            reading
            for reading in compared_together(list(matrix_gradients.values()), projected)
            if not reading.agrees
        ]
        if len(disagreeing) > 1:  # one alone may be a kink (ReLU); a missing part shows in all
            readings = [
                reading
                for matrix in matrix_gradients.values()
                for reading in compared_alone(matrix, projected)
            ]
    _refuse_disagreement(readings)
    return readings


def _refuse_disagreement(readings: Sequence[DerivativeComparison]) -> None:
    wrong = [reading for reading in readings if not reading.agrees]
    if wrong:
        lines = "\n".join(
            f"  - {r.weight}: autograd gives {r.autograd:.3e}, a finite difference {r.finite_difference:.3e}"
            for r in wrong
        )
        raise TrainingError(
            f"the second-order gradient of the student is missing or wrong:\n{lines}",
            expected=f"agreement within {TOLERANCE:.0%}; without it the gradient objective would not be trained",
            remedy=_REMEDY,
        )


def _matrices(model: nn.Module, probe: Probe) -> dict[str, nn.Parameter]:
    """The trainable matrices above the embeddings."""
    matrices = {
        name: parameter
        for name, parameter in unwrapped(model).named_parameters()
        if parameter.ndim == 2 and parameter.requires_grad and name not in probe.embedding_parameters
    }
    if not matrices:
        raise TrainingError(
            "the student has no trainable matrix above its embeddings",
            expected="trainable encoder layers",
            remedy="unfreeze the encoder layers (requires_grad_(True))",
        )
    return matrices


def _spread(names: Sequence[str], count: int = 4) -> list[str]:
    """``count`` of the names, spread evenly over the depth of the model."""
    return list(dict.fromkeys(names[round(k * (len(names) - 1) / max(count - 1, 1))] for k in range(count)))


def _at_fixed_labels(signals: Sequence[Signal]) -> list[Signal]:
    """The gradient signals, with the view ``teacher`` in place of ``own`` and of drawn views. The label of ``own``
    could change within a finite difference. Drawn views have no draws yet, and any label serves for the check."""
    return [
        replace(signal, target=replace(signal.target, view="teacher"))
        if signal.target.view in ("own", *DRAWN)
        else signal
        for signal in signals
        if isinstance(signal, TargetSignal)
    ]


def _projection(
    model: nn.Module, probe: Probe, batch: Batch, signals: Sequence[Signal], rewind: Callable[[], object]
) -> Callable[[], Tensor]:
    projections: dict[Signal, Tensor] = {}
    rewind()
    if batch.teacher_labels is None:
        logits = compute_signals(model, probe, batch, [Logits()], create_graph=False)[Logits()]
        batch = replace(batch, teacher_labels=logits.argmax(-1))

    def projected() -> Tensor:
        rewind()
        total = torch.zeros((), dtype=torch.float64, device=batch.mask.device)
        for signal, values in compute_signals(model, probe, batch, signals, create_graph=True).items():
            if signal not in projections:
                random = torch.randn(values.shape, generator=torch.Generator().manual_seed(0)).to(values)
                size = float(values.detach().norm()) * values.numel() ** 0.5
                projections[signal] = random / (size or 1.0)  # 0: the gradients of a head of zeros
            total = total + (values * projections[signal]).sum() * values.numel() ** 0.5
        return total

    return projected


def _checked_on(device: torch.device) -> torch.device:
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


@contextmanager
def _in_float64(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside the block the model computes with copies of its parameters and buffers on ``device``. Floating-point
    copies are in float64.

    The parameters themselves are not changed: DistributedDataParallel hooks their gradient accumulators, and converting
    the type back and forth would create accumulators without hooks.
    """
    copies: dict[int, Tensor] = {}  # one of each tensor: tied weights stay tied
    swapped: list[tuple[nn.Module, str, Tensor]] = []
    try:
        for module in unwrapped(model).modules():
            for named in (module.named_parameters, module.named_buffers):
                for name, tensor in list(named(recurse=False, remove_duplicate=False)):
                    if tensor.is_floating_point() or tensor.device != device:
                        swapped.append((module, name, tensor))
                        setattr(module, name, copies.setdefault(id(tensor), _copied(tensor, device)))
        yield
    finally:
        for module, name, tensor in swapped:
            setattr(module, name, tensor)


def _copied(tensor: Tensor, device: torch.device) -> Tensor:
    kind = torch.float64 if tensor.is_floating_point() else tensor.dtype
    copy = tensor.detach().to(device, copy=True).to(kind)
    return nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy


@contextmanager
def _one_random_state(device: torch.device) -> Iterator[Callable[[], object]]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield partial(torch.manual_seed, 0)


def _padding_last(batch: Batch) -> Batch:
    """The batch with padding moved to the end of each row.

    A padding token in front of a causal row attends to no token. Llama and similar models compute the softmax in
    float32, where the mask value, the lowest float64, is minus infinity: such a row would be NaN.
    """
    first = batch.mask.int().argmax(1)
    if not first.any():
        return batch
    rows = torch.arange(len(batch), device=first.device).unsqueeze(1)
    tokens = batch.mask.shape[1]
    places = (torch.arange(tokens, device=first.device) + first.unsqueeze(1)) % tokens

    def turned(value: Tensor) -> Tensor:
        return value[rows, places] if value.shape[:2] == batch.mask.shape else value

    names = ("mask", "word_ids", "edited_ids", *(("labels", "teacher_labels") if batch.token_labels else ()))
    known = {name: turned(value) for name in names if (value := getattr(batch, name)) is not None}
    return replace(batch, inputs={name: turned(value) for name, value in batch.inputs.items()}, **known)


def _in_double(batch: Batch, device: torch.device) -> Batch:
    placed = {k: v.to(device) for k, v in batch.inputs.items()}
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in placed.items()}
    values = ((field.name, getattr(batch, field.name)) for field in fields(batch))
    known = {name: value.to(device) for name, value in values if isinstance(value, Tensor)}
    return replace(batch, inputs=inputs, **known)
