"""Models with a random head: what such a model has in common with another was not learnt by the head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from gradistill.errors import ModelError
from gradistill.models.tracing import unwrapped

USUAL_SPREAD = 0.02
"""The standard deviation of new weights if a configuration gives none, as in transformers."""


def paired_seeds(count: int) -> tuple[int, ...]:
    """Seeds of ``count`` random heads. Each is followed by ``~seed``: the same head with all outputs negated.

    For the two heads of a pair, a signed figure, such as the correlation of two models' reactions, differs only in its
    sign. So its mean is 0 (exactly, for log-odds of two labels and for scores). The mean over a few independent heads
    is far from 0. Source: Hammersley and Morton 1956, a new Monte Carlo technique: antithetic variates, Proc. Cambridge
    Phil. Soc. 52.

    Example: ``paired_seeds(4) == (0, -1, 1, -2)``
    """
    return tuple(seed for k in range(count // 2) for seed in (k, ~k))


def head_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of classifier and pooler by name: all outside ``base_model``, and those of its ``pooler``.

    Raises ModelError for a model that does not separate head and base.
    """
    inner = unwrapped(model)
    base = getattr(inner, "base_model", inner)
    pooler = {id(p) for name, p in base.named_parameters() if "pooler" in name.split(".")}
    below = {id(p) for p in base.parameters()} - pooler
    parameters = {name: p for name, p in inner.named_parameters() if id(p) not in below}
    if base is inner or not parameters:
        raise ModelError(
            f"The head of {type(inner).__name__} cannot be separated from the rest of the model.",
            expected="a classifier with base_model, and parameters outside it",
        )
    return parameters


@contextmanager
def randomised_head(model: nn.Module, seed: int) -> Iterator[None]:
    """Inside the block classifier and pooler have new random weights; after it the model is bit for bit as before.

    They are initialised as in transformers: matrices are normal with the configuration's ``initializer_range``, scales
    of norms are 1, and biases 0. The draw depends on ``seed`` and the shapes only, whatever the device. Randomised
    parameters as a check of explanations: Adebayo et al. 2018 (arXiv 1810.03292), who go on below the head. The head of
    ``~seed`` is that of ``seed`` with the sign of its outputs changed.

    Raises ModelError for a model whose head cannot be separated.

    Example::

        with randomised_head(model, seed=0):
            floor = model(**inputs).logits
    """
    with randomised(model, head_parameters(model), seed):
        yield


def cascade_parameters(model: nn.Module) -> list[dict[str, nn.Parameter]]:
    """Sets of parameters: of the head, of the head and the last block, of the last two blocks, … of all blocks.

    Cascading randomisation from the top: Adebayo et al. 2018 (arXiv 1810.03292), section 3. Raises ModelError as
    ``head_parameters`` does, and for a model without one list of blocks (ALBERT shares one block).
    """
    inner = unwrapped(model)
    depth = getattr(getattr(inner, "config", None), "num_hidden_layers", None)
    stacks = [m for m in inner.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not stacks:
        raise ModelError(
            f"The blocks of {type(inner).__name__} cannot be separated.",
            expected="a list of as many blocks as num_hidden_layers",
            remedy="leave the cascade out",
        )
    stages = [head_parameters(model)]
    names = {id(p): name for name, p in inner.named_parameters()}
    for block in reversed(stacks[0]):
        stages.append(stages[-1] | {names[id(p)]: p for p in block.parameters()})
    return stages


@contextmanager
def randomised(model: nn.Module, parameters: Mapping[str, nn.Parameter], seed: int) -> Iterator[None]:
    """As ``randomised_head``, for any of the model's parameters."""
    kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    drawn = _drawn(model, parameters, seed)
    try:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(drawn[name])
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])


def has_head(model: nn.Module) -> bool:
    """Whether a model's head can be separated from the rest, so that it can be randomised."""
    try:
        return bool(head_parameters(model))
    except ModelError:
        return False


def stacked_heads(model: nn.Module, seeds: Sequence[int]) -> dict[str, Float[Tensor, "head ..."]]:
    """The model's own head, followed by the head of ``randomised_head`` for each seed. Raises ModelError likewise."""
    head = head_parameters(model)
    heads = [{name: p.detach() for name, p in head.items()}, *(_drawn(model, head, seed) for seed in seeds)]
    return {name: torch.stack([weights[name].to(p) for weights in heads]) for name, p in head.items()}


def head_logits(
    model: nn.Module, inputs: Mapping[str, Any], heads: Mapping[str, Float[Tensor, "head ..."]]
) -> Float[Tensor, "head row label"]:
    """The logits under each of ``stacked_heads``. The rest of the model does not depend on the head, and runs once."""
    return vmap(lambda head: functional_call(unwrapped(model), head, kwargs=dict(inputs)).logits)(dict(heads))


FIRST_SEED = 1_000_003
"""The first seed of random parameters. A run with seed 0 may first draw a new head, and fine-tuning hardly changes a
head. With the same seed here, the random head would be the student's own."""


def _drawn(model: nn.Module, parameters: Mapping[str, nn.Parameter], seed: int) -> dict[str, Tensor]:
    config = getattr(unwrapped(model), "config", None)
    spread = getattr(config, "initializer_range", None) or USUAL_SPREAD
    generator = torch.Generator().manual_seed(FIRST_SEED + max(seed, ~seed))
    values = {name: _new_values(name, p.shape, spread, generator) for name, p in parameters.items()}
    if seed < 0:
        output = output_matrix(values, getattr(config, "num_labels", None))
        values[output] = -values[output]
    return values


def output_matrix(head: Mapping[str, Tensor], labels: int | None) -> str:
    """The name of the matrix that computes the logits: the last with a row for each label, or else the last one."""
    matrices = [name for name, values in head.items() if values.ndim > 1]
    return [*matrices, *(name for name in matrices if len(head[name]) == labels)][-1]


def _new_values(name: str, shape: torch.Size, spread: float, generator: torch.Generator) -> Tensor:
    if len(shape) > 1:
        return spread * torch.randn(shape, generator=generator)
    return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
