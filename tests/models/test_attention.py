"""Listening to self-attention: what is heard is what met there, and the model stays as it was."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest
import torch
import transformers
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from families import FAMILIES, build, collated
from gradistill.batch import Batch
from gradistill.models.attention import attending, intercepted_attention
from gradistill.models.probe import Probe

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


def passing(calls: list[Any]) -> Any:
    def noting(attention: Any, module: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(module)
        return attention(module, *arguments, **options)

    return noting


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_model_is_intercepted_or_left_alone_without_a_warning(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = build(family), Batch.of(collated()).inputs
    before, calls, warnings = model.config._attn_implementation, list[Any](), list[Any]()
    monkeypatch.setattr(transformers.modeling_utils.logger, "warning", lambda *a, **_: warnings.append(a))
    with intercepted_attention(model, passing(calls)):
        model(**inputs)
        within = model.config._attn_implementation
    assert model.config._attn_implementation == before
    assert (within != before) == bool(calls) == (family in HEARD)
    assert not warnings


def test_a_model_of_the_same_configuration_keeps_its_own_attention() -> None:
    model = build("bert")
    other = type(model)(model.config).eval()
    assert other.config is model.config
    inputs, calls = Batch.of(collated()).inputs, list[Any]()
    plain = other(**inputs).logits
    with intercepted_attention(model, passing(calls)):
        assert torch.equal(other(**inputs).logits, plain)
        assert not calls
        model(**inputs)
    assert len(calls) == 3
    assert set(calls) <= set(model.modules())


def test_another_thread_is_not_intercepted() -> None:
    model, inputs, calls = build("bert"), Batch.of(collated()).inputs, list[Any]()
    plain, found = model(**inputs).logits, list[Any]()
    with intercepted_attention(model, passing(calls)):
        thread = Thread(target=lambda: found.append(model(**inputs).logits))
        thread.start()
        thread.join()
    assert torch.equal(found[0], plain)
    assert not calls


def test_the_later_of_two_interceptors_runs_first() -> None:
    model, inputs, calls = build("bert"), Batch.of(collated()).inputs, list[Any]()

    with (
        intercepted_attention(model, passing(calls)),
        intercepted_attention(
            model, lambda own, module, *a, **o: calls.append("later") or own(module, *a, **o)
        ),
    ):
        model(**inputs)
    assert calls[::2] == ["later"] * 3
    assert all(isinstance(call, torch.nn.Module) for call in calls[1::2])
    assert model.config._attn_implementation == "sdpa"


def test_names_of_transformers_that_are_private_are_there() -> None:
    """``models/attention.py`` reads them; CONTRIBUTING.md names them."""
    model = build("bert")
    assert model.config._attn_implementation == "sdpa"
    assert model._can_set_attn_implementation() is True
    assert build("deberta_v2")._can_set_attn_implementation() is False
    assert callable(transformers.models.bert.modeling_bert.eager_attention_forward)
    assert {"eager", "sdpa"} <= set(ALL_MASK_ATTENTION_FUNCTIONS)
