"""The last block computes one row, and nothing that is read changes: in float64, family by family."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as tr
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from families import FAMILIES, PAD, build, collated
from gradistill.batch import Batch
from gradistill.models import last_block
from gradistill.models.last_block import Call
from gradistill.models.probe import Probe
from small import logged

POOLING = ("eurobert",)
"""Their heads read every token."""
MIX_FOR_ALL = ("deberta_v2", "mpnet", "roformer", "funnel")
"""Their attention is code of their own: it mixes for all tokens, and the rest of the block is trimmed."""
ISLANDS = {"llama": 1e-5, "qwen2": 1e-5, "qwen3": 1e-5, "gemma3": 1e-5, "modernbert": 1e-7}
"""Norms or softmaxes that compute in float32 whatever the model's type; elsewhere float64 holds throughout."""
TRIMMED = [family for family in FAMILIES if family not in POOLING]


def model_of(family: str, attention: str = "eager", **changes: Any) -> Any:
    """In float64, with weights large enough that attention is not uniform."""
    model = build(family, attention=attention, **changes).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(len(name))))
    return model


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(**changes: Any) -> Batch:
    return Batch.of(collated(tokens=9, **changes))


def left_padded() -> Batch:
    columns = collated(tokens=9)
    order = columns["attention_mask"].argsort(dim=-1, stable=True)
    return Batch.of({**columns, **{k: columns[k].gather(1, order) for k in ("input_ids", "attention_mask")}})


def answers(model: Any, probe: Probe, batch: Batch, *, twice: bool = True) -> list[Tensor]:
    """Logits, the input gradient, and the second-order gradient of every weight."""
    with probe.tapped(model) as taps, probe.trimmed(model, batch):
        logits = model(**batch.inputs).logits
    weights = torch.arange(1.0, 1.0 + logits.shape[1]).to(logits)
    (inner,) = torch.autograd.grad((logits * weights).sum(), taps[-1], create_graph=twice)
    if not twice:
        return [logits, inner]
    random = torch.randn(inner.shape, generator=generator(1)).to(inner)
    parameters = [p for p in model.parameters() if p.requires_grad]
    second = torch.autograd.grad((inner * random).sum() + logits.sum(), parameters, allow_unused=True)
    zeros = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, second, strict=True)]
    return [logits, inner, torch.cat([gradient.flatten() for gradient in zeros])]


def assert_alike(left: list[Tensor], right: list[Tensor], tolerance: float = 1e-12) -> None:
    for one, other in zip(left, right, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("family", TRIMMED)
def test_logits_and_both_derivatives_are_those_of_the_whole_model(family: str) -> None:
    model, batch = model_of(family), batch_of()
    probe = Probe.find(model)
    whole = answers(model, replace(probe, trim=None), batch)
    assert_alike(answers(model, probe, batch), whole, ISLANDS.get(family, 1e-12))


@pytest.mark.parametrize("family", TRIMMED)
def test_padding_on_the_left_changes_nothing(family: str) -> None:
    """In float32: some decoders' masks overflow in float64 where a row sees padding alone."""
    model, batch = model_of(family).float(), left_padded()
    probe = Probe.find(model)
    assert_alike(answers(model, probe, batch), answers(model, replace(probe, trim=None), batch), 1e-4)


@pytest.mark.parametrize("family", [f for f in TRIMMED if f not in MIX_FOR_ALL])
def test_fused_attention_is_trimmed_alike(family: str) -> None:
    model, batch = model_of(family, "sdpa"), batch_of()
    probe = Probe.find(model)
    whole = answers(model, replace(probe, trim=None), batch, twice=False)
    assert_alike(answers(model, probe, batch, twice=False), whole, ISLANDS.get(family, 1e-12))
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", TRIMMED)
def test_a_row_before_the_last_does_not_look_ahead(family: str, attention: str) -> None:
    """Texts of one length that end in the id of padding, as where the end of a text pads too: fused attention gets no
    mask then, and heads of decoders read the token before."""
    model = model_of(family, "eager" if family in MIX_FOR_ALL else attention)
    columns = collated(tokens=9)
    ids = columns["input_ids"].clamp(min=PAD + 1)
    ids[:, -1] = PAD
    batch = Batch.of({**columns, "input_ids": ids, "attention_mask": torch.ones_like(ids)})
    probe = Probe.find(model)
    assert probe.trim is not None
    whole = answers(model, replace(probe, trim=None), batch, twice=False)
    assert_alike(answers(model, probe, batch, twice=False), whole, ISLANDS.get(family, 1e-12))


@pytest.mark.parametrize("family", TRIMMED)
def test_padding_inside_of_a_text_is_passed_over_as_by_the_head(family: str) -> None:
    """Ends of texts, or erased words, with the id of padding: heads of decoders look for another token by the ids."""
    model, batch = model_of(family), batch_of()
    ids = batch.inputs["input_ids"].clone()
    last = (batch.mask * torch.arange(ids.shape[1])).argmax(1)
    ids[torch.arange(len(ids)), last] = PAD
    ids[0, last[0] - 2] = PAD
    batch = replace(batch, inputs={**batch.inputs, "input_ids": ids})
    probe = Probe.find(model)
    assert probe.trim is not None
    whole = answers(model, replace(probe, trim=None), batch)
    assert_alike(answers(model, probe, batch), whole, ISLANDS.get(family, 1e-12))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_feed_forward_layer_sees_one_row(family: str) -> None:
    model, batch = build(family), batch_of()
    probe = Probe.find(model)
    if family in POOLING:
        assert probe.trim is None
        return
    assert probe.trim is not None
    seen: list[int] = []
    layers = [module for name, module in model.named_modules() if _closes_a_block(name)]
    layers[-1].register_forward_hook(lambda _module, _given, output: seen.append(output.shape[1]))
    with probe.trimmed(model, batch):
        model(**batch.inputs)
    turns = {"albert": [9, 9, 1]}  # one block, called three times
    assert seen == turns.get(family, [1])


def _closes_a_block(name: str) -> bool:
    ends = (
        "output.dense",
        "ffn.lin2",
        "ffn_output",
        "linear_2",
        "down_proj",
        "mlp.Wo",
        "mlp.fc2",
        "mlp.c_proj",
    )
    return name.endswith(ends) and "attention" not in name


@pytest.mark.parametrize("family", [f for f in TRIMMED if f not in MIX_FOR_ALL])
def test_the_last_attention_asks_one_query(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build(family, attention="sdpa"), batch_of()
    probe = Probe.find(model)
    queries: list[int] = []
    product = Tensor.__matmul__

    def counting(left: Tensor, right: Tensor) -> Tensor:
        queries.append(left.shape[2] if left.ndim == 4 else 0)
        return product(left, right)

    with probe.trimmed(model, batch):
        monkeypatch.setattr(Tensor, "__matmul__", counting)
        model(**batch.inputs)
        monkeypatch.undo()
    assert [q for q in queries if q][-2:] == [1, 1]


def test_nothing_is_left_behind_by_an_error() -> None:
    model, batch = build("bert"), batch_of()
    probe = Probe.find(model)
    implementation = model.config._attn_implementation
    before = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]

    def broken(*_: Any) -> None:
        raise RuntimeError("out of memory")

    handle = model.bert.encoder.layer[2].attention.self.value.register_forward_hook(broken)
    with pytest.raises(RuntimeError, match="out of memory"), probe.trimmed(model, batch):
        model(**batch.inputs)
    handle.remove()
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == before
    assert model.config._attn_implementation == implementation


def test_a_trim_that_does_not_hold_is_dropped() -> None:
    model, batch = model_of("bert"), batch_of()
    probe = Probe.find(model)
    assert probe.trim is not None
    assert probe.verified(model, batch) == probe
    keys = Call("bert.encoder.layer.2.attention.self.key", 1)
    wrong = replace(probe, trim=replace(probe.trim, rows=probe.trim.rows | {keys}))
    lines: list[str] = []
    with logged(lines):
        assert wrong.verified(model, batch).trim is None
    assert "runs whole" in "\n".join(lines)


def test_attention_with_options_of_its_own_keeps_them() -> None:
    """Soft caps are not known to the one-query attention: the rest of the block is trimmed without it."""
    model, batch = model_of("gemma3"), batch_of()
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = 3.0
    probe = Probe.find(model)
    assert probe.trim is not None
    assert probe.trim.attention is not None
    verified = probe.verified(model, batch)
    assert verified.trim == replace(probe.trim, attention=None)
    assert_alike(answers(model, verified, batch), answers(model, replace(probe, trim=None), batch), 1e-5)


def test_a_model_that_runs_under_autocast_is_trimmed_alike() -> None:
    """A Trainer with bf16 leaves the model so."""
    model = build("bert")
    plain = Probe.find(model).trim
    model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)
    assert Probe.find(model).trim == plain


def test_a_model_that_a_trainer_runs_in_bf16_keeps_its_trim() -> None:
    """Trimmed and whole differ by rounding there: what is compared is computed in the weights' own type."""
    model = model_of("bert").float()
    probe = Probe.find(model)
    AcceleratorState._reset_state(reset_partial_state=True)  # other tests trained in float32
    Accelerator(cpu=True, mixed_precision="bf16").prepare_model(model)
    AcceleratorState._reset_state(reset_partial_state=True)
    forward = model.forward
    assert probe.trim is not None
    assert probe.verified(model, batch_of()) == probe
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert probe.verified(model, batch_of()) == probe
    assert model.forward == forward


def test_checkpointed_blocks_run_whole() -> None:
    model, batch = build("bert").train(), batch_of()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    probe = Probe.find(model)
    with probe.trimmed(model, batch):
        assert model.bert.encoder.layer[2].output._forward_pre_hooks == {}


def test_the_first_batch_stands_for_later_ones_without_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has padding, and the fault is in batches that have none."""
    right = last_block.one_query_attention

    def looks_ahead(positions: Any, module: Any, *tensors: Any, **options: Any) -> Any:
        causal = options if tensors[3] is not None else {**options, "is_causal": False}
        return right(positions, module, *tensors, **causal)

    model, batch = model_of("llama", "sdpa"), batch_of()
    probe = Probe.find(model)
    monkeypatch.setattr(last_block, "one_query_attention", looks_ahead)
    assert probe.trim is not None
    assert probe.verified(model, batch).trim == replace(probe.trim, attention=None)


def test_inputs_with_one_value_a_row_are_read() -> None:
    config = tr.XLMConfig(
        vocab_size=64, emb_dim=16, n_layers=3, n_heads=2, num_labels=3, pad_index=0, pad_token_id=0
    )
    model, columns = tr.AutoModelForSequenceClassification.from_config(config).eval(), collated()
    mask = columns["attention_mask"]
    batch = Batch.of({"input_ids": columns["input_ids"], "attention_mask": mask, "lengths": mask.sum(1)})
    assert Probe.find(model).verified(model, batch).labels == 3
