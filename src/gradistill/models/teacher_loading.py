"""How a large teacher is loaded: the type of its weights, and its devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from gradistill.errors import RecipeError
from gradistill.models.device_map import DeviceMap

Precision = Literal["float32", "bfloat16"]
DEVICE_MAPS = ("auto", "balanced", "sequential", "cpu")
"""Device maps that accelerate computes by itself."""


def _refuse_unknown(what: str, given: object, known: tuple[str, ...]) -> None:
    if given not in known:
        raise RecipeError(
            f"the {what} is {given!r}",
            expected=", ".join(known),
            remedy=f"write {known[-1]}, or leave it out",
        )


@dataclass(frozen=True)
class TeacherLoading:
    """How a teacher is loaded.

    Parameters:
        ``dtype``: ``float32``, or ``bfloat16``, which takes half the memory. Outputs and states of such a teacher are
            used in float32. Its gradients are not used: whatever differentiates the teacher is refused or left out.
        ``device_map``: how accelerate spreads the weights: ``auto``, ``balanced``, ``sequential``, ``cpu``, or a device
            for each module; None for one device.

    Raises RecipeError for other values.

    Example: ``StoreChoice(loading=TeacherLoading("bfloat16", "auto"))``, the ``signals`` of ``distill``
    """

    dtype: Precision = "float32"
    device_map: DeviceMap | None = None

    def __post_init__(self) -> None:
        _refuse_unknown("dtype of a teacher", self.dtype, get_args(Precision))
        if isinstance(self.device_map, str):
            _refuse_unknown("device_map of a teacher", self.device_map, DEVICE_MAPS)

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def refuse(self, what: str) -> None:
        """Raise RecipeError if an option is set for a teacher, ``what``, whose weights are not loaded here."""
        if self != AS_IT_IS:
            raise RecipeError(
                f"--teacher-dtype or --device-map is given for {what}",
                expected="one PyTorch model as teacher: both settle how its weights are loaded",
                remedy="leave both out",
            )


AS_IT_IS = TeacherLoading()


def is_low_precision(model: nn.Module) -> bool:
    """Whether a model computes in a floating point type narrower than float32."""
    return narrow_dtype(model) is not None


def narrow_dtype(model: nn.Module) -> torch.dtype | None:
    """The floating point type narrower than float32 in which a model, or a part of it, computes; None for none."""
    types = (parameter.dtype for parameter in model.parameters())
    return next((dtype for dtype in types if dtype in (torch.bfloat16, torch.float16)), None)
