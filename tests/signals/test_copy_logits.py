"""Copies of rows with words replaced, and what a model predicts for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from computed import computed
from families import build, collated
from gradistill.batch import Batch, RandomDraws
from gradistill.errors import DataError
from gradistill.models.facts import ModelFacts
from gradistill.signals import CopyLogits, Logits

MASK, POOL = 3, torch.arange(40, 64)
COPIES = CopyLogits(copies=4, sets=3)


def batch_of(rows: Any = None, *, epoch: int = 0, **known: Any) -> Batch:
    tensors = collated() if rows is None else rows
    ids = tensors["input_ids"]
    own = (ids != 0) & (torch.arange(ids.shape[1]) > 0)  # the first token is [CLS]
    words = torch.where(own, (own.cumsum(1) - 1) // 2, -1)  # two tokens a word
    drawn = RandomDraws(torch.arange(len(ids)), torch.zeros(len(ids)).long(), torch.ones(len(ids), 3), epoch)
    known = {"mask_token_id": MASK, "token_pool": POOL} | known
    return Batch.of({**tensors, "word_ids": words}, drawn=drawn, **known)


def test_a_naive_loop_over_copies_predicts_the_same() -> None:
    model, batch = build("bert").double(), batch_of(epoch=1)
    found = computed(model, COPIES, batch=batch)[COPIES]
    ids = COPIES.token_ids(batch, [1])
    assert found.shape == (3, 4, 3)
    for row in range(3):
        own = batch.mask[row]
        for copy in range(4):
            alone = model(input_ids=ids[row, copy][own][None], attention_mask=own[own][None].long()).logits
            # float64; the padding of the batch changes the order of additions
            torch.testing.assert_close(found[row, copy], alone[0], rtol=1e-9, atol=1e-12)


def test_words_go_as_a_whole_and_special_tokens_stay() -> None:
    batch = batch_of()
    ids, before = COPIES.token_ids(batch, range(3)), batch.inputs["input_ids"]
    for row in range(3):
        words = batch.word_numbers[row]
        for copy in ids[row]:
            masked = copy == MASK
            assert masked.any(), "at least one word goes"
            assert torch.equal(copy[~masked], before[row][~masked])
            assert not masked[words < 0].any()
            for word in range(int(words.max()) + 1):
                assert len(set(masked[words == word].tolist())) == 1


@given(seed=st.integers(0, 50), width=st.integers(0, 4))
def test_copies_depend_on_the_row_the_set_and_the_seed_alone(seed: int, width: int) -> None:
    signal = replace(COPIES, replacement="either", seed=seed)
    rows = collated()
    padded = {name: torch.nn.functional.pad(t, (0, width)) if t.ndim == 2 else t for name, t in rows.items()}
    whole = signal.token_ids(batch_of(rows), range(3))
    turned = {name: tensor.flip(0) for name, tensor in padded.items()}
    assert torch.equal(whole.flip(0), signal.token_ids(batch_of(turned), range(3))[..., : whole.shape[-1]])
    assert not torch.equal(whole, replace(signal, seed=seed + 1).token_ids(batch_of(rows), range(3)))
    assert not torch.equal(whole[:, :4], whole[:, 4:8]), "a set has copies of its own"


def test_a_store_holds_all_sets_and_returns_that_of_the_epoch() -> None:
    model = build("bert").double()
    kept = COPIES.stored_as()
    stored = computed(model, kept, batch=batch_of())[kept]
    assert tuple(stored.shape[1:]) == kept.layout(ModelFacts(3, 16, 3)).shape == (12, 3)
    for epoch in range(7):
        batch = batch_of(epoch=epoch)
        online = computed(model, COPIES, batch=batch)[COPIES]
        torch.testing.assert_close(COPIES.from_stored(stored, batch), online, rtol=1e-9, atol=1e-12)


def test_what_stands_in_for_words() -> None:
    before = batch_of().inputs["input_ids"]
    many = {"copies": 400, "sets": 1}
    of_kind = {kind: replace(COPIES, replacement=kind, **many) for kind in ("mask", "tokens", "either")}
    copies = {kind: signal.token_ids(batch_of(), [0]) for kind, signal in of_kind.items()}
    put = {kind: set(ids[ids != before[:, None]].tolist()) for kind, ids in copies.items()}
    assert put["mask"] == {MASK}
    assert put["tokens"] <= set(POOL.tolist())
    assert len(put["tokens"]) > 20
    assert MASK in put["either"]
    assert put["either"] - {MASK} <= set(POOL.tolist())
    either = copies["either"][0]
    masked = (either == MASK).any(1)
    drawn = ((either != before[0]) & (either != MASK)).any(1)
    assert not (masked & drawn).any(), "one kind a copy"
    assert 0.4 < masked.float().mean() < 0.6


def test_sizes_of_the_shapley_kernel() -> None:
    """Of six words 1 to 5 stay, with the weights 1/(s(6 − s))."""
    signal = replace(COPIES, copies=20_000, sizes="shapley")
    sizes = Counter(signal.coalitions(6, np.random.default_rng(0)).sum(1).tolist())
    weights = np.array([1 / (s * (6 - s)) for s in range(1, 6)])
    assert sorted(sizes) == [1, 2, 3, 4, 5]
    shares = [sizes[s] / 20_000 for s in range(1, 6)]
    assert shares == pytest.approx((weights / weights.sum()).tolist(), abs=0.015)


@pytest.mark.parametrize("words", [0, 1])
@pytest.mark.parametrize("sizes", ["rate", "shapley"])
def test_texts_of_no_word_and_of_one(words: int, sizes: Any) -> None:
    kept = replace(COPIES, sizes=sizes).coalitions(words, np.random.default_rng(0))
    assert kept.shape == (4, words)
    assert not kept.any()


def test_without_words_every_token_of_its_own_is_one() -> None:
    rows = collated()
    special = (torch.arange(7) == 0).long().expand(3, 7)
    batch = Batch.of({**rows, "special_tokens_mask": special}, mask_token_id=MASK)
    assert batch.word_numbers[1].tolist() == [-1, 0, 1, 2, 3, -1, -1]
    ids = COPIES.token_ids(batch, [0])
    assert torch.equal(ids[:, :, 0], rows["input_ids"][:, None, 0].expand(3, 4))


def test_words_that_were_cut_off_are_no_players() -> None:
    """Of a cut pair the numbers of the second text's words begin behind those that are gone."""
    rows = {"input_ids": torch.arange(10, 15)[None], "word_ids": torch.tensor([[-1, 0, 1, 120, 121]])}
    batch = Batch.of(rows, mask_token_id=MASK)
    for sizes in ("rate", "shapley"):
        ids = replace(COPIES, copies=200, sizes=sizes).token_ids(batch, range(3))[0]
        gone = (ids == MASK).sum(1)
        assert gone.min() >= 1
        assert gone.max() <= (4 if sizes == "rate" else 3)


def test_rows_that_do_not_know_their_special_tokens_are_refused() -> None:
    with pytest.raises(DataError, match="neither word ids nor a mask of special tokens"):
        COPIES.token_ids(Batch.of(collated(), mask_token_id=MASK), [0])


@pytest.mark.parametrize(
    ("replacement", "known", "missing"),
    [
        ("mask", {"mask_token_id": None}, "mask token"),
        ("tokens", {"token_pool": None}, "tokens of the training"),
    ],
)
def test_a_batch_that_cannot_replace_words_is_refused(replacement: Any, known: Any, missing: str) -> None:
    signal = replace(COPIES, replacement=replacement)
    with pytest.raises(DataError, match=missing):
        signal.token_ids(batch_of(**known), [0])


def test_the_gradient_of_a_student_reaches_every_block() -> None:
    model = build("bert").double()
    found = computed(model, COPIES, Logits(), batch=batch_of(), create_graph=True)[COPIES]
    found.square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.ndim == 2 and p.grad is None]
    assert not [name for name in silent if "embed" not in name]
