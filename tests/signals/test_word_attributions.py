"""Attributions summed to words: against a loop over tokens and words, for an encoder and a decoder, in float64."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from byte_level import byte_level
from families import build
from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.data import Collator, encode
from gradistill.data.tasks import inferred_task
from gradistill.models.probe import Probe
from gradistill.objectives import AttributionMap, EpochProgress
from gradistill.signals import WordScores, WordsRead, compute_signals
from gradistill.signals.word_attributions import share_outside_words, summed_by_word

ROWS = [("the film  was unfathomably fine", "isn't it?"), ("dull", "a naïve, over-long one")]
TASK = inferred_task(("text", "other"), ("no", "maybe", "yes"), "")
TARGET = Target("log_odds", "all")


def rows_of(texts: list[tuple[str, str]]) -> Dataset:
    columns = {name: [row[k] for row in texts] for k, name in enumerate(TASK.text_columns)}
    return Dataset.from_dict(columns | {"label": [0] * len(texts), "index": list(range(len(texts)))})


@pytest.mark.parametrize("family", ["bert", "qwen3"])
@pytest.mark.parametrize("signed", [False, True])
def test_they_are_what_a_loop_over_tokens_adds_up(family: str, signed: bool) -> None:
    sizes = {"vocab_size": 300, "pad_token_id": 1}
    tokenizer, model = byte_level(), build(family, **sizes).double().eval()
    encoded = encode(rows_of(ROWS), tokenizer, TASK, max_length=60, words=tokenizer).dataset
    batch = Batch.of(Collator(tokenizer)([encoded[k] for k in range(2)]))
    probe, signal = Probe.find(model), WordScores(TARGET, signed=signed)
    found = compute_signals(model, probe, batch, [signal, WordsRead()], create_graph=False)
    for row, texts in enumerate(ROWS):
        expected = loop(model, probe.embedding, tokenizer, texts)
        count = expected.shape[1]
        assert found[WordsRead()][row].tolist() == [1.0] * count + [0.0] * (found[signal].shape[2] - count)
        own = found[signal][row, :, :count].numpy()
        expected = expected if signed else np.abs(expected)
        exact = {"rtol": 1e-9, "atol": 1e-14} if family == "bert" else {"rtol": 1e-4, "atol": 1e-8}
        np.testing.assert_allclose(own, expected, **exact)  # norms of Qwen3 compute in float32


def loop(model: Any, embedding: str, tokenizer: Any, texts: tuple[str, str]) -> np.ndarray:
    """``(label, word)``: gradient × input of one row, token by token, added to the word that its characters are in."""
    encoded = tokenizer(*texts, return_offsets_mapping=True)
    kept: list[Any] = []

    def hook(_module: Any, _arguments: Any, output: Any) -> Any:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    handle = model.get_submodule(embedding).register_forward_hook(hook)
    logits = model(input_ids=torch.tensor([encoded["input_ids"]])).logits[0]
    handle.remove()
    spans = [(k, *match.span()) for k, text in enumerate(texts) for match in re.finditer(r"\S+", text)]
    sums = np.zeros((3, len(spans)))
    for label in range(3):
        rest = torch.cat([logits[:label], logits[label + 1 :]])
        (gradient,) = torch.autograd.grad(
            logits[label] - torch.logsumexp(rest, 0), kept[0], retain_graph=True
        )
        for place, (start, end) in enumerate(encoded["offset_mapping"]):
            value = float((gradient[0, place] * kept[0][0, place].detach()).sum())
            for word, (segment, first, last) in enumerate(spans):
                if encoded.sequence_ids(0)[place] == segment and start < last and end > first:
                    sums[label, word] += value
    return sums


def test_a_word_that_is_cut_off_is_not_read() -> None:
    tokenizer, rows = byte_level(), rows_of([("fine fine", "unfathomably fine")])
    whole = encode(rows, tokenizer, TASK, max_length=60, words=True).dataset["word_ids"][0]
    assert whole.count(2) > 3  # tokens of the long word
    for length in (8, 12, len(whole) - 1, len(whole)):
        cut = encode(rows, tokenizer, TASK, max_length=length, words=True).dataset["word_ids"][0]
        left = encode(rows, tokenizer, TASK, max_length=length, words=tokenizer).dataset["word_ids"][0]
        assert left == [word if cut.count(word) == whole.count(word) else -1 for word in cut]


def test_words_that_either_model_cuts_off_do_not_count() -> None:
    torch.manual_seed(0)
    scores = [torch.rand(2, 3, 5) for _ in range(3)]
    read = (
        torch.tensor([[1.0, 1, 1, 0, 1], [1, 1, 0, 0, 0]]),
        torch.tensor([[1.0, 0, 1, 1, 1], [1, 1, 1, 1, 0]]),
    )
    batch, objective = Batch({}, torch.ones(2, 9, dtype=torch.bool)), AttributionMap()
    theirs = {"scores": scores[1], "words": read[1]}
    both = (read[0] * read[1]).bool().unsqueeze(1)
    changed = torch.where(both, scores[0], scores[2])
    distances = [
        objective.distance({"scores": own, "words": read[0]}, theirs, batch, EpochProgress())
        for own in (scores[0], changed)
    ]
    assert torch.equal(*distances)
    expected = torch.zeros(2)
    for row in range(2):
        for view in range(3):
            ours, others = (scores[k][row, view][both[row, 0]] for k in (0, 1))
            expected[row] += (ours / ours.norm() - others / others.norm()).square().sum()
    torch.testing.assert_close(distances[0], expected)


def test_the_share_outside_words() -> None:
    scores = torch.tensor([[[1.0, -2, 3, -4, 9]], [[0, 0, 0, 0, 0]]])
    words = torch.tensor([[-1, 0, 0, -1, -1], [-1, 0, 1, -1, -1]])
    mask = torch.tensor([[1, 1, 1, 1, 0]] * 2).bool()
    assert share_outside_words(scores, words, mask).tolist() == [0.5, 0]
    assert summed_by_word(scores, words)[0].tolist() == [[1.0, 0.0]]
