"""A random head for a while, on every family."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from families import FAMILIES, build, collated
from gradistill.errors import ModelError
from gradistill.models.random_head import head_parameters, paired_seeds, randomised_head


def _bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_head_changes_and_it_comes_back(family: str) -> None:
    model = build(family)
    inputs = {name: tensor for name, tensor in collated().items() if name in ("input_ids", "attention_mask")}
    before, head = _bits(model), head_parameters(model)
    assert not {name for name in head if "embed" in name or "layer" in name.split(".")}
    with torch.no_grad():
        whole = model(**inputs).logits
        with randomised_head(model, 1):
            inside, first = _bits(model), model(**inputs).logits
        with randomised_head(model, 1):
            assert torch.equal(model(**inputs).logits, first)
        with randomised_head(model, 2):
            assert not torch.equal(model(**inputs).logits, first)
        assert torch.equal(model(**inputs).logits, whole)
    changed = {name for name in before if before[name] != inside[name]}
    assert changed
    assert changed <= head.keys()
    assert _bits(model) == before


def test_the_pooler_is_part_of_the_head() -> None:
    assert set(head_parameters(build("bert"))) == {
        "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias",
    }  # fmt: skip
    assert "albert.pooler.weight" in head_parameters(build("albert"))


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_of_a_pair_differ_by_the_sign_of_their_outputs(family: str) -> None:
    model = build(family).double()
    inputs = {name: tensor for name, tensor in collated().items() if name in ("input_ids", "attention_mask")}
    assert paired_seeds(4) == (0, -1, 1, -2)
    for seed in (0, 1):
        with torch.no_grad():
            with randomised_head(model, seed):
                one = model(**inputs).logits
            with randomised_head(model, ~seed):
                other = model(**inputs).logits
        assert one.abs().max() > 0
        assert torch.allclose(other, -one, atol=1e-12, rtol=0)


def test_a_failure_leaves_the_model_as_it_was() -> None:
    model = build("bert")
    before = _bits(model)
    with pytest.raises(KeyError), randomised_head(model, 0):
        raise KeyError
    assert _bits(model) == before


def test_weights_are_drawn_as_transformers_does() -> None:
    model = build(
        "modernbert", hidden_size=256, num_attention_heads=4, num_hidden_layers=1, initializer_range=0.1
    )
    with randomised_head(model, 0):
        for name, parameter in head_parameters(model).items():
            values = parameter.detach()
            if name == "head.dense.weight":
                # 65,536 draws: the sample's standard deviation has a standard error of .0003.
                assert values.std().item() == pytest.approx(0.1, abs=0.0015)
            elif values.ndim == 1:
                assert (values == (1 if name.endswith("weight") else 0)).all()


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be separated"):
        head_parameters(build("bert").bert)
