"""The student that fits a budget: its depth, the rank of its embeddings and its width, chosen before any training.

Sizes are counted on torch's ``meta`` device, which holds shapes and no numbers, so they are exact and cost nothing.

The reductions that cost least are tried first. A lower rank of the embeddings changes little (docs/export.md), so it
comes first, down to a quarter of their width. Then a block is removed: the remaining blocks hold what the teacher
learnt. Another width has random weights, so it comes last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from gradistill.errors import ModelError, RecipeError
from gradistill.models.factorized_embedding import refuse_rank
from gradistill.models.student import narrow_config, shallow_config

LOWEST_RANK = 0.25
"""The lowest rank that is chosen, as a share of the width of the embeddings."""

_BYTES = {
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
_COUNTS = {"k": 10**3, "m": 10**6, "b": 10**9}
_GIVEN = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([a-z]+)(?:\s+parameters)?", re.IGNORECASE)
_DTYPES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """The greatest size of a student: in ``parameters``, or in bytes of its ``model.safetensors``.

    Example: ``Budget.of("60MB")``, ``Budget.of("9.5M")``
    """

    most: int
    parameters: bool

    @classmethod
    def of(cls, given: str) -> Budget:
        """Parse a size. Raises ValueError for a text that is no size."""
        match = _GIVEN.fullmatch(given.strip())
        unit = match[2].lower() if match else ""
        units = _COUNTS if unit in _COUNTS else _BYTES
        counted = given.lower().rstrip().endswith("parameters")
        if match is None or unit not in units or (counted and units is _BYTES):
            raise ValueError(
                "a size such as 60MB (bytes of model.safetensors; kB, MB, GB) or 9.5M (parameters; k, M, B)"
            )
        most = int(float(match[1]) * units[unit])
        if not most:
            raise ValueError("a size above 0, such as 60MB or 9.5M")
        return cls(most, parameters=units is _COUNTS)

    def size(self, model: Any, rank: int | None) -> int:
        """The size of a model in the unit of the budget, with embeddings of this rank (None for a whole matrix)."""
        return parameters_of(model, rank) if self.parameters else file_bytes(model)

    def shown(self, size: int) -> str:
        """A size in the unit of the budget."""
        return f"{size:,} parameters" if self.parameters else f"{size:,} bytes of model.safetensors"


@dataclass(frozen=True)
class StudentShape:
    """The sizes of a student; sizes that are not given are open.

    They are its ``layers``, its ``width`` (None for that of the model it is cut from) and the ``rank`` of its
    embeddings (None for a whole matrix).
    """

    layers: int | None = None
    width: int | None = None
    rank: int | None = None

    def of(self, source: str) -> str:
        """A description for people; ``source`` is the name of the model that it is cut from."""
        layers = f"{self.layers} layer{'' if self.layers == 1 else 's'}"
        width = f" of {source}" if self.width is None else f" of width {self.width}, with random weights"
        rank = "" if self.rank is None else f", embeddings of rank {self.rank}"
        return f"{layers}{width}{rank}"


@dataclass(frozen=True)
class SizeSearch:
    """The students that may be cut from a ``model``, whose name in messages is ``source``.

    ``given`` has the sizes that are fixed. ``ranks``: whether the embeddings may get a lower rank. ``widths``: whether
    the student may be narrower, with random weights. ``usual`` is the greatest depth of narrower students.
    """

    model: PreTrainedModel
    given: StudentShape
    source: str = "the teacher"
    ranks: bool = True
    widths: bool = True
    usual: int = 1

    def fitted(self, budget: Budget) -> tuple[StudentShape, int]:
        """The first student that fits, and its size. The order is that of the module's docstring.

        Raises RecipeError if none fits, with the smallest possible student.
        """
        smallest: tuple[int, StudentShape] | None = None
        for candidate in self._candidates():
            model = self._empty(candidate)
            shape, size = self._with_rank(candidate, model, budget)
            if size <= budget.most:
                return shape, size
            if smallest is None or size < smallest[0]:
                smallest = size, shape
        assert smallest is not None
        raise RecipeError(
            f"no student fits into student.size: {budget.shown(budget.most)}",
            expected=f"at least {budget.shown(smallest[0])}: {smallest[1].of(self.source)}",
            remedy="raise --student-size"
            + (
                "" if self.given == StudentShape() else ", or leave layers, width or rank of the student open"
            ),
        )

    def _candidates(self) -> Iterator[StudentShape]:
        """The shapes to try, in order. The embeddings have the given rank; ``_with_rank`` may lower it."""
        depth = self.model.config.num_hidden_layers
        given = self.given
        if given.width is None:
            layers = [given.layers] if given.layers else range(depth, 0, -1)
            yield from (replace(given, layers=count) for count in layers)
        if given.width is None and not self.widths:
            return
        usual = [given.layers] if given.layers else range(self.usual, 0, -1)
        for count in usual:
            for width in [given.width] if given.width else self._narrower():
                yield replace(given, layers=count, width=width)

    def _narrower(self) -> Iterator[int]:
        """The widths below that of the model, the widest first: whole numbers of its heads.

        There are none if its family has no narrower models.
        """
        config: Any = self.model.config
        try:
            narrow_config(config, 1, config.hidden_size)
        except ModelError:
            return
        part = config.hidden_size // config.num_attention_heads
        yield from range(config.hidden_size - part, 0, -part)

    def _with_rank(self, student: StudentShape, model: Any, budget: Budget) -> tuple[StudentShape, int]:
        """The student unchanged if it fits, else with the highest rank that fits, else with the lowest one."""
        size = budget.size(model, student.rank)
        if size <= budget.most or student.rank or student.width or not (self.ranks and budget.parameters):
            return student, size
        tokens, width = model.get_input_embeddings().weight.shape
        lowest = max(1, -int(-width * LOWEST_RANK // 1))
        room = budget.most - parameters_of(model, None) + tokens * width
        rank = max(lowest, min(room // (tokens + width), width - 1))
        lower = parameters_of(model, rank)
        return (replace(student, rank=rank), lower) if lower < size else (student, size)

    def _empty(self, student: StudentShape) -> Any:
        """A model of this shape on the ``meta`` device."""
        assert student.layers is not None
        if student.width is None:
            config = shallow_config(self.model.config, tuple(range(1, student.layers + 1)))
        else:
            config = narrow_config(self.model.config, student.layers, student.width)
        with torch.device("meta"):
            return type(self.model)(config)


def parameters_of(model: Any, rank: int | None = None) -> int:
    """The number of parameters of a model. Those that several modules share count once.

    With a ``rank`` the embeddings count as two factors. Raises ModelError for a rank that is not below the width.
    """
    count = sum(parameter.numel() for parameter in model.parameters())
    if rank is None:
        return count
    tokens, width = model.get_input_embeddings().weight.shape
    refuse_rank(rank, width)
    return count - tokens * width + rank * (tokens + width)


def file_bytes(model: Any) -> int:
    """The bytes of the ``model.safetensors`` that ``save_pretrained`` writes, its header included.

    Tensors that several modules share are written once, under the first of their names.
    """
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        first.setdefault(id(tensor), name)
    state = model.state_dict()
    # Some families have other names, and other parts of a block, in files than in memory.
    written: Mapping[str, Tensor] = revert_weight_conversion(
        model, {name: state[name] for name in first.values()}
    )
    order = sorted(written.items(), key=lambda named: (-named[1].element_size(), named[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in order:
        start, end = end, end + tensor.numel() * tensor.element_size()
        dtype = _DTYPES.get(tensor.dtype, str(tensor.dtype))
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    length = len(json.dumps(header, separators=(",", ":")).encode())
    return 8 + -(-length // 8) * 8 + end
