"""The edit that turns the teacher, and what both models predict for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from computed import computed
from families import build, collated
from gradistill.batch import Batch
from gradistill.errors import DataError, TrainingError
from gradistill.models.probe import Probe
from gradistill.signals import CounterfactualLogits, CounterfactualTokens, EditedLogits
from gradistill.signals.counterfactual import edited_ids_of

MASK = 3
SIZES = (1, 2, 3, 4, 6, 8, 12)


def batch_of(rows: Any, tokens_a_word: int = 1, **known: Any) -> Batch:
    ids = rows["input_ids"]
    own = (ids != 0) & (torch.arange(ids.shape[1]) > 0)  # the first token is [CLS]
    words = torch.where(own, (own.cumsum(1) - 1) // tokens_a_word, -1)
    return Batch.of({**rows, "word_ids": words}, mask_token_id=MASK, token_pool=torch.arange(40, 64), **known)


def teacher_of(labels: int = 3, scale: float = 200.0) -> Any:
    """A model whose labels hang on its words: an untrained head hardly ever turns."""
    model = build("bert", labels=labels, initializer_range=0.3).double()
    with torch.no_grad():
        model.classifier.weight.mul_(scale)
    return model


def naive_edit(model: Any, batch: Batch, row: int, margin: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Word by word, one text at a time, with a hook and a backward pass of its own."""
    real = batch.mask[row]
    ids, words = batch.inputs["input_ids"][row][real], batch.word_numbers[row][real]
    layer, kept = model.get_submodule(Probe.find(model).embedding), []

    def logits_of(token_ids: torch.Tensor) -> torch.Tensor:
        return model(input_ids=token_ids[None], attention_mask=torch.ones_like(token_ids)[None]).logits[0]

    handle = layer.register_forward_hook(lambda _m, _i, output: kept.append(output))
    before = logits_of(ids)
    masked = torch.where(words >= 0, torch.tensor(MASK), ids)
    logits_of(masked)
    handle.remove()
    label = int(before.argmax())
    log_odds = before[label] - torch.cat([before[:label], before[label + 1 :]]).logsumexp(0)
    (gradient,) = torch.autograd.grad(log_odds, kept[0])
    change = (gradient[0] * (kept[1] - kept[0])[0]).sum(-1)
    count = int(words.max()) + 1
    order = sorted(range(count), key=lambda word: float(change.detach()[words == word].sum()))
    tried = []
    for size in (size for size in SIZES if size <= max(1, count // 2)):
        edit = ids.clone()
        for word in order[:size]:
            edit[words == word] = MASK
        logits = logits_of(edit).detach()
        rest = torch.cat([logits[:label], logits[label + 1 :]])
        if float(rest.max() - logits[label]) >= margin:
            return edit, logits
        tried.append((float(logits[label] - rest.logsumexp(0)), edit, logits))
    _, edit, logits = min(tried, key=lambda one: one[0])
    return edit, logits


@pytest.mark.parametrize("tokens_a_word", [1, 2])
@pytest.mark.parametrize("margin", [0.0, 1.0, 1e9], ids=["boundary", "default", "never"])
def test_a_naive_loop_finds_the_same_edit(margin: float, tokens_a_word: int) -> None:
    model = teacher_of()
    batch = batch_of(collated(rows=6, tokens=14), tokens_a_word)
    search = {"margin": margin}
    found = computed(model, CounterfactualTokens(**search), CounterfactualLogits(**search), batch=batch)
    ids, logits = found[CounterfactualTokens(**search)], found[CounterfactualLogits(**search)]
    turned = 0
    for row in range(len(batch)):
        edit, expected = naive_edit(model, batch, row, margin)
        assert ids[row, 0][batch.mask[row]].long().tolist() == edit.tolist()
        # float64; the padding of the batch changes the order of additions
        torch.testing.assert_close(logits[row], expected, rtol=1e-9, atol=1e-9)
        before = computed_label(model, batch, row)
        turned += int(expected.argmax()) != before
    assert margin == 1e9 or turned, "the test has no edit that turns the model"


def computed_label(model: Any, batch: Batch, row: int) -> int:
    inputs = {name: tensor[row : row + 1] for name, tensor in batch.inputs.items()}
    return int(model(**inputs).logits.argmax())


def test_a_student_predicts_the_teachers_edits_and_a_store_keeps_them() -> None:
    teacher, student = teacher_of(), build("bert", seed=5).double()
    batch, tokens = batch_of(collated()), CounterfactualTokens()
    teachers = computed(teacher, tokens, batch=batch)
    stored = teachers[tokens] * batch.mask[:, None]  # a store keeps real tokens alone
    batch = replace(batch, edited_ids=edited_ids_of({tokens: stored}, batch))
    assert batch.edited_ids is not None
    assert torch.equal(batch.edited_ids[~batch.mask], batch.inputs["input_ids"][~batch.mask])
    found = computed(student, EditedLogits(), batch=batch)[EditedLogits()]
    expected = student(input_ids=batch.edited_ids, attention_mask=batch.mask.long()).logits
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_other_tokens_stand_in_by_the_rows_own_draw() -> None:
    model, signal = teacher_of(), CounterfactualTokens(replacement="tokens")
    rows = collated(rows=4)
    whole = computed(model, signal, batch=batch_of(rows))[signal]
    turned = {name: tensor.flip(0) for name, tensor in rows.items()}
    assert torch.equal(whole.flip(0), computed(model, signal, batch=batch_of(turned))[signal])
    changed = whole[:, 0].long() != rows["input_ids"]
    assert changed.any(1).all()
    assert set(whole[:, 0][changed].long().tolist()) <= set(range(40, 64))


def test_texts_of_no_word_and_of_one() -> None:
    rows = {"input_ids": torch.tensor([[2, 0], [2, 9]]), "attention_mask": torch.tensor([[1, 0], [1, 1]])}
    found = computed(teacher_of(), CounterfactualTokens(), batch=batch_of(rows))[CounterfactualTokens()]
    assert found[:, 0].tolist() == [[2, 0], [2, MASK]]


def test_a_regression_takes_the_edit_with_the_lowest_score() -> None:
    model, batch = teacher_of(labels=1), batch_of(collated(1, tokens=12))
    found = computed(model, CounterfactualLogits(), batch=batch)[CounterfactualLogits()]
    before = model(**batch.inputs).logits
    assert (found < before).any()


def test_what_is_missing_is_named() -> None:
    model = build("bert")
    with pytest.raises(TrainingError, match="no edits that change the teacher's label"):
        computed(model, EditedLogits(), batch=batch_of(collated()))
    with pytest.raises(DataError, match="mask token"):
        computed(model, CounterfactualTokens(), batch=replace(batch_of(collated()), mask_token_id=None))
