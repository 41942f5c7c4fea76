"""Words with a label each: which of them are explained, and what a store keeps of them."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import transformers as tr

from families import FAMILIES, collated
from gradistill.attribution.word_targets import WORD_SETS, WordTarget
from gradistill.batch import Batch
from gradistill.models.probe import Probe
from gradistill.signals import AttributionScores, InputGradient, compute_signals
from gradistill.signals.explained_words import drawn_places
from gradistill.training.lazy_terms import drawn_for

WORDS = torch.tensor([[-1, 0, 0, 1, 2, 2, -1], [-1, 0, 1, 1, -1, -1, -1], [-1, -1, -1, -1, -1, -1, -1]])
FIRST = [{1, 3, 4}, {1, 2}, set()]


def batch() -> Batch:
    return Batch.of({**collated(), "labels": torch.full((3, 7), -100), "word_ids": WORDS})


def test_the_words_of_a_row_are_drawn_once_and_the_rest_is_left_out() -> None:
    places = drawn_places(batch(), torch.zeros(3, 7, dtype=torch.long), 3, range(WORD_SETS))
    assert places.shape == (3, 3 * WORD_SETS)
    for row, first in enumerate(FIRST):
        for of_set in places[row].split(3):
            assert sorted(of_set.tolist(), key=lambda place: (place == 0, place)) == [
                *sorted(first), *[0] * (3 - len(first)),
            ]  # fmt: skip
    assert len({tuple(of_set.tolist()) for of_set in places[0].split(3)}) > 1, "sets differ"


def test_labels_take_turns() -> None:
    """Thirty words, two of them in spans: each label comes as often as another, and all before one comes again."""
    labels = torch.zeros(200, 31, dtype=torch.long)
    labels[:, 7], labels[:, 19] = 1, 2
    ids = torch.arange(200 * 31).view(200, 31)
    words = torch.cat([torch.full((200, 1), -1), torch.arange(30).expand(200, -1)], dim=1)
    many = Batch.of({"input_ids": ids, "attention_mask": torch.ones_like(ids), "word_ids": words})
    places = drawn_places(many, labels, 4, [0])
    drawn = labels.gather(1, places)
    assert all({*row[:3]} == {0, 1, 2} and row[3] == 0 for row in drawn.tolist())
    first = drawn[:, 0].bincount(minlength=3)
    assert first.min() > 40  # of 200 a third each; 40 is four standard deviations below
    assert {*places[:, 3].tolist()} >= {1, 30}
    assert torch.equal(places[50:60], drawn_places(many.rows(torch.arange(50, 60)), labels[50:60], 4, [0]))


@pytest.mark.parametrize("view", ["all", "teacher", "sampled"])
def test_a_store_keeps_the_words_of_every_set(view: str) -> None:
    """What is computed in an epoch is what is read of a store."""
    torch.manual_seed(0)
    config = FAMILIES["bert"][0](**{**FAMILIES["bert"][1], "num_labels": 3, "initializer_range": 0.2})
    model = tr.AutoModelForTokenClassification.from_config(config).eval()
    probe, rows = Probe.find(model), batch()
    target = WordTarget("log_odds", view, words=2)  # pyright: ignore[reportArgumentType]
    signals = [AttributionScores(target), InputGradient(target)]
    kept = [signal.stored_as() for signal in signals]
    stored = compute_signals(copy.deepcopy(model), probe, rows, kept, create_graph=False)
    for epoch in (0, 3, 5):
        now = replace(rows, drawn=drawn_for(rows, 3, epoch, epoch=epoch))
        computed = compute_signals(model, probe, now, signals, create_graph=False)
        for signal, column in zip(signals, kept, strict=True):
            read = signal.from_stored(stored[column], now)
            torch.testing.assert_close(read, computed[signal], rtol=1e-3, atol=1e-6)  # float32
            assert stored[column].shape[1] == column.layout(probe).shape[0]
