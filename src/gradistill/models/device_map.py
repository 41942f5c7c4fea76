"""Models that are too large for one device: spread over several by accelerate (``device_map``), weights and all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate.utils.modeling import get_state_dict_offloaded_model
from torch import Tensor, nn

DeviceMap = str | dict[str, str]


def is_spread(model: nn.Module) -> bool:
    """Whether accelerate has placed its parts: it stays where it is, and moves what comes in by itself."""
    return getattr(model, "hf_device_map", None) is not None


def placed(model: nn.Module, device: torch.device | str | None) -> nn.Module:
    """The model on a device; one that is spread stays where it is."""
    return model if device is None or is_spread(model) else model.to(device)


def weights_of(model: nn.Module) -> Mapping[str, Tensor]:
    """Its ``state_dict``, with what accelerate keeps in main memory or on disk read back."""
    state = model.state_dict()
    if any(tensor.is_meta for tensor in state.values()):
        return get_state_dict_offloaded_model(model)
    return state
