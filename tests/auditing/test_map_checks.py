"""Infidelity, max-sensitivity and the check by random weights: closed forms and naive loops."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from families import build
from gradistill.auditing.map_checks import (
    CheckedRows,
    agreement_when_random,
    check_columns,
    max_sensitivity,
    random_map_warnings,
    removals,
)
from gradistill.auditing.methods import method
from gradistill.auditing.methods.gradient_x_input import GradientXInput
from gradistill.auditing.predictions import predict_rows
from gradistill.auditing.statistics import Estimate
from gradistill.batch import Batch
from gradistill.data import Collator, encode, load_splits
from gradistill.models.loading import load_tokenizer
from gradistill.models.probe import Probe, ProbedModel
from gradistill.models.random_head import head_parameters, randomised
from gradistill.signals import ForwardPass, Needs
from gradistill.signals.explained import EXPLAINED_TARGET


class OfEmbeddings(nn.Module):
    """Two logits, 0 and a polynomial of the summed products of embeddings and weights of each place."""

    def __init__(self, power: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embeddings = nn.Embedding(20, 4, _weight=torch.randn(20, 4, generator=generator).double())
        self.weights = torch.randn(6, 4, generator=generator).double()
        self.power = power

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        products = (
            self.embeddings(input_ids) * self.weights[: input_ids.shape[1]] * attention_mask[..., None]
        ).sum((1, 2))
        return SimpleNamespace(logits=torch.stack([torch.zeros_like(products), products**self.power], dim=1))


def forward_of(power: int) -> ForwardPass:
    model = OfEmbeddings(power)
    probe = Probe(
        embedding="embeddings", embedding_parameters=("embeddings.weight",), layers=1, width=4, labels=2,
        reads="first", trim=None, heads=0, attention_width=0, full_length=True,
    )  # fmt: skip
    batch = Batch.of(
        {"input_ids": torch.arange(12).view(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.long)},
        teacher_labels=torch.tensor([1, 1]),
    )
    return ForwardPass.run(model, probe, batch, Needs(targets=(EXPLAINED_TARGET,)))


REMOVED = torch.rand(2, 8, 6, generator=torch.Generator().manual_seed(1)) < 0.5


def test_a_linear_model_has_no_infidelity() -> None:
    forward = forward_of(1)
    attributions = GradientXInput().attributions(forward).attributions.sum(-1)
    predicted, actual = removals(forward, attributions, REMOVED)
    assert predicted.numpy() == pytest.approx(actual.numpy(), abs=1e-12)
    assert actual.abs().max() > 0.1


def test_what_a_square_adds() -> None:
    """F = s², so gradient × input predicts 2 s r for a removed r of the sum s; the change is s² − (s − r)²."""
    forward = forward_of(2)
    attributions = GradientXInput().attributions(forward).attributions.sum(-1)
    predicted, actual = removals(forward, attributions, REMOVED)
    model: Any = forward.model
    products = (model.embeddings(forward.batch.inputs["input_ids"]) * model.weights).sum(-1).detach()
    r = (products[:, None] * REMOVED).sum(-1)
    assert (predicted - actual).numpy() == pytest.approx((r**2).numpy(), abs=1e-9)


def test_gradients_of_a_linear_model_are_not_sensitive() -> None:
    noise = 0.1 * torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(2)).double()
    own = torch.ones(2, 6, dtype=torch.bool)
    constant = max_sensitivity(forward_of(1), method("gradient_norm"), own, noise)
    assert constant.numpy() == pytest.approx(0, abs=1e-12)
    forward = forward_of(1)
    found = max_sensitivity(forward, GradientXInput(), own, noise)
    model: Any = forward.model
    first = (forward.embedding * model.weights).norm(dim=-1)
    moved = ((forward.embedding.unsqueeze(1) + noise) * model.weights).norm(dim=-1)
    wanted = (moved - first.unsqueeze(1)).norm(dim=-1).amax(1) / first.norm(dim=-1)
    assert found.numpy() == pytest.approx(wanted.numpy(), abs=1e-12)


@pytest.fixture(scope="module")
def checked(small: Any) -> CheckedRows:
    source, pieces = small.choice("two"), load_tokenizer(str(small.teachers["two"]))
    splits = load_splits(source.source, splits=("train",), label_column="label", text_columns=("text",))
    rows = splits.rows["train"]
    encoded = encode(rows, pieces, splits.task).dataset
    return CheckedRows(encoded, Collator(pieces), np.arange(len(rows)) % 2, rows["index"][:])


def model_of(spread: float = 0.5) -> ProbedModel:
    return ProbedModel.of(build("bert", labels=2, initializer_range=spread).double())


def test_a_row_does_not_depend_on_the_others(checked: CheckedRows) -> None:
    model, found = model_of(), {}
    found = check_columns(model, GradientXInput(), checked)
    assert found.keys() == {"infidelity_error", "infidelity_change", "max_sensitivity"}
    some = replace(
        checked, rows=checked.rows.select([7, 2]), labels=checked.labels[[7, 2]],
        numbers=[checked.numbers[k] for k in (7, 2)],
    )  # fmt: skip
    for name, values in check_columns(model, GradientXInput(), some).items():
        assert values == pytest.approx(found[name][[7, 2]], rel=1e-6)
        assert (values > 0).all()


def test_each_method_has_what_it_can(checked: CheckedRows) -> None:
    few = replace(checked, rows=checked.rows.select(range(2)), labels=checked.labels[:2])
    methods = (method("integrated_gradients", steps=4), method("smoothgrad", samples=2), method("occlusion"))
    found = {one.name: set(check_columns(model_of(), one, few)) for one in methods}
    assert found["integrated_gradients"] == {"infidelity_error", "infidelity_change", "max_sensitivity"}
    assert found["smoothgrad"] == {"max_sensitivity"}
    assert found["occlusion"] == set()


def test_random_weights_change_what_depends_on_them(checked: CheckedRows) -> None:
    model = model_of()
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    found = agreement_when_random(model, GradientXInput(), checked)
    assert found.keys() == {"head", "blocks"}
    after = model.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    own = predict_rows(model, checked.rows, checked.collate, labels=checked.labels).maps
    loop = []
    for seed in range(3):
        with randomised(model.model, head_parameters(model.model), seed):
            random = predict_rows(model, checked.rows, checked.collate, labels=checked.labels).maps
        loop += [spearmanr(a, b)[0] for a, b in zip(own, random, strict=True)]
    assert found["head"].value == pytest.approx(np.mean(loop))
    assert found["blocks"].n == len(checked.rows)


def test_a_map_of_embeddings_alone_never_changes(checked: CheckedRows) -> None:
    class EmbeddingNorm(GradientXInput):
        name, title, source = "embedding_norm", "norm of the embedding", ""

        def attributions(self, forward: ForwardPass, *, rows_at_once: int | None = None) -> Any:
            found = super().attributions(forward, rows_at_once=rows_at_once)
            return found._replace(attributions=forward.embedding)

    found = agreement_when_random(model_of(), EmbeddingNorm(), checked)
    assert found["head"].value == pytest.approx(1)
    assert found["blocks"].value == pytest.approx(1)
    (warning,) = random_map_warnings(found, EmbeddingNorm())
    assert "norm of the embedding of the teacher hardly changes" in warning
    assert not random_map_warnings(
        {"head": found["head"], "blocks": Estimate(0.69, 0.6, 0.8, 9)}, EmbeddingNorm()
    )


def test_a_shared_block_has_no_cascade(checked: CheckedRows) -> None:
    model = ProbedModel.of(build("albert", labels=2, initializer_range=0.5).double())
    assert agreement_when_random(model, GradientXInput(), checked).keys() == {"head"}
