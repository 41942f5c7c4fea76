"""Listening to self-attention: what is heard is what met there, and the model stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from families import FAMILIES, build, collated
from gradistill.models.attention import attending
from gradistill.models.probe import Probe
from gradistill.types import Batch

HIDDEN = {"deberta_v2", "mpnet", "roformer", "funnel"}
HEARD = [family for family in FAMILIES if family not in HIDDEN]


@pytest.mark.parametrize("attention", [None, "eager"])
@pytest.mark.parametrize("family", HEARD)
def test_every_layer_is_heard_and_nothing_changes(family: str, attention: str | None) -> None:
    model, inputs = build(family, attention=attention), Batch.of(collated()).inputs
    before = model.config._attn_implementation
    plain = model(**inputs).logits
    with attending(model) as heard:
        found = model(**inputs).logits
    assert torch.equal(plain, found)
    assert len(heard) == 3
    assert {tuple(tensor.shape) for heads in heard for tensor in heads} == {(3, 2, 7, 8)}
    assert model.config._attn_implementation == before
    assert (Probe.find(model).heads, Probe.find(model).attention_width) == (2, 16)


@pytest.mark.parametrize("family", sorted(HIDDEN))
def test_attention_of_its_own_kind_is_not_heard(family: str) -> None:
    model = build(family)
    with attending(model) as heard:
        model(**Batch.of(collated()).inputs)
    assert not heard
    assert Probe.find(model).heads == 0


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "llama", "qwen3", "gpt2"])
def test_queries_and_keys_give_the_attention_that_the_model_reports(family: str) -> None:
    """Of a text without padding; in a decoder below the diagonal."""
    model = build(family, attention="eager")
    ids = collated()["input_ids"][:1]
    with attending(model) as heard, torch.no_grad():
        reported = model(input_ids=ids, output_attentions=True).attentions
    causal = torch.equal(reported[0], reported[0].tril())
    for (query, key, _), shares in zip(heard, reported, strict=True):
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        torch.testing.assert_close(scores.softmax(-1), shares, rtol=1e-4, atol=1e-6)  # float32


def test_the_model_is_as_before_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = build("bert")

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("in between")

    monkeypatch.setattr(model.bert.encoder.layer[1].attention.self.query, "forward", fails)
    with pytest.raises(RuntimeError, match="in between"), attending(model):
        model(**Batch.of(collated()).inputs)
    assert model.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_gradients_flow_through_what_is_heard() -> None:
    model = build("bert")
    with attending(model) as heard:
        model(**Batch.of(collated()).inputs)
    heard[-1][2].square().sum().backward()
    assert model.bert.encoder.layer[2].attention.self.value.weight.grad.any()
    assert model.bert.encoder.layer[2].attention.self.query.weight.grad is None
