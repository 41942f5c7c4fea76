"""Learned linear maps from the student's signals to the teacher's width: part of the training, not of the student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from gradistill.errors import TrainingError
from gradistill.objectives import Pair, Term

FILE = "projections.safetensors"
"""File of a checkpoint with the projections' weights."""

WEIGHTS = "model.safetensors"
_PLACE = "distillation_projections"


def projections_for(terms: Sequence[Term], pair: Pair, seed: int = 0) -> nn.ModuleDict:
    """One linear map without a bias for each term and signal. Between equal widths it starts as the identity.

    ``seed`` alone determines the initial weights. The global random state is not changed.
    """
    projections = nn.ModuleDict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for term in terms:
            maps = {name: _linear(*widths) for name, widths in term.objective.projections(pair).items()}
            if maps:
                projections[term.name] = nn.ModuleDict(maps)
    return projections


def _linear(width: int, wanted: int) -> nn.Linear:
    linear = nn.Linear(width, wanted, bias=False)
    if width == wanted:
        nn.init.eye_(linear.weight)
    return linear


@contextmanager
def trained_with(model: nn.Module, projections: nn.ModuleDict) -> Iterator[None]:
    """Inside the block the projections are parameters of the model, so that they are optimized, clipped and zeroed with
    it. The model's state dict leaves them out, for saving and for loading.

    DistributedDataParallel ignores them, because the model's forward pass does not use them.
    ``averaged_over_processes`` averages their gradients.
    """
    if not len(projections):
        yield
        return
    model.add_module(_PLACE, projections)
    names = [name for name, _ in model.named_parameters() if name.startswith(f"{_PLACE}.")]
    model._ddp_params_and_buffers_to_ignore = names  # pyright: ignore[reportArgumentType] (torch's own name for it)
    hooks = [
        model.register_state_dict_post_hook(_left_out),
        model.register_load_state_dict_post_hook(_not_missed),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        delattr(model, _PLACE)
        del model._ddp_params_and_buffers_to_ignore


def _left_out(_model: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}{_PLACE}.")]:
        del state[name]


def _not_missed(_model: nn.Module, keys: Any) -> None:
    keys.missing_keys[:] = [name for name in keys.missing_keys if f"{_PLACE}." not in name]


def save_projections(projections: nn.ModuleDict, checkpoint: Path) -> None:
    """Write the projections into a file of the checkpoint, separate from the student's weights."""
    if len(projections):
        state = {
            name: tensor.detach().cpu().contiguous() for name, tensor in projections.state_dict().items()
        }
        save_file(state, checkpoint / FILE)


def load_projections(projections: nn.ModuleDict, checkpoint: Path) -> None:
    """Read the projections from a checkpoint. Raises TrainingError if it lacks them: new ones would change the run."""
    if not len(projections):
        return
    if (checkpoint / FILE).is_file():
        state = load_file(checkpoint / FILE)
    else:  # older checkpoints have them among the student's weights
        whole = load_file(checkpoint / WEIGHTS) if (checkpoint / WEIGHTS).is_file() else {}
        state = {n.removeprefix(f"{_PLACE}."): t for n, t in whole.items() if n.startswith(f"{_PLACE}.")}
    try:
        projections.load_state_dict(state)
    except RuntimeError as error:
        raise TrainingError(
            f"{checkpoint} does not hold the projections of {' and '.join(projections)}",
            expected=f"{FILE}, which a checkpoint has unless it was saved with save_only_model",
            remedy="start again without this checkpoint",
        ) from error


def averaged_over_processes(projections: nn.ModuleDict, accelerator: Accelerator) -> None:
    """Average the gradients of the projections over processes, as DistributedDataParallel does for the model."""
    if accelerator.num_processes > 1 and accelerator.sync_gradients:
        for parameter in projections.parameters():
            if parameter.grad is not None:  # None in all processes: its stage is over
                averaged: Any = accelerator.reduce(parameter.grad, "mean")
                parameter.grad = averaged
