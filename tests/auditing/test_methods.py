"""Attribution methods: each against Captum or a loop that knows nothing of batches."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIG
from captum.attr import LayerGradientXActivation
from datasets import Dataset

from families import build
from gradistill.auditing.methods import IntegratedGradients, all_methods, method, token_scores
from gradistill.auditing.predictions import predict_rows
from gradistill.batch import Batch
from gradistill.data import Collator, batching
from gradistill.data.batching import row_batches
from gradistill.data.token_pool import word_tokens
from gradistill.errors import DataError, ModelError, RecipeError
from gradistill.models.eval_mode import frozen_eval
from gradistill.models.probe import ProbedModel
from gradistill.signals import ForwardPass
from gradistill.signals.explained import explained_labels, explained_pass
from slow import slow
from small import WORDS
from wordpiece import tokenizer

LENGTHS = (9, 5, 7)
BLANK = 4


def rows_of(lengths: tuple[int, ...] = LENGTHS) -> Any:
    generator = torch.Generator().manual_seed(0)
    return Dataset.from_list(
        [
            {
                "input_ids": [2, *torch.randint(5, len(WORDS), (n - 2,), generator=generator).tolist(), 3],
                "attention_mask": [1] * n,
                "special_tokens_mask": [1, *[0] * (n - 2), 1],
                "length": n,
            }
            for n in lengths
        ]
    )


def model_of(family: str = "bert", labels: int = 3) -> Any:
    return build(family, labels=labels, attention="eager", initializer_range=0.3).double()


def forward_of(model: Any, rows: Any, collate: Any = None) -> tuple[ForwardPass, torch.Tensor]:
    probed, collate = ProbedModel.of(model), collate or Collator(tokenizer(WORDS))
    (some,) = row_batches(rows, collate, probed.device, tokens_at_once=4096)
    return explained_pass(probed, some.batch), some.own_tokens


def log_odds(logits: torch.Tensor, label: int) -> torch.Tensor:
    if logits.shape[-1] == 1:
        return logits[..., 0]
    others = [k for k in range(logits.shape[-1]) if k != label]
    return logits[..., label] - logits[..., others].logsumexp(-1)


def logits_of_row(
    model: Any, row: Any, embedding: torch.Tensor | None = None, ids: Any = None
) -> torch.Tensor:
    """Logits of one row, by the model's own forward."""
    given = {"input_ids": torch.tensor([row["input_ids"] if ids is None else ids])}
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    if embedding is None:
        return model(**given).logits
    handle = model.bert.embeddings.register_forward_hook(lambda *_: embedding)
    try:
        return model(**given).logits
    finally:
        handle.remove()


def embedded(model: Any, row: Any) -> torch.Tensor:
    return model.bert.embeddings(torch.tensor([row["input_ids"]])).detach()


def gradient(model: Any, row: Any, at: torch.Tensor, label: int) -> torch.Tensor:
    at = at.clone().requires_grad_()
    (found,) = torch.autograd.grad(log_odds(logits_of_row(model, row, at), label).sum(), at)
    return found


def named(name: str) -> Any:
    return method(name, **({"baseline": "zero"} if name == "integrated_gradients" else {}))


def by_hand(name: str, model: Any, row: Any, label: int) -> torch.Tensor:
    e = embedded(model, row)
    if name == "gradient_norm":
        return gradient(model, row, e, label).norm(dim=-1)[0]
    if name == "gradient_x_input":
        run = LayerGradientXActivation(lambda ids: log_odds(model(ids).logits, label), model.bert.embeddings)
        maps: Any = run.attribute(torch.tensor([row["input_ids"]]))
        return maps.norm(dim=-1)[0]
    if name == "integrated_gradients":
        run = CaptumIG(
            lambda x: log_odds(logits_of_row(model, {**row, "input_ids": [0] * x.shape[1]}, x), label)
        )
        maps = [
            run.attribute(e, torch.zeros_like(e), n_steps=50, method="gausslegendre", internal_batch_size=1)
        ]
        return maps[0].norm(dim=-1)[0]
    assert name == "occlusion"
    whole = log_odds(logits_of_row(model, row), label)
    drops = []
    for k in range(len(row["input_ids"])):
        ids = [BLANK if i == k else x for i, x in enumerate(row["input_ids"])]
        drops.append((whole - log_odds(logits_of_row(model, row, ids=ids), label)).abs())
    return torch.cat(drops)


@pytest.mark.parametrize("labels", [1, slow(2), 3])
@pytest.mark.parametrize("name", [n for n in all_methods() if n not in ("smoothgrad", "shapley")])
def test_each_method_is_its_formula(name: str, labels: int) -> None:
    model, rows = model_of(labels=labels), rows_of()
    with frozen_eval(model):
        forward, own = forward_of(model, rows)
        scores = named(name)(forward)
    by_length, labels_of = sorted(rows, key=lambda r: -r["length"]), explained_labels(forward)
    for row, at, label, mask in zip(by_length, scores, labels_of, forward.batch.mask, strict=True):
        torch.testing.assert_close(at[mask].detach(), by_hand(name, model, row, int(label)).detach(),
                                   rtol=1e-6, atol=1e-9)  # fmt: skip
    assert own.shape == scores.shape


@pytest.mark.parametrize("labels", [1, 3])
def test_shapley_values_of_words_by_their_definition(labels: int) -> None:
    model, words = model_of(labels=labels), [-1, 0, 0, 1, 2, 3, -1]  # a word of two tokens
    rows = rows_of((7,)).add_column("word_ids", [words])  # pyright: ignore[reportCallIssue]
    row = rows[0]
    with frozen_eval(model):
        forward, _ = forward_of(model, rows)
        signed, found = method("shapley").signed(forward), method("shapley")(forward)  # pyright: ignore
    label = int(explained_labels(forward)[0])

    def value(kept: set[int]) -> float:
        ids = [x if w in kept or w < 0 else BLANK for x, w in zip(row["input_ids"], words, strict=True)]
        return float(log_odds(logits_of_row(model, row, ids=ids), label).detach())

    gains, orders = np.zeros(4), list(permutations(range(4)))
    for order in orders:
        for place, word in enumerate(order):
            gains[word] += value({*order[: place + 1]}) - value({*order[:place]})
    gains /= len(orders)
    expected = [0, gains[0] / 2, gains[0] / 2, *gains[1:], 0]
    np.testing.assert_allclose(signed[0], expected, atol=1e-9)
    np.testing.assert_allclose(found[0], np.abs(expected), atol=1e-9)
    without = Batch.of({"input_ids": torch.tensor([row["input_ids"]])})
    assert without.word_ids is None
    with pytest.raises(RecipeError, match="1 or more"):
        method("shapley", pairs=0)


@pytest.mark.parametrize("name", all_methods())
def test_signed_scores_are_those_of_the_vectors_summed(name: str) -> None:
    model, rows = model_of(), rows_of()
    with frozen_eval(model):
        forward, _ = forward_of(model, rows)
        scores, signed = token_scores(named(name), forward)
        alone = named(name)(forward)
    torch.testing.assert_close(scores, alone)
    if name in ("gradient_norm", "smoothgrad"):
        assert signed is None
        return
    assert signed is not None
    assert (signed.abs() <= scores * forward.embedding.shape[-1] ** 0.5 + 1e-9).all()  # |sum| ≤ √D · norm


def test_smoothgrad_is_the_mean_of_noisy_gradients() -> None:
    model, rows = model_of(), rows_of((8,))
    with frozen_eval(model):
        forward, _ = forward_of(model, rows)
        found = method("smoothgrad", samples=3, noise=0.2)(forward)
        number = int.from_bytes(sha256(f"0 {rows[0]['input_ids']}".encode()).digest()[:7], "big")
        e, generator, total = embedded(model, rows[0]), torch.Generator().manual_seed(number), 0
        for _ in range(3):
            noise = torch.randn(e.shape[1:], generator=generator).to(e) * 0.2 * (e.max() - e.min())
            total = total + gradient(model, rows[0], e + noise, int(explained_labels(forward)[0]))
    torch.testing.assert_close(found[0], (total / 3).norm(dim=-1)[0])
    with frozen_eval(model):
        still_gradient = method("smoothgrad", samples=2, noise=0.0)(forward)
    torch.testing.assert_close(still_gradient, method("gradient_norm")(forward))


@pytest.mark.parametrize("baseline", ["padding", "mask", "tokens"])
def test_paths_of_integrated_gradients_start_at_texts_without_their_words(
    baseline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows, starts = model_of(), rows_of((8,)), []
    embedding_of = ForwardPass.embedding_of

    def seen(self: ForwardPass, ids: torch.Tensor) -> torch.Tensor:
        starts.append(ids[0].tolist())
        return embedding_of(self, ids)

    monkeypatch.setattr(ForwardPass, "embedding_of", seen)
    pool = torch.tensor([7, 11])
    with frozen_eval(model):
        batch = replace(forward_of(model, rows)[0].batch, token_pool=pool)
        forward = explained_pass(ProbedModel.of(model), batch)
        found = IntegratedGradients(24, baseline=baseline, draws=3).attributions(forward)
    words = {"padding": {0}, "mask": {BLANK}, "tokens": set(pool.tolist())}[baseline]
    assert len(starts) == (3 if baseline == "tokens" else 1)
    assert {token for start in starts for token in start[1:-1]} == words
    assert all((start[0], start[-1]) == (2, 3) for start in starts)  # special tokens stay
    label, run = int(explained_labels(forward)[0]), CaptumIG(
        lambda x: log_odds(logits_of_row(model, {**rows[0], "input_ids": [0] * x.shape[1]}, x), label)
    )  # fmt: skip
    expected: list[torch.Tensor] = []
    for start in starts:
        origin = embedded(model, {"input_ids": start})
        at = run.attribute(
            embedded(model, rows[0]), origin, n_steps=24 // len(starts), method="gausslegendre",
            internal_batch_size=1,
        )  # fmt: skip
        expected.append(at)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(found.attributions, torch.stack(expected).mean(0), rtol=1e-6, atol=1e-9)
    assert found.nodes.tolist() == [24]


@pytest.mark.parametrize(
    "family", ["roberta", "xlm_roberta", "camembert", "mpnet", "bert", "gpt2", "modernbert"]
)
@pytest.mark.parametrize("baseline", ["padding", "mask", "tokens"])
def test_special_tokens_are_the_same_at_both_ends_of_a_path(family: str, baseline: Any) -> None:
    """RoBERTa counts the tokens that are no padding: padding in the place of words must not move the others."""
    model, rows = model_of(family), rows_of()
    collate = Collator(tokenizer(WORDS), token_pool=torch.tensor([7, 11]))
    with frozen_eval(model):
        probed = ProbedModel.of(model)
        (some,) = row_batches(rows, collate, probed.device, tokens_at_once=4096, draws=True)
        forward = explained_pass(probed, some.batch)
        found = IntegratedGradients(2, baseline=baseline).attributions(forward).attributions
    assert not found[some.batch.word_numbers < 0].any()
    assert found[some.batch.word_numbers >= 0].any()


def test_a_pool_holds_no_special_tokens_and_none_that_a_model_cannot_read() -> None:
    made = tokenizer(WORDS)
    found = word_tokens(["[MASK]", "film", "[PAD]", "fine"], made)
    assert found is not None
    assert found.tolist() == made.convert_tokens_to_ids(["film", "fine"])
    model, rows = model_of(), rows_of()
    pool = torch.tensor([7, model.get_input_embeddings().num_embeddings])
    predict_rows(
        model, rows, Collator(made, token_pool=pool), method=IntegratedGradients(4, baseline="tokens")
    )


def test_a_baseline_that_cannot_be_is_refused() -> None:
    model, plain = model_of(), Collator(tokenizer(WORDS))
    wordless = rows_of().remove_columns("special_tokens_mask")
    for baseline, rows, match in (
        ("mask", rows_of(), "'mask' needs word ids"),
        ("tokens", wordless, "'tokens' needs word ids"),
    ):
        with frozen_eval(model):
            probed = ProbedModel.of(model)
            (some,) = row_batches(rows, lambda r: plain(r), probed.device, tokens_at_once=4096)
            with pytest.raises(DataError, match=match):
                method("integrated_gradients", baseline=baseline)(explained_pass(probed, some.batch))


def test_paths_from_tokens_share_the_steps_and_have_8_nodes_where_there_are_so_many() -> None:
    rows, pool = rows_of((8,)), Collator(tokenizer(WORDS), token_pool=torch.tensor([7, 11]))
    model = model_of()
    with frozen_eval(model):
        probed = ProbedModel.of(model)
        (some,) = row_batches(rows, pool, probed.device, tokens_at_once=4096, draws=True)
        for steps, nodes in ((1, 1), (4, 4), (15, 15), (17, 16), (24, 24), (50, 48)):
            found = IntegratedGradients(steps, baseline="tokens").attributions(
                explained_pass(probed, some.batch)
            )
            assert found.nodes.tolist() == [nodes]
    paths = {
        steps: IntegratedGradients(steps, baseline="tokens")._paths for steps in (1, 15, 17, 24, 50, 500)
    }
    assert paths == {1: 1, 15: 1, 17: 2, 24: 3, 50: 6, 500: 6}


def test_tokens_are_drawn_from_those_of_the_collator_or_else_of_the_rows() -> None:
    model, rows, by_tokens = model_of(), rows_of(), IntegratedGradients(6, baseline="tokens")
    ids = [token for row in rows for token in row["input_ids"][1:-1]]
    own, given, other = (
        predict_rows(model, rows, Collator(tokenizer(WORDS), token_pool=pool), method=by_tokens).maps
        for pool in (None, torch.tensor(ids), torch.tensor([7]))
    )
    for one, same, changed in zip(own, given, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.allclose(one, changed)


@pytest.mark.parametrize("family", ["bert", slow("gpt2")])
@pytest.mark.parametrize("name", [*all_methods(), "mask", "tokens"])
def test_company_and_order_change_nothing(name: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row's map is the same alone and in a batch with longer rows, in any order and on either side's padding."""
    model, rows = model_of(family), rows_of()
    collate = Collator(tokenizer(WORDS), token_pool=torch.arange(5, 12))
    smaller = {
        "tokens": IntegratedGradients(6, baseline="tokens", draws=2),
        "mask": IntegratedGradients(6, baseline="mask"),
        "integrated_gradients": IntegratedGradients(6, baseline="zero"),
        "smoothgrad": method("smoothgrad", samples=4),
    }
    used = smaller.get(name) or named(name)
    together = predict_rows(model, rows, collate, method=used)
    assert [len(m) for m in together.maps] == [n - 2 for n in LENGTHS]
    assert all((m >= 0).all() for m in together.maps)
    for place, row in enumerate(rows):
        apart = predict_rows(model, Dataset.from_list([row]), collate, method=used)
        np.testing.assert_allclose(apart.maps[0], together.maps[place], rtol=1e-5, atol=1e-8)
    monkeypatch.setattr(batching, "ON_CPU", 14)
    turned = predict_rows(model, rows.select([2, 0, 1]), collate, method=used)
    for place, scores in zip((2, 0, 1), turned.maps, strict=True):
        np.testing.assert_allclose(scores, together.maps[place], rtol=1e-5, atol=1e-8)


def test_smoothgrads_noise_changes_with_the_seed_and_the_row() -> None:
    model, rows = model_of(), rows_of((8, 8))
    collate = Collator(tokenizer(WORDS))
    first, again, other = (
        predict_rows(model, rows, collate, method=method("smoothgrad", noise=0.5, samples=2, seed=seed)).maps
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.allclose(first[0], other[0])
    generators = [method("smoothgrad")._generator(row["input_ids"]) for row in rows]
    drawn = [torch.randn(3, generator=generator) for generator in generators]
    assert not torch.equal(*drawn)


def test_unknown_methods_and_options_are_refused() -> None:
    with pytest.raises(RecipeError, match="did you mean 'occlusion'"):
        method("oclusion")
    with pytest.raises(RecipeError, match="has no option steps"):
        method("occlusion", steps=3)
    for name, options in (("integrated_gradients", {"steps": 0}), ("smoothgrad", {"samples": 0})):
        with pytest.raises(RecipeError, match="or more"):
            method(name, **options)


def test_without_a_mask_token_words_cannot_be_taken_away() -> None:
    model, rows = model_of(), rows_of()
    plain = Collator(tokenizer(WORDS))
    with frozen_eval(model):
        forward, _ = forward_of(model, rows, lambda r: plain(r))
        with pytest.raises(ModelError, match="replaces an erased word"):
            method("occlusion")(forward)
