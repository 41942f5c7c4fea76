"""A teacher that accelerate keeps in parts elsewhere says what it says in one piece, and feeds the same store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gradistill.commands.signal_stores import StoreSettings
from gradistill.commands.store_signals import store_signals
from gradistill.models.device_map import is_spread, placed, weights_of
from gradistill.models.loading import load_classifier
from gradistill.models.teacher_loading import TeacherLoading
from gradistill.recipe import load_recipe
from gradistill.store.fingerprint import model_hash
from gradistill.store.manifest import Manifest
from slow import slow

PARTS = {
    "bert.embeddings": "cpu",
    "bert.encoder.layer.0": "disk",
    "bert.encoder.layer.1": "cpu",
    "bert.encoder.layer.2": "disk",
    "bert.pooler": "cpu",
    "classifier": "cpu",
}


def test_weights_that_lie_elsewhere_are_read_back(small: Any) -> None:
    whole, _ = load_classifier(small.teachers["two"])
    parts, _ = load_classifier(small.teachers["two"], loading=TeacherLoading(device_map=PARTS))
    assert is_spread(parts)
    assert not is_spread(whole)
    assert any(tensor.is_meta for tensor in parts.state_dict().values())
    there = weights_of(parts)
    assert all(torch.equal(there[name], tensor) for name, tensor in whole.state_dict().items())
    assert model_hash(parts) == model_hash(whole)
    assert placed(parts, "cpu") is parts


@pytest.mark.parametrize("method", [slow("kd"), slow("gkd"), "adkd", slow("rationale"), "tinybert"])
def test_its_store_is_the_same(method: str, small: Any, tmp_path: Path) -> None:
    recipe = load_recipe(method, changes=["student.layers=2"])
    stores = [
        store_signals(
            str(small.teachers["two"]), small.choice("two"), tmp_path / name, recipe,
            settings=StoreSettings(loading=TeacherLoading(device_map=device_map)),
        )
        for name, device_map in (("whole", None), ("cpu", "cpu"), ("parts", PARTS))
    ]  # fmt: skip
    first, *others = (Manifest.read(store) for store in stores)
    for other in others:
        assert other.made_for == first.made_for
        assert [shard.sha256 for shard in other.shards] == [shard.sha256 for shard in first.shards]
