"""Hidden states of another text put into a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from computed import computed
from families import FAMILIES, build, collated
from gradistill.batch import Batch, RandomDraws
from gradistill.models.probe import Probe
from gradistill.signals import ForwardPass, InterchangeLogits, Needs

POOL = torch.arange(40, 64)
SIGNAL = InterchangeLogits(copies=3, sets=2, layers=(1, 2), keep=(0.2, 0.8))


def batch_of(rows: Any = None, epoch: int = 0) -> Batch:
    tensors = collated(tokens=9) if rows is None else rows
    ids = tensors["input_ids"]
    own = (ids != 0) & (torch.arange(ids.shape[1]) > 0)  # the first token is [CLS]
    drawn = RandomDraws(torch.arange(len(ids)), torch.zeros(len(ids)).long(), torch.ones(len(ids), 3), epoch)
    words = torch.where(own, (own.cumsum(1) - 1) // 2, -1)  # two tokens a word
    return Batch.of({**tensors, "word_ids": words}, drawn=drawn, mask_token_id=3, token_pool=POOL)


def test_a_naive_loop_with_hooks_of_its_own_predicts_the_same() -> None:
    model, batch = build("bert").double(), batch_of(epoch=1)
    found = computed(model, SIGNAL, batch=batch)[SIGNAL]
    sources, taken, layers = SIGNAL.draws(batch, [1])
    assert found.shape == (3, 3, 3)
    for row in range(3):
        real = batch.mask[row]
        for copy in range(3):
            states = model(input_ids=sources[row, copy][real][None], output_hidden_states=True).hidden_states
            other, goes = states[1 + int(layers[row, copy])], taken[row, copy][real]
            block = model.bert.encoder.layer[int(layers[row, copy])]
            handle = block.register_forward_hook(
                lambda _m, _i, output, goes=goes, other=other: torch.where(goes[:, None], other, output)
            )
            expected = model(input_ids=batch.inputs["input_ids"][row][real][None]).logits[0]
            handle.remove()
            # float64; the padding of the batch changes the order of additions
            torch.testing.assert_close(found[row, copy], expected, rtol=1e-9, atol=1e-12)
    assert {*layers.flatten().tolist()} == {0, 1}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_taking_every_state_predicts_the_other_text(family: str) -> None:
    """In every family but the one whose states grow shorter, which the objective refuses."""
    model = build(family, initializer_range=0.2).double()
    probe, batch = Probe.find(model), batch_of()
    if not probe.full_length:
        pytest.skip("refused: the text grows shorter")
    assert probe.replaceable_states
    sources = batch.inputs["input_ids"].flip(1).where(batch.mask, batch.inputs["input_ids"])
    every, nothing = batch.mask, torch.zeros_like(batch.mask)
    with torch.no_grad():
        forward = ForwardPass.run(model, probe, batch, Needs())
        other = forward.with_tokens(sources, torch.arange(3))
        for layer in range(1, probe.layers):
            taken = forward.with_states_of(sources, torch.arange(3), {layer: every})
            kept = forward.with_states_of(sources, torch.arange(3), {layer: nothing})
            # float64, but for norms that some families compute in float32
            torch.testing.assert_close(taken, other, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(kept, forward.logits, rtol=1e-4, atol=1e-5)
    assert (other - forward.logits).abs().max() > 1e-4, "the test sees no difference"


def test_the_words_layers_and_texts_are_the_rows_own() -> None:
    rows = collated(tokens=9)
    padded = {name: torch.nn.functional.pad(t, (0, 3)) if t.ndim == 2 else t for name, t in rows.items()}
    turned = {name: tensor.flip(0) for name, tensor in padded.items()}
    whole, other = SIGNAL.draws(batch_of(rows), range(2)), SIGNAL.draws(batch_of(turned), range(2))
    for before, after in zip(whole[:2], other[:2], strict=True):
        assert torch.equal(before.flip(0), after[..., :9])
    assert torch.equal(whole[2].flip(0), other[2])
    sources, taken, _ = whole
    changed = sources != rows["input_ids"][:, None]
    assert set(sources[changed].tolist()) <= set(POOL.tolist())
    assert taken.any(-1).all()
    assert not (taken & (batch_of(rows).word_numbers < 0)[:, None]).any()
