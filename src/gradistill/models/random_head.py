"""A model whose head has random weights for a while: what it has in common with another is not learnt by its head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from gradistill.errors import ModelError
from gradistill.models.tracing import unwrapped

USUAL_SPREAD = 0.02
"""The standard deviation of new weights where a configuration names none, as in transformers."""


def head_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of classifier and pooler by name: all outside ``base_model``, and those of its ``pooler``.

    Raises ModelError for a model that does not separate head and base.
    """
    inner = unwrapped(model)
    base = getattr(inner, "base_model", inner)
    pooler = {id(p) for name, p in base.named_parameters() if "pooler" in name.split(".")}
    below = {id(p) for p in base.parameters()} - pooler
    found = {name: p for name, p in inner.named_parameters() if id(p) not in below}
    if base is inner or not found:
        raise ModelError(
            f"The head of {type(inner).__name__} cannot be told from the rest of the model.",
            expected="a classifier with base_model, and parameters outside it",
        )
    return found


@contextmanager
def randomised_head(model: nn.Module, seed: int) -> Iterator[None]:
    """Inside the block classifier and pooler have new random weights; behind it the model is bit for bit as before.

    As transformers initialises them: matrices are normal with the configuration's ``initializer_range``, scales of
    norms are 1, and biases 0. The draw depends on ``seed`` and the shapes only, whatever the device. Randomised
    parameters as a check of explanations: Adebayo et al. 2018 (arXiv 1810.03292); theirs go on below the head.

    Raises ModelError for a model without a head of its own.

    Example::

        with randomised_head(model, seed=0):
            floor = model(**inputs).logits
    """
    config = getattr(unwrapped(model), "config", None)
    spread = getattr(config, "initializer_range", None) or USUAL_SPREAD
    head = head_parameters(model)
    kept = {name: parameter.detach().clone() for name, parameter in head.items()}
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for name, parameter in head.items():
                parameter.copy_(_new_values(name, parameter.shape, spread, generator))
        yield
    finally:
        with torch.no_grad():
            for name, parameter in head.items():
                parameter.copy_(kept[name])


def _new_values(name: str, shape: torch.Size, spread: float, generator: torch.Generator) -> torch.Tensor:
    if len(shape) > 1:
        return spread * torch.randn(shape, generator=generator)
    return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
