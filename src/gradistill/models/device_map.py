"""Models that are too large for one device: accelerate spreads their weights over several (``device_map``)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate.utils.modeling import get_state_dict_offloaded_model
from torch import Tensor, nn

DeviceMap = str | dict[str, str]


def is_spread(model: nn.Module) -> bool:
    """Whether accelerate has spread a model over devices. It must not be moved then, and moves its inputs itself."""
    return getattr(model, "hf_device_map", None) is not None


def placed(model: nn.Module, device: torch.device | str | None) -> nn.Module:
    """The model on a device; one that is spread stays where it is."""
    return model if device is None or is_spread(model) else model.to(device)


def weights_of(model: nn.Module) -> Mapping[str, Tensor]:
    """The model's ``state_dict``. Weights that accelerate keeps in main memory or on disk are read back."""
    state = model.state_dict()
    if any(tensor.is_meta for tensor in state.values()):
        return get_state_dict_offloaded_model(model)
    return state
