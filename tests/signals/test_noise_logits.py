"""Logits under noise on the embedding output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from computed import computed
from families import build, collated
from gradistill.batch import Batch, RandomDraws
from gradistill.models.probe import Probe
from gradistill.signals import ForwardPass, Needs, NoiseLogits

NOISE = NoiseLogits(copies=2, sets=3, sigma=0.5)


def batch_of(rows: Any, epoch: int = 0) -> Batch:
    count = len(rows["input_ids"])
    drawn = RandomDraws(torch.arange(count), torch.zeros(count).long(), torch.ones(count, 3), epoch)
    return Batch.of(rows, drawn=drawn)


def noise_of(model: Any, batch: Batch, sets: Any) -> torch.Tensor:
    with torch.no_grad():
        return NOISE.noise(ForwardPass.run(model, Probe.find(model), batch, Needs(embedding=True)), sets)


def test_a_naive_loop_with_a_hook_of_its_own_predicts_the_same() -> None:
    model, batch = build("bert").double(), batch_of(collated(), epoch=4)
    found = computed(model, NOISE, batch=batch)[NOISE]
    noise, embedding = noise_of(model, batch, [1]), model.get_submodule(Probe.find(model).embedding)
    plain = embedding(batch.inputs["input_ids"])
    for row in range(3):
        for copy in range(2):
            changed = (
                plain[row] + 0.5 * plain[row].norm(dim=-1, keepdim=True) / 4 * noise[row, copy]
            )  # 16 wide
            handle = embedding.register_forward_hook(lambda *_, changed=changed: changed[None])
            alone = {name: tensor[row : row + 1] for name, tensor in batch.inputs.items()}
            expected = model(**alone).logits[0]
            handle.remove()
            # float64; the batch changes the order of additions
            torch.testing.assert_close(found[row, copy], expected, rtol=1e-9, atol=1e-12)


def test_noise_depends_on_the_row_and_the_set_and_padding_has_none() -> None:
    model, rows = build("bert"), collated()
    whole = noise_of(model, batch_of(rows), range(3))
    assert not whole[~batch_of(rows).mask[:, None].expand(-1, 6, -1)].any()
    turned = noise_of(model, batch_of({name: tensor.flip(0) for name, tensor in rows.items()}), range(3))
    assert torch.equal(whole.flip(0), turned)
    assert not torch.equal(whole[:, :2], whole[:, 2:4])
    drawn = whole[batch_of(rows).mask[:, None].expand(-1, 6, -1)]
    assert abs(float(drawn.mean())) < 0.1
    assert abs(float(drawn.std()) - 1) < 0.1


def test_a_store_returns_the_set_of_the_epoch() -> None:
    model = build("bert").double()
    kept = replace(NOISE, every_set=True)
    stored = computed(model, kept, batch=batch_of(collated()))[kept]
    for epoch in (0, 1, 5):
        batch = batch_of(collated(), epoch)
        online = computed(model, NOISE, batch=batch)[NOISE]
        torch.testing.assert_close(NOISE.from_stored(stored, batch), online, rtol=1e-9, atol=1e-12)
