"""The probe finds the same sites in every family, and leaves no trace in the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tr
from torch import nn

from families import FAMILIES, build, collated
from gradistill.batch import Batch
from gradistill.errors import ModelError
from gradistill.models.probe import Probe
from gradistill.models.tracing import unwrapped
from small import logged

DECODERS = ("llama", "qwen2", "qwen3", "gpt2", "gemma3")
TINY = {"vocab_size": 64, "d_model": 16, "pad_token_id": 0, "num_labels": 2, "eos_token_id": 2}
INPUTS = Batch.of(collated()).inputs

every_family = pytest.mark.parametrize("family", FAMILIES)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def flags(model: nn.Module) -> list[tuple[str, bool]]:
    modes = [(name, module.training) for name, module in model.named_modules()]
    return modes + [(name, parameter.requires_grad) for name, parameter in model.named_parameters()]


@every_family
def test_what_is_found(family: str) -> None:
    probe = Probe.find(build(family))
    assert (probe.layers, probe.width, probe.labels) == (3, 16, 3)
    assert probe.reads == ("last" if family in DECODERS else "first")
    assert Probe.find(build(family, labels=1)).labels == 1


@every_family
def test_the_tap_sees_the_first_hidden_state_and_changes_nothing(family: str) -> None:
    model = build(family)
    probe = Probe.find(model)
    plain = model(**INPUTS, output_hidden_states=True)
    before = hooks(model)
    with probe.tapped(model) as seen:
        logits = model(**INPUTS).logits
    assert len(seen) == 1
    assert torch.equal(seen[0], plain.hidden_states[0])
    assert seen[0].requires_grad
    assert torch.equal(logits, plain.logits)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), seen[0])
    assert gradient.isfinite().all()
    assert gradient.any()
    with pytest.raises(KeyError), probe.tapped(model):
        raise KeyError
    assert hooks(model) == before
    assert torch.equal(model(**INPUTS).logits, plain.logits)


@every_family
def test_a_replacement_stands_in_for_the_embedding_output(family: str) -> None:
    model = build(family)
    probe = Probe.find(model)
    with torch.no_grad():
        with probe.tapped(model) as seen:
            plain = model(**INPUTS).logits
        with probe.tapped(model, seen[0].clone()) as again:
            same = model(**INPUTS).logits
        with probe.tapped(model, torch.zeros_like(seen[0])):
            other = model(**INPUTS).logits
    assert not again[0].requires_grad
    assert torch.equal(same, plain)
    # Weights of standard deviation 0.02 keep logits near 0: "other" is judged relative to them.
    assert (other - plain).abs().max() > 1e-3 * plain.abs().max()


@every_family
def test_a_frozen_model_gives_a_leaf_that_requires_a_gradient(family: str) -> None:
    model = build(family).requires_grad_(False)
    with Probe.find(model).tapped(model) as seen:
        logits = model(**INPUTS).logits
    assert seen[0].is_leaf
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), seen[0])
    assert gradient.any()


@every_family
def test_finding_restores_modes_and_flags_and_sees_frozen_parameters(family: str) -> None:
    model = build(family)
    whole = Probe.find(model)
    model.train()
    model.get_submodule(whole.embedding).eval()
    for k, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(k % 2 == 0)
    before, installed = flags(model), hooks(model)
    assert Probe.find(model) == whole
    assert flags(model) == before
    assert hooks(model) == installed
    model.requires_grad_(False)
    assert Probe.find(model) == whole
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_embedding_parameters_of_bert_are_its_five() -> None:
    model = build("bert")
    probe = Probe.find(model)
    five = {name for name, _ in model.named_parameters() if name.startswith("bert.embeddings.")}
    assert len(five) == 5
    assert set(probe.embedding_parameters) == five
    assert probe.embedding == "bert.embeddings"


@pytest.mark.parametrize("family", ["electra", "albert"])
def test_a_projection_behind_the_embeddings_belongs_to_them(family: str) -> None:
    names = Probe.find(build(family)).embedding_parameters
    assert any("project" in name or "mapping_in" in name for name in names)
    assert any("word_embeddings" in name for name in names)


@pytest.mark.parametrize(
    ("family", "expected"),
    [("bert", [0, 0, 2, 0]), ("qwen3", [3, 1, 3, 2]), ("llama", [3, 1, 3, 2])],
    ids=["first", "last", "last, llama"],
)
def test_text_position(family: str, expected: list[int]) -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 0]]).bool()
    batch = Batch.of({"input_ids": torch.full((4, 4), 7), "attention_mask": mask})
    assert Probe.find(build(family)).text_position(batch).tolist() == expected


@every_family
def test_heads_of_decoders_pass_over_padding(family: str) -> None:
    model = build(family)
    probe = Probe.find(model)
    assert probe.skipped_pad_id == (model.config.pad_token_id if family in DECODERS else None)
    ids = torch.tensor([[9, 8, 7, 6], [9, 0, 7, 0], [9, 8, 0, 0], [0, 0, 0, 0]])
    batch = Batch.of({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert probe.text_position(batch).tolist() == ([3, 2, 1, 0] if family in DECODERS else [0] * 4)


@pytest.mark.parametrize(
    "model",
    [
        lambda: tr.BartForSequenceClassification(
            tr.BartConfig(
                **TINY, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
                encoder_attention_heads=2, decoder_attention_heads=2, bos_token_id=1,
                decoder_start_token_id=2, forced_eos_token_id=2,
            )
        ),
        lambda: tr.T5ForSequenceClassification(
            tr.T5Config(**TINY, d_ff=16, d_kv=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
        ),
    ],
    ids=["bart", "t5"],
)  # fmt: skip
def test_an_encoder_decoder_is_refused(model: Any) -> None:
    with pytest.raises(ModelError, match=r"(?s)is an encoder-decoder.*BERT-like encoder or a decoder"):
        Probe.find(model())


def test_what_is_no_transformers_classifier_is_refused() -> None:
    with pytest.raises(ModelError, match=r"(?s)The model is a Linear.*a transformers sequence classifier"):
        Probe.find(nn.Linear(2, 2))


def test_a_base_encoder_is_refused() -> None:
    with pytest.raises(ModelError, match="no hidden states or no logits"):
        Probe.find(build("bert").bert)


def test_a_compiled_model_is_looked_through() -> None:
    model = build("bert")
    compiled = torch.compile(model, backend="eager")
    assert unwrapped(compiled) is model
    assert unwrapped(nn.DataParallel(compiled)) is model
    assert unwrapped(nn.Sequential(model)) is not model  # a module around a model that is no wrapper
    assert Probe.find(compiled) == Probe.find(model)


def test_a_model_that_mixes_padding_in_is_named() -> None:
    config = tr.FNetConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=3, intermediate_size=32, max_position_embeddings=64,
        pad_token_id=0, num_labels=3,
    )  # fmt: skip
    lines: list[str] = []
    with logged(lines):
        Probe.find(tr.AutoModelForSequenceClassification.from_config(config))
        assert "FNetForSequenceClassification also reads padding" in "\n".join(lines)
        lines.clear()
        for family in FAMILIES:
            Probe.find(build(family))
        Probe.find(build("llama", pad_token_id=None))  # which reads no padding
        Probe.find(build("bert", max_position_embeddings=10))
    assert not lines


def test_a_model_that_changes_its_embeddings_in_place_is_read() -> None:
    """XLM multiplies them by the mask."""
    config = tr.XLMConfig(vocab_size=64, emb_dim=16, n_layers=3, n_heads=2, num_labels=2, pad_index=0)
    model = tr.AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)
    batch = Batch.of(collated())
    probe = Probe.find(model)
    with probe.tapped(model) as taps:
        (gradient,) = torch.autograd.grad(model(**batch.inputs).logits.sum(), taps[-1])
    assert gradient.abs().max() > 0
