"""The start-up check: it lets every family pass, gives the model back bit for bit, and hears silent failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from families import FAMILIES, build, collated
from faulty import Forgetful, Opaque, Severed
from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.errors import TrainingError
from gradistill.models.attention import second_order_attention
from gradistill.models.probe import Probe
from gradistill.signals import AttributionScores, ClsGradient, InputGradient, Logits, Signal
from gradistill.training import gradient_check
from gradistill.training.finite_differences import TOLERANCE, DerivativeComparison
from gradistill.training.gradient_check import _in_float64, check_second_order

OWN = Target("log_odds", "own")
WANTED: tuple[Signal, ...] = (Logits(), InputGradient(OWN), AttributionScores(Target()))


def checked(model: nn.Module, *signals: Signal, probe: Probe | None = None) -> list[DerivativeComparison]:
    return check_second_order(model, probe or Probe.find(model), Batch.of(collated()), signals or WANTED)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_under_second_order_attention(family: str) -> None:
    model = build(family)
    with second_order_attention(model):
        readings = checked(model)
    assert len({reading.weight for reading in readings}) == 4
    assert all(reading.agrees for reading in readings)
    assert any(abs(reading.autograd) > reading.floor for reading in readings)  # there was something to see


def test_a_device_without_float64_is_left_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Apple's. Here the CPU stands for one: the same copies are made, and the readings are the same."""
    model = build("bert", attention="eager")
    found = checked(model)
    monkeypatch.setattr(gradient_check, "WITHOUT_FLOAT64", ("cpu",))
    assert [reading.autograd for reading in checked(model)] == [reading.autograd for reading in found]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_padding_may_come_first(family: str) -> None:
    """Causal rows that begin with padding are NaN in the float64 of the check: they are turned."""
    model = build(family, attention="eager")
    first = {name: tensor.flip(1) if tensor.ndim == 2 else tensor for name, tensor in collated().items()}
    batch = Batch.of(first)
    assert not batch.mask[:, 0].all()
    found = check_second_order(model, Probe.find(model), batch, WANTED)
    behind = check_second_order(model, Probe.find(model), Batch.of(turned(first)), WANTED)
    assert all(reading.agrees for reading in found)
    assert [reading.autograd for reading in found] == [reading.autograd for reading in behind]


def turned(collated: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each row with its padding behind it, by a loop."""
    lead = [int(mask.nonzero()[0]) for mask in collated["attention_mask"]]
    return {
        name: torch.stack([row.roll(-n) for row, n in zip(tensor, lead, strict=True)])
        if tensor.ndim == 2
        else tensor
        for name, tensor in collated.items()
    }


@pytest.mark.parametrize(
    "request_",
    [
        InputGradient(OWN),
        ClsGradient(OWN, (1, 2)),
        AttributionScores(Target(), steps=3),
        InputGradient(Target(view="sampled")),
        InputGradient(Target("logit", "projected")),
    ],
    ids=repr,
)
def test_every_signal_passes_with_dropout(request_: Signal) -> None:
    model = build("bert", attention="eager").train()
    assert all(reading.agrees for reading in checked(model, request_))


def test_a_tie_between_two_labels_is_no_fault() -> None:
    """Where the two best labels are a hair apart, the steps of the comparison must not change the view."""
    model = build("bert", labels=2, attention="eager")
    batch = Batch.of(collated(2))
    with torch.no_grad():
        apart = model(**batch.inputs).logits.diff(dim=-1)[0, 0]
        model.classifier.bias[0] += apart - 1e-7
    probe = Probe.find(model)
    for view in ("own", "teacher"):
        check_second_order(model, probe, batch, [InputGradient(Target("log_odds", view))])


def test_a_sharp_student_is_no_fault() -> None:
    """Its gradients bend within the longer step of the comparison; a missing derivative stays missing in any."""
    model = build("bert", labels=2, attention="eager", initializer_range=0.8)
    readings = checked(model, AttributionScores(Target()))
    assert all(reading.agrees for reading in readings)


def test_a_reading_agrees_within_the_tolerance_and_no_further() -> None:
    near, far = 1 - 0.9 * TOLERANCE, 1 - 1.1 * TOLERANCE
    assert DerivativeComparison("w", autograd=near, finite_difference=1.0, floor=0.0).agrees
    assert not DerivativeComparison("w", autograd=far, finite_difference=1.0, floor=0.0).agrees
    assert not DerivativeComparison("w", autograd=0.0, finite_difference=1.0, floor=0.5).agrees
    assert DerivativeComparison("w", autograd=0.0, finite_difference=1e-9, floor=1e-8).agrees


def fingerprint(model: nn.Module) -> dict[str, Any]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "bits": {name: tensor.detach().clone() for name, tensor in tensors.items()},
        "identities": {name: id(parameter) for name, parameter in model.named_parameters()},
        "requires_grad": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
        "random": torch.get_rng_state(),
    }


def assert_same(found: dict[str, Any], before: dict[str, Any]) -> None:
    assert found["bits"].keys() == before["bits"].keys()
    for name, tensor in found["bits"].items():
        assert tensor.dtype == before["bits"][name].dtype, name
        assert torch.equal(tensor, before["bits"][name]), name
    for key in ("identities", "requires_grad", "gradients", "training"):
        assert found[key] == before[key], key
    assert torch.equal(found["random"], before["random"])


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("bert", torch.float32),
        ("bert", torch.float64),
        ("llama", torch.bfloat16),
        ("deberta_v2", torch.float32),
        ("modernbert", torch.bfloat16),
    ],
    ids=str,
)
def test_the_model_comes_back_bit_for_bit(family: str, dtype: torch.dtype) -> None:
    """Buffers that are not saved (rotary frequencies) included; dropout draws numbers, and nobody notices."""
    model = build(family, attention="eager").to(dtype)
    probe = Probe.find(model)
    model.train()
    next(iter(model.children())).eval()
    next(model.parameters()).requires_grad_(False)
    before = fingerprint(model)
    checked(model, probe=probe)
    assert_same(fingerprint(model), before)


def test_what_accumulates_gradients_is_left_alone() -> None:
    """DistributedDataParallel hooks these nodes: with new ones it would never hear of a gradient, in silence."""

    def accumulators(model: nn.Module) -> list[Any]:
        return [p.expand_as(p).grad_fn.next_functions[0][0] for p in model.parameters()]  # pyright: ignore

    model = build("bert", attention="eager")
    before = accumulators(model)
    checked(model)
    assert all(now is then for now, then in zip(accumulators(model), before, strict=True))


def test_the_model_comes_back_bit_for_bit_from_a_refusal() -> None:
    model = build("bert", attention="sdpa")
    probe = Probe.find(model)
    before = fingerprint(model)
    with pytest.raises(TrainingError):
        checked(model, probe=probe)
    assert_same(fingerprint(model), before)


class Through(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def broken(function: Callable[[Tensor], Tensor]) -> Any:
    """A BERT whose second block has another activation."""
    model = build("bert", attention="eager", initializer_range=0.2)
    model.bert.encoder.layer[1].intermediate.intermediate_act_fn = Through(function)
    return model


def refusal(model: nn.Module, *signals: Signal) -> str:
    with pytest.raises(TrainingError) as caught:
        checked(model, *signals)
    return str(caught.value)


def test_an_honest_activation_passes() -> None:
    """The counterpart of the broken ones: the same surgery, with torch's own GELU."""
    assert all(reading.agrees for reading in checked(broken(nn.functional.gelu)))


@pytest.mark.parametrize(
    ("function", "request_"),
    [
        pytest.param(Forgetful.apply, WANTED[1], id="forgetful"),
        pytest.param(Severed.apply, WANTED[2], id="severed", marks=pytest.mark.slow),
    ],
)
def test_what_drops_the_second_order_part_in_silence_is_heard(function: Any, request_: Signal) -> None:
    message = refusal(broken(function), request_)
    assert "the second-order gradient of the student is missing or wrong" in message
    assert "bert.encoder.layer.0.attention.self.query.weight: autograd gives" in message
    assert "a finite difference" in message
    assert f"agreement within {TOLERANCE:.0%}" in message
    assert "without custom autograd functions" in message


@pytest.mark.slow
def test_a_fault_beside_the_few_matrices_that_are_read_is_heard() -> None:
    """No weight that is read one by one has lost much; those of all matrices together tell."""
    model = build("bert", attention="eager", initializer_range=0.2)
    place = "bert.encoder.layer.1.attention.output.dense"
    model.get_submodule(place).register_forward_hook(lambda _module, _given, output: Forgetful.apply(output))
    assert f"{place}.weight: autograd gives" in refusal(model, AttributionScores(Target()))


def test_fused_attention_is_refused_and_eager_attention_named() -> None:
    message = refusal(build("bert", attention="sdpa"))
    assert "the student has no second derivative" in message
    assert "scaled_dot_product" in message
    assert "attn_implementation='eager'" in message


def test_a_function_differentiable_once_is_refused() -> None:
    """``autograd.grad`` never visits the node that would complain: this is silent too."""
    message = refusal(broken(Opaque.apply))
    assert "the second-order gradient of the student is missing or wrong" in message
    assert "without custom autograd functions" in message


@pytest.mark.slow
def test_a_detached_branch_is_heard() -> None:
    """The residual path stays, so every tensor has a gradient, and nothing raises."""
    message = refusal(broken(lambda x: nn.functional.gelu(x).detach()))
    assert "is missing or wrong" in message
    assert "no_grad" in message


def without_gradients(forward: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return forward(*args, **kwargs)

    return wrapped


def test_an_attention_under_no_grad_is_heard() -> None:
    model = build("bert", attention="eager", initializer_range=0.2)
    attention = model.bert.encoder.layer[0].attention
    attention.forward = without_gradients(attention.forward)
    assert "does not reach its logits" in refusal(model)
    inner = build("bert", attention="eager", initializer_range=0.2)
    attention = inner.bert.encoder.layer[0].attention.self
    attention.forward = without_gradients(attention.forward)
    assert "is missing or wrong" in refusal(inner)


def test_a_whole_block_under_no_grad_or_detached_is_refused() -> None:
    def detached(forward: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: forward(*args, **kwargs).detach()

    for cut in (without_gradients, detached):
        model = build("bert", attention="eager")
        block = model.bert.encoder.layer[1]
        block.forward = cut(block.forward)
        message = refusal(model)
        assert "the student has no second derivative" in message
        assert "does not reach its logits" in message
        assert "no_grad" in message


def test_a_student_frozen_above_its_embeddings_is_refused() -> None:
    model = build("bert", attention="eager").requires_grad_(False)
    model.bert.embeddings.requires_grad_(True)
    message = refusal(model)
    assert "the student has no trainable matrix above its embeddings" in message
    assert "requires_grad_(True)" in message


def test_torch_compile_is_refused() -> None:
    """METHODS.md 5; a part of the model is quick to compile. Here aot_eager raises, and the remedy is printed."""
    model = build("bert", attention="eager")
    probe = Probe.find(model)
    model.bert.encoder.layer[1].intermediate.compile(backend="aot_eager")
    try:
        with pytest.raises(TrainingError) as caught:
            checked(model, InputGradient(OWN), probe=probe)
    finally:
        torch._dynamo.reset()
    assert "the student has no second derivative" in str(caught.value)
    assert "without torch.compile" in str(caught.value)


def test_tied_weights_and_buffers_are_copied_once_and_come_back() -> None:
    model = build("bert", attention="eager")
    first, second = model.bert.encoder.layer[0].output.dense, model.bert.encoder.layer[1].output.dense
    second.weight = first.weight
    model.register_buffer("scale", torch.ones(2), persistent=False)
    before = fingerprint(model)
    original, scale = first.weight, model.scale
    with _in_float64(model, torch.device("cpu")):
        assert first.weight is second.weight
        assert first.weight is not original
        assert {tensor.dtype for tensor in (*model.parameters(), model.scale)} == {torch.float64}
        assert torch.equal(first.weight, original.double())
    assert first.weight is second.weight is original
    assert model.scale is scale
    assert "scale" not in model.state_dict()
    assert_same(fingerprint(model), before)
